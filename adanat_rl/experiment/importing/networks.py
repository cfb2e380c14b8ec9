"""From official state dicts to this product's networks: constructor arguments by shapes, names, and every check."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.experiment.importing.recognition import Kind
from adanat_rl.generation.masked import uvit, vq_tokenizer
from adanat_rl.metrics import inception
from adanat_rl.rewards import aesthetic, image_reward_network
from adanat_rl.rewards.image_reward import IMAGE_REWARD_KIND
from adanat_rl.rewards.projected import dino

DEFAULT_IMAGE_SIZE = 256
_HEADS_BY_WIDTH = {768: 8, 1152: 16}  # of the official NATs
_HEAD_WIDTH = 64  # of every published vision or text transformer that is taken here
_NUM_SHOWN = 30


@dataclass(frozen=True)
class ImportedNetwork:
    """A network that is complete and fits its class.

    Args:
        kind, arguments: for `generation.weights.save_network`.
        network: with its weights, float32; buffers that no state dict holds may be missing.
        notes: what was changed or assumed, one line each.
    """

    kind: str
    arguments: Mapping[str, Any]
    network: nn.Module
    notes: tuple[str, ...] = ()

    @property
    def num_values(self) -> int:
        """Values of all its tensors."""
        return sum(tensor.numel() for tensor in self.network.state_dict().values())


@dataclass(frozen=True)
class Plan:
    """How a state dict becomes a network: its class and arguments, the state under the class's names, and notes."""

    kind: str
    arguments: Mapping[str, Any]
    network_class: type[nn.Module]
    state: Mapping[str, Tensor]
    notes: tuple[str, ...] = field(default=())


def nat_network(state: Mapping[str, Tensor], path: Path, num_heads: int | None = None) -> ImportedNetwork:
    """A U-ViT NAT, for class labels or for texts.

    Args:
        num_heads: of attention, which no tensor tells; None: the official number for that width.

    Raises:
        UserError: something is missing or too many, of another shape or type, or the number of heads is not known.
    """
    shape = Shapes(state, path)
    num_entries, width = shape("token_emb.word_embeddings.weight", 2)
    length = shape("token_emb.position_embeddings.weight", 2)[0]
    notes: tuple[str, ...] = ()
    if num_heads is None:
        num_heads = _HEADS_BY_WIDTH.get(width)
        notes = (f"{num_heads} attention heads: the official number for width {width}; no tensor tells it (--heads)",)
        if num_heads is None:
            known = ", ".join(f"{heads} for width {width}" for width, heads in _HEADS_BY_WIDTH.items())
            raise UserError(f"--heads: needed, the width is {width} and no tensor tells the heads; official: {known}")
    arguments: dict[str, Any] = {
        "vocab_size": num_entries - 1,
        "grid_size": root_of(length, "tokens of an image", path),
        "width": width,
        "depth": shape.count("in_blocks.{}.norm1.weight") + shape.count("out_blocks.{}.norm1.weight"),
        "num_heads": num_heads,
        "mlp_ratio": shape("mid_block.mlp.fc1.weight", 2)[0] // width,
        "qkv_bias": "mid_block.attn.qkv.bias" in state,
    }
    if "context_embed.word_embeddings.weight" in state:
        arguments["num_classes"] = shape("context_embed.word_embeddings.weight", 2)[0] - 1
    else:
        arguments["text_width"] = shape("context_embed.weight", 2)[1]
    converted = uvit.convert_official_state(state)
    if len(converted) < len(state):
        notes = (*notes, f"{len(state) - len(converted)} tensors that only number positions are left out")
    return build(Plan("uvit", arguments, uvit.UViTNAT, converted, notes), path)


