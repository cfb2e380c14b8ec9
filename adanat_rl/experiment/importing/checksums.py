"""What a network gives on a fixed input, as a few numbers and a checksum, and the record of it beside an imported file.

The numbers of an output are its mean, standard deviation, largest magnitude, first and last value; the checksum is
taken of them in units of a thousandth of the standard deviation, so that another machine's rounding hardly ever shows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import file_sha256, write_atomically
from adanat_rl.experiment.importing.policies import POLICY_NETWORK_KIND
from adanat_rl.generation.build import NAT_CLASSES, TOKENIZER_CLASSES
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.metrics.inception import InceptionV3
from adanat_rl.metrics.statistics import FeatureStatistics
from adanat_rl.rewards.aesthetic import AESTHETIC_KIND, AestheticHead
from adanat_rl.rewards.image_reward import IMAGE_REWARD_KIND, PROMPT_LENGTH
from adanat_rl.rewards.image_reward_network import ImageRewardNetwork
from adanat_rl.rewards.projected.dino import DINO_KIND, DinoFeatures
from adanat_rl.rewards.projected.discriminator import DISCRIMINATOR_KIND, ProjectedDiscriminator
from adanat_rl.version import __version__

RECORD_SUFFIX = ".import.json"
NETWORK_CLASSES: dict[str, type[nn.Module]] = {
    **NAT_CLASSES,
    **TOKENIZER_CLASSES,
    "inception": InceptionV3,
    IMAGE_REWARD_KIND: ImageRewardNetwork,
    POLICY_NETWORK_KIND: PolicyNet,
    DINO_KIND: DinoFeatures,
    DISCRIMINATOR_KIND: ProjectedDiscriminator,
    AESTHETIC_KIND: AestheticHead,
}
_SEED = 20240901
_TEXT_LENGTH = 77
_NUM_PATCHES = 196
_UNIT = 1e-3  # of a standard deviation
_TOLERANCE = 5e-3
_RECORD_FORMAT = "adanat-rl import 1"

Numbers = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class Checksum:
    """Outputs on a fixed input.

    Args:
        outputs: numbers of each, by name: mean, standard deviation, largest magnitude, first and last value.
        shapes: of each.
    """

    outputs: Mapping[str, Numbers]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def text(self) -> str:
        """Twelve digits."""
        rows = []
        for name, (mean, deviation, largest, first, last) in self.outputs.items():
            unit = _UNIT * deviation or 1.0
            rounded = [round(value / unit) for value in (mean, largest, first, last)]
            size = round(math.log(unit) / _UNIT)
            rows.append(f"{name} {list(self.shapes[name])} {size} {rounded}")
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]

    def describe(self) -> str:
        """The checksum and the numbers of the first output."""
        name, (mean, deviation, largest, _, _) = next(iter(self.outputs.items()))
        return f"{self.text} ({name}: mean {mean:.4g}, sd {deviation:.4g}, largest {largest:.4g})"

    def agrees_with(self, other: Checksum) -> bool:
        """Whether the outputs are the same but for rounding."""
        if self.shapes != other.shapes:
            return False
        pairs = [(self.outputs[name], other.outputs[name]) for name in self.outputs]
        return all(
            abs(a - b) <= _TOLERANCE * max(theirs[1], 1e-9)
            for ours, theirs in pairs
            for a, b in zip(ours, theirs, strict=True)
        )


@torch.no_grad()
def network_checksum(kind: str, network: nn.Module) -> Checksum:
    """The checksum of a network in eval mode; the input comes from a generator of its own.

    Args:
        kind: one of `NETWORK_CLASSES`.
    """
    source = torch.Generator().manual_seed(_SEED)
    if kind in NAT_CLASSES:
        return checksum_of(_nat_outputs(network, source))
    if kind == "vqgan":
        return checksum_of(_vq_outputs(cast(VQTokenizer, network), source))
    if kind in TOKENIZER_CLASSES:
        tokenizer = cast(Any, network)
        tokens = torch.randint(tokenizer.vocab_size, (1, tokenizer.grid_size**2), generator=source)
        return checksum_of({"images": tokenizer.decode(tokens)})
    if kind == "inception":
        features, logits = network(_normal((1, 3, 299, 299), source).clamp(-1, 1))
        return checksum_of({"features": features, "logits": logits})
    if kind == IMAGE_REWARD_KIND:
        return checksum_of(_image_reward_outputs(cast(ImageRewardNetwork, network), source))
    if kind == DINO_KIND:
        dino = cast(DinoFeatures, network)
        features = dino(_normal((1, 3, dino.image_size, dino.image_size), source))
        return checksum_of({f"feature {number}": feature for number, feature in enumerate(features)})
    if kind == AESTHETIC_KIND:
        head = cast(AestheticHead, network)
        return checksum_of({"ratings": head(_normal((4, head.width), source))})
    if kind == DISCRIMINATOR_KIND:
        return checksum_of(_discriminator_outputs(cast(ProjectedDiscriminator, network), source))
    return checksum_of(_policy_outputs(cast(PolicyNet, network), source))


def statistics_checksum(statistics: FeatureStatistics) -> Checksum:
    """Of statistics, the numbers themselves."""
    return checksum_of({"mu": statistics.mean, "sigma": statistics.covariance})


def checksum_of(outputs: Mapping[str, Tensor]) -> Checksum:
    """The checksum of named outputs."""
    numbers: dict[str, Numbers] = {}
    for name, values in outputs.items():
        flat = values.detach().double().flatten()
        if not bool(flat.isfinite().all()):
            raise UserError(f"the network gives numbers that are not finite on the fixed input ({name})")
        largest, first, last = float(flat.abs().max()), float(flat[0]), float(flat[-1])
        numbers[name] = (float(flat.mean()), float(flat.std(correction=0)), largest, first, last)
    return Checksum(numbers, {name: tuple(values.shape) for name, values in outputs.items()})


def write_record(record: Path, files: Mapping[str, Checksum], facts: Mapping[str, Any]) -> None:
    """Writes what was imported and the checksums of the files, by name; they lie in the record's folder."""
    rows = {
        name: {
            "sha256": file_sha256(record.parent / name),
            "checksum": checksum.text,
            "outputs": {key: list(values) for key, values in checksum.outputs.items()},
            "shapes": {key: list(shape) for key, shape in checksum.shapes.items()},
        }
        for name, checksum in files.items()
    }
    content = {"format": _RECORD_FORMAT, "adanat_rl": __version__, **facts, "files": rows}
    write_atomically(record, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def check_against_record(record: Path, path: Path, checksum: Checksum) -> str:
    """Compares a file with its record; says in one phrase what was compared.

    Raises:
        UserError: the bytes or the outputs are others.
    """
    if not record.is_file():
        return f"no {record.name} to compare with"
    try:
        row = json.loads(record.read_text(encoding="utf-8"))["files"][path.name]
        outputs = {name: cast(Numbers, tuple(map(float, values))) for name, values in row["outputs"].items()}
        before = Checksum(outputs, {name: tuple(shape) for name, shape in row["shapes"].items()})
        digest = str(row["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{record} is damaged or says nothing of {path.name}; import the checkpoint again") from None
    if file_sha256(path) != digest:
        raise UserError(f"{path} is not the file that was imported: its SHA-256 differs from that in {record.name}")
    if not checksum.agrees_with(before):
        raise UserError(
            f"{path} gives other outputs than when it was imported: checksum {checksum.text}, {record.name} has "
            f"{before.text}; the code of the network has changed, or this machine computes wrongly"
        )
    return f"as in {record.name}"


def _nat_outputs(network: nn.Module, source: torch.Generator) -> dict[str, Tensor]:
    nat = cast(Any, network)
    tokens = torch.randint(nat.vocab_size + 1, (1, nat.grid_size**2), generator=source)
    text_width = getattr(nat, "text_width", None)
    if text_width is None:
        context = torch.tensor([1 % nat.num_classes])
    else:
        context = _normal((1, _TEXT_LENGTH, text_width), source)
    logits, features = nat(tokens, context)
    return {"logits": logits, "features": features}


def _vq_outputs(tokenizer: VQTokenizer, source: torch.Generator) -> dict[str, Tensor]:
    """A small image and few latents: the weights do not depend on the size."""
    side = 4 * tokenizer.factor
    images = (0.5 + 0.2 * _normal((1, tokenizer.image_channels, side, side), source)).clamp(0, 1)
    latents = tokenizer.encoder(images)
    codes = torch.randint(tokenizer.vocab_size, (1, 4, 4), generator=source)
    return {"images": tokenizer.decode_latents(tokenizer.quantize.lookup(codes)), "latents": latents}


def _image_reward_outputs(network: ImageRewardNetwork, source: torch.Generator) -> dict[str, Tensor]:
    pixels = _normal((2, 3, network.image_size, network.image_size), source)
    ids = torch.randint(1, network.vocab_size, (2, PROMPT_LENGTH), generator=source)
    features = network.image_features(pixels)
    return {"text": network.text_features(features, ids), "scores": network(pixels, ids)}


def _discriminator_outputs(network: ProjectedDiscriminator, source: torch.Generator) -> dict[str, Tensor]:
    channels = cast(Any, network.heads[0]).main[0][1].weight.shape[0]
    features = [_normal((2, channels, _NUM_PATCHES), source) for _ in network.heads]
    condition = None
    if network.num_classes is not None:
        condition = torch.tensor([0, network.num_classes - 1])
    elif network.condition_width:
        condition = _normal((2, network.condition_width), source)
    return {"logits": network(features, condition, [2])}


def _policy_outputs(policy: PolicyNet, source: torch.Generator) -> dict[str, Tensor]:
    """Of an actor or critic at steps 0 and 3."""
    embedder = policy.x_embedder
    width = embedder.in_features if isinstance(embedder, nn.Linear) else policy.dw_conv.in_channels
    features = _normal((2, policy.grid_size**2, width), source)
    return {"outputs": policy(features, torch.tensor([0, 3]))}


def _normal(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=source)
