"""The trials of a static search on disk, as an Optuna study that survives the death of its writer at any moment.

SQLite, because a trial is one transaction there: what a kill tears is rolled back when the file is next opened. (In
Optuna's journal file a torn line makes all later ones unreadable, and the lock of a dead writer stays.) A trial is
added when its distance is known, so none is ever left running.

Optuna keeps and shows the trials; it does not draw them. Its CMA-ES sampler draws with the package `cmaes`, as the
search does, but seeds itself by the number of the trial and the draws of its process, keeps its state as a pickle and
wants bounds: a search that goes on would not come to the same schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.evaluation.searches import Trial, searched_entries
from adanat_rl.generation.decisions import DecisionSpace

_CANDIDATES, _FINALISTS = "candidates", "finalists"  # names of the two studies in the file
# SQLite's words for what is no fault of the file.
_OF_THE_DISK = ("disk I/O error", "readonly database", "disk is full", "database is locked", "unable to open")
_LIMIT = 1e32  # of a value: Optuna wants bounds, and this is where `cmaes` gives up


class StudyHistory:
    """Trials in two Optuna studies of one file: the candidates of the generations, and the finalists.

    Args:
        path: SQLite file, made if it is missing. space: what is searched; names the parameters of the studies.

    Raises:
        UserError: the file is no such study, or one of another search.
    """

    def __init__(self, path: Path, space: DecisionSpace) -> None:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._path = path
        self._names = value_names(space)
        try:
            if not path.exists():
                _create(path)
            storage = _open(path)
            self._studies = {
                name: optuna.load_study(study_name=name, storage=storage) for name in (_CANDIDATES, _FINALISTS)
            }
            self._trials = [self._read(trial) for study in self._studies.values() for trial in study.get_trials()]
        except (SQLAlchemyError, optuna.exceptions.OptunaError, KeyError, RuntimeError, ValueError) as error:
            if any(words in _reason(error) for words in _OF_THE_DISK):
                raise RunError(f"{path} cannot be used: {_reason(error)}") from error
            raise UserError(f"{path} is no study of this search ({_reason(error)}); choose another --run-dir") from None

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        """All trials, finalists last."""
        return iter(self._trials)

    def append(self, trial: Trial, /) -> None:
        """Puts a trial on the disk.

        Raises:
            RunError: it cannot be written.
        """
        import optuna

        attributes: dict[str, Any] = {"image_seed": trial.image_seed, "schedule": plain_rows(trial.schedule)}
        values: dict[str, float] = {}
        if trial.values is not None:
            attributes["generation"] = trial.generation
            values = dict(zip(self._names, map(float, trial.values), strict=True))
        bounds = optuna.distributions.FloatDistribution(-_LIMIT, _LIMIT)
        row = optuna.trial.create_trial(
            value=trial.distance, params=values, distributions=dict.fromkeys(values, bounds), user_attrs=attributes
        )
        try:
            self._studies[_FINALISTS if trial.values is None else _CANDIDATES].add_trial(row)
        except optuna.exceptions.StorageInternalError as error:
            raise RunError(f"cannot write {self._path}: {_reason(error)}") from None
        self._trials.append(trial)

    def _read(self, row: Any) -> Trial:
        attributes = row.user_attrs
        generation, values = attributes.get("generation"), None
        if generation is not None:
            values = np.array([row.params[name] for name in self._names])
        schedule = np.array(attributes["schedule"], np.float32)
        return Trial(generation, values, schedule, attributes["image_seed"], row.value)


def value_names(space: DecisionSpace) -> list[str]:
    """Names of the searched values, as `step1.mask_ratio`."""
    return [f"step{step + 1}.{space.learned[column]}" for step, column in np.argwhere(searched_entries(space))]


def plain_rows(schedule: np.ndarray) -> Sequence[Sequence[float]]:
    """Rows of a float32 schedule as the shortest numbers that give it back."""
    return [[float(str(value)) for value in row] for row in schedule.astype(np.float32)]


def _create(path: Path) -> None:
    """Makes the file under another name: its tables come one after the other."""
    import optuna

    temporary = path.with_name(f".{path.name}.tmp")
    for left in (temporary, Path(f"{temporary}-journal")):  # of a process that was killed here
        left.unlink(missing_ok=True)
    storage = _open(temporary)
    for name in (_CANDIDATES, _FINALISTS):
        optuna.create_study(study_name=name, storage=storage, direction="minimize")
    storage.engine.dispose()
    temporary.replace(path)


def _open(path: Path) -> Any:
    import optuna
    from sqlalchemy import URL

    return optuna.storages.RDBStorage(URL.create("sqlite", database=str(path)).render_as_string())


def _reason(error: BaseException) -> str:
    """The database's own words, where it is its failure."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "orig", error)).splitlines()[0]
