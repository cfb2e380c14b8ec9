"""ImageReward's network (Xu et al., NeurIPS 2023): BLIP reads the image and the prompt, a linear stack gives one score.

The two encoders are those of transformers. Layout: pixels `[B, 3, H, H]` normalised with CLIP's mean and standard
deviation, token ids `[B, S]` int64 padded with 0, scores `[B]` float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from adanat_rl.generation.text.local import require_transformers

PAD_TOKEN_ID = 0

_RENAMED = [
    (r"^blip\.visual_encoder\.cls_token$", "visual.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "visual.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "visual.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"visual.encoder.layers.\1.layer_norm\2."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"visual.encoder.layers.\1.self_attn.qkv."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"visual.encoder.layers.\1.self_attn.projection."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.mlp\.", r"visual.encoder.layers.\1.mlp."),
    (r"^blip\.visual_encoder\.norm\.", "visual.post_layernorm."),
    (r"^blip\.text_encoder\.", "text."),
]
# The official stack counts its dropout layers, which do nothing outside training.
_MLP_LAYERS = {"0": "0", "2": "1", "4": "2", "6": "3", "7": "4"}
_UNUSED = re.compile(r"^blip\.(vision_proj|text_proj)\.|^blip\.text_encoder\.embeddings\.position_ids$")


class ImageRewardNetwork(nn.Module):
    """BLIP and the reward head; the defaults are the published model (BLIP large, BERT base, 446M parameters).

    The weights are allocated, not initialised: they come from a file, and nothing is drawn.

    Args:
        image_size: H. patch_size: of the vision transformer.
        vision_width, vision_depth, vision_heads: of the vision transformer; its MLP is four times as wide.
        vocab_size: of the BERT vocabulary with BLIP's two extra tokens. max_positions: longest text.
        text_width, text_depth, text_heads: of the text encoder; its MLP is four times as wide.
        mlp_widths: of the reward head's hidden layers. There is no activation between them.
        reward_mean, reward_std: of the raw score over ImageReward's data; scores are standardised by them.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        vision_width: int = 1024,
        vision_depth: int = 24,
        vision_heads: int = 16,
        vocab_size: int = 30524,
        max_positions: int = 512,
        text_width: int = 768,
        text_depth: int = 12,
        text_heads: int = 12,
        mlp_widths: Sequence[int] = (1024, 128, 64, 16),
        reward_mean: float = 0.16717362830052426,
        reward_std: float = 1.0333394966054072,
    ) -> None:
        super().__init__()
        transformers = require_transformers()
        self.image_size = image_size
        self.vocab_size = vocab_size
        self.reward_mean = reward_mean
        self.reward_std = reward_std
        widths = [text_width, *mlp_widths, 1]
        with torch.device("meta"):
            self.visual = transformers.BlipVisionModel(
                transformers.BlipVisionConfig(
                    image_size=image_size,
                    patch_size=patch_size,
                    hidden_size=vision_width,
                    intermediate_size=4 * vision_width,
                    num_hidden_layers=vision_depth,
                    num_attention_heads=vision_heads,
                    layer_norm_eps=1e-6,
                )
            )
            self.text = transformers.BlipTextModel(
                transformers.BlipTextConfig(
                    vocab_size=vocab_size,
                    hidden_size=text_width,
                    encoder_hidden_size=vision_width,
                    intermediate_size=4 * text_width,
                    num_hidden_layers=text_depth,
                    num_attention_heads=text_heads,
                    max_position_embeddings=max_positions,
                    layer_norm_eps=1e-12,
                    pad_token_id=PAD_TOKEN_ID,
                    is_decoder=True,  # adds the cross attention; no causal mask is used
                ),
                add_pooling_layer=False,
            )
            self.mlp = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
        self.to_empty(device="cpu")
        self.text.embeddings.position_ids = torch.arange(max_positions)[None]  # a buffer that no state dict holds

    def forward(self, pixels: Tensor, token_ids: Tensor) -> Tensor:
        """Standardised scores `[B]`."""
        features = self.text_features(self.image_features(pixels), token_ids)
        return (self.mlp(features[:, 0])[:, 0] - self.reward_mean) / self.reward_std

    def image_features(self, pixels: Tensor) -> Tensor:
        """The vision transformer's output `[B, 1 + patches, vision_width]`, class token first."""
        return self.visual(pixel_values=pixels).last_hidden_state

    def text_features(self, image_features: Tensor, token_ids: Tensor) -> Tensor:
        """The text encoder's output `[B, S, text_width]`; it looks at the image through its cross attention."""
        output = self.text(
            input_ids=token_ids,
            attention_mask=(token_ids != PAD_TOKEN_ID).long(),
            encoder_hidden_states=image_features,
            is_decoder=False,
        )
        return output.last_hidden_state


def convert_official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ImageReward's published state dict under our names.

    The projections of BLIP's contrastive loss and the position numbers are left out: the score does not use them.
    A name that is not ImageReward's is kept, so that whoever loads the result can tell.
    """
    return {_convert_name(name): tensor for name, tensor in state.items() if not _UNUSED.match(name)}


def _convert_name(name: str) -> str:
    match = re.match(r"^mlp\.layers\.(\d+)\.(.*)$", name)
    if match and match[1] in _MLP_LAYERS:
        return f"mlp.{_MLP_LAYERS[match[1]]}.{match[2]}"
    for pattern, replacement in _RENAMED:
        converted, found = re.subn(pattern, replacement, name)
        if found:
            return converted
    return name
