"""The data set that a configuration names."""

from __future__ import annotations

from pathlib import Path

from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import DataConfig
from adanat_rl.data.dataset import ImageDataset, RealImages
from adanat_rl.data.digits import load_digits_dataset
from adanat_rl.data.mnist import load_mnist_dataset
from adanat_rl.data.sources import ImageSource, expand_files
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
    """Encoded images or captions of files; each kind is imported when it is wanted.

    Raises:
        UserError: files are missing or damaged, or the data set is none of files.
    """
    if config.path is None:
        raise UserError(f"data.name: {config.name} has no image files and no captions")
    path = Path(config.path).expanduser()
    class_names = Path(config.class_names).expanduser() if config.class_names else None
    if config.name == "image_folder":
        from adanat_rl.data.image_tree import ImageTree

        return ImageTree(path, class_names)
    if config.name == "webdataset":
        from adanat_rl.data.image_tree import read_class_list
        from adanat_rl.data.tar_shards import TarShards

        listed = read_class_list(class_names) if class_names else {}
        names = [text or folder for folder, text in listed.items()]
        return TarShards(expand_files(config.path, ".tar"), names, config.index_folder)
    if config.name == "coco":
        from adanat_rl.data.coco import CocoCaptions

        return CocoCaptions(path, Path(config.captions or "").expanduser())
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
    from adanat_rl.data.cc3m import CaptionList, CC3MTable, is_validation_table, read_captions

    if config.name == "captions":
        return CaptionList(read_captions(path))
    files = expand_files(str(path), ".tsv")
    validation = [file for file in files if is_validation_table(file)]
    if validation and len(files) > 1:
        raise UserError(
            f"data.path: {validation[0]} has captions only, others beside it may have images; name one file"
        )
    if validation:
        return CaptionList(read_captions(validation[0]), "cc3m_tsv")
    return CC3MTable(files, config.index_folder)
