"""Reading and writing YAML: scalars of YAML 1.2, each with its text and line, and bounds on everything that could grow.

YAML 1.1, which PyYAML resolves by itself, takes `2024_11_05` and `12:30:00` for numbers and `no` for false, and keeps
the last of two equal keys in silence. Here PyYAML only finds the tokens. A number or a truth value keeps the text
that was written, so that whoever knows which type a setting has (`typed_settings`) can ask for either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml import events

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.text_files import read_text

MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_DIGITS = 256 * 1024, 32, 10_000, 100
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_BREAKS = re.compile(r"[\x85\u2028\u2029\ufeff]")  # are folded away unless they are escaped
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Text:
    """A scalar.

    Args:
        written: its text. is_plain: whether it stood without quotes, so that it may be null, a truth value or a number.
        line: where it begins, from 1.
    """

    written: str
    is_plain: bool
    line: int

    @property
    def is_null(self) -> bool:
        """Whether it is one of the words for null, or nothing at all."""
        return self.is_plain and self.written in _NULLS

    @property
    def value(self) -> str | int | float | bool | None:
        """What it is in the core schema of YAML 1.2.

        Raises:
            UserError: a number of more than 100 characters.
        """
        if not self.is_plain:
            return self.written
        if self.is_null:
            return None
        if self.written in _TRUTHS:
            return _TRUTHS[self.written]
        return _number(self.written)


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class Entries:
    """A mapping: text of the key, line of the key, value."""

    entries: tuple[tuple[str, int, Node], ...]
    line: int


Node = Text | Items | Entries


def read_yaml(path: Path, what: str) -> Node:
    """The content of a YAML file.

    Args:
        what: what the file is to whoever named it; messages begin with it.

    Raises:
        UserError: it cannot be read, is no UTF-8, or is no YAML that is accepted here; with the line.
    """
    return parse_yaml(read_text(path, what, max_bytes=MAX_BYTES), str(path))


def parse_yaml(text: str, where: str) -> Node:
    """The content of a YAML text of one document; null if it is empty.

    Args:
        where: names it; messages begin with it.

    Raises:
        UserError: no YAML, a key twice, a tag, a second document, an anchor inside itself, or too large or too deep.
    """
    try:
        return _Composer(yaml.parse(text, Loader=yaml.SafeLoader), where).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        reason = reason_of(error.problem or error.context)
        hint = "; indent with spaces, not tabs" if "'\\t'" in reason else ""
        raise UserError(f"{where} is no YAML{line}: {reason}{hint}") from None
    except yaml.reader.ReaderError as error:
        line = f", line {text.count(chr(10), 0, error.position) + 1}"
        raise UserError(f"{where} is no YAML{line}: character {error.character:#06x} is not accepted") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as an escape behind the last character there is
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} is no YAML: {reason_of(error)}") from None


def plain(node: Node) -> Any:
    """A node as Python objects: every scalar as the core schema has it, every key as text.

    Raises:
        UserError: a number of more than 100 characters.
    """
    if isinstance(node, Text):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, _, value in node.entries}


def dump_yaml(content: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """A mapping of plain Python objects as YAML that readers of YAML 1.1 and 1.2 take for the same.

    Args:
        ascii_only: whether other letters are escaped.
    """
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=not ascii_only)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would take for a number and 1.1, whose words PyYAML knows, would not."""

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors: each value is written where it stands."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_ambiguous = Text(text, is_plain=True, line=0).is_null or bool(
        text in _TRUTHS or _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text)
    )
    style = '"' if _BREAKS.search(text) else "'" if is_ambiguous else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _number(text: str) -> str | int | float:
    """A number, if the text is one."""
    is_integer = _INTEGER.fullmatch(text) is not None
    if not is_integer and _FLOAT.fullmatch(text) is None:
        return text
    if len(text) > MAX_DIGITS:
        raise UserError(
            f"a number of {len(text):,} characters ({text[:12]}…) is not accepted: {MAX_DIGITS} are the most"
        )
    if is_integer:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


class _Composer:
    """Builds nodes from the events of PyYAML's parser, which needs no recursion and reads no further than asked.

    Args:
        stream: the events. where: names the text.
    """

    def __init__(self, stream: Iterator[events.Event], where: str) -> None:
        self._stream = stream
        self._where = where
        self._anchors: dict[str, tuple[Node, int]] = {}  # what they name, and how many values that has
        self._open: set[str] = set()  # anchors of what is not complete yet
        self._count = 0

    def document(self) -> Node:
        """The only document."""
        root: Node = Text("", is_plain=True, line=1)
        num_documents = 0
        for event in self._stream:
            if isinstance(event, events.DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    raise self._refusal(event, "a second document begins; expected one, without a line ---")
            elif isinstance(event, events.NodeEvent):
                root = self._node(event, 0)
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise self._refusal(event, f"more than {MAX_DEPTH} lists and mappings inside each other")
        if isinstance(event, events.AliasEvent):
            return self._alias(event)
        before = self._count
        self._take(event, 1)
        if event.anchor is not None:
            self._open.add(event.anchor)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self._refusal(event, f"the tag {tag} is not accepted; types come from the settings")
        node: Node
        if isinstance(event, events.ScalarEvent):
            node = Text(event.value, event.style is None, line)
        elif isinstance(event, events.SequenceStartEvent):
            node = Items(tuple(self._items(depth)), line)
        else:
            node = self._mapping(line, depth)
        if event.anchor is not None:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = (node, self._count - before)
        return node

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._stream), events.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _mapping(self, line: int, depth: int) -> Entries:
        entries: dict[str, tuple[int, Node]] = {}
        merged: list[tuple[str, int, Node]] = []
        while not isinstance(event := next(self._stream), events.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Text):
                raise self._refusal(event, "a list or mapping is no key; expected a word")
            value = self._node(next(self._stream), depth + 1)
            if key.is_plain and key.written == "<<":
                merged += self._merged(event, value)
                continue
            if key.written in entries:
                raise self._refusal(
                    event, f"{key.written} stands here and in line {entries[key.written][0]}; once is accepted"
                )
            entries[key.written] = (key.line, value)
        inherited = {name: (at, value) for name, at, value in reversed(merged) if name not in entries}
        return Entries(tuple((name, at, value) for name, (at, value) in [*inherited.items(), *entries.items()]), line)

    def _merged(self, event: events.Event, value: Node) -> Sequence[tuple[str, int, Node]]:
        """Entries of `<<: *anchor`, or of a list of such; of two equal keys the first counts."""
        sources = value.items if isinstance(value, Items) else (value,)
        found: list[tuple[str, int, Node]] = []
        for source in sources:
            if not isinstance(source, Entries):
                raise self._refusal(event, "<< takes a mapping, or a list of them")
            found += source.entries
        return found

    def _alias(self, event: Any) -> Node:
        if event.anchor in self._open:
            raise self._refusal(event, f"*{event.anchor} stands inside of what it names")
        if event.anchor not in self._anchors:
            raise self._refusal(event, f"*{event.anchor} names nothing; &{event.anchor} has to come before")
        node, size = self._anchors[event.anchor]
        self._take(event, size)
        return node

    def _take(self, event: events.Event, size: int) -> None:
        """Counts values, those behind aliases each time."""
        self._count += size
        if self._count > MAX_VALUES:
            raise self._refusal(event, f"more than {MAX_VALUES:,} values, those that aliases repeat included")

    def _refusal(self, event: events.Event, reason: str) -> UserError:
        return UserError(f"{self._where} is no YAML that is accepted, line {_line(event)}: {reason}")


def _line(event: events.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1
