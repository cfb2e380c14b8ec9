"""ImageReward as a reward model: how well an image pleases people who read its caption (Xu et al., NeurIPS 2023).

A pre-trained reward model is one of the reward designs that the paper compares (Fig. 4); it is never trained here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.text.local import require_transformers
from adanat_rl.generation.weights import share_network
from adanat_rl.metrics.clip_pixels import clip_pixels
from adanat_rl.rewards.base import Requirement, RewardBatch, RewardModel, RewardOutput
from adanat_rl.rewards.image_reward_network import PAD_TOKEN_ID, ImageRewardNetwork

IMAGE_REWARD_KIND = "image_reward"
PROMPT_LENGTH = 35  # tokens of a prompt that ImageReward reads
_BLIP_TOKENS = ("[DEC]", "[ENC]")  # added to BERT's vocabulary, in this order


class ImageReward(RewardModel):
    """Standardised ImageReward scores of images and the captions they were drawn for.

    Args:
        network: on `device`, frozen from here on.
        tokenize: captions → token ids `[B, 35]`, e.g. a `PromptTokenizer`.
        captions: row number → caption; a table's captions, or a function.
        block_rows: images of one pass; shorter batches are filled up, so that a score does not depend on batch mates.
        device: where the network is.
    """

    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.CAPTIONS})

    def __init__(
        self,
        network: ImageRewardNetwork,
        tokenize: Callable[[Sequence[str]], Tensor],
        captions: Sequence[str] | Callable[[int], str],
        *,
        block_rows: int = 8,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self._tokenize = tokenize
        self._caption = captions if callable(captions) else captions.__getitem__
        self._block_rows = block_rows
        self._device = torch.device(device)

    @torch.no_grad()
    def score(self, batch: RewardBatch) -> RewardOutput:
        """Scores `[B]`, about standard normal over ImageReward's own data."""
        if not len(batch):
            return RewardOutput(torch.zeros(0, device=batch.images.device))
        ids = self._tokenize([self._caption(row) for row in batch.labels.tolist()])
        images = batch.images.to(self._device)
        (scores,) = run_in_blocks(self._score_block, self._block_rows, images, ids.to(self._device))
        return RewardOutput(scores)

    def _score_block(self, images: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        return (self.network(clip_pixels(images, self.network.image_size), ids).float(),)


class PromptTokenizer:
    """BERT's lower-case word pieces with BLIP's two extra tokens, padded and cut to 35.

    Args:
        path: `vocab.txt` of bert-base-uncased, or a folder with `vocab.txt` or `tokenizer.json`.
        vocab_size: of the network that reads the ids.

    Raises:
        UserError: no vocabulary there, or not the one that the network was trained with.
    """

    def __init__(self, path: Path | str, vocab_size: int) -> None:
        require_transformers()  # which brings tokenizers along
        self._path = _vocabulary_file(Path(path))
        self._tokenizer = _read_tokenizer(self._path)
        self._tokenizer.add_special_tokens(list(_BLIP_TOKENS))
        self._tokenizer.enable_truncation(PROMPT_LENGTH)
        self._tokenizer.enable_padding(length=PROMPT_LENGTH, pad_id=PAD_TOKEN_ID, pad_token="[PAD]")
        size = self._tokenizer.get_vocab_size()
        if size != vocab_size:
            raise UserError(
                f"{self._path} has {size} tokens with BLIP's two, the ImageReward network knows {vocab_size}; "
                "needed is the vocabulary of bert-base-uncased"
            )
        if self._tokenizer.token_to_id("[PAD]") != PAD_TOKEN_ID:
            raise UserError(f"{self._path}: [PAD] must be token {PAD_TOKEN_ID}")

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Token ids int64 `[B, 35]`: [CLS], the caption, [SEP], zeros."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(captions))]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(captions), PROMPT_LENGTH)


def load_image_reward(
    path: Path,
    vocabulary: Path,
    captions: Sequence[str] | Callable[[int], str],
    *,
    block_rows: int = 8,
    device: torch.device | str = "cpu",
) -> ImageReward:
    """The reward of an imported weight file.

    Args:
        path: of kind `image_reward`. vocabulary: see `PromptTokenizer`.
        captions, block_rows, device: see `ImageReward`.

    Raises:
        UserError: a file is missing, damaged or of another kind.
    """
    tokenizer_file = _vocabulary_file(vocabulary)  # a missing one shows before gigabytes are read
    network = share_network(path, {IMAGE_REWARD_KIND: ImageRewardNetwork}, str(device))
    assert isinstance(network, ImageRewardNetwork)
    tokenize = PromptTokenizer(tokenizer_file, network.vocab_size)
    return ImageReward(network, tokenize, captions, block_rows=block_rows, device=device)


def _vocabulary_file(path: Path) -> Path:
    candidates = [path] if path.is_file() else [path / "vocab.txt", path / "tokenizer.json"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"no BERT vocabulary at {path}; accepted: vocab.txt, or a folder with vocab.txt or tokenizer.json")


def _read_tokenizer(path: Path) -> Any:
    import tokenizers

    try:
        if path.suffix == ".json":
            return tokenizers.Tokenizer.from_file(str(path))
        return tokenizers.BertWordPieceTokenizer(str(path), lowercase=True)
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{path} is no BERT vocabulary: {error}") from None
