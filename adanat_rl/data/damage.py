"""The one rule for damaged samples of any kind: counted, named, limited by `data.max_damaged`, never made up.

What a listing shows (no label, a caption that is no text, a broken row) is left out when the data set is opened; what
shows only when an image is decoded is replaced by another image of its class. Both count toward one limit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from adanat_rl.config.errors import UserError

NAMED = 5  # damaged samples that one message names


def too_many(found: Sequence[str], limit: int, what: str = "damaged samples") -> str:
    """The line that says that more are damaged than `data.max_damaged` accepts, with the first ones.

    Args:
        found: where each is and what is wrong with it. what: how they are called.
    """
    return f"{len(found)} {what}, data.max_damaged accepts {limit}: {_named(found)}"


def accept_damage(found: Sequence[str], limit: int, of: str) -> None:
    """Warns of samples that a listing leaves out.

    Args:
        of: what data they are of, for the error.

    Raises:
        UserError: there are more than the limit.
    """
    if len(found) > limit:
        raise UserError(f"data.path: {of}: {too_many(found, limit)}")
    for reason in found[:NAMED]:
        warnings.warn(f"damaged sample left out: {reason}", RuntimeWarning, stacklevel=2)
    if len(found) > NAMED:
        warnings.warn(f"{len(found) - NAMED} more damaged samples left out of {of}", RuntimeWarning, stacklevel=2)


def _named(found: Sequence[str]) -> str:
    first = list(found[:NAMED])
    return "; ".join(first) + (f" and {len(found) - len(first)} more" if len(found) > len(first) else "")
