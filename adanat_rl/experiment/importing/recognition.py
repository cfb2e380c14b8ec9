"""Recognises what a checkpoint is by the names of its tensors, and takes its parts out of what lies around them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.experiment.importing.reading import ForeignFile

Kind = Literal["nat", "tokenizer", "policy", "image_reward", "dino", "inception", "aesthetic", "statistics"]
KINDS: tuple[Kind, ...] = get_args(Kind)

ACTOR, CRITIC, DISCRIMINATOR = "actor", "critic", "discriminator"
_POLICY = {ACTOR: "policy.actor.", CRITIC: "policy.critic."}
_OLD_POLICY = "policy_old."
_WRAPPERS = ("state_dict", "model_state_dict", "teacher", "model", "module", "ema", "nnet_ema", "params")
_PREFIXES = ("module.", "_orig_mod.")
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
    """

    kind: Kind
    parts: Mapping[str, dict[str, Tensor]]
    counters: Mapping[str, int | float | str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict of a checkpoint that has one."""
        return self.parts[""]


def recognise(file: ForeignFile, kind: Kind | None = None) -> Checkpoint:
    """What a file is.

    Args:
        kind: takes the place of what its names say.

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
    policy = _policy_parts(content)
    if policy is not None and kind in (None, "policy"):
        return policy
    state, left_out = _tensors(file)
    found = kind or _kind_of(state)
    if found is None:
        raise UserError(
            f"{file.path} is not recognised: its {len(state)} tensors begin with {_few(state)}; known are "
            f"{', '.join(KINDS)}; --kind says which one it is"
        )
    if found == "statistics":
        raise UserError(f"{file.path} holds tensors, Fréchet statistics are an .npz with mu and sigma")
    if found == "policy":
        return Checkpoint("policy", {ACTOR: state}, left_out=left_out)
    if found == "dino":
        state, left_out = _backbone(state, left_out)
    return Checkpoint(found, {"": state}, left_out=left_out)


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


def _policy_parts(content: Mapping[str, Any]) -> Checkpoint | None:
    """The networks of a training checkpoint; None if it is none."""
    model = content.get("model") if isinstance(content.get("model"), Mapping) else content
    state = _stripped(_only_tensors(model))
    if not any(name.startswith(_POLICY[ACTOR]) for name in state):
        return None
    parts = {part: _below(state, prefix) for part, prefix in _POLICY.items()}
    parts = {part: tensors for part, tensors in parts.items() if tensors}
    left_out = [*_left_of_the_model(state)]
    if model is not content:
        if isinstance(content.get(DISCRIMINATOR), Mapping):
            parts[DISCRIMINATOR] = _stripped(_only_tensors(content[DISCRIMINATOR]))
        optimizers = [name for name in content if name.endswith(_OPTIMIZERS)]
        if optimizers:
            left_out.append(
                f"{', '.join(optimizers)}: Adam's moments belong to the order of parameters of the program that wrote "
                "them; a training here starts its own"
            )
    counters = {key: value for key, value in content.items() if isinstance(value, int | float | str)}
    known = {"model", DISCRIMINATOR, *counters} | {name for name in content if name.endswith(_OPTIMIZERS)}
    others = [] if model is content else sorted(content.keys() - known)
    if others:
        left_out.append(f"{', '.join(others)}: not known")
    return Checkpoint("policy", parts, counters, tuple(left_out))


def _left_of_the_model(state: Mapping[str, Tensor]) -> list[str]:
    """What a policy's model holds beside actor and critic."""
    lines = []
    old = _below(state, _OLD_POLICY)
    if old:
        new = _below(state, "policy.")
        same = old.keys() == new.keys() and all(torch.equal(value, new[name]) for name, value in old.items())
        lines.append(
            f"{_OLD_POLICY}*: {'a copy of policy.*' if same else 'differs from policy.*, which is what is taken'}"
        )
    others = [name for name in state if not name.startswith((*_POLICY.values(), _OLD_POLICY))]
    if others:
        lines.append(f"{_few(others)}: neither actor nor critic")
    return lines


def _tensors(file: ForeignFile) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in a file, out of at most two wrappers."""
    content, where, left_out = file.content, "", []
    for _ in range(2):
        tensors = _only_tensors(content)
        if tensors:
            break
        key = next((name for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if key is None:
            raise UserError(f"{file.path} holds no tensors{where}; found: {_few(content)}")
        others = sorted(name for name in content if name != key)
        if others:
            left_out.append(f"{', '.join(others)}: beside {key}, which holds the weights")
        content, where = {str(name): value for name, value in content[key].items()}, f" in {key}"
    tensors = _only_tensors(content)
    if not tensors:
        raise UserError(f"{file.path} holds no tensors{where}; found: {_few(content)}")
    others = sorted(content.keys() - tensors.keys())
    if others:
        left_out.append(f"{_few(others)}: no tensors")
    return _stripped(tensors), tuple(left_out)


def _backbone(state: dict[str, Tensor], left_out: tuple[str, ...]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """DINO's full checkpoints have a head for its loss beside the backbone."""
    backbone = _below(state, "backbone.")
    if not backbone:
        return state, left_out
    others = [name for name in state if not name.startswith("backbone.")]
    if others:
        left_out = (*left_out, f"{_few(others)}: the head of DINO's own loss")
    return backbone, left_out


def _only_tensors(content: Any) -> dict[str, Tensor]:
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _stripped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that data-parallel and compiled modules put before every name."""
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = _below(state, prefix)
    return state


def _few(names: Collection[str]) -> str:
    shown = list(names)[:5]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
