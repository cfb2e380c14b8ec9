"""Damage to one file of a folder: cut off somewhere, or with some bits turned."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_rl.config.metric_keys import ITERATION
from adanat_rl.experiment.checkpoints import checkpoint_folders

METRICS = "metrics.jsonl"
# What no other file of a folder can give back.
_ONLY_COPIES = frozenset(
    {
        METRICS,
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
    """What was done to which file, what it held before and after, and whether nothing else can give it back."""

    file: Path
    what: str
    before: bytes
    after: bytes
    is_only_copy: bool

    @property
    def called(self) -> str:
        """What `audit` calls it."""
        return "metric rows" if self.file.name == METRICS else self.file.name

    def undo(self) -> None:
        """As from a backup: also the rows of a table that has grown since, of which one costs only itself."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        grown = b""
        if self.file.name == METRICS and self.file.exists():
            known = {row[ITERATION] for row in _whole_rows(self.before)}
            torn = _whole_rows(self.after)  # a turned bit may have made a row of another iteration
            now = _whole_rows(self.file.read_bytes())
            since = [row for row in now if row[ITERATION] not in known and row not in torn]
            grown = b"".join(json.dumps(row).encode() + b"\n" for row in since)
        self.file.write_bytes(self.before + grown)


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
        after = before[: chance.randrange(len(before))]
        what = f"cut to {len(after)} of {len(before)} bytes"
    else:
        data, turned = bytearray(before), chance.randint(1, 8)
        for _ in range(turned):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        after, what = bytes(data), f"with up to {turned} bits turned"
    file.write_bytes(after)
    return Damage(file, f"{file.relative_to(folder)} {what}", before, after, only_copies)


def _whole_rows(content: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and ITERATION in row:
            rows.append(row)
    return rows


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
