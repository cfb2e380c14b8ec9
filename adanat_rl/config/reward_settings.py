"""Settings of rewards: one group for each kind, and which of them is used."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import model_validator

from adanat_rl.config.errors import nearest
from adanat_rl.config.section import MAX_FLOAT, OWN_NAME, Decay, Section, setting


class AdversarialConfig(Section):
    """The discriminator that is trained along with the policy."""

    channels: int = setting(32, "Channels of its first layer.", source="measured", ge=1, le=4096)
    first_stride: Literal[1, 2] = setting(
        1, "Stride of its first layer: with 1 it looks at patches of 10×10 pixels, with 2 of 18×18.", source="measured"
    )
    lr: float = setting(1e-3, "Adam's learning rate.", source="measured", gt=0, le=MAX_FLOAT)
    adam_betas: tuple[Decay, Decay] = setting((0.5, 0.99), "Adam's decay rates.", source="measured")
    batch_size: int = setting(
        128, "Real and generated images of one update, each.", unit="images", source="measured", ge=1, le=65_536
    )
    num_updates: int = setting(4, "Updates in each iteration.", source="measured", ge=1, le=1_000_000)
    num_warmup_updates: int = setting(
        150, "Updates before the first policy update.", source="measured", ge=0, le=100_000_000
    )
    real_target: float = setting(
        0.95,
        "Label of real images (one-sided smoothing), for the loss cross_entropy.",
        source="measured",
        gt=0.5,
        le=1,
    )
    loss: Literal["cross_entropy", "logistic", "hinge"] = setting(
        "cross_entropy",
        "cross_entropy: of the mean logit; logistic (the paper's) or hinge: of every logit.",
        source="measured",
    )
    precision: Literal["float32", "tf32", "bfloat16"] = setting(
        "float32", "Arithmetic of the discriminator; its weights and the loss stay float32."
    )
    micro_batch_size: int | None = setting(
        None,
        "Images that pass through the discriminator at once, which bounds its memory; null: all. "
        "Projected: at least 8, for groups of its batch norm stay whole.",
        unit="images",
        ge=1,
        le=65_536,
    )
    discriminator: Literal["patch", "projected"] = setting(
        "patch", "patch: a small network for small images; projected: heads on DINO features (the paper's)."
    )
    features: str | None = setting(None, "DINO's weights (projected), made by `import-checkpoint`.")
    weights: str | None = setting(
        None, "Trained heads to start from (projected), made by `import-checkpoint`; null: random ones."
    )
    condition_width: int = setting(
        512, "Width of the class embedding (projected); a caption's has its own.", source="paper", ge=1, le=65_536
    )
    scoring: Literal["independent", "official"] = setting(
        "independent",
        "Projected: whether the score of an image depends on it alone, or on batch mates and a crop coin as well.",
    )

    @model_validator(mode="after")
    def _whole_discriminator(self) -> AdversarialConfig:
        if self.discriminator == "projected":
            if self.features is None:
                raise ValueError("features: null is not accepted with discriminator=projected; give DINO's weights")
            if self.micro_batch_size is not None and self.micro_batch_size < 8:
                raise ValueError(
                    f"micro_batch_size: {self.micro_batch_size} is less than a group of the projected discriminator's "
                    "batch norm; use 8 or more, or null"
                )
        elif self.features is not None or self.weights is not None:
            raise ValueError("features, weights: only discriminator=projected takes them")
        return self


class ImageRewardConfig(Section):
    """ImageReward, a reward model that was trained on people's preferences."""

    weights: str = setting("weights/image_reward.safetensors", "Its weights, made by `import-checkpoint`.")
    vocabulary: str = setting("weights/bert-base-uncased/vocab.txt", "BERT's vocabulary: the file, or its folder.")
    block_rows: int = setting(8, "Images of one pass.", unit="images", ge=1, le=65_536)


class FrechetRewardConfig(Section):
    """The Fréchet distance of a batch to the real images (paper, section 3: a reward that fails)."""

    credit: Literal["group", "leave_one_out"] = setting(
        "group",
        "How a batch shares its distance: group: all images of a group get the same; leave_one_out: each image gets "
        "what the distance of its group would rise by without it.",
    )
    group_size: int | None = setting(
        64,
        "Images whose distance is taken together; a divisor of training.shard_size; null: the whole shard.",
        unit="images",
        ge=4,
        le=65_536,
    )
    weights: str | None = setting(
        None,
        "Feature extractor: a classifier of `pretrain` or Inception-v3 of `import-checkpoint`; null: the data set's "
        "judge A, or evaluation.inception. It is then no independent judge.",
    )
    running_decay: float = setting(
        0.0,
        "Weight of what earlier iterations drew in mean and covariance, for groups that are small; 0: none.",
        ge=0,
        lt=1,
    )


class ClassifierRewardConfig(Section):
    """Confidence of a classifier in the class an image was drawn for: a stand-in for a pre-trained reward model."""

    weights: str | None = setting(
        None, "A classifier of `pretrain`; null: the data set's classifier C, which judges nothing."
    )
    score: Literal["probability", "log_probability"] = setting("probability", "What of its confidence is the score.")


