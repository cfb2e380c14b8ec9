"""The comparison as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from adanat_rl.evaluation.comparison import BASELINE, CONTROL, POLICY
from adanat_rl.evaluation.evaluator import IMAGES_PER_SECOND, NAT_PASSES
from adanat_rl.evaluation.judge import (
    ACCURACY,
    CLIP_SCORE,
    FD_A,
    FD_B,
    INCEPTION_SCORE,
    PRECISION,
    RECALL,
    JudgeNames,
)

_COLUMNS = (
    (INCEPTION_SCORE, "IS ↑", 2),
    (PRECISION, "precision ↑", 3),
    (RECALL, "recall ↑", 3),
    (ACCURACY, "accuracy ↑", 3),
    (CLIP_SCORE, "CLIPScore ↑", 2),
    (NAT_PASSES, "NAT passes ↓", 1),
    (IMAGES_PER_SECOND, "images/s ↑", 0),
)
_STYLES = {POLICY: "bold green", CONTROL: "dim", BASELINE: ""}


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """The table of `Comparison.as_dict()`, mean ± sd over the evaluation seeds."""
    count = len(comparison["seeds"])
    names = JudgeNames(**comparison.get("judge", {}))
    distances = ((FD_A, f"{names.short_a} ↓", 3), (FD_B, f"{names.short_b} ↓", 3))
    columns = [column for column in (*distances, *_COLUMNS) if column[0] in comparison["rows"][0]["summary"]]
    table = Table(
        title=f"{comparison['num_images']} images × {count} seeds, mean ± sd over seeds",
        caption=names.note,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("policy", no_wrap=False, min_width=24)
    table.add_column("T", justify="right")
    for _, title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    section = None
    for row in comparison["rows"]:
        if section not in (None, row["kind"]):
            table.add_section()
        section = row["kind"]
        cells = [format_value(row["summary"][name], digits) for name, _, digits in columns]
        table.add_row(Text(row["title"]), str(row["horizon"]), *cells, style=_STYLES.get(row["kind"], ""))
    return table


def format_value(value: Mapping[str, float], digits: int) -> str:
    """`mean ± sd`; the sd is left out where the value is the same for every seed, and for speeds."""
    if value["sd"] == 0 or digits == 0:
        return f"{value['mean']:.{digits}f}"
    return f"{value['mean']:.{digits}f} ± {value['sd']:.{digits}f}"
