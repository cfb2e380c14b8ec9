from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import append_line, json_line, read_json_line, sync_folder, write_atomically
from adanat_rl.config.paths import ASSET_PREFIX, asset_names, resolve_path


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("content", ["süß\n", b"\x00\xff"])
def test_a_file_is_written_with_its_folder_and_nothing_beside_it(
    tmp_path: Path, content: str | bytes, durable: bool
) -> None:
    file = tmp_path / "a" / "b" / "file"
    write_atomically(file, content, durable=durable)
    assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    write_atomically(file, b"second", durable=durable)
    assert file.read_bytes() == b"second"
    assert list(file.parent.iterdir()) == [file]


def test_half_a_surrogate_pair_is_written_as_the_escape_that_json_has_for_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "odd.json", json.dumps({"a": "\ud800é"}, ensure_ascii=False))
    assert json.loads((tmp_path / "odd.json").read_text()) == {"a": "\ud800é"}
    append_line(tmp_path / "odd.jsonl", json.dumps("\udfff", ensure_ascii=False))
    assert json.loads((tmp_path / "odd.jsonl").read_text()) == "\udfff"


@pytest.mark.parametrize("row", [{"a": 1}, {"é": "\ud800", "b": [0.1, None, {"c": 'say "aye", "crc32": "0"}'}]}])
def test_a_sealed_line_shows_each_turned_bit(row: dict[str, Any]) -> None:
    line = json_line(row).encode()
    assert read_json_line(line) == (row, True)
    assert read_json_line(json.dumps(json.loads(line)).encode()) == (row, True)
    assert read_json_line(json.dumps(row).encode()) == (row, True), "older versions wrote no checksum"
    for place in range(len(line)):
        for bit in range(8):
            turned = line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :]
            read, as_written = read_json_line(turned)
            assert read is None or not as_written or any("crc" in key or "32" in key for key in read), turned


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_reader_never_meets_half_a_file(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")
    seen = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (seen.append(file.read_text()), replace(self, target))[1])
    write_atomically(file, "new")
    assert seen == ["old"]
    assert file.read_text() == "new"


def test_durable_writes_reach_the_disk_before_the_rename(tmp_path: Path, monkeypatch) -> None:
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("rename"), replace(self, target))[1])
    write_atomically(tmp_path / "file", "x")
    assert events == ["fsync", "rename", "fsync"]  # the file, then its name
    events.clear()
    write_atomically(tmp_path / "file", "x", durable=False)
    assert events == ["rename"]
    sync_folder(tmp_path)


def test_assets_and_files_are_found(tmp_path: Path, monkeypatch) -> None:
    assert resolve_path("asset:digits/nat.safetensors", "generator.nat").is_file()
    file = tmp_path / "nat.safetensors"
    file.write_bytes(b"x")
    assert resolve_path(str(file), "generator.nat") == file
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path("~/nat.safetensors", "generator.nat") == file


def test_every_listed_asset_exists() -> None:
    names = asset_names()
    assert {"asset:digits/nat.safetensors", "asset:digits/reference.json"} <= set(names)
    assert all(name.startswith(ASSET_PREFIX) and resolve_path(name, "x").is_file() for name in names)


def test_a_missing_file_or_asset_is_named_with_the_setting_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"generator\.nat: no such file: .*none.*asset:digits/nat\.safetensors"):
        resolve_path(str(tmp_path / "none"), "generator.nat")
    with pytest.raises(
        UserError, match=r"generator\.nat: no such asset: asset:digits/nta.*did you mean 'asset:digits/nat\."
    ):
        resolve_path("asset:digits/nta.safetensors", "generator.nat")
    with pytest.raises(UserError, match="no such file"):
        resolve_path(str(tmp_path), "generator.nat")


def test_a_run_error_carries_what_is_safe_and_how_to_go_on() -> None:
    error = RunError("it broke", safe="checkpoint 3", resume="adanat-rl train")
    assert (str(error), error.safe, error.resume) == ("it broke", "checkpoint 3", "adanat-rl train")
    assert RunError("it broke").resume == ""
    assert issubclass(UserError, ValueError)
