"""Feature extractors that judge images: small classifiers trained on the real data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.Module):
    """What classifiers have in common: `forward` gives features `[B, D]` of images, `logits` the logits of classes."""

    def logits(self, images: Tensor) -> Tensor:
        """Class logits `[B, num_classes]` of images `[B, C, H, W]` in [0, 1]."""
        raise NotImplementedError


class ConvClassifier(Classifier):
    """Three convolutions and two linear layers over `[B, 1, H, H]` images in [0, 1], H divisible by 4.

    `forward` gives features `[B, num_features]`, scaled so that the real images have a total variance of `num_features`
    (mean variance 1 per dimension); `logits` gives `[B, num_classes]`.

    Args:
        image_size: H. channels: of the first convolution. num_features: width of the feature layer.
        dropout: probability before the feature layer, in training only.
    """

    scale: Tensor

    def __init__(
        self, image_size: int, channels: int, num_classes: int = 10, num_features: int = 64, dropout: float = 0.25
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * channels * (image_size // 4) ** 2, num_features)
        self.head = nn.Linear(num_features, num_classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Scaled features `[B, num_features]`."""
        return self._embed(images) * self.scale

    def logits(self, images: Tensor) -> Tensor:
        """Class logits `[B, num_classes]`."""
        return self.head(functional.silu(self._embed(images)))

    @torch.no_grad()
    def fit_scale(self, images: Tensor) -> None:
        """Sets the scale from real images."""
        total_variance = torch.cov(self._embed(images).T).trace()
        self.scale.copy_((self.num_features / total_variance).sqrt())

    def _embed(self, images: Tensor) -> Tensor:
        hidden = functional.silu(self.conv1(2 * images - 1))
        hidden = functional.avg_pool2d(functional.silu(self.conv2(hidden)), 2)
        hidden = functional.avg_pool2d(functional.silu(self.conv3(hidden)), 2)
        return self.fc(self.dropout(hidden.flatten(1)))
