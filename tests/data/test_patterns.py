"""Files that a setting names: every way to write many of them, each once and in order, or one line that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import DataConfig
from adanat_rl.data.loading import load_source
from tests.data.files import png, write_tar

NAMES = ("a/00.tar", "a/01.tar", "b/00.tar", "b/deep/02.tar", "c/.hidden.tar", "c/._00.tar", "c/x.txt")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tar(file, {f"{number}.png": png(number), f"{number}.cls": b"%d" % number})
    return tmp_path / "data"


def found(path: Path | str) -> list[int]:
    """Which of `NAMES` a setting stands for, by the classes of their images."""
    return load_source(DataConfig(name="webdataset", path=str(path))).labels.tolist()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", [0, 1]),
        ("a/00.tar", [0]),
        ("a/*.tar", [0, 1]),
        ("*/00.tar", [0, 2]),
        ("?/0[01].tar", [0, 1, 2]),
        ("**/*.tar", [0, 1, 2, 3]),
        ("{b,a}/00.tar", [2, 0]),
        ("{a,b}/*.tar", [0, 1, 2]),
        ("a/{00..01}.tar", [0, 1]),
        ("a/{01..00}.tar", [1, 0]),
        ("{a/0{0,1},b/00}.tar", [0, 1, 2]),
        ("{a,a}/00.tar", [0]),
        ("a/0{0..0,1}.tar", [0, 1]),
        ("b", [2]),
        (".", [0, 1, 2, 3]),
    ],
)
def test_every_way_to_name_files(root: Path, pattern: str, expected: list[int]) -> None:
    assert found(root / pattern) == expected
    assert found(f"{root}/{pattern}") == expected


def test_a_name_with_marks_in_it_is_that_file(root: Path) -> None:
    (root / "a" / "00.tar").rename(root / "a" / "x{1..2}[y]*.tar")
    assert found(root / "a" / "x{1..2}[y]*.tar") == [0]


def test_links_to_files_and_folders_are_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "shard.tar").symlink_to(root / "a" / "01.tar")
    (tmp_path / "folder").symlink_to(root / "a")
    assert found(tmp_path / "shard.tar") == [1]
    assert found(tmp_path / "folder") == [0, 1]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a/{00..03}.tar", "no such file: .*a/02.tar"),
        ("{a,z}/00.tar", "no such file: .*z/00.tar"),
        ("c", "no .tar file in the folder .*/c; expected a file, a folder, or a pattern"),
        ("z/*.tar", r"no .tar file there: .*z/\*.tar"),
        ("z", "no such file or folder: .*/z"),
        ("a/{0..99999999}.tar", "names more than 1,000,000 files"),
        ("{0..9999}{0..9999}.tar", "names more than 1,000,000 files"),
    ],
)
def test_what_is_not_there_is_named(root: Path, pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^data.path: .*{message}"):
        found(root / pattern)


def test_compressed_shards_and_parts_for_other_purposes_are_told(tmp_path: Path) -> None:
    (tmp_path / "gz").mkdir()
    (tmp_path / "gz" / "0.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"0.tar.gz is compressed, .*unpack it"):
        found(tmp_path / "gz")
    for part in ("train", "val"):
        (tmp_path / "all" / part).mkdir(parents=True)
        write_tar(tmp_path / "all" / part / "0.tar", {"0.png": png(0), "0.cls": b"0"})
    with pytest.raises(UserError, match=r"files for different purposes in train, val; name one: .*all/train"):
        found(tmp_path / "all")
