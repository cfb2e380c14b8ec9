from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from adanat_rl.generation.policies.network import PolicyNet
from tests.contracts.fill import noise
from tests.contracts.parity import ParityModule, fill_network

MODULE = ParityModule("policy")
NETWORKS = list(MODULE.description["constructor"])


def build(name: str) -> PolicyNet:
    description = MODULE.description
    network = PolicyNet(**description["constructor"][name])
    fill_network(network, description["state"][name], description["seed"][name], description["overrides"][name])
    return network


def inputs(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    width = MODULE.description["constructor"][name]["in_channels"]
    return torch.from_numpy(noise("policy.feat", (4, 256, width))), MODULE.tensor("timestep")


@pytest.mark.parametrize("name", NETWORKS)
def test_number_of_parameters_is_the_official_one(name: str) -> None:
    network = PolicyNet(**MODULE.description["constructor"][name])
    assert sum(p.numel() for p in network.parameters()) == MODULE.description["n_params"][name]


@pytest.mark.parametrize("name", NETWORKS)
def test_output_is_that_of_the_official_network(name: str) -> None:
    with torch.no_grad():
        MODULE.check(name, build(name)(*inputs(name)))


def test_intermediate_values_are_those_of_the_official_network() -> None:
    network = build("actor768")
    seen: dict[str, torch.Tensor] = {}
    for layer in ("t_embedder", "dw_conv", "pw_conv", "linear2"):
        network.get_submodule(layer).register_forward_hook(
            lambda module, args, output, layer=layer: seen.__setitem__(layer, output)
        )
    with torch.no_grad():
        network(*inputs("actor768"))
    MODULE.check("actor768_t_emb", seen["t_embedder"])
    MODULE.check("actor768_dw_conv", seen["dw_conv"][:, :16])
    MODULE.check("actor768_pw_conv", seen["pw_conv"][:, :16])
    MODULE.check("actor768_linear2", seen["linear2"][:, :64])


def test_every_stored_output_is_compared() -> None:
    intermediate = {"actor768_t_emb", "actor768_dw_conv", "actor768_pw_conv", "actor768_linear2"}
    assert MODULE.outputs() == set(NETWORKS) | intermediate


def test_a_wrong_norm_eps_is_noticed() -> None:
    network = build("eps_probe")
    for layer in (network.adaLN1, network.adaLN2, network.adaLN3):
        layer.norm.eps = 1e-5
    with torch.no_grad(), pytest.raises(AssertionError, match="eps_probe"):
        MODULE.check("eps_probe", network(*inputs("eps_probe")))


def number_of_parameters(in_channels: int, out_channels: int, hidden: int, grid_size: int) -> int:
    """Counted layer by layer from the description of the network."""
    shrunk = (grid_size + 1) // 2
    embedders = (in_channels + 1) * hidden + (256 + 1) * hidden + (hidden + 1) * hidden
    modulations = (hidden + 1) * 2 * (hidden + 2 * hidden + hidden)
    convolutions = (9 + 1) * hidden + (hidden + 1) * (hidden // 4)
    linears = (shrunk**2 * (hidden // 4) + 1) * 2 * hidden + (2 * hidden + 1) * hidden + (hidden + 1) * out_channels
    return embedders + modulations + convolutions + linears


@pytest.mark.parametrize("grid_size", [4, 7, 16, 32])
def test_number_of_parameters_for_any_grid_agrees_with_a_count_by_hand(grid_size: int) -> None:
    with torch.device("meta"):
        network = PolicyNet(768, 4, grid_size=grid_size)
    assert sum(p.numel() for p in network.parameters()) == number_of_parameters(768, 4, 512, grid_size)


def test_the_count_by_hand_is_the_official_one_for_its_grid() -> None:
    assert number_of_parameters(768, 4, 512, 16) == MODULE.description["n_params"]["actor768"]


def reference_output(network: PolicyNet, features: np.ndarray, step: int, grid_size: int) -> np.ndarray:
    """The network for one image in float64 NumPy: `[L, C]` → `[A]`."""
    p = {name: value.double().numpy() for name, value in network.state_dict().items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * special.ndtr(x)

    def silu(x: np.ndarray) -> np.ndarray:
        return x * special.expit(x)

    def modulated(x: np.ndarray, name: str) -> np.ndarray:
        shift, scale = np.split(linear(silu(condition), f"{name}.adaLN_modulation.1"), 2)
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * (1 + scale) + shift

    angles = step * 10_000.0 ** (-np.arange(128) / 128)
    condition = linear(
        silu(linear(np.concatenate([np.cos(angles), np.sin(angles)]), "t_embedder.mlp.0")), "t_embedder.mlp.2"
    )
    maps = modulated(linear(features, "x_embedder"), "adaLN1").reshape(grid_size, grid_size, -1)
    padded = np.pad(maps, ((1, 1), (1, 1), (0, 0)))
    kernel = p["dw_conv.weight"][:, 0].transpose(1, 2, 0)  # [3, 3, H]
    shrunk = range(0, grid_size, 2)
    conv = np.array([[(padded[y : y + 3, x : x + 3] * kernel).sum((0, 1)) for x in shrunk] for y in shrunk])
    hidden = gelu(conv + p["dw_conv.bias"])
    hidden = gelu(hidden @ p["pw_conv.weight"][:, :, 0, 0].T + p["pw_conv.bias"])
    hidden = gelu(modulated(linear(hidden.transpose(2, 0, 1).ravel(), "linear1"), "adaLN2"))
    hidden = gelu(modulated(linear(hidden, "linear2"), "adaLN3"))
    return linear(hidden, "linear3")


@pytest.mark.parametrize("grid_size", [7, 16, 32])
def test_output_for_any_grid_agrees_with_numpy(grid_size: int) -> None:
    generator = torch.Generator().manual_seed(grid_size)
    network = PolicyNet(12, 4, hidden_size=16, grid_size=grid_size)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 4) ** 0.5)
        features = torch.randn(3, grid_size**2, 12, generator=generator)
        found = network(features, torch.tensor([0, 3, 7]))
    expected = [
        reference_output(network, f.double().numpy(), t, grid_size) for f, t in zip(features, (0, 3, 7), strict=True)
    ]
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-4, atol=1e-5)
