"""Figures draw the data they are given."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from adanat_rl.generation.decisions import effective_entries
from adanat_rl.generation.masked.schedules import masked_token_decisions
from adanat_rl.plots import theme
from adanat_rl.plots.curves import Curve, Level, curve_figure
from adanat_rl.plots.decisions import (
    class_figure,
    decision_figure,
    most_distinct,
    steps_figure,
    summarise_decisions,
    write_decision_figure,
)
from adanat_rl.plots.ranking import ranking_figure, short_name
from tests.plots.runs import NAMES, comparison, draw_decisions, row

EFFECTIVE = effective_entries(masked_token_decisions(), 4)


def line(axes: Axes, label: str) -> Line2D:
    """The one line with a label."""
    found = [item for item in axes.lines if item.get_label() == label]
    assert len(found) == 1, f"{len(found)} lines are labelled {label!r}"
    return found[0]


def xy(item: Line2D) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(item.get_xdata(), float), np.asarray(item.get_ydata(), float)


def texts(axes: Axes) -> list[str]:
    return [item.get_text() for item in axes.texts]


def bands(axes: Axes) -> list[PolyCollection]:
    return [item for item in axes.collections if isinstance(item, PolyCollection)]


def test_a_curve_has_its_points_its_band_and_its_end() -> None:
    x, y, sd = np.arange(4.0), np.array([0.5, 0.4, 0.45, 0.3]), np.full(4, 0.05)
    axes = curve_figure("title", "x", [Curve("ours", x, y, sd=sd, end=(0.32, 0.04))]).axes[0]
    assert np.array_equal(xy(line(axes, "ours")), (x, y))
    heights = bands(axes)[0].get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(0.55)
    assert heights.min() == pytest.approx(0.25)
    segments = axes.containers[0][2][0].get_segments()
    assert np.allclose(segments[0], [[3, 0.28], [3, 0.36]])
    assert "ours" in texts(axes)
    assert axes.get_xlabel() == "x"


def test_levels_are_horizontal_lines_and_the_strong_one_stands_out() -> None:
    levels = [Level("weak", 0.4, 0.1), Level("strong", 0.3, 0.02, strong=True)]
    axes = curve_figure("t", "x", [Curve("", np.arange(2.0), np.array([0.5, 0.2]))], levels).axes[0]
    assert set(xy(line(axes, "weak"))[1]) == {0.4}
    assert set(xy(line(axes, "strong"))[1]) == {0.3}
    assert to_hex(line(axes, "strong").get_color()) == theme.SECOND
    spans = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [(patch.get_y(), patch.get_height()) for patch in spans] == [(pytest.approx(0.28), pytest.approx(0.04))]


def test_labels_of_close_lines_do_not_touch() -> None:
    levels = [Level(f"level {index}", 0.30 + 0.001 * index) for index in range(5)]
    axes = curve_figure("t", "x", [Curve("ours", np.arange(2.0), np.array([0.5, 0.3]))], levels).axes[0]
    heights = sorted(axes.transData.transform((0, item.get_position()[1]))[1] for item in axes.texts)
    assert np.diff(heights).min() >= 0.9 * theme.SMALL_PT * axes.figure.dpi / 72
    low, high = axes.get_ylim()
    assert low < 0.3
    assert high > 0.5


def test_a_curve_of_one_point_is_drawn() -> None:
    axes = curve_figure("t", "x", [Curve("ours", np.array([0.0]), np.array([0.5]))]).axes[0]
    assert np.array_equal(xy(line(axes, "ours")), ([0], [0.5]))
    assert axes.get_xticks().tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_spread_labels_keep_order_gap_and_bounds(seed: int) -> None:
    positions = np.random.default_rng(seed).uniform(0, 1, 8)
    moved = np.array(theme.spread_labels(positions.tolist(), 0.1, 0.0, 1.0))
    assert np.array_equal(np.argsort(positions), np.argsort(moved))
    assert np.diff(np.sort(moved)).min() >= 0.1 - 1e-9
    assert moved.min() >= -1e-9
    assert moved.max() <= 1 + 1e-9


def test_spread_labels_leave_alone_what_does_not_touch() -> None:
    assert theme.spread_labels([0.9, 0.1, 0.5], 0.2, 0.0, 1.0) == pytest.approx([0.9, 0.1, 0.5])
    assert theme.spread_labels([], 0.2, 0.0, 1.0) == []


def test_the_ranking_shows_mean_spread_and_seeds_of_every_row() -> None:
    rows = comparison([0.2, 0.22, 0.24], [0.3, 0.31, 0.35], verdict="v")["rows"]
    axes = ranking_figure(rows, "fd_a", "FD").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [short_name(item["name"]) for item in rows]
    for item, container, seeds in zip(
        rows, axes.containers, [item for item in axes.lines if item.get_label() == "_seeds"], strict=True
    ):
        mean, sd = item["summary"]["fd_a"]["mean"], item["summary"]["fd_a"]["sd"]
        assert container[0].get_xdata()[0] == mean
        assert np.allclose(container[2][0].get_segments()[0][:, 0], [mean - sd, mean + sd])
        assert list(seeds.get_xdata()) == item["values"]["fd_a"]
    assert set(xy(line(axes, "_policy"))[0]) == {rows[0]["summary"]["fd_a"]["mean"]}


def test_names_become_readable() -> None:
    assert short_name("hand_made_t8") == "hand made T=8"
    assert short_name("static_ppo") == "static PPO"
    assert len(short_name("x" * 60)) == 22


def test_decisions_show_mean_spread_and_base_schedule() -> None:
    decisions, _ = draw_decisions(30, 4, 3)
    base = np.arange(16.0).reshape(4, 4)
    figure = decision_figure(NAMES, decisions, EFFECTIVE, base, title="After iteration 5")
    assert len(figure.axes) == 4
    assert figure.texts[0].get_text() == "After iteration 5"
    for column, axes in enumerate(figure.axes):
        kept = EFFECTIVE[:, column]
        steps, mean = xy(line(axes, "policy, mean"))
        assert steps.tolist() == [1, 2, 3, 4]
        assert np.allclose(mean[kept], decisions.mean(axis=0)[kept, column])
        assert np.isnan(mean[~kept]).all()
        assert np.allclose(xy(line(axes, "base schedule"))[1][kept], base[kept, column])
        assert texts(axes).count("no effect") == (~kept).sum()
        top = np.nanmax(bands(axes)[0].get_paths()[0].vertices[:, 1])
        mean64, sd64 = decisions.astype(float).mean(axis=0), decisions.astype(float).std(axis=0)
        assert top == pytest.approx((mean64 + sd64)[kept, column].max())


def test_decisions_of_any_number_and_horizon_are_drawn() -> None:
    decisions = np.ones((5, 8, 3), np.float32)
    figure = decision_figure(("a", "b", "c"), decisions, np.ones((8, 3), bool))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["A", "B", "C"]
    single = decision_figure(("a",), np.ones((5, 1, 1)), np.zeros((1, 1), bool))
    assert texts(single.axes[0]) == ["no effect"]


def test_the_decision_figure_is_written_as_png(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "decisions_iteration_000005.png"
    decisions, _ = draw_decisions(30, 4, 3)
    write_decision_figure(path, NAMES, decisions, EFFECTIVE, decisions[0], title="After iteration 5")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_class_lines_are_the_class_means() -> None:
    decisions, context = draw_decisions(30, 4, 3)
    summary = summarise_decisions(NAMES, decisions, context, EFFECTIVE)
    axes = steps_figure(summary, 2, "t").axes[0]
    drawn = [xy(item)[1] for item in axes.lines if item.get_label() in {"mean of a class", "_class"}]
    assert np.allclose(drawn, [decisions[context == label, :, 2].mean(axis=0) for label in range(3)])


def test_the_share_between_classes_is_that_of_the_variance() -> None:
    decisions, context = draw_decisions(30, 4, 3)
    summary = summarise_decisions(NAMES, decisions, context, EFFECTIVE)
    within = sum(decisions[context == label, :, 0].var(axis=0)[:3].sum() / 3 for label in range(3))
    total = decisions[:, :, 0].var(axis=0)[:3].sum()
    assert summary.between is not None
    assert summary.between[0] == pytest.approx(1 - within / total, rel=1e-3)
    same = summarise_decisions(NAMES, np.ones((6, 4, 4)), context[:6], EFFECTIVE)
    assert same.between is not None
    assert np.isnan(same.between).all()
    assert not same.varies(0)


def test_cells_are_coloured_by_their_distance_from_the_mean() -> None:
    decisions, context = draw_decisions(30, 4, 3)
    summary = summarise_decisions(NAMES, decisions, context, EFFECTIVE)
    assert summary.class_means is not None
    axes = class_figure(summary, 0, "t").axes[0]
    cells = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(cells) == 3 * 4
    deviation = summary.class_means[:, :, 0] - summary.mean[:, 0]
    deviation /= np.abs(deviation[:, :3]).max()
    for index, cell in enumerate(cells):
        label, step = divmod(index, 4)
        colour = theme.LINE if step == 3 else theme.ACCENT if deviation[label, step] > 0 else theme.SECOND
        assert to_hex(cell.get_facecolor()[:3]) == colour
        if step < 3:
            assert cell.get_alpha() == pytest.approx(0.55 * abs(deviation[label, step]))
    values = [f"{value:.2f}" for value in summary.class_means[:, :3, 0].ravel()]
    assert [text for text in texts(axes) if text != "no effect"] == values


def test_of_very_many_classes_the_most_distinct_are_shown() -> None:
    decisions = np.ones((100, 4, 4))
    decisions[90:] += np.arange(10)[:, None, None]
    summary = summarise_decisions(NAMES, decisions, np.arange(100), EFFECTIVE)
    rows = most_distinct(summary, 0)
    assert len(rows) == 20
    assert rows == sorted(rows)
    assert set(range(92, 100)) <= set(rows)


def test_an_svg_follows_the_theme_and_names_what_it_shows() -> None:
    figure = curve_figure(
        'a "title" & <more>',
        "x",
        [Curve("$a_b$ & c", np.arange(3.0), np.array([0.0049, 0.1, 0.2]))],
        [Level("l", 0.1, 0.1, True)],
    )
    text = theme.svg(figure, "name", 'curve of "a" & b')
    assert not re.search(r"#[0-9a-f]{6}", text), "a colour does not follow the theme"
    assert "var(--accent)" in text
    assert "var(--second)" in text
    assert "var(--muted)" in text
    assert 'aria-label="curve of &#34;a&#34; &amp; b"' in text
    assert "$a_b$ &amp; c" in text
    assert "&lt;more&gt;" in text
    assert text == theme.svg(figure, "name", 'curve of "a" & b')


def test_ids_of_two_figures_on_a_page_differ() -> None:
    def ids(text: str) -> set[str]:
        return set(re.findall(r' id="([^"]*)"', text))

    def draw() -> Iterable[str]:
        for name in ("one", "two"):
            yield theme.svg(curve_figure("t", "x", [Curve("c", np.arange(3.0), np.arange(3.0))]), name, "alt")

    one, two = map(ids, draw())
    assert one
    assert two
    assert not one & two


def test_numbers_in_text_keep_their_digits() -> None:
    axes_text = theme.svg(curve_figure("t 0.0049", "x", [Curve("", np.arange(3.0), np.arange(3.0))]), "n", "a")
    assert ">t 0.0049<" in axes_text


def test_a_png_is_the_same_every_time() -> None:
    figures = [ranking_figure([row("policy", "policy", [0.1, 0.2])], "fd_a", "t") for _ in range(2)]
    first, second = map(theme.png, figures)
    assert first == second
    assert Image.open(io.BytesIO(first)).getpixel((0, 0))[:3] == (0xFB, 0xFA, 0xF8)
