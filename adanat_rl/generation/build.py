"""The generator of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import BaseScheduleConfig, DecisionsConfig, ExperimentConfig, GeneratorConfig
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.masked.amused import AmusedContexts, amused_schedule
from adanat_rl.generation.masked.amused_folder import AmusedTextEncoder, load_amused_nat, load_amused_tokenizer
from adanat_rl.generation.masked.contexts import CaptionContexts, ClassLabels, ContextTable
from adanat_rl.generation.masked.conv_tokenizer import ConvVQTokenizer
from adanat_rl.generation.masked.half_precision import HalfPrecisionDecoder
from adanat_rl.generation.masked.nat import TransformerNAT
from adanat_rl.generation.masked.patch_tokenizer import PatchTokenizer
from adanat_rl.generation.masked.sampler import NAT, MaskedTokenGenerator, Tokenizer
from adanat_rl.generation.masked.schedules import (
    check_schedule,
    hand_made_schedule,
    load_schedule,
    masked_token_decisions,
)
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.precision import weight_dtype
from adanat_rl.generation.text.further import FurtherCaptions, open_further_captions
from adanat_rl.generation.text.table import CaptionTable, open_caption_table, table_info
from adanat_rl.generation.weights import share, share_network

NAT_CLASSES: dict[str, type[nn.Module]] = {"transformer": TransformerNAT, "uvit": UViTNAT}
TOKENIZER_CLASSES: dict[str, type[nn.Module]] = {
    "patch": PatchTokenizer,
    "conv_vq": ConvVQTokenizer,
    "vqgan": VQTokenizer,
}


def build_generator(config: ExperimentConfig, device: str = "cpu") -> Generator:
    """Loads tokenizer and NAT and puts the sampler around them.

    Raises:
        UserError: weights are missing, damaged or do not fit each other.
    """
    return with_evaluated_captions(assemble_generator(config.generator, config.decisions, device), config)


def with_evaluated_captions(generator: Generator, config: ExperimentConfig) -> Generator:
    """The generator that also draws `evaluation.captions`; itself where that is null.

    Raises:
        UserError: it takes no captions, or those of another text encoder.
    """
    if config.evaluation.captions is None:
        return generator
    if not isinstance(generator, MaskedTokenGenerator) or not isinstance(generator.contexts, CaptionContexts):
        raise UserError(
            f"evaluation.captions: {config.generator.nat} draws class labels and takes no captions; leave it out"
        )
    further = load_further_captions(config)
    return generator if further is None else generator.with_contexts(replace(generator.contexts, captions=further))


def load_further_captions(config: ExperimentConfig) -> FurtherCaptions | None:
    """The captions of the generator with those of `evaluation.captions` behind them; None where that is null.

    Raises:
        UserError: a table is missing or damaged, or both are of different text encoders.
    """
    if config.evaluation.captions is None:
        return None
    table = load_captions(config.generator)
    return open_further_captions(table, config.generator.captions, config.evaluation.captions)


def evaluated_contexts(config: ExperimentConfig, labels: Tensor) -> Tensor:
    """Contexts that evaluations draw: those of the real images `[M]`, or the rows of `evaluation.captions`."""
    further = load_further_captions(config)
    return labels if further is None else further.further_rows


def assemble_generator(
    config: GeneratorConfig, decisions: DecisionsConfig, device: str = "cpu", captions: CaptionTable | None = None
) -> MaskedTokenGenerator:
    """The masked-token generator of two sections of a configuration.

    Args:
        captions: take the place of those of the configuration.
    """
    tokenizer = load_tokenizer(config, device)
    nat = load_nat(config, device)
    if (nat.vocab_size, nat.grid_size) != (tokenizer.vocab_size, tokenizer.grid_size):
        raise UserError(
            f"generator.nat: {config.nat} predicts {nat.vocab_size} codes on a {nat.grid_size}×{nat.grid_size} grid, "
            f"but the tokenizer has {tokenizer.vocab_size} on {tokenizer.grid_size}×{tokenizer.grid_size}"
        )
    return MaskedTokenGenerator(
        nat,
        tokenizer,
        build_decision_space(decisions, config.horizon),
        config.block_rows,
        build_contexts(config, nat, device, captions),
        first_step_mb=config.first_step_mb,
        decode_rows=config.decode_rows,
        precision=config.precision,
        device=device,
    )


def load_nat(config: GeneratorConfig, device: str = "cpu") -> NAT:
    """The frozen NAT, in its precision."""
    path, dtype = resolve_path(config.nat, "generator.nat"), weight_dtype(config.precision)
    if config.kind == "amused":
        score = config.aesthetic_score

        def load() -> nn.Module:
            return load_amused_nat(amused_folder(path), aesthetic_score=score)

        network = share(path, ("amused", score), load, device, dtype)
    else:
        network = share_network(path, NAT_CLASSES, device, dtype)
    return cast(NAT, torch.compile(network) if config.compile else network)


def load_tokenizer(config: GeneratorConfig, device: str = "cpu") -> Tokenizer:
    """The tokenizer alone: reward models need no more to see images."""
    path = resolve_path(config.tokenizer, "generator.tokenizer")
    if config.kind == "amused":
        network = share(path, "amused", lambda: load_amused_tokenizer(amused_folder(path)), device)
    else:
        network = share_network(path, TOKENIZER_CLASSES, device)
    tokenizer = cast(Tokenizer, network)
    if config.decode_precision == "float32":
        return tokenizer
    return HalfPrecisionDecoder(tokenizer, config.decode_precision, device)


def amused_folder(weights: Path) -> Path:
    """The folder in diffusers' layout that a weight file is part of."""
    return weights.parent.parent


