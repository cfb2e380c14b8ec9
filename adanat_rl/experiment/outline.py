"""The networks of a configuration without their weights: built on the meta device from what their files say, or, where
files are still missing, from what is expected of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import DecisionsConfig, ExperimentConfig, GeneratorConfig
from adanat_rl.experiment.expected import Source, amused_settings, expected_network, read_header
from adanat_rl.generation.build import NAT_CLASSES, TOKENIZER_CLASSES, amused_folder, build_decision_space
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.schedules import GUIDANCE_SCALE
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.precision import weight_dtype
from adanat_rl.generation.text.table import MANIFEST, table_info
from adanat_rl.generation.weight_header import lay_out, network_arguments

META = torch.device("meta")
_CLIP_LENGTH = 77
_MASK_TOKEN_ID = 8255  # of aMUSEd's scheduler
_MIB = 2**20


class UnknownNetworkError(UserError):
    """A file is missing of which nothing is known beforehand."""


@dataclass(frozen=True)
class Outline:
    """A generator without weights.

    Args:
        nat, tokenizer: on the meta device, frozen, the NAT in its dtype.
        nat_source, tokenizer_source: where their shapes are known from.
        space: decisions. policy: numbers of actor and critic.
        num_contexts: classes, or captions of the table; None where that table is missing.
        text_shape: S, C of one caption's embedding; None for class labels.
        first_step_bytes: of the all-masked step that each process keeps. keeps_contexts: for all class labels.
    """

    nat: Any
    tokenizer: Any
    nat_source: Source
    tokenizer_source: Source
    space: DecisionSpace
    policy: PolicySpec
    num_contexts: int | None
    text_shape: tuple[int, int] | None
    first_step_bytes: int
    keeps_contexts: bool

    @property
    def length(self) -> int:
        """L."""
        return int(self.tokenizer.grid_size**2)

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.tokenizer.vocab_size)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        return self.tokenizer.image_channels, self.tokenizer.image_size, self.tokenizer.image_size

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """Smallest type that holds every token and the mask."""
        return np.dtype(np.min_scalar_type(self.vocab_size))

    @property
    def passes_per_image(self) -> int:
        """NAT passes of one image at most: conditional ones, and unconditional ones where guidance can be wanted."""
        first = 0 if self.keeps_contexts else 1
        return first + sum(1 + self._may_be_guided(step) for step in range(1, self.space.horizon))

    @property
    def feature_passes_per_image(self) -> int:
        """Passes of a learner that computes the features of a trajectory again."""
        return self.space.horizon - (1 if self.keeps_contexts else 0)

    def _may_be_guided(self, step: int) -> bool:
        learned = self.space.names[GUIDANCE_SCALE] in self.space.learned
        return learned or bool(self.space.base_schedule[step, GUIDANCE_SCALE] != 0)

    def tokens(self, rows: int) -> Tensor:
        """Tokens `[rows, L]` without content."""
        return torch.empty(rows, self.length, dtype=torch.long, device=META)

    def context(self, rows: int) -> Tensor:
        """What the NAT takes as contexts of `rows` images, without content."""
        if self.text_shape is None:
            return torch.empty(rows, dtype=torch.long, device=META)
        return torch.empty(rows, *self.text_shape, dtype=next(self.nat.parameters()).dtype, device=META)

    def features(self, rows: int) -> Tensor:
        """Features `[rows, L, D]` float32 without content."""
        return torch.empty(rows, self.length, self.nat.width, device=META)


def outline_of(config: ExperimentConfig) -> Outline:
    """Builds it; no weights are read.

    Raises:
        UnknownNetworkError: a file is missing, and nothing says what will be in it.
        UserError: a file is damaged, or the networks do not fit each other.
    """
    generator = config.generator
    nat, nat_source = _nat(config)
    tokenizer, tokenizer_source = _tokenizer(config)
    if (nat.vocab_size, nat.grid_size) != (tokenizer.vocab_size, tokenizer.grid_size):
        raise UserError(
            f"generator.nat: {generator.nat} predicts {nat.vocab_size} codes on a {nat.grid_size}×{nat.grid_size} "
            f"grid, but the tokenizer has {tokenizer.vocab_size} on {tokenizer.grid_size}×{tokenizer.grid_size}"
        )
    space = build_decision_space(_known_decisions(config), generator.horizon)
    length, width = tokenizer.grid_size**2, nat.width
    num_contexts, text_shape = _contexts(generator, nat)
    row_bytes = 4 * length * (nat.vocab_size + width)
    keeps = text_shape is None and row_bytes * ((num_contexts or 0) + 1) <= generator.first_step_mb * _MIB
    policy = PolicySpec(
        kind=config.policy.kind,
        hidden_size=config.policy.hidden_size,
        horizon=generator.horizon,
        num_classes=num_contexts or 1,
        num_actions=space.num_actions,
        feature_length=length,
        feature_width=width,
    )
    return Outline(
        nat.to(weight_dtype(generator.precision)),
        tokenizer,
        nat_source,
        tokenizer_source,
        space,
        policy,
        num_contexts,
        text_shape,
        row_bytes * ((num_contexts or 0) + 1 if keeps else 1),
        keeps,
    )


def _known_decisions(config: ExperimentConfig) -> DecisionsConfig:
    """Those of the configuration, around the formula where the file of the base schedule is missing."""
    base = config.decisions.base
    if base.file is None or Path(base.file).expanduser().is_file():
        return config.decisions
    return config.decisions.model_copy(update={"base": base.model_copy(update={"file": None})})


def on_meta(cls: Any, *args: Any, frozen: bool = True, **kwargs: Any) -> Any:
    """A network of a class, without memory for its weights."""
    with META:
        network: nn.Module = cls(*args, **kwargs)
    network = network.to(META)
    return network.requires_grad_(False).eval() if frozen else network


def network_of(name: str, key: str, classes: Mapping[str, type[nn.Module]]) -> tuple[Any, Source]:
    """The network of a weight file, or of one that is expected there, and which of the two it is.

    Args:
        name: as the setting has it. key: of the setting. classes: which kinds are accepted, and their classes.

    Raises:
        UnknownNetworkError: it is missing, and nothing says what will be in it.
        UserError: it is damaged or of another kind.
    """
    header = read_header(name, key)
    if header is None:
        expected = expected_network(name)
        if expected is None:
            raise UnknownNetworkError(f"{key}: {name} is missing, and nothing is known of it beforehand")
        if expected.kind not in classes:
            raise UserError(f"{key}: {name} will hold: {expected.kind}; accepted here: {', '.join(classes)}")
        return on_meta(classes[expected.kind], **expected.arguments), "expected"
    path = resolve_path(name, key)
    arguments = network_arguments(path, header, classes)
    cls, kind = classes[header.kind or ""], header.kind or ""
    network = lay_out(lambda: cls(**arguments), path, kind, header.tensors, header.metadata.get("stored_as"))
    return network.to(META).requires_grad_(False).eval(), "its file"


def _nat(config: ExperimentConfig) -> tuple[Any, Source]:
    if config.generator.kind == "amused":
        return _amused_nat(config)
    return network_of(config.generator.nat, "generator.nat", NAT_CLASSES)


def _tokenizer(config: ExperimentConfig) -> tuple[Any, Source]:
    if config.generator.kind == "amused":
        return _amused_tokenizer(config)
    return network_of(config.generator.tokenizer, "generator.tokenizer", TOKENIZER_CLASSES)


def _amused_nat(config: ExperimentConfig) -> tuple[Any, Source]:
    from adanat_rl.generation.masked.amused import AmusedNAT
    from adanat_rl.generation.masked.amused_folder import mask_token_of

    image_size = config.data.image_size
    settings, source = amused_settings(config.generator.nat, "transformer", image_size)
    transformer = _diffusers_network("UVit2DModel", settings)
    folder = amused_folder(Path(config.generator.nat).expanduser())
    mask_token_id = mask_token_of(folder) if source == "its file" else _MASK_TOKEN_ID
    return _amused_part(AmusedNAT, f"{folder}/transformer", transformer, mask_token_id, image_size), source


def _amused_tokenizer(config: ExperimentConfig) -> tuple[Any, Source]:
    from adanat_rl.generation.masked.amused import AmusedTokenizer

    image_size = config.data.image_size
    settings, source = amused_settings(config.generator.tokenizer, "vqvae", image_size)
    grid_size = amused_settings(config.generator.nat, "transformer", image_size)[0]["sample_size"]
    folder = amused_folder(Path(config.generator.tokenizer).expanduser())
    vqvae = _diffusers_network("VQModel", settings)
    return _amused_part(AmusedTokenizer, f"{folder}/vqvae", vqvae, grid_size), source


def _amused_part(cls: Any, name: str, *args: Any) -> Any:
    try:
        return on_meta(cls, *args)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def _diffusers_network(class_name: str, settings: Mapping[str, Any]) -> Any:
    try:
        import diffusers
    except ImportError:
        raise UserError("aMUSEd needs diffusers: pip install 'adanat-rl[diffusers]'") from None
    return on_meta(getattr(diffusers, class_name).from_config, dict(settings))


def _contexts(generator: GeneratorConfig, nat: Any) -> tuple[int | None, tuple[int, int] | None]:
    """How many contexts there are, and the shape of a caption's embedding as the NAT takes it."""
    num_classes = getattr(nat, "num_classes", None)
    if num_classes is not None:
        return num_classes, None
    folder = Path(generator.captions or "").expanduser()
    extra = 1 if generator.kind == "amused" else 0  # the pooled embedding
    if generator.captions is None or not (folder / MANIFEST).is_file():
        return None, (_CLIP_LENGTH + extra, nat.text_width)
    info = table_info(folder)
    return info.num_captions, (info.length + extra, info.width)
