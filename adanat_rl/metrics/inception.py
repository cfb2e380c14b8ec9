"""The Inception-v3 network of FID (TensorFlow's of 2015, 1008 classes) and the extractor that puts images through it.

Layout: images `[B, 3, H, W]`; features `[B, 2048]` after the global mean; logits `[B, 1008]` without the bias of the
last layer, as the Inception score has them. The network differs from the textbook one in its pooling: means do not
count the padding, and the last block takes maxima. Names of the tensors are those of the published weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.generation.weights import share_network
from adanat_rl.metrics.resize import TORCH_FIDELITY, check_convention, prepare

NUM_FEATURES = 2048
NUM_LOGITS = 1008


class _Conv(NamedTuple):
    """One convolution of a branch; padded to keep the size unless it has stride 2."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


class _Pool(NamedTuple):
    """A 3 × 3 pooling of a branch."""

    kind: str  # "mean" or "max", both of stride 1 and padded; "half": max of stride 2 without padding


_Step = _Conv | _Pool | tuple[_Conv, _Conv]  # a pair: both see the same input, their outputs are joined
_Branch = tuple[_Step, ...]


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm (eps 1e-3), ReLU."""

    def __init__(
        self, width_in: int, width: int, kernel: tuple[int, int], stride: int = 1, padding: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, width, H', W']`."""
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Branches over one input, joined along the channels.

    Args:
        width_in: channels of the input. branches: what each does, first step first.
    """

    def __init__(self, width_in: int, branches: tuple[_Branch, ...]) -> None:
        super().__init__()
        self._branches = branches
        self.width = 0
        for branch in branches:
            width = width_in
            for step in branch:
                if isinstance(step, _Pool):
                    continue
                convs = (step,) if isinstance(step, _Conv) else step
                for conv in convs:
                    same = (conv.kernel[0] // 2, conv.kernel[1] // 2) if conv.stride == 1 else (0, 0)
                    self.add_module(conv.name, ConvNorm(width, conv.width, conv.kernel, conv.stride, same))
                width = sum(conv.width for conv in convs)
            self.width += width

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width_in, H, W]` to `[B, width, H', W']`."""
        return torch.cat([self._run(branch, x) for branch in self._branches], dim=1)

    def _run(self, branch: _Branch, x: Tensor) -> Tensor:
        for step in branch:
            if isinstance(step, _Conv):
                x = self.get_submodule(step.name)(x)
            elif isinstance(step, _Pool):
                x = _pool(x, step.kind)
            else:
                x = torch.cat([self.get_submodule(conv.name)(x) for conv in step], dim=1)
        return x


def _pool(x: Tensor, kind: str) -> Tensor:
    if kind == "half":
        return functional.max_pool2d(x, 3, stride=2)
    if kind == "max":
        return functional.max_pool2d(x, 3, stride=1, padding=1)
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _block_35(pool_width: int) -> tuple[_Branch, ...]:
    """Blocks at 35 × 35."""
    return (
        (_Conv("branch1x1", 64),),
        (_Conv("branch5x5_1", 48), _Conv("branch5x5_2", 64, (5, 5))),
        (_Conv("branch3x3dbl_1", 64), _Conv("branch3x3dbl_2", 96, (3, 3)), _Conv("branch3x3dbl_3", 96, (3, 3))),
        (_Pool("mean"), _Conv("branch_pool", pool_width)),
    )


_TO_17: tuple[_Branch, ...] = (
    (_Conv("branch3x3", 384, (3, 3), 2),),
    (_Conv("branch3x3dbl_1", 64), _Conv("branch3x3dbl_2", 96, (3, 3)), _Conv("branch3x3dbl_3", 96, (3, 3), 2)),
    (_Pool("half"),),
)


