from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from adanat_rl.generation.masked.nat import TransformerNAT
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator


def small_nat(**changes) -> TransformerNAT:
    torch.manual_seed(0)
    settings = {"vocab_size": 6, "grid_size": 2, "num_classes": 3, "width": 8, "depth": 2, "num_heads": 2}
    nat = TransformerNAT(**{**settings, **changes}).eval()
    with torch.no_grad():
        for parameter in nat.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return nat


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def reference_forward(nat: TransformerNAT, tokens: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = {name: value.double().numpy() for name, value in nat.state_dict().items()}
    x = p["token_embedding.weight"][tokens] + p["position_embedding"] + p["class_embedding.weight"][context][:, None]
    batch_size, length, width = x.shape
    for index in range(2):
        b = f"blocks.{index}."
        h = layer_norm(x, p[b + "norm1.weight"], p[b + "norm1.bias"])
        q, k, v = np.split(h @ p[b + "qkv.weight"].T + p[b + "qkv.bias"], 3, axis=-1)
        heads = [t.reshape(batch_size, length, 2, width // 2).transpose(0, 2, 1, 3) for t in (q, k, v)]
        weights = special.softmax(heads[0] @ heads[1].swapaxes(-1, -2) / np.sqrt(width // 2), axis=-1)
        mixed = (weights @ heads[2]).transpose(0, 2, 1, 3).reshape(batch_size, length, width)
        x = x + mixed @ p[b + "proj.weight"].T + p[b + "proj.bias"]
        h = layer_norm(x, p[b + "norm2.weight"], p[b + "norm2.bias"]) @ p[b + "fc1.weight"].T + p[b + "fc1.bias"]
        x = x + (h * special.expit(h)) @ p[b + "fc2.weight"].T + p[b + "fc2.bias"]
    features = layer_norm(x, p["norm.weight"], p["norm.bias"])
    return features @ p["head.weight"].T + p["head.bias"], features


def test_forward_agrees_with_a_numpy_transformer() -> None:
    nat = small_nat()
    tokens, context = torch.tensor([[0, 6, 2, 5], [6, 6, 6, 6]]), torch.tensor([1, 3])
    with torch.no_grad():
        logits, features = nat(tokens, context)
    expected_logits, expected_features = reference_forward(nat, tokens.numpy(), context.numpy())
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    np.testing.assert_allclose(features, expected_features, atol=1e-5)


def test_mask_token_and_null_label_are_the_numbers_after_the_last() -> None:
    nat = small_nat()
    assert nat.mask_token_id == 6
    assert nat.token_embedding.num_embeddings == 7
    assert nat.class_embedding.num_embeddings == 4
    logits, _ = nat(torch.full((1, 4), nat.mask_token_id), torch.tensor([nat.num_classes]))
    assert logits.shape == (1, 4, 6)  # the mask itself is never predicted
    with pytest.raises(IndexError):
        nat(torch.full((1, 4), 7), torch.tensor([0]))
    with pytest.raises(IndexError):
        nat(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([4]))


def test_every_position_sees_every_other() -> None:
    nat = small_nat()
    tokens, context = torch.tensor([[0, 6, 2, 5]]), torch.tensor([1])
    before = nat(tokens, context)[0]
    tokens[0, 3] = 1
    assert (nat(tokens, context)[0] != before).any(dim=-1).all()


def test_dropout_acts_in_training_only() -> None:
    nat = small_nat(dropout=0.5)
    tokens, context = torch.tensor([[0, 6, 2, 5]]), torch.tensor([1])
    assert torch.equal(nat(tokens, context)[0], nat(tokens, context)[0])
    nat.train()
    assert not torch.equal(nat(tokens, context)[0], nat(tokens, context)[0])


def test_the_shipped_nat_puts_tokens_of_real_digits_above_chance(
    digits_generator: MaskedTokenGenerator, digits
) -> None:
    tokens = digits_generator.tokenizer.encode(digits.images[:200])
    masked = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        logits, _ = digits_generator.nat(torch.where(masked, 128, tokens), digits.labels[:200])
        wrong_label, _ = digits_generator.nat(torch.where(masked, 128, tokens), (digits.labels[:200] + 5) % 10)
    loss = torch.nn.functional.cross_entropy(logits[masked], tokens[masked])
    assert loss < 0.7 * np.log(128)
    assert loss < torch.nn.functional.cross_entropy(wrong_label[masked], tokens[masked]) - 0.5
