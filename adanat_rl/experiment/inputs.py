"""The files that a configuration names: which are there, and of the others what they are and where they come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from adanat_rl.config.catalogue import describe_missing, published_file
from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import ASSET_PREFIX, resolve_path
from adanat_rl.config.schema import DataConfig, ExperimentConfig
from adanat_rl.data.patterns import expand_files, user_path
from adanat_rl.evaluation.panel.photos import PHOTO_NETWORKS, photo_statistics
from adanat_rl.experiment.contents import CONTENT_KEYS
from adanat_rl.generation.text.table import MANIFEST

_IMAGENET = "photos in one folder per class; ImageNet's are published at image-net.org, ILSVRC2012_img_train.tar"
_COCO = "published at cocodataset.org"
_CC3M = "captions and addresses are published at ai.google.com/research/ConceptualCaptions, images are yours to fetch"
_DATA = {
    "image_folder": f"{_IMAGENET}; unpack it there, with one folder per synset",
    "webdataset": f".tar shards of images with captions or classes; of CC3M, {_CC3M}; img2dataset makes such shards",
    "cc3m_tsv": f"CC3M as lines of name, index, caption, base64 JPEG; {_CC3M}",
    "coco": f"photos of MS-COCO, {_COCO}, train2014.zip; unpack it there",
    "cifar10": "CIFAR-10 as parquet files or folders, published at cs.toronto.edu/~kriz/cifar.html",
    "captions": "captions, one a line; any text file of yours",
}
_CAPTIONS_JSON = f"captions of MS-COCO, {_COCO}, annotations_trainval2014.zip; unpack it there"


@dataclass(frozen=True)
class Input:
    """A file or folder.

    Args:
        setting: dotted key. path: as the setting has it. there: whether it exists.
        about: of a missing one: what it is, where it is published, what makes it, behind "KEY: no such file: PATH".
        needed: False for what only `prepare` and `sample` read.
        problem: instead of "no such file", what is wrong with a pattern whose folder is there.
    """

    setting: str
    path: str
    there: bool
    about: str = ""
    needed: bool = True
    problem: str = ""

    @property
    def refusal(self) -> str:
        """The line for a missing one."""
        return self.problem or f"{self.setting}: no such file: {self.path}{self.about}"


# Settings that name files or folders; the last two are places of caches, which need not exist.
_PATHS = (*CONTENT_KEYS, "data.index_folder", "text.cache")


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The same files by names that hold in every process: workers on other machines have folders of their own."""
    settings = config.model_dump()
    for key in _PATHS:
        if key.startswith("reward.") and key.split(".")[1] not in config.reward.kinds:
            continue  # names of files that nobody reads
        *sections, name = key.split(".")
        section = settings
        for part in sections:
            section = section[part]
        value = section[name]
        if isinstance(value, str) and not value.startswith(ASSET_PREFIX):
            section[name] = str(Path.cwd() / Path(value).expanduser())
    return ExperimentConfig.model_validate(settings)


def inputs_of(config: ExperimentConfig) -> list[Input]:
    """All files that a training reads, in the order of the settings."""
    found = [*_data(config), *_generator(config), *_reward(config), *_evaluation(config)]
    if config.decisions.base.file is not None and config.decisions.base.values is None:
        found.append(_file("decisions.base.file", config.decisions.base.file, "T rows of 4 numbers as JSON"))
    return found


def missing_inputs(config: ExperimentConfig) -> list[Input]:
    """Those that a training needs and that are not there."""
    return [one for one in inputs_of(config) if one.needed and not one.there]


def require_inputs(config: ExperimentConfig) -> None:
    """Refuses a configuration whose files are not all there, before anything is read.

    Raises:
        UserError: naming the first missing one, what it is, where it is published and what makes it.
    """
    missing = missing_inputs(config)
    if missing:
        first = missing[0]
        others = f" ({len(missing) - 1} more are missing: see --dry-run)" if len(missing) > 1 else ""
        raise UserError(f"{first.refusal}{others}")


def require_named(config: ExperimentConfig, settings: Collection[str]) -> None:
    """Refuses a configuration of which one of these settings names a file that is not there.

    Raises:
        UserError: as `require_inputs`.
    """
    for one in inputs_of(config):
        if one.setting in settings and not one.there:
            raise UserError(one.refusal)


def _data(config: ExperimentConfig) -> Iterator[Input]:
    data = config.data
    if data.path is not None:
        problem = _problem_of_pattern(data)
        there = not problem and _data_is_there(data)
        yield Input("data.path", data.path, there, f": {_DATA[data.name]}", problem=problem)
    if data.captions is not None:
        yield _file("data.captions", data.captions, _CAPTIONS_JSON)
    if data.class_names is not None:
        yield _file("data.class_names", data.class_names, "the class folders in the order of their numbers")
    if data.tokens is not None:
        there = (Path(data.tokens).expanduser() / MANIFEST).is_file()
        yield Input("data.tokens", data.tokens, there, ": encoded images; to get them: adanat-rl prepare --tokens")
    if data.statistics is not None and config.evaluation.judge == "inception":
        hint = "Fréchet statistics of the real images; to get them: adanat-rl prepare --statistics"
        yield _file("data.statistics", data.statistics, hint)
        for name, file in photo_statistics(config):
            hint = f"the same for evaluation.{name}; to get them: adanat-rl prepare --statistics"
            yield _file("data.statistics", str(file), hint)


