"""The panel of a small data set: what fits into memory, with networks that were cross-fitted on its test images."""

from __future__ import annotations

from typing import cast

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.panel.defects import blur
from adanat_rl.evaluation.panel.judges import (
    AccuracyJudge,
    CopiesJudge,
    FrechetJudge,
    KernelJudge,
    ManifoldJudge,
    UsefulnessJudge,
)
from adanat_rl.evaluation.panel.networks import FOLD_CLASSES, Folds
from adanat_rl.evaluation.panel.panel import Panel
from adanat_rl.evaluation.panel.spaces import GradientHistograms, Pixels
from adanat_rl.generation.weights import load_network

PANEL_FILES = {"convolution_folds": "panel_convolutions", "frequency_folds": "panel_frequencies"}
"""Names of the weight files by kind."""

_OF_PIXELS = "which class an image was drawn for; shapes that differ by little ink"
_OF_GRADIENTS = "which class an image was drawn for; evenly changed brightness"
_OF_NETWORKS = "which class an image was drawn for; what no class needs"
_OF_MANIFOLDS = "the class an image was drawn for; recall and coverage: how often each kind of image is drawn"
_MANIFOLD_IMAGES = 500


def small_panel(dataset: ImageDataset, networks: tuple[Folds, ...]) -> Panel:
    """The judges of a data set.

    Args:
        dataset: all of it. networks: cross-fitted on its test images.

    Raises:
        UserError: networks were fitted on another number of images.
    """
    test, training = split_of(dataset, Split.TEST), split_of(dataset, Split.TRAIN)
    pixels, gradients = Pixels(), GradientHistograms()
    in_pixels, in_gradients = pixels(test.images), gradients(test.images)
    return Panel(
        [
            FrechetJudge(pixels, in_pixels, "raw pixels", _OF_PIXELS),
            FrechetJudge(gradients, in_gradients, "gradient histograms", _OF_GRADIENTS),
            *(_network_judge(network, test) for network in networks),
            KernelJudge(pixels, in_pixels, "raw pixels", _OF_PIXELS, pixels(blur(test.images, test.labels)[0])),
            ManifoldJudge(pixels, in_pixels, "raw pixels", _OF_MANIFOLDS, _MANIFOLD_IMAGES),
            ManifoldJudge(gradients, in_gradients, "gradient histograms", _OF_MANIFOLDS, _MANIFOLD_IMAGES),
            AccuracyJudge(gradients, in_gradients, test.labels),
            UsefulnessJudge(gradients, in_gradients, test.labels),
            CopiesJudge(pixels, pixels(training.images), in_pixels),
            CopiesJudge(gradients, gradients(training.images), in_gradients),
        ]
    )


def _network_judge(network: Folds, test: ImageDataset) -> FrechetJudge:
    if len(network.folds) != len(test):
        raise UserError(
            f"networks of {network.name} were fitted on {len(network.folds)} test images; {test.name} has {len(test)}"
        )
    return FrechetJudge(network, network(test.images), f"networks on {network.name}", _OF_NETWORKS, network.folds)


def load_small_panel(dataset: ImageDataset) -> Panel:
    """The judges of a data set with its shipped networks.

    Raises:
        UserError: a file is missing, damaged or of another data set.
    """
    return small_panel(
        dataset,
        tuple(
            cast(Folds, load_network(resolve_path(f"asset:{dataset.name}/{file}.safetensors", "panel"), FOLD_CLASSES))
            for file in PANEL_FILES.values()
        ),
    )