def _block_17(width: int) -> tuple[_Branch, ...]:
    """Blocks at 17 × 17."""
    return (
        (_Conv("branch1x1", 192),),
        (_Conv("branch7x7_1", width), _Conv("branch7x7_2", width, (1, 7)), _Conv("branch7x7_3", 192, (7, 1))),
        (
            _Conv("branch7x7dbl_1", width),
            _Conv("branch7x7dbl_2", width, (7, 1)),
            _Conv("branch7x7dbl_3", width, (1, 7)),
            _Conv("branch7x7dbl_4", width, (7, 1)),
            _Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (_Pool("mean"), _Conv("branch_pool", 192)),
    )


_TO_8: tuple[_Branch, ...] = (
    (_Conv("branch3x3_1", 192), _Conv("branch3x3_2", 320, (3, 3), 2)),
    (
        _Conv("branch7x7x3_1", 192),
        _Conv("branch7x7x3_2", 192, (1, 7)),
        _Conv("branch7x7x3_3", 192, (7, 1)),
        _Conv("branch7x7x3_4", 192, (3, 3), 2),
    ),
    (_Pool("half"),),
)


def _block_8(pool: str) -> tuple[_Branch, ...]:
    """Blocks at 8 × 8."""
    return (
        (_Conv("branch1x1", 320),),
        (_Conv("branch3x3_1", 384), (_Conv("branch3x3_2a", 384, (1, 3)), _Conv("branch3x3_2b", 384, (3, 1)))),
        (
            _Conv("branch3x3dbl_1", 448),
            _Conv("branch3x3dbl_2", 384, (3, 3)),
            (_Conv("branch3x3dbl_3a", 384, (1, 3)), _Conv("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (_Pool(pool), _Conv("branch_pool", 192)),
    )


_MIXED: dict[str, tuple[_Branch, ...]] = {
    "5b": _block_35(32),
    "5c": _block_35(64),
    "5d": _block_35(64),
    "6a": _TO_17,
    "6b": _block_17(128),
    "6c": _block_17(160),
    "6d": _block_17(160),
    "6e": _block_17(192),
    "7a": _TO_8,
    "7b": _block_8("mean"),
    "7c": _block_8("max"),
}


class InceptionV3(nn.Module):
    """The network alone, frozen: input `[B, 3, 299, 299]` that `resize.prepare` made.

    Batch norms always use their stored statistics: `train` is without effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, (3, 3), padding=(1, 1))
        self.MaxPool_1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, (3, 3))
        self.MaxPool_2 = nn.MaxPool2d(3, stride=2)
        width = 192
        for name, branches in _MIXED.items():
            block = Mixed(width, branches)
            self.add_module(f"Mixed_{name}", block)
            width = block.width
        self.fc = nn.Linear(NUM_FEATURES, NUM_LOGITS)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[B, 2048]` and logits `[B, 1008]` without bias."""
        for layer in self.children():
            if layer is not self.fc:
                x = layer(x)
        features = x.mean(dim=(2, 3))
        return features, functional.linear(features, self.fc.weight)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: a metric that wraps the network switches it."""
        return super().train(False)


class InceptionExtractor(nn.Module):
    """Images in, features out, under one resize convention: what torchmetrics' FID and KID take as `feature`.

    Mixed precision around it is switched off, so that features do not depend on where they are taken.

    Args:
        network: with its weights; it may be shared. convention: one of `resize.CONVENTIONS`.
    """

    name = "Inception-v3"
    num_features = NUM_FEATURES

    def __init__(self, network: InceptionV3, convention: str = TORCH_FIDELITY) -> None:
        super().__init__()
        check_convention(convention)
        self.network = network
        self.convention = convention

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, 2048]` of images `[B, 3, H, W]`, float in [0, 1] or uint8."""
        return self.features_and_logits(images)[0]

    def logits(self, images: Tensor) -> Tensor:
        """Logits `[B, 1008]` without bias."""
        return self.features_and_logits(images)[1]

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one pass: `[B, 2048]` and `[B, 1008]`."""
        with torch.autocast(images.device.type, enabled=False):
            x = prepare(images, self.convention)
            return self.network(x.to(self.network.fc.weight.dtype))

    def content_hash(self) -> str:
        """Hash of the weights: tells whose features stored statistics are."""
        return network_hash(self.network)


class InceptionLogits(nn.Module):
    """The same extractor with its logits in front: what torchmetrics' InceptionScore takes as `feature`."""

    num_features = NUM_LOGITS

    def __init__(self, extractor: InceptionExtractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, 1008]` of images `[B, 3, H, W]`, float in [0, 1] or uint8."""
        return self.extractor.logits(images)


def load_extractor(path: Path, convention: str = TORCH_FIDELITY, device: str = "cpu") -> InceptionExtractor:
    """The extractor with the weights of a file of kind `inception`, shared in this process.

    Raises:
        UserError: the file is none, or the convention unknown.
    """
    return InceptionExtractor(cast(InceptionV3, share_network(path, {"inception": InceptionV3}, device)), convention)


def network_hash(network: nn.Module) -> str:
    """SHA-256 over names, shapes and float values of a network's tensors; not over counters of training steps."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            digest.update(f"{name} {list(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy())
    return digest.hexdigest()


def convert_official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `InceptionV3` from that of `pt_inception-2015-12-05-6726825d.pth`.

    Names are the same. The counters of the batch norms, which old files lack, are added, an auxiliary classifier is
    left out, and floats become float32. Whether anything else is missing or too many is for the loader to say.

    Raises:
        UserError: these are the weights of another Inception-v3.
    """
    found = list(state["fc.weight"].shape) if "fc.weight" in state else None
    if found != [NUM_LOGITS, NUM_FEATURES]:
        what = "there is none" if found is None else f"it is {found}"
        hint = "; torchvision's own weights are another network" if found == [1000, NUM_FEATURES] else ""
        raise UserError(f"FID's Inception-v3 has an fc.weight of [{NUM_LOGITS}, {NUM_FEATURES}], but {what}{hint}")
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("AuxLogits."):
            continue
        converted[name] = tensor.float() if tensor.is_floating_point() else tensor
        if name.endswith(".bn.running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            converted[counter] = state.get(counter, torch.zeros((), dtype=torch.int64))
    return converted
