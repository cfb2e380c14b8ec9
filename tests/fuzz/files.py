"""What can happen to files: damage to those of a run, a policy or a data set, and files that never were any good."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.values import json_text, json_values, texts

_STRUCTURED = (".json", ".jsonl", ".yaml")


@dataclass(frozen=True)
class Damage:
    """One change of one file of a folder.

    Args:
        kind: what is done. where, other: pick files of the folder, in [0, 1). at: place in the file, in [0, 1).
        content: bytes that take part.
    """

    kind: str
    where: float
    other: float
    at: float
    content: bytes

    def apply(self, folder: Path) -> str:
        """Does it to a file below `folder`; says which."""
        files = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
        if not files:
            return "nothing left"
        path = files[int(self.where * len(files))]
        if self.kind == "json":
            structured = [file for file in files if file.suffix in _STRUCTURED and file.is_file()]
            path = structured[int(self.where * len(structured))] if structured else path
        _CHANGES[self.kind](self, path, files)
        return f"{self.kind}: {path.relative_to(folder)}"


def _rewritten(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _swap(damage: Damage, path: Path, files: list[Path]) -> None:
    _rewritten(path, _read(files[int(damage.other * len(files))]))


def _truncate(damage: Damage, path: Path, files: list[Path]) -> None:
    content = _read(path)
    _rewritten(path, content[: int(damage.at * len(content))])


def _flip(damage: Damage, path: Path, files: list[Path]) -> None:
    content = bytearray(_read(path))
    if content:
        content[int(damage.at * len(content))] ^= 0xFF
    _rewritten(path, bytes(content))


def _insert(damage: Damage, path: Path, files: list[Path]) -> None:
    content = _read(path)
    at = int(damage.at * len(content))
    _rewritten(path, content[:at] + damage.content + content[at:])


def _folder(damage: Damage, path: Path, files: list[Path]) -> None:
    path.unlink()
    path.mkdir()


def _fifo(damage: Damage, path: Path, files: list[Path]) -> None:
    path.unlink()
    os.mkfifo(path)


def _loop(damage: Damage, path: Path, files: list[Path]) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _dangling(damage: Damage, path: Path, files: list[Path]) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _stranger(damage: Damage, path: Path, files: list[Path]) -> None:
    """A file beside the others that is none of ours: a copy, a note of an editor, a system file."""
    names = (f"{path.name} (copy)", f".{path.name}.swp", ".DS_Store", f"{path.stem}_999999{path.suffix}", "lost+found")
    name = names[int(damage.other * len(names))]
    if not (path.parent / name).exists():
        (path.parent / name).write_bytes(damage.content)


def _no_parent(damage: Damage, path: Path, files: list[Path]) -> None:
    """The folder of the file is gone, or a file is in its place."""
    shutil.rmtree(path.parent)
    if damage.at < 0.5:
        path.parent.write_bytes(damage.content)


def _json(damage: Damage, path: Path, files: list[Path]) -> None:
    """One value of a structured file is another one, or is missing."""
    lines = _read(path).decode("utf-8", "replace").splitlines()
    if path.suffix == ".yaml":
        at = int(damage.at * max(1, len(lines)))
        lines[at : at + 1] = [f"{line.partition(':')[0]}: {damage.content.decode()}" for line in lines[at : at + 1]]
        return _rewritten(path, "\n".join(lines).encode())
    texts_ = lines if path.suffix == ".jsonl" else ["\n".join(lines)]
    at = int(damage.other * max(1, len(texts_)))
    for index, text in enumerate(texts_):
        if index == at:
            texts_[index] = _other_value(text, damage)
    return _rewritten(path, "\n".join(texts_).encode("utf-8", "surrogatepass"))


def _other_value(text: str, damage: Damage) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return damage.content.decode()
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key, child in list(inner.items() if isinstance(inner, dict) else enumerate(inner)):
            places.append((inner, key))
            if isinstance(child, dict | list):
                walk(child)

    if isinstance(value, dict | list):
        walk(value)
    if not places:
        return damage.content.decode()
    holder, key = places[int(damage.at * len(places))]
    marker = "\x01marker\x01"
    if damage.where * 7 % 1 < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = marker
    return json.dumps(value).replace(json.dumps(marker), damage.content.decode())


_CHANGES = {
    "missing": lambda damage, path, files: path.unlink(),
    "empty": lambda damage, path, files: _rewritten(path, b""),
    "other content": lambda damage, path, files: _rewritten(path, damage.content),
    "zeros": lambda damage, path, files: _rewritten(path, bytes(len(_read(path)))),
    "swapped": _swap, "truncated": _truncate, "flipped": _flip, "inserted": _insert, "folder": _folder, "fifo": _fifo,
    "loop": _loop, "dangling": _dangling, "stranger": _stranger, "no parent": _no_parent, "json": _json,
}  # fmt: skip


def damages() -> st.SearchStrategy[Damage]:
    """Any one; values of structured files most often."""
    part = st.floats(0, 0.999)
    kinds = st.sampled_from([*_CHANGES, "json", "json", "json", "json"])
    content = st.one_of(json_values().map(json_text), texts()).map(lambda text: text.encode("utf-8", "replace"))
    return st.builds(Damage, kinds, part, part, part, content)


# --- safetensors


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    """Changes of a safetensors header: {path of keys or name: new value}."""
    count = draw(st.integers(1, 2))
    sizes = [0, 1, -1, 2, 7, 10**8, 10**12, 2**63, -(10**9), 1.5, "16", None, True, [4], 10**30]
    value = st.one_of(st.sampled_from(sizes), json_values())
    return {f"{draw(st.floats(0, 0.999))}": draw(value) for _ in range(count)}


def with_header(content: bytes, changes: dict[str, Any]) -> bytes:
    """A safetensors file whose header differs; metadata that is JSON itself is changed inside."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    places = _places(header)
    for where, value in changes.items():
        *keys, last = places[int(float(where) * len(places))]
        inner = header
        try:
            for key in keys:
                inner = inner[key]
            inner[last]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took its holder away
        if isinstance(inner.get(last) if isinstance(inner, dict) else None, str) and inner[last][:1] in ("{", "["):
            nested = json.loads(inner[last])
            inside = _places(nested) if isinstance(nested, dict) else []
            if inside:
                *path, leaf = inside[int(float(where) * 31 % 1 * len(inside))]
                target = nested
                for key in path:
                    target = target[key]
                target[leaf] = value
            inner[last] = json_text(nested)
        else:
            inner[last] = value
    text = json_text(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _places(holder: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = holder.items() if isinstance(holder, dict) else enumerate(holder)
    found: list[tuple[Any, ...]] = []
    for key, value in items:
        found.append((*prefix, key))
        if isinstance(value, dict | list):
            found += _places(value, (*prefix, key))
    return found


def with_numbers(content: bytes, pattern: bytes) -> bytes:
    """A safetensors file whose data are one pattern again and again, such as NaN."""
    (length,) = struct.unpack("<Q", content[:8])
    size = len(content) - 8 - length
    return content[: 8 + length] + (pattern * (size // len(pattern) + 1))[:size]


# --- data sets


def image_bytes(kind: str, size: int = 8) -> bytes:
    """An image file, as its name says: good ones of several kinds, and bad ones."""
    if kind == "text":
        return b"this is no image"
    if kind == "nothing":
        return b""
    mode = {"palette": "P", "grey": "L", "alpha": "RGBA", "cmyk": "CMYK", "16 bits": "I;16", "bits": "1"}.get(
        kind, "RGB"
    )
    shape = (size, size) if mode in ("P", "L", "I;16", "1") else (size, size, {"RGB": 3}.get(mode, 4))
    array = np.zeros(shape, np.uint16 if mode == "I;16" else np.uint8)
    image = Image.new("1", (size, size)) if mode == "1" else Image.fromarray(array, mode if mode == "P" else None)
    if mode == "CMYK":
        image = Image.new("CMYK", (size, size))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if mode in ("CMYK", "I;16") else "JPEG" if kind == "jpeg" else "PNG")
    content = buffer.getvalue()
    return content[: len(content) // 2] if kind == "truncated" else content


def tar_bytes(members: list[tuple[str, bytes]], kind: int = 0) -> bytes:
    """A tar file; kind: type of the members, 0 for files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.type = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)[kind]
            info.linkname = "elsewhere" if kind == 1 else ""
            packed.addfile(info, io.BytesIO(content) if kind == 0 else None)
    return buffer.getvalue()
