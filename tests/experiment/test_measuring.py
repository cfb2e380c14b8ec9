"""Costs on the meta device against formulas, and against torch's own counter on real tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adanat_rl.experiment.measuring import measure, num_parameters, weight_bytes
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer

META = torch.device("meta")


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device=META)


def test_a_multiplication_and_an_addition_are_two_operations() -> None:
    layer = nn.Linear(30, 50, device=META)
    assert measure(lambda: layer(empty(7, 30))).flops == 2 * 7 * 30 * 50
    convolution = nn.Conv2d(3, 8, 5, stride=2, padding=2, device=META)
    assert measure(lambda: convolution(empty(4, 3, 16, 16))).flops == 2 * 4 * 8 * 8 * (3 * 25) * 8


def test_attention_is_counted_and_needs_no_matrix_of_weights() -> None:
    heads, length, width = 2, 1024, 32
    cost = measure(lambda: functional.scaled_dot_product_attention(*(empty(1, heads, length, width) for _ in range(3))))
    assert cost.flops == 2 * 2 * heads * length**2 * width
    assert cost.peak_bytes < 4 * heads * length**2


def test_gradients_of_inputs_and_weights_cost_as_much_as_the_call_each() -> None:
    layers = nn.Sequential(nn.Linear(20, 30, device=META), nn.Linear(30, 10, device=META))
    first, second = 2 * 5 * 20 * 30, 2 * 5 * 30 * 10
    assert measure(lambda: layers(empty(5, 20)).sum(), with_gradients=True).flops == 2 * first + 3 * second
    assert measure(lambda: layers(empty(5, 20)).sum().backward(), with_gradients=True).flops == 2 * first + 3 * second


def test_the_peak_is_what_lives_at_once_and_not_the_sum() -> None:
    given = empty(1000)

    def chain(steps: int) -> Tensor:
        x = given
        for _ in range(steps):
            x = x + 1
        return x

    assert measure(lambda: chain(1)).peak_bytes == 4000
    assert measure(lambda: chain(10)).peak_bytes == 8000
    assert measure(lambda: [chain(1) for _ in range(10)]).peak_bytes == 40_000


@pytest.mark.parametrize("context", ["class", "text"])
def test_a_nat_costs_what_torch_counts_on_real_tensors(context: str) -> None:
    choice = {"num_classes": 5} if context == "class" else {"text_width": 12}
    arguments = {"vocab_size": 20, "grid_size": 4, "width": 32, "depth": 4, "num_heads": 4, **choice}
    tokens = torch.zeros(3, 16, dtype=torch.long)
    given = torch.zeros(3, dtype=torch.long) if context == "class" else torch.zeros(3, 77, 12)
    real = UViTNAT(**arguments).requires_grad_(False)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        real(tokens, given)
    with META:
        shape = UViTNAT(**arguments).requires_grad_(False)
    assert measure(lambda: shape(tokens.to(META), given.to(META))).flops == counter.get_total_flops() > 0
    assert num_parameters(shape) == sum(parameter.numel() for parameter in real.parameters())


def test_a_tokenizer_costs_what_torch_counts_on_real_tensors() -> None:
    arguments = {"vocab_size": 16, "image_size": 32, "code_width": 8, "base_width": 32, "width_multipliers": (1, 2)}
    real = VQTokenizer(**arguments).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        real.decode(torch.zeros(2, 256, dtype=torch.long))
    with META:
        shape = VQTokenizer(**arguments).requires_grad_(False)
    assert measure(lambda: shape.decode(empty(2, 256, dtype=torch.long))).flops == counter.get_total_flops() > 0


def test_weights_count_in_the_dtype_that_they_will_have() -> None:
    layer = nn.BatchNorm1d(10, device=META)  # 4 × 10 floats and a counter of 8 bytes
    assert weight_bytes(layer) == 4 * 40 + 8
    assert weight_bytes(layer, torch.bfloat16) == 2 * 40 + 8
    assert num_parameters(layer) == 20
