"""Fréchet statistics of a set of images: mean and covariance of their features, on disk and between two sets.

A file is an `.npz` with `mu` `[D]` and `sigma` `[D, D]` (float64, divided by n - 1) under the names that others use,
and beside them what the numbers mean: how many images, which resize convention, hashes of the extractor's weights and
of the images, and optionally the features of some images `[M, D]` for precision, recall and the kernel distance.
Files of others, with `mu` and `sigma` only, are read as well; their convention has to be named then.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.files import write_atomically
from adanat_rl.metrics.array_archive import check_archive
from adanat_rl.metrics.resize import CONVENTIONS, check_convention

_FORMAT = "adanat-rl statistics 1"
_TEXTS = ("convention", "extractor_hash", "data_hash")
_CLEAR = 1e-10  # least eigenvalue of a product, as a part of the largest, whose root is more than rounding
_NEGATIVE = 0.02  # half precision leaves eigenvalues as far below 0, as a part of the largest
_ROUNDING = 1e-6  # negative variances, as a part of the largest, that count as 0
_ARRAYS = ("format", "mu", "sigma", "count", "features", *_TEXTS)


@dataclass(frozen=True)
class FeatureStatistics:
    """What a Fréchet distance needs to know of a set of images.

    Args:
        mean: `[D]` float64. covariance: `[D, D]` float64, symmetric, divided by n - 1.
        convention: resize convention of the features, see `resize`; "" for features of another kind of network.
        count: number of images; None if the file does not say.
        extractor_hash: of the network's weights, "" if unknown.
        data_hash: of the images, see `accumulation.ImageSetHash`, "" if unknown.
        features: `[M, D]` float32 of M of the images, if they were kept.
    """

    mean: Tensor
    covariance: Tensor
    convention: str
    count: int | None = None
    extractor_hash: str = ""
    data_hash: str = ""
    features: Tensor | None = None


class FrechetReference:
    """Distances of many sets to one: the root of its covariance is taken once, when first needed.

    Fréchet distance of two normal distributions (Dowson and Landau, 1982; Heusel et al., 2017):
    |m - n|² + tr S + tr G - 2 tr (S^½ G S^½)^½. The matrix in the last term is symmetric and has no negative
    eigenvalues, so that no complex root and no added epsilon is needed, also with fewer images than features. Roots of
    eigenvalues that should be 0 would be noise of 1e-8 of the largest each; where there are such, the last term is
    taken as the singular values of the product of both roots instead, in which they are left out.
    """

    def __init__(self, reference: FeatureStatistics) -> None:
        self.reference = reference

    @cached_property
    def _root(self) -> Tensor:
        return symmetric_root(self.reference.covariance)

    def distance(self, statistics: FeatureStatistics) -> float:
        """The distance of a set to the reference.

        Raises:
            UserError: they do not fit together.
        """
        reference = self.reference
        check_comparable(reference, statistics)
        shared = self._shared(statistics.covariance)
        shift = (reference.mean - statistics.mean).square().sum()
        traces = reference.covariance.trace() + statistics.covariance.trace()
        # The distance is not negative; rounding can take it a little below zero where the sets are the same
        return float((shift + traces - 2 * shared).clamp_min(0))

    def _shared(self, covariance: Tensor) -> Tensor:
        """Trace of (S^½ G S^½)^½."""
        product = self._root @ covariance @ self._root
        values = torch.linalg.eigvalsh((product + product.T) / 2)
        if values[0] > _CLEAR * values[-1]:
            return values.sqrt().sum()
        return torch.linalg.svdvals(symmetric_root(covariance) @ self._root).sum()


def symmetric_root(covariance: Tensor) -> Tensor:
    """The root `[D, D]` of a covariance `[D, D]`; directions that hold no more than rounding are left out.

    Raises:
        UserError: it is no covariance, its least eigenvalue being clearly negative.
    """
    values, vectors = torch.linalg.eigh(covariance)
    largest = values.abs().max()
    if values[0] < -_NEGATIVE * largest:
        raise UserError(
            f"a covariance has the eigenvalue {float(values[0]):.3g} beside {float(values[-1]):.3g}, "
            "so it is none; make the statistics anew"
        )
    there = values > largest * len(values) * torch.finfo(values.dtype).eps
    return (vectors * torch.where(there, values, 0.0).sqrt()) @ vectors.T


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """The distance between two sets; the order does not matter."""
    return FrechetReference(first).distance(second)


def check_comparable(reference: FeatureStatistics, statistics: FeatureStatistics) -> None:
    """Refuses two sets whose features have another width, convention or extractor.

    Raises:
        UserError: naming both.
    """
    pairs = (
        ("features per image", str(len(reference.mean)), str(len(statistics.mean))),
        ("resize convention", reference.convention, statistics.convention),
        ("extractor", reference.extractor_hash[:12], statistics.extractor_hash[:12]),
    )
    for what, ours, theirs in pairs:
        if ours != theirs and not (what == "extractor" and "" in (ours, theirs)):
            raise UserError(
                f"statistics do not compare: {what} of one is {ours or 'none'}, of the other {theirs or 'none'}"
            )


def sister_file(path: Path, name: str) -> Path:
    """Where the statistics of the same images in the features of another network lie: beside those of Inception."""
    return path.with_name(f"{path.name.removesuffix('.npz')}.{name}.npz")


def save_statistics(path: Path, statistics: FeatureStatistics) -> None:
    """Writes a file, atomically; the same statistics give the same bytes."""
    arrays = {
        "format": np.array(_FORMAT),
        "mu": statistics.mean.double().cpu().numpy(),
        "sigma": statistics.covariance.double().cpu().numpy(),
        **{name: np.array(getattr(statistics, name)) for name in _TEXTS},
    }
    if statistics.count is not None:
        arrays["count"] = np.array(statistics.count, np.int64)
    if statistics.features is not None:
        arrays["features"] = statistics.features.float().cpu().numpy()
    write_arrays(path, arrays)


def load_statistics(path: Path, convention: str | None = None) -> FeatureStatistics:
    """Statistics of a file, ours or others'.

    Args:
        convention: of a file that does not say its own; of one that does, it must be the same.

    Raises:
        UserError: the file is missing, damaged, holds no statistics, or the convention is unknown or another.
    """
    if convention:
        check_convention(convention)
    arrays = read_arrays(path, _ARRAYS)
    if "mu" not in arrays or "sigma" not in arrays:
        raise UserError(f"{path} holds no Fréchet statistics: an .npz with mu [D] and sigma [D, D] is expected")
    if "format" in arrays and str(arrays["format"]) != _FORMAT:
        raise UserError(f"{path} is of format {str(arrays['format'])!r}, expected {_FORMAT!r}")
    texts = {name: str(arrays[name]) if name in arrays else "" for name in _TEXTS}
    if "format" not in arrays:
        if not convention:
            raise UserError(f"{path} does not say its resize convention; name it: {' or '.join(CONVENTIONS)}")
        texts["convention"] = convention
    elif convention and texts["convention"] != convention:
        raise UserError(f"{path} was made with the resize convention {texts['convention'] or 'none'}, not {convention}")
    mean, covariance = _checked(path, arrays["mu"], arrays["sigma"])
    return FeatureStatistics(
        mean,
        covariance,
        count=int(arrays["count"]) if "count" in arrays else None,
        features=_checked_features(path, arrays["features"], len(mean)) if "features" in arrays else None,
        **texts,
    )


def _checked(path: Path, mu: np.ndarray, sigma: np.ndarray) -> tuple[Tensor, Tensor]:
    if mu.ndim == 2 and 1 in mu.shape and sigma.shape == (mu.size, mu.size):
        mu = mu.reshape(-1)  # a mean written as a row or a column
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not len(mu):
        raise UserError(f"{path}: mu is {list(mu.shape)} and sigma {list(sigma.shape)}, expected [D] and [D, D]")
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f":
        raise UserError(f"{path}: mu is {mu.dtype} and sigma {sigma.dtype}, expected floats")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f"{path}: mu or sigma is not finite")
    sigma = sigma.astype(np.float64)
    # single precision leaves an asymmetry of about 1e-7 of the largest entry
    largest, variances = np.abs(sigma).max(), np.diag(sigma)
    if np.abs(sigma - sigma.T).max() > 1e-4 * largest or (variances < -_ROUNDING * largest).any():
        raise UserError(f"{path}: sigma is no covariance matrix: not symmetric, or negative on its diagonal")
    sigma = (sigma + sigma.T) / 2
    np.fill_diagonal(sigma, variances.clip(0))
    return torch.from_numpy(mu.astype(np.float64)), torch.from_numpy(sigma)


def _checked_features(path: Path, features: np.ndarray, width: int) -> Tensor:
    if features.ndim != 2 or features.shape[1] != width or features.dtype.kind != "f":
        raise UserError(f"{path}: features are {features.dtype} {list(features.shape)}, expected float [M, {width}]")
    if not np.isfinite(features).all():
        raise UserError(f"{path}: features are not finite")
    return torch.from_numpy(features.astype(np.float32))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an `.npz`, atomically."""
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an `.npz`, all or those of `names` that are there; nothing in it can run code.

    Raises:
        UserError: the file is missing, damaged or no `.npz`.
    """
    check_archive(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if names is None or name in names}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged or no .npz of plain arrays: {type(error).__name__}: {reason_of(error)}"
        ) from None
