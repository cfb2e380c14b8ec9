"""The data set that a configuration names."""

from __future__ import annotations

from pathlib import Path

from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import DataConfig
from adanat_rl.data.damage import accept_damage
from adanat_rl.data.dataset import ImageDataset, RealImages
from adanat_rl.data.digits import load_digits_dataset
from adanat_rl.data.mnist import load_mnist_dataset
from adanat_rl.data.patterns import expand_files, user_path
from adanat_rl.data.sources import ImageSource
from adanat_rl.data.streaming import StreamedImages

_IN_MEMORY = {"digits": load_digits_dataset, "mnist": load_mnist_dataset}


def load_dataset(config: DataConfig) -> ImageDataset:
    """Real images and labels, all in memory.

    Raises:
        UserError: the data set is one of files, which are never read as a whole.
    """
    if config.name not in _IN_MEMORY:
        raise UserError(
            f"data.name: {config.name} is read image by image; this needs a data set in memory: "
            f"{' or '.join(_IN_MEMORY)}"
        )
    return _IN_MEMORY[config.name]()


def load_images(config: DataConfig) -> RealImages:
    """Real images and labels, in memory or on the disk.

    Raises:
        UserError: files are missing or damaged, or there are captions only.
    """
    if config.name in _IN_MEMORY:
        return load_dataset(config)
    return StreamedImages(
        load_source(config),
        config.image_size,
        num_workers=config.num_workers,
        max_damaged=config.max_damaged,
    )


def load_source(config: DataConfig) -> ImageSource:
    """Encoded images or captions of files; a few damaged samples are left out with a warning.

    Raises:
        UserError: files are missing or damaged, more samples than `max_damaged` are, or the data set is none of files.
    """
    if config.path is None:
        raise UserError(f"data.name: {config.name} has no image files and no captions")
    source = _open(config, user_path(config.path, "data.path"))
    accept_damage(source.damaged, config.max_damaged, config.path)
    return source


def _open(config: DataConfig, path: Path) -> ImageSource:
    """The source of these settings; each kind is imported when it is wanted."""
    class_names = user_path(config.class_names, "data.class_names") if config.class_names else None
    if config.name == "image_folder":
        from adanat_rl.data.image_tree import ImageTree

        return ImageTree(path, class_names)
    if config.name == "webdataset":
        from adanat_rl.data.class_list import read_classes
        from adanat_rl.data.tar_shards import TarShards

        listed = read_classes(class_names) if class_names else None
        return TarShards(expand_files(str(path), ".tar"), listed, config.index_folder)
    if config.name == "coco":
        from adanat_rl.data.coco import CocoCaptions

        return CocoCaptions(path, user_path(config.captions or "", "data.captions"))
    if config.name == "cifar10":
        return _cifar10(path)
    return _captions_or_cc3m(config, path)


def _cifar10(path: Path) -> ImageSource:
    from adanat_rl.data.cifar10 import ParquetImages, parquet_files
    from adanat_rl.data.image_tree import ImageTree

    if not path.exists():
        raise UserError(f"data.path: no such file or folder: {path}")
    files = parquet_files(path)
    return ParquetImages(files) if files else ImageTree(path, name="cifar10")


def _captions_or_cc3m(config: DataConfig, path: Path) -> ImageSource:
    from adanat_rl.data.caption_files import is_validation_table, open_captions
    from adanat_rl.data.cc3m import CC3MTable

    if config.name == "captions":
        return open_captions(path)
    files = expand_files(str(path), ".tsv")
    validation = [file for file in files if is_validation_table(file)]
    if validation and len(files) > 1:
        raise UserError(
            f"data.path: {validation[0]} has captions only, others beside it may have images; name one file"
        )
    return open_captions(validation[0], "cc3m_tsv") if validation else CC3MTable(files, config.index_folder)
