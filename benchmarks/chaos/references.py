"""The runs that nothing disturbs, which events are compared with: each is made once, when it is needed."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos import judging
from benchmarks.chaos.starting import Place
from benchmarks.chaos.strikes import DONE
from benchmarks.chaos.workloads import RUN, WORKLOADS, Outcome, Workload

_FACTS = "reference.json"
_LEFT_TIMEOUT_S = 30.0
_WARM_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Reference:
    """An undisturbed run.

    Args:
        seconds: how long it ran. work: the folder where its result lies. temporary: what it leaves in TMPDIR.
    """

    outcome: Outcome
    seconds: float
    work: Path
    temporary: Counter[str]


class References:
    """They, by workload.

    Args:
        folder: where they are kept; what lies there already is taken, so a later campaign can share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._locks = {name: threading.Lock() for name in WORKLOADS}

    def of(self, workload: Workload) -> Reference:
        """The undisturbed run of a workload.

        Raises:
            RuntimeError: it fails.
        """
        if workload.server:  # the same without a server
            return self.of(WORKLOADS["train tracked"])
        folder = self._folder / workload.name.replace(" ", "-")
        with self._locks[workload.name]:
            if not (folder / _FACTS).exists():
                self._make(workload, folder)
        facts = json.loads((folder / _FACTS).read_text())
        return Reference(facts["outcome"], facts["seconds"], folder, Counter(facts["temporary"]))

    def prepare(self, workload: Workload, work: Path) -> None:
        """Puts into a folder what a command finds there: the finished run on which it starts, its files."""
        if workload.base is not None:
            shutil.copytree(self.of(WORKLOADS[workload.base]).work / RUN, work / RUN)
        workload.prepare(work)

    def _make(self, workload: Workload, folder: Path) -> None:
        place = Place("undisturbed")
        try:
            self.prepare(workload, place.work)
            place.start("schema", ()).wait(_WARM_TIMEOUT_S)  # the imports that forked commands share are not measured
            ending = place.start(workload.command, workload.arguments).wait(deadline_s(workload, 120))
            if ending.status != DONE:
                raise RuntimeError(f"{workload.name} fails undisturbed, {ending.status}: {ending.errors[-500:]}")
            if left := place.family.wait_for_end(_LEFT_TIMEOUT_S):
                raise RuntimeError(f"{workload.name} leaves processes undisturbed: {left}")
            facts = {
                "outcome": workload.outcome(place.work),
                "seconds": ending.seconds,
                "temporary": judging.temporary_files(place),
            }
            shutil.copytree(place.work, folder, dirs_exist_ok=True)
            (folder / _FACTS).write_text(json.dumps(facts))
        finally:
            place.family.kill()
            place.remove()


def deadline_s(workload: Workload, undisturbed_s: float) -> float:
    """Far beyond what a loaded machine needs: whoever is still running then hangs."""
    return 150.0 + 4 * undisturbed_s + workload.seconds_extra
