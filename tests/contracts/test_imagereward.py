from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from adanat_rl.metrics.clip_pixels import CLIP_MEAN, CLIP_STD, clip_pixels
from adanat_rl.rewards.image_reward_network import ImageRewardNetwork, convert_official_state
from tests.contracts.fill import digest, filled, noise
from tests.contracts.large_fill import filled_in_blocks
from tests.contracts.parity import ParityModule

MODULE = ParityModule("imagereward")
SIZES = ["256x256", "300x260", "200x180"]
NUM_UNUSED = 5  # two projections, and the position numbers


def image_rule(name: str, shape: tuple[int, int, int, int]) -> np.ndarray:
    batch_size, channels, height, width = shape
    coarse = noise(f"{name}.coarse", (batch_size, channels, height // 16, width // 16))
    coarse = coarse.repeat(16, axis=2).repeat(16, axis=3)
    fine = noise(f"{name}.fine", shape)
    images = np.float32(0.5) + np.float32(0.2) * coarse + np.float32(0.05) * fine
    return images.clip(0, 1)


def official_state(seed: int, overrides: list[list[object]]) -> dict[str, torch.Tensor]:
    rules = [tuple(row) for row in overrides]
    return {
        row["name"]: torch.from_numpy(filled_in_blocks(row["name"], row["shape"], seed, rules))
        if row["fill"] == "rule"
        else torch.arange(row["shape"][1])[None]
        for row in MODULE.description["state"]
    }


def build(seed: int, overrides: list[list[object]]) -> ImageRewardNetwork:
    network = ImageRewardNetwork()
    network.load_state_dict(convert_official_state(official_state(seed, overrides)), assign=True)
    return network.eval().requires_grad_(False)


def pixels() -> torch.Tensor:
    mean, std = (np.float32(values).reshape(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return torch.from_numpy((image_rule("imagereward.image", (2, 3, 224, 224)) - mean) / std)


def record(network: ImageRewardNetwork, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """One pass: the reward and what the layers gave on the way."""
    seen: dict[str, torch.Tensor] = {}

    def keep(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _, __, output: seen.__setitem__(name, output))

    keep(network.visual.encoder.layers[-1], "before_norm")
    keep(network.text.embeddings, "embeddings")
    keep(network.text.encoder.layer[0], "layer0")
    keep(network.text.encoder.layer[-1], "text")
    seen["reward"] = network(pixels(), ids)[:, None]
    seen["image"] = network.visual.post_layernorm(seen["before_norm"])
    return seen


@pytest.fixture(scope="module")
def outputs() -> dict[str, torch.Tensor]:
    network = build(MODULE.description["seed"], MODULE.description["overrides"])
    ids = MODULE.tensor("prompt_ids")
    seen = record(network, ids)
    return {
        "num_params": torch.tensor(sum(p.numel() for p in network.parameters())),
        "image_embeds_tok0_3": seen["image"][:, :4],
        "image_embeds_tokmean": seen["image"].double().mean(dim=-1),
        "embeddings_tok0_3": seen["embeddings"][:, :4],
        "layer0_tok0_3": seen["layer0"][:, :4],
        "text_feature": seen["text"][:, 0],
        "reward": seen["reward"],
        "reward_swapped": network(pixels(), ids.flip(0))[:, None],
        "reward_single": network(pixels()[:1], ids[:1])[:, None],
    }


@pytest.fixture(scope="module")
def eps_probe() -> dict[str, torch.Tensor]:
    probe = MODULE.description["eps_probe"]
    network = build(probe["seed"], probe["overrides"])
    ids = MODULE.tensor("prompt_ids")
    seen = record(network, ids)
    found = {
        "eps_probe_image_embeds": seen["image"][:, :4],
        "eps_probe_emb": seen["embeddings"][:, :4],
        "eps_probe_layer0": seen["layer0"][:, :4],
        "eps_probe_text": seen["text"][:, :4],
    }
    network.visual.post_layernorm.eps = 1e-5
    network.text.embeddings.LayerNorm.eps = 1e-6
    return {
        **found,
        "wrong_image": network.visual.post_layernorm(seen["before_norm"])[:, :4],
        "wrong_embeddings": network.text.embeddings(input_ids=ids)[:, :4],
    }


def test_inputs_are_made_by_the_rule() -> None:
    np.testing.assert_allclose(digest(pixels().numpy()), MODULE["image_digest"], rtol=1e-6)
    ids = MODULE["prompt_ids"]
    np.testing.assert_array_equal(MODULE["attention_mask"], ids != 0)
    values = filled("some.weight", (70000, 3), 801)
    np.testing.assert_array_equal(filled_in_blocks("some.weight", (70000, 3), 801), values)


OUTPUTS = [
    "image_embeds_tok0_3",
    "image_embeds_tokmean",
    "embeddings_tok0_3",
    "layer0_tok0_3",
    "text_feature",
    "reward",
    "reward_swapped",
    "reward_single",
]
PROBES = ["eps_probe_image_embeds", "eps_probe_emb", "eps_probe_layer0", "eps_probe_text"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
def test_output_is_that_of_the_official_network(name: str, outputs: dict[str, torch.Tensor]) -> None:
    MODULE.check(name, outputs[name])


@pytest.mark.slow
def test_number_of_parameters_is_the_official_one_without_the_unused_projections(
    outputs: dict[str, torch.Tensor],
) -> None:
    unused = 256 * (1024 + 1) + 256 * (768 + 1)
    assert outputs["num_params"].item() == MODULE.description["n_params"] - unused


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
def test_norm_eps_is_the_official_one(name: str, eps_probe: dict[str, torch.Tensor]) -> None:
    MODULE.check(name, eps_probe[name])


@pytest.mark.slow
def test_a_wrong_norm_eps_is_noticed(eps_probe: dict[str, torch.Tensor]) -> None:
    with pytest.raises(AssertionError, match="eps_probe_image_embeds"):
        MODULE.check("eps_probe_image_embeds", eps_probe["wrong_image"])
    with pytest.raises(AssertionError, match="eps_probe_emb"):
        MODULE.check("eps_probe_emb", eps_probe["wrong_embeddings"])


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_is_the_official_one(size: str) -> None:
    height, width = map(int, size.split("x"))
    up = [-(-side // 16) * 16 for side in (height, width)]
    images = image_rule(f"irpre.{size}", (1, 3, up[0], up[1]))[:, :, :height, :width]
    eight_bit = np.floor(np.float32(255) * images)
    found = clip_pixels(torch.from_numpy(eight_bit / np.float32(255)), 224)[0]
    MODULE.check(f"pre_{size}_crop", found[:, 100:132, 100:132])
    MODULE.check(f"pre_{size}_stats", np.stack([digest(channel) for channel in found.numpy()]))


def test_every_stored_output_is_compared() -> None:
    pre = {f"pre_{size}_{what}" for size in SIZES for what in ("crop", "stats")}
    assert MODULE.outputs() == {*OUTPUTS, *PROBES, *pre}


def test_official_state_is_converted_without_loss() -> None:
    names = [row["name"] for row in MODULE.description["state"]]
    converted = convert_official_state(dict.fromkeys(names, torch.zeros(0)))
    assert set(converted) == set(ImageRewardNetwork().state_dict())
    assert len(converted) == len(names) - NUM_UNUSED


def test_a_foreign_name_survives_the_conversion() -> None:
    assert list(convert_official_state({"model.weight": torch.zeros(1)})) == ["model.weight"]
