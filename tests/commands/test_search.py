"""Tiny real runs of `search`: numbers, resuming after interrupts and a kill, and who takes the result."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from adanat_rl.cli import main
from adanat_rl.config.files import read_json_lines
from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import assets_folder
from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.evaluation.reference import load_references
from adanat_rl.experiment.build import build_scene
from adanat_rl.generation.masked.schedules import load_schedule
from adanat_rl.generation.policies.base import SchedulePolicy
from tests import tiny
from tests.experiment.waiting import wait_for

TINY = (
    "search.num_generations=2",
    "search.population=4",
    "search.num_seeds=2",
    "evaluation.num_images=32",
    "resources.driver_threads=1",
)
NUM_TRIALS = 2 * 4 + (2 + 2) * 2
RESULTS = ("search.jsonl", "schedule.json", "search.json")


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> str:
    found = main(["search", *map(str, arguments)])
    captured = capsys.readouterr()
    assert found == status, captured.out + captured.err
    return captured.err if status in (1, 2) else captured.out


def results(folder: Path) -> dict[str, bytes]:
    """What a search comes to; the reference file names the command besides."""
    return {name: (folder / name).read_bytes() for name in RESULTS}


def copied(searched: Path, tmp_path: Path) -> Path:
    """A finished search that may be changed."""
    return shutil.copytree(searched, tmp_path / "copied")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that was never interrupted."""
    folder = tmp_path_factory.mktemp("searches") / "whole"
    assert main(["search", *TINY, "--quiet", "--run-dir", str(folder)]) == 0
    return folder


