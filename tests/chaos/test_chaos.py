"""A short campaign of kills and broken disks with a new seed each time, and that the campaign itself sees faults."""

from __future__ import annotations

import errno
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos import judging
from benchmarks.chaos.__main__ import campaign
from benchmarks.chaos.processes import MARKER, Family
from benchmarks.chaos.report import reproduce
from benchmarks.chaos.scenarios import SCENARIOS, draw, some_workloads
from benchmarks.chaos.shim import Control, NotPossibleError, build_shim
from benchmarks.chaos.starting import Ending
from benchmarks.chaos.strikes import ACTIONS
from benchmarks.chaos.tearing import METRICS, Damage, is_only_copy, tear
from benchmarks.chaos.workloads import WORKLOADS

MINUTES = float(os.environ.get("CHAOS_MINUTES", "5"))


@pytest.mark.slow
def test_whatever_dies_or_breaks_the_same_command_ends_with_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbelow(10**6)))
    workloads = some_workloads(seed, 1 + int(MINUTES // 2))
    with capsys.disabled():
        print(f"\nchaos: seed {seed}, {MINUTES:g} minutes, {', '.join(workloads)}")
    verdicts = campaign(seed, workloads, minutes=MINUTES)
    assert verdicts, "no event took place"
    wrong = [f"{reproduce(verdict, workloads)}: {fault}" for verdict in verdicts for fault in verdict.faults]
    assert not wrong, "\n".join(wrong)


def test_a_seed_and_a_number_say_all_of_an_event_and_each_round_has_every_scenario() -> None:
    count = len(SCENARIOS)
    events = [draw(7, number) for number in range(count)]
    assert sorted(map(repr, (event.scenario for event in events))) == sorted(map(repr, SCENARIOS))
    assert events[3] == draw(7, 3)
    assert events[3].chance.random() == draw(7, 3).chance.random()
    assert [draw(8, number).scenario for number in range(count)] != [event.scenario for event in events]
    assert all(0 <= event.instant < 1 for event in events)
    assert len({event.instant for event in events}) == count


def test_every_scenario_names_a_command_and_an_action_that_exist() -> None:
    assert {scenario.workload for scenario in SCENARIOS} == set(WORKLOADS)
    assert {scenario.action for scenario in SCENARIOS} == set(ACTIONS)


@pytest.fixture
def shim(tmp_path: Path) -> tuple[Control, dict[str, str], Path]:
    """A library to preload, its control, the environment of commands that obey it, and the folder that fails."""
    folder = tmp_path / "struck"
    folder.mkdir()
    try:
        library = build_shim(tmp_path)
    except NotPossibleError as error:
        pytest.skip(str(error))
    control = Control(tmp_path / "control", folder)
    return control, {**os.environ, **control.environment(library)}, folder


def python(program: str, environment: dict[str, str], cwd: Path) -> str:
    called = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=cwd, capture_output=True, text=True, check=True
    )
    return called.stdout.strip()


WRITING = """
import os
for index in range(6):
    try:
        with open(f"{index}.txt", "w") as file:
            file.write("x")
            file.flush()
            os.fsync(file.fileno())
        print("ok", end=" ")
    except OSError as error:
        print(error.errno, end=" ")
"""


def test_file_operations_fail_as_told_and_only_in_the_folder(
    shim: tuple[Control, dict[str, str], Path], tmp_path: Path
) -> None:
    control, environment, folder = shim
    assert python(WRITING, environment, folder) == "ok ok ok ok ok ok"
    control.fail(errno.EIO, times=2, one_in=1)
    assert python(WRITING, environment, tmp_path) == "ok ok ok ok ok ok"
    assert python(WRITING, environment, folder) == f"{errno.EIO} {errno.EIO} ok ok ok ok"
    assert control.failures == 2
    control.fail(errno.ENOSPC, times=-1, one_in=1)
    assert python(WRITING, environment, folder) == " ".join([str(errno.ENOSPC)] * 6)
    control.heal()
    assert python(WRITING, environment, folder) == "ok ok ok ok ok ok"


def test_the_clock_jumps_for_python(shim: tuple[Control, dict[str, str], Path]) -> None:
    control, environment, folder = shim
    program = "import time, datetime; print(int(time.time()), int(datetime.datetime.now().timestamp()))"
    before = int(python(program, environment, folder).split()[0])
    control.jump(-86400)
    after = [int(text) for text in python(program, environment, folder).split()]
    assert all(-86400 <= moment - before < -86000 for moment in after)


def test_processes_are_found_by_their_marker_or_their_session_and_ended() -> None:
    family = Family("found")
    marked = subprocess.Popen(["sleep", "600"], env={**os.environ, MARKER: "found"}, start_new_session=True)
    other = subprocess.Popen(["sleep", "600"], env={**os.environ, MARKER: "lost"}, start_new_session=True)
    try:
        assert [process.pid for process in family.wait_for_end(0)] == [marked.pid]
        family.add_session(other.pid)
        assert {process.pid for process in family.alive()} == {marked.pid, other.pid}
        os.kill(marked.pid, signal.SIGSTOP)
        family.kill()
        assert family.alive() == []
        assert (marked.wait(), other.wait()) == (-signal.SIGKILL, -signal.SIGKILL)
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()


def ending(status: int | None, errors: str = "", output: str = "") -> Ending:
    return Ending("adanat-rl train", status, output, errors, 1.0)


GO_ON = "adanat-rl train: cannot write\n  safe: a checkpoint\n  go on with: adanat-rl train\n"


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (ending(0), {0}, None),
        (ending(1, GO_ON), {0, 1}, None),
        (ending(None), {0}, "hang"),
        (ending(15), {143}, "exit status 15 instead of 143"),
        (ending(0), {143}, "exit status 0 instead of 143"),
        (ending(1, "adanat-rl train: unexpected KeyError: 'a'\n  go on with: adanat-rl train\n"), {1}, "unexpected"),
        (ending(0, "Traceback (most recent call last):\n"), {0}, "Traceback"),
        (ending(1, "adanat-rl train: it broke\n"), {1}, "no command to go on with"),
        (ending(1, "[2026-11-27] raylet died\n" + GO_ON), {1}, "not ours, such as: [2026-11-27] raylet died"),
        (ending(1), {1}, "without a word"),
    ],
)
def test_endings_are_judged(found: Ending, expected: set[int], words: str | None) -> None:
    faults = judging.ending_faults(found, expected, WORKLOADS["train"])
    assert not faults if words is None else any(words in fault for fault in faults), faults


