"""What a running command shows."""

import pytest

from adanat_rl.config.metric_keys import EVAL, PANEL_AHEAD, PANEL_BEHIND
from adanat_rl.evaluation.judge import FD_A
from adanat_rl.experiment import progress


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_time_that_is_left_is_told_of_each_piece_of_work_by_itself(clock: Clock) -> None:
    lines: list[str] = []
    display = progress.PlainDisplay(lines.append)
    for now, done, total in ((0, 100, 400), (300, 400, 400), (310, 10, 1000), (330, 20, 1000)):
        clock.now = now
        display.row(done, total, {})
    assert lines == ["100/400", "400/400  ETA 0:00", "10/1000", "20/1000  ETA 32:40"]


def test_quality_is_told_by_the_panel_where_there_is_one(clock: Clock) -> None:
    lines: list[str] = []
    display = progress.PlainDisplay(lines.append)
    display.row(0, 10, {EVAL + FD_A: 0.5})
    display.row(1, 10, {EVAL + FD_A: 0.4, PANEL_AHEAD: 7.0, PANEL_BEHIND: 1.0})
    assert "FD 0.500" in lines[0]
    assert lines[1].endswith("panel: 7 better, 1 worse than at first")
    assert "FD" not in lines[1]
