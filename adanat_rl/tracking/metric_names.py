"""Names for MLflow: which names it takes, and a reversible spelling of those that it does not.

MLflow takes letters, digits, `_ - . : /` and spaces, in the form of a relative path, up to 250 characters. Any other
character becomes `_xHH_` with its code point in hexadecimal: `ink (%)` is `ink _x28__x25__x29_` there.
"""

from __future__ import annotations

import hashlib
import re

MAX_LENGTH = 250
_ALLOWED = r"[\w.\- :/]"
_ESCAPE = re.compile(r"_x([0-9a-f]+)_")
# What would be read as an escape, although it stands in the name itself.
_LOOKS_ESCAPED = re.compile(r"_(?=x[0-9a-f]+(?:_|[^\w\- :]))")  # also where what follows is escaped itself
_NOT_ALLOWED = re.compile(rf"(?!{_ALLOWED}).", re.DOTALL)
_DIGEST_LENGTH = 16


def to_mlflow(name: str) -> str:
    """The name in MLflow; a name that it takes stays as it is. `from_mlflow` gives back any but one cut for its length,
    which ends in a digest of the whole.
    """
    text = _LOOKS_ESCAPED.sub(lambda found: _escaped(found[0]), name)
    text = _NOT_ALLOWED.sub(lambda found: _escaped(found[0]), text)
    text = "/".join(_escaped(segment) if segment in {".", ".."} else segment for segment in text.split("/"))
    text = re.sub(r"^\.\.", lambda found: _escaped(found[0]), text)
    text = re.sub(r"^/|/(?=/)|/$", lambda found: _escaped(found[0]), text)
    if 0 < len(text) <= MAX_LENGTH:
        return text
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return text[: MAX_LENGTH - _DIGEST_LENGTH - 1].rstrip("/.") + "_" + digest


def from_mlflow(text: str) -> str:
    """The name that `to_mlflow` was given."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


def _escaped(characters: str) -> str:
    return "".join(f"_x{ord(character):x}_" for character in characters)