def _generator(config: ExperimentConfig) -> Iterator[Input]:
    generator, text = config.generator, config.text
    yield _file("generator.nat", generator.nat)
    yield _file("generator.tokenizer", generator.tokenizer)
    if generator.captions is not None:
        yield _folder("generator.captions", generator.captions, MANIFEST, "adanat-rl prepare --captions")
    amused = generator.kind == "amused"  # whose captions are checked against its encoder
    for key, path, name in (
        ("text.encoder", text.encoder, "config.json"),
        ("text.tokenizer", text.tokenizer, "tokenizer*.json"),
    ):
        if path is not None:
            yield _folder(key, path, name, needed=amused)


def _reward(config: ExperimentConfig) -> Iterator[Input]:
    reward, kinds = config.reward, config.reward.kinds
    files = (
        ("adversarial", "features"),
        ("adversarial", "weights"),
        ("fid", "weights"),
        ("classifier", "weights"),
        ("image_reward", "weights"),
        ("aesthetic", "head"),
    )
    for kind, name in files:
        path = getattr(getattr(reward, kind), name)
        if kind in kinds and path is not None:
            yield _file(f"reward.{kind}.{name}", path)
    for kind in ("clip_score", "aesthetic"):
        folder = getattr(reward, kind).encoder
        if kind in kinds and folder is not None:
            yield _folder(f"reward.{kind}.encoder", folder, "config.json")
    if "image_reward" in kinds:
        vocabulary = Path(reward.image_reward.vocabulary).expanduser()
        yield Input(
            "reward.image_reward.vocabulary",
            str(reward.image_reward.vocabulary),
            vocabulary.is_file() or (vocabulary / "vocab.txt").is_file(),
            _about("reward.image_reward.vocabulary", reward.image_reward.vocabulary),
        )


def _evaluation(config: ExperimentConfig) -> Iterator[Input]:
    evaluation = config.evaluation
    if evaluation.inception is not None and evaluation.judge == "inception":
        yield _file("evaluation.inception", evaluation.inception)
    if evaluation.captions is not None:
        yield _folder("evaluation.captions", evaluation.captions, MANIFEST, "adanat-rl prepare --captions")
    if evaluation.clip_score is not None:
        yield _folder("evaluation.clip_score", evaluation.clip_score, "config.json")
    for network in PHOTO_NETWORKS:
        folder = network.folder(config)
        if folder is not None:
            yield _folder(network.setting, folder, "config.json")
    if evaluation.reference is not None:
        yield _file("evaluation.reference", evaluation.reference, "baselines as JSON; null: hand-made schedules only")


def _file(key: str, path: str, otherwise: str = "") -> Input:
    """A file, or an asset that ships with the package.

    Raises:
        UserError: no asset has this name.
    """
    if path.startswith(ASSET_PREFIX):
        resolve_path(path, key)
        return Input(key, path, True)
    there = Path(path).expanduser().is_file()
    return Input(key, path, there, "" if there else _about(key, path, otherwise))


def _folder(key: str, path: str, holds: str, command: str = "", needed: bool = True) -> Input:
    """A folder with a file in it that shows that it is whole."""
    there = any(Path(path).expanduser().glob(holds))
    otherwise = f"to get it: {command}" if command else "a folder of transformers"
    return Input(key, path, there, "" if there else _about(key, path, otherwise), needed)


def _about(key: str, path: str, otherwise: str = "") -> str:
    """What the catalogue says of a missing file; for one that it does not know, `otherwise` or how to import one."""
    if published_file(path) is None and otherwise:
        return f": {otherwise}"
    return describe_missing(path, key).removeprefix(f"{key}: no such file: {path}")


def _data_is_there(data: DataConfig) -> bool:
    """Files of the data set, as far as a look at their names tells."""
    path = user_path(data.path or "", "data.path")
    looks: dict[str, Callable[[], bool]] = {
        "image_folder": path.is_dir,
        "coco": path.is_dir,
        "cifar10": path.exists,
        "captions": path.is_file,
        "webdataset": lambda: _expands(data.path, ".tar") == "",
        "cc3m_tsv": lambda: _expands(data.path, ".tsv") == "",
    }
    return looks[data.name]()


def _problem_of_pattern(data: DataConfig) -> str:
    """What is wrong with files that a pattern or a folder stands for, where their folder is there; "" if nothing is."""
    suffix = {"webdataset": ".tar", "cc3m_tsv": ".tsv"}.get(data.name)
    fixed = re.split(r"[*?\[{]", data.path or "")[0]
    place = user_path(fixed, "data.path") if fixed == data.path else user_path(f"{fixed}x", "data.path").parent
    return _expands(data.path, suffix) if suffix and place.is_dir() else ""


def _expands(pattern: str | None, suffix: str) -> str:
    """Why a pattern stands for no files, "" if it stands for some."""
    try:
        expand_files(pattern or "", suffix)
    except UserError as error:
        return str(error)
    return ""
