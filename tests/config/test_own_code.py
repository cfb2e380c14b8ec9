"""Finding what a user wrote: in the working directory, with one line for whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import file_sha256
from adanat_rl.config.own_code import import_own, own_file_hash


def test_a_module_of_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_in_folder.py").write_text("answer = 42")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["nowhere"])
    assert import_own("found_in_folder:answer") == 42
    with pytest.raises(UserError, match=r"^found_in_folder:answers: .* has no answers \(did you mean 'answer'\?\)"):
        import_own("found_in_folder:answers")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("def", "SyntaxError"),
    ],
)
def test_a_module_that_fails_is_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    (tmp_path / "failing_module.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=rf"^reward\.kind: failing_module:R: cannot import failing_module: .*{reason}"):
        import_own("failing_module:R", "reward.kind")


def test_a_module_is_its_file_before_anybody_has_imported_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run compares contents before it builds judges, and a command that is a script does not look in its folder."""
    (tmp_path / "not_imported_yet.py").write_text("raise AssertionError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["nowhere"])
    assert own_file_hash("not_imported_yet:Judge") == file_sha256(tmp_path / "not_imported_yet.py")
    assert own_file_hash("nothing.like_it:Judge") == "module nothing.like_it without a file"
