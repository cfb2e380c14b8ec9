from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="package")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that has everything."""
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    result = tiny.train(run_dir, *tiny.IN_PROCESS)
    assert result.returncode == 0, result.stderr
    return run_dir
