"""Reads aMUSEd from a local folder in diffusers' layout: what it must hold, and its networks one by one.

Each process loads the part that it needs: NAT, tokenizer or text encoder. Nothing is downloaded, and weights are read
from safetensors alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.json_files import read_json
from adanat_rl.generation.masked.amused import AESTHETIC_SCORE, CROP, AmusedNAT, AmusedTokenizer
from adanat_rl.generation.text.encoder import ClipTextEncoder
from adanat_rl.generation.text.local import fingerprint
from adanat_rl.generation.weight_header import refuse_non_finite, refuse_oversized

Part = Literal["transformer", "vqvae", "scheduler", "text_encoder", "tokenizer"]

PARTS: tuple[Part, ...] = ("transformer", "vqvae", "scheduler", "text_encoder", "tokenizer")
WEIGHTS = "*.safetensors"
SOURCE = "published as amused/amused-256 and amused/amused-512: hf download amused/amused-256 --local-dir FOLDER"

_T = TypeVar("_T")
_VOCABULARIES = ("tokenizer.json", "vocab.json")
_FILES: dict[Part, tuple[str, ...]] = {
    "transformer": ("config.json", WEIGHTS),
    "vqvae": ("config.json", WEIGHTS),
    "scheduler": ("scheduler_config.json",),
    "text_encoder": ("config.json", WEIGHTS),
    "tokenizer": ("tokenizer_config.json",),
}


def missing_files(folder: Path, parts: Sequence[Part] = PARTS) -> list[str]:
    """What a folder lacks of some parts, as paths in it; empty if all is there."""
    wanted = [(part, pattern) for part in parts for pattern in _FILES[part]]
    lacks = [f"{part}/{pattern}" for part, pattern in wanted if not any((folder / part).glob(pattern))]
    if "tokenizer" in parts and not any((folder / "tokenizer" / name).is_file() for name in _VOCABULARIES):
        lacks.append(f"tokenizer/{_VOCABULARIES[0]} (or {_VOCABULARIES[1]} with merges.txt)")
    return lacks


def load_amused(
    folder: Path, *, aesthetic_score: float = AESTHETIC_SCORE, crop: tuple[int, int] = CROP
) -> tuple[AmusedNAT, AmusedTokenizer]:
    """NAT and tokenizer of a folder, float32, in eval mode, on the CPU.

    Args:
        aesthetic_score, crop: micro-conditioning of the NAT; crop in pixels, in the pipeline's order.

    Raises:
        UserError: something is missing, damaged, or the parts do not fit each other.
    """
    require_parts(folder, ("transformer", "vqvae", "scheduler"))
    tokenizer = load_amused_tokenizer(folder)
    nat = load_amused_nat(folder, aesthetic_score=aesthetic_score, crop=crop)
    if nat.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"{folder}: the transformer predicts {nat.vocab_size} codes, but the vqvae has {tokenizer.vocab_size}"
        )
    return nat, tokenizer


def load_amused_nat(
    folder: Path, *, aesthetic_score: float = AESTHETIC_SCORE, crop: tuple[int, int] = CROP
) -> AmusedNAT:
    """The NAT alone; reads transformer, scheduler and the autoencoder's settings (for the size of images)."""
    require_parts(folder, ("transformer", "scheduler"))
    mask_token_id = mask_token_of(folder)
    factor = 2 ** (len(_setting(folder, "vqvae", "block_out_channels", list)) - 1)
    transformer = _load_network(folder, "transformer", "UVit2DModel")
    image_size = transformer.config.sample_size * factor
    try:
        nat = AmusedNAT(transformer, mask_token_id, image_size, aesthetic_score=aesthetic_score, crop=crop)
    except ValueError as error:
        raise UserError(f"{folder}/transformer: {error}") from None
    return nat.eval()


def mask_token_of(folder: Path) -> int:
    """The mask's id in the transformer's vocabulary, which the scheduler's settings hold.

    Raises:
        UserError: they are missing or damaged.
    """
    return _setting(folder, "scheduler", "mask_token_id", int)


def load_amused_tokenizer(folder: Path) -> AmusedTokenizer:
    """The tokenizer alone; the grid's side is in the transformer's settings, whose weights are not read."""
    require_parts(folder, ("vqvae",))
    grid_size = _setting(folder, "transformer", "sample_size", int)
    vqvae = _load_network(folder, "vqvae", "VQModel")
    try:
        return AmusedTokenizer(vqvae, grid_size).eval()
    except ValueError as error:
        raise UserError(f"{folder}/vqvae: {error}") from None


