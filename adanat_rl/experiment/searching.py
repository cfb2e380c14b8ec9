"""The search for the best static schedule as a job: prepare the folder, search or go on, compete, report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import append_line, read_json_lines, write_atomically
from adanat_rl.config.loading import validate
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.drawing import DrawAndKeep
from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.evaluation.fitting import fitted, left_out_note
from adanat_rl.evaluation.judge import FD_A
from adanat_rl.evaluation.reference import Baseline, References, dump_references
from adanat_rl.evaluation.searches import (
    StaticSearchResult,
    Trial,
    final_image_seeds,
    num_finalists,
    num_trials,
    search_static_schedule,
    searched_entries,
)
from adanat_rl.experiment.build import build_scene, draw_here
from adanat_rl.experiment.contents import CONTENT_KEYS
from adanat_rl.experiment.inputs import with_absolute_paths
from adanat_rl.experiment.progress import Display, open_display
from adanat_rl.experiment.run_folder import RunFolder, disk_error
from adanat_rl.experiment.same_run import Difference, Identity, differences, flat_settings
from adanat_rl.experiment.search_study import StudyHistory, plain_rows
from adanat_rl.generation.build import build_decision_space, inline_base_schedule
from adanat_rl.stopping import StopRequest

# Settings that decide which trials a search makes and what comes of them; others may change when it goes on.
_DECIDING_SECTIONS = ("data", "generator", "decisions")
_DECIDING_KEYS = {
    "search": ("population", "sigma", "seed"),
    "evaluation": ("num_images", "judge", "resize"),
}


class SearchFolder(RunFolder):
    """The folder of a search: not that of a training, so its settings have another name."""

    kind = "search"

    @property
    def config_file(self) -> Path:
        """Resolved configuration, YAML."""
        return self.path / "search.yaml"

    @property
    def summary_file(self) -> Path:
        """What the search comes to, JSON; written last, so a search that has it is complete."""
        return self.path / "search.json"

    @property
    def study_file(self) -> Path:
        """The Optuna study, SQLite; the truth of the search."""
        return self.path / "study.db"

    @property
    def contents_file(self) -> Path:
        """SHA-256 of what the search was started with, JSON."""
        return self.path / "contents.json"

    @property
    def history_file(self) -> Path:
        """The trials as JSON lines."""
        return self.path / "search.jsonl"

    @property
    def schedule_file(self) -> Path:
        """The best schedule, JSON: T rows of 4 numbers."""
        return self.path / "schedule.json"

    @property
    def reference_file(self) -> Path:
        """The same as a file of baselines."""
        return self.path / "reference.json"

    @property
    def has_history(self) -> bool:
        """Whether an evaluation was ever finished here."""
        return self.study_file.exists()

    def _found_differences(self, config: ExperimentConfig, may_change: Sequence[str]) -> list[Difference]:
        """What must be the same is another list for a search; the contents are those of its first start."""
        assert self.identity is not None
        ours = Identity(_deciding(config), _searched_contents(self.identity.contents))
        saved = self._saved_settings()
        there = Identity(_deciding(validate(saved, self.config_file)) if saved else {}, self._saved_contents())
        return differences(ours, there)

    def _note_contents(self, identity: Identity) -> None:
        """Those of the first start stay; what it did not know of is added."""
        known = {**_searched_contents(identity.contents), **self._saved_contents()}
        write_atomically(self.contents_file, json.dumps(known, indent=1))

    def _saved_contents(self) -> dict[str, str]:
        """What the search was started with; nothing if a version made it that did not keep this.

        Raises:
            UserError: the file is damaged, so nobody can tell whether this is the same search.
        """
        try:
            content = json.loads(self.contents_file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or not all(_is_hash(value) for value in content.values()):
            raise UserError(
                f"{self.contents_file} is damaged: it says which networks and data the search was started with; "
                "delete it if they are the same, or choose another --run-dir"
            )
        return content


def search(
    config: ExperimentConfig,
    path: Path,
    again: str,
    stop: StopRequest,
    *,
    quiet: bool = False,
    log_json: bool = False,
) -> int:
    """Searches, or goes on with the search of a folder; returns the exit status.

    Args:
        again: the command to name in messages. stop: heard in every phase.

    Raises:
        UserError: something is missing, damaged or does not fit. RunError: the disk is full.
    """
    config = with_absolute_paths(config)
    decisions = inline_base_schedule(config.decisions, config.generator.horizon)
    config = config.model_copy(update={"decisions": decisions})
    evaluator = build_scene(config).evaluator
    folder = SearchFolder(path)
    try:
        folder.prepare(config)
        with open_display("search", quiet=quiet, log_json=log_json) as display:
            return _search(config, folder, evaluator, again, display, stop)
    except OSError as error:
        failed = disk_error(error, path, f"every finished evaluation, in {folder.study_file}", again)
        raise failed or error from error
    except RunError as error:
        raise error.advised(f"every finished evaluation, in {folder.study_file}", again) from error
    finally:
        folder.release()


def describe_search(config: ExperimentConfig) -> str:
    """What a search would do, as comments behind its settings; reads no weights."""
    space, settings = build_decision_space(config.decisions, config.generator.horizon), config.search
    return (
        f"# search: {searched_entries(space).sum()} values in {space.horizon} steps; {settings.num_generations} "
        f"generations of {settings.population} schedules, then {num_finalists(settings.num_generations)} finalists on "
        f"{settings.num_seeds} image seeds: {_total(config)} evaluations of {config.evaluation.num_images} images"
    )


def _search(
    config: ExperimentConfig,
    folder: SearchFolder,
    evaluator: Evaluator,
    again: str,
    display: Display,
    stop: StopRequest,
) -> int:
    space, settings, total = evaluator.generator.decision_space, config.search, _total(config)
    lost = 0 if folder.study_file.exists() else len(read_json_lines(folder.history_file))
    if lost:
        raise RunError(
            f"{folder.study_file} is gone, and with it {lost} evaluations: put a copy of it back, or begin anew in "
            "another --run-dir",
            safe=f"the schedules and distances in {folder.history_file}",
        )
    history = StudyHistory(folder.study_file, space)
    write_atomically(folder.history_file, "".join(_line(trial) for trial in history))
    known = len(history)
    display.message(f"search folder {folder.path}: {known} of {total} evaluations are done")
    if config.evaluation.keep_pieces:
        evaluator = evaluator.drawing_by(DrawAndKeep(folder.pieces, draw_here(config)))

    def report(trial: Trial) -> None:
        append_line(folder.history_file, _line(trial).rstrip("\n"))
        shutil.rmtree(folder.pieces, ignore_errors=True)
        display.row(len(history), total, _row(trial))
        stop.check()

    try:
        result = search_static_schedule(
            evaluator,
            space.base_schedule.numpy(),
            final_image_seeds(settings.seed, settings.num_seeds),
            num_generations=settings.num_generations,
            population=settings.population,
            sigma=settings.sigma,
            seed=settings.seed,
            history=history,
            report=report,
        )
    except KeyboardInterrupt:
        stop.note()
        display.message(f"stopped after {len(history)} of {total} evaluations, all kept; go on with: {again}")
        return stop.exit_status
    if len(history) == known:
        display.message("the search is complete; more with search.num_generations")
    _finish(config, folder, result, again, display)
    return 0


def _finish(
    config: ExperimentConfig, folder: SearchFolder, result: StaticSearchResult, again: str, display: Display
) -> None:
    """The files, each as a whole, the summary last."""
    if not np.isfinite(result.distance):
        raise RunError("no schedule has a finite distance: the judge finds none")
    rows = ",\n ".join(json.dumps(row) for row in plain_rows(result.schedule))
    write_atomically(folder.schedule_file, f"[{rows}]\n")
    references = References(config.data.name, again, (as_baseline(config, result),))
    write_atomically(folder.reference_file, dump_references(references))
    summary = summarise(config, result)
    write_atomically(folder.summary_file, json.dumps(summary, indent=1, ensure_ascii=False))
    before, after = summary["distance_before"], summary["distance"]
    display.message(
        f"FD {before['mean']:.3f} ± {before['sd']:.3f} before, {after['mean']:.3f} ± {after['sd']:.3f} after, "
        f"by the {len(result.distances)} image seeds that chose among the finalists; `evaluate` has seeds of its own"
    )
    if np.array_equal(result.schedule, np.float32(summary["base_schedule"])):
        display.message("nothing better than the base schedule was found; more with search.num_generations")
    display.message(f"schedule: {folder.schedule_file}")
    display.message(
        f"use it: train decisions.base.file={folder.schedule_file}; evaluate --baseline {folder.schedule_file}, "
        f"or evaluation.reference={folder.reference_file}"
    )


def as_baseline(config: ExperimentConfig, result: StaticSearchResult) -> Baseline:
    """The result for tables and figures of other commands."""
    horizon, num_values = config.generator.horizon, _num_values(config)
    numbers = {FD_A: _spread(result.distances)}
    how = f"CMA-ES over all {num_values} values with an effect, {result.num_evaluated} schedules tried"
    return Baseline("static_search", f"static, T = {horizon}, searched", how, result.schedule, numbers=numbers)


def summarise(config: ExperimentConfig, result: StaticSearchResult) -> dict[str, Any]:
    """What a search comes to."""
    space = build_decision_space(config.decisions, config.generator.horizon)
    return {
        "name": config.name,
        "num_generations": config.search.num_generations,
        "population": config.search.population,
        "num_evaluated": result.num_evaluated,
        "num_values": _num_values(config),
        "num_images": config.evaluation.num_images,
        "image_seeds": final_image_seeds(config.search.seed, config.search.num_seeds),
        "distance_before": {**_spread(result.start_distances), "values": list(result.start_distances)},
        "distance": {**_spread(result.distances), "values": list(result.distances)},
        "decisions": list(space.names),
        "effective": space.effective.tolist(),
        "base_schedule": plain_rows(space.base_schedule.numpy()),
        "schedule": plain_rows(result.schedule),
    }


def schedule_table(summary: dict[str, Any], width: int | None = None) -> Table:
    """The schedule before and after; a dash where a value has no effect.

    Args:
        width: in characters that it has; decisions that do not fit are left out and named. None: no limit.
    """
    rows = []
    for step, (before, after) in enumerate(zip(summary["base_schedule"], summary["schedule"], strict=True)):
        cells = [f"{old:.3f} → {new:.3f}" for old, new in zip(before, after, strict=True)]
        rows.append([cell if has else "–" for cell, has in zip(cells, summary["effective"][step], strict=True)])

    def build(kept: Sequence[str], left_out: Sequence[str]) -> Table:
        note = left_out_note([name.replace("_", " ") for name in left_out], "summary.json and schedule.json")
        table = Table(title="base schedule → found", title_justify="left", caption=note, caption_justify="left")
        table.add_column("step", justify="right", no_wrap=True)
        for name in kept:
            table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
        for step, cells in enumerate(rows):
            table.add_row(str(step + 1), *cells[: len(kept)])
        return table

    names = summary["decisions"]
    return build(names, ()) if width is None else fitted(build, names, width)


def _total(config: ExperimentConfig) -> int:
    settings = config.search
    return num_trials(settings.num_generations, settings.population, settings.num_seeds)


def _num_values(config: ExperimentConfig) -> int:
    return int(searched_entries(build_decision_space(config.decisions, config.generator.horizon)).sum())


def _spread(values: Iterable[float]) -> dict[str, float]:
    numbers = np.array(list(values))
    return {"mean": float(numbers.mean()), "sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0}


def _row(trial: Trial) -> dict[str, Any]:
    stage = "finalists" if trial.generation is None else "search"
    distance = trial.distance if np.isfinite(trial.distance) else None
    row = {"stage": stage, "generation": trial.generation, "image_seed": trial.image_seed, "distance": distance}
    return {key: value for key, value in row.items() if value is not None}


def _line(trial: Trial) -> str:
    return json.dumps({**_row(trial), "schedule": plain_rows(trial.schedule)}) + "\n"


def _deciding(config: ExperimentConfig) -> dict[str, Any]:
    """The settings that must be the same for a search to go on, by dotted key."""
    return {key: value for key, value in flat_settings(config).items() if _decides(key)}


def _decides(key: str) -> bool:
    if key in CONTENT_KEYS or key == "decisions.base.file":
        return False
    section, _, name = key.partition(".")
    return section in _DECIDING_SECTIONS or name in _DECIDING_KEYS.get(section, ())


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _searched_contents(contents: Mapping[str, str]) -> dict[str, str]:
    """Those that a search looks at."""
    return {key: value for key, value in contents.items() if not key.startswith("reward.")}
