"""Statistics of the adaptivity probe: variance split, cross-validated prediction, gains, bootstrap intervals.

Effects are float64 `[C, n, R, M]`: C classes, n images of each, R finishes of an image, M levels of a decision; an
effect is the reward with a level minus the reward without, under the same noise. Everything is computed for rows of
weights `[W, C, n]`, how often an image counts: row 0 is the data as they are, the others are bootstrap resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

_NUM_FOLDS = 5
_RIDGE_PENALTIES = np.logspace(0, 6, 13)  # for standardised features; the strongest leaves almost nothing
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Parts:
    """The mean square of an effect in four parts, unbiased and therefore perhaps below 0; they add up to it exactly.

    Args:
        mean: squared mean over everything. classes: variance of the class means. images: variance between images of a
            class. noise: variance between finishes of an image.
    """

    mean: np.ndarray
    classes: np.ndarray
    images: np.ndarray
    noise: np.ndarray


def bootstrap_weights(num_classes: int, per_class: int, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Weights `[1 + num_resamples, C, n]`: a row of ones, then images of each class drawn with replacement."""
    chances = np.full(per_class, 1 / per_class)
    drawn = rng.multinomial(per_class, chances, (num_resamples, num_classes))
    return np.concatenate([np.ones((1, num_classes, per_class)), drawn])


def split_variance(effects: np.ndarray, weights: np.ndarray) -> Parts:
    """Nested analysis of variance by the method of moments.

    Args:
        effects: `[C, n, R, M]`, n ≥ 2, R ≥ 2. weights: `[W, C, n]`.

    Returns:
        Parts `[W, M]`. Noise is the mean variance over the finishes of an image; what the means of images vary within
        a class is images + noise/R; what class means vary, and the square of the grand mean, are cleared of their
        errors in the same way. Classes count as the population: the variance over them divides by C.
    """
    num_classes, per_class, repeats, _ = effects.shape
    image_means = effects.mean(axis=2)
    noise = _class_means(weights, effects.var(axis=2, ddof=1)).mean(axis=1)
    class_means = _class_means(weights, image_means)
    squares = _class_means(weights, image_means**2) - class_means**2
    within = (squares * per_class / (per_class - 1)).mean(axis=1)
    error = within / per_class  # variance of a class mean
    return Parts(
        mean=class_means.mean(axis=1) ** 2 - error / num_classes,
        classes=class_means.var(axis=1) - error * (num_classes - 1) / num_classes,
        images=within - noise / repeats,
        noise=noise,
    )


def estimates(rows: np.ndarray) -> list[Estimate]:
    """Estimates with intervals for rows `[1 + resamples, N]`.

    The bootstrap of a variance is off by about what its own sampling adds, so its percentiles are moved until their
    mean is the estimate.
    """
    spread = rows[1:] - rows[1:].mean(axis=0)
    low, high = rows[0] + np.quantile(spread, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2], axis=0)
    return [Estimate(*map(float, numbers)) for numbers in zip(rows[0], low, high, strict=True)]


def estimate(rows: np.ndarray) -> Estimate:
    """The same for rows `[1 + resamples]` of one number."""
    return estimates(rows[:, None])[0]


def p_value(rows: np.ndarray) -> float:
    """One-sided p-value that a number is above 0, by its bootstrap standard error."""
    error = float(rows[1:].std())
    if error == 0:
        return 0.0 if rows[0] > 0 else 1.0
    return float(stats.norm.sf(rows[0] / error))


@dataclass(frozen=True)
class Prediction:
    """What is expected of each image by those of the other folds, `[C, n, M]` each.

    Args:
        overall: mean effect. by_class: mean effect of the class, shrunk towards it as far as classes do not truly
            differ. by_features: the same plus what the features add.
    """

    overall: np.ndarray
    by_class: np.ndarray
    by_features: np.ndarray


def cross_predict(features: np.ndarray, image_means: np.ndarray, rng: np.random.Generator) -> Prediction:
    """Predicts the mean effects of images from other images, in folds that hold all classes alike.

    Args:
        features: `[C, n, F]`. image_means: `[C, n, M]` effects, averaged over the finishes.
        rng: deals images into folds.

    Features and effects are centred within the class first; a ridge regression then has one set of weights for all
    classes, its penalty chosen for each level within the training folds.
    """
    num_classes, per_class, _ = image_means.shape
    num_folds = min(_NUM_FOLDS, per_class)
    folds = np.stack([rng.permutation(per_class) % num_folds for _ in range(num_classes)])
    prediction = Prediction(*(np.empty_like(image_means) for _ in range(3)))
    for fold in range(num_folds):
        held_out = folds == fold
        weights = (~held_out).astype(float)[None]
        class_means = _class_means(weights, image_means)[0][:, None]
        centred = features - _class_means(weights, features)[0][:, None]
        residuals = image_means - class_means
        added = _ridge(centred[~held_out], residuals[~held_out], centred[held_out])
        counts = weights[0].sum(axis=1)
        within = (residuals[~held_out] ** 2).sum(axis=0) / (counts - 1).sum()
        shrunk = shrink(class_means, within / counts.mean())
        by_class = np.broadcast_to(shrunk, image_means.shape)[held_out]
        prediction.overall[held_out] = class_means.mean(axis=0)
        prediction.by_class[held_out] = by_class
        prediction.by_features[held_out] = by_class + added
    return prediction


