"""The study file of a static search: what is put in comes out to the bit, and what is no such file is refused."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import numpy as np
import optuna
import pytest

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.evaluation.searches import Trial
from adanat_rl.experiment.search_study import StudyHistory, plain_rows, value_names
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions


def space_of(horizon: int = 2) -> DecisionSpace:
    return DecisionSpace(masked_token_decisions(), hand_made_schedule(horizon), ["mask_ratio", "guidance_scale"])


def made_trials() -> list[Trial]:
    rng = np.random.default_rng(0)
    schedules = rng.random((4, 2, 4), dtype=np.float32)
    values = rng.normal(size=(3, 3)) * [1e-9, 1, 1e9]
    return [
        *(Trial(index // 2, values[index], schedules[index], 2**32 - 1 - index, rng.random()) for index in range(2)),
        Trial(1, values[2], schedules[2], 7, math.inf),
        Trial(None, None, schedules[3], 8, 0.1 + 0.2),
    ]


def test_trials_come_out_to_the_bit(tmp_path: Path) -> None:
    path, trials = tmp_path / "study.db", made_trials()
    for trial in trials:
        StudyHistory(path, space_of()).append(trial)  # each in a process of its own, as it were
    found = list(StudyHistory(path, space_of()))
    for ours, theirs in zip(found, trials, strict=True):
        assert (ours.generation, ours.image_seed) == (theirs.generation, theirs.image_seed)
        assert ours.distance == theirs.distance
        np.testing.assert_array_equal(ours.schedule, theirs.schedule)
        assert ours.schedule.dtype == np.float32
        if theirs.values is None:
            assert ours.values is None
        else:
            np.testing.assert_array_equal(ours.values, theirs.values)
            assert ours.values.dtype == np.float64


def test_optuna_reads_the_file(tmp_path: Path) -> None:
    history = StudyHistory(tmp_path / "study.db", space_of())
    for trial in made_trials():
        history.append(trial)
    study = optuna.load_study(study_name="candidates", storage=f"sqlite:///{tmp_path}/study.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.best_value == min(trial.distance for trial in made_trials()[:3])
    assert set(study.best_params) == {"step1.mask_ratio", "step1.guidance_scale", "step2.guidance_scale"}


def test_values_have_the_names_of_their_places() -> None:
    assert value_names(space_of()) == ["step1.mask_ratio", "step1.guidance_scale", "step2.guidance_scale"]


def test_rows_are_the_shortest_numbers_that_give_a_schedule_back() -> None:
    schedule = np.float32([[0.92388, 1 / 3], [1e-5, 0.0]])
    assert plain_rows(schedule) == [[0.92388, 0.33333334], [1e-05, 0.0]]
    np.testing.assert_array_equal(np.array(plain_rows(schedule), np.float32), schedule)


def test_a_file_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".study.db.tmp").write_bytes(b"half")
    (tmp_path / ".study.db.tmp-journal").write_bytes(b"half")
    StudyHistory(tmp_path / "study.db", space_of()).append(made_trials()[0])
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_what_is_no_study_of_the_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(b"no database, but longer than its header would be" * 10)
    with pytest.raises(UserError, match=r"study.db is no study of this search \(file is not a database\)"):
        StudyHistory(path, space_of())
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no study of this search"):
        StudyHistory(path, space_of())
    other = tmp_path / "other.db"
    StudyHistory(other, space_of(3)).append(Trial(0, np.zeros(5), hand_made_schedule(3).astype(np.float32), 1, 0.5))
    with pytest.raises(UserError, match="no study of this search"):
        StudyHistory(other, DecisionSpace(masked_token_decisions(), hand_made_schedule(3)))


def test_a_trial_that_cannot_be_written_is_an_error_and_not_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda seconds: None)
    path = tmp_path / "study.db"
    history = StudyHistory(path, space_of())
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE trial_params")
    connection.close()
    with pytest.raises(RunError, match=r"cannot write .*study.db: .*trial_params"):
        history.append(made_trials()[0])
    assert len(history) == 0
