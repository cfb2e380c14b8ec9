from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.generation.masked.uvit import UViTNAT, convert_official_state
from tests.contracts.fill import noise
from tests.contracts.parity import ParityModule, fill_network

SMALL = ("nat_class_small", "nat_text_small")
FULL = "nat_class_full"
MODULES = {name: ParityModule(name) for name in (*SMALL, FULL)}
TAPS = ("in_block0", "mid_block", "out_block0", "out_block_last")


def build(name: str, **changes: Any) -> UViTNAT:
    """Our network of an official constructor's arguments, filled by rule."""
    description = MODULES[name].description
    official = description["constructor"]
    classes = official.get("num_classes")  # with the null class
    arguments = {
        "vocab_size": official["codebook_size"],
        "grid_size": official["img_size"],
        "width": official["embed_dim"],
        "depth": official["depth"],
        "num_heads": official["num_heads"],
        "mlp_ratio": official.get("mlp_ratio", 4),
        "qkv_bias": official.get("qkv_bias", False),
        "num_classes": None if classes is None else classes - 1,
        "text_width": official.get("clip_dim"),
    }
    network = UViTNAT(**{**arguments, **changes})
    fill_network(network, description["state"], description["seed"], description["overrides"])
    return network


def inputs(name: str) -> tuple[Tensor, Tensor]:
    tokens, context = MODULES[name].tensor("masked_ids"), MODULES[name].tensor("context")
    return tokens, context[:, 0] if context.dim() == 2 else context


def watched(network: UViTNAT) -> dict[str, Tensor]:
    """Outputs of four blocks, filled in by the next forward pass."""
    blocks = (network.in_blocks[0], network.mid_block, network.out_blocks[0], network.out_blocks[-1])
    seen: dict[str, Tensor] = {}
    for name, block in zip(TAPS, blocks, strict=True):
        block.register_forward_hook(lambda module, args, output, name=name: seen.__setitem__(name, output))
    return seen


def check_small(name: str, network: UViTNAT) -> set[str]:
    """Compares everything and says what."""
    seen = watched(network)
    with torch.no_grad():
        seen["logits"], seen["feat"] = network(*inputs(name))
    for output, values in seen.items():
        MODULES[name].check(output, values)
    return set(seen)


@pytest.mark.parametrize("name", SMALL)
def test_every_stored_output_is_that_of_the_official_network(name: str) -> None:
    assert check_small(name, build(name)) == MODULES[name].outputs()


def test_the_stored_text_features_are_those_of_the_fill_rule() -> None:
    context = MODULES["nat_text_small"]["context"]
    np.testing.assert_array_equal(context, noise("nat_text_small.context", context.shape))


@pytest.fixture(scope="module")
def full() -> UViTNAT:
    return build(FULL)


def test_every_stored_output_of_adanat_l_is_that_of_the_official_network(full: UViTNAT) -> None:
    module, seen, compared = MODULES[FULL], watched(full), set()
    runs = ("c207", "null")
    labels = torch.cat([module.tensor(f"context_{run}")[0] for run in runs])
    with torch.no_grad():
        logits, features = full(module.tensor("masked_ids").expand(len(runs), -1), labels)

    def check(name: str, values: np.ndarray) -> None:
        module.check(name, values)
        compared.add(name)

    for row, run in enumerate(runs):
        for kind, values in (("logits", logits[row].numpy()), ("feat", features[row].numpy())):
            check(f"{kind}_{run}_tok0_7", values[:8])
            check(f"{kind}_{run}_tokmean", values.mean(1, dtype=np.float64))
            check(f"{kind}_{run}_tokstd", values.std(1, dtype=np.float64))
            check(f"{kind}_{run}_tokmax", values.max(1))
        check(f"argmax_{run}", logits[row].argmax(1).numpy())
        for tap in ("in_block0", "mid_block", "out_block_last"):
            check(f"{tap}_{run}_ctx_tok", seen[tap][row, :2].numpy())
    assert compared == module.outputs()
    assert min(module[f"argmax_gap_{run}"].min() for run in runs) > 5e-4  # so the argmax is binding everywhere


def test_number_of_parameters_is_the_official_one(full: UViTNAT) -> None:
    for name, network in ((FULL, full), *((name, build(name)) for name in SMALL)):
        assert sum(p.numel() for p in network.parameters()) == MODULES[name].description["n_params"]


def test_adanat_l_has_a_null_class_after_its_thousand(full: UViTNAT) -> None:
    assert full.num_classes == MODULES[FULL]["context_null"].item() == 1000


@pytest.mark.parametrize("name", SMALL)
def test_eps_of_every_norm_is_the_official_one(name: str) -> None:
    """Read off the layers, because a wrong eps of a single norm may stay below the tolerance of the outputs."""
    found: dict[str, set[str]] = {}
    for layer, module in build(name).named_modules():
        if isinstance(module, nn.LayerNorm):
            found.setdefault(f"LayerNorm eps {module.eps:g}", set()).add(re.sub(r"\d+", "*", layer))
    assert found == {kind: set(layers) for kind, layers in MODULES[name].description["norms"].items()}


def other_embedding_eps(network: UViTNAT) -> None:
    network.token_emb.LayerNorm.eps = 1e-5


def far_too_large_eps(network: UViTNAT) -> None:
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-4


def reversed_skips(network: UViTNAT) -> None:
    outputs: list[Tensor] = []
    for block in network.in_blocks:
        block.register_forward_hook(lambda module, args, output: outputs.append(output))
    for index, block in enumerate(network.out_blocks):
        block.register_forward_pre_hook(lambda module, args, index=index: (args[0], outputs[index]))


def context_last(network: UViTNAT) -> None:
    """Moves the context behind the image tokens; its own states come first in what is read."""
    network.in_blocks[0].register_forward_pre_hook(lambda module, args: (args[0].roll(-1, dims=1),))


@pytest.mark.parametrize("mistake", [other_embedding_eps, far_too_large_eps, reversed_skips, context_last])
@pytest.mark.parametrize("name", SMALL)
def test_a_mistake_is_noticed(name: str, mistake: Callable[[UViTNAT], None]) -> None:
    network = build(name)
    mistake(network)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_small(name, network)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("num_heads", [1, 2, 8])
def test_a_wrong_number_of_heads_is_noticed(name: str, num_heads: int) -> None:
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_small(name, build(name, num_heads=num_heads))


@pytest.mark.parametrize("name", SMALL)
def test_another_gelu_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "gelu", partial(functional.gelu, approximate="tanh"))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_small(name, build(name))


def test_official_names_are_ours_but_for_position_ids() -> None:
    network = build("nat_class_small")
    state = network.state_dict()
    official = {**state, "token_emb.position_ids": torch.arange(16)[None], "context_embed.position_ids": torch.zeros(1)}
    converted = convert_official_state(official)
    assert list(converted) == [row["name"] for row in MODULES["nat_class_small"].description["state"]]
    network.load_state_dict(converted)