class AmusedTextEncoder(ClipTextEncoder):
    """The text encoder of a folder, as the pipeline uses it: penultimate hidden states, the tokenizer's own padding.

    Args:
        folder: of the pipeline. batch_size, device, dtype: see `ClipTextEncoder`.

    Raises:
        UserError: something is missing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int = 32,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        require_parts(folder, ("text_encoder", "tokenizer"))
        super().__init__(
            folder / "text_encoder",
            tokenizer_folder=folder / "tokenizer",
            pad_token_id=None,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
        )
        self.name = folder.resolve().name

    @cached_property
    def fingerprint(self) -> str:
        """Hash of files, layer and precision: never that of a table of last hidden states."""
        return fingerprint((self.folder, self.tokenizer_folder), "penultimate", self.pad_token_id, str(self.dtype))

    def _encode(self, ids: Tensor) -> tuple[Tensor, ...]:
        output = self._network(input_ids=ids, output_hidden_states=True)
        return output.hidden_states[-2].float(), output.text_embeds.float()


def require_parts(folder: Path, parts: Sequence[Part]) -> None:
    """Refuses a folder that is not there or lacks files.

    Raises:
        UserError: naming what it lacks and where it is published.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; aMUSEd is {SOURCE}")
    lacks = missing_files(folder, parts)
    if lacks:
        hint = _pickle_hint(folder, lacks)
        raise UserError(f"{folder} is no complete aMUSEd folder, it lacks {', '.join(lacks)}{hint}; {SOURCE}")


def _pickle_hint(folder: Path, lacks: Sequence[str]) -> str:
    pickles = [
        f"{part}/{path.name}"
        for part in PARTS
        if f"{part}/{WEIGHTS}" in lacks
        for path in sorted((folder / part).glob("*.bin"))
    ]
    return f" ({', '.join(pickles)} is a pickle and is not read)" if pickles else ""


def _settings(folder: Path, part: Part) -> dict[str, Any]:
    """The JSON settings of a part."""
    path = folder / part / _FILES[part][0]
    if not path.exists():
        raise UserError(f"{folder} lacks {part}/{path.name}; {SOURCE}")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings")
    return content


def _setting(folder: Path, part: Part, name: str, kind: type[_T]) -> _T:
    """One setting of a part."""
    value = _settings(folder, part).get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{folder / part / _FILES[part][0]}: {name} is {value!r}, expected {kind.__name__}")
    return value


def _load_network(folder: Path, part: Part, class_name: str) -> Any:
    """A network of diffusers, float32; half-precision files serve where there are no others."""
    found = _settings(folder, part).get("_class_name", class_name)
    if found != class_name:
        raise UserError(f"{folder}/{part} holds a {found}, expected a {class_name} (aMUSEd)")
    try:
        diffusers = import_module("diffusers")
    except ImportError:
        raise UserError("aMUSEd needs diffusers: pip install 'adanat-rl[diffusers]'") from None
    cls, settings = getattr(diffusers, class_name), _settings(folder, part)
    refuse_oversized(lambda: cls.from_config(settings), folder / part, f"{folder / part / _FILES[part][0]}")
    is_half = all(".fp16." in path.name for path in (folder / part).glob(WEIGHTS))
    try:
        network, report = cls.from_pretrained(
            folder / part,
            variant="fp16" if is_half else None,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            ignore_mismatched_sizes=True,  # they are in the report
            output_loading_info=True,
        )
    except Exception as error:  # the library raises many types for a bad file
        raise UserError(f"{folder}/{part}: {type(error).__name__}: {reason_of(error)[:300]}") from None
    _refuse_misfits(f"{folder}/{part}", report)
    refuse_non_finite(folder / part, network.state_dict())
    return network.float().eval().requires_grad_(False)


def _refuse_misfits(name: str, report: dict[str, Any]) -> None:
    """Tensors too few, too many or of another shape: the library would go on with random ones."""
    for problem, key in (
        ("lacks", "missing_keys"),
        ("has too many", "unexpected_keys"),
        ("has another shape of", "mismatched_keys"),
    ):
        names = sorted(entry if isinstance(entry, str) else entry[0] for entry in report[key])
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise UserError(f"{name} {problem}: {shown}")
