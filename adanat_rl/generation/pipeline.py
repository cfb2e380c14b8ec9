"""The pipeline that users load: an exported policy and its generator, without Ray and without MLflow.

pipeline = adanat_rl.load_pipeline("runs/digits/policy")
images = pipeline(context=[3, 3, 7], seeds=[0, 1, 2]).images
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.paths import ASSET_PREFIX, asset_names, assets_folder
from adanat_rl.config.problems import one_line
from adanat_rl.config.schema import GeneratorConfig, PolicyConfig, TextConfig
from adanat_rl.generation.build import assemble_generator
from adanat_rl.generation.devices import check_device
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import ActorPolicy, GenerationPolicy, draw
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.policies.files import DESCRIPTION_FILE, ExportedPolicy, check_generator_fits, load_policy
from adanat_rl.generation.text.build import encode_prompts

_POLICY_FILE = f"/policy/{DESCRIPTION_FILE}"
DEFAULT_POLICY = "asset:digits/policy"
RUNTIME_SETTINGS = (
    "nat",
    "tokenizer",
    "captions",
    "precision",
    "compile",
    "first_step_mb",
    "decode_precision",
    "decode_rows",
    "block_rows",
)
"""Settings of a generator that say where its files lie and how it computes, not what it draws."""


@dataclass(frozen=True)
class PipelineOutput:
    """Finished images and how they came about.

    Args:
        images: uint8 `[B, H, W, C]`. decisions: float32 `[B, T, K]`. tokens: int64 `[B, L]`, the finished samples.
        num_passes: int64 `[B]`, NAT passes of each image. steps: uint8 `[B, T, H, W, C]`, or None unless asked for.
    """

    images: np.ndarray
    decisions: np.ndarray
    tokens: np.ndarray
    num_passes: np.ndarray
    steps: np.ndarray | None = None


class GenerationPipeline:
    """Draws images for contexts and seeds; an image depends on its own context and seed, not on its batch mates.

    Args:
        generator: frozen. policy: decides. batch_size: images drawn at once.
    """

    def __init__(self, generator: Generator, policy: GenerationPolicy, batch_size: int = 256) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size: {batch_size!r} is not accepted: expected a whole number from 1")
        self.generator = generator
        self.policy = policy
        self.batch_size = batch_size

    def __call__(
        self,
        context: Sequence[int] | np.ndarray,
        seeds: Sequence[int] | np.ndarray | None = None,
        *,
        keep_steps: bool = False,
    ) -> PipelineOutput:
        """Draws one image per context.

        Args:
            context: labels `[B]`.
            seeds: one integer per image; 0, 1, 2, … by default.
            keep_steps: whether the half-drawn images are returned too.

        Raises:
            UserError: no contexts, labels out of range, or another number of seeds than of contexts.
        """
        labels = _array(context)
        numbers = np.arange(len(labels)) if seeds is None else _array(seeds)
        self._check(labels, numbers)
        parts = []
        for start in range(0, len(labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            parts.append(self._draw(labels[rows], numbers[rows], keep_steps))
        return PipelineOutput(
            images=np.concatenate([part.images for part in parts]),
            decisions=np.concatenate([part.decisions for part in parts]),
            tokens=np.concatenate([part.tokens for part in parts]),
            num_passes=np.concatenate([part.num_passes for part in parts]),
            steps=np.concatenate([part.steps for part in parts if part.steps is not None]) if keep_steps else None,
        )

    def _draw(self, labels: np.ndarray, seeds: np.ndarray, keep_steps: bool) -> PipelineOutput:
        device = self.generator.device
        noise = ImageNoise(torch.from_numpy(seeds.astype(np.int64)).to(device))
        context = torch.from_numpy(labels.astype(np.int64)).to(device)
        drawing = draw(self.generator, self.policy, context, noise, keep_steps=keep_steps)
        steps = None
        if drawing.steps is not None:
            flat = self.generator.decode(drawing.steps.flatten(0, 1))
            steps = _to_uint8(flat).reshape(len(labels), self.generator.horizon, *_to_uint8(flat).shape[1:])
        return PipelineOutput(
            images=_to_uint8(self.generator.decode(drawing.sample)),
            decisions=drawing.decisions.cpu().numpy(),
            tokens=drawing.sample.cpu().numpy(),
            num_passes=drawing.num_passes.cpu().numpy(),
            steps=steps,
        )

    def _check(self, labels: np.ndarray, seeds: np.ndarray) -> None:
        num_classes = self.generator.context_spec.num_contexts
        if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "iu":
            raise UserError(f"context: expected a list of labels 0 … {num_classes - 1}, found {_described(labels)}")
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong):
            raise UserError(f"context: {wrong[0]} is no label; accepted: 0 … {num_classes - 1}")
        if seeds.shape != labels.shape or seeds.dtype.kind not in "iu":
            raise UserError(f"seeds: expected {len(labels)} integers, one per context, found {_described(seeds)}")


def load_pipeline(
    policy: str | Path = DEFAULT_POLICY,
    *,
    nat: str | None = None,
    tokenizer: str | None = None,
    settings: Mapping[str, Any] | None = None,
    prompts: Sequence[str] | None = None,
    text: TextConfig | None = None,
    device: str = "cpu",
    batch_size: int = 256,
) -> GenerationPipeline:
    """Loads an exported policy and the generator it was trained for.

    Args:
        policy: the folder, a run folder, or an asset that ships with the package, by its name or that of its data set
            ("mnist").
        nat, tokenizer: where the generator's weights lie, if not where they lay in training.
        settings: those of `RUNTIME_SETTINGS` by name, in place of what the policy was trained with.
        prompts: captions of your own for a text-conditional generator; contexts are their numbers then.
        text: how prompts are encoded.
        device: torch device of all networks.
        batch_size: images drawn at once.

    Raises:
        UserError: something is missing, damaged, or does not fit.
    """
    place = check_device(device)
    folder = policy_folder(policy)
    if not folder.exists():
        names = sorted(name.removesuffix(_POLICY_FILE) for name in asset_names() if name.endswith(_POLICY_FILE))
        raise UserError(
            f"policy: no such folder: {policy}; give the folder of an exported policy, a run folder, or what ships: "
            f"{', '.join(names)}{nearest(str(policy), names)}"
        )
    exported = load_policy(folder)
    given = {"nat": nat, "tokenizer": tokenizer}
    changes = {**(settings or {}), **{key: value for key, value in given.items() if value is not None}}
    exported = _with_generator(exported, changes)
    check_generator_fits(exported, exported.generator)
    captions = None
    if prompts is not None:
        if exported.generator.captions is None:
            raise UserError(f"prompts: the generator of {policy} draws class labels and takes no captions")
        captions = encode_prompts(prompts, text or TextConfig(), exported.generator, str(place))
    generator = assemble_generator(exported.generator, exported.decisions, str(place), captions)
    _check_spec(exported.spec, generator, folder)
    actor = ActorPolicy(exported.actor.to(place), generator.decision_space, exported.generator.block_rows)
    return GenerationPipeline(generator, actor, batch_size)


def policy_folder(policy: str | Path) -> Path:
    """The folder behind a path or asset name.

    A run folder stands for the policy in it, and the name of a data set, where no folder is called so, for the policy
    that ships for it.
    """
    name = str(policy)
    path = Path(name).expanduser()
    if name.startswith(ASSET_PREFIX):
        path = assets_folder() / name.removeprefix(ASSET_PREFIX)
    elif not os.path.lexists(path) and f"{ASSET_PREFIX}{name}{_POLICY_FILE}" in asset_names():
        path = assets_folder() / name
    return path / "policy" if (path / "policy" / DESCRIPTION_FILE).is_file() else path


def _check_spec(spec: PolicySpec, generator: Generator, folder: Path) -> None:
    """The numbers of a policy against the generator that its description names."""
    found = PolicySpec.of(PolicyConfig(kind=spec.kind), generator)
    pairs = [("policy.num_actions", spec.num_actions, found.num_actions)]
    if spec.kind == "per_class":
        pairs.append(("policy.num_classes", spec.num_classes, found.num_classes))
    if spec.needs_features:
        pairs.append(("policy.feature_length", spec.feature_length, found.feature_length))
        pairs.append(("policy.feature_width", spec.feature_width, found.feature_width))
    for name, ours, theirs in pairs:
        if ours != theirs:
            raise UserError(f"{folder / DESCRIPTION_FILE}: {name} is {ours}, but its generator has {theirs}")


def _with_generator(exported: ExportedPolicy, changes: Mapping[str, Any]) -> ExportedPolicy:
    if not changes:
        return exported
    fixed = [key for key in changes if key not in RUNTIME_SETTINGS]
    if fixed:
        own = getattr(exported.generator, fixed[0])
        raise UserError(
            f"generator.{fixed[0]}: the policy was trained with {own} and draws with nothing else; what may be set "
            f"beside a policy: {', '.join(RUNTIME_SETTINGS)}"
        )
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in changes.items()}
    try:
        generator = GeneratorConfig.model_validate({**exported.generator.model_dump(), **texts})
    except ValidationError as error:
        raise UserError(f"generator.{one_line(error, GeneratorConfig)}") from None
    return ExportedPolicy(
        exported.actor, exported.spec, generator, exported.decisions, exported.trained, exported.generator_hashes
    )


def _array(values: Any) -> np.ndarray:
    """Values as a vector; of what is no list of numbers, an array that no check accepts."""
    try:
        return np.atleast_1d(np.asarray(values))
    except (ValueError, TypeError, OverflowError, RuntimeError):  # rows of unequal lengths, tensors of a GPU
        return np.array([str(type(values).__name__)])


def _described(values: np.ndarray) -> str:
    return f"{values.dtype} {list(values.shape)}" if values.dtype.kind in "iufb" else "something else"


def _to_uint8(images: torch.Tensor) -> np.ndarray:
    """Float `[B, C, H, W]` in [0, 1] → uint8 `[B, H, W, C]`."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
