"""A network and its optimizer as named tensors, so that a training fits into a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim import Optimizer


def training_tensors(name: str, network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Copies of a network's tensors, called `NAME.…`, and of its optimizer's slots, such as `optimizer.exp_avg.…`.

    Args:
        optimizer: of `network.parameters()`.
    """
    names = [key for key, _ in network.named_parameters()]
    slots = {
        f"{slot}.{names[index]}": value.clone()
        for index, found in optimizer.state_dict()["state"].items()
        for slot, value in found.items()
    }
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    return with_prefix(f"{name}.", weights) | with_prefix("optimizer.", slots)


def restore_training(name: str, network: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts what `training_tensors` gave back; the optimizer's settings stay."""
    network.load_state_dict(part_of(tensors, f"{name}."))
    names = [key for key, _ in network.named_parameters()]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in part_of(tensors, "optimizer.").items():
        slot, _, parameter = key.partition(".")
        slots.setdefault(names.index(parameter), {})[slot] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Gives all parameter groups the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under names that begin with `prefix`."""
    return {prefix + name: value for name, value in tensors.items()}


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
