"""Keys of a metric row (metrics.jsonl, MLflow): one name for each number, wherever it is written or read."""

from __future__ import annotations

ITERATION = "iteration"  # 0 is the untrained policy
UNIX_TIME = "unix_time_s"  # when the row was written

# Prefixes
EVAL = "eval/"  # the judge's numbers on the fixed evaluation seed, in rows that have an evaluation
LEARNER = "learner/"  # of the policy update
REWARD_MODEL = "reward_model/"  # what the reward model says of its own update
TIME = "time/"  # measured durations and speeds
CLUSTER = "cluster/"  # counts of what failed and was repaired

# Behind LEARNER; means over the gradient steps of an update unless stated
POLICY_LOSS = "policy_loss"
VALUE_LOSS = "value_loss"  # 0 without a critic
ENTROPY = "entropy"
LEASH = "leash"  # distance to the base schedule, before its weight; 0 without a leash
APPROX_KL = "approx_kl"
CLIP_FRACTION = "clip_fraction"
GRADIENT_NORM = "gradient_norm"
EXPLAINED_VARIANCE = "explained_variance"  # of the critic before the update; 0 without one
ACTION_STD = "action_std"  # the one that the batch was drawn with
LEARNER_METRICS = (
    POLICY_LOSS,
    VALUE_LOSS,
    ENTROPY,
    LEASH,
    APPROX_KL,
    CLIP_FRACTION,
    GRADIENT_NORM,
    EXPLAINED_VARIANCE,
    ACTION_STD,
)

REWARD_MEAN = "reward/mean"  # over the trajectories of the iteration
REWARD_STD = "reward/std"
REWARD_INFO = "reward/mean_"  # means of what a reward model says beside its scores; parts of a composite, raw
REWARD_VERSION = "reward/version"  # of the reward model: updates before it scored

# Values of the panel beyond their margins, better or worse than at the run's first evaluation; one seed, no verdict
PANEL_AHEAD = EVAL + "panel_ahead"
PANEL_BEHIND = EVAL + "panel_behind"

HACKING_DETECTED = "hacking/detected"  # 1 once the reward has risen while a judge got worse, else 0; at evaluations
HACKING_ITERATION = "hacking/iteration"  # of the evaluation that showed it first; only where it was

NAT_PASSES_PER_IMAGE = "rollout/nat_passes_per_image"
NAT_PASSES_TOTAL = "rollout/nat_passes_total"  # of all training rollouts so far
TRAJECTORIES_TOTAL = "rollout/trajectories_total"
BATCH_HASH = "rollout/batch_hash"  # text: content hash of the train batch
TABLE_SHA256 = "rollout/table_sha256"  # text: of the file of the iteration's rollout table
TEXTS = frozenset({BATCH_HASH, TABLE_SHA256})  # all other values are numbers

ITERATION_SECONDS = TIME + "iteration_s"
TRAIN_SECONDS_TOTAL = TIME + "train_total_s"  # evaluations left out
EVALUATION_SECONDS = TIME + "evaluation_s"
IMAGES_PER_SECOND = "images_per_s"  # of an evaluation


def decision_key(step: int, name: str, statistic: str) -> str:
    """Key of a decision's statistic ("mean" or "sd" over the images of an evaluation) at a step."""
    return f"decisions/{name}/step_{step}_{statistic}"


def is_measured(key: str) -> bool:
    """Whether a number may differ between two runs of one seed: clocks and failures."""
    is_speed = key.rpartition("/")[2].startswith(IMAGES_PER_SECOND)  # with _mean or _sd in final numbers
    return key == UNIX_TIME or is_speed or key.startswith((TIME, CLUSTER))
