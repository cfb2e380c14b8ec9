"""Every kind of files: numbering, labels, captions, bytes, hashes, and one line for what is wrong."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import DataConfig
from adanat_rl.data.cc3m import CC3MTable, read_captions
from adanat_rl.data.cifar10 import ParquetImages
from adanat_rl.data.coco import CocoCaptions
from adanat_rl.data.image_tree import ImageTree, read_class_list
from adanat_rl.data.loading import load_dataset, load_images, load_source
from adanat_rl.data.sources import PackedStrings
from adanat_rl.data.tar_shards import TarShards
from tests.data.files import png, write_cc3m, write_coco, write_tar, write_tree


def load(name: str, path: Path, **settings):
    return load_source(DataConfig(name=name, path=str(path), **settings))


def contents(source) -> list[bytes]:
    return [source.read(i) for i in range(len(source))]


def test_a_tree_numbers_its_folders_by_name(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"b": 2, "a": 1, "c": 1})
    (root / "b" / "notes.txt").write_text("no image")
    (root / "c" / "deeper").mkdir()
    (root / "c" / "deeper" / "X.JPEG").write_bytes(png(9))
    (root / ".thumbnails").mkdir()
    source = load("image_folder", root)
    assert source.labels.tolist() == [0, 1, 1, 2, 2]
    assert source.num_classes == 3
    assert source.class_names == ("a", "b", "c")
    assert source.context_kind == "class"
    assert contents(source) == [png(2), png(0), png(1), png(3), png(9)]
    assert source.where(4) == str(root / "c" / "deeper" / "X.JPEG")


def test_a_class_list_numbers_the_classes_of_a_part(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"n2": 1, "n9": 1})
    names = {"n1": "tench", "n2": "goldfish", "n9": "hen"}
    (tmp_path / "names.json").write_text(json.dumps(names))
    (tmp_path / "list.json").write_text(json.dumps(list(names)))
    (tmp_path / "names.txt").write_text("n1 tench\nn2 goldfish\n\nn9 hen\n")
    for file, called in (("names.json", "hen"), ("list.json", "n9"), ("names.txt", "hen")):
        source = ImageTree(root, tmp_path / file)
        assert source.labels.tolist() == [1, 2]
        assert source.num_classes == 3
        assert source.class_names[2] == called
    (tmp_path / "short.txt").write_text("n1\nn2\nn99\n")
    with pytest.raises(UserError, match=r"short.txt does not list n9 \(1 of 2 folders\) \(did you mean 'n99'\?\)"):
        ImageTree(root, tmp_path / "short.txt")
    (tmp_path / "twice.txt").write_text("n1\nn1\n")
    with pytest.raises(UserError, match="each class folder once"):
        read_class_list(tmp_path / "twice.txt")


def test_a_folder_without_folders_is_one_class(tmp_path: Path) -> None:
    write_tree(tmp_path, {"only": 3})
    source = ImageTree(tmp_path / "only")
    assert source.labels.tolist() == [0, 0, 0]
    assert source.num_classes == 1


def test_what_is_wrong_with_a_tree_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.path: no such folder"):
        ImageTree(tmp_path / "nowhere")
    root = write_tree(tmp_path / "tree", {"a": 1})
    (root / "b").mkdir()
    with pytest.raises(UserError, match=r"class folder .*b has no images"):
        ImageTree(root)
    (root / "b").rmdir()
    (root / "stray.png").write_bytes(png(0))
    with pytest.raises(UserError, match=r"1 images beside its class folders, such as stray.png"):
        ImageTree(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither class folders nor images"):
        ImageTree(tmp_path / "empty")


def test_the_hash_of_a_listing_changes_with_names_and_labels_only(tmp_path: Path) -> None:
    first = write_tree(tmp_path / "one", {"a": 2, "b": 1})
    second = shutil.copytree(first, tmp_path / "two")
    assert ImageTree(first).listing_hash == ImageTree(second).listing_hash
    (second / "b" / "0.png").rename(second / "b" / "1.png")
    assert ImageTree(first).listing_hash != ImageTree(second).listing_hash


SHARD_CLASSES = {"x/000.jpg": png(0), "x/000.cls": b"3\n", "x/001.cls": b"0", "x/001.png": png(1)}


def test_shards_with_class_numbers(tmp_path: Path) -> None:
    write_tar(tmp_path / "part-00.tar", SHARD_CLASSES)
    write_tar(tmp_path / "part-01.tar", {"000.json": b'{"label": 2}', "000.jpeg": png(2)})
    for path in (tmp_path, tmp_path / "part-*.tar", tmp_path / "part-{00..01}.tar"):
        source = load("webdataset", path)
        assert source.labels.tolist() == [3, 0, 2]
        assert source.num_classes == 4
        assert source.context_kind == "class"
        assert contents(source) == [png(0), png(1), png(2)]
        assert source.where(1) == f"{tmp_path / 'part-00.tar'}: x/001"
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    assert load("webdataset", tmp_path, class_names=str(tmp_path / "names.txt")).num_classes == 5


def test_shards_with_captions(tmp_path: Path) -> None:
    members = {
        "a.b/0001.jpg": png(0),
        "a.b/0001.txt": "  ein Käfer ".encode(),
        "a.b/0001.json": b'{"caption": "not this one", "width": 3}',
        "a.b/0002.0.json": b'{"caption": "of another suffix"}',
        "a.b/0003.json": b'{"caption": "two"}',
        "a.b/0003.webp": png(1),
    }
    with pytest.warns(RuntimeWarning, match=r"damaged sample left out: .*shard.tar: a.b/0002: no image"):
        source = load("webdataset", write_tar(tmp_path / "shard.tar", members))
    assert list(source.captions) == ["ein Käfer", "two"]
    assert source.labels.tolist() == [0, 1]
    assert source.num_classes == 2
    assert source.context_kind == "text"
    assert contents(source) == [png(0), png(1)]


def test_the_index_is_built_once_and_again_for_other_files(tmp_path: Path, monkeypatch) -> None:
    shard = write_tar(tmp_path / "shard.tar", SHARD_CLASSES)
    first = TarShards([shard])
    opened: list[object] = []
    whole = tarfile.open

    def counting(*args, **kwargs):
        opened.append(args)
        return whole(*args, **kwargs)

    monkeypatch.setattr(tarfile, "open", counting)
    again = TarShards([shard])
    assert not opened
    assert again.listing_hash == first.listing_hash
    assert contents(again) == contents(first)
    write_tar(shard, {"000.jpg": png(7), "000.cls": b"1"})
    opened.clear()
    assert contents(TarShards([shard])) == [png(7)]
    assert opened


@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_a_damaged_index_is_built_again(tmp_path: Path, damage: str) -> None:
    shard = write_tar(tmp_path / "shard.tar", SHARD_CLASSES)
    TarShards([shard], index_folder=str(tmp_path / "cache"))
    (index,) = (tmp_path / "cache").iterdir()
    file = index / "offset.npy"
    file.write_bytes(file.read_bytes()[: {"cut": 90, "empty": 0}[damage]])
    assert contents(TarShards([shard], index_folder=str(tmp_path / "cache"))) == [png(0), png(1)]
    assert len(np.load(file)) == 2


@pytest.mark.parametrize("obstacle", ["read-only", "a file in the way"])
def test_an_index_goes_to_the_cache_where_the_data_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    (tmp_path / "data").mkdir()
    shard = write_tar(tmp_path / "data" / "shard.tar", SHARD_CLASSES)
    if obstacle == "read-only":
        (tmp_path / "data").chmod(0o555)  # root could write there, and must not
    else:
        (tmp_path / "data" / ".adanat-index").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = sorted((tmp_path / "data").iterdir())
    assert len(TarShards([shard])) == 2
    assert sorted((tmp_path / "data").iterdir()) == before
    (index,) = (tmp_path / "cache" / "adanat-rl" / "indexes").iterdir()
    assert len(np.load(index / "offset.npy")) == 2
    assert contents(TarShards([shard])) == [png(0), png(1)]
    (tmp_path / "data").chmod(0o755)


def test_what_is_wrong_with_shards_is_said(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "whole.tar", SHARD_CLASSES)
    cases = {
        "cut.tar": shard.read_bytes()[:2000],
        "text.tar": b"no archive",
        "some.tar": write_tar(tmp_path / "x", {"0.png": png(0), "0.cls": b"1", "1.png": png(1)}).read_bytes(),
        "class.tar": write_tar(tmp_path / "x", {"0.png": png(0), "0.cls": b"-1"}).read_bytes(),
        "none.tar": write_tar(tmp_path / "x", {"0.txt": b"a caption"}).read_bytes(),
    }
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.add(shard)
    said = {
        "cut.tar": "cut.tar is (cut off|damaged)",
        "text.tar": r"text.tar is damaged or no plain .tar",
        "packed.tar": r"compressed ones are refused",
        "some.tar": "1 samples of 2 have a class and 0 a caption; expected all or none",
        "class.tar": r"no sample of .*class.tar is whole: .*class.tar: 0.cls: '-1' is no class: expected a number",
        "none.tar": "no sample of .*none.tar has an image",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    for name, message in said.items():
        with pytest.raises(UserError, match=message):
            load("webdataset", tmp_path / name)
    with pytest.raises(UserError, match=r"no .tar file there"):
        load("webdataset", tmp_path / "nothing-*.tar")
    with pytest.raises(UserError, match=r"no such file: .*part-1.tar"):
        load("webdataset", tmp_path / "part-{1..2}.tar")


def test_cc3m_training_tables(tmp_path: Path) -> None:
    captions = ["a tench", "ein Käfer", "a third"]
    file = write_cc3m(tmp_path / "train.tsv", captions)
    with file.open("a") as stream:
        stream.write("\n")
    source = load("cc3m_tsv", file)
    assert list(source.captions) == captions
    assert source.labels.tolist() == [0, 1, 2]
    assert source.context_kind == "text"
    assert contents(source) == [png(0), png(1), png(2)]
    assert source.where(2) == f"{file} line 3"
    assert source.notes == ()


def test_a_broken_line_of_cc3m_is_left_out_and_named(tmp_path: Path) -> None:
    file = write_cc3m(tmp_path / "train.tsv", ["a", "b"])
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "only\ttwo", lines[1], "0.jpg\t3\td\tno base 64!"]))
    source = CC3MTable([file])
    assert list(source.captions) == ["a", "b", "d"]
    assert list(source.damaged) == [f"{file} line 2: 2 columns, expected 4"]
    assert source.where(1) == f"{file} line 3"
    assert source.read(1) == png(1)
    with pytest.raises(ValueError, match="no base64"):
        source.read(2)


def test_cc3m_validation_tables_hold_captions_only(tmp_path: Path) -> None:
    file = tmp_path / "val.tsv"
    file.write_text("caption\turl\nan angler\thttp://a\r\n\nein Käfer\thttp://b\n", encoding="utf-8")
    source = load("cc3m_tsv", file)
    assert list(source.captions) == ["an angler", "ein Käfer"]
    assert not source.has_images
    with pytest.raises(UserError, match="has captions only"):
        load_images(DataConfig(name="cc3m_tsv", path=str(file)))
    write_cc3m(tmp_path / "train.tsv", ["a"])
    with pytest.raises(UserError, match=r"val.tsv has captions only, .*name one file"):
        load("cc3m_tsv", tmp_path)
    file.write_text("just\ttext\n")
    with pytest.raises(UserError, match="is no CC3M table"):
        load("cc3m_tsv", file)


def test_captions_of_a_text_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa dog\r\n\n  a cat\u2028of light \n".encode())
    source = load("captions", file)
    assert list(source.captions) == ["a dog", "a cat\u2028of light"]
    file.write_text("\n \n")
    with pytest.raises(UserError, match="holds no captions"):
        read_captions(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is text in UTF-16 or UTF-32, expected UTF-8"):
        read_captions(file)


def test_coco_has_several_captions_of_an_image(tmp_path: Path) -> None:
    images, annotations = write_coco(tmp_path)
    source = CocoCaptions(images, annotations)
    assert list(source.captions) == ["five", "nine a", "nine b", "nine c"]
    assert source.labels.tolist() == [0, 1]
    assert source.first_rows.tolist() == [0, 1, 4]
    assert source.num_classes == 4
    assert contents(source) == [png(5), png(9)]
    assert source.damaged == [f"{annotations}: image 7 (000000000007.png): no caption"]


def test_what_is_wrong_with_coco_is_said(tmp_path: Path) -> None:
    images, annotations = write_coco(tmp_path)
    content = json.loads(annotations.read_text())
    (images / "nothing").mkdir()
    with pytest.raises(UserError, match=r"data.path: .* has no 000000000005.png, the first image"):
        CocoCaptions(images / "nothing", annotations)
    for change, message in (
        ({"annotations": []}, "holds no captions"),
        ({"images": "many"}, "is no COCO captions file"),
        ({"annotations": [{"id": 1, "image_id": 5}]}, r"holds no captions: annotations\[0\]: the caption is null"),
    ):
        annotations.write_text(json.dumps({**content, **change}))
        with pytest.raises(UserError, match=message):
            CocoCaptions(images, annotations)
    annotations.write_text("{")
    with pytest.raises(UserError, match=r"data.captions: .* is damaged"):
        CocoCaptions(images, annotations)


def write_parquet(path: Path, first: int, count: int, metadata: dict | None = None, column: str = "img") -> Path:
    rows = [{"bytes": png(i), "path": f"{i}.png"} for i in range(first, first + count)]
    labels = [i % 3 for i in range(first, first + count)]
    table = pa.table({column: rows, "label": pa.array(labels, pa.int64())})
    pq.write_table(table.replace_schema_metadata(metadata or {}), path, row_group_size=2)
    return path


def test_cifar10_as_parquet(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00.parquet", 0, 5, {"class_names": "cat,dog,frog,ship"})
    write_parquet(tmp_path / "train-01.parquet", 5, 3)
    source = load("cifar10", tmp_path)
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert source.num_classes == 4
    assert source.class_names == ("cat", "dog", "frog", "ship")
    assert [source.read(i) for i in (7, 0, 4, 5, 3, 2, 1, 6)] == [png(i) for i in (7, 0, 4, 5, 3, 2, 1, 6)]
    assert source.where(6) == f"{tmp_path / 'train-01.parquet'} row 1"


def test_class_names_of_the_hub_are_found(tmp_path: Path) -> None:
    names = {"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}
    file = write_parquet(tmp_path / "test.parquet", 0, 3, {"huggingface": json.dumps(names)}, column="image")
    assert ParquetImages([file]).class_names == ("a", "b", "c")


def test_cifar10_as_folders(tmp_path: Path) -> None:
    write_tree(tmp_path / "train", {"dog": 1, "cat": 2})
    source = load("cifar10", tmp_path / "train")
    assert source.name == "cifar10"
    assert source.labels.tolist() == [0, 0, 1]


def test_what_is_wrong_with_parquet_is_said(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", 0, 2)
    write_parquet(tmp_path / "test.parquet", 0, 2)
    with pytest.raises(UserError, match=r"several splits \(test, train\); name one"):
        load("cifar10", tmp_path)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:-7])
    with pytest.raises(UserError, match=r"cut.parquet is damaged or no parquet"):
        load("cifar10", tmp_path / "cut.parquet")
    write_parquet(tmp_path / "other.parquet", 0, 2, column="photo")
    with pytest.raises(UserError, match="has the columns photo, label; expected one of img, image"):
        load("cifar10", tmp_path / "other.parquet")
    write_parquet(tmp_path / "names.parquet", 0, 3, {"class_names": "a,b"})
    with pytest.raises(UserError, match=r"max_damaged accepts 0: .*names.parquet row 2: class 2, the file names 2"):
        load("cifar10", tmp_path / "names.parquet", max_damaged=0)


def test_packed_strings_are_a_sequence() -> None:
    strings = ["", "a", "Käfer", "\ud800", ""]
    packed = PackedStrings.pack(strings)
    assert list(packed) == ["", "a", "Käfer", "?", ""]
    assert packed[-3] == "Käfer"
    assert packed[1:3] == ["a", "Käfer"]
    with pytest.raises(IndexError):
        packed[5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "image_folder"}, "data.path: null is not accepted: image_folder needs the place of its files"),
        ({"path": "x"}, "data.path: 'x' is not accepted: digits comes with a package"),
        ({"name": "coco", "path": "x"}, "data.captions: None is not accepted: coco needs the JSON file"),
        ({"name": "captions", "path": "x", "captions": "y"}, "only coco takes it"),
        ({"name": "coco", "path": "x", "captions": "y", "class_names": "z"}, "data.class_names: 'z' is not accepted"),
        ({"name": "imagefolder"}, "did you mean 'image_folder'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        resolve(overrides=[f"data.{key}={value}" for key, value in settings.items()])


def test_bundled_data_sets_are_in_memory_and_others_are_not(tmp_path: Path) -> None:
    assert load_images(DataConfig()).name == "digits"
    with pytest.raises(UserError, match="digits has no image files"):
        load_source(DataConfig())
    write_tree(tmp_path / "tree", {"a": 1})
    with pytest.raises(UserError, match="image_folder is read image by image"):
        load_dataset(DataConfig(name="image_folder", path=str(tmp_path / "tree")))


def test_a_grey_png_in_a_tree_is_read_in_colour(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (5, 5), 51).save(tmp_path / "a" / "x.png")
    images = load_images(DataConfig(name="image_folder", path=str(tmp_path), image_size=4, num_workers=1))
    assert np.allclose(images.images_at(np.array([0])), 0.2)
