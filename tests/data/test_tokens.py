"""Token sets on the disk: written chunk by chunk, gone on with after a kill, refused when they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.data.tokens import DecodedTokens, TokenRecipe, TokenSet, TokenWriter

RECIPE = TokenRecipe("toy", 10, 4, 1024, 3, 32, True, "t" * 64, "l" * 64)
TOKENS = np.random.default_rng(0).integers(0, 1024, (10, 4))
FLIPPED = np.random.default_rng(1).integers(0, 1024, (10, 4))
LABELS = np.arange(10) % 3


def write(writer: TokenWriter, stop: int, chunk: int = 3) -> None:
    while writer.done < stop:
        rows = slice(writer.done, min(writer.done + chunk, stop))
        writer.write(TOKENS[rows], LABELS[rows], FLIPPED[rows])


def finished(folder: Path) -> TokenSet:
    writer = TokenWriter(folder, RECIPE)
    write(writer, 10)
    writer.finish()
    return TokenSet(folder)


def test_a_set_gives_back_what_was_written(tmp_path: Path) -> None:
    tokens = finished(tmp_path / "set")
    assert len(tokens) == 10
    assert (tokens.name, tokens.num_classes) == ("toy", 3)
    assert tokens.labels.tolist() == LABELS.tolist()
    index, flips = np.array([9, 0, 0]), np.array([False, True, False])
    got = tokens.tokens_at(index, flips)
    assert got.dtype == torch.int64
    assert got.tolist() == [TOKENS[9].tolist(), FLIPPED[0].tolist(), TOKENS[0].tolist()]
    assert np.load(tmp_path / "set" / "tokens.npy").dtype == np.uint16
    assert RECIPE.num_bytes == np.load(tmp_path / "set" / "tokens.npy").nbytes * 2


def test_a_writer_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    first = TokenWriter(folder, RECIPE)
    first.damaged = {4: "file 4: cut"}
    write(first, 6)
    first._arrays[0][6:8] = 999  # the chunk that the kill interrupted
    with pytest.raises(UserError, match="holds an unfinished token set"):
        TokenSet(folder)
    second = TokenWriter(folder, RECIPE)
    assert second.done == 6
    assert second.damaged == {4: "file 4: cut"}
    assert not second.finished
    write(second, 10)
    second.finish()
    assert TokenSet(folder).tokens_at(np.arange(10)).tolist() == TOKENS.tolist()
    names = {file.name for file in folder.iterdir()}
    assert names == {"tokens.npy", "tokens_flipped.npy", "labels.npy", "manifest.json"}
    assert TokenWriter(folder, RECIPE).finished


def test_a_writer_killed_before_its_first_chunk_starts_again(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "tokens.npy").write_bytes(b"half a head")
    assert len(finished(folder)) == 10


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_a_set_of_something_else_is_not_overwritten(tmp_path: Path, state: str) -> None:
    folder = tmp_path / "set"
    finished(folder) if state == "finished" else TokenWriter(folder, RECIPE)
    for name, value in (("tokenizer_hash", "x"), ("listing_hash", "x"), ("image_size", 64), ("flipped", False)):
        with pytest.raises(UserError, match=f"was made with {name} .*, now it is {value!r}"):
            TokenWriter(folder, replace(RECIPE, **{name: value}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_text("")
    with pytest.raises(UserError, match=r"holds photo.jpg and no token set"):
        TokenWriter(tmp_path / "other", RECIPE)


def test_tokens_that_are_none_are_refused(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path / "set", RECIPE)
    with pytest.raises(ValueError, match="expected 0 … 1023"):
        writer.write(TOKENS[:1] * 0 + 1024, LABELS[:1], FLIPPED[:1])
    with pytest.raises(ValueError, match="0 of 10 images are encoded"):
        writer.finish()


def test_what_is_wrong_with_a_set_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with pytest.raises(UserError, match=r"data.tokens: .* holds no token set; make one with: adanat-rl prepare"):
        TokenSet(folder)
    finished(folder)
    TokenSet(folder, "t" * 64)
    with pytest.raises(UserError, match=r"made with another tokenizer \(tttttttttttt, generator.tokenizer is xxxx\)"):
        TokenSet(folder, "xxxx")
    manifest = json.loads((folder / "manifest.json").read_text())
    for change in ({"count": 11}, {"count": None}):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(UserError, match="is damaged"):
            TokenSet(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "tokens.npy").write_bytes((folder / "tokens.npy").read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged"):
        TokenSet(folder)


def test_a_set_without_mirrored_images_says_so(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path / "set", replace(RECIPE, flipped=False))
    writer.write(TOKENS, LABELS)
    writer.finish()
    tokens = TokenSet(tmp_path / "set")
    assert tokens.tokens_at(np.array([2]), np.array([False])).tolist() == [TOKENS[2].tolist()]
    with pytest.raises(UserError, match=r"no mirrored images; make it with data.horizontal_flip=true"):
        tokens.tokens_at(np.array([2]), np.array([True]))


def test_decoded_tokens_are_a_data_set(tmp_path: Path) -> None:
    def decode(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.view(-1, 1, 2, 2) / 1024

    images = DecodedTokens(finished(tmp_path / "set"), decode, (1, 2, 2))
    assert len(images) == 10
    expected = torch.from_numpy(FLIPPED[[3]]).view(1, 1, 2, 2) / 1024
    assert torch.equal(images.images_at(np.array([3]), np.array([True])), expected)


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}] * 10, dtype=object), allow_pickle=True)


def absurd_header(path: Path) -> None:
    """A header that tells of 10¹⁵ numbers in a file of 208 bytes."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**15,)})
        file.write(b"\0" * 80)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("labels.npy", pickled),
        ("labels.npy", absurd_header),
        ("labels.npy", lambda path: np.save(path, np.full(10, 3))),
        ("labels.npy", lambda path: np.save(path, np.full(10, -1))),
        ("labels.npy", lambda path: np.save(path, np.zeros(10))),
        ("labels.npy", lambda path: np.save(path, np.zeros((10, 1), np.int64))),
        ("tokens.npy", lambda path: np.save(path, np.zeros((10, 4)))),
        ("tokens.npy", lambda path: path.write_bytes(b"")),
        ("tokens.npy", lambda path: path.unlink()),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("manifest.json", lambda path: path.write_text("[" * 100_000)),
    ],
)
def test_damaged_files_of_a_set_are_refused(tmp_path: Path, name: str, damage) -> None:
    finished(tmp_path / "set")
    damage(tmp_path / "set" / name)
    with pytest.raises(UserError, match="is damaged"):
        TokenSet(tmp_path / "set")


