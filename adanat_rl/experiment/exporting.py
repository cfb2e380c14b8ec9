"""Policies out of checkpoints, without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.checkpoints import DamagedCheckpointError, Snapshot, checkpoint_folders, read_snapshot
from adanat_rl.experiment.run_folder import RunFolder
from adanat_rl.experiment.same_run import changed_settings
from adanat_rl.generation.build import build_generator
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.policies.files import ExportedPolicy, hash_generator, save_policy

_ACTOR_PREFIX = "average.actor."


def exported_policy(
    config: ExperimentConfig, spec: PolicySpec, learner: Mapping[str, Tensor], state: Mapping[str, Any]
) -> ExportedPolicy:
    """The exported form of a learner's state.

    Args:
        learner: what `training_state` of the algorithm gave.
        state: the numbers of the checkpoint: iteration, num_trajectories, num_passes.
    """
    trained = {
        "run": config.name,
        "dataset": config.data.name,
        "seed": config.seed,
        "reward": config.reward.kind,
        "iterations": state["iteration"],
        "trajectories": state["num_trajectories"],
        "nat_passes": state["num_passes"],
    }
    return ExportedPolicy(
        averaged_actor(spec, learner),
        spec,
        config.generator,
        config.decisions,
        trained,
        hash_generator(config.generator),
    )


def averaged_actor(spec: PolicySpec, learner: Mapping[str, Tensor]) -> nn.Module:
    """The actor that is evaluated and exported, out of a learner's state."""
    actor = spec.build_actor()
    actor.load_state_dict(
        {name.removeprefix(_ACTOR_PREFIX): value for name, value in learner.items() if name.startswith(_ACTOR_PREFIX)}
    )
    return actor.eval()


def export_from_checkpoint(folder: RunFolder, iteration: int | None, output: Path) -> int:
    """Writes the policy of a checkpoint; returns its iteration.

    Args:
        iteration: which checkpoint; None for the newest that is not damaged.

    Raises:
        UserError: no such run or checkpoint, it is damaged, or the saved settings are not those that it was made with.
    """
    config = folder.saved_config()
    snapshot = _read(folder, iteration)
    changed = changed_settings(config, snapshot.state, folder.changes_file)
    if changed:
        raise UserError(
            f"{folder.config_file} was changed after checkpoint {snapshot.iteration} was made: {changed[0]}"
        )
    spec = PolicySpec.of(config.policy, build_generator(config))
    try:
        policy = exported_policy(config, spec, snapshot.tensors["learner"], snapshot.state)
    except RuntimeError as error:  # torch's word for other names or shapes
        reason = reason_of(error)[:200]
        raise UserError(f"checkpoint {snapshot.iteration} does not fit {folder.config_file}: {reason}") from None
    save_policy(output, policy)
    return snapshot.iteration


def _read(folder: RunFolder, iteration: int | None) -> Snapshot:
    found = checkpoint_folders(folder.checkpoints)
    if not found:
        raise UserError(f"{folder.path} has no checkpoint yet")
    if iteration is not None:
        found = {number: path for number, path in found.items() if number == iteration}
        if not found:
            have = ", ".join(map(str, checkpoint_folders(folder.checkpoints)))
            raise UserError(f"--iteration: {iteration} has no checkpoint; accepted: {have}")
    problem = ""
    for path in reversed(found.values()):
        try:
            return read_snapshot(path)
        except DamagedCheckpointError as error:
            problem = problem or str(error)
    raise UserError(f"checkpoint damaged: {problem}")
