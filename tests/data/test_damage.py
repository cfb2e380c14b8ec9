"""Damaged samples of any kind: counted, named, limited by `data.max_damaged`, and never another class or caption."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.schema import DataConfig
from adanat_rl.data.loading import load_images, load_source
from tests.data.files import png, write_cc3m, write_coco, write_tar, write_tree

pytestmark = pytest.mark.filterwarnings("ignore:damaged")


def shards(folder: Path, members: list[tuple[str, bytes]], **settings) -> DataConfig:
    """A set of one shard, whose members may have the same name."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "0.tar", "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return DataConfig(name="webdataset", path=str(folder), image_size=8, **settings)


def good(count: int, suffix: str = "txt", text: str = "cap {}") -> list[tuple[str, bytes]]:
    return [
        one
        for number in range(count)
        for one in ((f"{number}.jpg", png(number)), (f"{number}.{suffix}", text.format(number).encode()))
    ]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("9.jpg", png(9))], "9: no caption"),
        ([("9.txt", b"cap 9")], "9: no image"),
        ([("9.jpg", b""), ("9.txt", b"cap 9")], "9: the image is empty (0 bytes)"),
        ([("9.jpg", png(9)), ("9.txt", b"")], "9.txt: the caption is empty"),
        ([("9.jpg", png(9)), ("9.txt", b" \n\t")], "9.txt: the caption is empty"),
        ([("9.jpg", png(9)), ("9.txt", "café".encode("latin-1"))], "9.txt: it is no UTF-8 text"),
        ([("9.jpg", png(9)), ("9.txt", "cap".encode("utf-16"))], "9.txt: it is text in UTF-16"),
        ([("9.jpg", png(9)), ("9.json", b"{broken")], "9.json: broken JSON"),
        ([("9.jpg", png(9)), ("9.json", b"[1]")], "9.json: expected a JSON object"),
        ([("9.jpg", png(9)), ("9.json", b'{"caption": null}')], "9.json: the caption is null, expected text"),
        ([("9.jpg", png(9)), ("9.json", b'{"caption": ["a"]}')], "9.json: the caption is ['a'], expected text"),
        ([("9.jpg", png(9)), ("9.json", b"[" * 50_000)], "9.json: broken JSON: nested too deeply"),
        ([("9.jpg", png(9)), ("9.png", png(8)), ("9.txt", b"cap")], "9: several images: 9.jpg, 9.png"),
        ([("9.jpg", png(9)), ("9.jpg", png(8)), ("9.txt", b"cap")], "9: 2 members are called .jpg"),
        ([("9.left.jpg", png(9)), ("9.txt", b"cap")], "9: no image 9.jpg; 9.left.jpg is another member"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_odd_sample_of_a_shard_is_named_and_left_out(tmp_path: Path, members, reason: str) -> None:
    config = shards(tmp_path / "set", good(5) + members)
    with pytest.warns(RuntimeWarning, match="damaged sample left out"):
        source = load_source(config)
    assert list(source.captions) == [f"cap {number}" for number in range(5)]
    assert [source.read(i) for i in range(5)] == [png(i) for i in range(5)]
    (told,) = source.damaged
    assert told.startswith(f"{tmp_path / 'set' / '0.tar'}: {reason}")
    with pytest.raises(UserError, match=r"1 damaged samples, data.max_damaged accepts 0: .*9"):
        load_source(config.model_copy(update={"max_damaged": 0}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"-1", "'-1' is no class"),
        (b"1.5", "'1.5' is no class"),
        (b"1e3", "'1e3' is no class"),
        (b"nan", "'nan' is no class"),
        (b"", "'' is no class"),
        (b"9" * 30, "is no class"),
        (b"dog", "dog is no class number"),
    ],
)
def test_what_is_no_class_is_never_class_0(tmp_path: Path, content: bytes, reason: str) -> None:
    source = load_source(shards(tmp_path / "set", [*good(3, "cls", "{}"), ("9.jpg", png(9)), ("9.cls", content)]))
    assert source.labels.tolist() == [0, 1, 2]
    assert reason in source.damaged[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cls", b"1\r\n"),
        ("cls", b"\xef\xbb\xbf1"),
        ("cls", b"1.0"),
        ("CLS", b"1"),
        ("cls.txt", b"1"),
        ("json", b'{"label": "1"}'),
        ("json", b'{"label": 1.0}'),
        ("json", b'{"cls": 1}'),
        ("json", b'{"label": "1.0", "caption": "x"}'),
        ("json", b'\xef\xbb\xbf{"label": 1}'),
        ("txt", b"1"),
    ],
)
def test_every_spelling_of_a_class_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    source = load_source(shards(tmp_path / "set", [("a.jpg", png(0)), (f"a.{name}", content)]))
    assert (source.labels.tolist(), source.num_classes, source.context_kind) == ([1], 2, "class")
    assert not source.damaged


