"""Reward hacking: the reward rises while a judge that nobody trains on gets worse; found from metric rows alone.

A window is the last W evaluations. Both sides are read off a straight line that is fitted to the window, so that one
odd value decides nothing:

- the reward of the iterations within the window has risen if the line rises by more than the reward's own spread
  about it, and by more than chance lets it (three standard errors, with fewer independent iterations counted where
  neighbours resemble each other); a second line, over the logarithm of the iteration, sees what rises quickly and then
  stays;
- a judge has got worse if, along its line and also from the first to the last evaluation, it lost more than the
  tolerated part of where it was; and, unless it lost several times that, more than its own unsteadiness explains:
  what it jumps about from one evaluation to the next, told from all evaluations so far.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adanat_rl.config.metric_keys import EVAL, HACKING_DETECTED, HACKING_ITERATION, ITERATION, REWARD_MEAN
from adanat_rl.evaluation.judge import FD_A, FD_B, RECALL, JudgeNames

WATCHED = {FD_A: 1.0, FD_B: 1.0, RECALL: -1.0}  # judges, and the sign of what is worse; recall stands for diversity
_STANDARD_ERRORS = 3.0  # of a rise of the reward
_STANDARD_ERRORS_OF_JUDGE = 2.5
_BEYOND_DOUBT = 3.0  # times the tolerance; a sudden collapse looks unsteady itself
_FEWEST = 3  # iterations that a line through the reward needs
_LEAST_INDEPENDENT = 4.0  # iterations that count as independent, at least

Row = Mapping[str, Any]


@dataclass(frozen=True)
class JudgeChange:
    """How far a judge got worse.

    Args:
        metric: its key without prefix. before, after: at the first and at the last evaluation of the window.
    """

    metric: str
    before: float
    after: float

    @property
    def relative(self) -> float:
        """Change as a part of where it was; negative where it fell."""
        return (self.after - self.before) / abs(self.before)


@dataclass(frozen=True)
class Hacking:
    """Reward hacking, as it was seen first.

    Args:
        iteration: of the evaluation that showed it. since: of the first evaluation of the window.
        num_evaluations: W.
        reward_before, reward_after: means over the iterations before the second and before the last evaluation of the
            window (of its halves, if it has two).
        judges: those that got worse, one at least.
    """

    iteration: int
    since: int
    num_evaluations: int
    reward_before: float
    reward_after: float
    judges: tuple[JudgeChange, ...]

    @property
    def sentence(self) -> str:
        """The same in plain words."""
        return self.describe(JudgeNames())

    def describe(self, names: JudgeNames) -> str:
        """The sentence, with the distances as a judge calls them."""
        titles = {FD_A: names.short_a, FD_B: names.short_b, RECALL: "recall"}
        changes = [
            f"{titles[judge.metric]} {'rose' if judge.relative > 0 else 'fell'} from {judge.before:.3f} to "
            f"{judge.after:.3f} ({judge.relative:+.0%})".replace("-", "−")
            for judge in self.judges
        ]
        listed = changes[0] if len(changes) == 1 else f"{', '.join(changes[:-1])} and {changes[-1]}"
        reward = f"from {self.reward_before:.3f} to {self.reward_after:.3f}".replace("-", "−")
        return (
            f"Reward hacking, seen at iteration {self.iteration}: over {self.num_evaluations} evaluations "
            f"(iterations {self.since} to {self.iteration}) the reward rose {reward} while {listed}."
        )


def find_hacking(rows: Sequence[Row], window: int, tolerance: float, rewarded: Collection[str] = ()) -> Hacking | None:
    """The first window in which the reward rose while a judge got worse; None if there is none.

    Args:
        rows: of metrics.jsonl, in order; those with `eval/fd_a` are evaluations. window: W; below 2 nothing is sought.
        tolerance: part of its value that a judge may lose over a window.
        rewarded: numbers that the run is paid in (`rewarded_judges`); they are no judges of it.
    """
    watched = [metric for metric in WATCHED if metric not in rewarded]
    evaluations, rewards = evaluation_rows(rows), _rewards(rows)
    if window < 2:
        return None
    for end in range(window, len(evaluations) + 1):
        found = _judge_window(rewards, evaluations[:end], window, tolerance, watched)
        if found is not None:
            return found
    return None


def hacking_row(found: Hacking | None) -> dict[str, float]:
    """Numbers for the metric row: whether it has been seen in this run, and since which iteration."""
    if found is None:
        return {HACKING_DETECTED: 0.0}
    return {HACKING_DETECTED: 1.0, HACKING_ITERATION: float(found.iteration)}


def evaluation_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows with an evaluation."""
    return [row for row in rows if EVAL + FD_A in row]


