from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.generation.text import table_writer
from adanat_rl.generation.text.build import read_prompts
from adanat_rl.generation.text.cache import EmbeddingCache
from adanat_rl.generation.text.encoder import ClipTextEncoder, TextEmbedding
from adanat_rl.generation.text.table import CaptionTable, open_caption_table, table_bytes
from adanat_rl.generation.text.table_writer import write_caption_table
from tests.tiny_clip import LENGTH, POOLED_WIDTH, WIDTH, write_tiny_clip

CAPTIONS = ["a cat", 'two\nlines and "quotes"', "\u00e9t\u00e9 \u2028 \U0001f408", "a cat", "", "x", "y"]


class HashEncoder:
    """An encoder without a network: a caption's embedding comes from its hash. Fails when told to."""

    name, length, width, pooled_width = "hash", 3, 4, 5

    def __init__(self, fingerprint: str = "hash-1", fail_after: int | None = None, scale: float = 1.0) -> None:
        self.fingerprint = fingerprint
        self.seen: list[str] = []
        self._fail_after = fail_after
        self._scale = scale

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        self.seen += captions
        if self._fail_after is not None and len(self.seen) > self._fail_after:
            raise KeyboardInterrupt
        rows = np.stack([self.row(caption) for caption in captions]) * np.float32(self._scale)
        hidden = rows[:, :12].reshape(-1, 3, 4)
        return TextEmbedding(torch.from_numpy(hidden), torch.from_numpy(rows[:, 12:].copy()))

    @staticmethod
    def row(caption: str) -> np.ndarray:
        digest = hashlib.sha256(caption.encode()).digest()
        return np.frombuffer(digest[:17], np.uint8).astype(np.float32) / 7


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    write_caption_table(tmp_path / "whole", CAPTIONS, HashEncoder(), batch_size=2)
    return tmp_path / "whole"


def test_rows_are_the_embeddings_of_their_captions_and_of_the_empty_prompt(whole: Path) -> None:
    table = open_caption_table(whole)
    assert list(table.captions) == CAPTIONS
    assert table.captions[-1] == "y"
    assert table.captions[1:3] == CAPTIONS[1:3]
    assert len(table) == table.num_contexts == table.null_index == 7
    assert (table.context_shape, table.pooled_width) == ((3, 4), 5)
    index = torch.tensor([6, 2, 7, 2])
    expected = np.stack([HashEncoder.row(caption) for caption in ("y", CAPTIONS[2], "", CAPTIONS[2])])
    hidden, pooled = table.hidden(index), table.pooled(index)
    assert (hidden.dtype, pooled.dtype) == (torch.float32, torch.float32)
    half = expected[:, :12].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(hidden.numpy(), half.reshape(4, 3, 4))
    np.testing.assert_array_equal(pooled.numpy(), expected[:, 12:])


def test_rows_outside_the_table_are_refused(whole: Path) -> None:
    table = open_caption_table(whole)
    for row in (-1, 8):
        with pytest.raises(IndexError, match=rf"row {row} of a caption table of 7"):
            table.hidden(torch.tensor([0, row]))
    with pytest.raises(IndexError, match=r"caption 7 of 7"):
        _ = table.captions[7]


def test_a_real_encoder_fills_the_table(tmp_path: Path) -> None:
    encoder = ClipTextEncoder(write_tiny_clip(tmp_path / "clip"))
    table = write_caption_table(tmp_path / "table", CAPTIONS, encoder, batch_size=3)
    expected = encoder([*CAPTIONS, ""])
    index = torch.arange(8)
    torch.testing.assert_close(table.hidden(index), expected.hidden, rtol=1e-3, atol=1e-3)
    assert torch.equal(table.pooled(index), expected.pooled)
    assert table.hidden(index).shape == (8, LENGTH, WIDTH)
    assert table.pooled(index).shape == (8, POOLED_WIDTH)