def test_a_good_caption_beside_a_broken_member_is_taken(tmp_path: Path) -> None:
    members = [("9.jpg", png(9)), ("9.json", b"{broken"), ("9.txt", b"cap 9")]
    source = load_source(shards(tmp_path / "set", good(2) + members))
    assert list(source.captions) == ["cap 0", "cap 1", "cap 9"]
    assert not source.damaged


@pytest.mark.parametrize("suffix", ["txt", "cls", "json"])
@pytest.mark.parametrize("order", ["images first", "images last", "far apart"])
def test_members_of_a_sample_are_brought_together_wherever_they_lie(tmp_path: Path, suffix: str, order: str) -> None:
    texts = {"txt": "cap {}", "cls": "{}", "json": '{{"label": {}}}'}
    members = good(6, suffix, texts[suffix])
    images, contexts = members[::2], members[1::2]
    arranged = {
        "images first": images + contexts,
        "images last": contexts[::-1] + images,
        "far apart": images[:3] + contexts[3:] + images[3:] + contexts[:3],
    }[order]
    source = load_source(shards(tmp_path / "set", arranged))
    found = {}
    for row in range(6):
        label = int(source.labels[row])
        found[source.read(row)] = source.captions[label] if suffix == "txt" else label
    assert found == {png(i): f"cap {i}" if suffix == "txt" else i for i in range(6)}


def test_names_of_members_may_differ_in_what_does_not_count(tmp_path: Path) -> None:
    members = [("./a/0.JPG", png(0)), ("a/0.CLS", b"1"), ("a//1.jpg", png(1)), ("./a/1.cls", b"0"), ("b/1.jpg", png(2))]
    members += [("b/1.cls", b"2"), ("a/._0.jpg", b"x"), ("__MACOSX/0.jpg", b"x"), (".DS_Store", b"x"), ("a/x.md", b"x")]
    source = load_source(shards(tmp_path / "set", members))
    assert [source.read(i) for i in range(3)] == [png(0), png(1), png(2)]
    assert source.labels.tolist() == [1, 0, 2]
    assert not source.damaged


def test_archives_joined_by_tar_keep_their_samples_apart(tmp_path: Path) -> None:
    members = [("0.jpg", png(0)), ("0.cls", b"0"), ("0.jpg", png(1)), ("0.cls", b"1")]
    source = load_source(shards(tmp_path / "set", members))
    assert [(source.read(i), int(source.labels[i])) for i in range(2)] == [(png(0), 0), (png(1), 1)]


