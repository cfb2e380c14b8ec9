"""Commands of users whom nobody knows."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_user_without_home_and_name_can_use_commands() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"HOME", "USER", "LOGNAME"}}
    code = (
        "import os, sys\n"
        "import pathlib, getpass, pwd\n"
        "from adanat_rl.cli import run_command\n"
        "os.setgid(54321); os.setuid(54321)\n"
        "sys.exit(run_command('sample', [], lambda _: print(pathlib.Path.home(), getpass.getuser()) or 0))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[1] == "uid54321"
