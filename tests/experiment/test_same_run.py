"""What makes a run the same run: settings and contents, not the names of files; what is refused, taken, or replaced."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.loading import load_saved, resolve
from adanat_rl.config.paths import assets_folder
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.checkpoints import Snapshot, write_snapshot
from adanat_rl.experiment.metrics_log import MetricsLog
from adanat_rl.experiment.run_folder import RunFolder

NAT = assets_folder() / "digits" / "nat.safetensors"


def begin(path: Path, config: ExperimentConfig, iterations: int = 1) -> RunFolder:
    """A folder as a training leaves it that has finished some iterations."""
    folder = RunFolder(path)
    folder.prepare(config)
    assert folder.identity is not None
    state = {"iteration": iterations, **folder.identity.state()}
    folder.checkpoints.mkdir()
    write_snapshot(folder.checkpoints / f"iteration_{iterations:06d}", Snapshot({"learner": {}}, state))
    for iteration in range(iterations + 1):
        MetricsLog(folder.metrics_file).append({"iteration": iteration})
    folder.release()
    return folder


def go_on(path: Path, config: ExperimentConfig, **options: bool) -> RunFolder:
    folder = RunFolder(path)
    folder.prepare(config, **options)
    folder.release()
    return folder


def refused(path: Path, config: ExperimentConfig) -> str:
    before = (path / "config.yaml").read_bytes()
    with pytest.raises(UserError) as caught:
        go_on(path, config)
    assert (path / "config.yaml").read_bytes() == before, "a refusal changes nothing"
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def with_other_weights(source: Path, target: Path) -> None:
    tensors = load_file(source)
    name = next(name for name, value in tensors.items() if value.is_floating_point() and value.numel() > 1)
    tensors[name] = tensors[name] + 1
    save_file(tensors, target)


def test_other_weights_under_the_same_name_are_refused_and_named(tmp_path: Path) -> None:
    nat = tmp_path / "nat.safetensors"
    shutil.copyfile(NAT, nat)
    config = resolve(overrides=[f"generator.nat={nat}"])
    begin(tmp_path / "run", config)
    go_on(tmp_path / "run", config)
    with_other_weights(nat, nat)
    assert "generator.nat has other content than before" in refused(tmp_path / "run", config)


def test_the_same_weights_at_another_place_go_on(tmp_path: Path) -> None:
    for name in ("job1", "job2"):
        (tmp_path / name).mkdir()
        shutil.copyfile(NAT, tmp_path / name / "nat.safetensors")
    begin(tmp_path / "run", resolve(overrides=[f"generator.nat={tmp_path}/job1/nat.safetensors"]))
    moved = resolve(overrides=[f"generator.nat={tmp_path}/job2/nat.safetensors"])
    folder = go_on(tmp_path / "run", moved)
    assert load_saved(folder.config_file) == moved, "the folder says where the weights lie now"
    go_on(tmp_path / "run", resolve())  # the asset itself has that content
    assert load_saved(folder.config_file) == resolve()
    assert not folder.changes_file.exists(), "nothing had to be accepted"


def test_judge_and_reference_count_by_content_too(tmp_path: Path) -> None:
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps({"dataset": "digits", "made_by": "x", "baselines": []}))
    other = tmp_path / "other.json"
    other.write_text(reference.read_text() + " ")
    config = resolve(overrides=[f"evaluation.reference={reference}"])
    begin(tmp_path / "run", config)
    go_on(tmp_path / "run", resolve(overrides=[f"evaluation.reference={other}"]))  # another one, by choice
    go_on(tmp_path / "run", config)
    reference.write_text(other.read_text() + " ")
    assert "evaluation.reference has other content" in refused(tmp_path / "run", config)


def test_an_own_reward_is_its_file_and_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "my_ink_reward.py"
    module.write_text("class Ink: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = ["reward.kind=my_ink_reward:Ink", "reward.args.weight=2", "reward.args.power=3"]
    begin(tmp_path / "run", resolve(overrides=own))
    go_on(tmp_path / "run", resolve(overrides=own))
    assert "reward.args.power is 3 there and None here" in refused(tmp_path / "run", resolve(overrides=own[:-1]))
    assert "reward.args.weight is 2 there and 5 here" in refused(
        tmp_path / "run", resolve(overrides=[own[0], "reward.args.weight=5", own[2]])
    )
    module.write_text("class Ink: weight = 1\n")
    assert "reward.kind my_ink_reward:Ink has other content" in refused(tmp_path / "run", resolve(overrides=own))


def test_an_own_judge_is_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_ink_judge.py").write_text("class Ink: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    own = resolve(overrides=["evaluation.judges=[my_ink_judge:Ink]"])
    begin(tmp_path / "run", own)
    go_on(tmp_path / "run", own)
    (tmp_path / "my_ink_judge.py").write_text("class Ink: weight = 1\n")
    assert "evaluation.judges my_ink_judge:Ink has other content" in refused(tmp_path / "run", own)


def test_settings_edited_in_the_run_s_own_file_are_refused(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", resolve())
    text = folder.config_file.read_text()
    folder.config_file.write_text(text.replace("lr: ", "lr: 1", 1))
    assert "ppo.lr is" in refused(tmp_path / "run", load_saved(folder.config_file))


def test_a_change_that_is_accepted_is_recorded_and_stays(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", resolve())
    changed = resolve(overrides=["ppo.lr=0.5"])
    go_on(tmp_path / "run", changed, accept_change=True)
    (row,) = [json.loads(line) for line in folder.changes_file.read_text().splitlines()]
    assert (row["key"], row["after"], row["after_iteration"]) == ("ppo.lr", 0.5, 1)
    go_on(tmp_path / "run", changed)
    assert "ppo.lr is 0.5 there" in refused(tmp_path / "run", resolve())


def test_a_setting_that_an_older_version_did_not_have_counts_as_its_default(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", resolve())
    path = folder.checkpoints / "iteration_000001" / "state.json"
    state = json.loads(path.read_text())
    state["settings"].pop("ppo.clip_param", None)
    state["settings"].pop("ppo.num_epochs")
    path.write_text(json.dumps(state))
    go_on(tmp_path / "run", resolve())
    assert "ppo.num_epochs" in refused(tmp_path / "run", resolve(overrides=["ppo.num_epochs=50"]))


def test_a_folder_without_a_finished_iteration_is_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.prepare(resolve(overrides=["ppo.lr=1e-3"]))
    MetricsLog(folder.metrics_file).append({"iteration": 0})
    folder.checkpoints.mkdir()
    write_snapshot(folder.checkpoints / "iteration_000000", Snapshot({"learner": {}}, {"iteration": 0}))
    folder.release()
    go_on(tmp_path / "run", resolve())
    assert load_saved(folder.config_file) == resolve()
    assert not folder.metrics_file.exists()
    assert not folder.checkpoints.exists()


@pytest.mark.parametrize("content", ["", "name: [", "\x00"])
def test_a_configuration_torn_by_a_power_cut_is_written_again(tmp_path: Path, content: str) -> None:
    folder = begin(tmp_path / "run", resolve())
    folder.config_file.write_text(content)
    assert "ppo.lr is" in refused(tmp_path / "run", resolve(overrides=["ppo.lr=0.5"]))
    go_on(tmp_path / "run", resolve())
    assert load_saved(folder.config_file) == resolve()


def test_killed_while_the_configuration_was_first_written_the_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").write_text("process 1 on elsewhere, since yesterday")
    (tmp_path / "run" / ".config.yaml.4242.tmp").write_text("na")
    folder = go_on(tmp_path / "run", resolve())
    assert folder.config_file.is_file()
    assert [entry.name for entry in (tmp_path / "run").iterdir() if entry.name.startswith(".")] == []


def test_starting_over_puts_everything_aside(tmp_path: Path) -> None:
    begin(tmp_path / "run", resolve(), iterations=3)
    go_on(tmp_path / "run", resolve(overrides=["ppo.lr=0.5"]), start_over=True)
    (aside,) = (tmp_path / "run").glob("before_start_over_*")
    assert len((aside / "metrics.jsonl").read_text().splitlines()) == 4
    assert (aside / "checkpoints" / "iteration_000003" / "state.json").is_file()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not RunFolder(tmp_path / "run").has_history


def test_a_folder_that_was_moved_while_it_is_written_to_is_noticed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.prepare(resolve())
    folder.require_presence()
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="was deleted or moved"):
        folder.require_presence()
    RunFolder(tmp_path / "run").prepare(resolve())  # somebody else's, under the same name
    with pytest.raises(RunError, match="was deleted or moved"):
        folder.require_presence()
    folder.release()


def test_the_first_start_s_environment_stays_and_later_ones_stand_behind_it(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", resolve())
    first = json.loads(folder.environment_file.read_text())
    go_on(tmp_path / "run", resolve())
    later = json.loads(folder.environment_file.read_text())
    assert {key: later[key] for key in first} == first
    assert len(later["later_starts"]) == 1


def test_tensors_that_are_not_finite_are_named(tmp_path: Path) -> None:
    snapshot = Snapshot({"learner": {"a": torch.tensor([1.0]), "b": torch.tensor([float("inf")])}}, {"iteration": 1})
    assert snapshot.non_finite() == ["learner/b"]
