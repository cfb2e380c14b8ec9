"""Reading transformers' models and tokenizers from local folders, quietly and without ever asking a server."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.json_files import read_json
from adanat_rl.generation.weight_header import refuse_non_finite, refuse_oversized
from adanat_rl.generation.weights import share

_SAMPLED_BLOCKS = 256
_BLOCK_BYTES = 4096


def require_transformers(what: str = "text") -> Any:
    """The module `transformers`.

    Args:
        what: needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise UserError(f"{what} needs the package transformers: pip install 'adanat-rl[text]'") from None


def require_folder(folder: Path, *files: str) -> Path:
    """The folder of a model, checked for the files it must have.

    Raises:
        UserError: naming the folder or the file that is missing.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; a transformers model folder is needed (config.json, *.safetensors)")
    for name in files:
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks {name}; accepted: a folder written by transformers' save_pretrained")
    return folder


def require_model_type(folder: Path, *accepted: str) -> None:
    """Refuses the folder of a model of another family: transformers would take what it finds of the names it looks for.

    Raises:
        UserError: naming the family, or what is missing.
    """
    require_folder(folder, "config.json")
    settings = read_json(folder / "config.json")
    found = settings.get("model_type") if isinstance(settings, dict) else None
    if found not in accepted:
        raise UserError(f"{folder}/config.json: model_type is {found!r}; accepted: {', '.join(accepted)}")


def load_config(cls: Any, folder: Path) -> Any:
    """A configuration of transformers: of a whole model, or of the one tower that `cls` describes.

    Raises:
        UserError: missing or not readable.
    """
    require_folder(folder, "config.json")
    whole = read_json(folder / "config.json")
    if not isinstance(whole, dict):
        raise UserError(f"{folder}/config.json holds no settings")
    try:
        with _quiet():
            config = cls.from_pretrained(str(folder), local_files_only=True)
        # A whole CLIP projects both towers to the width at the top; the towers' own entries may be forgotten defaults.
        if whole.get("model_type") != config.model_type and "projection_dim" in whole:
            config.projection_dim = whole["projection_dim"]
        return config
    except Exception as error:  # the library raises many types for a bad file
        raise UserError(f"{folder}/config.json: {_first_line(error)}") from None


def load_model(cls: Any, folder: Path) -> nn.Module:
    """A model of transformers, whole or one tower, from safetensors; float32, in eval mode, frozen, on the CPU.

    Raises:
        UserError: missing, damaged, or tensors of the model are not in the file.
    """
    config = load_config(cls.config_class, folder)
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} has no *.safetensors; other weight files can run code and are not read")
    with _quiet():
        refuse_oversized(lambda: cls(config), folder, f"{folder}/config.json")
    try:
        with _quiet():
            model, report = cls.from_pretrained(
                str(folder), config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # the library raises many types for a bad file
        raise UserError(f"{folder}: cannot load a {cls.__name__}: {_first_line(error)}") from None
    missing = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UserError(f"{folder} lacks tensors of a {cls.__name__}: {shown}")
    refuse_non_finite(folder, model.state_dict())
    return model.float().eval().requires_grad_(False)


def shared_model(cls: Any, folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The same, one copy for all who ask in this process for the same class, folder, device and dtype."""
    require_folder(folder)
    return share(folder, cls.__name__, lambda: load_model(cls, folder), str(device), dtype)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        UserError: missing or not readable.
    """
    transformers = require_transformers()
    require_folder(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UserError(f"{folder} lacks tokenizer files: tokenizer.json, or vocab.json and merges.txt")
    try:
        with _quiet():
            return transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # the library raises many types for a bad file
        raise UserError(f"{folder}: cannot read the tokenizer: {_first_line(error)}") from None


def fingerprint(folders: Sequence[Path], *settings: object) -> str:
    """Tells models apart, quickly: SHA-256 in hex of configuration, tokenizer, settings and samples of the weights.

    Of a weight file it reads size, header and 256 blocks spread evenly, not gigabytes: other weights differ
    everywhere. It is no check against damage.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for path in sorted({path for folder in folders for path in folder.glob("*")}, key=lambda path: path.name):
        if path.suffix in (".json", ".txt") and path.is_file():
            digest.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())
        elif path.suffix == ".safetensors":
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            for block in _blocks(path):
                digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        yield file.read(min(header, size))
        for number in range(_SAMPLED_BLOCKS):
            file.seek(max(0, size - _BLOCK_BYTES) * number // (_SAMPLED_BLOCKS - 1))
            yield file.read(_BLOCK_BYTES)


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading without progress bars and reports of keys that a part of a model does not need."""
    logging = require_transformers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
