"""Reads JSON that somebody else may have written: bounded in size and depth, each key once, one line of refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adanat_rl.config.errors import UserError
from adanat_rl.config.plain_files import read_plain_file
from adanat_rl.config.text_files import decode_text

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64


def read_json(path: Path, what: str = "", *, max_bytes: int = MAX_BYTES) -> Any:
    """What a JSON file holds; UTF-8 with or without a byte order mark.

    Args:
        what: what the file is, in front of its name in messages. max_bytes: of the whole file.

    Raises:
        UserError: it is missing, no plain file, too long, or no JSON.
    """
    name = f"{what} {path}" if what else str(path)
    text = decode_text(read_plain_file(path, name, max_bytes), name)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"{name} is damaged: {error}") from None


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, is nested deeper than `MAX_DEPTH`, or has a key twice in one object.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no JSON ({error})") from None
    _check_depth(value)
    return value


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands there twice")
    return content


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inner(outer)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _inner(value: dict[str, Any] | list[Any]) -> list[Any]:
    return [one for one in (value.values() if isinstance(value, dict) else value) if isinstance(one, dict | list)]
