"""The trained assets of a small data set: the policy of a finished run, and its discriminator as a fixed reward.

make demo && python -m benchmarks.ship_assets runs/digits
make demo-mnist && python -m benchmarks.ship_assets runs/mnist
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from adanat_rl.config.files import write_atomically
from adanat_rl.config.paths import ASSET_PREFIX, assets_folder
from adanat_rl.evaluation.comparison import panel_sentences
from adanat_rl.experiment.checkpoints import checkpoint_folders, read_snapshot
from adanat_rl.experiment.exporting import export_from_checkpoint
from adanat_rl.experiment.gymnasium_envs import discriminator_asset
from adanat_rl.experiment.run_folder import RunFolder
from adanat_rl.generation.weights import fit_state, save_network
from adanat_rl.rewards.discriminator import PatchDiscriminator

_PREFIX = "discriminator."
TITLES = {"digits": "the digits", "mnist": "MNIST"}
TARGETS = {"digits": "demo", "mnist": "demo-mnist"}


def ship_policy(folder: RunFolder, target: Path) -> None:
    """Writes the exported policy and a card that says where it comes from."""
    iteration = export_from_checkpoint(folder, None, target)
    summary = json.loads(folder.summary_file.read_text())
    config = folder.saved_config()
    comparison = json.loads(folder.evaluation_file.read_text())
    card = [
        f"# Model card: the trained policy of {TITLES[config.data.name]}",
        "",
        f"Made by `make {TARGETS[config.data.name]}` (seed {config.seed}, {iteration} iterations of "
        f"{config.training.trajectories_per_iteration} trajectories); `../discriminator.safetensors` is the "
        "discriminator that judged it last, frozen: the reward of the registered environments.",
        "",
        f"**What came out**, {config.evaluation.num_images} images × {config.evaluation.num_seeds} seeds:",
        "",
        *(f"- {sentence}" for sentence in [*panel_sentences(comparison), summary["verdict"]]),
        "",
        "**Licence**: Apache-2.0. **Use**: trying the platform.",
        "",
    ]
    write_atomically(target / "MODEL_CARD.md", "\n".join(card))


def ship_discriminator(folder: RunFolder, target: Path) -> None:
    """Writes the discriminator of the newest checkpoint."""
    found = checkpoint_folders(folder.checkpoints)
    snapshot = read_snapshot(found[max(found)])
    tensors = snapshot.tensors["reward"]
    own = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
    settings = folder.saved_config().reward.adversarial
    arguments = {"num_classes": len(own["class_projection.weight"]), "channels": settings.channels}
    if settings.first_stride != 1:
        arguments["first_stride"] = settings.first_stride
    discriminator = PatchDiscriminator(**arguments)
    fit_state(discriminator, own, target)
    save_network(target, "patch_discriminator", arguments, discriminator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    folder = RunFolder(parser.parse_args().run_dir)
    dataset = folder.saved_config().data.name
    ship_policy(folder, assets_folder() / dataset / "policy")
    ship_discriminator(folder, assets_folder() / discriminator_asset(dataset).removeprefix(ASSET_PREFIX))


if __name__ == "__main__":
    main()
