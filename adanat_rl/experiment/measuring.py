"""What a network costs, measured on the meta device: arithmetic and memory of a call, without weights and in no time.

Tensors there have shapes and no content, so a call of the largest network takes milliseconds. Operations are counted by
the formulas of `torch.utils.flop_counter` (a multiplication and an addition are two), memory as the most bytes of
results that live at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Cost:
    """One call.

    Args:
        flops: operations of its matrix products, convolutions and attention; everything else is small beside them.
        peak_bytes: results and intermediate results that are alive at once, at most; weights and inputs apart.
    """

    flops: float
    peak_bytes: int


def measure(call: Callable[[], object], *, with_gradients: bool = False) -> Cost:
    """The cost of a call that works on meta tensors alone.

    Args:
        with_gradients: whether the call may go backward; the backward pass of a scalar that it returns belongs to it.
    """
    counter = _Counter()
    with torch.set_grad_enabled(with_gradients), _FusedAttention(), counter:
        result = call()
        if with_gradients and isinstance(result, Tensor):
            result.backward()
        del result
    return Cost(counter.flops, counter.peak)


def num_parameters(network: nn.Module) -> int:
    """Parameters, buffers apart."""
    return sum(parameter.numel() for parameter in network.parameters())


def weight_bytes(network: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Bytes of parameters and buffers, floating ones in another type if one is given."""
    tensors = [*network.parameters(), *network.buffers()]
    sizes = [(dtype if dtype and t.is_floating_point() else t.dtype).itemsize for t in tensors]
    return sum(tensor.numel() * size for tensor, size in zip(tensors, sizes, strict=True))


class _Counter(TorchDispatchMode):
    """Adds up operations, and follows which storages are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0
        self.peak = 0
        self._alive: dict[int, int] = {}
        self._now = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # transformers asks whether a mask holds everywhere: a value, which no tensor has here
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._alive:
            return
        self._alive[id(storage)] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, id(storage))

    def _gone(self, key: int) -> None:
        self._now -= self._alive.pop(key)


class _FusedAttention(TorchFunctionMode):
    """Attention as fused kernels do it: the meta device would fall back to the whole matrix of weights."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is functional.scaled_dot_product_attention and len(args) == 3 and named.get("attn_mask") is None:
            dropout, causal = named.get("dropout_p", 0.0), named.get("is_causal", False)
            return torch.ops.aten._scaled_dot_product_flash_attention(*args, dropout, causal)[0]
        return func(*args, **named)
