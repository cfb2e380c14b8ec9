"""Which judges of a run are what it was paid in: those judge it no more, whether paid alone or in a composite."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.judge import ACCURACY, CLIP_SCORE, FD_A, FD_B, INCEPTION_SCORE, PRECISION, RECALL
from adanat_rl.evaluation.panel.photos import CMMD_KEY
from adanat_rl.metrics.clip_images import clip_projection

OF_EXTRACTOR_A = (FD_A, PRECISION, RECALL, ACCURACY, INCEPTION_SCORE, "kid")  # all are numbers of its features
DISTANCES = (FD_A, FD_B)
_OF_CLIP = ("clip_score", "aesthetic")  # rewards that look at images through CLIP


def rewarded_judges(config: ExperimentConfig) -> frozenset[str]:
    """Keys of the numbers whose network, or whose very score, the reward of a configuration uses.

    Networks are told by the content of their files, so that a copy under another name counts too; by their names where
    a file is gone.
    """
    found: set[str] = set()
    reward, kinds = config.reward, config.reward.kinds
    used: list[str] = []
    if "fid" in kinds:
        used += [reward.fid.weights] if reward.fid.weights is not None else []
        found |= set(OF_EXTRACTOR_A) if reward.fid.weights is None else set()
    if "classifier" in kinds and reward.classifier.weights is not None:
        used.append(reward.classifier.weights)
    if config.evaluation.judge == "classifiers":
        judges = [f"asset:{config.data.name}/judge_{name}.safetensors" for name in ("a", "b")]
    else:
        judges = [config.evaluation.inception or ""]
    for judge, keys in zip(judges, (OF_EXTRACTOR_A, (FD_B,)), strict=False):
        if judge and any(_is_same(weights, judge) for weights in used):
            found |= set(keys)
    encoders = [getattr(reward, kind).encoder for kind in _OF_CLIP if kind in kinds]
    for folder, key in ((config.evaluation.clip_score, CLIP_SCORE), (config.evaluation.clip, CMMD_KEY)):
        if folder is not None and any(encoder is not None and _is_same_clip(encoder, folder) for encoder in encoders):
            found.add(key)
    return frozenset(found)


def remaining_judges(config: ExperimentConfig, known: Sequence[str] = DISTANCES) -> list[str]:
    """Those of the known numbers that the reward does not use, in their order."""
    rewarded = rewarded_judges(config)
    return [key for key in known if key not in rewarded]


def check_deciding_metric(config: ExperimentConfig) -> None:
    """Refuses a run that keeps or ends by what it is paid in, where another judge remains.

    Raises:
        UserError: naming the metric that is left.
    """
    evaluation = config.evaluation
    known = DISTANCES if evaluation.judge == "classifiers" else DISTANCES[:1]
    left = remaining_judges(config, known)
    decides = config.checkpoints.keep_best or evaluation.early_stop_patience is not None
    if decides and left and evaluation.metric not in left:
        raise UserError(
            f"evaluation.metric: {evaluation.metric} is not accepted: the run is paid in it (reward.kind="
            f"{config.reward.kind}), so it cannot tell the best evaluation; use evaluation.metric={left[0]}"
        )


def _is_same(weights: str, judge: str) -> bool:
    if weights == judge:
        return True
    try:
        ours, theirs = (resolve_path(name, "weights") for name in (weights, judge))
        return ours.samefile(theirs) or (
            ours.stat().st_size == theirs.stat().st_size and _digest(ours) == _digest(theirs)
        )
    except (UserError, OSError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_same_clip(encoder: str, judge: str) -> bool:
    """Whether two folders hold the same CLIP, whole or its vision tower alone; by their names where one is gone."""
    ours, theirs = (Path(name).expanduser().resolve() for name in (encoder, judge))
    if ours == theirs:
        return True
    found = [clip_projection(folder) for folder in (ours, theirs)]
    return None not in found and found[0] == found[1]