def test_links_are_followed_and_sparse_members_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in good(3, "cls", "{}"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, kind, target in (("a", tarfile.LNKTYPE, "1.jpg"), ("b", tarfile.SYMTYPE, "nowhere.jpg")):
            link = tarfile.TarInfo(f"{name}.jpg")
            link.type, link.linkname = kind, target
            archive.addfile(link)
            label = tarfile.TarInfo(f"{name}.cls")
            label.size = 1
            archive.addfile(label, io.BytesIO(b"2"))
    source = load_source(DataConfig(name="webdataset", path=str(path)))
    assert [source.read(i) for i in range(4)] == [png(0), png(1), png(2), png(1)]
    assert source.labels.tolist() == [0, 1, 2, 2]
    assert "b: the image is a link to nowhere.jpg, which is no file of this shard" in source.damaged[0]


def test_what_tarfile_passes_over_in_silence_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", dict(good(4, "cls", "{}"))).read_bytes()
    two = write_tar(tmp_path / "two.tar", {"x.jpg": png(7), "x.cls": b"1"}).read_bytes()
    third = whole.index(b"2.jpg")
    broken = whole[:third] + b"\1" * 400 + whole[third + 400 :]
    for name, data, message in (
        ("joined.tar", whole + two, "more behind its end mark"),
        ("broken.tar", broken, "is damaged at byte"),
        ("half.tar", whole[: third + 200], "is cut off"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message):
            load_source(DataConfig(name="webdataset", path=str(tmp_path / name)))


def test_a_set_without_any_class_is_told_as_such(tmp_path: Path) -> None:
    odd = [("0.jpg", png(0)), ("0.json", b'{"url": "x", "width": 3}'), ("1.jpg", png(1)), ("1.json", b'{"url": "y"}')]
    with pytest.raises(
        UserError, match=r"0 samples of 2 have a class and 0 a caption; .*found .*\.jpg.*expected images"
    ):
        load_source(shards(tmp_path / "json", odd))
    images = load_source(shards(tmp_path / "plain", [("0.jpg", png(0)), ("1.jpg", png(1))]))
    assert images.num_classes == 1
    assert "neither classes nor captions: all images are one class" in images.notes[0]
    with pytest.raises(UserError, match=r"no sample of .* has an image; found \.tar \(1\)"):
        load_source(shards(tmp_path / "nested", [("0.tar", b"x" * 600)]))
    keyed = [("img.0001.jpg", png(0)), ("img.0001.txt", b"a")]
    with pytest.raises(UserError, match=r"img.0001.jpg is another member of it, since a key ends at its first dot"):
        load_source(shards(tmp_path / "dots", keyed))


def test_a_list_of_damage_and_damaged_pixels_share_one_limit(tmp_path: Path) -> None:
    members = [*good(4, "cls", "0"), ("7.jpg", b"no image"), ("7.cls", b"0"), ("8.jpg", png(8)), ("8.cls", b"x y z")]
    config = shards(tmp_path / "set", [*members, ("9.jpg", b"none either"), ("9.cls", b"0")], num_workers=1)
    images = load_images(config.model_copy(update={"max_damaged": 3}))
    assert images.images_at(np.arange(6)).shape == (6, 3, 8, 8)
    with pytest.raises(RunError, match=r"^3 damaged images, data.max_damaged accepts 2: .*8: .*7.*9"):
        load_images(config.model_copy(update={"max_damaged": 2})).images_at(np.arange(6))


def test_rows_of_cc3m(tmp_path: Path) -> None:
    write_cc3m(tmp_path / "train.tsv", ["a", "b", "c"])
    row = base64.b64encode(png(9))
    with (tmp_path / "train.tsv").open("ab") as file:
        file.write(b"x\t9\t \t" + row + b"\nx\t9\tcaf\xe9\t" + row + b"\nx\t9\tcap\t\nx\t9\n")
    source = load_source(DataConfig(name="cc3m_tsv", path=str(tmp_path)))
    assert list(source.captions) == ["a", "b", "c"]
    told = [text.partition(".tsv ")[2].partition(" (")[0] for text in source.damaged]
    assert told[0] == "line 4: the caption is empty"
    assert told[1].startswith("line 5: it is no UTF-8 text")
    assert told[2:] == ["line 6: no image", "line 7: 2 columns, expected 4"]


@pytest.mark.parametrize("spelling", ["url-safe", "unpadded", "folded"])
def test_base64_in_every_spelling(tmp_path: Path, spelling: str) -> None:
    encode = {
        "url-safe": base64.urlsafe_b64encode,
        "unpadded": lambda data: base64.b64encode(data).rstrip(b"="),
        "folded": base64.encodebytes,
    }[spelling]
    with (tmp_path / "train.tsv").open("wb") as file:
        for number in range(4):
            file.write(
                f"{number}\t{number}\tcap {number}\t".encode() + encode(png(number, 12 + number)).strip() + b"\n"
            )
    source = load_source(DataConfig(name="cc3m_tsv", path=str(tmp_path)))
    assert [source.read(i) for i in range(4)] == [png(i, 12 + i) for i in range(4)]
    assert list(source.captions) == [f"cap {i}" for i in range(4)]
    assert not source.damaged


@pytest.mark.parametrize("name", ["cc3m_tsv", "captions"])
@pytest.mark.parametrize("first", ["", "caption\turl\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_addresses_are_no_part_of_captions(tmp_path: Path, name: str, first: str, mark: bytes) -> None:
    rows = "a very typical bus station\thttp://a.example/x\r\nsierra looked stunning\thttps://b.example/y\r\n"
    (tmp_path / "table.tsv").write_bytes(mark + (first + rows).encode())
    source = load_source(DataConfig(name=name, path=str(tmp_path / "table.tsv")))
    assert list(source.captions) == ["a very typical bus station", "sierra looked stunning"]
    (tmp_path / "table.tsv").write_text("http://a.example/x\tfirst\nhttp://b.example/y\tsecond\n")
    assert list(load_source(DataConfig(name=name, path=str(tmp_path / "table.tsv"))).captions) == ["first", "second"]


def test_captions_with_addresses_in_other_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a bus,http://a.example/x\na dog,http://b.example/y\n")
    with pytest.raises(UserError, match="2 of 2 lines hold an address"):
        load_source(DataConfig(name="captions", path=str(tmp_path / "table.csv")))


def test_one_caption_that_is_no_text_is_damage(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_bytes("one\ncaf\xe9\ntwo\n".encode("latin-1"))
    source = load_source(DataConfig(name="captions", path=str(tmp_path / "captions.txt")))
    assert list(source.captions) == ["one", "two"]
    assert "captions.txt line 2 is no UTF-8 text" in source.damaged[0]


def coco(tmp_path: Path, change) -> DataConfig:
    images, annotations = write_coco(tmp_path / "coco")
    content = json.loads(annotations.read_text())
    change(content)
    annotations.write_text(json.dumps(content))
    return DataConfig(name="coco", path=str(images), captions=str(annotations))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"id": 1, "image_id": 6, "caption": "x"},
            "annotations[4]: the caption is of image 6, but there is no such image",
        ),
        ({"id": 1, "image_id": 5, "caption": None}, "annotations[4]: the caption is null, expected text"),
        ({"id": 1, "image_id": 5, "caption": "  "}, "annotations[4]: the caption is empty"),
        ({"id": 1, "caption": "x"}, "annotations[4]: image_id is null"),
        (7, "annotations[4]: 7 is no JSON object"),
    ],
)
def test_one_odd_caption_of_coco(tmp_path: Path, row: object, reason: str) -> None:
    source = load_source(coco(tmp_path, lambda content: content["annotations"].append(row)))
    assert list(source.captions) == ["five", "nine a", "nine b", "nine c"]
    assert sorted(text.partition("captions.json: ")[2] for text in source.damaged) == sorted(
        [reason, "image 7 (000000000007.png): no caption"]
    )


def test_ids_of_coco_may_be_text(tmp_path: Path) -> None:
    def as_text(content) -> None:
        for image in content["images"]:
            image["id"] = f"{image['id']}"
        for row in content["annotations"]:
            row["id"] = f"a{row['id']}"

    source = load_source(coco(tmp_path, as_text))
    assert list(source.captions) == ["five", "nine a", "nine b", "nine c"]
    assert [source.read(i) for i in range(2)] == [png(5), png(9)]


def test_images_of_coco_in_folders_below_and_missing_ones(tmp_path: Path) -> None:
    config = coco(tmp_path, lambda content: None)
    images = tmp_path / "coco" / "images"
    for number, folder in ((5, "train2014"), (9, "val2014")):
        (images / folder).mkdir()
        (images / f"{number:012d}.png").rename(images / folder / f"{number:012d}.png")
    source = load_source(config)
    assert [source.read(i) for i in range(2)] == [png(5), png(9)]
    (images / "val2014" / "000000000009.png").unlink()
    source = load_source(config)
    assert list(source.captions) == ["five"]
    assert any("image 9 (000000000009.png): no such file in" in text for text in source.damaged)


def test_an_image_of_coco_with_two_names_is_damage(tmp_path: Path) -> None:
    source = load_source(coco(tmp_path, lambda content: content["images"].append({"id": 9, "file_name": "other.png"})))
    assert list(source.captions) == ["five"]
    assert any("image 9 is both 000000000009.png and other.png" in text for text in source.damaged)


@pytest.mark.parametrize(
    ("labels", "kind", "expected", "damaged"),
    [
        ([1, None, 0], pa.int64(), [1, 0], 1),
        (["1", "x", "0"], pa.string(), [1, 0], 1),
        ([1.0, 0.5, 0.0], pa.float64(), [1, 0], 1),
        ([1, -1, 0], pa.int64(), [1, 0], 1),
        ([True, False, True], pa.bool_(), None, 3),
    ],
)
def test_labels_of_parquet(tmp_path: Path, labels, kind: pa.DataType, expected, damaged: int) -> None:
    table = pa.table({"img": [png(i) for i in range(3)], "label": pa.array(labels, kind)})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2)
    config = DataConfig(name="cifar10", path=str(tmp_path / "train.parquet"))
    if expected is None:
        with pytest.raises(UserError, match=r"no row of .* has a class: .* row 0: true is no class"):
            load_source(config)
        return
    source = load_source(config)
    assert source.labels.tolist() == expected
    assert [source.read(i) for i in range(2)] == [png(0), png(2)]
    assert source.where(1) == f"{tmp_path / 'train.parquet'} row 2"
    assert len(source.damaged) == damaged


def test_a_column_that_holds_no_files_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": ["a.png"], "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="column img is string; expected the bytes of encoded images"):
        load_source(DataConfig(name="cifar10", path=str(tmp_path / "x.parquet")))


def test_odd_names_in_a_tree(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"Cat": 1, "cat": 1})
    for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini"):
        (root / "cat" / name).write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / "cat" / "list.csv").write_text("x")
    source = load_source(DataConfig(name="image_folder", path=str(root)))
    assert source.labels.tolist() == [0, 1]
    assert len(source.notes) == 2
    assert "1 files below" in source.notes[0]
    assert "Cat and cat differ only in upper and lower case" in source.notes[1]


def test_a_file_name_that_is_no_unicode_is_read(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"a": 1})
    name = b"k\xe4se.png".decode("utf-8", "surrogateescape")
    try:
        (root / "a" / name).write_bytes(png(5))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    source = load_source(DataConfig(name="image_folder", path=str(root)))
    assert [source.read(i) for i in range(2)] == [png(0), png(5)]
    source.where(1).encode()


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"a": 1})
    (root / "a" / "again").symlink_to(root)
    with pytest.raises(UserError, match="is a link to a folder that it lies in"):
        load_source(DataConfig(name="image_folder", path=str(root)))
