"""The data set that a configuration names."""

from __future__ import annotations

from adanat_rl.config.schema import DataConfig
from adanat_rl.data.digits import ImageDataset, load_digits_dataset


def load_dataset(config: DataConfig) -> ImageDataset:
    """Real images and labels."""
    loaders = {"digits": load_digits_dataset}
    return loaders[config.name]()
