"""MLflow: one run per training, fed from the run folder by a thread that training never waits for.

metrics.jsonl and the pictures on disk are the outbox. What the server already has is asked of the server, so that over
any number of crashes and restarts no step is missing and none is there twice. While the server is away the thread tries
again and again; what is left at the end is sent by the next start of the same command. A refusal is told once, with
what helps, and tried again less often.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.tracking.destinations import Destination, destinations
from adanat_rl.tracking.link import Link
from adanat_rl.tracking.system_metrics import Sample, SystemSampler
from adanat_rl.tracking.troubles import explain

_RETRY_S = 5.0
_REFUSED_RETRY_S = 60.0
_TURN_S = 5.0  # how long a store with much to catch up on is fed before the others have their turn
_CLOSE_TIMEOUT_S = 60.0
_AWAY_CLOSE_TIMEOUT_S = 25.0  # of a store that has not answered before
_CLOSING_ATTEMPTS = 3
_CLOSING_PAUSE_S = 1.0


class Tracker(Protocol):
    """What a training tells its tracker."""

    def wake(self) -> None:
        """There is something new in the run folder."""
        ...

    def finish(self, status: str) -> None:
        """The run has ended: FINISHED, KILLED or FAILED."""
        ...


class NoTracker:
    """Tracking is switched off."""

    def wake(self) -> None:
        """Nothing."""

    def finish(self, status: str) -> None:
        """Nothing."""


@contextmanager
def open_tracker(
    config: ExperimentConfig,
    files: RunPaths,
    warn: Callable[[str], None],
    parent: str | None = None,
    home: Path | None = None,
) -> Iterator[Tracker]:
    """The tracker of a run; on leaving, what is new is sent within a minute, or stays for the next start.

    Args:
        warn: takes a line for people. parent: uid of the sweep that the run is a trial of. home: the folder whose store
            is the run's: that of the sweep; by default the run folder.
    """
    if not config.tracking.enabled:
        yield NoTracker()
        return
    tracker = MlflowTracker(config, files, warn, parent, home)
    tracker.start()
    try:
        yield tracker
    finally:
        tracker.close()


class MlflowTracker:
    """The thread that feeds the run's stores in turn, so that one that hangs keeps none of the others waiting for long.

    Args:
        See `open_tracker`.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        files: RunPaths,
        warn: Callable[[str], None],
        parent: str | None = None,
        home: Path | None = None,
    ) -> None:
        self._config = config
        self._warn = warn
        self._told: set[str] = set()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._is_left = False
        self._status = "FAILED"  # of a run that ends without a word
        self._thread = threading.Thread(target=self._run, name="mlflow-tracker", daemon=True)
        found = destinations(config, home or files.path)
        stores = [destination.uri for destination in found]
        self._feeds = [
            _Feed(to, lambda to=to: Link(config, files, to, stores, self._tell, parent), self._tell)  # type: ignore[misc]
            for to in found
        ]

    def start(self) -> None:
        """Starts the thread."""
        for feed in self._feeds[1:]:
            self._tell(f"results also go to {feed.destination.place}")
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    def finish(self, status: str) -> None:
        """Notes the final status; it is sent after everything else."""
        self._status = status
        self._wake.set()

    def close(self) -> None:
        """Sends what is left, but no longer than a minute."""
        self._closing.set()
        self._wake.set()
        start = time.monotonic()
        while self._thread.is_alive():
            is_away = all(feed.is_done or feed.is_in_trouble for feed in self._feeds)
            left = (_AWAY_CLOSE_TIMEOUT_S if is_away else _CLOSE_TIMEOUT_S) - (time.monotonic() - start)
            if left <= 0:
                break
            self._thread.join(min(left, 0.5))
        left_over = [feed.destination.place for feed in self._feeds if not feed.is_done]
        if left_over:
            self._tell(f"warning: {' and '.join(left_over)} did not take everything; the same command sends the rest")
        self._is_left = True  # whatever a thread that hangs has to say comes too late

    def _tell(self, line: str) -> None:
        """Says a line to people, once."""
        if line not in self._told and not self._is_left:
            self._told.add(line)
            self._warn(line)

    def _run(self) -> None:
        sampler = _Sampling(self._config.tracking.system_metrics)
        while not self._closing.is_set():
            now = time.monotonic()
            waits = [sampler.next_time - now, *(feed.next_time - now for feed in self._feeds)]
            self._wake.wait(max(0.0, min(waits)) if min(waits) < float("inf") else None)
            self._wake.clear()
            sample = sampler.sample_when_due()
            for feed in self._feeds:
                if sample is not None:
                    feed.note(sample)
                if not self._closing.is_set():
                    feed.serve(self._closing.is_set)
        for feed in self._feeds:
            feed.finish(self._status)


