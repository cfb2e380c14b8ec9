"""An interrupted pretraining goes on, and comes to the same bits as one that nobody has interrupted."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.mnist import load_mnist_dataset
from adanat_rl.experiment import (
    pretraining,
    pretraining_conv,
    pretraining_folder,
    pretraining_job,
    training_state,
)
from adanat_rl.stopping import StopRequested
from tests import tiny_pretraining

TINY = (*tiny_pretraining.MNIST, "pretraining.num_tokenizer_steps=12")
CONFIG = resolve("mnist", overrides=TINY)


@pytest.fixture(scope="module", autouse=True)
def few_images() -> object:
    """Some of the images, and a state after every step."""
    whole = load_mnist_dataset()
    some = replace(whole, images=whole.images[:600], labels=whole.labels[:600])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining_job, "load_dataset", lambda config: some)
        patch.setattr(training_state.TrainingState, "is_due", property(lambda self: True))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed pretraining."""
    folder = tmp_path_factory.mktemp("whole")
    assert pretraining_job.pretrain(CONFIG, folder, quiet=True) == 0
    return files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """What weights come to, by name."""
    assert not (folder / pretraining_folder.ASIDE).exists()
    assert (folder / "MODEL_CARD.md").exists()
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def stop_at(patch: pytest.MonkeyPatch, target: object, name: str, call: int) -> None:
    """Makes the n-th call of a function the moment at which somebody asks to stop."""
    real: Callable[..., object] = getattr(target, name)
    calls = 0

    def stopped(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise StopRequested
        return real(*args, **kwargs)

    patch.setattr(target, name, stopped)


def interrupted(folder: Path, module: object, name: str, call: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, module, name, call)
        assert pretraining_job.pretrain(CONFIG, folder, quiet=True) == 130


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        ("pretraining_conv", "_losses", 2),  # before there are codes
        ("pretraining_conv", "_losses", 9),  # with codes
        ("pretraining", "train_classifier", 2),
        ("pretraining", "_nat_loss", 2),
        ("pretraining", "_nat_loss", 7),
        ("pretraining", "_nat_loss", 10),  # among the steps with less distortion
        ("pretraining_job", "_evaluate_schedules", 1),
        ("pretraining_job", "_model_card", 1),
    ],
)
def test_it_goes_on_to_the_same_bits(
    module: str, name: str, call: int, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    interrupted(tmp_path, importlib.import_module(f"adanat_rl.experiment.{module}"), name, call)
    assert (tmp_path / pretraining_folder.ASIDE).exists()
    assert pretraining_job.pretrain(CONFIG, tmp_path, quiet=True) == 0
    assert files_of(tmp_path) == whole


@pytest.mark.parametrize(
    ("module", "name", "call", "left"), [(pretraining_conv, "_losses", 9, 4), (pretraining, "_nat_loss", 7, 4)]
)
def test_steps_that_are_done_are_not_done_again(
    module: ModuleType, name: str, call: int, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, module, name, call)
    real, count = getattr(module, name), 0

    def counted(*args: object) -> object:
        nonlocal count
        count += 1
        return real(*args)

    monkeypatch.setattr(module, name, counted)
    assert pretraining_job.pretrain(CONFIG, tmp_path, quiet=True) == 0
    assert count == left, "the others were kept"
    rows = [json.loads(line) for line in (tmp_path / "pretraining.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["stage"] == "nat"] == list(range(1, 11))
    assert [row["step"] for row in rows if row["stage"] == "tokenizer"] == list(range(1, 13))


def test_a_classifier_that_is_finished_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, pretraining, "_nat_loss", 7)
    monkeypatch.setattr(pretraining, "train_classifier", None)
    assert pretraining_job.pretrain(CONFIG, tmp_path, quiet=True) == 0


@pytest.mark.parametrize("file", ["nat.partial", "tokenizer.safetensors", "progress.json"])
@pytest.mark.parametrize("damage", ["cut", "turned"])
def test_what_is_damaged_is_told_and_made_again(
    file: str, damage: str, tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path, pretraining, "_nat_loss", 7)
    path = tmp_path / pretraining_folder.ASIDE / file
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[-9 if file != "progress.json" else content.index(b'"parts"') + 1] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert pretraining_job.pretrain(CONFIG, tmp_path) == 0
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    assert files_of(tmp_path) == whole


def test_other_settings_are_refused_by_name_and_taken_with_start_over(tmp_path: Path) -> None:
    interrupted(tmp_path, pretraining, "_nat_loss", 7)
    other: ExperimentConfig = resolve("mnist", overrides=[*TINY, "pretraining.num_steps=11"])
    with pytest.raises(UserError, match=r"pretraining\.num_steps: an interrupted pretraining .* has 10, here it is 11"):
        pretraining_job.pretrain(other, tmp_path, quiet=True)
    assert pretraining_job.pretrain(other, tmp_path, start_over=True, quiet=True) == 0
    assert len((tmp_path / "pretraining.jsonl").read_text().splitlines()) == 12 + 11


def test_a_delivery_that_was_interrupted_is_finished(tmp_path: Path, whole: dict[str, bytes]) -> None:
    moved = Path.replace
    calls = 0

    def killed(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += self.parent.name == pretraining_folder.ASIDE and not self.name.startswith(".")
        if calls == 4:
            raise StopRequested
        return moved(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        assert pretraining_job.pretrain(CONFIG, tmp_path, quiet=True) == 130
    assert not (tmp_path / "MODEL_CARD.md").exists()
    assert pretraining_job.pretrain(CONFIG, tmp_path, quiet=True) == 0
    assert files_of(tmp_path) == whole


def test_a_finished_folder_is_not_written_into(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="is not empty"):
        pretraining_job.pretrain(CONFIG, tmp_path, quiet=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(whole), "nothing is left behind"


def test_the_state_of_the_generator_is_part_of_it(tmp_path: Path) -> None:
    torch.manual_seed(7)
    state = training_state.TrainingState(tmp_path / "x", lambda message: None)
    state.keep(lambda: ({"a": torch.ones(2)}, {"step": 3}))
    expected = torch.rand(3)
    torch.manual_seed(8)
    found = state.restore()
    assert found is not None
    assert torch.equal(torch.rand(3), expected)
    assert found[1] == {"step": 3}
