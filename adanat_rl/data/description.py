"""What a data set is, told before any image is decoded: shape of its images, how many there are, and their contexts."""

from __future__ import annotations

from dataclasses import dataclass

from adanat_rl.config.schema import DataConfig
from adanat_rl.data.loading import load_source
from adanat_rl.data.sources import ContextKind

_BUNDLED = {"digits": (1797, (1, 8, 8)), "mnist": (5000, (1, 28, 28))}
_NUM_DIGITS = 10


@dataclass(frozen=True)
class DataDescription:
    """A data set in numbers.

    Args:
        name: of the settings. num_images: N, 0 where there are captions only.
        image_shape: C, H, W of what `load_images` gives; None where there are captions only.
        context_kind: what a label means. num_contexts: classes or captions; labels are 0 … num_contexts - 1.
    """

    name: str
    num_images: int
    image_shape: tuple[int, int, int] | None
    context_kind: ContextKind
    num_contexts: int


def image_shape_of(config: DataConfig) -> tuple[int, int, int] | None:
    """C, H, W of the images that these settings give, without a look at any file; None for captions alone.

    Images of files are always centre crops in colour. A CC3M table may turn out to hold captions only.
    """
    if config.name in _BUNDLED:
        return _BUNDLED[config.name][1]
    return None if config.name == "captions" else (3, config.image_size, config.image_size)


def describe_data(config: DataConfig) -> DataDescription:
    """The data set of these settings; of files the listing is read, or the index that is kept of it, and no image.

    Raises:
        UserError: files are missing or damaged.
    """
    if config.name in _BUNDLED:
        count, shape = _BUNDLED[config.name]
        return DataDescription(config.name, count, shape, "class", _NUM_DIGITS)
    source = load_source(config)
    shape_of_files = image_shape_of(config) if source.has_images else None
    num_images = len(source) if source.has_images else 0
    return DataDescription(config.name, num_images, shape_of_files, source.context_kind, source.num_classes)