class _Sampling:
    """When the machine is sampled."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._sampler: SystemSampler | None = None
        self.next_time = 0.0 if enabled else float("inf")

    def sample_when_due(self) -> Sample | None:
        """A sample, if it is time; a machine that cannot be looked at is left alone."""
        if time.monotonic() < self.next_time:
            return None
        try:
            self._sampler = self._sampler or SystemSampler()
            sample = self._sampler.sample()
        except Exception:  # a sensor that breaks is no reason to lose the run
            self.next_time = float("inf")
            return None
        self.next_time = time.monotonic() + self._sampler.interval_s
        return sample


class _Feed:
    """One store: its link once there is one, and when to try again.

    Args:
        destination: the store. open_link: connects. tell: takes a line for people.
    """

    def __init__(self, destination: Destination, open_link: Callable[[], Link], tell: Callable[[str], None]) -> None:
        self.destination = destination
        self._open_link = open_link
        self._tell = tell
        self._link: Link | None = None
        self.next_time = 0.0  # of an attempt that nobody asked for
        self._not_before = 0.0  # of any attempt
        self.is_in_trouble = False
        self.is_done = False

    def note(self, sample: Sample) -> None:
        """Keeps a sample for the store, once it is there."""
        if self._link is not None:
            self._link.note(sample)

    def serve(self, closing: Callable[[], bool]) -> None:
        """Sends news, for a while; what goes wrong is told, and tried again later."""
        if time.monotonic() < self._not_before:
            return
        end = time.monotonic() + _TURN_S
        try:
            if self._link is None:
                self._link = self._open_link()
            is_all = self._link.send_news(lambda: closing() or time.monotonic() > end)
        except Exception as error:  # whatever a server or a store does must not touch the training
            self._explain(error)
            return
        self.is_in_trouble = False
        self.next_time = float("inf") if is_all else 0.0

    def finish(self, status: str) -> None:
        """Sends all that is left and ends the run; where the store answered before, a failure is tried again."""
        attempts = 1 if self.is_in_trouble else _CLOSING_ATTEMPTS
        for attempt in range(attempts):
            try:
                if self._link is None:
                    self._link = self._open_link()
                while not self._link.send_news():
                    pass
                self._link.end(status)
            except Exception as error:
                is_absence = self._explain(error, is_told=attempt == attempts - 1)
                if not is_absence:
                    return
                if attempt < attempts - 1:
                    time.sleep(_CLOSING_PAUSE_S)
            else:
                self.is_done = True
                return

    def _explain(self, error: Exception, *, is_told: bool = True) -> bool:
        """Notes a failure, and whether it may be over by itself."""
        trouble = explain(error, self.destination.place, self.destination.experiment)
        self.is_in_trouble = True
        self._not_before = self.next_time = time.monotonic() + (_RETRY_S if trouble.is_absence else _REFUSED_RETRY_S)
        if is_told or not trouble.is_absence:
            self._tell(f"warning: {trouble.sentence}")
        return trouble.is_absence
