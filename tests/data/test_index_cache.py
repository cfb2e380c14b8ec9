"""Indexes that are kept: never of other data, never a damaged one, and done without where nothing can be written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from adanat_rl.data.tar_shards import TarShards
from tests.data.files import png, write_tar

CLASSES = {"0.png": png(0), "0.cls": b"1", "1.png": png(1), "1.cls": b"0"}


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write_tar(tmp_path / "data" / "0.tar", CLASSES)


def labels(shard: Path, folder: Path | None = None) -> list[int]:
    return TarShards([shard], index_folder=None if folder is None else str(folder)).labels.tolist()


@pytest.mark.parametrize("home", ["unset", "/", "a file", "read-only"])
def test_nothing_is_needed_outside_the_data(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir(mode=0o500)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    if home == "unset":
        monkeypatch.delenv("HOME")
    else:
        places = {"/": "/", "a file": tmp_path / "file", "read-only": tmp_path / "closed"}
        monkeypatch.setenv("HOME", str(places[home]))
    (shard.parent / ".adanat-index").write_text("in the way")
    before = set(Path("/").iterdir())
    assert labels(shard) == [1, 0]
    assert labels(shard) == [1, 0]
    assert set(Path("/").iterdir()) == before


def test_a_relative_cache_folder_is_ignored(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (shard.parent / ".adanat-index").write_text("in the way")
    assert labels(shard) == [1, 0]
    assert list((tmp_path / "work").iterdir()) == []
    assert len(list((tmp_path / "home" / ".cache" / "adanat-rl" / "indexes").iterdir())) == 1


def damage_content(index: Path) -> None:
    """One label is another one; lengths and headers stay."""
    content = bytearray((index / "label.npy").read_bytes())
    content[-8] ^= 7
    (index / "label.npy").write_bytes(bytes(content))


def swap_arrays(index: Path) -> None:
    (index / "offset.npy").write_bytes((index / "size.npy").read_bytes())


def older_version(index: Path) -> None:
    manifest = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps({**manifest, "version": 1}))
    np.save(index / "label.npy", np.array([5, 5]))


@pytest.mark.parametrize(
    "damage",
    [
        damage_content,
        swap_arrays,
        older_version,
        lambda index: (index / "keys.npy").unlink(),
        lambda index: (index / "index.json").unlink(),
        lambda index: (index / "index.json").write_bytes(b"\xff\0"),
        lambda index: (index / "index.json").write_text("[" * 100_000),
        lambda index: (index / "label.npy").write_bytes(b"\0" * 300),
    ],
)
def test_an_index_that_is_not_whole_is_built_again(shard: Path, tmp_path: Path, damage) -> None:
    assert labels(shard, tmp_path / "cache") == [1, 0]
    (index,) = (tmp_path / "cache").iterdir()
    damage(index)
    source = TarShards([shard], index_folder=str(tmp_path / "cache"))
    assert source.labels.tolist() == [1, 0]
    assert [source.read(i) for i in range(2)] == [png(0), png(1)]
    assert np.load(index / "label.npy").tolist() == [1, 0], "and is kept again"


def test_changed_data_are_indexed_again(shard: Path, tmp_path: Path) -> None:
    assert labels(shard, tmp_path / "cache") == [1, 0]
    status = shard.stat()
    write_tar(shard, {**CLASSES, "0.cls": b"3"})
    assert shard.stat().st_size == status.st_size
    assert labels(shard, tmp_path / "cache") == [3, 0]


def test_half_an_index_of_another_process_is_left_alone(shard: Path, tmp_path: Path) -> None:
    assert labels(shard, tmp_path / "cache") == [1, 0]
    (index,) = (tmp_path / "cache").iterdir()
    half = tmp_path / "cache" / f".{index.name}.{os.getpid()}.tmp"  # the same process number on another machine
    half.mkdir()
    (half / "label.npy").write_bytes(b"half")
    shutil.rmtree(index)
    assert labels(shard, tmp_path / "cache") == [1, 0]
    assert (half / "label.npy").read_bytes() == b"half"


def test_a_place_that_is_a_file_is_done_without(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    assert labels(shard, tmp_path / "cache") == [1, 0]
