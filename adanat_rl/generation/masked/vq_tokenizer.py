"""The VQ tokenizer of the AdaNAT family, the PyTorch port of MaskGIT's: images ↔ tokens by an encoder, a codebook and a
decoder.

Images are float32 `[B, C, H, H]` in [0, 1], tokens int64 `[B, L]` row by row, L = (H / factor)². Names of layers are
those of the official state dict, so that importing one renames nothing. The weights do not depend on the image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.generation.masked.vq_layers import NUM_GROUPS, Decoder, Encoder, VectorQuantizer


class VQTokenizer(nn.Module):
    """Convolutional tokenizer with a learned codebook; the defaults are the official network's.

    Args:
        vocab_size: V, number of codes. code_width: values per code, and channels of the latents.
        image_size: H, a multiple of factor = 2^(levels - 1): 256 gives 16×16 tokens, 512 gives 32×32.
        image_channels: C.
        base_width: channels at full resolution, a multiple of 32. width_multipliers: times base_width, one per level,
            finest first; five levels make a factor of 16.
        num_res_blocks: residual blocks per level.
    """

    def __init__(
        self,
        vocab_size: int = 1024,
        image_size: int = 256,
        code_width: int = 256,
        image_channels: int = 3,
        base_width: int = 128,
        width_multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
    ) -> None:
        super().__init__()
        widths = [base_width * multiplier for multiplier in width_multipliers]
        if not widths or min(widths) <= 0 or any(width % NUM_GROUPS for width in widths):
            raise ValueError(f"base_width × width_multipliers is {widths}; accepted: multiples of {NUM_GROUPS}")
        self.factor = 2 ** (len(widths) - 1)
        if image_size <= 0 or image_size % self.factor:
            raise ValueError(f"image_size is {image_size}; accepted: multiples of {self.factor}")
        self.vocab_size = vocab_size
        self.mask_token_id = vocab_size
        self.image_size = image_size
        self.image_channels = image_channels
        self.grid_size = image_size // self.factor
        self.encoder = Encoder(image_channels, widths, num_res_blocks, code_width)
        self.decoder = Decoder(image_channels, widths, num_res_blocks, code_width)
        self.quantize = VectorQuantizer(vocab_size, code_width)

    def latents(self, images: Tensor) -> Tensor:
        """Encoder output `[B, code_width, h, h]` in the dtype of the weights, before quantisation."""
        wanted = (self.image_channels, self.image_size, self.image_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != wanted:
            raise UserError(
                f"the tokenizer takes images [B, {', '.join(map(str, wanted))}], found {list(images.shape)}; "
                "give images of its image_size, or a tokenizer with theirs"
            )
        return self.encoder(images.to(self._dtype))

    def encode(self, images: Tensor) -> Tensor:
        """Tokens int64 `[B, L]` of images."""
        return self.quantize.nearest(self.latents(images))

    def decode(self, tokens: Tensor) -> Tensor:
        """Images float32 in [0, 1] of tokens `[B, L]`; the region of a mask token is shown as mid-grey.

        For its neighbours, which see a little of it through the convolutions, a masked token stands for the mean code.
        """
        masked = tokens == self.mask_token_id
        codes = torch.where(masked[..., None], self._mean_code, self.quantize.embedding(tokens.masked_fill(masked, 0)))
        latents = codes.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        images = self.decode_latents(latents).float().clamp(0, 1)
        regions = masked.view(-1, 1, self.grid_size, self.grid_size)
        regions = regions.repeat_interleave(self.factor, dim=2).repeat_interleave(self.factor, dim=3)
        return images.masked_fill(regions, 0.5)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decoder output of latents `[B, code_width, h, h]` as it is: not clamped, in the dtype of the weights."""
        return self.decoder(latents.to(self._dtype))

    @property
    def _mean_code(self) -> Tensor:
        return self.quantize.embedding.weight.mean(dim=0)

    @property
    def _dtype(self) -> torch.dtype:
        return self.quantize.embedding.weight.dtype


def convert_official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict of an official tokenizer's (`state_dict` of its checkpoint): the same names, without the networks
    of the training loss.
    """
    return {name: tensor for name, tensor in state.items() if not name.startswith("loss.")}
