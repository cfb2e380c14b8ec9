"""Folders that are about to be read hold files, not pipes and devices, which would block or never end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from adanat_rl.cli import main
from adanat_rl.config.errors import UserError
from adanat_rl.config.plain_files import require_plain_files


def test_pipes_and_devices_are_named_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / "around").symlink_to(tmp_path)
    require_plain_files(tmp_path)
    require_plain_files(tmp_path / "nowhere")
    (tmp_path / "a" / "zeros").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"a/zeros is a device, expected a file"):
        require_plain_files(tmp_path)
    (tmp_path / "a" / "zeros").unlink()
    os.mkfifo(tmp_path / "a" / "b" / "pipe")
    with pytest.raises(UserError, match=r"a/b/pipe is a pipe, expected a file"):
        require_plain_files(tmp_path)


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("report RUN", "samples/decisions.npz"),
        ("audit RUN", "summary.json"),
        ("export RUN --output new", "metrics.jsonl"),
        ("evaluate RUN", "policy/policy.safetensors"),
        ("train --run-dir RUN", "summary.json"),
        ("train --run-dir RUN", "lock"),
        ("probe --num-images 8 --reward-from RUN", "metrics.jsonl"),
    ],
)
def test_a_run_folder_with_a_pipe_in_it_is_refused_at_once(
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / file).unlink(missing_ok=True)
    os.mkfifo(run / file)
    assert main([str(run) if word == "RUN" else word for word in line.split()]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert f"{run / file} is a pipe, expected a file" in errors[0]
