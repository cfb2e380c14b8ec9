"""Terminals without UTF-8, readers that go away, full disks: never an error of a command that did its work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from adanat_rl.cli import COMMANDS
from adanat_rl.config.loading import resolve

PRINT_A_LOT = (
    "import sys; from adanat_rl.console.streams import settle_streams; from adanat_rl.console.failures import "
    "status_of_output; settle_streams(); [print('8×8 … é — ━', i, flush=i % 2) for i in range(40_000)]; "
    "print('done', file=sys.stderr); sys.exit(status_of_output('test', 0))"
)


def run(code: str, encoding: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process whose streams have an encoding."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code], capture_output=True, encoding=encoding, env=environment, timeout=240
    )


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = '"$PY" -c "$CODE" | head -1; echo status ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PY": sys.executable, "CODE": PRINT_A_LOT},
        timeout=240,
    )
    assert done.stdout.splitlines()[-1] == "status 0"
    assert done.stderr == "done\n"


def test_output_that_a_full_disk_swallows_is_told() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINT_A_LOT], stdout=full, stderr=subprocess.PIPE, text=True, timeout=240
        )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "done"
    assert lines[1].startswith("test: cannot write to standard output: No space left on device")


def test_closed_streams_are_no_error() -> None:
    done = subprocess.run(["bash", "-c", '"$0" -c "$1" >&- 2>&-', sys.executable, PRINT_A_LOT], timeout=240)
    assert done.returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_help_page_can_be_printed_in_every_encoding(encoding: str) -> None:
    code = (
        "import contextlib, sys\nfrom adanat_rl.cli import COMMANDS, main\nassert main(['--help']) == 0\n"
        "for name in COMMANDS:\n  with contextlib.suppress(SystemExit): main([name, '--help'])\n"
        "assert main(['schema', '--markdown']) == 0\nsys.exit(main(['schema']))"
    )
    done = run(code, encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"usage: adanat-rl {name}" in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_settings_that_are_printed_are_the_settings_in_every_encoding(encoding: str) -> None:
    name = "süß-数字"
    code = (
        "from adanat_rl.cli import print_settings, settle_streams; from adanat_rl.config.loading import resolve; "
        f"settle_streams(); print_settings(resolve(overrides=['name={name}']))"
    )
    done = run(code, encoding)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) == resolve(overrides=[f"name={name}"]).model_dump(mode="json")
