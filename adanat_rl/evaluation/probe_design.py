"""Design of the adaptivity probe: how many images and finishes, at which places, and where its numbers lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adanat_rl.evaluation.probe_drawing import ProbeImages
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.seeding import Purpose, philox

_LEAST_PER_CLASS = 8  # with many classes only some are drawn, so that each has so many images
_FEWEST_PER_CLASS = 4  # of which one is held out when the others predict it
_IMAGES, BOOTSTRAP, FOLDS = range(3)  # last word of the random keys


@dataclass(frozen=True)
class ProbeDesign:
    """Size and places of the experiment.

    Args:
        num_images: half-drawn images, the same number of each class; rounded down to that.
        num_repeats: finishes of each image with each level. num_resamples: of the bootstrap.
        offsets: levels of a decision, in units of an action.
        steps, decisions: what is changed; None for every step and every learned decision. Pairs without effect are
            left out.
        seed: of everything that is drawn.
    """

    num_images: int = 320
    num_repeats: int = 8
    offsets: tuple[float, ...] = (-2.0, -1.0, 1.0, 2.0)
    steps: tuple[int, ...] | None = None
    decisions: tuple[str, ...] | None = None
    num_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_images < 2 or self.num_repeats < 3 or not self.offsets or 0 in self.offsets:
            raise ValueError(
                "a probe needs at least 2 images, 3 repeats and one offset, none of them 0; "
                f"got {self.num_images}, {self.num_repeats} and {self.offsets}"
            )

    def random(self, use: int) -> np.random.Generator:
        """The generator for one use of randomness."""
        return philox(Purpose.EVALUATION, self.seed, use, 0)


def probe_sites(generator: Generator, design: ProbeDesign) -> dict[int, tuple[str, ...]]:
    """Decisions to change by step, those with an effect only."""
    space = generator.decision_space
    steps = range(generator.horizon) if design.steps is None else design.steps
    names = space.learned if design.decisions is None else design.decisions
    unknown = [name for name in names if name not in space.names]
    if unknown:
        raise ValueError(f"unknown decision {unknown[0]!r}; this generator has {', '.join(space.names)}")
    outside = [step for step in steps if not 0 <= step < generator.horizon]
    if outside:
        raise ValueError(f"step {outside[0]} is not in 0 … {generator.horizon - 1}")
    effective = {step: [name for name in names if space.effective[step, space.names.index(name)]] for step in steps}
    return {step: tuple(kept) for step, kept in sorted(effective.items()) if kept}


def probe_images(num_contexts: int, design: ProbeDesign) -> ProbeImages:
    """The same number of images of each class; of very many classes some, evenly spread."""
    num_classes = min(num_contexts, max(1, design.num_images // _LEAST_PER_CLASS))
    per_class = max(_FEWEST_PER_CLASS, design.num_images // num_classes)
    context = torch.arange(num_classes) * num_contexts // num_classes
    rng = design.random(_IMAGES)
    seeds = rng.integers(0, 2**63, (num_classes, per_class, 1 + design.num_repeats))
    return ProbeImages(
        context[:, None].expand(-1, per_class), torch.from_numpy(seeds[..., 0]), torch.from_numpy(seeds[..., 1:])
    )


def probe_file(run_dir: Path) -> Path:
    """Where the probe of a run goes: into its folder, or beside it while there is no run yet.

    A folder that holds other files would be refused by the training that is to come.
    """
    return _inside(run_dir) if (run_dir / "config.yaml").exists() else _beside(run_dir)


def find_probe(run_dir: Path) -> Path:
    """Where the probe of a run is, if there is one: in its folder, or else beside it."""
    return _inside(run_dir) if _inside(run_dir).exists() else _beside(run_dir)


def _inside(run_dir: Path) -> Path:
    return run_dir / "probe.json"


def _beside(run_dir: Path) -> Path:
    return run_dir.parent / f"{run_dir.name}_probe.json"
