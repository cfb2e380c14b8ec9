"""One tiny real run of `probe`: table, sentences, JSON, figures, and its section in a report."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from adanat_rl.cli import main
from adanat_rl.evaluation.probe_design import probe_file
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput

TINY = ("--num-images", "40", "--num-repeats", "3", "--offsets=-1,2")
STEPS = ("generator.horizon=2", "resources.driver_threads=1")


class Darkness(RewardModel):
    """Rewards dark images."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Mean darkness."""
        return RewardOutput(1 - batch.images.mean(dim=(1, 2, 3)))


class Nothing(RewardModel):
    """Gives no numbers."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """NaN."""
        return RewardOutput(torch.full((len(batch),), torch.nan))


class Hanging(RewardModel):
    """Never ends."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Waits for ever."""
        threading.Event().wait()
        raise AssertionError


class Leaving(RewardModel):
    """Ends the process."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Leaves."""
        os._exit(0)


class Failing(RewardModel):
    """Raises."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Fails."""
        raise ZeroDivisionError("no images in sight")


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    status = main(["probe", *map(str, arguments)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def test_probe_writes_what_it_prints(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    output = tmp_path / "new" / "numbers.json"
    printed = call(capsys, *TINY, *STEPS, "--output", output)
    probe = json.loads(output.read_text())
    places = [(site["step"], site["decision"]) for site in probe["sites"]]
    names = ["mask_ratio", "confidence_temperature", "sampling_temperature", "guidance_scale"]
    assert places == [(0, name) for name in names] + [(1, name) for name in names[2:]]
    assert (probe["num_classes"], probe["images_per_class"], probe["num_repeats"]) == (5, 8, 3)
    assert [site["alike"] for site in probe["sites"]] == [True] * 4 + [False] * 2
    for sentence in probe["sentences"]:
        assert sentence in printed
    assert "asset:digits/discriminator.safetensors" in printed
    assert f"{max(0, probe['sites'][0]['split']['noise']['value']) ** 0.5:.3f}" in printed
    for name in ("parts", "gains"):
        assert Image.open(tmp_path / "new" / f"numbers_{name}.png").width > 400
    call(capsys, *TINY, *STEPS, "--output", output, "--quiet", "evaluation.batch_size=16")
    again = json.loads(output.read_text())
    assert [site["base_value"] for site in again["sites"]] == [site["base_value"] for site in probe["sites"]]
    assert again["sites"][1]["effects"][0]["value"] == pytest.approx(
        probe["sites"][1]["effects"][0]["value"], abs=1e-6
    ), "batches decide nothing"


def test_a_probe_before_the_training_leaves_the_run_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert probe_file(tmp_path / "run") == tmp_path / "run_probe.json"
    (tmp_path / "run" / "config.yaml").write_text("")
    assert probe_file(tmp_path / "run") == tmp_path / "run" / "probe.json"
    assert probe_file(Path("runs/new")) == Path("runs/new_probe.json")


def test_probe_takes_any_reward_and_start(capsys, tmp_path: Path) -> None:
    schedule = tmp_path / "mine.json"
    schedule.write_text(json.dumps([[0.6, 2.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]))
    reward = ("reward.kind=tests.commands.test_probe:Darkness", "resources.driver_threads=1")
    common = (*TINY, "--output", tmp_path / "p.json", *reward)
    printed = call(capsys, *common, "--schedule", schedule)
    assert "start: schedule mine; reward: tests.commands.test_probe:Darkness" in printed
    shown = json.loads((tmp_path / "p.json").read_text())
    assert shown["horizon"] == 2
    assert shown["sites"][0]["base_value"] == pytest.approx(0.6)
    assert 0.3 < shown["rewards"][0]["mean"]["value"] < 0.9
    printed = call(capsys, "--log-json", *common, "--policy", "asset:digits/policy")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert lines[-1]["probe"]["start"] == "policy asset:digits/policy"
    assert lines[-1]["probe"]["horizon"] == 4


def test_a_reward_can_be_warmed_up_as_at_the_start_of_a_run(capsys, tmp_path: Path) -> None:
    settings = (*STEPS, "reward.adversarial.num_warmup_updates=2", "reward.adversarial.channels=8")
    settings += ("training.trajectories_per_iteration=64", "training.shard_size=64", "reward.adversarial.batch_size=16")
    printed = call(capsys, *TINY, "--output", tmp_path / "p.json", "--reward-from", "fresh", *settings)
    assert "reward: adversarial (as a run starts, after 2 updates)" in printed


def test_a_reward_without_numbers_ends_the_probe(capsys, tmp_path: Path) -> None:
    reward = "reward.kind=tests.commands.test_probe:Nothing"
    assert main(["probe", *TINY, "--output", str(tmp_path / "p.json"), *STEPS, reward]) == 1
    assert "NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("Hanging", "has not scored within resources.reward_timeout_s = 0.2 s"),
        ("Leaving", "failed: RewardError: called os._exit(0)"),
        ("Failing", "failed: ZeroDivisionError: no images in sight"),
    ],
)
def test_a_reward_that_fails_ends_the_probe_in_a_line(capsys, tmp_path: Path, reward: str, words: str) -> None:
    output = ["--output", str(tmp_path / "p.json")]
    named = [f"reward.kind=tests.commands.test_probe:{reward}", "resources.reward_timeout_s=0.2"]
    assert main(["probe", *TINY, *output, *STEPS, *named]) == 1
    errors = capsys.readouterr().err
    assert f"adanat-rl probe: reward tests.commands.test_probe:{reward} {words}" in errors
    assert len(errors.splitlines()) == 1


def test_the_state_of_another_reward_is_refused(capsys, finished_run: Path, tmp_path: Path) -> None:
    other = ["--output", str(tmp_path / "p.json"), *STEPS, "reward.adversarial.channels=12"]
    assert main(["probe", *TINY, *other, "--reward-from", str(finished_run)]) == 2
    errors = capsys.readouterr().err
    assert "its reward is no adversarial of these settings" in errors
    assert len(errors.splitlines()) == 1


def test_a_report_shows_the_probe_of_its_run(capsys, finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    printed = call(capsys, *TINY, "--run-dir", run, "--reward-from", run, "resources.driver_threads=1")
    assert "reward: adversarial (of run run, iteration 4)" in printed
    assert main(["report", "--run-dir", str(run)]) == 0
    text = (run / "report.html").read_text()
    assert 'id="probe"' in text
    assert 'href="#probe"' in text
    assert "What is settled" in text
    assert {"probe_parts.png", "probe_gains.png"} <= {path.name for path in (run / "figures").iterdir()}
    (run / "probe.json").rename(tmp_path / "run_probe.json")  # as if it had been made before the run
    assert main(["report", "--run-dir", str(run)]) == 0
    assert 'id="probe"' in (run / "report.html").read_text()
    (run / "probe.json").write_text('{"sites": []}')
    assert main(["report", "--run-dir", str(run)]) == 0
    text = (run / "report.html").read_text()
    assert 'id="probe"' not in text
    assert "probe.json cannot be read" in text
    capsys.readouterr()
