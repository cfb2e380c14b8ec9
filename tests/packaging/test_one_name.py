"""What is installed claims one top-level name, and the user's own `envs` is never mistaken for the environments."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE_ONE = """
import gymnasium, sys
environment = gymnasium.make("adanat_rl:AdaNAT/Digits-v0")
environment.reset(seed=0)
package = type(environment.unwrapped).__module__.rpartition(".")[0]
print(package, sys.modules[package].__file__, "envs" in sys.modules)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of what is committed or about to be: building writes beside the sources."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.rstrip("\0")
    folder = tmp_path_factory.mktemp("sources")
    for name in names.split("\0"):
        if (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def sdist(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    build(sources, f"build_sdist({str(folder)!r})")
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module", params=["checkout", "sdist"])
def wheel(request: pytest.FixtureRequest, sources: Path, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a checkout, and from the sdist as pip does it when there is no wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    if request.param == "sdist":
        with tarfile.open(sdist) as packed:
            packed.extractall(folder / "unpacked", filter="data")
        sources = next((folder / "unpacked").iterdir())
    build(sources, f"build_wheel({str(folder)!r})")
    return next(folder.glob("*.whl"))


def build(sources: Path, call: str) -> None:
    """Calls the build backend as a build frontend does: in a process of its own, in the folder of the sources."""
    code = f"import setuptools.build_meta as backend; backend.{call}"
    result = subprocess.run([sys.executable, "-c", code], cwd=sources, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def outcome(command: list[str], cwd: Path, path: Path) -> str:
    """What a command prints when `path` is all that PYTHONPATH holds."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    result = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(params=["package", "module", "plain folder"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A user's folder with an `envs` of their own that must not be imported in place of ours."""
    if request.param == "module":
        (tmp_path / "envs.py").write_text("raise SystemExit('the envs of the user')\n")
    else:
        (tmp_path / "envs").mkdir()
        name = "__init__.py" if request.param == "package" else "torch.yaml"
        (tmp_path / "envs" / name).write_text("raise SystemExit('the envs of the user')\n")
    return tmp_path


def test_the_wheel_holds_one_top_level_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        top_level = packed.read(next(name for name in names if name.endswith("top_level.txt"))).decode().split()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"adanat_rl"}
    assert top_level == ["adanat_rl"]
    here = {path.name for path in (ROOT / "envs").glob("*.py")}
    assert {Path(name).name for name in names if name.startswith("adanat_rl/envs/")} == here


def test_beside_a_users_envs_the_installed_package_means_its_own(wheel: Path, project: Path) -> None:
    installed = project.parent / f"{project.name}-site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(installed)
    expected = f"adanat_rl.envs {installed / 'adanat_rl' / 'envs' / '__init__.py'} False"
    assert outcome(["-c", MAKE_ONE], project, installed).strip() == expected


def test_beside_a_users_envs_a_checkout_means_its_own(sources: Path, project: Path) -> None:
    """Not installed: the folder of the checkout is on the path, behind the user's."""
    package, file, bare = outcome(["-c", MAKE_ONE], project, sources).split()
    assert package == "adanat_rl.envs"
    assert Path(file).resolve() == (sources / "envs" / "__init__.py").resolve()
    assert bare == "False"


@pytest.mark.parametrize("project", ["package"], indirect=True)
def test_training_starts_beside_a_users_envs(sources: Path, project: Path) -> None:
    code = "import sys, adanat_rl.experiment.training, adanat_rl.rl.config; print('envs' in sys.modules)"
    assert outcome(["-c", code], project, sources).strip() == "False"


def test_the_bare_name_is_refused_with_the_right_one() -> None:
    """In a checkout `import envs` finds the files; a second copy of each class would be the outcome."""
    command = [sys.executable, "-c", "import envs.vector_env"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("the environments are imported as adanat_rl.envs, not as envs")
