"""The comparison as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from adanat_rl.config.metric_keys import IMAGES_PER_SECOND
from adanat_rl.evaluation.comparison import BASELINE, CONTROL, POLICY
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.evaluation.fitting import fitted, left_out_note, name_width
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

_STEPS = "horizon"
_COLUMNS = (
    (INCEPTION_SCORE, "IS ↑", 2),
    (PRECISION, "precision ↑", 3),
    (RECALL, "recall ↑", 3),
    (ACCURACY, "accuracy ↑", 3),
    (CLIP_SCORE, "CLIPScore ↑", 2),
    (NAT_PASSES, "NAT passes ↓", 1),
    (IMAGES_PER_SECOND, "images/s ↑", 0),
)
# What a reader needs first; the last of them goes first where there is no room
_IMPORTANCE = (
    FD_A, _STEPS, FD_B, NAT_PASSES, RECALL, PRECISION, INCEPTION_SCORE, CLIP_SCORE, ACCURACY, IMAGES_PER_SECOND
)  # fmt: skip
_UNLIKE = ("fd_pixels", "fd_gradients", "recall_pixels", "class_accuracy")  # of a small panel: each of another kind
_STYLES = {POLICY: "bold green", CONTROL: "dim", BASELINE: ""}


def comparison_table(
    comparison: Mapping[str, Any], width: int | None = None, where: str = "the evaluation's JSON file"
) -> Table:
    """The table of `Comparison.as_dict()`, mean ± sd over the evaluation seeds.

    Args:
        width: in characters that it has; columns that do not fit are left out and named. None: as wide as it needs.
        where: what holds the numbers that are left out, for the note.
    """
    names = JudgeNames(**comparison.get("judge", {}))
    distances = ((FD_A, f"{names.short_a} ↓", 3), (FD_B, f"{names.short_b} ↓", 3))
    known = {name for row in comparison["rows"] for name in row["summary"]}
    panel = _panel_columns(comparison)
    columns = [(_STEPS, "T", 0), *panel, *(column for column in (*distances, *_COLUMNS) if column[0] in known)]
    order = _order([name for name, _, _ in columns], [name for name, _, _ in panel])

    def build(kept: Sequence[str], left_out: Sequence[str]) -> Table:
        missing = [title.rstrip(" ↑↓") for name, title, _ in columns if name in left_out]
        shown = [column for column in columns if column[0] in kept]
        note = names.note if {FD_A, FD_B} & set(kept) else ""
        return _table(comparison, shown, " ".join(filter(None, (note, left_out_note(missing, where)))))

    return build(order, ()) if width is None else fitted(build, order, width)


def _panel_columns(comparison: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Columns of the values that a verdict counts, where they are none of those that every judge may give."""
    usual = {FD_A, FD_B, *(name for name, _, _ in _COLUMNS)}
    return [
        (value["key"], f"{value['title']} {'↓' if value['minimises'] else '↑'}", 3)
        for value in (comparison.get("panel") or {}).get("values", ())
        if value["key"] not in usual
    ]


def _order(names: Sequence[str], panel: Sequence[str]) -> list[str]:
    """The names of columns, the most important first: before all, what the verdict counts, each of another kind."""
    first = [name for name in _UNLIKE if name in panel]
    if not first:
        return sorted(names, key=lambda name: _IMPORTANCE.index(name) if name in _IMPORTANCE else len(_IMPORTANCE))
    head = [first[0], _STEPS, *first[1:2], NAT_PASSES, *first[2:]]
    rest = [name for name in (*panel, *_IMPORTANCE) if name in names and name not in head]
    return [name for name in head if name in names] + rest


def _table(comparison: Mapping[str, Any], columns: Sequence[tuple[str, str, int]], note: str) -> Table:
    count = len(comparison["seeds"])
    table = Table(
        title=f"{comparison['num_images']:,} images × {count} seed{'' if count == 1 else 's'}, mean ± sd over seeds",
        caption=note,
        title_justify="left",
        caption_justify="left",
    )
    titles = [row["title"] for row in comparison["rows"]]
    table.add_column("policy", overflow="fold", min_width=name_width(titles))
    for _, title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    section = None
    for row in comparison["rows"]:
        if section not in (None, row["kind"]):
            table.add_section()
        section = row["kind"]
        cells = [_cell(row, name, digits) for name, _, digits in columns]
        table.add_row(Text(row["title"]), *cells, style=_STYLES.get(row["kind"], ""))
    return table


def _cell(row: Mapping[str, Any], name: str, digits: int) -> str:
    if name == _STEPS:
        return str(row["horizon"])
    return format_value(row["summary"][name], digits) if name in row["summary"] else "–"


def format_value(value: Mapping[str, float], digits: int) -> str:
    """`mean ± sd`; the sd is left out where the value is the same for every seed, and for speeds."""
    if value["sd"] == 0 or digits == 0:
        return f"{value['mean']:.{digits}f}"
    return f"{value['mean']:.{digits}f} ± {value['sd']:.{digits}f}"
