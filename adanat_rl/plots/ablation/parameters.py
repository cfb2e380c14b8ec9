"""Sweeps over continuous parameters: which of them matter, and where the good trials lie."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adanat_rl.plots.ablation.data import Sweep, Trial
from adanat_rl.plots.numbers import fixed
from adanat_rl.plots.theme import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    SMALL_PT,
    WIDE,
    label_x,
    new_axes,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE_RANGE = 50.0  # ratio of the largest to the least value from which on a positive parameter is seen in logarithms
_FEWEST = 4  # trials that anything is said about
_MOST_AXES = 6
_SEED = 0  # of the forest that fANOVA grows
_ROW_IN = 0.27


@dataclass(frozen=True)
class Importance:
    """How much of a sweep's differences comes from a parameter.

    Args:
        key: dotted. weight: share of the variance (fANOVA), or size of the rank correlation.
        correlation: Spearman's, of the parameter with the metric; NaN for words.
    """

    key: str
    weight: float
    correlation: float


def counted_trials(sweep: Sweep) -> list[Trial]:
    """Trials that ran to their end or were stopped by the scheduler, with a number of the judge."""
    done = [trial for trial in sweep.trials if trial.status in {"finished", "stopped"}]
    return [trial for trial in done if trial.latest(sweep.metric) is not None and _has_all(trial, sweep.varied)]


def importances(sweep: Sweep) -> tuple[list[Importance], str]:
    """Parameters by weight, and what the weight is; empty with too few trials.

    Optuna's fANOVA where Optuna is installed, else the size of the rank correlation.
    """
    from scipy import stats

    trials, keys = counted_trials(sweep), sweep.varied
    scores = np.array([trial.latest(sweep.metric) for trial in trials], float)
    if len(trials) < _FEWEST or np.ptp(scores) == 0 or not keys:
        return [], ""
    columns = {key: [trial.settings[key] for trial in trials] for key in keys}
    correlations = {
        key: float(stats.spearmanr(values, scores).statistic) if _varies(values) else float("nan")
        for key, values in columns.items()
    }
    shares = _fanova(columns, scores) if importlib.util.find_spec("optuna") is not None else None
    if shares is not None:
        found = [Importance(key, shares[key], correlations[key]) for key in keys]
        what = "share of the variance between trials (fANOVA)"
    else:
        sizes = {key: abs(value) if np.isfinite(value) else 0.0 for key, value in correlations.items()}
        found = [Importance(key, sizes[key], correlations[key]) for key in keys]
        what = "size of the rank correlation"
    return sorted(found, key=lambda item: -item.weight), what


def importance_figure(found: Sequence[Importance], what: str) -> Figure:
    """A bar for each parameter."""
    labels = [item.key for item in found]
    left = 0.16 + max(text_width(label, SMALL_PT) for label in labels)
    height = 0.34 + 0.44 + _ROW_IN * len(found)
    figure, axes = new_axes((WIDE[0], height), "Which parameters matter", left=min(left, 2.2), right=0.62)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=LINE, linewidth=0.7)
    places = np.arange(len(found))
    axes.barh(places, [item.weight for item in found], height=0.5, color=ACCENT, linewidth=0, label=what)
    for place, item in zip(places, found, strict=True):
        if np.isfinite(item.correlation):
            text = f"ρ {fixed(item.correlation, 2)}"
            axes.annotate(
                text, (1, place), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                size=SMALL_PT, color=MUTED, va="center", annotation_clip=False,
            )  # fmt: skip
    axes.set_yticks(places, labels, size=SMALL_PT, parse_math=False)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=4)
    label_x(axes, what)
    return figure


def parallel_figure(sweep: Sweep, keys: Sequence[str]) -> Figure:
    """Each trial a line through its settings, in the order of `keys`, to its metric; the best quarter stands out."""
    trials = counted_trials(sweep)
    scores = np.array([trial.latest(sweep.metric) for trial in trials], float)
    shown = list(keys)[: _MOST_AXES - 1]
    figure, axes = new_axes((WIDE[0], WIDE[1]), f"Settings of {len(trials)} trials", left=0.4, right=0.4)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    scaled = [_scale([trial.settings[key] for trial in trials]) for key in shown]
    scaled.append(_scale(list(scores)))
    heights = np.stack([places for places, _, _ in scaled], axis=1)
    order = np.argsort(scores if sweep.minimises else -scores, kind="stable")
    num_best = max(1, len(order) // 4)
    at = np.arange(heights.shape[1])
    for rank in reversed(range(len(order))):
        is_good = rank < num_best
        axes.plot(
            at, heights[order[rank]], color=ACCENT if is_good else MUTED, alpha=0.9 if is_good else 0.3,
            linewidth=2.2 if rank == 0 else 1.1 if is_good else 0.7, label=trials[order[rank]].name,
        )  # fmt: skip
    for place, (_, low, high) in enumerate(scaled):
        axes.axvline(place, color=LINE, linewidth=1.0, zorder=0.5, label="_axis")
        for text, y, vertical in ((low, -0.05, "top"), (high, 1.05, "bottom")):
            axes.text(place, y, text, size=SMALL_PT, color=MUTED, ha="center", va=vertical, parse_math=False)
    names = [*(key.rpartition(".")[2].replace("_", "\n") for key in shown), sweep.metric_title]
    axes.set_xticks(at, names, size=SMALL_PT, parse_math=False)
    axes.tick_params(axis="x", pad=12)
    axes.get_xticklabels()[-1].set_color(INK)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.14)
    axes.set_xlim(-0.15, at[-1] + 0.15)
    box = axes.get_position()
    lines = 1 + max(name.count("\n") for name in names)
    bottom = (0.42 + 0.12 * lines) / WIDE[1]
    axes.set_position((box.x0, bottom, box.width, box.y1 - bottom))
    return figure


def _scale(values: Sequence[Any]) -> tuple[np.ndarray, str, str]:
    """Values on [0, 1] `[N]`, with the texts of both ends; words stand at equal distances."""
    if not _varies(values):
        words = list(dict.fromkeys(map(str, values)))
        places = np.array([words.index(str(value)) for value in values], float) / max(len(words) - 1, 1)
        return places, words[0], words[-1]
    numbers = np.array(values, float)
    low, high = numbers.min(), numbers.max()
    seen = np.log(numbers) if _is_logarithmic(numbers) else numbers
    return (seen - seen.min()) / np.ptp(seen), f"{low:.3g}", f"{high:.3g}"


def _fanova(columns: Mapping[str, Sequence[Any]], scores: np.ndarray) -> dict[str, float] | None:
    """Optuna's functional ANOVA; None where it cannot tell."""
    import optuna

    distributions = {key: _distribution(values) for key, values in columns.items()}
    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for index, score in enumerate(scores):
            params = {key: _param(values[index]) for key, values in columns.items()}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=float(score)))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=_SEED)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError):
        return None
    finally:
        optuna.logging.set_verbosity(loudness)
    return {key: float(found.get(key, 0.0)) for key in columns}


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not _varies(values):
        return CategoricalDistribution(list(dict.fromkeys(map(_param, values))))
    numbers = np.array(values, float)
    return FloatDistribution(float(numbers.min()), float(numbers.max()), log=_is_logarithmic(numbers))


def _param(value: Any) -> Any:
    return (
        value if isinstance(value, (bool, str)) or value is None else float(value) if _is_number(value) else str(value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _varies(values: Sequence[Any]) -> bool:
    """Whether they are numbers, and not all the same."""
    return all(map(_is_number, values)) and len(set(values)) > 1


def _is_logarithmic(numbers: np.ndarray) -> bool:
    return bool(numbers.min() > 0 and numbers.max() / numbers.min() > _WIDE_RANGE)


def _has_all(trial: Trial, keys: Sequence[str]) -> bool:
    return all(key in trial.settings for key in keys)
