"""The index of some shards: where each image lies, with its class or caption, and what is damaged.

All members of a shard whose names agree up to the first dot of their last part are one sample, wherever in the shard
they lie. Nothing here depends on settings, so that an index can be kept for all who read the shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import printable
from adanat_rl.data.contexts import (
    CAPTION_KEY,
    LABEL_KEYS,
    MAX_TEXT_BYTES,
    parse_caption,
    parse_class,
    parse_json,
    parse_text,
)
from adanat_rl.data.index_cache import Arrays
from adanat_rl.data.sources import IMAGE_SUFFIXES, PackedStrings, listing_hash
from adanat_rl.data.tar_members import Member, read_members

NO_LABEL = -1
FIRST_NAME = -2  # label of the class whose name is the first; -3 of the second one …
CLASS, TEXT, NOTHING = range(3)  # what the contexts are

_LABEL_SUFFIXES, _CAPTION_SUFFIX, _JSON_SUFFIX = ("cls", "cls.txt"), "txt", "json"
_PARTS = {"cls", _CAPTION_SUFFIX, _JSON_SUFFIX, *(suffix[1:] for suffix in IMAGE_SUFFIXES)}
_SHOWN = 6  # kinds of members that a message names
_KEYS, _SHOWN_KEY = 20, 30  # keys of a JSON object that count as kinds, and characters of each


@dataclass
class _Sample:
    """A sample with an image; `label` and `caption` are None where there is none, an error says why.

    `has_label`: something in it is meant as a class, whether it is one or not.
    """

    key: str
    shard: int
    member: Member
    label: int | str | None = None
    label_error: str = ""
    has_label: bool = False
    caption: str | None = None
    caption_error: str = ""


@dataclass(frozen=True)
class _Damage:
    shard: int
    text: str
    is_missing_image: bool = False


@dataclass
class _Found:
    """What was found in all shards."""

    samples: list[_Sample]
    damage: list[_Damage]
    notes: list[str]
    kinds: Counter[str]  # suffixes of members, and keys of JSON objects
    further: list[str]  # images beside the one of a sample
    skipped: int = 0  # keys without an image


def index_shards(shards: Sequence[Path]) -> Arrays:
    """The arrays of the index; `damaged` are texts, `damaged_shard` says of which file.

    Raises:
        UserError: a shard is damaged as a whole, no sample has an image, or some samples have a class and others a
            caption.
    """
    found = _Found([], [], [], Counter(), [])
    for number, shard in enumerate(shards):
        _read_shard(number, shard, found)
    named = str(shards[0]) if len(shards) == 1 else f"{shards[0]} … {shards[-1].name}"
    if not found.samples:
        first = f": {_first_damage(found, shards)}" if found.damage else ""
        raise UserError(f"data.path: no sample of {named} has an image{first}; {_described(found)}")
    if found.further:
        count, first = len(found.further), printable(found.further[0])
        found.notes.append(f"{count} further images of samples of {named} are left out, such as {first}")
    kind = _context_kind(found, named)
    samples = _with_context(found, kind)
    if not samples:
        raise UserError(f"data.path: no sample of {named} is whole: {_first_damage(found, shards)}")
    return _arrays(shards, found, samples, kind)


def _read_shard(number: int, shard: Path, found: _Found) -> None:
    members, notes = read_members(shard)
    found.notes += notes
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(_split(member.path)[0], []).append(member)
        found.kinds["." + _split(member.path)[1]] += 1
    with shard.open("rb") as file:
        for group in groups.values():
            for one in _occurrences(group):
                _read_sample(number, one, file, found)


def _occurrences(group: Sequence[Member]) -> Iterator[list[Member]]:
    """The samples of one key: one, or several where archives were joined and every member is there as often.

    Where some members are there more often than others nobody can say what belongs together; they come as one.
    """
    counts = Counter(_split(member.path)[1] for member in group)
    times = max(counts.values())
    if times == 1 or len(set(counts.values())) > 1:
        yield list(group)
        return
    parts: list[list[Member]] = [[] for _ in range(times)]
    seen: Counter[str] = Counter()
    for member in group:
        suffix = _split(member.path)[1]
        parts[seen[suffix]].append(member)
        seen[suffix] += 1
    yield from parts


def _read_sample(shard: int, members: Sequence[Member], file: BinaryIO, found: _Found) -> None:
    by_suffix: dict[str, list[Member]] = {}
    for member in members:
        by_suffix.setdefault(_split(member.path)[1].lower(), []).append(member)
    images = [one for suffix, group in by_suffix.items() if f".{suffix}" in IMAGE_SUFFIXES for one in group]
    texts = [suffix for suffix in (*_LABEL_SUFFIXES, _CAPTION_SUFFIX, _JSON_SUFFIX) if suffix in by_suffix]
    key = _split(members[0].name)[0]
    others = [suffix for suffix in by_suffix if f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if not images:
        found.skipped += 1
        if not {suffix.rpartition(".")[2] for suffix in by_suffix} & _PARTS:
            return  # a file that is no part of a sample
    problem = _image_problem(key, images, others, by_suffix)
    if problem:
        found.damage.append(_Damage(shard, f"{key}: {problem}", is_missing_image=not images))
        return
    found.further += [f"{key}.{suffix}" for suffix in others if f".{suffix}" not in IMAGE_SUFFIXES]
    sample = _Sample(key, shard, images[0])
    for suffix in texts:
        _READERS[suffix](sample, by_suffix[suffix][0], file, found)
    found.samples.append(sample)


def _image_problem(
    key: str, images: Sequence[Member], others: Sequence[str], by_suffix: dict[str, list[Member]]
) -> str:
    """Why a sample's image cannot be taken, "" if it can."""
    twice = [suffix for suffix, group in by_suffix.items() if len(group) > 1]
    if twice:
        return f"{len(by_suffix[twice[0]])} members are called .{twice[0]}, and not all members of the sample are"
    if len(images) > 1:
        return f"several images: {', '.join(member.path for member in images)}"
    if not images and others:
        return f"no image {key}.jpg; {key}.{others[0]} is another member of it, since a key ends at its first dot"
    if not images:
        return "no image"
    if images[0].problem:
        return f"the image {images[0].problem}"
    return "" if images[0].size else "the image is empty (0 bytes)"


