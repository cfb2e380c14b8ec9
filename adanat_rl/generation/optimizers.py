"""The state of an optimizer as named tensors, so that it fits into a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer


def parameter_names(network: nn.Module) -> list[str]:
    """Names of the parameters in the order in which an optimizer of `network.parameters()` numbers them."""
    return [name for name, _ in network.named_parameters()]


def optimizer_tensors(optimizer: Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """Copies of the slots of all parameters, called `SLOT.NAME`, such as `exp_avg.blocks.0.weight`.

    Args:
        names: of the parameters, in the optimizer's order.
    """
    return {
        f"{slot}.{names[index]}": value.clone()
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def restore_optimizer(optimizer: Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Puts the slots of `optimizer_tensors` into an optimizer of the same parameters; its settings stay."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        slot, _, name = key.partition(".")
        slots.setdefault(names.index(name), {})[slot] = value.clone()
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
