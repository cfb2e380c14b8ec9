"""Writes caption tables chunk by chunk, so that a writer killed at any instant goes on where it was.

Rows are appended and put on the disk before `chunks.jsonl` tells of them; rows it does not tell of are cut off and
encoded again. The manifest comes last. The result is the same, to the bit, as that of a writer never killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import file_sha256, read_json_lines, sync_folder, write_atomically
from adanat_rl.config.text_files import read_text
from adanat_rl.data.contexts import parse_json
from adanat_rl.generation.text.encoder import TextEmbedding, TextEncoder
from adanat_rl.generation.text.table import (
    CAPTIONS,
    CHUNKS,
    HIDDEN,
    HIDDEN_DTYPE,
    MANIFEST,
    POOLED,
    POOLED_DTYPE,
    TABLE_FORMAT,
    CaptionLines,
    CaptionTable,
    TableInfo,
    array_sha256,
    checked_info,
    open_caption_table,
    table_bytes,
    table_info,
)
from adanat_rl.version import __version__

_PLAN, _LOCK = "plan.json", ".lock"


def write_caption_table(
    folder: Path,
    captions: Sequence[str],
    encoder: TextEncoder,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> CaptionTable:
    """Encodes captions and the empty prompt into a table; goes on with an unfinished one, opens a finished one.

    Args:
        batch_size: rows that are encoded and put on the disk together.
        progress: is told rows done and rows in all, at the start and after each batch.

    Raises:
        UserError: the folder holds another table, another process writes it, the disk is too small, a caption is no
            text, or an embedding does not fit into its data type.
    """
    if (folder / MANIFEST).exists():  # perhaps on a disk that cannot be written
        _refuse_another(folder, table_info(folder), _info(encoder, captions))
        return open_caption_table(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"caption table {folder} cannot be written: {error.strerror or error}") from None
    with _only_writer(folder):
        if (folder / MANIFEST).exists():  # another writer was quicker
            return write_caption_table(folder, captions, encoder)
        info = _plan(folder, captions, encoder)
        done = _cut_back(folder, info)
        _refuse_small_disk(folder, info, done)
        _append_rows(folder, info, encoder, done, batch_size, progress)
        manifest = {
            "format": TABLE_FORMAT,
            "adanat_rl": __version__,
            "table": info.to_json(),
            "chunks_sha256": file_sha256(folder / CHUNKS),
        }
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n", durable=True)
        (folder / _PLAN).unlink(missing_ok=True)
    return open_caption_table(folder)


def to_stored(embedding: TextEmbedding) -> tuple[np.ndarray, np.ndarray]:
    """Hidden `[B, S, C]` and pooled `[B, P]` in the data types of a table.

    Raises:
        UserError: a value is not finite, or too large for float16.
    """
    with np.errstate(over="ignore"):
        hidden = embedding.hidden.detach().cpu().numpy().astype(HIDDEN_DTYPE)
        pooled = embedding.pooled.detach().cpu().numpy().astype(POOLED_DTYPE)
    if not (np.isfinite(hidden).all() and np.isfinite(pooled).all()):
        raise UserError("the text encoder gave an embedding that is not finite or does not fit into float16")
    return hidden, pooled


def _plan(folder: Path, captions: Sequence[str], encoder: TextEncoder) -> TableInfo:
    """What the table will be; written down first, so that a later call knows what it goes on with."""
    path = folder / _PLAN
    info = _info(encoder, captions)
    if path.exists():
        try:
            begun = checked_info(parse_json(read_text(path, "caption table")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged: {error}; remove the folder and start again") from None
        _refuse_another(folder, begun, info)
    else:
        foreign = [name for name in (HIDDEN, POOLED, CHUNKS) if (folder / name).exists()]
        if foreign:
            raise UserError(f"{folder} holds {foreign[0]} of something else; choose another folder")
    if not (folder / CAPTIONS).exists() or file_sha256(folder / CAPTIONS) != info.captions_sha256:
        write_atomically(folder / CAPTIONS, b"".join(_caption_lines(captions)), durable=True)
    if not path.exists():
        write_atomically(path, json.dumps(info.to_json(), indent=2) + "\n", durable=True)
    return info


def _info(encoder: TextEncoder, captions: Sequence[str]) -> TableInfo:
    digest = hashlib.sha256()
    for line in _caption_lines(captions):
        digest.update(line)
    return TableInfo(
        encoder=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        captions_sha256=digest.hexdigest(),
        num_captions=len(captions),
        length=encoder.length,
        width=encoder.width,
        pooled_width=encoder.pooled_width,
    )


def _refuse_another(folder: Path, found: TableInfo, wanted: TableInfo) -> None:
    have, want = found.to_json(), wanted.to_json()
    have.pop("encoder"), want.pop("encoder")  # a folder may be moved
    for name, value in want.items():
        if have[name] != value:
            raise UserError(
                f"caption table {folder} was made with {name} {have[name]}, now it is {value}; "
                "choose another folder, or remove this one"
            )


def _cut_back(folder: Path, info: TableInfo) -> int:
    """Removes what no line of the chunk list tells of; returns the number of rows that stay."""
    done = 0
    kept: list[dict[str, Any]] = []
    sizes = {HIDDEN: _row_bytes(info)[0], POOLED: _row_bytes(info)[1]}
    headers = {HIDDEN: _header(info.hidden_shape, HIDDEN_DTYPE), POOLED: _header(info.pooled_shape, POOLED_DTYPE)}
    for chunk in read_json_lines(folder / CHUNKS):
        if not (isinstance(chunk, dict) and all(isinstance(chunk.get(name), int) for name in ("start", "stop"))):
            break  # damaged: this chunk and what follows is encoded again
        whole = done < chunk["stop"] <= info.num_captions + 1 and all(
            (folder / name).exists()
            and (folder / name).stat().st_size >= len(headers[name]) + chunk["stop"] * sizes[name]
            for name in sizes
        )
        if chunk["start"] != done or not whole:
            break
        done = chunk["stop"]
        kept.append(chunk)
    write_atomically(folder / CHUNKS, "".join(json.dumps(row) + "\n" for row in kept), durable=True)
    for name, size in sizes.items():
        with (folder / name).open("r+b" if (folder / name).exists() else "w+b") as file:
            if done == 0:
                file.write(headers[name])
            file.truncate(len(headers[name]) + done * size)
    return done


def _append_rows(
    folder: Path,
    info: TableInfo,
    encoder: TextEncoder,
    done: int,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    captions = CaptionLines(folder / CAPTIONS)
    total = info.num_captions + 1
    tell = progress or (lambda _done, _total: None)
    tell(done, total)
    with (
        (folder / HIDDEN).open("ab") as hidden_file,
        (folder / POOLED).open("ab") as pooled_file,
        (folder / CHUNKS).open("ab") as chunk_file,
    ):
        for start in range(done, total, batch_size):
            stop = min(start + batch_size, total)
            batch = captions[start : min(stop, info.num_captions)] + [""] * (stop == total)
            hidden, pooled = to_stored(encoder(batch))
            for name, array, shape in (
                (HIDDEN, hidden, info.hidden_shape),
                (POOLED, pooled, info.pooled_shape),
            ):
                if array.shape != (stop - start, *shape[1:]):
                    raise ValueError(f"{info.encoder} gave {name} of shape {array.shape}, announced {shape[1:]} a row")
            _append(hidden_file, hidden.tobytes())
            _append(pooled_file, pooled.tobytes())
            hashes = {HIDDEN: array_sha256(hidden), POOLED: array_sha256(pooled)}
            _append(chunk_file, (json.dumps({"start": start, "stop": stop, **hashes}) + "\n").encode())
            tell(stop, total)
    sync_folder(folder)


def _append(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _refuse_small_disk(folder: Path, info: TableInfo, done: int) -> None:
    need = table_bytes(info.num_captions, info.length, info.width, info.pooled_width) - done * sum(_row_bytes(info))
    free = shutil.disk_usage(folder).free
    if need > free:
        raise UserError(f"caption table {folder} needs {need / 1e9:.1f} GB more, the disk has {free / 1e9:.1f} GB free")


def _row_bytes(info: TableInfo) -> tuple[int, int]:
    return info.length * info.width * HIDDEN_DTYPE.itemsize, info.pooled_width * POOLED_DTYPE.itemsize


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header of an .npy file."""
    buffer = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def _caption_lines(captions: Sequence[str]) -> Iterator[bytes]:
    for number, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise UserError(f"caption {number} is {caption!r}, expected text")
        try:
            yield json.dumps(caption, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:
            raise UserError(f"caption {number} is no valid Unicode text: {caption!r}") from None


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the operating system gives it back when the process ends, however it ends."""
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing the caption table {folder}") from None
        except OSError:
            pass  # a file system without locks, such as Lustre as it is often mounted
        yield