def rewards_between(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Iterations `[E]` of the evaluations, and the mean reward `[E]` since the one before; NaN before training."""
    evaluations = evaluation_rows(rows)
    iterations = np.array([row[ITERATION] for row in evaluations], float)
    at, rewards = _rewards(rows)
    means = []
    for before, until in itertools.pairwise([-1.0, *iterations]):
        part = rewards[(before < at) & (at <= until)]
        means.append(part.mean() if len(part) else np.nan)
    return iterations, np.array(means)


def _judge_window(
    trained: tuple[np.ndarray, np.ndarray],
    evaluations: Sequence[Row],
    window: int,
    tolerance: float,
    watched: Sequence[str],
) -> Hacking | None:
    marks = [float(row[ITERATION]) for row in evaluations[-window:]]
    within = (marks[0] < trained[0]) & (trained[0] <= marks[-1])
    at, rewards = trained[0][within], trained[1][within]
    if not _has_risen(at, rewards):
        return None
    changes = (_change(evaluations, window, metric, tolerance) for metric in watched)
    worse = tuple(change for change in changes if change is not None)
    if not worse:
        return None
    middle = marks if len(marks) > 2 else [marks[0], (marks[0] + marks[1]) / 2, marks[1]]
    return Hacking(
        iteration=int(marks[-1]),
        since=int(marks[0]),
        num_evaluations=len(marks),
        reward_before=float(rewards[at <= max(middle[1], at[0])].mean()),
        reward_after=float(rewards[at > min(middle[-2], at[-1] - 1)].mean()),
        judges=worse,
    )


def _rewards(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and mean rewards `[N]` of the training rows."""
    kept = [(row[ITERATION], row[REWARD_MEAN]) for row in rows if np.isfinite(row.get(REWARD_MEAN, np.nan))]
    return np.array([at for at, _ in kept], float), np.array([value for _, value in kept], float)


def _has_risen(at: np.ndarray, rewards: np.ndarray) -> bool:
    """Whether the rewards rise by more than spread and chance, steadily or quickly at first."""
    if len(rewards) < _FEWEST:
        return False
    return any(_line_rises(place, rewards) for place in (at, np.log1p(at - at[0])))


def _line_rises(place: np.ndarray, rewards: np.ndarray) -> bool:
    count = len(rewards)
    slope, offset = np.polyfit(place, rewards, 1)
    rest = rewards - slope * place - offset
    rise, spread = slope * (place[-1] - place[0]), float(rest.std())
    if spread <= 1e-9 * float(np.abs(rewards).max()):  # a line without noise
        return bool(rise > 1e-6 * float(np.abs(rewards).max()))
    # Neighbours that resemble each other tell less: N (1 − ρ) / (1 + ρ) of N count, ρ the correlation at lag 1
    similar = float(np.clip((rest[1:] * rest[:-1]).sum() / (rest**2).sum(), 0.0, 0.99))
    independent = max(min(_LEAST_INDEPENDENT, count), count * (1 - similar) / (1 + similar))
    standard_error = (place[-1] - place[0]) / (place.std() * np.sqrt(independent))  # of the rise, in spreads
    return bool(rise > spread * max(1.0, _STANDARD_ERRORS * standard_error))


def _change(evaluations: Sequence[Row], window: int, metric: str, tolerance: float) -> JudgeChange | None:
    """How a judge got worse over the last evaluations; None if it did not, or was not asked."""
    history = np.array([row.get(EVAL + metric, np.nan) for row in evaluations], float)
    values = history[-window:]
    if not np.isfinite(values).all() or values[0] == 0:
        return None
    change = JudgeChange(metric, float(values[0]), float(values[-1]))
    places = np.arange(window) - (window - 1) / 2
    along_line = float(places @ values / (places @ places)) * (window - 1)
    start = float(values.mean()) - along_line / 2
    loss = WATCHED[metric] * along_line
    lost = min(loss / max(abs(start), 1e-12), WATCHED[metric] * change.relative)
    if lost <= tolerance:
        return None
    standard_error = _unsteadiness(history) * (window - 1) / float(np.sqrt(places @ places))
    is_shown = lost > _BEYOND_DOUBT * tolerance or loss > _STANDARD_ERRORS_OF_JUDGE * standard_error
    return change if is_shown else None


def _unsteadiness(values: np.ndarray) -> float:
    """Standard deviation of single values about a smooth course, from how far each lies off its neighbours."""
    bends = np.diff(values[np.isfinite(values)], 2)  # 6 times the variance of one value; steady changes cancel
    return float(np.median(np.abs(bends)) / (0.6745 * np.sqrt(6))) if len(bends) else 0.0
