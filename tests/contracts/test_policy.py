from __future__ import annotations

import pytest
import torch

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
