"""Class lists as people keep them: the number that a class has is the one that the list means, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import DataConfig
from adanat_rl.data.loading import load_source
from tests.data.files import png, write_tar, write_tree


def labels(root: Path, content: str | bytes, name: str = "list.txt") -> list[int]:
    """The class of each folder's image, folders sorted by name."""
    file = root.parent / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = load_source(DataConfig(name="image_folder", path=str(root), class_names=str(file)))
    assert source.num_classes == len(source.class_names)
    return source.labels.tolist()


@pytest.mark.parametrize(
    "content",
    [
        '{"n01": 1, "n02": 0}',  # torchvision's class_to_idx
        '{"n01": "1", "n02": "0"}',
        '{"n01": 1.0, "n02": 0.0}',
        '{"1": ["n01", "tench"], "0": ["n02", "goldfish"]}',  # Keras, not in the order of its numbers
        '{"1": "n01", "0": "n02"}',
        '{"n02": "goldfish", "n01": "tench"}',
        '["n02", "n01"]',
        '[["n02", "goldfish"], ["n01", "tench"]]',
        b'\xef\xbb\xbf["n02", "n01"]',
    ],
)
def test_every_form_of_json_numbers_the_folders(tmp_path: Path, content: str | bytes) -> None:
    assert labels(write_tree(tmp_path / "tree", {"n01": 1, "n02": 1}), content, "list.json") == [1, 0]


@pytest.mark.parametrize(
    "content",
    [
        b"n02 goldfish\nn01 tench, Tinca tinca\n",
        b"\xef\xbb\xbfn02\r\nn01\r\n",
        b"n02\tgoldfish\nn01\ttench\n",
        b"n02,goldfish\nn01,tench\n",
        b"1 n01\n0 n02\n",
        b"n01 1 tench\nn02 0 goldfish\n",
        b'"n02" goldfish\n"n01" tench\n',
    ],
)
def test_every_form_of_lines_numbers_the_folders(tmp_path: Path, content: bytes) -> None:
    assert labels(write_tree(tmp_path / "tree", {"n01": 1, "n02": 1}), content) == [1, 0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("golden retriever\ngolden eagle\n", [1, 0]),
        ("golden retriever\tdog\ngolden eagle\tbird\n", [1, 0]),
        ('"golden retriever" a dog\n"golden eagle" a bird\n', [1, 0]),
        ("golden retriever, a dog\ngolden eagle, a bird\n", [1, 0]),
        ("sea lion\ngolden retriever\ngolden eagle\n", [2, 1]),
    ],
)
def test_folders_may_have_names_of_several_words(tmp_path: Path, content: str, expected: list[int]) -> None:
    root = write_tree(tmp_path / "tree", {"golden eagle": 1, "golden retriever": 1})
    assert labels(root, content) == expected


def test_a_part_of_the_classes_keeps_its_numbers(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"n03": 1, "n07": 1})
    assert labels(root, '{"n03": 3, "n07": 7}', "list.json") == [3, 7]
    assert labels(root, "n01 a\nn03 b\nn07 c\n") == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"n01": 1, "n02": 1}', "both have the number 1"),
        ('{"n01": 1, "n02": 2}', "counts classes from 1 to 2, but labels are counted from 0"),
        ('{"n01": 0, "n02": "goldfish"}', "beside other values"),
        ('{"n01": true, "n02": false}', "has true beside other values"),
        ('{"n01": 0, "n01": 1, "n02": 2}', "'n01' is there twice"),
        ('{"n01": -1, "n02": 0}', "beside other values"),
        ('{"0": ["n01", "tench", 3], "1": "n02"}', "is no class"),
        ("[]", "expected each class folder once"),
        ("{", "is damaged: broken JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('["n01", "n03"]', r"does not list n02 \(1 of 2 folders\)"),
    ],
)
def test_a_list_that_does_not_say_one_number_each_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^data.class_names: .*{message}"):
        labels(write_tree(tmp_path / "tree", {"n01": 1, "n02": 1}), content, "list.json")


def test_lines_that_could_mean_two_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lists golden twice"):
        labels(write_tree(tmp_path / "tree", {"golden": 1, "n": 1}), "golden eagle\ngolden retriever\nn\n")


def shard(folder: Path, contexts: dict[str, bytes]) -> DataConfig:
    folder.mkdir()
    members: dict[str, bytes] = {}
    for number, (name, content) in enumerate(contexts.items()):
        members[f"{name.partition('.')[0]}.png"] = png(number)
        members[name] = content
    write_tar(folder / "0.tar", members)
    return DataConfig(name="webdataset", path=str(folder))


def test_classes_of_shards_by_name(tmp_path: Path) -> None:
    config = shard(tmp_path / "named", {"0.cls": b"dog\n", "1.json": b'{"label": "cat"}', "2.cls.txt": b"sea lion"})
    source = load_source(config)
    assert source.labels.tolist() == [1, 0, 2]
    assert source.class_names == ("cat", "dog", "sea lion")
    (tmp_path / "names.json").write_text(
        json.dumps({"0": ["n02", "dog"], "1": ["n01", "cat"], "2": ["n03", "sea lion"]})
    )
    listed = load_source(config.model_copy(update={"class_names": str(tmp_path / "names.json")}))
    assert listed.labels.tolist() == [0, 1, 2]
    assert listed.class_names == ("dog", "cat", "sea lion")


@pytest.mark.filterwarnings("ignore:damaged sample")
def test_a_class_that_the_list_does_not_have_is_damage(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    config = shard(
        tmp_path / "data", {"0.cls": b"cat", "1.cls": b"caat", "2.cls": b"0", "3.cls": b"2", "4.cls": b"dog"}
    )
    source = load_source(config.model_copy(update={"class_names": str(tmp_path / "names.txt")}))
    assert source.labels.tolist() == [1, 0, 0]
    assert [source.read(i) for i in range(3)] == [png(0), png(2), png(4)]
    assert [text.partition("0.tar: ")[2] for text in source.damaged] == [
        "1: data.class_names does not list the class caat (did you mean 'cat'?)",
        "3: class 2, data.class_names lists 2 (0 … 1)",
    ]
