"""The text encoder of a configuration, and prompts encoded by it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import GeneratorConfig, TextConfig
from adanat_rl.config.text_files import printable, read_text
from adanat_rl.generation.precision import weight_dtype
from adanat_rl.generation.text.cache import EmbeddingCache
from adanat_rl.generation.text.encoder import ClipTextEncoder
from adanat_rl.generation.text.table import CaptionTable


def build_text_encoder(text: TextConfig, generator: GeneratorConfig, device: str = "cpu") -> ClipTextEncoder:
    """The encoder that the generator was trained with: aMUSEd brings its own, others name theirs.

    Raises:
        UserError: it is not named, or not there.
    """
    dtype = weight_dtype(text.precision)
    if generator.kind == "amused":
        from adanat_rl.generation.masked.amused_folder import AmusedTextEncoder  # beside the networks it belongs to

        folder = resolve_path(generator.nat, "generator.nat").parent.parent
        return AmusedTextEncoder(folder, batch_size=text.batch_size, device=device, dtype=dtype)
    if text.encoder is None:
        raise UserError("text.encoder: null is not accepted: new captions need the folder of the CLIP text encoder")
    return ClipTextEncoder(
        Path(text.encoder).expanduser(),
        tokenizer_folder=None if text.tokenizer is None else Path(text.tokenizer).expanduser(),
        pad_token_id=text.pad_token_id,
        batch_size=text.batch_size,
        device=device,
        dtype=dtype,
    )


def encode_prompts(
    prompts: Sequence[str], text: TextConfig, generator: GeneratorConfig, device: str = "cpu"
) -> CaptionTable:
    """A table of prompts in memory; what `text.cache` holds already is not encoded again."""
    cache = None if text.cache is None else Path(text.cache).expanduser()
    return EmbeddingCache(cache, build_text_encoder(text, generator, device)).table(prompts)


def read_prompts(path: Path) -> list[str]:
    """Prompts of a text file, one a line; empty lines are left out.

    Raises:
        UserError: the file is missing, no UTF-8, or holds none.
    """
    # Ends of lines only: a prompt may hold other separators, such as U+2028
    prompts = [line.strip() for line in read_text(path, "--prompts").split("\n") if line.strip()]
    if not prompts:
        raise UserError(f"--prompts: {printable(path)} is empty; expected one prompt a line")
    return prompts