class ClipScoreRewardConfig(Section):
    """CLIPScore of an image and its caption."""

    encoder: str | None = setting(None, "Folder of a CLIP of transformers: configuration, weights, tokenizer.")
    block_rows: int = setting(32, "Images of one pass.", unit="images", ge=1, le=65_536)


class AestheticRewardConfig(Section):
    """A linear head on the image embeddings of a CLIP, trained on people's ratings."""

    encoder: str | None = setting(None, "Folder of a CLIP of transformers.")
    head: str | None = setting(
        None, "The head: safetensors with weight `[1, D]` and bias `[1]`, or the like of LAION's."
    )
    block_rows: int = setting(32, "Images of one pass.", unit="images", ge=1, le=65_536)


class PassCostConfig(Section):
    """A price for NAT passes; a part of a composite reward."""

    price: float = setting(1.0, "What a NAT pass costs.", unit="per pass", ge=0, le=MAX_FLOAT)


class RewardPart(Section):
    """One part of a composite reward; its settings are those of its kind."""

    kind: str = setting("adversarial", "A kind of reward other than composite, or module:Class.")
    weight: float = setting(1.0, "Factor of its scores in the sum.", ge=-MAX_FLOAT, le=MAX_FLOAT)
    normalize: bool = setting(
        True, "Whether its scores are standardised over the train batch before they are weighted."
    )
    args: dict[str, Any] = setting({}, "Keyword arguments, for module:Class.")

    @model_validator(mode="after")
    def _known(self) -> RewardPart:
        if self.kind == COMPOSITE:
            raise ValueError("kind: composite is not accepted as a part of a composite; list its parts instead")
        _check_kind(self.kind, self.args)
        return self


COMPOSITE = "composite"
REWARD_KINDS = (
    "adversarial",
    "fid",
    "image_reward",
    "classifier",
    "clip_score",
    "aesthetic",
    "nat_pass_cost",
    COMPOSITE,
)


class RewardConfig(Section):
    """What is rewarded."""

    kind: str = setting(
        "adversarial",
        "adversarial; fid; image_reward, clip_score (need captions); classifier; aesthetic; nat_pass_cost; composite: "
        "a weighted sum of reward.parts; or module:Class of an own reward model.",
    )
    args: dict[str, Any] = setting({}, "Keyword arguments of an own reward model.")
    parts: tuple[RewardPart, ...] = setting(
        (),
        "Parts of a composite reward, each with kind, weight (1), normalize (true: standardised over the train batch "
        "before it is weighted) and, for module:Class, args.",
    )
    adversarial: AdversarialConfig = setting(AdversarialConfig(), "Settings of the adversarial reward.")
    fid: FrechetRewardConfig = setting(FrechetRewardConfig(), "Settings of the Fréchet reward.")
    image_reward: ImageRewardConfig = setting(ImageRewardConfig(), "Settings of ImageReward.")
    classifier: ClassifierRewardConfig = setting(ClassifierRewardConfig(), "Settings of the classifier's confidence.")
    clip_score: ClipScoreRewardConfig = setting(ClipScoreRewardConfig(), "Settings of CLIPScore.")
    aesthetic: AestheticRewardConfig = setting(AestheticRewardConfig(), "Settings of the aesthetic score.")
    nat_pass_cost: PassCostConfig = setting(PassCostConfig(), "Settings of the price of NAT passes.")
    reconstruct_real: bool = setting(
        True, "Whether real images go through the tokenizer and back, so that quantisation gives nothing away."
    )

    @model_validator(mode="after")
    def _known_kind(self) -> RewardConfig:
        _check_kind(self.kind, self.args)
        if (self.kind == COMPOSITE) != bool(self.parts):
            wanted = "composite needs some" if self.kind == COMPOSITE else "only reward.kind=composite takes them"
            raise ValueError(f"parts: {len(self.parts)} parts are not accepted: {wanted}")
        names = [part.kind for part in self.parts]
        if len(set(names)) < len(names):
            raise ValueError(f"parts: {names} is not accepted: each kind once")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are used: one, or those of the parts."""
        return tuple(part.kind for part in self.parts) if self.kind == COMPOSITE else (self.kind,)


def _check_kind(kind: str, args: dict[str, Any]) -> None:
    if kind not in REWARD_KINDS and not OWN_NAME.fullmatch(kind):
        hint = nearest(kind, REWARD_KINDS)
        raise ValueError(f"kind: {kind!r} is no reward; accepted: {', '.join(REWARD_KINDS)}, or module:Class{hint}")
    place = _not_finite(args)
    if place is not None:
        raise ValueError(f"args: {place} is no finite number")
    if kind in REWARD_KINDS and args:
        raise ValueError(f"args: only an own reward (module:Class) takes args; use reward.{kind}.*")


def _not_finite(value: Any, place: str = "") -> str | None:
    """Where NaN or infinity stands in arguments, such as `.weights.1`; they would not survive JSON and MLflow."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place.lstrip(".")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = (_not_finite(item, f"{place}.{key}") for key, item in inner)
    return next((where for where in found if where is not None), None)