@pytest.mark.parametrize("change", [{"vocab_size": None}, {"count": "10"}, {"length": -1}, {"num_classes": 10**30}])
def test_manifests_that_say_nothing_sensible_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    finished(tmp_path / "set")
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    (tmp_path / "set" / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(UserError, match="is damaged"):
        TokenSet(tmp_path / "set")


def test_tokens_beyond_the_codebook_are_no_tokens(tmp_path: Path) -> None:
    tokens = finished(tmp_path / "set")
    stored = np.load(tmp_path / "set" / "tokens.npy")
    stored[4, 2] = 1024
    np.save(tmp_path / "set" / "tokens.npy", stored)
    tokens = TokenSet(tmp_path / "set")
    assert tokens.tokens_at(np.array([3])).tolist() == [TOKENS[3].tolist()]
    with pytest.raises(RunError, match="holds token 1024, the codebook has 1024 entries; make it again"):
        tokens.tokens_at(np.array([3, 4]))


@pytest.mark.parametrize(
    ("name", "content"),
    [("done", None), ("done", -1), ("done", 11), ("damaged", None), ("damaged", {"x": "y"}), ("tokens.npy", b"")],
)
def test_an_unfinished_set_that_is_damaged_is_refused(tmp_path: Path, name: str, content) -> None:
    folder = tmp_path / "set"
    write(TokenWriter(folder, RECIPE), 6)
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        progress = json.loads((folder / "progress.json").read_text())
        (folder / "progress.json").write_text(json.dumps({**progress, name: content}))
    with pytest.raises(UserError, match=r"is damaged: .*; remove .* and start again"):
        TokenWriter(folder, RECIPE)


def test_a_set_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the tokens need 9007199\.3 GB, the disk has"):
        TokenWriter(tmp_path / "set", replace(RECIPE, count=2**40, length=2**11))
