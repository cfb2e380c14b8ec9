"""Figures of the adaptivity probe: every place has its row, numbers stand where they belong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adanat_rl.plots.probe import gains_figure, parts_figure, shown_sites
from adanat_rl.plots.theme import png, svg


def number(value: float, spread: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def gain(value: float, at_most: float | None = None) -> dict[str, Any]:
    return {**number(value), "p_value": 0.5, "at_most": at_most}


def site(step: int, decision: str, size: float, *, alike: bool = False) -> dict[str, Any]:
    split = {"mean": number(size), "classes": number(size / 4), "images": number(size / 9), "noise": number(1.0)}
    return {
        "step": step,
        "decision": decision,
        "alike": alike,
        "split": split,
        "schedule": gain(size),
        "per_class": gain(size / 2, size),
        "per_image": gain(size / 4, 2 * size),
        "features": gain(-0.001),
    }


def made_of(*sites: dict[str, Any]) -> dict[str, Any]:
    return {"horizon": 4, "sites": list(sites)}


PROBE = made_of(site(0, "push", 0.09, alike=True), site(0, "pull", 0.04), site(3, "push", -0.01))


def drawn(figure: Any, label: str) -> np.ndarray:
    """`[N, 2]` points of a line or an error bar."""
    axes = figure.axes[0]
    handles, labels = axes.get_legend_handles_labels()
    handle = handles[labels.index(label)]
    line = handle if hasattr(handle, "get_xydata") else handle.lines[0]
    return np.array(line.get_xydata())


def test_parts_are_shown_as_roots_and_what_is_below_zero_as_zero() -> None:
    figure = parts_figure(PROBE)
    mean = drawn(figure, "mean")
    np.testing.assert_allclose(mean[:, 0], [0.3, 0.2, 0.0])
    assert mean[:, 1].tolist() == [1.0, 2.0, 4.0], "a heading above each step"
    images = drawn(figure, "between images of a class")
    assert np.isnan(images[0, 0]), "nothing lies between images that are alike"
    np.testing.assert_allclose(images[1:, 0], [0.2 / 3, 0.0])
    headings = [text.get_text() for text in figure.axes[0].texts]
    assert headings == ["step 1", "step 4"]


def test_gains_stand_beside_each_other_with_their_bounds() -> None:
    figure = gains_figure(PROBE)
    schedule, per_class, features = (drawn(figure, name) for name in ("all alike", "+ per class", "+ by features"))
    np.testing.assert_allclose(schedule[:, 0], [0.09, 0.04, -0.01])
    np.testing.assert_allclose(per_class[:, 0], [0.045, 0.02, -0.005])
    np.testing.assert_allclose(features[:, 0], -0.001)
    assert (schedule[:, 1] < per_class[:, 1]).all()
    assert (per_class[:, 1] < features[:, 1]).all()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["push", "pull", "push"]


@pytest.mark.parametrize("draw", [parts_figure, gains_figure])
def test_figures_follow_the_theme_of_the_page(draw: Any) -> None:
    text = svg(draw(PROBE), "probe", "alt")
    assert "var(--accent)" in text
    assert "var(--second)" in text
    assert "var(--ink)" in text
    assert png(draw(PROBE)).startswith(b"\x89PNG")


def test_of_very_many_places_those_with_effects_are_shown_in_order() -> None:
    sites = [site(step, "push", (step % 3) / 10) for step in range(60)]
    shown = shown_sites(sites)
    assert len(shown) == 32
    assert [item["step"] for item in shown] == sorted(item["step"] for item in shown)
    assert {step for step in range(60) if step % 3 == 2} <= {item["step"] for item in shown}
    assert "(32 of 60 places)" in parts_figure(made_of(*sites)).texts[0].get_text()
