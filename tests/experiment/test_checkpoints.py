"""Checkpoints that were damaged in every way a disk can think of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from adanat_rl.config.errors import RunError
from adanat_rl.experiment.checkpoints import (
    CheckpointStore,
    DamagedCheckpointError,
    Snapshot,
    checkpoint_folders,
    read_snapshot,
    write_snapshot,
)


def snapshot(iteration: int) -> Snapshot:
    tensors = {
        "learner": {"a.b": torch.arange(6.0).reshape(2, 3) + iteration},
        "reward": {"w": torch.tensor([iteration])},
    }
    return Snapshot(tensors, {"iteration": iteration, "best": None, "num_passes": 1.5})


def filled(folder: Path, warnings: list[str], keep: int = 3, count: int = 3) -> CheckpointStore:
    store = CheckpointStore(folder, keep, warnings.append)
    for iteration in range(count):
        store.save(lambda path, i=iteration: write_snapshot(path, snapshot(i)), iteration)
    return store


def test_what_was_written_is_read_to_the_bit(tmp_path: Path) -> None:
    store = filled(tmp_path / "checkpoints", [])
    found = store.newest()
    assert found is not None
    assert found.state == snapshot(2).state
    assert found.tensors.keys() == {"learner", "reward"}
    for group, tensors in snapshot(2).tensors.items():
        for name, value in tensors.items():
            assert torch.equal(found.tensors[group][name], value)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    filled(tmp_path / "c", [], keep=2, count=5)
    assert list(checkpoint_folders(tmp_path / "c")) == [3, 4]


def flip_a_bit(folder: Path) -> None:
    file = folder / "learner.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def truncate(folder: Path) -> None:
    file = folder / "reward.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def lose_a_file(folder: Path) -> None:
    (folder / "state.json").unlink()


def become_a_list(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2]")


def list_no_mapping(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1, "files": ["state.json"]}')


def lead_out_of_the_folder(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../iteration_000000/state.json"] = {"bytes": 1, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def have_a_folder_for_a_file(folder: Path) -> None:
    (folder / "learner.safetensors").unlink()
    (folder / "learner.safetensors").mkdir()


def hold_a_number_that_is_none(folder: Path) -> None:
    shutil.rmtree(folder)
    write_snapshot(folder, Snapshot({"learner": {"a.b": torch.tensor([1.0, float("nan")])}}, {"iteration": 2}))


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def empty_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("")


DAMAGES = [
    flip_a_bit,
    truncate,
    lose_a_file,
    lose_the_manifest,
    empty_the_manifest,
    become_a_list,
    list_no_mapping,
    lead_out_of_the_folder,
    have_a_folder_for_a_file,
    hold_a_number_that_is_none,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_costs_only_itself_and_is_named(tmp_path: Path, damage) -> None:
    warnings: list[str] = []
    store = filled(tmp_path / "c", warnings)
    damage(tmp_path / "c" / "iteration_000002")
    found = store.newest()
    assert found is not None
    assert found.iteration == 1
    assert len(warnings) == 1
    assert "iteration_000002" in warnings[0]
    assert (tmp_path / "c" / "damaged" / "iteration_000002").is_dir(), "it is kept for a look"
    store.save(lambda path: write_snapshot(path, snapshot(2)), 2)  # the run makes it again
    assert store.newest().iteration == 2


def test_an_older_one_that_is_damaged_is_named_before_it_is_needed(tmp_path: Path) -> None:
    warnings: list[str] = []
    store = filled(tmp_path / "c", warnings)
    flip_a_bit(tmp_path / "c" / "iteration_000001")
    assert store.newest().iteration == 2
    assert len(warnings) == 1
    assert "iteration_000001/learner.safetensors" in warnings[0]
    assert list(checkpoint_folders(tmp_path / "c")) == [0, 2]
    assert (tmp_path / "c" / "damaged" / "iteration_000001").is_dir()


def test_when_all_are_damaged_the_run_stops_instead_of_starting_over(tmp_path: Path) -> None:
    store = filled(tmp_path / "c", [])
    for folder in (tmp_path / "c").glob("iteration_*"):
        flip_a_bit(folder)
    with pytest.raises(RunError, match=r"all 3 checkpoints in .* are damaged \(iteration_00000\d/\S+ differs from the"):
        store.newest()


def test_a_second_start_after_all_were_damaged_is_refused_like_the_first(tmp_path: Path) -> None:
    store = filled(tmp_path / "c", [])
    for folder in (tmp_path / "c").glob("iteration_*"):
        flip_a_bit(folder)
    for _ in range(2):
        with pytest.raises(RunError, match="--start-over"):
            store.newest()
    assert len(list((tmp_path / "c").glob("iteration_*"))) == 3, "nothing is moved or deleted"


def test_names_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    store = filled(tmp_path / "c", [])
    shutil.copytree(tmp_path / "c" / "iteration_000001", tmp_path / "c" / "iteration_000001 (copy)")
    (tmp_path / "c" / "iteration_notes").mkdir()
    (tmp_path / "c" / "iteration_000009").write_text("a file")
    (tmp_path / "c" / "iteration_000002" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "c" / "iteration_000002" / "stray.pkl").write_bytes(b"x")
    assert store.newest().iteration == 2
    assert list(store.newest().tensors) == ["learner", "reward"], "what the manifest does not list is not read"
    store.save(lambda path: write_snapshot(path, snapshot(3)), 3)
    assert (tmp_path / "c" / "iteration_000001 (copy)").is_dir()


def test_the_ones_before_stay_until_the_new_one_reads_back(tmp_path: Path) -> None:
    store = filled(tmp_path / "c", [])

    def on_a_failing_disk(path: Path) -> None:
        write_snapshot(path, snapshot(3))
        flip_a_bit(path)

    with pytest.raises(RunError, match="does not read back"):
        store.save(on_a_failing_disk, 3)
    assert len(list((tmp_path / "c").glob("iteration_00000[012]"))) == 3
    assert store.newest().iteration == 2


def test_a_half_written_one_is_never_seen(tmp_path: Path) -> None:
    store = filled(tmp_path / "c", [], count=1)

    def dies(path: Path) -> None:
        path.mkdir()
        (path / "learner.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(dies, 1)
    assert store.newest().iteration == 0
    store.save(lambda path: write_snapshot(path, snapshot(1)), 1)
    assert store.newest().iteration == 1
    assert [entry.name for entry in (tmp_path / "c").iterdir() if entry.name.startswith(".")] == []


def test_nothing_that_could_run_code_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "iteration_000000"
    write_snapshot(folder, snapshot(0))
    torch.save({"a.b": torch.zeros(1)}, folder / "learner.safetensors")  # a pickle under another name
    manifest = json.loads((folder / "manifest.json").read_text())
    import hashlib

    data = (folder / "learner.safetensors").read_bytes()
    manifest["files"]["learner.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedCheckpointError, match="safetensors"):
        read_snapshot(folder)


def test_a_checkpoint_can_be_copied_to_another_place(tmp_path: Path) -> None:
    filled(tmp_path / "c", [])
    shutil.copytree(tmp_path / "c" / "iteration_000001", tmp_path / "elsewhere")
    assert read_snapshot(tmp_path / "elsewhere").iteration == 1
