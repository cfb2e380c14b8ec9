"""What a run is made of, by content: networks, judges, references, data, own rewards. A name says nothing.

The same content at another place is the same run; other content under the same name is another one. A hash of a large
file is kept beside the file's size and times, so that a start after the first reads nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import file_sha256, write_atomically
from adanat_rl.config.own_code import own_file_hash
from adanat_rl.config.paths import ASSET_PREFIX, resolve_path
from adanat_rl.config.reward_settings import REWARD_KINDS
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.identity import data_fingerprint
from adanat_rl.evaluation.panel.photos import photo_statistics
from adanat_rl.generation.text.table import MANIFEST

DATA = "data"
_KINDS_OF_FILES = (  # settings that name a file or a folder of transformers
    "generator.nat",
    "generator.tokenizer",
    "text.encoder",
    "text.tokenizer",
    "reward.adversarial.features",
    "reward.adversarial.weights",
    "reward.image_reward.weights",
    "reward.image_reward.vocabulary",
    "reward.fid.weights",
    "reward.classifier.weights",
    "reward.clip_score.encoder",
    "reward.aesthetic.encoder",
    "reward.aesthetic.head",
    "evaluation.inception",
    "evaluation.clip_score",
    "evaluation.dinov2",
    "evaluation.clip",
    "evaluation.reference",
    "data.statistics",
)
_OF_PHOTOS = ("evaluation.inception", "evaluation.dinov2", "evaluation.clip", "data.statistics")
_TABLES = ("data.tokens", "generator.captions", "evaluation.captions")  # whose manifest holds the hashes of all
_OF_DATA = ("data.path", "data.captions", "data.class_names")
# Settings whose content is compared; the text of their paths is not.
CONTENT_KEYS = (*_KINDS_OF_FILES, *_TABLES, *_OF_DATA)


def contents_of(config: ExperimentConfig, known: Path | None = None) -> dict[str, str]:
    """SHA-256 in hex of each thing that a configuration names, by setting.

    Args:
        known: file with the hashes of the last start; it is written anew. None: everything is read.

    Raises:
        UserError: something is missing or cannot be read.
    """
    hashes = _Hashes(known)
    found = {}
    for key, path in _named(config):
        with _told_of(key):
            found[key] = hashes.of(path)
    for kind in config.reward.kinds:
        if kind not in REWARD_KINDS:
            found[f"reward.kind {kind}"] = own_file_hash(kind)
    for judge in config.evaluation.judges:
        found[f"evaluation.judges {judge}"] = own_file_hash(judge)
    fingerprint = data_fingerprint(config.data)
    found[DATA] = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    hashes.write()
    return found


def _named(config: ExperimentConfig) -> Iterator[tuple[str, Path]]:
    """Setting and file of what is used."""
    settings = config.model_dump()
    judged_by_inception = config.evaluation.judge == "inception"
    for key in (*_KINDS_OF_FILES, *_TABLES):
        section, name = key.split(".")[0], key.split(".")[1]
        if section == "reward" and name not in config.reward.kinds:
            continue
        if key in _OF_PHOTOS and not judged_by_inception:
            continue
        value: Any = settings
        for part in key.split("."):
            value = value[part]
        if value is None:
            continue
        path = Path(str(value)).expanduser()
        if str(value).startswith(ASSET_PREFIX):
            path = resolve_path(str(value), key)
        if key in _TABLES:
            path /= MANIFEST
        if path.exists():  # what a run does not need may be missing; what it needs was asked for before
            yield key, path
        if key == "data.statistics":
            yield from ((f"{key} {name}", file) for name, file in photo_statistics(config) if file.exists())


class _Hashes:
    """Hashes of files, kept beside what tells that a file is the same one as before.

    Args:
        known: JSON file of them; None keeps nothing.
    """

    def __init__(self, known: Path | None) -> None:
        self._file = known
        self._known: dict[str, Any] = {}
        self._used: dict[str, Any] = {}
        if known is not None:
            with suppress(OSError, ValueError, RecursionError):
                content = json.loads(known.read_bytes())
                self._known = content if isinstance(content, dict) else {}

    def of(self, path: Path) -> str:
        """Of a file, or of all files of a folder by their names."""
        if not path.is_dir():
            return self._of_file(path)
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        lines = [f"{file.relative_to(path).as_posix()} {self._of_file(file)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _of_file(self, path: Path) -> str:
        resolved = path.resolve()
        status = resolved.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._known.get(str(resolved))
        if isinstance(known, dict) and known.get("stamp") == stamp and isinstance(known.get("sha256"), str):
            self._used[str(resolved)] = known
        else:
            self._used[str(resolved)] = {"stamp": stamp, "sha256": file_sha256(resolved)}
        return str(self._used[str(resolved)]["sha256"])

    def write(self) -> None:
        """Keeps what was used, for the next start."""
        if self._file is not None and self._used != self._known:
            write_atomically(self._file, json.dumps(self._used, indent=1))


@contextmanager
def _told_of(key: str) -> Iterator[None]:
    """Turns a failure to read into a line that names the setting."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{key}: cannot read {error.filename}: {error.strerror}") from None
