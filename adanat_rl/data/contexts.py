"""Labels and captions as files have them: what is accepted as a class, as a caption, and why the rest is damaged."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import decode_text

MAX_TEXT_BYTES = 1 << 20  # of a label, a caption or a JSON file of one sample
LABEL_KEYS = ("label", "cls")  # of a JSON object
CAPTION_KEY = "caption"

_MAX_CLASS = 2**31 - 1
_MAX_NAME = 200  # characters
_NUMBER = re.compile(r"([0-9]+)(?:\.0*)?")
_NO_NAMES = {"nan", "none", "null", "n/a"}


def parse_class(value: object) -> int | str:
    """A class number, also as text or as a float without a fraction, or the name of a class.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= _MAX_CLASS:
            return value
    elif isinstance(value, str):
        text = value.strip()
        number = _NUMBER.fullmatch(text)
        if number and len(text) <= _MAX_NAME:
            return parse_class(int(number[1]))
        if _is_name(text):
            return text
    raise ValueError(f"{shortened(value)} is no class: expected a number from 0, or a name")


def parse_caption(value: object) -> str:
    """A caption without white space around it.

    Raises:
        ValueError: it is no text, or empty.
    """
    if not isinstance(value, str):
        raise ValueError(f"the caption is {shortened(value)}, expected text")
    caption = value.strip()
    if not caption:
        raise ValueError("the caption is empty")
    try:
        caption.encode()
    except UnicodeEncodeError:
        raise ValueError("the caption is no valid Unicode text") from None
    return caption


def parse_text(data: bytes) -> str:
    """Text of a small file: UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is none, or too long.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise ValueError(f"{len(data)} bytes are too many for a label or a caption")
    try:
        return decode_text(data, "it")
    except UserError as error:
        raise ValueError(str(error)) from None


def parse_json(text: str) -> Any:
    """The content of a JSON text, in which no key of an object is there twice.

    Raises:
        ValueError: it is broken.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("broken JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None


def shortened(value: object, most: int = 60) -> str:
    """A value for a message, cut where it is long; JSON's words for what Python calls None, True and False."""
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = repr(value[:most] if isinstance(value, str) else value)
    return text if len(text) <= most else f"{text[:most]}…"


def _is_name(text: str) -> bool:
    """Neither a word that means nothing nor something like a number, such as -1, 1.5 or 1e3."""
    if not text or len(text) > _MAX_NAME or not text.isprintable() or text.lower() in _NO_NAMES:
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"broken JSON: the key {shortened(key)} is there twice")
        found[key] = value
    return found
