"""Commands of users whom nobody knows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from adanat_rl.console.user import keep_out_of_home


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


def test_fonts_are_listed_among_temporary_files_and_not_in_a_fresh_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    keep_out_of_home()
    place = Path(os.environ["MPLCONFIGDIR"])
    assert place.parent == tmp_path
    assert place.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "home").exists()
    monkeypatch.delenv("MPLCONFIGDIR")
    place.rmdir()
    place.symlink_to(tmp_path)  # somebody else's trap
    keep_out_of_home()
    assert "MPLCONFIGDIR" not in os.environ
