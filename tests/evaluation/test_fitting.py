"""Tables at any width: no name and no number is cut, and what is left out is named."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from adanat_rl.console.tables import output_width
from adanat_rl.evaluation.table import comparison_table
from adanat_rl.experiment.progress import PlainDisplay

TITLES = {
    "adaptive policy, T = 4 (this run)": "policy",
    "its decisions, given to images of the same class": "control",
    "base schedule, before training": "base_schedule",
    "hand-made, best of a grid of four thousand schedules, T = 8": "baseline",
}
METRICS = {
    "fd_a": 3,
    "fd_b": 3,
    "precision": 3,
    "recall": 3,
    "accuracy": 3,
    "nat_passes_per_image": 1,
    "images_per_s": 0,
}
SHORT = {
    "fd_a": "FD A", "fd_b": "FD B", "precision": "precision", "recall": "recall", "accuracy": "accuracy",
    "nat_passes_per_image": "NAT passes", "images_per_s": "images/s",
}  # fmt: skip


def comparison() -> dict[str, Any]:
    rows = []
    for number, (title, kind) in enumerate(TITLES.items()):
        summary = {
            name: {"mean": 1000 * (digits == 0) + 0.1 * number + 0.01 * place, "sd": 0.0123 if digits == 3 else 0.0}
            for place, (name, digits) in enumerate(METRICS.items())
        }
        rows.append({"name": title, "title": title, "kind": kind, "horizon": 4 + number, "how": "", "summary": summary})
    return {"rows": rows, "seeds": [1, 2, 3], "num_images": 1797}


def printed(width: int) -> str:
    out = StringIO()
    Console(file=out, width=width).print(comparison_table(comparison(), width))
    return out.getvalue()


def columns_of(text: str) -> list[list[str]]:
    """Cells of the table's rows, wrapped lines joined."""
    rows: list[list[str]] = []
    is_new = True
    for line in text.splitlines():
        if line[:1] not in {"│", "┃"}:
            is_new = True
            continue
        cells = [cell.strip() for cell in line[1:-1].replace("┃", "│").split("│")]
        if is_new:
            rows.append(cells)
        else:
            rows[-1] = [f"{before} {cell}".strip() for before, cell in zip(rows[-1], cells, strict=True)]
        is_new = False
    return rows


@pytest.mark.parametrize("width", [50, 80, 100, 120, 160])
def test_a_table_fits_with_whole_names_and_says_what_it_leaves_out(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    head, *rows = columns_of(text)
    assert [row[0] for row in rows] == list(TITLES)
    flat = " ".join(text.split())
    note = flat.split("Left out for want of room:")[1] if "Left out" in flat else ""
    for name, title in SHORT.items():
        shown = [cell for cell in head if cell.startswith(title)]
        assert bool(shown) != (title in note), f"{title} stands in the table or in the note"
        if shown and METRICS[name] == 3:
            place = head.index(shown[0])
            assert all("±" in row[place] and row[place].endswith("0.012") for row in rows)
    assert any(cell.startswith("FD A") for cell in head)
    assert ("JSON file" in note) == bool(note)


def test_the_wider_the_more() -> None:
    counts = [len(columns_of(printed(width))[0]) for width in (50, 80, 100, 120, 160)]
    assert counts == sorted(counts)
    assert counts[-1] == 9
    assert counts[0] < counts[1] < counts[-1]


@pytest.mark.parametrize(("columns", "width"), [(None, 80), ("120", 120), ("no number", 80)])
def test_in_a_pipe_a_table_is_as_wide_as_columns_says_or_80(
    columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert output_width() == width
    PlainDisplay().table(comparison())
    lines = capsys.readouterr().out.splitlines()
    assert width - 20 < max(map(len, lines)) <= width


def test_a_number_that_a_row_lacks_is_a_dash() -> None:
    content = comparison()
    del content["rows"][1]["summary"]["fd_b"]
    out = StringIO()
    Console(file=out, width=160).print(comparison_table(content, 160))
    head, *rows = columns_of(out.getvalue())
    place = next(place for place, cell in enumerate(head) if cell.startswith("FD B"))
    assert [row[place] == "–" for row in rows] == [False, True, False, False]


def test_what_a_verdict_counts_comes_before_what_it_does_not() -> None:
    content = comparison()
    panel = {"kid_pixels": True, "fd_pixels": True, "fd_gradients": True, "recall_pixels": False}
    for row in content["rows"]:
        row["summary"] |= {key: {"mean": 0.5, "sd": 0.01} for key in panel}
    titles = {key: key.replace("fd", "FD").replace("kid", "KID").replace("_", " ") for key in panel}
    content["panel"] = {"values": [{"key": key, "title": titles[key], "minimises": panel[key]} for key in panel]}

    def head(width: int) -> list[str]:
        out = StringIO()
        Console(file=out, width=width).print(comparison_table(content, width))
        assert ("it is no FID" in out.getvalue()) == ("FD A" in out.getvalue().split("Left out")[0])
        return columns_of(out.getvalue())[0]

    assert head(80)[1:] == ["T", "FD pixels ↓", "FD gradients ↓", "NAT passes ↓"]
    assert head(400)[1:6] == ["T", "KID pixels ↓", "FD pixels ↓", "FD gradients ↓", "recall pixels ↑"]
    assert {"FD A ↓", "FD B ↓", "recall ↑"} <= set(head(400))
