"""One tiny real run of every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adanat_rl import load_pipeline
from adanat_rl.cli import COMMANDS, main
from adanat_rl.config.files import read_json_lines
from adanat_rl.config.loading import dump, leaf_fields, resolve
from tests import tiny

FEW = ("evaluation.num_images=64", "evaluation.num_seeds=2", "tracking.enabled=false")


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Runs a command here and returns what it printed."""
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def test_a_training_leaves_everything_that_is_promised(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert {
        "config.yaml",
        "environment.json",
        "checkpoints",
        "policy",
        "metrics.jsonl",
        "summary.json",
        "report.html",
        "figures",
        "samples",
        "rollouts",
        "evaluation.json",
    } <= names
    assert [row["iteration"] for row in read_json_lines(finished_run / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    kept = {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert kept == {"iteration_000002", "iteration_000003", "iteration_000004"}
    assert {path.name for path in (finished_run / "samples").glob("iteration_*.png")} == {
        f"iteration_{iteration:06d}.png" for iteration in (0, 2, 4)
    }


def test_sample_draws_with_the_arithmetic_that_is_typed(capsys, tmp_path: Path) -> None:
    drawn = {}
    for precision in ("float32", "bfloat16"):
        file = tmp_path / f"{precision}.npz"
        call(capsys, "sample", f"generator.precision={precision}", "generator.decode_rows=3", "--output", file)
        with np.load(file) as content:
            drawn[precision] = content["tokens"]
    same = (drawn["float32"] == drawn["bfloat16"]).mean()
    assert 0.5 < same < 1, "rounding shows in some tokens and in few"


def test_evaluate_writes_the_table_that_it_prints(capsys, finished_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "numbers.json"
    printed = call(capsys, "evaluate", "--policy", finished_run, "--output", output, *FEW, "evaluation.reference=null")
    comparison = json.loads(output.read_text())
    rows = {row["name"]: row for row in comparison["rows"]}
    assert {"policy", "shuffled_over_all", "shuffled_within_class", "base_schedule"} <= rows.keys()
    assert rows["policy"]["summary"]["nat_passes_per_image"]["mean"] == 6
    assert f"{rows['policy']['summary']['fd_pixels']['mean']:.3f}" in printed
    assert comparison["verdict"]["sentence"] in printed.replace("\n", " ")


def test_evaluate_takes_a_schedule_and_the_shipped_baselines(capsys, tmp_path: Path) -> None:
    schedule = tmp_path / "mine.json"
    schedule.write_text(json.dumps([[0.8, 2.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]))
    output = tmp_path / "numbers.json"
    call(capsys, "evaluate", "--schedule", schedule, "--output", output, *FEW)
    comparison = json.loads(output.read_text())
    rows = {row["name"]: row for row in comparison["rows"]}
    assert comparison["verdict"] is None
    assert rows["policy"]["title"] == "schedule mine, T = 2"
    assert rows["policy"]["summary"]["nat_passes_per_image"]["mean"] == 1, "no guidance, first step cached"
    assert rows["hand_made_t8"]["horizon"] == 8


def test_sample_draws_what_the_pipeline_draws_in_every_form(capsys, finished_run: Path, tmp_path: Path) -> None:
    common = ("--policy", finished_run, "--context", "3,7-8", "--per-context", "2", "--seed", "5")
    call(capsys, "sample", *common, "--output", tmp_path / "grid.png")
    call(capsys, "sample", *common, "--output", tmp_path / "folder")
    call(capsys, "sample", *common, "--output", tmp_path / "arrays.npz", "--steps")
    expected = load_pipeline(finished_run)([3, 3, 7, 7, 8, 8], range(5, 11), keep_steps=True)
    arrays = np.load(tmp_path / "arrays.npz")
    np.testing.assert_array_equal(arrays["images"], expected.images)
    np.testing.assert_array_equal(arrays["steps"], expected.steps)
    assert arrays["context"].tolist() == [3, 3, 7, 7, 8, 8]
    assert arrays["seeds"].tolist() == list(range(5, 11))
    assert len(list((tmp_path / "folder").glob("*.png"))) == 6
    one = np.asarray(Image.open(tmp_path / "folder" / "label_7_seed_8.png"))
    np.testing.assert_array_equal(one[::4, ::4], expected.images[3, :, :, 0])
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (3 * 32 + 2 * 2, 2 * 32 + 2)


def test_sample_takes_a_folder_whose_name_has_a_dot_also_when_it_is_there(capsys, tmp_path: Path) -> None:
    for context in ("3", "4"):
        call(capsys, "sample", "--context", context, "--per-context", "1", "--output", tmp_path / "out.v2")
    assert {path.name for path in (tmp_path / "out.v2").iterdir()} == {"label_3_seed_0.png", "label_4_seed_0.png"}


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.pt", "a-folder.png", "a-file"])
def test_sample_refuses_an_output_before_it_draws(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "a-folder.png").mkdir()
    (tmp_path / "a-file").write_text("")
    monkeypatch.setattr("adanat_rl.experiment.subject.load_drawer", lambda *_: pytest.fail("something was loaded"))
    assert main(["sample", "--output", str(tmp_path / name)]) == 2
    assert "--output: " in capsys.readouterr().err


def test_the_shipped_policy_samples_right_after_the_installation(capsys, tmp_path: Path) -> None:
    call(capsys, "sample", "--output", tmp_path / "s.png")
    assert Image.open(tmp_path / "s.png").size == (8 * 34 - 2, 10 * 34 - 2)


def test_export_refuses_settings_that_did_not_make_the_checkpoint(capsys, finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    config = run / "config.yaml"
    saved = config.read_text()
    for text, words in (
        (saved.replace("hidden_size: 16", "hidden_size: 32"), "policy.hidden_size is 16 there and 32 here"),
        (saved.replace("horizon: 4", "horizon: 5"), "generator.horizon is 4 there and 5 here"),
        ("", "it holds no settings"),
    ):
        config.write_text(text)
        assert main(["export", str(run), "--output", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_gives_the_policy_of_the_run_and_of_a_checkpoint(capsys, finished_run: Path, tmp_path: Path) -> None:
    assert "iteration 4" in call(capsys, "export", finished_run, "--output", tmp_path / "newest")
    assert "iteration 2" in call(
        capsys, "export", "--run-dir", finished_run, "--output", tmp_path / "older", "--iteration", "2"
    )
    draw = [load_pipeline(tmp_path / name)([1, 2], [0, 0]).decisions for name in ("newest", "older")]
    np.testing.assert_array_equal(draw[0], load_pipeline(finished_run)([1, 2], [0, 0]).decisions)
    assert not np.array_equal(*draw)


def test_report_is_made_again_also_for_a_run_that_is_not_finished(capsys, finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    for name in ("evaluation.json", "summary.json", "report.html", "samples/gallery.npz", "samples/decisions.npz"):
        (copy / name).unlink()
    call(capsys, "report", copy)
    assert (copy / "report.html").read_text().startswith("<!")


def test_audit_is_content_with_a_finished_run(capsys, finished_run: Path) -> None:
    printed = call(capsys, "audit", finished_run)
    assert printed == call(capsys, "audit", "--run-dir", finished_run)
    assert "PROBLEM" not in printed
    assert "256 ids in 4 iterations, each exactly once" in printed


def test_audit_finds_a_metric_row_that_is_missing(capsys, finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:2] + lines[3:]))
    assert main(["audit", "--run-dir", str(copy)]) == 1
    printed = capsys.readouterr().out
    assert "PROBLEM metric rows: row 2 is of iteration 3" in printed


def test_schema_describes_what_the_program_accepts(capsys, tmp_path: Path) -> None:
    import jsonschema
    import yaml

    schema = json.loads(call(capsys, "schema"))
    jsonschema.validate(yaml.safe_load(dump(resolve())), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"ppo": {"lr": -1}}, schema)
    call(capsys, "schema", "--markdown", "--output", tmp_path / "settings.md")
    text = (tmp_path / "settings.md").read_text()
    assert all(f"`{key}`" in text for key, _ in leaf_fields())


def test_pretrain_makes_weights_that_a_training_can_use(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    settings = ("pretraining.num_steps=12", "pretraining.num_classifier_steps=5", "pretraining.width=16", *FEW)
    settings += ("pretraining.depth=1", "pretraining.num_heads=2", "pretraining.vocab_size=16")
    result = tiny.run("pretrain", *settings, "--run-dir", str(folder))
    assert result.returncode == 0, result.stderr
    assert {path.name for path in folder.iterdir()} == {
        "tokenizer.safetensors",
        "nat.safetensors",
        "judge_a.safetensors",
        "judge_b.safetensors",
        "classifier_c.safetensors",
        "panel_convolutions.safetensors",
        "panel_frequencies.safetensors",
        "curve.png",
        "samples.png",
        "pretraining.jsonl",
        "MODEL_CARD.md",
    }
    again = tmp_path / "again"
    assert tiny.run("pretrain", *settings, "--run-dir", str(again)).returncode == 0
    for file in folder.glob("*.safetensors"):
        assert file.read_bytes() == (again / file.name).read_bytes(), "the same seed gives the same weights"
    weights = (f"generator.nat={folder}/nat.safetensors", f"generator.tokenizer={folder}/tokenizer.safetensors")
    trained = tiny.train(tmp_path / "run", *tiny.IN_PROCESS, *weights, "training.num_iterations=1")
    assert trained.returncode == 0, trained.stderr


def test_doctor_finds_this_machine_fit(tmp_path: Path) -> None:
    result = tiny.run("doctor", "--run-dir", str(tmp_path / "run"))
    assert result.returncode == 0, result.stdout
    assert "ok      shipped policy: loads" in result.stdout
    result = tiny.run("doctor", "--run-dir", str(tmp_path / "run"), "generator.nat=nowhere.safetensors")
    assert result.returncode == 1
    assert "PROBLEM weights: generator.nat: no such file: nowhere.safetensors" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"adanat-rl {command}" in capsys.readouterr().out


def test_help_lists_every_setting_of_a_training(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    missing = [
        key
        for key, _ in leaf_fields()
        if f"  {key}=" not in printed and not key.startswith(("pretraining.", "search."))
    ]
    assert missing == []


def test_a_dry_run_launches_nothing_and_prints_what_it_would_take(capsys, tmp_path: Path) -> None:
    printed = call(capsys, "train", "--dry-run", "--run-dir", tmp_path / "run", "ppo.lr=1e-3")
    assert not (tmp_path / "run").exists()
    assert "  lr: 0.001\n" in printed
    assert "# reserves: 1 CPUs, 0 GPUs" in printed
    import yaml

    assert resolve(overrides=["ppo.lr=1e-3", f"run_dir={tmp_path / 'run'}"]).model_dump(mode="json") == yaml.safe_load(
        printed
    )
