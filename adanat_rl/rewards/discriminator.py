"""The discriminator of small images: spectrally normalised convolutions, patch logits, class projection.

Spectral norm: Miyato et al., ICLR 2018; projection: Miyato and Koyama, ICLR 2018; patch logits: Isola et al., CVPR
2017.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Images `[B, C, H, H]` in [0, 1], labels `[B]` → logits `[B, P]`, one per patch, P = (H / 2 / first_stride)².

    Args:
        num_classes: number of labels. channels: of the first convolution, doubled after it.
        first_stride: 1 or 2, of the first convolution: a patch is what 10 or 18 pixels along a side show.
        image_channels: C, 1 for grey images and 3 for colour.
    """

    def __init__(self, num_classes: int, channels: int, first_stride: int = 1, image_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = spectral_norm(
            nn.Conv2d(image_channels, channels, 2 + first_stride, stride=first_stride, padding=1)
        )
        self.conv2 = spectral_norm(nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1))
        self.conv3 = spectral_norm(nn.Conv2d(2 * channels, 2 * channels, 3, padding=1))
        self.head = nn.Conv2d(2 * channels, 1, 1)
        self.class_projection = nn.Embedding(num_classes, 2 * channels)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Patch logits `[B, P]`."""
        hidden = functional.leaky_relu(self.conv1(2 * images - 1), 0.2)
        hidden = functional.leaky_relu(self.conv2(hidden), 0.2)
        hidden = functional.leaky_relu(self.conv3(hidden), 0.2)
        projection = (hidden * self.class_projection(labels)[:, :, None, None]).sum(dim=1)
        return (self.head(hidden)[:, 0] + projection).flatten(1)