@pytest.mark.parametrize("fail_after", range(8))
def test_a_writer_that_was_stopped_goes_on_and_ends_with_the_same_files(
    fail_after: int, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        write_caption_table(folder, CAPTIONS, HashEncoder(fail_after=fail_after), batch_size=2)
    with pytest.raises(UserError, match=r"is not finished; the command that makes it goes on"):
        open_caption_table(folder)
    encoder = HashEncoder()
    write_caption_table(folder, CAPTIONS, encoder, batch_size=2)
    assert files(folder) == files(whole)
    assert len(encoder.seen) == 8 - fail_after // 2 * 2


@pytest.mark.parametrize("lost", ["row not listed", "half a row", "half a line", "listed row lost"])
def test_a_writer_killed_between_two_writes_goes_on(lost: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        write_caption_table(folder, CAPTIONS, HashEncoder(fail_after=4), batch_size=2)
    if lost == "row not listed":
        with (folder / "hidden.npy").open("ab") as file:
            file.write(b"\x01" * 48)
    elif lost == "half a row":
        with (folder / "pooled.npy").open("ab") as file:
            file.write(b"\x01" * 9)
    elif lost == "half a line":
        with (folder / "chunks.jsonl").open("ab") as file:
            file.write(b'{"start": 4, "st')
    else:
        with (folder / "pooled.npy").open("r+b") as file:
            file.truncate((folder / "pooled.npy").stat().st_size - 1)
    write_caption_table(folder, CAPTIONS, HashEncoder(), batch_size=2)
    assert files(folder) == files(whole)


def test_a_writer_killed_before_the_first_row_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "killed"
    for step in ("_cut_back", "_append_rows"):
        with monkeypatch.context() as patch:
            patch.setattr(table_writer, step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                write_caption_table(folder, CAPTIONS, HashEncoder(), batch_size=2)
    (folder / "captions.jsonl").write_text("damaged")
    write_caption_table(folder, CAPTIONS, HashEncoder(), batch_size=2)
    assert files(folder) == files(whole)


def test_progress_tells_rows_done_and_the_number_of_rows(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_caption_table(tmp_path, CAPTIONS, HashEncoder(), 3, lambda done, total: told.append((done, total)))
    assert told == [(0, 8), (3, 8), (6, 8), (8, 8)]


def test_a_finished_table_is_opened_and_not_encoded_again(whole: Path) -> None:
    encoder = HashEncoder()
    table = write_caption_table(whole, CAPTIONS, encoder)
    assert encoder.seen == []
    assert list(table.captions) == CAPTIONS


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_another_table_is_refused(finished: bool, tmp_path: Path) -> None:
    if finished:
        write_caption_table(tmp_path, CAPTIONS, HashEncoder())
    else:
        with pytest.raises(KeyboardInterrupt):
            write_caption_table(tmp_path, CAPTIONS, HashEncoder(fail_after=2), 2)
    with pytest.raises(UserError, match=r"encoder_fingerprint hash-1, now it is hash-2"):
        write_caption_table(tmp_path, CAPTIONS, HashEncoder("hash-2"))
    with pytest.raises(UserError, match=r"captions_sha256"):
        write_caption_table(tmp_path, [*CAPTIONS[:-1], "z"], HashEncoder())


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another process is writing"):
            write_caption_table(tmp_path, CAPTIONS, HashEncoder())


def test_a_caption_that_is_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"caption 1 is 3, expected text"):
        write_caption_table(tmp_path, ["a", 3], HashEncoder())  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"caption 0 is no valid Unicode"):
        write_caption_table(tmp_path, ["\ud800"], HashEncoder())


def test_an_embedding_that_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite or does not fit into float16"):
        write_caption_table(tmp_path, CAPTIONS, HashEncoder(scale=1e5))


def test_a_table_too_large_for_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(table_writer.shutil, "disk_usage", lambda _: usage)
    encoder = HashEncoder()
    with pytest.raises(UserError, match=r"needs 0\.0 GB more, the disk has 0\.0 GB free"):
        write_caption_table(tmp_path, CAPTIONS, encoder)
    assert encoder.seen == []


def test_disk_need_is_known_beforehand(whole: Path) -> None:
    written = sum((whole / name).stat().st_size for name in ("hidden.npy", "pooled.npy"))
    assert table_bytes(7, 3, 4, 5) == written
    assert table_bytes(0) == 77 * 1280 * 2 + 1280 * 4 + 256


@pytest.mark.parametrize("name", ["hidden.npy", "pooled.npy", "captions.jsonl", "chunks.jsonl", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damage_is_named(name: str, damage: str, whole: Path) -> None:
    path = whole / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        open_caption_table(whole)


@pytest.mark.parametrize("name", ["hidden.npy", "pooled.npy"])
def test_a_changed_row_is_found_when_rows_are_verified(name: str, whole: Path) -> None:
    open_caption_table(whole, verify_rows=True)
    data = bytearray((whole / name).read_bytes())
    data[-1] ^= 1
    (whole / name).write_bytes(bytes(data))
    with pytest.raises(UserError, match=rf"{name} is damaged in rows 6 to 7"):
        open_caption_table(whole, verify_rows=True)


def test_no_table_is_told_from_an_unfinished_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is none"):
        open_caption_table(tmp_path / "nowhere")


def test_a_table_in_another_format_is_refused(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    (whole / "manifest.json").write_text(json.dumps({**manifest, "format": "other"}))
    with pytest.raises(UserError, match=r"has format 'other'"):
        open_caption_table(whole)


def test_copies_for_other_processes_carry_no_embeddings(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(open_caption_table(Path("whole")))
    assert len(data) < 400
    monkeypatch.chdir("/")
    copy = pickle.loads(data)
    index = torch.tensor([1, 7])
    assert torch.equal(copy.hidden(index), open_caption_table(whole).hidden(index))


def test_a_table_without_captions_has_the_null_context(tmp_path: Path) -> None:
    table = write_caption_table(tmp_path, [], HashEncoder())
    assert list(table.captions) == []
    np.testing.assert_array_equal(table.pooled(torch.tensor([0]))[0], HashEncoder.row("")[12:])


def test_captions_and_arrays_must_fit() -> None:
    with pytest.raises(ValueError, match=r"2 captions need one row more, got 2 and 3"):
        CaptionTable(["a", "b"], np.zeros((2, 3, 4)), np.zeros((3, 5)))


def test_cached_prompts_are_encoded_once(tmp_path: Path, whole: Path) -> None:
    encoder = HashEncoder()
    cache = EmbeddingCache(tmp_path / "cache", encoder)
    table = cache.table(["a cat", "x", "a cat"])
    assert sorted(encoder.seen) == ["", "a cat", "x"]
    cache.table(["x", "new"])
    assert encoder.seen[3:] == ["new"]
    index = torch.tensor([0, 1, 2, 3])
    stored = open_caption_table(whole)
    rows = torch.tensor([0, 5, 0, 7])
    assert torch.equal(table.hidden(index), stored.hidden(rows))
    assert torch.equal(table.pooled(index), stored.pooled(rows))

    fresh = HashEncoder()
    again = EmbeddingCache(tmp_path / "cache", fresh).table(["a cat", "x", "a cat"])
    assert fresh.seen == []
    assert torch.equal(again.hidden(index), table.hidden(index))
    assert torch.equal(again.pooled(index), table.pooled(index))

    other = HashEncoder("hash-2")
    EmbeddingCache(tmp_path / "cache", other).table(["x"])
    assert other.seen == ["x", ""]


def test_a_damaged_cache_file_is_made_anew(tmp_path: Path) -> None:
    table = EmbeddingCache(tmp_path, HashEncoder()).table(["x"])
    (path,) = (p for p in (tmp_path / "hash-1").iterdir() if p.stem == hashlib.sha256(b"x").hexdigest())
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    encoder = HashEncoder()
    again = EmbeddingCache(tmp_path, encoder).table(["x"])
    assert encoder.seen == ["x"]
    assert torch.equal(again.hidden(torch.tensor([0])), table.hidden(torch.tensor([0])))
    assert path.read_bytes() == whole


def test_without_a_folder_prompts_are_kept_in_memory() -> None:
    encoder = HashEncoder()
    cache = EmbeddingCache(None, encoder)
    cache.table(["x"])
    cache.table(["x"])
    assert encoder.seen == ["x", ""]


def test_a_table_that_another_writer_finished_meanwhile_is_opened(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, encoder = tmp_path / "raced", HashEncoder()

    @contextmanager
    def finished_meanwhile(_: Path) -> Iterator[None]:
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        yield

    monkeypatch.setattr(table_writer, "_only_writer", finished_meanwhile)
    table = write_caption_table(folder, CAPTIONS, encoder)
    assert encoder.seen == []
    assert list(table.captions) == CAPTIONS


@pytest.mark.parametrize(
    "change",
    [{"num_captions": "7"}, {"length": -1}, {"hidden_dtype": "object"}, {"hidden_dtype": None}, {"width": 10**30}],
)
def test_a_manifest_that_says_nothing_sensible_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_caption_table(tmp_path / "table", CAPTIONS, HashEncoder())
    path = tmp_path / "table" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "table": {**manifest["table"], **change}}))
    with pytest.raises(UserError, match=r"manifest.json is damaged"):
        open_caption_table(tmp_path / "table")


def test_a_list_of_chunks_of_another_kind_is_begun_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_caption_table(tmp_path / "table", CAPTIONS, HashEncoder(fail_after=4), batch_size=2)
    chunks = (tmp_path / "table" / "chunks.jsonl").read_text().splitlines()
    (tmp_path / "table" / "chunks.jsonl").write_text(f'{chunks[0]}\n{{"start": "2", "stop": null}}\n')
    table = write_caption_table(tmp_path / "table", CAPTIONS, HashEncoder(), batch_size=2)
    assert np.array_equal(table.pooled(torch.arange(7)).numpy(), [HashEncoder.row(text)[12:] for text in CAPTIONS])


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert len(write_caption_table(tmp_path / "table", CAPTIONS, HashEncoder())) == len(CAPTIONS)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"caption table .* cannot be written"):
        write_caption_table(tmp_path / "file" / "table", CAPTIONS, HashEncoder())


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = EmbeddingCache(tmp_path / "file" / "cache", HashEncoder()).table(["x", "y"])
    assert np.array_equal(table.pooled(torch.arange(2)).numpy(), [HashEncoder.row(text)[12:] for text in ("x", "y")])


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_prompts_are_lines_and_nothing_else(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "prompts.txt").write_bytes(mark + "a cat\r\n\n of light\u2028and \x0c dark \r\n".encode())
    assert read_prompts(tmp_path / "prompts.txt") == ["a cat", "of light\u2028and \x0c dark"]
    (tmp_path / "prompts.txt").write_bytes(b"k\xe4se")
    with pytest.raises(UserError, match=r"^--prompts: .*is no UTF-8 text"):
        read_prompts(tmp_path / "prompts.txt")
