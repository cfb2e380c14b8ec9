"""Members of a `.tar` shard: names, places and sizes, read without unpacking anything, and every kind of damage told.

What the standard library passes over in silence is an error here: bytes behind the last readable header, a second
archive behind the end mark. Compressed shards cannot be read at random and are refused.
"""

from __future__ import annotations

import posixpath
import struct
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.text_files import printable

_BLOCK = 512
_SEARCHED = 1 << 20  # bytes behind the end mark that are looked at
_ERRORS = (tarfile.TarError, ValueError, OverflowError, LookupError, EOFError, struct.error)


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Args:
        name: as the archive has it. offset, size: where its bytes lie.
        problem: why they cannot be read from there, "" if they can.
    """

    name: str
    offset: int = 0
    size: int = 0
    problem: str = ""

    @property
    def path(self) -> str:
        """The name without `./` and what else does not tell members apart."""
        return posixpath.normpath(self.name).lstrip("/")


def read_members(shard: Path) -> tuple[list[Member], list[str]]:
    """All files of an archive in their order, hidden ones left out, and notes of what is odd about it.

    A link is where its target is.

    Raises:
        UserError: the archive is damaged, cut off or compressed.
    """
    found: list[Member] = []
    links: dict[int, str] = {}  # place in `found` → target
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                member = _member(info)
                if member is None:
                    continue
                if info.islnk() or info.issym():
                    links[len(found)] = _target(info)
                found.append(member)
            notes = _check_end(shard, archive.offset, found)
    except _ERRORS as error:
        if isinstance(error, UserError):
            raise
        reason = f"is damaged or no plain .tar (compressed ones are refused): {reason_of(error)}"
        raise UserError(f"data.path: {printable(shard)} {reason}") from None
    except OSError as error:
        raise UserError(f"data.path: {printable(shard)}: {error.strerror or error}") from None
    return _followed(found, links), notes


def _member(info: tarfile.TarInfo) -> Member | None:
    """A member if it is a file that people put there."""
    parts = posixpath.normpath(info.name).split("/")
    if any(part == "__MACOSX" or (part.startswith(".") and part not in {".", ".."}) for part in parts):
        return None
    if info.size < 0 or info.offset_data < 0:
        raise tarfile.ReadError(f"the size of {info.name} is {info.size}")
    if info.issparse():
        return Member(info.name, info.offset_data, 0, "is stored as a sparse file; pack it without --sparse")
    if info.isreg():
        return Member(info.name, info.offset_data, info.size)
    return Member(info.name) if info.islnk() or info.issym() else None


def _target(info: tarfile.TarInfo) -> str:
    """The path of a link's target within the archive: of a hard link from the root, of a symbolic one from the link."""
    start = posixpath.dirname(info.name) if info.issym() else ""
    return posixpath.normpath(posixpath.join(start, info.linkname)).lstrip("/")


def _followed(found: list[Member], links: dict[int, str]) -> list[Member]:
    if not links:
        return found
    files = {member.path: member for place, member in enumerate(found) if place not in links}
    for place, target in links.items():
        source = files.get(target)
        problem = "" if source else f"is a link to {printable(target)}, which is no file of this shard"
        found[place] = replace(source or found[place], name=found[place].name)
        if problem:
            found[place] = replace(found[place], problem=problem)
    return found


def _check_end(shard: Path, end: int, found: list[Member]) -> list[str]:
    """Refuses what lies behind the last header that could be read.

    Raises:
        UserError: the file ends within a member, or holds more that was not read.
    """
    size = shard.stat().st_size
    last = max((member.offset + member.size for member in found), default=0)
    if size < last:
        raise UserError(f"data.path: {printable(shard)} is cut off: {size} bytes of at least {last}")
    with shard.open("rb") as file:
        file.seek(end)
        rest = file.read(_SEARCHED)
    if not rest:
        return [f"{printable(shard)} has no end mark; it may be cut off behind its last member"]
    if len(rest) < _BLOCK:
        raise UserError(f"data.path: {printable(shard)} is cut off within a header at byte {end}")
    if any(rest[:_BLOCK]):
        raise UserError(
            f"data.path: {printable(shard)} is damaged at byte {end}: no header of a member, and {size - end} bytes "
            "from there cannot be read"
        )
    if any(rest):
        raise UserError(
            f"data.path: {printable(shard)} holds more behind its end mark at byte {end}, such as a second archive "
            "joined by cat; give each archive its own file"
        )
    return []