def tokenizer_network(state: Mapping[str, Tensor], path: Path, image_size: int = DEFAULT_IMAGE_SIZE) -> ImportedNetwork:
    """A VQ tokenizer.

    Args:
        image_size: pixels of a side of the images it will be used for; its weights do not depend on it.

    Raises:
        UserError: see `nat_network`.
    """
    shape = Shapes(state, path)
    vocab_size, code_width = shape("quantize.embedding.weight", 2)
    base_width, image_channels = shape("encoder.conv_in.weight", 4)[:2]
    levels = shape.count("encoder.down.{}.block.0.conv1.weight")
    widths = [shape(f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)]
    arguments = {
        "vocab_size": vocab_size,
        "image_size": image_size,
        "code_width": code_width,
        "image_channels": image_channels,
        "base_width": base_width,
        "width_multipliers": [width // base_width for width in widths],
        "num_res_blocks": shape.count("encoder.down.0.block.{}.conv1.weight"),
    }
    converted = vq_tokenizer.convert_official_state(state)
    notes: tuple[str, ...] = ()
    if len(converted) < len(state):
        notes = (f"{len(state) - len(converted)} tensors of the training loss (loss.*) are left out",)
    return build(Plan("vqgan", arguments, vq_tokenizer.VQTokenizer, converted, notes), path)


def inception_network(state: Mapping[str, Tensor], path: Path) -> ImportedNetwork:
    """FID's Inception-v3.

    Raises:
        UserError: see `nat_network`; also if these are the weights of another Inception-v3.
    """
    converted = inception.convert_official_state(state)
    return build(Plan("inception", {}, inception.InceptionV3, converted), path)


def image_reward_of(state: Mapping[str, Tensor], path: Path) -> ImportedNetwork:
    """ImageReward's network; attention heads are 64 wide, as in the published one.

    Raises:
        UserError: see `nat_network`.
    """
    shape = Shapes(state, path)
    vision, text = "blip.visual_encoder", "blip.text_encoder"
    vision_width, _, patch_size, _ = shape(f"{vision}.patch_embed.proj.weight", 4)
    num_patches = shape(f"{vision}.pos_embed", 3)[1] - 1
    vocab_size, text_width = shape(f"{text}.embeddings.word_embeddings.weight", 2)
    layers = [number for number in range(8) if f"mlp.layers.{number}.weight" in state]
    arguments = {
        "image_size": root_of(num_patches, "patches of an image", path) * patch_size,
        "patch_size": patch_size,
        "vision_width": vision_width,
        "vision_depth": shape.count(vision + ".blocks.{}.norm1.weight"),
        "vision_heads": max(1, vision_width // _HEAD_WIDTH),
        "vocab_size": vocab_size,
        "max_positions": shape(f"{text}.embeddings.position_embeddings.weight", 2)[0],
        "text_width": text_width,
        "text_depth": shape.count(text + ".encoder.layer.{}.attention.self.query.weight"),
        "text_heads": max(1, text_width // _HEAD_WIDTH),
        "mlp_widths": [shape(f"mlp.layers.{number}.weight", 2)[0] for number in layers[:-1]],
    }
    converted = image_reward_network.convert_official_state(state)
    plan = Plan(IMAGE_REWARD_KIND, arguments, image_reward_network.ImageRewardNetwork, converted)
    return build(plan, path)


def dino_network(state: Mapping[str, Tensor], path: Path) -> ImportedNetwork:
    """DINO's vision transformer, whose features are taken at a quarter, half, three quarters and the end of its depth.

    Raises:
        UserError: see `nat_network`.
    """
    shape = Shapes(state, path)
    width, _, patch_size, _ = shape("patch_embed.proj.weight", 4)
    num_patches = shape("pos_embed", 3)[1] - 1
    depth = shape.count("blocks.{}.norm1.weight")
    arguments = {
        "image_size": root_of(num_patches, "patches of an image", path) * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": depth,
        "num_heads": max(1, width // _HEAD_WIDTH),
        "hooks": [quarter * depth // 4 - 1 for quarter in range(1, 5)],
    }
    return build(Plan(dino.DINO_KIND, arguments, dino.DinoFeatures, dino.convert_official_state(state)), path)


def aesthetic_head(state: Mapping[str, Tensor], path: Path) -> ImportedNetwork:
    """A head of linear layers that rates image embeddings, such as LAION's.

    Raises:
        UserError: see `nat_network`.
    """
    if state.keys() == {"weight", "bias"}:
        state = {f"layers.0.{name}": tensor for name, tensor in state.items()}
    shape = Shapes(state, path)
    numbers = aesthetic.layer_numbers(state)
    widths = [shape(f"layers.{number}.weight", 2) for number in numbers or [0]]
    arguments = {"numbers": numbers, "widths": [widths[0][1], *(width for width, _ in widths)]}
    return build(Plan(aesthetic.AESTHETIC_KIND, arguments, aesthetic.AestheticHead, state), path)


def network_of(
    kind: Kind, state: Mapping[str, Tensor], path: Path, *, num_heads: int | None, image_size: int | None
) -> ImportedNetwork:
    """The network of a checkpoint that holds one.

    Raises:
        UserError: see `nat_network`.
    """
    builders: dict[str, Callable[[], ImportedNetwork]] = {
        "nat": lambda: nat_network(state, path, num_heads),
        "tokenizer": lambda: tokenizer_network(state, path, image_size or DEFAULT_IMAGE_SIZE),
        "image_reward": lambda: image_reward_of(state, path),
        "inception": lambda: inception_network(state, path),
        "dino": lambda: dino_network(state, path),
        "aesthetic": lambda: aesthetic_head(state, path),
    }
    return builders[kind]()


class Shapes:
    """Shapes of a state dict's tensors, with a clear word where one is missing."""

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        self._state = state
        self._path = path

    def __call__(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of a tensor that has `rank` dimensions."""
        tensor = self._state.get(name)
        if tensor is None:
            raise UserError(f"{self._path} lacks {name}, which tells sizes of the network")
        if tensor.dim() != rank or 0 in tensor.shape:
            raise UserError(f"{self._path}: {name} has shape {list(tensor.shape)}, expected {rank} dimensions")
        return tuple(tensor.shape)

    def count(self, pattern: str) -> int:
        """How many of numbered names are there, from 0 on."""
        return next(number for number in count() if pattern.format(number) not in self._state)


def root_of(number: int, what: str, path: Path) -> int:
    """The side of a square of `number` things.

    Raises:
        UserError: it is none.
    """
    root = math.isqrt(number)
    if root**2 != number:
        raise UserError(f"{path} has {number} {what}, expected a square")
    return root


def build(plan: Plan, path: Path, what: str = "") -> ImportedNetwork:
    """The network of a plan after every check of its tensors.

    Args:
        what: its name in messages; by default that of its class.

    Raises:
        UserError: a tensor is missing, too many, of another shape or type, or not finite.
    """
    name = what or plan.network_class.__name__
    try:
        with torch.device("meta"):
            network = plan.network_class(**plan.arguments)
    except ValueError as error:
        raise UserError(f"{path}: no {name} has these sizes: {error}") from None
    wanted = network.state_dict()
    _check_names(plan.state, wanted, path, name)
    state, converted, storages = {}, set(), set[int]()
    for key, target in wanted.items():
        tensor = plan.state[key]
        if tensor.layout != torch.strided or tensor.is_meta:
            kind = "a tensor without values" if tensor.is_meta else "a sparse tensor"
            raise UserError(f"{path} does not fit a {name}: {key} is {kind}")
        if tensor.dtype != target.dtype and tensor.is_floating_point() and target.is_floating_point():
            converted.add(str(tensor.dtype).removeprefix("torch."))
            tensor = tensor.to(target.dtype)
        state[key] = _own(tensor, storages)
    _check_values(state, wanted, path, name)
    network.load_state_dict(state, assign=True)
    notes = plan.notes
    if converted:
        notes = (*notes, f"{', '.join(sorted(converted))} was converted to float32")
    return ImportedNetwork(plan.kind, plan.arguments, network.eval().requires_grad_(False), notes)


def _own(tensor: Tensor, storages: set[int]) -> Tensor:
    """A tensor that shares its memory with no other: a file is not written of views, nor of one tensor twice."""
    storage = tensor.untyped_storage()
    if not tensor.is_contiguous() or storage.nbytes() != tensor.nbytes or storage.data_ptr() in storages:
        return tensor.clone(memory_format=torch.contiguous_format)
    storages.add(storage.data_ptr())
    return tensor


def _check_names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, name: str) -> None:
    problems = []
    missing = [key for key in wanted if key not in state]
    extra = [key for key in state if key not in wanted]
    if missing:
        problems.append(f"lacks {len(missing)} of its {len(wanted)} tensors: {_listed(missing)}")
    if extra:
        problems.append(f"has {len(extra)} too many: {_listed(extra)}")
    if problems:
        raise UserError(f"{path} does not fit a {name}: it {'; it '.join(problems)}")


def _check_values(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, name: str) -> None:
    others = [
        f"{key} is {_looks(state[key])} instead of {_looks(target)}"
        for key, target in wanted.items()
        if (state[key].shape, state[key].dtype) != (target.shape, target.dtype)
    ]
    if others:
        raise UserError(f"{path} does not fit a {name}: {_listed(others)}")
    bad = [key for key, tensor in state.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    if bad:
        raise UserError(f"{path} holds values that are no finite numbers, in {_listed(bad)}")


def _looks(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:_NUM_SHOWN]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
