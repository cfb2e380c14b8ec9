"""Files of a setting: a file, a folder, or a pattern with `*`, `**`, `?`, `[…]`, `{a,b}` and `{000..012}` anywhere."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import printable

_MARKS = re.compile(r"[*?\[]")
_RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})")
_MAX_FILES = 1_000_000
_PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip")
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def user_path(path: str, key: str) -> Path:
    """A path of a setting with `~` replaced.

    Raises:
        UserError: it is none, or there is no such home folder.
    """
    if "\0" in path:
        raise UserError(f"{key}: {path!r} is no path: it has a null byte")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{key}: {path}: {error}") from None


def expand_files(path: str, suffix: str, key: str = "data.path") -> list[Path]:
    """Files that a setting names, each once, in the order of the pattern and by name within it.

    Of a folder, the files in it that end in `suffix`; where there are none, those of its subfolders. Hidden ones are
    left out.

    Raises:
        UserError: there is none, one of a list is missing, or the subfolders are parts for different purposes.
    """
    plain = user_path(path, key)
    try:
        if plain.is_file():
            return [plain]
        if plain.is_dir():
            return _in_folder(plain, suffix, key)
        patterns = _expand_braces(str(plain), key)
        files = [file for pattern in patterns for file in _matches(pattern, key, alone=len(patterns) == 1)]
    except OSError as error:
        raise UserError(f"{key}: {printable(path)}: {error.strerror or error}") from None
    if not files:
        raise UserError(f"{key}: no {suffix} file there: {printable(path)}; {_expected(suffix)}")
    return list(dict.fromkeys(files))


def _expected(suffix: str) -> str:
    return (
        f"expected a file, a folder, or a pattern such as part-*{suffix}, **/*{suffix}, {{a,b}}{suffix} "
        f"or part-{{000..127}}{suffix}"
    )


def _in_folder(folder: Path, suffix: str, key: str) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if _fits(file.name, suffix) and file.is_file())
    if files:
        return files
    below: list[Path] = []
    packed: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below += [Path(place) / name for name in sorted(names) if _fits(name, suffix)]
        packed += [name for name in names if name.lower().endswith(_PACKED)]
    parts = sorted({file.relative_to(folder).parts[0] for file in below})
    if len(parts) > 1 and any(part.lower() in _SPLITS for part in parts):
        raise UserError(
            f"{key}: {printable(folder)} has {suffix} files for different purposes in {', '.join(parts)}; name one: "
            f"{printable(folder / parts[0])}"
        )
    if below:
        return sorted(below)
    hint = f"; {packed[0]} is compressed, and images cannot be read out of it at random: unpack it" if packed else ""
    raise UserError(f"{key}: no {suffix} file in the folder {printable(folder)}{hint}; {_expected(suffix)}")


def _fits(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix) and not name.startswith(".")


def _matches(pattern: str, key: str, *, alone: bool) -> list[Path]:
    """Files of a pattern without braces; one without other marks must be there."""
    if Path(pattern).is_file():
        return [Path(pattern)]
    if not _MARKS.search(pattern):
        if alone:
            raise UserError(f"{key}: no such file or folder: {printable(pattern)}")
        raise UserError(f"{key}: no such file: {printable(pattern)}")
    found = [Path(name) for name in glob.iglob(pattern, recursive=True)]  # noqa: PTH207  (a pattern may be absolute)
    return sorted(file for file in found if file.is_file())


def _expand_braces(pattern: str, key: str) -> list[str]:
    """`a{08..10}b` to `a08b`, `a09b`, `a10b`; `{x,y}/{0..1}` to four; what is no list and no range stays as it is."""
    found = list(islice(_expanded(pattern, key), _MAX_FILES + 1))
    if len(found) > _MAX_FILES:
        raise UserError(f"{key}: {printable(pattern)} names more than {_MAX_FILES:,} files")
    return found


def _expanded(pattern: str, key: str) -> Iterator[str]:
    for start, end in _braces(pattern):
        parts = _alternatives(pattern[start + 1 : end], key)
        if parts is not None:
            for part in parts:
                yield from _expanded(pattern[:start] + part + pattern[end + 1 :], key)
            return
    yield pattern


def _braces(pattern: str) -> Iterator[tuple[int, int]]:
    """Places of each pair of braces, in the order in which they open."""
    opened: list[int] = []
    pairs = []
    for place, character in enumerate(pattern):
        if character == "{":
            opened.append(place)
        elif character == "}" and opened:
            pairs.append((opened.pop(), place))
    yield from sorted(pairs)


def _alternatives(inside: str, key: str) -> Sequence[str] | None:
    """What stands in braces, one by one; None if it is neither a list nor a range."""
    parts = _split_list(inside)
    if len(parts) > 1:
        return parts
    match = _RANGE.fullmatch(inside)
    if match is None:
        return None
    first, last = match[1], match[2]
    low, high = int(first), int(last)
    if abs(high - low) >= _MAX_FILES:
        raise UserError(f"{key}: {{{inside}}} names more than {_MAX_FILES:,} files")
    numbers = range(low, high + 1) if low <= high else range(low, high - 1, -1)
    return [f"{number:0{len(first)}d}" for number in numbers]


def _split_list(inside: str) -> list[str]:
    """Parts between the commas that are in no inner braces; a part that is a range by itself, as `{0..2,7}`, counts."""
    parts, depth = [""], 0
    for character in inside:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if len(parts) > 1:
        parts = [f"{{{part}}}" if _RANGE.fullmatch(part) else part for part in parts]
    return parts