def build_contexts(
    config: GeneratorConfig, nat: NAT, device: str = "cpu", captions: CaptionTable | None = None
) -> ContextTable:
    """What the numbers of contexts stand for: the class labels of the NAT, or rows of a table of captions.

    Raises:
        UserError: the NAT takes no captions, has none, or takes those of another text encoder.
    """
    num_classes = getattr(nat, "num_classes", None)
    if num_classes is not None:
        if captions is not None or config.captions is not None:
            raise UserError(f"generator.captions: {config.nat} draws class labels and takes no captions; leave it out")
        return ClassLabels(num_classes)
    table = captions if captions is not None else load_captions(config)
    width, found = getattr(nat, "text_width", None), table.context_shape[1]
    if width is not None and width != found:
        raise UserError(
            f"generator.captions: embeddings of {config.captions} have {found} numbers, but {config.nat} takes "
            f"{width}; encode them with the text encoder that it was trained with"
        )
    if config.kind == "amused":
        if captions is None:
            _check_amused_captions(config)
        return AmusedContexts(table, torch.device(device), weight_dtype(config.precision))
    return CaptionContexts(table, torch.device(device), weight_dtype(config.precision))


def _check_amused_captions(config: GeneratorConfig) -> None:
    """Reads penultimate hidden states; the last ones have the same shape and would give poor images silently."""
    encoder = AmusedTextEncoder(amused_folder(resolve_path(config.nat, "generator.nat")))
    found = table_info(Path(config.captions or "").expanduser())
    if found.encoder_fingerprint != encoder.fingerprint:
        raise UserError(
            f"generator.captions: {config.captions} was encoded by {found.encoder}, not as aMUSEd does; encode again "
            "with generator.kind=amused: adanat-rl prepare --captions"
        )


def load_captions(config: GeneratorConfig) -> CaptionTable:
    """The captions that are drawn from, with their embeddings.

    Raises:
        UserError: there are none, or they are damaged.
    """
    if config.captions is None:
        raise UserError(
            f"generator.captions: null is not accepted: {config.nat} draws from captions; give a folder that "
            "`adanat-rl prepare --captions` made"
        )
    return open_caption_table(Path(config.captions).expanduser())


def build_decision_space(config: DecisionsConfig, horizon: int) -> DecisionSpace:
    """The four decisions of masked-token generators around their base schedule."""
    rows = masked_token_decisions(
        config.sampling_temperature_floor,
        config.base_floor,
        mask_ratio_cutoff=config.mask_ratio_cutoff,
        guidance_cutoff=config.guidance_cutoff,
    )
    return DecisionSpace(
        rows,
        base_schedule(config.base, horizon),
        config.learned,
        residual=config.residual,
        smoothing=config.smoothing,
        mask_ineffective=config.mask_ineffective,
    )


def base_schedule(config: BaseScheduleConfig, horizon: int) -> np.ndarray:
    """Values `[T, 4]` of the base schedule: as given, from its file, or by formula.

    Raises:
        UserError: rows given for another number of steps, a number out of range, or a file that holds no schedule.
    """
    if config.values is None and config.file is not None:
        return load_schedule(Path(config.file).expanduser(), horizon)
    schedule = _given(config.values, horizon) if config.values is not None else _by_formula(config, horizon)
    check_schedule(schedule, "decisions.base.values" if config.values is not None else "decisions.base")
    return schedule


def _given(values: Sequence[Sequence[float]], horizon: int) -> np.ndarray:
    if len(values) != horizon:
        raise UserError(f"decisions.base.values: {len(values)} rows, expected generator.horizon ({horizon})")
    return np.array(values)


def _by_formula(config: BaseScheduleConfig, horizon: int) -> np.ndarray:
    if config.convention == "amused":
        temperatures = (config.confidence_temperature, 0.0)
        return amused_schedule(horizon, pipeline_guidance_scale=config.guidance_scale + 1, temperatures=temperatures)
    return hand_made_schedule(
        horizon,
        config.curve,
        curve_power=config.curve_power,
        confidence_temperature=config.confidence_temperature,
        sampling_temperature=config.sampling_temperature,
        guidance_scale=config.guidance_scale,
        convention=config.convention,
    )


def inline_base_schedule(config: DecisionsConfig, horizon: int) -> DecisionsConfig:
    """The settings with the values of their schedule file in place of its name.

    What is trained, resumed and exported must not change when that file does.
    """
    if config.base.file is None or config.base.values is not None:
        return config
    rows = base_schedule(config.base, horizon).tolist()
    base = config.base.model_copy(update={"file": None, "values": tuple(map(tuple, rows))})
    return config.model_copy(update={"base": base})
