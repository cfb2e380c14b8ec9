"""Rows of a run need not be alike: stages of a pretraining, judges that come or go between two starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adanat_rl.plots.charts import draw_charts
from adanat_rl.plots.page import render_page
from adanat_rl.plots.pretraining import pretraining_figure
from adanat_rl.plots.run_data import read_run
from adanat_rl.plots.theme import new_axes
from tests.plots.runs import comparison, make_run


def test_the_loss_of_the_tokenizer_is_no_cross_entropy() -> None:
    rows = [{"stage": "tokenizer", "step": step, "loss": 0.01 / step} for step in (1, 2, 3)]
    rows += [{"stage": "nat", "step": step, "loss": 4.0 - 0.1 * step, "eval/fd_a": 1.0} for step in (10, 20)]
    axes = {item.get_ylabel(): item for item in pretraining_figure(rows).axes}
    assert axes["cross-entropy (nats)"].lines[0].get_ydata().tolist() == pytest.approx([3.0, 2.0])
    assert axes["cross-entropy (nats)"].lines[0].get_xdata().tolist() == [10, 20]
    assert axes["mean squared error"].lines[0].get_xdata().tolist() == [1, 2, 3]
    without = pretraining_figure([row for row in rows if row["stage"] == "nat"])
    assert [item.get_ylabel() for item in without.axes] == ["cross-entropy (nats)", "Fréchet distance"]


@pytest.mark.parametrize("present", [(0, 1), (2, 3)], ids=["gone", "come"])
def test_a_judge_may_come_or_go_between_two_starts(tmp_path: Path, present: tuple[int, ...]) -> None:
    compared = comparison([0.2, 0.21], [0.3, 0.31])
    for row in compared["rows"]:
        if present == (0, 1):
            row["summary"].pop("fd_b", None)
            row["values"].pop("fd_b", None)
    folder = make_run(tmp_path / "run", iterations=30, total=30, interval=10, compared=compared)
    rows = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    evaluations = [row for row in rows if "eval/fd_a" in row]
    assert len(evaluations) == 4
    for number, row in enumerate(evaluations):
        row.pop("eval/fd_b", None)
        if number in present:
            row["eval/fd_b"] = 0.5 - 0.1 * number
    folder.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(folder)
    charts = draw_charts(run)
    chart = next(item for item in charts.learning if item.name == "fd_b_over_nat_passes")
    line = next(line for line in chart.figure.axes[0].lines if line.get_label() == "this policy")
    assert list(line.get_ydata()) == pytest.approx([0.5 - 0.1 * at for at in present])
    assert "<svg" in render_page(run, charts)


def test_numbers_that_hardly_differ_or_are_tiny_stand_for_themselves() -> None:
    # An offset such as +1e-7, or a power of ten, lay over the labels of the axis
    for values in ([100000.00001, 100000.00002], [1e-7, 3e-7], [0.25, 0.75]):
        figure, axes = new_axes((4.6, 2.9), "title")
        axes.plot([0, 1], values)
        figure.canvas.draw()
        assert axes.yaxis.get_offset_text().get_text() == ""
        shown = [text.get_text() for text in axes.get_yticklabels()]
        assert len(set(shown)) > 1
        read = [float(text.replace("\N{MINUS SIGN}", "-")) for text in shown]
        assert read == pytest.approx(list(axes.get_yticks()), rel=0.1)
