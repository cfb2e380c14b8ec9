"""Where weights and reference numbers come from: a file of the user, or an asset that ships with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from adanat_rl.config.catalogue import describe_missing, published_file
from adanat_rl.config.errors import UserError, nearest

ASSET_PREFIX = "asset:"


def resolve_path(name: str, key: str) -> Path:
    """The file behind a path or an `asset:FOLDER/FILE` name.

    Args:
        key: the setting it comes from, for the message.

    Raises:
        UserError: there is no such file or asset.
    """
    if not name.startswith(ASSET_PREFIX):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(_missing(name, key))
        return path
    asset = assets_folder() / name.removeprefix(ASSET_PREFIX)
    if not asset.is_file():
        names = asset_names()
        raise UserError(f"{key}: no such asset: {name}; accepted: {', '.join(names)}{nearest(name, names)}")
    return asset


def _missing(name: str, key: str) -> str:
    """What a missing file is and where it comes from, if it is one that presets name."""
    if published_file(name) is not None:
        return describe_missing(name, key)
    return f"{key}: no such file: {name}; give a file, or one of the assets {', '.join(asset_names())}"


def assets_folder() -> Path:
    """Folder of the shipped weights."""
    return Path(str(resources.files("adanat_rl") / "assets"))


def asset_names() -> list[str]:
    """Names of all shipped weights and reference numbers."""
    folder = assets_folder()
    files = [
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.suffix in {".safetensors", ".json"}
    ]
    return sorted(ASSET_PREFIX + name for name in files)
