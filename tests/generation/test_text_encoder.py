from __future__ import annotations

import json
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.generation.text.encoder import ClipTextEncoder
from tests.tiny_clip import LENGTH, POOLED_WIDTH, WIDTH, write_tiny_clip

START, END, CAT, X = 514, 515, 513, ord("x") - ord("!") + 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def reference(folder: Path, ids: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's text tower, written out: pre-norm blocks under a causal mask, quick GELU, projection of the end token."""
    state = load_file(folder / "model.safetensors")

    def norm(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = state["text_model.embeddings.token_embedding.weight"][ids]
    x = x + state["text_model.embeddings.position_embedding.weight"]
    mask = torch.full((LENGTH, LENGTH), -math.inf).triu(1)
    for layer in ("text_model.encoder.layers.0", "text_model.encoder.layers.1"):
        y = norm(x, f"{layer}.layer_norm1")
        q, k, v = (
            linear(y, f"{layer}.self_attn.{part}_proj").unflatten(-1, (2, WIDTH // 2)).transpose(1, 2) for part in "qkv"
        )
        mixed = ((q @ k.mT) / math.sqrt(WIDTH // 2) + mask).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{layer}.self_attn.out_proj")
        y = linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{layer}.mlp.fc2")
    x = norm(x, "text_model.final_layer_norm")
    ends = (ids == END).int().argmax(1)
    return x, x[torch.arange(len(ids)), ends] @ state["text_projection.weight"].T


def test_token_ids_are_start_words_end_and_zeros(folder: Path) -> None:
    ids = ClipTextEncoder(folder).token_ids(["Cat x", "", "x " * 40])
    assert ids[0].tolist() == [START, CAT, X, END] + [0] * (LENGTH - 4)
    assert ids[1].tolist() == [START, END] + [0] * (LENGTH - 2)
    assert ids[2].tolist() == [START] + [X] * (LENGTH - 2) + [END]


def test_the_tokenizers_own_padding_is_an_option(folder: Path) -> None:
    ids = ClipTextEncoder(folder, pad_token_id=None).token_ids(["cat"])
    assert ids[0].tolist() == [START, CAT] + [END] * (LENGTH - 2)


def test_embeddings_equal_the_tower_written_out(folder: Path) -> None:
    encoder = ClipTextEncoder(folder, batch_size=2)
    captions = ["cat", "a cat, and x", "", "x " * 40, "été"]
    embedding = encoder(captions)
    hidden, pooled = reference(folder, encoder.token_ids(captions))
    assert embedding.hidden.shape == (5, LENGTH, WIDTH)
    assert (encoder.length, encoder.width, encoder.pooled_width) == (LENGTH, WIDTH, POOLED_WIDTH)
    torch.testing.assert_close(embedding.hidden, hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embedding.pooled, pooled, rtol=1e-4, atol=1e-5)


def test_padding_changes_the_hidden_states_but_not_the_pooled_one(folder: Path) -> None:
    zeros, own = (ClipTextEncoder(folder, pad_token_id=pad)(["cat"]) for pad in (0, None))
    torch.testing.assert_close(zeros.pooled, own.pooled)
    torch.testing.assert_close(zeros.hidden[:, :3], own.hidden[:, :3])
    assert (zeros.hidden[:, 3:] - own.hidden[:, 3:]).abs().max() > 0.1


def test_a_caption_does_not_depend_on_its_batch_mates(folder: Path) -> None:
    encoder = ClipTextEncoder(folder, batch_size=4)
    together = encoder(["cat", "x", "", "a", "b", "cat"])
    alone = encoder(["cat"])
    for row in (0, 5):
        assert torch.equal(together.hidden[row], alone.hidden[0])
        assert torch.equal(together.pooled[row], alone.pooled[0])


def test_no_captions_give_empty_embeddings(folder: Path) -> None:
    embedding = ClipTextEncoder(folder)([])
    assert embedding.hidden.shape == (0, LENGTH, WIDTH)
    assert embedding.pooled.shape == (0, POOLED_WIDTH)


def test_fingerprint_tells_encoders_apart_and_not_places(folder: Path, tmp_path: Path) -> None:
    same, other = write_tiny_clip(tmp_path / "same"), write_tiny_clip(tmp_path / "other", seed=1)
    fingerprint = ClipTextEncoder(folder).fingerprint
    assert ClipTextEncoder(same).fingerprint == fingerprint
    different = [
        ClipTextEncoder(other),
        ClipTextEncoder(folder, pad_token_id=7),
        ClipTextEncoder(folder, dtype=torch.bfloat16),
    ]
    assert len({fingerprint, *(encoder.fingerprint for encoder in different)}) == 4
    (same / "merges.txt").write_text("#version: 0.2\nc a\n")
    assert ClipTextEncoder(same).fingerprint != fingerprint


def test_half_precision_comes_close_and_returns_float32(folder: Path) -> None:
    exact, half = (ClipTextEncoder(folder, dtype=dtype)(["cat"]) for dtype in (torch.float32, torch.bfloat16))
    assert half.hidden.dtype == half.pooled.dtype == torch.float32
    torch.testing.assert_close(half.hidden, exact.hidden, rtol=0.1, atol=0.1)
    assert not torch.equal(half.hidden, exact.hidden)


def test_weights_load_late_quietly_and_stay_out_of_pickles(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = ClipTextEncoder(folder)
    assert "_network" not in encoder.__dict__
    expected = encoder(["cat"]).hidden
    assert capfd.readouterr() == ("", "")
    assert "_network" in encoder.__dict__
    copy = pickle.loads(pickle.dumps(encoder))
    assert "_network" not in copy.__dict__
    assert torch.equal(copy(["cat"]).hidden, expected)


def test_the_tokenizer_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    moved = write_tiny_clip(tmp_path / "clip")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "tokenizer").mkdir(exist_ok=True)
        (moved / name).rename(tmp_path / "tokenizer" / name)
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    with pytest.raises(UserError, match=r"lacks tokenizer files"):
        ClipTextEncoder(moved)(["cat"])
    encoder = ClipTextEncoder(moved, tokenizer_folder=tmp_path / "tokenizer")
    assert torch.equal(encoder(["cat"]).hidden, ClipTextEncoder(folder)(["cat"]).hidden)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder: .*nowhere"):
        ClipTextEncoder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"lacks config\.json"):
        ClipTextEncoder(tmp_path)
    broken = write_tiny_clip(tmp_path / "clip")
    tensors = load_file(broken / "model.safetensors")
    del tensors["text_model.final_layer_norm.bias"]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks tensors of a CLIPText.*: text_model\.final_layer_norm\.bias"):
        ClipTextEncoder(broken)(["cat"])
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or no safetensors file"):
        ClipTextEncoder(broken)(["cat"])
    (broken / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors"):
        ClipTextEncoder(broken)(["cat"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_hidden_layers": 10**9}, r"config\.json: .*more tensors than the"),
        ({"hidden_size": 10**9}, r"config\.json: .*the file holds no such one"),
        ({"hidden_size": -16}, r"config\.json: "),
        ({"vocab_size": 10**15}, r"config\.json: .*the file holds no such one"),
    ],
)
def test_sizes_are_bounded_by_the_weights(tmp_path: Path, settings: dict[str, int], expected: str) -> None:
    folder = write_tiny_clip(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= settings
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=expected):
        ClipTextEncoder(folder)(["cat"])


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_clip(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.final_layer_norm.bias"][0] = math.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"no finite numbers, in text_model\.final_layer_norm\.bias"):
        ClipTextEncoder(folder)(["cat"])


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_clip(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"captions end with token \[515\].* expects 3"):
        ClipTextEncoder(folder)(["cat"])


def test_without_transformers_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'adanat-rl\[text\]'"):
        ClipTextEncoder(folder)