def test_the_files_hold_what_an_evaluator_finds(searched: Path) -> None:
    summary = json.loads((searched / "search.json").read_text())
    evaluator = build_scene(resolve("digits", overrides=TINY)).evaluator
    schedule = load_schedule(searched / "schedule.json", horizon=4)
    for rows, key in ((schedule, "distance"), (np.array(summary["base_schedule"]), "distance_before")):
        policy = SchedulePolicy(torch.from_numpy(rows).float())
        values = [evaluator.distance(policy, seed) for seed in summary["image_seeds"]]
        assert values == summary[key]["values"]
        assert summary[key]["mean"] == pytest.approx(sum(values) / 2)
        assert summary[key]["sd"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert summary["distance"]["mean"] <= summary["distance_before"]["mean"]
    assert (summary["num_values"], summary["num_evaluated"]) == (14, 8)
    rows = read_json_lines(searched / "search.jsonl")
    assert [row["stage"] for row in rows] == ["search"] * 8 + ["finalists"] * 8
    assert {row["image_seed"] for row in rows[8:]} == set(summary["image_seeds"])
    first = SchedulePolicy(torch.tensor(rows[0]["schedule"]))
    assert evaluator.distance(first, rows[0]["image_seed"]) == rows[0]["distance"]


def test_the_reference_file_is_the_schedule_with_its_numbers(searched: Path) -> None:
    references = load_references(searched / "reference.json")
    (baseline,) = references.baselines
    assert references.dataset == "digits"
    schedule = load_schedule(searched / "schedule.json")
    np.testing.assert_allclose(baseline.decisions, schedule, rtol=0, atol=5.1e-6, err_msg="five decimals are stored")
    summary = json.loads((searched / "search.json").read_text())
    assert baseline.numbers["fd_a"]["mean"] == summary["distance"]["mean"]
    assert (baseline.title, baseline.how) == (
        "static, T = 4, searched",
        "CMA-ES over all 14 values with an effect, 8 schedules tried",
    )


def test_the_same_command_again_shows_the_result_and_changes_nothing(
    capsys, monkeypatch, tmp_path: Path, searched: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    folder = copied(searched, tmp_path)
    printed = call(capsys, *TINY, "--run-dir", folder)
    assert f"{NUM_TRIALS} of {NUM_TRIALS} evaluations are done" in printed
    assert "the search is complete; more with search.num_generations" in printed
    assert "temperature" in printed, "the table"
    assert results(folder) == results(searched)


def test_a_search_goes_on_with_more_generations_and_seeds(capsys, tmp_path: Path, searched: Path) -> None:
    folder, less = tmp_path / "run", ("search.num_generations=1", "search.num_seeds=1")
    call(capsys, *TINY, *less, "--quiet", "--run-dir", folder)
    done = 4 + 3
    printed = call(capsys, *TINY, "--log-json", "evaluation.batch_size=16", "evaluation.seed=5", "--run-dir", folder)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert f"{done} of {NUM_TRIALS} evaluations are done" in lines[0]["message"]
    assert lines[-1]["search"]["num_generations"] == 2
    assert (folder / "schedule.json").read_bytes() == (searched / "schedule.json").read_bytes()
    assert (folder / "search.json").read_bytes() == (searched / "search.json").read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_search_in_an_evaluation_and_the_same_command_goes_on(
    capsys, monkeypatch, tmp_path: Path, searched: Path, number: signal.Signals, status: int
) -> None:
    folder, evaluated = tmp_path / "run", Evaluator.distance
    calls = []

    def signalled(self: Evaluator, policy: SchedulePolicy, seed: int) -> float:
        calls.append(seed)
        if len(calls) == 6:
            signal.raise_signal(number)
        return evaluated(self, policy, seed)

    monkeypatch.setattr(Evaluator, "distance", signalled)
    printed = call(capsys, *TINY, "--run-dir", folder, status=status)
    assert f"stopped after 5 of {NUM_TRIALS} evaluations, all kept; go on with: adanat-rl search {TINY[0]}" in printed
    assert not (folder / "schedule.json").exists()
    assert len(read_json_lines(folder / "search.jsonl")) == 5
    printed = call(capsys, *TINY, "--run-dir", folder)
    assert f"5 of {NUM_TRIALS} evaluations are done" in printed
    assert len(calls) == NUM_TRIALS + 1, "nothing but the interrupted one is evaluated twice"
    assert results(folder) == results(searched)


def test_a_search_whose_networks_were_replaced_is_refused(capsys, tmp_path: Path, searched: Path) -> None:
    folder = copied(searched, tmp_path)
    contents = json.loads((folder / "contents.json").read_text())
    (folder / "contents.json").write_text(json.dumps({**contents, "generator.nat": "0" * 64}))
    printed = call(capsys, *TINY, "--run-dir", folder, status=2)
    assert "generator.nat has other content than before" in printed
    (folder / "contents.json").write_text("{")
    assert "contents.json is damaged" in call(capsys, *TINY, "--run-dir", folder, status=2)


def test_killed_the_same_command_gives_the_same_search(capsys, tmp_path: Path, searched: Path) -> None:
    folder, num_done = tmp_path / "run", 6
    process = tiny.start("search", *TINY, "--run-dir", str(folder))
    wait_for(lambda: len(read_json_lines(folder / "search.jsonl")) >= num_done, process)
    process.kill()
    process.communicate()
    assert not (folder / "search.json").exists()
    call(capsys, *TINY, "--run-dir", folder)
    assert results(folder) == results(searched)


def test_a_torn_history_file_is_made_again_from_the_study(capsys, tmp_path: Path, searched: Path) -> None:
    folder = copied(searched, tmp_path)
    text = (folder / "search.jsonl").read_text()
    (folder / "search.jsonl").write_text(text[: len(text) // 2])
    (folder / "search.json").unlink()
    call(capsys, *TINY, "--quiet", "--run-dir", folder)
    assert results(folder) == results(searched)


def test_wrong_input_is_one_line(capsys, tmp_path: Path, searched: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "config.yaml").write_text("")
    odd = copied(searched, tmp_path)
    (odd / "study.db").write_bytes(b"no database at all" * 100)
    short = tmp_path / "short.json"
    short.write_text("[[0.5, 1, 1, 1]]")
    new = ("--run-dir", tmp_path / "new")
    cases = [
        (("--run-dir", tmp_path / "training"), "holds other files and is no search folder"),
        (("--run-dir", searched, "search.sigma=0.5"), "belongs to another search: search.sigma is 0.4 there and 0.5"),
        (("--run-dir", searched, "generator.horizon=3"), "another search: generator.horizon is 4 there and 3 here"),
        (("--run-dir", searched, "evaluation.num_images=40"), "evaluation.num_images is 32 there and 40 here"),
        (("--run-dir", odd), "study.db is no study of this search (file is not a database)"),
        ((*new, f"decisions.base.file={short}"), "short.json has shape [1, 4], expected 4 rows of 4 numbers"),
        ((*new, "search.population=1"), "search.population: 1 is not accepted"),
        ((*new, "generator.nat=nowhere"), "generator.nat: no such file: "),
        (("--run-dir", tmp_path / "one", "generator.horizon=1", "decisions.learned=[guidance_scale]"), "at least 2"),
        ((*new, "--dry-rnu"), "did you mean '--dry-run'?"),
    ]
    for arguments, expected in cases:
        printed = call(capsys, *TINY, *arguments, status=2)
        assert len(printed.strip().splitlines()) == 1, arguments
        assert expected in printed, arguments
    assert not (tmp_path / "new").exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = call(capsys, "--preset", "digits", "--dry-run", "decisions.learned=[mask_ratio, guidance_scale]")
    assert yaml.safe_load(printed)["search"]["population"] == 16
    assert (
        "# search: 7 values in 4 steps; 60 generations of 16 schedules, then 10 finalists on 8 image seeds: "
        "1040 evaluations of 1797 images\n"
    ) in printed
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_not_that_of_a_training(capsys, monkeypatch, tmp_path: Path, searched: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "adanat_rl.experiment.searching.search", lambda config, path, again, stop, **options: print(path) or 130
    )
    assert call(capsys, "name=mine", status=130).strip() == "runs/mine-search"
    folder = copied(searched, tmp_path)
    assert main(["train", "--run-dir", str(folder)]) == 2
    assert "holds other files and is no run folder" in capsys.readouterr().err


def test_evaluate_takes_the_result_as_a_baseline(capsys, tmp_path: Path, searched: Path) -> None:
    output, mine = tmp_path / "numbers.json", tmp_path / "mine.json"
    mine.write_text(json.dumps([[0.6, 2.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]))
    files = (searched / "schedule.json", searched / "reference.json", mine, mine)
    arguments = [argument for file in files for argument in ("--baseline", str(file))]
    settings = ["evaluation.num_images=32", "evaluation.num_seeds=2", "tracking.enabled=false"]
    status = main(["evaluate", *arguments, "--quiet", "--output", str(output), *settings])
    assert status == 0, capsys.readouterr().err
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"] if row["kind"] == "baseline"}
    shipped = [row.name for row in load_references(assets_folder() / "digits" / "reference.json").baselines]
    assert list(rows) == [*shipped, "schedule_whole", "static_search_2", "schedule_mine", "schedule_mine_2"]
    assert rows["schedule_whole"]["title"] == "schedule whole, T = 4"
    assert rows["static_search_2"]["title"] == "static, T = 4, searched (2)"
    assert rows["schedule_mine"]["horizon"] == 2
    assert rows["schedule_whole"]["values"]["fd_a"] == rows["static_search_2"]["values"]["fd_a"]
    evaluator = build_scene(resolve("digits", overrides=settings)).evaluator
    policy = SchedulePolicy(torch.from_numpy(load_schedule(searched / "schedule.json")).float())
    assert rows["schedule_whole"]["values"]["fd_a"] == evaluator.evaluate(policy, [1001, 1002]).metrics["fd_a"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file"),
        ("[[0.5", "is no JSON"),
        ("[[0.5, 1, 1]]", "has shape [1, 3], expected T rows of 4 numbers"),
        ('{"baselines": []}', "has format None, expected 1"),
    ],
)
def test_a_baseline_that_is_none_is_one_line(capsys, tmp_path: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    assert main(["evaluate", "--baseline", str(tmp_path / "x.json"), "--output", str(tmp_path / "o.json")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (tmp_path / "o.json").exists()


def test_train_starts_from_the_result(tmp_path: Path, searched: Path) -> None:
    run, schedule = tmp_path / "run", searched / "schedule.json"
    settings = ("training.num_iterations=1", f"evaluation.reference={searched / 'reference.json'}")
    result = tiny.train(run, *tiny.IN_PROCESS, *settings, f"decisions.base.file={schedule}")
    assert result.returncode == 0, result.stderr
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["decisions"]["base"]["values"] == load_schedule(schedule).tolist()
    rows = {row["name"]: row["values"]["fd_a"] for row in json.loads((run / "evaluation.json").read_text())["rows"]}
    assert rows["base_schedule"] == rows["static_search"], "the same schedule on the same images"
