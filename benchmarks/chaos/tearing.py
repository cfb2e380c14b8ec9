"""Damage to one file of a folder: cut off somewhere, or with some bits turned."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from adanat_rl.experiment.checkpoints import checkpoint_folders

# What no other file of a folder can give back.
_ONLY_COPIES = frozenset(
    {
        "metrics.jsonl",
        "config.yaml",
        "environment.json",
        "tracking.json",
        "trials.json",
        "sweep.yaml",
        "search.jsonl",
        "mlflow.db",
    }
)
_NOT_CONTENT = frozenset({"run.lock", ".ballast"})


@dataclass(frozen=True)
class Damage:
    """What was done to which file, whether nothing else can give it back, and what it held before."""

    file: Path
    what: str
    before: bytes
    is_only_copy: bool

    def undo(self) -> None:
        """As from a backup."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(self.before)


def tear(folder: Path, chance: random.Random, *, only_copies: bool) -> Damage | None:
    """Damages a file by chance; None if there is none of that kind.

    Args:
        only_copies: one that nothing gives back, or one that the run can make again.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _NOT_CONTENT)
    files = [path for path in files if path.stat().st_size and is_only_copy(path) == only_copies]
    if not files:
        return None
    file = chance.choice(files)
    before = file.read_bytes()
    if chance.random() < 0.5:
        length = chance.randrange(len(before))
        file.write_bytes(before[:length])
        return Damage(file, f"{file.relative_to(folder)} cut to {length} of {len(before)} bytes", before, only_copies)
    data, turned = bytearray(before), chance.randint(1, 8)
    for _ in range(turned):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    return Damage(file, f"{file.relative_to(folder)} with up to {turned} bits turned", before, only_copies)


def is_only_copy(path: Path) -> bool:
    """Whether a run cannot make this file again."""
    if path.name in _ONLY_COPIES or path.suffix == ".parquet":
        return True
    for parent in path.parents:
        if parent.name in {"best", "damaged"}:
            return True
        if parent.name == "checkpoints":
            return len(checkpoint_folders(parent)) < 2
    return False
