"""Policies of others: actor, critic and discriminator of a checkpoint as a policy folder, for a generator at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.importing.networks import ImportedNetwork, Plan, Shapes, build, root_of
from adanat_rl.experiment.importing.recognition import ACTOR, CRITIC, DISCRIMINATOR, Checkpoint
from adanat_rl.generation.build import NAT_CLASSES
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.policies.files import ExportedPolicy, hash_generator, save_policy
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.weight_header import network_arguments, read_header
from adanat_rl.generation.weights import save_network
from adanat_rl.rewards.projected.discriminator import (
    DISCRIMINATOR_KIND,
    ProjectedDiscriminator,
    convert_official_state,
)

POLICY_NETWORK_KIND = "policy_net"
CRITIC_FILE, DISCRIMINATOR_FILE = "critic.safetensors", "discriminator.safetensors"
_ADAGEN_PRESET = "adagen_maskgit"
_ADANAT_HORIZON = 8
_PRESET_BY_WIDTH = {768: "imagenet256", 1152: "cc3m"}


@dataclass(frozen=True)
class ImportedPolicy:
    """The networks of a policy checkpoint that fit a generator.

    Args:
        exported: what `save_policy` writes. networks: critic and discriminator, as far as they are there, by file.
        actor: the actor, for its notes.
    """

    exported: ExportedPolicy
    networks: Mapping[str, ImportedNetwork]
    actor: ImportedNetwork


def usual_settings(checkpoint: Checkpoint) -> tuple[str, int | None]:
    """Preset and horizon that a published policy was trained with; None: the preset's own horizon.

    A bare actor is AdaGen's, others are AdaNAT's, told apart by the width of their features.
    """
    if CRITIC not in checkpoint.parts:
        return _ADAGEN_PRESET, None
    embedder = checkpoint.parts[ACTOR].get("x_embedder.weight")
    width = embedder.shape[1] if embedder is not None and embedder.dim() == 2 else 0
    return _PRESET_BY_WIDTH.get(width, _PRESET_BY_WIDTH[768]), _ADANAT_HORIZON


def import_policy(
    checkpoint: Checkpoint, path: Path, config: ExperimentConfig, facts: Mapping[str, Any]
) -> ImportedPolicy:
    """Fits a checkpoint's networks to the generator of a configuration.

    Args:
        config: its sections `generator` and `decisions` are those that the policy was trained with.
        facts: about where it comes from; they go into `policy.json`.

    Raises:
        UserError: a network is incomplete or does not fit the NAT, or the NAT or tokenizer is missing.
    """
    if config.generator.kind != "masked_token":
        raise UserError(f"generator.kind: {config.generator.kind}: policies are imported for masked_token only")
    nat = _nat_arguments(resolve_path(config.generator.nat, "generator.nat"))
    grid_size, width = int(nat["grid_size"]), int(nat["width"])
    actor = policy_network(checkpoint.parts[ACTOR], path, ACTOR, grid_size)
    arguments = actor.arguments
    if arguments["in_channels"] != width:
        raise UserError(
            f"generator.nat: {config.generator.nat} has features of width {width}, "
            f"the actor of {path} takes {arguments['in_channels']}; give the NAT that it was trained with"
        )
    learned = config.decisions.learned
    if arguments["out_channels"] != len(learned):
        raise UserError(
            f"decisions.learned: {', '.join(learned)}: the actor of {path} makes {arguments['out_channels']}; "
            "policies of other generators (DiT, SiT, VAR) do not fit a masked-token one"
        )
    spec = PolicySpec(
        kind="adaptive",
        hidden_size=arguments["hidden_size"],
        horizon=config.generator.horizon,
        num_classes=int(nat.get("num_classes") or 0),
        num_actions=len(learned),
        feature_length=grid_size**2,
        feature_width=width,
    )
    networks = {}
    if CRITIC in checkpoint.parts:
        networks[CRITIC_FILE] = policy_network(checkpoint.parts[CRITIC], path, CRITIC, grid_size)
    if DISCRIMINATOR in checkpoint.parts:
        networks[DISCRIMINATOR_FILE] = discriminator_network(checkpoint.parts[DISCRIMINATOR], path)
    hashes = hash_generator(config.generator)
    exported = ExportedPolicy(actor.network, spec, config.generator, config.decisions, dict(facts), hashes)
    return ImportedPolicy(exported, networks, actor)


def write_policy(folder: Path, policy: ImportedPolicy) -> None:
    """Writes the folder: the policy, and its critic and discriminator beside it."""
    save_policy(folder, policy.exported)
    for name, network in policy.networks.items():
        save_network(folder / name, network.kind, network.arguments, network.network)


def policy_network(state: Mapping[str, Tensor], path: Path, what: str, grid_size: int) -> ImportedNetwork:
    """An actor or critic.

    Args:
        what: its name in messages. grid_size: of the NAT's tokens; no tensor tells an odd one from the next even one.

    Raises:
        UserError: it is incomplete, or belongs to another grid.
    """
    shape = Shapes(state, path)
    hidden_size = shape("dw_conv.weight", 4)[0]
    in_channels = shape("x_embedder.weight", 2)[1] if "x_embedder.weight" in state else hidden_size
    channels = shape("pw_conv.weight", 4)[0]
    side = root_of(shape("linear1.weight", 2)[1] // channels, "positions behind the convolutions", path)
    if side != -(-grid_size // 2):
        raise UserError(
            f"{path}: the {what} is made for {2 * side - 1} or {2 * side} tokens a side, the NAT has {grid_size}"
        )
    arguments = {
        "in_channels": in_channels,
        "out_channels": shape("linear3.weight", 2)[0],
        "hidden_size": hidden_size,
        "grid_size": grid_size,
    }
    return build(Plan(POLICY_NETWORK_KIND, arguments, PolicyNet, state), path, what)


def discriminator_network(state: Mapping[str, Tensor], path: Path) -> ImportedNetwork:
    """The trained part of a projected discriminator; DINO, which is frozen, is imported on its own.

    Raises:
        UserError: it is incomplete.
    """
    shape = Shapes(state, path)
    mapped = "mapping.embed.weight" in state
    arguments = {
        "condition_width": shape("heads.0.cmapper.weight", 2)[1] if "heads.0.cmapper.weight" in state else 0,
        "num_classes": shape("mapping.embed.weight", 2)[1] if mapped else None,
        "channels": shape("heads.0.main.0.0.weight_orig", 3)[0],
        "num_features": shape.count("heads.{}.cls.weight_orig"),
    }
    frozen = sum(name.startswith("dino.") for name in state)
    notes = (f"{frozen} tensors of the frozen DINO are left out: it is a file of its own",) if frozen else ()
    plan = Plan(DISCRIMINATOR_KIND, arguments, ProjectedDiscriminator, convert_official_state(state), notes)
    return build(plan, path, DISCRIMINATOR)


def _nat_arguments(path: Path) -> dict[str, Any]:
    """Constructor arguments of a NAT, from the header of its file."""
    try:
        return network_arguments(path, read_header(path), NAT_CLASSES)
    except UserError as error:
        raise UserError(f"generator.nat: {error}") from None
