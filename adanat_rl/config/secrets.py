"""Passwords in addresses: what is printed, logged or saved shows `***` in their place."""

from __future__ import annotations

import re

HIDDEN = "***"
_IN_ADDRESS = re.compile(r"(?P<start>\b[a-zA-Z][\w+.-]*://[^\s/?#:@'\"]*:)(?P<secret>[^\s/?#'\"]*)(?=@)")
_IN_QUERY = re.compile(r"(?P<start>[?&;](?:password|passwd|pwd|token|secret|api_key|sslpassword)=)[^\s&;#'\"]+", re.I)


def hide_secrets(text: str) -> str:
    """The text with `***` for every password in an address: `http://bob:***@host`, `…?password=***`."""
    text = _IN_ADDRESS.sub(lambda found: found["start"] + HIDDEN, text)
    return _IN_QUERY.sub(lambda found: found["start"] + HIDDEN, text)


def has_hidden_secret(address: str) -> bool:
    """Whether `hide_secrets` has taken the password of an address away, so that it is of no use as it is."""
    return f":{HIDDEN}@" in address or f"={HIDDEN}" in address


def reveal(address: str, secret: str) -> str:
    """The address with a password for `***`."""
    return address.replace(f":{HIDDEN}@", f":{secret}@").replace(f"={HIDDEN}", f"={secret}")
