from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adanat_rl.config.errors import UserError
from adanat_rl.config.findings import failures
from adanat_rl.config.loading import resolve
from adanat_rl.rewards.aesthetic import from_config, load_head
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.build import reward_class
from adanat_rl.rewards.conformance import check_reward
from tests.tiny_clip import IMAGE_SIZE, POOLED_WIDTH, write_tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def head(*widths: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        (torch.randn(after, before, generator=generator), torch.randn(after, generator=generator))
        for before, after in pairwise(widths)
    ]


def as_stack(layers: list[tuple[torch.Tensor, torch.Tensor]], numbers: list[int]) -> dict[str, torch.Tensor]:
    """Names as in an `nn.Sequential` called `layers`, between whose linear layers others stand."""
    return {
        f"layers.{number}.{part}": tensor
        for number, layer in zip(numbers, layers, strict=True)
        for part, tensor in zip(("weight", "bias"), layer, strict=True)
    }


def batch() -> RewardBatch:
    images = torch.randint(0, 256, (5, 3, 40, 48), generator=torch.Generator().manual_seed(3)) / 255
    return RewardBatch(images, torch.zeros(5, dtype=torch.int64))


def independent_scores(clip: Path, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> np.ndarray:
    """Embeddings of transformers' whole model; unit length and layers in NumPy."""
    pixels = (batch().images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    processor = CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE)
    with torch.no_grad():
        inputs = processor(list(pixels), return_tensors="pt")
        values = CLIPModel.from_pretrained(clip).eval().get_image_features(**inputs).pooler_output.double().numpy()
    values = values / np.sqrt((values**2).sum(axis=1, keepdims=True))
    for weight, bias in layers:
        values = values @ weight.double().numpy().T + bias.double().numpy()
    return values[:, 0]


def config_of(clip: Path, path: Path):
    settings = ["reward.kind=aesthetic", "reward.aesthetic.block_rows=2", f"reward.aesthetic.head={path}"]
    return resolve(overrides=[*settings, f"reward.aesthetic.encoder={clip}"])


def test_a_linear_head_rates_embeddings_of_length_1(clip: Path, tmp_path: Path) -> None:
    layers = head(POOLED_WIDTH, 1)
    save_file({"weight": layers[0][0], "bias": layers[0][1]}, tmp_path / "head.safetensors")
    found = from_config(config_of(clip, tmp_path / "head.safetensors"), "cpu").score(batch()).scores
    expected = independent_scores(clip, layers)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_a_stack_of_linear_layers_is_applied_in_the_order_of_its_numbers(clip: Path, tmp_path: Path) -> None:
    layers = head(POOLED_WIDTH, 12, 6, 1)
    save_file(as_stack(layers, [0, 2, 10]), tmp_path / "stack.safetensors")  # as text, 10 would come before 2
    found = from_config(config_of(clip, tmp_path / "stack.safetensors"), "cpu").score(batch()).scores
    np.testing.assert_allclose(found.numpy(), independent_scores(clip, layers), rtol=1e-4, atol=1e-3)


def test_it_keeps_the_contract(clip: Path, tmp_path: Path) -> None:
    save_file(as_stack(head(POOLED_WIDTH, 12, 1), [0, 2]), tmp_path / "stack.safetensors")
    config = config_of(clip, tmp_path / "stack.safetensors")
    findings = check_reward(lambda: from_config(config, "cpu"), batch())
    assert not failures(findings), "\n".join(map(str, findings))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"kernel": torch.zeros(1, 3)}, "holds kernel; accepted: weight and bias"),
        ({"weight": torch.zeros(1, 3)}, "accepted: weight and bias"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, "do not lead to one number"),
        ({"weight": torch.zeros(1, 3), "bias": torch.zeros(2)}, "do not lead to one number"),
        ({"weight": torch.tensor(1.0), "bias": torch.zeros(1)}, "do not lead to one number"),
        (as_stack([*head(3, 4), *head(5, 1)], [0, 1]), "do not lead to one number"),
        ({**as_stack(head(3, 1), [0]), "layers.1.weight": torch.zeros(1, 1)}, "accepted"),
        ({**as_stack(head(3, 1), [0]), "extra": torch.zeros(1)}, "accepted"),
    ],
)
def test_a_file_that_is_no_head_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(UserError, match=message):
        load_head(tmp_path / "head.safetensors")


def test_a_head_for_another_clip_is_refused(clip: Path, tmp_path: Path) -> None:
    save_file(as_stack(head(POOLED_WIDTH + 1, 1), [0]), tmp_path / "head.safetensors")
    with pytest.raises(UserError, match=f"takes embeddings of {POOLED_WIDTH + 1} numbers, .* gives {POOLED_WIDTH}"):
        from_config(config_of(clip, tmp_path / "head.safetensors"), "cpu")


@pytest.mark.parametrize("name", ["encoder", "head"])
def test_what_is_not_named_is_refused_before_a_launch(name: str) -> None:
    other = "head" if name == "encoder" else "encoder"
    with pytest.raises(UserError, match=f"reward.aesthetic.{name}: null is not accepted"):
        reward_class(resolve(overrides=["reward.kind=aesthetic", f"reward.aesthetic.{other}=somewhere"]))
