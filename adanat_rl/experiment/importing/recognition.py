"""Recognises what a checkpoint is by the names of its tensors, and takes its parts out of what lies around them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.experiment.importing.averaging import (
    Weights,
    below,
    choose,
    find_weights,
    only_tensors,
    others_of,
    stripped,
)
from adanat_rl.experiment.importing.reading import ForeignFile

Kind = Literal["nat", "tokenizer", "policy", "image_reward", "dino", "inception", "aesthetic", "statistics"]
KINDS: tuple[Kind, ...] = get_args(Kind)

ACTOR, CRITIC, DISCRIMINATOR = "actor", "critic", "discriminator"
_POLICY = {ACTOR: "policy.actor.", CRITIC: "policy.critic."}
_OLD_POLICY = "policy_old."
_OPTIMIZERS = "optimizer"

# What only a network of this kind has
_MARKS: dict[Kind, tuple[str, ...]] = {
    "nat": ("token_emb.word_embeddings.weight", "mlm_layer.bias"),
    "tokenizer": ("quantize.embedding.weight", "encoder.conv_in.weight", "decoder.conv_in.weight"),
    "policy": ("t_embedder.mlp.0.weight", "dw_conv.weight", "linear3.weight"),
    "image_reward": ("blip.visual_encoder.cls_token", "mlp.layers.0.weight"),
    "dino": ("cls_token", "pos_embed", "patch_embed.proj.weight"),
    "inception": ("Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.conv.weight"),
    "aesthetic": ("layers.0.weight", "layers.2.weight", "layers.4.weight", "layers.6.weight", "layers.7.weight"),
}


@dataclass(frozen=True)
class Checkpoint:
    """A recognised checkpoint.

    Args:
        kind: what it is.
        parts: its state dicts, one named "" or, of a policy, its networks.
        counters: numbers and words that lie beside the weights.
        left_out: what is not taken over, and why, one line each.
        taken: where in the file the weights lay, in a few words; "" where there was nothing to choose.
    """

    kind: Kind
    parts: Mapping[str, dict[str, Tensor]]
    counters: Mapping[str, int | float | str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    taken: str = ""

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict of a checkpoint that has one."""
        return self.parts[""]


def recognise(file: ForeignFile, kind: Kind | None = None, weights: str | None = None) -> Checkpoint:
    """What a file is.

    Args:
        kind: takes the place of what its names say.
        weights: which of several sets of weights is taken, see `averaging.choose`.

    Raises:
        UserError: it is nothing known, or a file of this product.
    """
    content = file.content
    if str(file.metadata.get("format", "")).startswith("adanat-rl"):
        raise UserError(f"{file.path} is a file of adanat-rl already (kind {file.metadata.get('kind')}); --verify it")
    if not any(isinstance(value, Tensor | Mapping) for value in content.values()):
        if kind in (None, "statistics") and {"mu", "sigma"} <= content.keys():
            return Checkpoint("statistics", {})
        raise UserError(
            f"{file.path} holds no tensors; found: {_few(content)}; of arrays, Fréchet statistics are known (mu, sigma)"
        )
    policy = _policy_parts(file, weights)
    if policy is not None and kind in (None, "policy"):
        return policy
    taken, left_out = _tensors(file, weights)
    state = taken.state
    found = kind or _kind_of(state)
    if found is None:
        raise UserError(
            f"{file.path} is not recognised: its {len(state)} tensors begin with {_few(state)}; known are "
            f"{', '.join(KINDS)}; --kind says which one it is"
        )
    if found == "statistics":
        raise UserError(f"{file.path} holds tensors, Fréchet statistics are an .npz with mu and sigma")
    if found == "policy":
        return Checkpoint("policy", {ACTOR: state}, left_out=left_out, taken=_described(taken))
    if found == "dino":
        state, left_out = _backbone(state, left_out)
    return Checkpoint(found, {"": state}, left_out=left_out, taken=_described(taken))


def _described(taken: Weights) -> str:
    """Which weights of a file are taken, in a few words; "" where there was nothing to choose."""
    if not taken.place:
        return ""
    return f"{taken.place}{' (averaged over training)' if taken.is_averaged else ''}"


def known_kind(name: str) -> Kind:
    """A kind by its name.

    Raises:
        UserError: there is no such kind.
    """
    for kind in KINDS:
        if name == kind:
            return kind
    raise UserError(f"--kind: {name!r} is not accepted; accepted: {', '.join(KINDS)}{nearest(name, KINDS)}")


