"""Images from files as a data set: pixels, replacements of damaged ones, and reading ahead."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import RunError
from adanat_rl.data.crop import read_square
from adanat_rl.data.digits import ImageDataset
from adanat_rl.data.image_tree import ImageTree
from adanat_rl.data.sources import ImageSource
from adanat_rl.data.streaming import StreamedImages, read_ahead
from tests.data.files import png, write_cc3m, write_tree

SIZE = 8


class Memory(ImageSource):
    """Encoded images in a list; None is a file that cannot be read. Counts what is read."""

    def __init__(self, files: list[bytes | None], labels: list[int]) -> None:
        super().__init__("memory", np.array(labels), max(labels) + 1, "hash")
        self.files = files
        self.reads: list[int] = []

    def read(self, item: int) -> bytes:
        self.reads.append(item)
        data = self.files[item]
        if data is None:
            raise OSError("no such file")
        return data

    def where(self, item: int) -> str:
        return f"file {item}"


def memory(count: int, damaged: tuple[int, ...] = (), num_classes: int = 3, **options) -> StreamedImages:
    files = [None if item in damaged else png(item) for item in range(count)]
    return StreamedImages(Memory(files, [item % num_classes for item in range(count)]), SIZE, **options)


def expected(items, flips=None) -> torch.Tensor:
    crops = [read_square(png(int(item)), SIZE) for item in items]
    if flips is not None:
        crops = [crop[:, :, ::-1] if flip else crop for crop, flip in zip(crops, flips, strict=True)]
    return torch.from_numpy(np.stack(crops).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_images_are_crops_in_the_unit_interval_mirrored_where_asked(num_workers: int) -> None:
    images = memory(10, num_workers=num_workers)
    index, flips = np.array([7, 2, 2, 9]), np.array([False, True, False, True])
    got = images.images_at(index, flips)
    assert got.shape == (4, *images.image_shape)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected(index, flips))
    assert torch.equal(images.images_at(index), expected(index))
    assert images.images_at(np.array([], int)).shape == (0, 3, SIZE, SIZE)
    with pytest.raises(IndexError):
        images.images_at(np.array([10]))
    with pytest.raises(IndexError):
        images.images_at(np.array([-1]))


@pytest.mark.filterwarnings("ignore:damaged image")
@pytest.mark.parametrize("num_workers", [1, 4])
def test_a_damaged_image_is_replaced_by_the_next_of_its_class_whatever_was_read_before(num_workers: int) -> None:
    everything, backwards = np.arange(12), np.arange(12)[::-1]
    shown = expected([0, 7, 2, 3, 7, 5, 6, 7, 8, 9, 1 + 6, 11])  # 1 → 4 → 7, 4 → 7, 10 → (around) 1 → 4 → 7
    for order in (everything, backwards):
        images = memory(12, (1, 4, 10), num_workers=num_workers)
        assert torch.equal(images.images_at(order), shown[order.copy()])
        assert sorted(images.damaged) == [1, 4, 10]


@pytest.mark.filterwarnings("ignore:damaged image")
def test_a_damaged_image_is_read_once() -> None:
    images = memory(6, (1,), num_workers=1)
    for _ in range(3):
        images.images_at(np.array([1]))
    assert images.source.reads == [1, 4, 4, 4]


@pytest.mark.filterwarnings("ignore:damaged image")
def test_a_class_of_damaged_images_only_is_replaced_by_others() -> None:
    images = memory(4, (1,), num_classes=4)
    pictures, labels = images.pairs_at(np.array([1, 3]))
    assert torch.equal(pictures, expected([2, 3]))
    assert labels.tolist() == [2, 3], "pairs carry the labels of what is shown"


def test_a_damaged_image_is_named() -> None:
    with pytest.warns(RuntimeWarning, match="damaged image left out: file 4: OSError: no such file"):
        memory(6, (4,)).images_at(np.array([4]))


@pytest.mark.filterwarnings("ignore:damaged image")
def test_more_damaged_images_than_accepted_are_an_error_that_names_them() -> None:
    images = memory(12, (1, 4, 7), max_damaged=2, num_workers=1)
    assert len(images.images_at(np.array([0, 4]))) == 2  # 4 and then 7
    with pytest.raises(
        RunError, match=r"3 damaged images, data.max_damaged accepts 2: file 4: .*; file 7: .*; file 1:"
    ):
        images.images_at(np.array([1]))
    with pytest.raises(RunError, match=r"1 damaged images, data.max_damaged accepts 0: file 1"):
        memory(12, (1,), max_damaged=0).images_at(np.arange(12))
    with pytest.raises(RunError, match="none of the 2 images can be read"):
        memory(2, (0, 1)).images_at(np.array([0]))


@pytest.mark.filterwarnings("ignore:damaged image")
def test_damage_found_before_counts() -> None:
    images = memory(12, (1, 4), max_damaged=2, num_workers=1)
    images.mark_damaged({4: "file 4: damaged yesterday", 5: "file 5: damaged yesterday"})
    assert torch.equal(images.images_at(np.array([4])), expected([7]))
    with pytest.raises(RunError, match="3 damaged images"):
        images.images_at(np.array([1]))


def test_a_cut_jpeg_in_a_tree_is_found(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"a": 2, "b": 2})
    whole = (root / "a" / "1.png").read_bytes()
    (root / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    images = StreamedImages(ImageTree(root), SIZE)
    with pytest.warns(RuntimeWarning, match=r"a/1.png: "):
        pictures = images.images_at(np.arange(4))
    assert torch.equal(pictures, expected([0, 0, 2, 3]))


def test_a_copy_in_another_process_starts_its_own_threads(tmp_path: Path) -> None:
    images = StreamedImages(ImageTree(write_tree(tmp_path / "tree", {"a": 3})), SIZE, num_workers=2)
    before = images.images_at(np.arange(3))
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(copy.images_at(np.arange(3)), before)
    images.close()
    assert torch.equal(images.images_at(np.arange(3)), before)
    images.close()
    copy.close()


def test_reading_ahead_gives_everything_once_in_order() -> None:
    for ahead in (0, 3, 20):
        assert list(read_ahead(lambda key: key * key, range(7), ahead)) == [0, 1, 4, 9, 16, 25, 36]
        assert list(read_ahead(lambda key: key, [], ahead)) == []


def test_no_more_is_read_ahead_than_was_told() -> None:
    images = memory(100, num_workers=1)
    batches = read_ahead(images.images_at, np.arange(100).reshape(-1, 2), 3)
    next(batches)
    next(batches)
    batches.close()
    assert len(images.source.reads) <= 2 * (2 + 3)


def test_what_is_closed_has_no_thread_and_no_batches() -> None:
    before = set(threading.enumerate())
    images = memory(10, num_workers=1)
    batches = read_ahead(images.images_at, np.arange(10).reshape(-1, 2), 2)
    next(batches)
    batches.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(StopIteration):
        next(batches)
    read_ahead(images.images_at, [], 2).close()  # never used


@pytest.mark.filterwarnings("ignore:damaged image")
def test_an_error_of_the_thread_reaches_the_reader_in_its_turn() -> None:
    images = memory(8, (5,), max_damaged=0, num_workers=1)
    batches = read_ahead(images.images_at, np.arange(8).reshape(-1, 2), 4)
    assert torch.equal(next(batches), expected([0, 1]))
    assert torch.equal(next(batches), expected([2, 3]))
    with pytest.raises(RunError, match="1 damaged images"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.filterwarnings("ignore:damaged image")
def test_captions_follow_the_image_that_is_shown(tmp_path: Path) -> None:
    from adanat_rl.data.cc3m import CC3MTable

    file = write_cc3m(tmp_path / "train.tsv", ["zero", "one", "two"])
    file.write_text(file.read_text().replace("\tone\t", "\tone\t!"))
    source = CC3MTable([file])
    images = StreamedImages(source, SIZE)
    pictures, rows = images.pairs_at(np.array([0, 1, 2]))
    assert torch.equal(pictures, expected([0, 2, 2]))
    assert [source.captions[int(row)] for row in rows] == ["zero", "two", "two"]


def test_the_data_set_in_memory_has_the_same_questions() -> None:
    pictures = torch.rand(5, 1, 4, 6)
    dataset = ImageDataset(pictures, torch.arange(5), 5, "five")
    assert len(dataset) == 5
    assert dataset.image_shape == (1, 4, 6)
    assert torch.equal(dataset.images_at(np.array([3, 0, 3])), pictures[[3, 0, 3]])