def _read_label(sample: _Sample, member: Member, file: BinaryIO, found: _Found) -> None:
    del found
    sample.has_label = True
    if sample.label is None:
        try:
            sample.label = parse_class(_text(member, file))
        except ValueError as error:
            sample.label_error = sample.label_error or f"{member.path}: {error}"


def _read_caption(sample: _Sample, member: Member, file: BinaryIO, found: _Found) -> None:
    del found
    try:
        sample.caption = parse_caption(_text(member, file))
    except ValueError as error:
        sample.caption_error = f"{member.path}: {error}"


def _read_json(sample: _Sample, member: Member, file: BinaryIO, found: _Found) -> None:
    """Takes from a JSON object what other members do not say."""
    try:
        content = parse_json(_text(member, file))
        if not isinstance(content, dict):
            raise ValueError("expected a JSON object")
    except ValueError as error:
        sample.label_error = sample.label_error or f"{member.path}: {error}"
        sample.caption_error = sample.caption_error or f"{member.path}: {error}"
        return
    found.kinds.update(f'"{key[:_SHOWN_KEY]}"' for key in list(content)[:_KEYS])
    for key in LABEL_KEYS:
        if key in content and sample.label is None:
            sample.has_label = sample.has_label or content[key] is not None
            try:
                sample.label = parse_class(content[key])
            except ValueError as error:
                sample.label_error = sample.label_error or f"{member.path}: {key}: {error}"
    if CAPTION_KEY in content and sample.caption is None:
        try:
            sample.caption = parse_caption(content[CAPTION_KEY])
        except ValueError as error:
            sample.caption_error = sample.caption_error or f"{member.path}: {error}"


_READERS: dict[str, Callable[[_Sample, Member, BinaryIO, _Found], None]] = {
    **dict.fromkeys(_LABEL_SUFFIXES, _read_label),
    _CAPTION_SUFFIX: _read_caption,
    _JSON_SUFFIX: _read_json,
}


def _text(member: Member, file: BinaryIO) -> str:
    if member.problem:
        raise ValueError(member.problem)
    file.seek(member.offset)
    return parse_text(file.read(min(member.size, MAX_TEXT_BYTES + 1)))


