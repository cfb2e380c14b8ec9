"""Class lists: which number each class has, in the forms that people keep them.

JSON {folder: name}, {folder: number} (torchvision's class_to_idx), {number: name} or {number: [folder, name]} (Keras'
imagenet_class_index.json), a JSON list of folders or of [folder, name]; or a text file with a folder a line, the name
behind it or not, a number between or before them or not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.text_files import printable, read_text
from adanat_rl.data.contexts import parse_json, shortened

_KEY = "data.class_names"
_ACCEPTED = (
    "expected each class folder once, as a JSON object {folder: name}, {folder: number} or {number: [folder, name]}, "
    "a JSON list or lines"
)
_MAX_CLASSES = 1_000_000
_MAX_BYTES = 64 << 20
_DIGITS = re.compile(r"[0-9]{1,9}")
_QUOTED = re.compile(r"""(["'])(.+?)\1(?:[\s,;:]+(.*))?""")


@dataclass(frozen=True)
class ListedClass:
    """A class of a list.

    Args:
        folder: what it is called in files: a folder, or a label.
        name: what people call it, "" if the list does not say.
        line: of a text file, the whole line, whose first words may all be the folder's.
        digits: the number as it stands in a line, which may be the folder's name too.
    """

    folder: str
    name: str = ""
    line: str = ""
    digits: str = ""

    @property
    def shown(self) -> str:
        """For people."""
        return self.name or self.folder


class ClassList:
    """K classes.

    Args:
        path: of the file, for messages. classes: by number, 0 … K - 1; None where the list has no class of this number.
    """

    def __init__(self, path: Path, classes: Sequence[ListedClass | None]) -> None:
        self.path = path
        self.classes = tuple(classes)

    def __len__(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def shown(self) -> list[str]:
        """What people call the classes, by number."""
        return [f"class {number}" if one is None else one.shown for number, one in enumerate(self.classes)]

    def by_name(self) -> dict[str, int]:
        """Numbers by folder, by name and by whole line; what stands for two classes is left out."""
        found: dict[str, int] = {}
        doubtful: set[str] = set()
        for number, one in enumerate(self.classes):
            for text in {one.folder, one.name, one.line} - {""} if one is not None else ():
                if found.setdefault(text, number) != number:
                    doubtful.add(text)
        return {text: number for text, number in found.items() if text not in doubtful}

    def numbers_of(self, folders: Sequence[str]) -> dict[str, int]:
        """The number of each folder.

        Of a line, the folder is as many of its first words as are the name of a folder.

        Raises:
            UserError: a folder is not listed, or two classes of the list could be meant by it.
        """
        exact = self._exact(folders)
        if exact is None:
            exact = self._by_first_words(set(folders))
        unknown = [folder for folder in folders if folder not in exact]
        if unknown:
            known = [one.folder for one in self.classes if one is not None]
            raise UserError(
                f"{_KEY}: {printable(self.path)} does not list {printable(unknown[0])} "
                f"({len(unknown)} of {len(folders)} folders){nearest(unknown[0], known)}"
            )
        return exact

    def _exact(self, folders: Sequence[str]) -> dict[str, int] | None:
        """Where all folders are listed as such, or all by the names that people use."""
        columns: tuple[Iterable[tuple[int, str]], ...] = (
            [(number, one.line or one.folder) for number, one in enumerate(self.classes) if one is not None],
            [(number, one.folder) for number, one in enumerate(self.classes) if one is not None],
            [(number, one.name) for number, one in enumerate(self.classes) if one is not None],
        )
        for column in columns:
            counts = Counter(text for _, text in column)
            numbers = {text: number for number, text in column}
            if all(counts[folder] == 1 for folder in folders):
                return {folder: numbers[folder] for folder in folders}
        return None

    def _by_first_words(self, folders: set[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for number, one in enumerate(self.classes):
            folder = None if one is None else _longest_start(one.line or one.folder, folders)
            if folder is None and one is not None and one.digits in folders:
                folder = one.digits
            if folder is None:
                continue
            if found.setdefault(folder, number) != number:
                raise UserError(f"{_KEY}: {printable(self.path)} lists {printable(folder)} twice; {_ACCEPTED}")
        return found


def read_classes(path: Path) -> ClassList:
    """The classes of a file.

    Raises:
        UserError: it is missing or holds something else.
    """
    text = read_text(path, _KEY, max_bytes=_MAX_BYTES)
    if path.suffix.lower() == ".json" or text.lstrip().startswith(("{", "[")):
        try:
            content = parse_json(text)
        except ValueError as error:
            raise UserError(f"{_KEY}: {printable(path)} is damaged: {error}") from None
        numbered = _of_json(path, content)
    else:
        numbered = _of_lines(path, [line.strip() for line in text.split("\n") if line.strip()])
    return ClassList(path, _in_order(path, numbered))


def read_class_list(path: Path) -> dict[str, str]:
    """Folder names in the order of their numbers, with what people call them ("" if the list does not say).

    Raises:
        UserError: the file is missing or holds something else.
    """
    classes = read_classes(path).classes
    return {
        f"class {n}" if one is None else one.folder: "" if one is None else one.name for n, one in enumerate(classes)
    }


_Numbered = list[tuple[int, ListedClass]]


def _of_json(path: Path, content: Any) -> _Numbered:
    if isinstance(content, list):
        return [(number, _entry(path, item)) for number, item in enumerate(content)]
    if not isinstance(content, dict) or not content:
        raise _refused(path)
    values = list(content.values())
    if all(_number(value) is not None for value in values):
        return [(_number(value) or 0, ListedClass(folder)) for folder, value in content.items()]
    if all(_DIGITS.fullmatch(key) for key in content):
        return [(int(key), _entry(path, value, folder=key)) for key, value in content.items()]
    if all(value is None or isinstance(value, str) for value in values):
        return [
            (number, ListedClass(folder, (name or "").strip())) for number, (folder, name) in enumerate(content.items())
        ]
    odd = next(value for value in values if not (value is None or isinstance(value, str)))
    raise _refused(path, f"it has {shortened(odd)} beside other values")


def _entry(path: Path, item: object, folder: str = "") -> ListedClass:
    """A class of a JSON list, or of an object by number: a name, or folder and name."""
    if folder and item in (None, ""):
        return ListedClass(folder)
    if isinstance(item, str) and item.strip():
        return ListedClass(folder, item.strip()) if folder else ListedClass(item)
    if isinstance(item, int) and not isinstance(item, bool) and not folder:
        return ListedClass(str(item))
    if isinstance(item, list) and 1 <= len(item) <= 2 and all(isinstance(part, str) and part for part in item):
        return ListedClass(*item)
    raise _refused(path, f"{shortened(item)} is no class")


def _of_lines(path: Path, lines: Sequence[str]) -> _Numbered:
    if not lines:
        raise _refused(path)
    words = [line.split() for line in lines]
    for column in (0, 1):
        if all(len(row) > 1 and _DIGITS.fullmatch(row[column]) for row in words):
            return [(int(row[column]), _without(line, row, column)) for line, row in zip(lines, words, strict=True)]
    return [(number, _of_line(line)) for number, line in enumerate(lines)]


def _without(line: str, row: Sequence[str], column: int) -> ListedClass:
    """A line without its number."""
    if column == 0:
        return replace(_of_line(line[len(row[0]) :].strip()), digits=row[0])
    return ListedClass(row[0], " ".join(row[2:]))


def _of_line(line: str) -> ListedClass:
    """`folder`, `folder name …`, `"folder of many words" name …`, or with a tab between them."""
    quoted = _QUOTED.fullmatch(line)
    if quoted is not None:
        return ListedClass(quoted[2], (quoted[3] or "").strip())
    if "\t" in line:
        folder, _, name = line.partition("\t")
        return ListedClass(folder.strip(), name.strip())
    folder, _, name = line.partition(" ")
    return ListedClass(folder, name.strip(), line)


def _in_order(path: Path, numbered: _Numbered) -> list[ListedClass | None]:
    """The classes by number; numbers may leave some out, where the data are a part of a larger set."""
    if not numbered:
        raise _refused(path)
    by_number: dict[int, ListedClass] = {}
    seen: set[tuple[str, str]] = set()
    for number, one in numbered:
        identity = (one.folder, one.line)
        if number in by_number:
            raise _refused(path, f"{one.folder} and {by_number[number].folder} both have the number {number}")
        if not one.folder or identity in seen:
            raise _refused(path, f"{one.folder or 'a class without a name'} is there twice" if one.folder else "")
        seen.add(identity)
        by_number[number] = one
    last = max(by_number)
    if last >= _MAX_CLASSES:
        raise _refused(path, f"the number {last} is too large")
    if len(by_number) > 1 and min(by_number) == 1 and last == len(by_number):
        raise UserError(
            f"{_KEY}: {printable(path)} counts classes from 1 to {last}, but labels are counted from 0; write "
            f"0 … {last - 1}, or leave the numbers out"
        )
    return [by_number.get(number) for number in range(last + 1)]


def _number(value: object) -> int | None:
    """A class number, as such or as text."""
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def _longest_start(line: str, folders: set[str]) -> str | None:
    """The longest start of a line, up to white space or a comma, that is one of the folders."""
    ends = [len(line), *(match.start() for match in re.finditer(r"[\s,;:]", line))]
    for end in sorted(ends, reverse=True):
        if line[:end] in folders:
            return line[:end]
    return None


def _refused(path: Path, why: str = "") -> UserError:
    return UserError(f"{_KEY}: {printable(path)}: {f'{why}; ' if why else ''}{_ACCEPTED}")