def _kind_of(state: Mapping[str, Tensor]) -> Kind | None:
    names = {name.removeprefix("backbone.") for name in state}
    return next((kind for kind, marks in _MARKS.items() if names.issuperset(marks)), None)


def _policy_parts(file: ForeignFile, weights: str | None) -> Checkpoint | None:
    """The networks of a training checkpoint; None if it is none."""
    content = file.content

    def has_actor(one: Weights) -> bool:
        return any(name.startswith(_POLICY[ACTOR]) for name in one.state)

    found = find_weights(content)
    if not any(map(has_actor, found)):
        return None
    taken = choose(found, weights, has_actor, file.path)
    state = taken.state
    parts = {part: below(state, prefix) for part, prefix in _POLICY.items()}
    parts = {part: tensors for part, tensors in parts.items() if tensors}
    if ACTOR not in parts:
        raise UserError(f"--weights: {taken.place} of {file.path} holds no actor")
    left_out = [*_left_of_the_model(state), *others_of(found, taken)]
    whole = not taken.place
    if not whole:
        if isinstance(content.get(DISCRIMINATOR), Mapping):
            parts[DISCRIMINATOR] = stripped(only_tensors(content[DISCRIMINATOR]))
        optimizers = [name for name in content if name.endswith(_OPTIMIZERS)]
        if optimizers:
            left_out.append(
                f"{', '.join(optimizers)}: Adam's moments belong to the order of parameters of the program that wrote "
                "them; a training here starts its own"
            )
    counters = {key: value for key, value in content.items() if isinstance(value, int | float | str)}
    known = {one.place.split(".")[0] for one in found} | {DISCRIMINATOR, *counters}
    known |= {name for name in content if name.endswith(_OPTIMIZERS)}
    others = [] if whole else sorted(content.keys() - known)
    if others:
        left_out.append(f"{', '.join(others)}: not known")
    return Checkpoint("policy", parts, counters, tuple(left_out), _described(taken))


def _left_of_the_model(state: Mapping[str, Tensor]) -> list[str]:
    """What a policy's model holds beside actor and critic."""
    lines = []
    old = below(state, _OLD_POLICY)
    if old:
        new = below(state, "policy.")
        same = old.keys() == new.keys() and all(torch.equal(value, new[name]) for name, value in old.items())
        lines.append(
            f"{_OLD_POLICY}*: {'a copy of policy.*' if same else 'differs from policy.*, which is what is taken'}"
        )
    others = [name for name in state if not name.startswith((*_POLICY.values(), _OLD_POLICY))]
    if others:
        lines.append(f"{_few(others)}: neither actor nor critic")
    return lines


def _tensors(file: ForeignFile, weights: str | None) -> tuple[Weights, tuple[str, ...]]:
    """The state dict of a file, and what lies beside it."""
    content = file.content
    found = find_weights(content)
    if not found:
        inner = next((name for name, value in content.items() if isinstance(value, Mapping)), None)
        where, shown = ("", content) if inner is None else (f" in {inner}", content[inner])
        raise UserError(f"{file.path} holds no tensors{where}; found: {_few([str(name) for name in shown])}")
    taken = choose(found, weights, lambda one: _kind_of(one.state) is not None, file.path)
    left_out = others_of(found, taken)
    said = {line.partition(":")[0].split(".")[0] for line in left_out}
    keys = taken.place.split(".")[0] if taken.place else None
    if keys is not None:
        others = sorted(name for name in content if name != keys and name not in said)
        if others:
            left_out.append(f"{', '.join(others)}: beside {taken.place}, which holds the weights")
    else:
        others = sorted(name for name, value in content.items() if not isinstance(value, Tensor) and name not in said)
        if others:
            left_out.append(f"{_few(others)}: no tensors")
    return taken, tuple(left_out)


def _backbone(state: dict[str, Tensor], left_out: tuple[str, ...]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """DINO's full checkpoints have a head for its loss beside the backbone."""
    backbone = below(state, "backbone.")
    if not backbone:
        return state, left_out
    others = [name for name in state if not name.startswith("backbone.")]
    if others:
        left_out = (*left_out, f"{_few(others)}: the head of DINO's own loss")
    return backbone, left_out


def _few(names: Collection[str]) -> str:
    shown = list(names)[:5]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