def test_a_result_that_differs_in_one_bit_one_row_or_one_file_is_seen(finished_run: Path, tmp_path: Path) -> None:
    workload = WORKLOADS["train"]
    work = tmp_path / "w"
    shutil.copytree(finished_run, work / "run")
    reference = workload.outcome(work)
    assert judging.outcome_faults(workload, work, reference) == []

    table = work / "run" / "metrics.jsonl"
    whole = table.read_text()
    table.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert [fault.split(" ")[1] for fault in judging.outcome_faults(workload, work, reference)] == ["metric"]
    table.write_text(whole)

    (work / "run" / ".config.yaml.17.tmp").write_text("left")
    assert "more: .config.yaml.17.tmp" in judging.outcome_faults(workload, work, reference)[0]
    (work / "run" / ".config.yaml.17.tmp").unlink()

    weights = work / "run" / "policy" / "policy.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert judging.outcome_faults(workload, work, reference) == ["differs: policy.safetensors"]
    weights.unlink()
    assert "cannot be read" in judging.outcome_faults(workload, work, reference)[0]


def test_a_checkpoint_that_was_put_aside_is_not_missing_and_no_other_file_may_be(
    finished_run: Path, tmp_path: Path
) -> None:
    workload, work = WORKLOADS["train"], tmp_path / "work"
    shutil.copytree(finished_run, work / "run")
    reference = workload.outcome(work)
    checkpoints = work / "run" / "checkpoints"
    oldest = min(checkpoints.glob("iteration_*"))
    (checkpoints / "damaged").mkdir()
    oldest.rename(checkpoints / "damaged" / oldest.name)
    assert judging.outcome_faults(workload, work, reference) == []
    (work / "run" / "config.yaml").unlink()
    assert "missing: checkpoints" in judging.outcome_faults(workload, work, reference)[0]
    assert "config.yaml" in judging.outcome_faults(workload, work, reference)[0]


def test_torn_files_are_damaged_and_can_be_put_back(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for number in range(40):
        shutil.copytree(finished_run, folder)
        damage = tear(folder, random.Random(number), only_copies=number % 2 == 0)
        assert damage is not None
        assert is_only_copy(damage.file) == (number % 2 == 0), damage.what
        original = (finished_run / damage.file.relative_to(folder)).read_bytes()
        assert damage.before == original
        damage.undo()
        assert damage.file.read_bytes() == original
        shutil.rmtree(folder)
    (tmp_path / "empty").mkdir()
    assert tear(tmp_path / "empty", random.Random(0), only_copies=True) is None


def test_a_backup_of_the_metric_rows_keeps_the_rows_that_came_since(tmp_path: Path) -> None:
    file = tmp_path / METRICS
    rows = [json.dumps({"iteration": number, "loss": number / 2}) + "\n" for number in range(4)]
    before, after = "".join(rows[:3]), rows[0] + rows[1].replace('"iteration": 1', '"iteration": 9') + rows[2]
    damage = Damage(file, "", before.encode(), after.encode(), is_only_copy=True)
    file.write_text(after)
    damage.undo()
    assert file.read_text() == before
    file.write_text(rows[0] + rows[2] + rows[3])  # a run went on from there
    damage.undo()
    assert file.read_text() == before + rows[3]