def shrink(class_means: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Class means `[C, 1, M]` pulled towards their mean, by how much of their variance their errors explain `[M]`.

    What is chosen by noise alone loses; this keeps classes that do not differ from choosing apart.
    """
    overall = class_means.mean(axis=0)
    total = class_means.var(axis=0, ddof=1) if len(class_means) > 1 else np.zeros_like(overall)
    true = np.maximum(total - error, 0.0)
    return overall + np.divide(true, total, out=np.zeros_like(total), where=total > 0) * (class_means - overall)


def _ridge(features: np.ndarray, targets: np.ndarray, new_features: np.ndarray) -> np.ndarray:
    """Predictions `[N, M]` for new features `[N, F]` from centred features and targets.

    For each target the penalty is the one that saves most squared error by leave-one-out, less one standard error of
    what it saves; if none saves anything, nothing is predicted.
    """
    scale = features.std(axis=0)
    useful = scale > 1e-6 * max(1.0, float(np.abs(features).max(initial=0.0)))  # the others tell nothing within a class
    left, singular, right = np.linalg.svd(features[:, useful] / scale[useful], full_matrices=False)
    projected = left.T @ targets
    slopes = np.zeros((int(useful.sum()), targets.shape[1]))
    most_saved = np.zeros(targets.shape[1])
    for penalty in _RIDGE_PENALTIES:
        kept = singular**2 / (singular**2 + penalty)
        errors = (targets - left @ (kept[:, None] * projected)) / (1 - left**2 @ kept)[:, None]
        saved = targets**2 - errors**2
        bound = saved.mean(axis=0) - saved.std(axis=0) / np.sqrt(len(saved))
        better = bound > most_saved
        most_saved[better] = bound[better]
        slopes[:, better] = right.T @ (singular[:, None] / (singular**2 + penalty)[:, None] * projected[:, better])
    predicted: np.ndarray = (new_features[:, useful] / scale[useful]) @ slopes
    return predicted


def explained(image_means: np.ndarray, prediction: Prediction) -> np.ndarray:
    """`[C, n, M]`: by how much the features lower the squared error of each image.

    Its mean is the part of the variance between images that they predict. The noise of the image itself raises both
    errors alike and drops out.
    """
    return (image_means - prediction.by_class) ** 2 - (image_means - prediction.by_features) ** 2


def chosen_gain(expected: np.ndarray, achieved: np.ndarray) -> np.ndarray:
    """What the level of the highest expectation achieves, `[...]`; to change nothing is expected and achieves 0.

    Args:
        expected, achieved: `[..., M]`; they must not share noise, or the gain is too good to be true.
    """
    best = expected.argmax(axis=-1)[..., None]
    gain = np.take_along_axis(achieved, best, axis=-1)[..., 0]
    return np.where(np.take_along_axis(expected, best, axis=-1)[..., 0] > 0, gain, 0.0)


def own_choice_gain(effects: np.ndarray) -> np.ndarray:
    """`[C, n]`: what is gained over a choice per class by one that knows the image, from its other finishes.

    Each finish is left out once. The others of the image, shrunk towards those of its class by how much images truly
    differ, choose the level; the one left out tells what that is worth. This is less than what the best level of each
    image is worth, because R - 1 finishes tell it with an error.
    """
    repeats = effects.shape[2]
    gains = np.zeros(effects.shape[:2])
    for left_out in range(repeats):
        others = np.delete(effects, left_out, axis=2)
        parts = split_variance(others, np.ones((1, *effects.shape[:2])))
        true = np.maximum(parts.images[0], 0.0)
        total = true + parts.noise[0] / (repeats - 1)
        trust = np.divide(true, total, out=np.zeros_like(true), where=total > 0)
        image_means = others.mean(axis=2)
        class_means = image_means.mean(axis=1, keepdims=True)
        by_class = np.broadcast_to(shrink(class_means, total / effects.shape[1]), image_means.shape)
        achieved = effects[:, :, left_out]
        gains += chosen_gain(by_class + trust * (image_means - class_means), achieved) - chosen_gain(by_class, achieved)
    return gains / repeats


def best_level_bound(variances: np.ndarray) -> np.ndarray:
    """Most that a choice of the best of M levels or none can add when values differ with such variances `[W, M]`.

    E max X ≤ max E X + sqrt((k-1)/k · Σ var X) for any k random numbers (Aven, J. Appl. Prob. 1985); here k = M + 1.
    """
    num_levels = variances.shape[-1]
    return np.sqrt(np.maximum(variances.sum(axis=-1), 0.0) * num_levels / (num_levels + 1))


def _class_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means `[W, C, M]` over the images of a class, of values `[C, n, M]`."""
    sums: np.ndarray = np.matmul(weights.transpose(1, 0, 2), values).transpose(1, 0, 2)
    return sums / weights.sum(axis=2)[:, :, None]