def _context_kind(found: _Found, named: str) -> int:
    """Classes or captions, whichever more than half of the samples have, classes first; nothing if there is neither.

    Raises:
        UserError: there is something beside the images, but no kind of context that most samples have.
    """
    samples = found.samples
    with_label = sum(sample.has_label for sample in samples)
    with_caption = sum(sample.caption is not None for sample in samples)
    if 2 * with_label > len(samples):
        return CLASS
    if with_label == 0 and 2 * sum(_is_number(sample.caption) for sample in samples) > len(samples):
        for sample in samples:
            sample.label, sample.label_error = _number(sample)
        found.notes.append(f"texts of {named} are numbers, and are taken as classes")
        return CLASS
    if 2 * with_caption > len(samples):
        return TEXT
    usual = [kind for kind, count in found.kinds.items() if 2 * count > len(samples) and kind[0] == "."]
    if with_label or with_caption or any(kind.lower() not in IMAGE_SUFFIXES for kind in usual):
        bad = [sample.label_error or sample.caption_error for sample in samples]
        first = next((f"; first: {error}" for error in bad if error), "")
        raise UserError(
            f"data.path: {named}: {with_label} samples of {len(samples)} have a class and {with_caption} a caption; "
            f"expected all or none; {_described(found)}{first}"
        )
    found.notes.append(f"{named} has neither classes nor captions: all images are one class; {_described(found)}")
    return NOTHING


def _is_number(caption: str | None) -> bool:
    try:
        return caption is not None and isinstance(parse_class(caption), int)
    except ValueError:
        return False


def _number(sample: _Sample) -> tuple[int | None, str]:
    """The class that a text is, or why it is none."""
    if _is_number(sample.caption):
        return int(parse_class(sample.caption)), ""
    return None, f"{sample.key}.txt: {sample.caption_error or f'{sample.caption!r} is no class number'}"


def _with_context(found: _Found, kind: int) -> list[_Sample]:
    """The samples that have what most have; the others become damaged ones."""
    if kind == NOTHING:
        return found.samples
    value, why = (attrgetter("label"), "label_error") if kind == CLASS else (attrgetter("caption"), "caption_error")
    whole = []
    for sample in found.samples:
        if value(sample) is None:
            missing = "no class" if kind == CLASS else "no caption"
            found.damage.append(_Damage(sample.shard, getattr(sample, why) or f"{sample.key}: {missing}"))
        else:
            whole.append(sample)
    return whole


def _arrays(shards: Sequence[Path], found: _Found, samples: Sequence[_Sample], kind: int) -> Arrays:
    names = sorted({sample.label for sample in samples if isinstance(sample.label, str)})
    number_of = {name: FIRST_NAME - place for place, name in enumerate(names)}
    labels = [_stored(sample.label, number_of) for sample in samples]
    keys = PackedStrings.pack(sample.key for sample in samples)
    captions = PackedStrings.pack(sample.caption or "" for sample in samples)
    listed: Arrays = {
        "shard": np.array([sample.shard for sample in samples], np.int32),
        "offset": np.array([sample.member.offset for sample in samples], np.int64),
        "size": np.array([sample.member.size for sample in samples], np.int64),
        "label": np.array(labels, np.int64),
        "has_caption": np.array([sample.caption is not None for sample in samples], np.bool_),
        "keys": keys.blob,
        "key_ends": keys.ends,
        "captions": captions.blob,
        "caption_ends": captions.ends,
        "skipped": np.array(found.skipped),
    }
    files = [(shard.name, shard.stat().st_size) for shard in shards]
    packed = {"names": names, "damaged": [printable(one.text) for one in found.damage], "notes": found.notes}
    odd = [one.text for one in found.damage if not one.is_missing_image]
    more = [names, odd] if names or odd else []
    digest = listing_hash("tar", files, *(listed[name] for name in sorted(listed)), *more)
    arrays = {**listed, "kind": np.array(kind), "hash": np.frombuffer(bytes.fromhex(digest), np.uint8)}
    arrays["damaged_shard"] = np.array([one.shard for one in found.damage], np.int32)
    for name, texts in packed.items():
        strings = PackedStrings.pack(texts)
        arrays[name], arrays[f"{name}_ends"] = strings.blob, strings.ends
    return arrays


def _stored(label: int | str | None, number_of: Mapping[str, int]) -> int:
    if label is None:
        return NO_LABEL
    return number_of[label] if isinstance(label, str) else label


def _split(path: str) -> tuple[str, str]:
    """Key and suffix of a member: the key goes to the first dot of its last part."""
    folder, slash, last = path.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix


def _described(found: _Found) -> str:
    """What there is, and what would be understood."""
    kinds = ", ".join(f"{kind} ({count})" for kind, count in found.kinds.most_common(_SHOWN)) or "nothing"
    return (
        f"found {printable(kinds)}; expected images such as .jpg beside .cls (a class), .txt (a caption) or .json with "
        '"label", "cls" or "caption"'
    )


def _first_damage(found: _Found, shards: Sequence[Path]) -> str:
    first = found.damage[0]
    return f"{printable(shards[first.shard])}: {printable(first.text)}"
