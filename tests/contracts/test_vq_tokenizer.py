from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer, convert_official_state
from tests.contracts.fill import digest, noise
from tests.contracts.parity import ParityModule, fill_network

MODULES = {name: ParityModule(name) for name in ("vqgan", "vqgan_small")}
SMALL = MODULES["vqgan_small"]
INTERPOLATE = functional.interpolate


def build(name: str) -> VQTokenizer:
    """Our tokenizer of an official constructor's arguments, filled by rule."""
    description = MODULES[name].description
    official, network = description["constructor"], description["constructor"]["ddconfig"]
    tokenizer = VQTokenizer(
        vocab_size=official["n_embed"],
        image_size=network["resolution"],
        code_width=official["embed_dim"],
        image_channels=network["in_channels"],
        base_width=network["ch"],
        width_multipliers=network["ch_mult"],
        num_res_blocks=network["num_res_blocks"],
    )
    fill_network(tokenizer, description["state"], description["seed"], description["overrides"])
    return tokenizer


def image_by_rule(name: str, size: int) -> np.ndarray:
    """The image rule of the parity data, `[1, 3, size, size]`."""
    coarse = noise(f"{name}.coarse", (1, 3, size // 16, size // 16)).repeat(16, axis=2).repeat(16, axis=3)
    fine = noise(f"{name}.fine", (1, 3, size, size))
    return np.clip(np.float32(0.5) + np.float32(0.2) * coarse + np.float32(0.05) * fine, 0, 1)


def check_small(tokenizer: VQTokenizer) -> set[str]:
    """Compares everything and says what."""
    with torch.no_grad():
        found = {
            "decode": tokenizer.decode_latents(tokenizer.quantize.lookup(SMALL.tensor("ids"))),
            "latents": tokenizer.latents(SMALL.tensor("image")),
            "encode_ids": tokenizer.encode(SMALL.tensor("image")).flatten(),
        }
    for name, values in found.items():
        SMALL.check(name, values)
    return set(found)


def test_every_stored_output_of_the_small_tokenizer_is_the_official_one() -> None:
    assert check_small(build("vqgan_small")) == SMALL.outputs()


def test_decoded_images_are_the_clamped_official_ones() -> None:
    with torch.no_grad():
        images = build("vqgan_small").decode(SMALL.tensor("ids").flatten(1))
    rule = SMALL.description["arrays"]["decode"]
    assert SMALL["decode"].min() < 0
    assert SMALL["decode"].max() > 1
    np.testing.assert_allclose(images, SMALL["decode"].clip(0, 1), rule["rtol"], rule["atol"])


@pytest.fixture(scope="module")
def full() -> VQTokenizer:
    return build("vqgan")


@torch.no_grad()
def test_every_stored_output_of_the_full_tokenizer_is_the_official_one(full: VQTokenizer) -> None:
    module, compared = MODULES["vqgan"], set()

    def check(name: str, values: np.ndarray | Tensor) -> None:
        module.check(name, values)
        compared.add(name)

    tokens = module.tensor("ids")
    raw = full.decode_latents(full.quantize.lookup(tokens))
    check("decode_pool4", functional.avg_pool2d(raw, 4))
    check("decode_corner", raw[:, :, :16, :16])
    check("decode_centre", raw[:, :, 120:136, 120:136])
    check("decode_last_rows", raw[:, :, -4:])
    check("decode_stats", np.stack([digest(channel) for channel in raw[0].numpy()]))
    check("decode_clamped_centre", full.decode(tokens.flatten(1))[:, :, 120:136, 120:136])

    image = image_by_rule("vqgan.image", 256)
    np.testing.assert_array_equal(digest(image), module["image_digest"])
    np.testing.assert_array_equal(image[:, :, 112:144, 112:144], module["image_crop"])
    latents = full.latents(torch.from_numpy(image))
    check("latents", latents)
    check("encode_ids", full.quantize.nearest(latents).flatten())
    quantised, loss = full.quantize(latents)
    check("quant_slice", quantised[:, :8])
    check("commit_loss", loss[None])
    assert compared == module.outputs()


def test_the_distance_to_the_second_nearest_code_is_the_stored_one(full: VQTokenizer) -> None:
    """The stored gaps say that every id is binding; recomputed from stored latents, they also say which latents."""
    module = MODULES["vqgan"]
    rows = module["latents"][0].reshape(256, 256).T.astype(np.float64)
    codes = full.quantize.embedding.weight.detach().numpy().astype(np.float64)
    distances = np.sort((rows**2).sum(1)[:, None] - 2 * rows @ codes.T + (codes**2).sum(1), axis=1)
    np.testing.assert_allclose(distances[:, 1] - distances[:, 0], module["encode_gap"], rtol=1e-3, atol=1e-3)
    assert module["encode_gap"].min() > 1e-3


def test_codebook_and_number_of_parameters_are_the_official_ones(full: VQTokenizer) -> None:
    np.testing.assert_array_equal(full.quantize.embedding.weight[:4].detach(), MODULES["vqgan"]["codebook_rows"])
    for name, tokenizer in (("vqgan", full), ("vqgan_small", build("vqgan_small"))):
        assert sum(p.numel() for p in tokenizer.parameters()) == MODULES[name].description["n_params"]


@pytest.mark.parametrize("name", MODULES)
def test_eps_and_groups_of_every_norm_are_the_official_ones(name: str, full: VQTokenizer) -> None:
    found: dict[str, set[str]] = {}
    for layer, module in (full if name == "vqgan" else build(name)).named_modules():
        if isinstance(module, nn.GroupNorm):
            kind = f"GroupNorm eps {module.eps:g} groups {module.num_groups}"
            found.setdefault(kind, set()).add(re.sub(r"\d+", "*", layer))
    assert found == {kind: set(layers) for kind, layers in MODULES[name].description["norms"].items()}


def other_eps(tokenizer: VQTokenizer) -> None:
    for module in tokenizer.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-4


def other_groups(tokenizer: VQTokenizer) -> None:
    for module in tokenizer.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 16


def transposed_grid(tokenizer: VQTokenizer) -> None:
    tokenizer.decoder.register_forward_pre_hook(lambda module, args: (args[0].transpose(2, 3),))


def images_from_minus_one_to_one(tokenizer: VQTokenizer) -> None:
    tokenizer.encoder.register_forward_pre_hook(lambda module, args: (2 * args[0] - 1,))


@pytest.mark.parametrize("mistake", [other_eps, other_groups, transposed_grid, images_from_minus_one_to_one])
def test_a_mistake_is_noticed(mistake: Callable[[VQTokenizer], None]) -> None:
    tokenizer = build("vqgan_small")
    mistake(tokenizer)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_small(tokenizer)


@pytest.mark.parametrize(
    ("function", "other"),
    [
        ("interpolate", lambda hidden, scale_factor, mode: INTERPOLATE(hidden, scale_factor=2.0, mode="bilinear")),
        ("avg_pool2d", functional.max_pool2d),
        ("silu", functional.gelu),
    ],
)
def test_another_layer_is_noticed(function: str, other: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build("vqgan_small")
    monkeypatch.setattr(functional, function, other)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_small(tokenizer)


def test_official_names_are_ours_but_for_the_networks_of_the_loss() -> None:
    tokenizer = build("vqgan_small")
    official = {**tokenizer.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(1)}
    converted = convert_official_state(official)
    assert list(converted) == [row["name"] for row in SMALL.description["state"]]
    tokenizer.load_state_dict(converted)
