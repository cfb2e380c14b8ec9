"""Files of others: sizes that they claim, numbers that are none and things that are no files are told in one line."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adanat_rl import load_pipeline
from adanat_rl.config.errors import UserError
from adanat_rl.config.files import file_sha256
from adanat_rl.config.paths import assets_folder
from adanat_rl.config.schema import BaseScheduleConfig
from adanat_rl.evaluation.reference import load_baselines, load_references
from adanat_rl.experiment.importing.checksums import NETWORK_CLASSES
from adanat_rl.generation.build import base_schedule
from adanat_rl.generation.masked.schedules import DECISION_NAMES, load_schedule
from adanat_rl.generation.policies.files import load_policy
from adanat_rl.generation.weight_header import refuse_oversized
from adanat_rl.generation.weights import load_network, read_tensors, save_network
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.metrics.statistics import load_statistics

CLASSES = {**NETWORK_CLASSES, "conv_classifier": ConvClassifier}
NAT = assets_folder() / "digits" / "nat.safetensors"
POLICY = assets_folder() / "digits" / "policy"


def with_arguments(path: Path, source: Path = NAT, **changes: Any) -> Path:
    """A shipped network that claims other sizes."""
    tensors, metadata = read_tensors(source)
    arguments = {**json.loads(metadata["arguments"]), **changes}
    save_file(tensors, path, {**metadata, "arguments": json.dumps(arguments)})
    return path


def refused(load: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        load()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


SIZES = [10**8, 10**18, 10**30, 0, -1, -(10**20), 3, 1.5, "96", True, None, [96], {"a": 1}]


@pytest.mark.parametrize("name", ["vocab_size", "grid_size", "num_classes", "width", "depth", "num_heads"])
@pytest.mark.parametrize("value", SIZES, ids=str)
def test_sizes_that_the_tensors_of_a_network_do_not_bear_out_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    if name == "depth" and value == 3:
        value = 10**5
    if name == "num_heads" and value == 3:
        value = 5
    path = with_arguments(tmp_path / "nat.safetensors", **{name: value})
    assert str(path) in refused(lambda: load_network(path, CLASSES))


@pytest.mark.parametrize("stem", ["tokenizer", "judge_a", "classifier_c"])
@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_other_networks_are_measured_likewise(tmp_path: Path, dataset: str, stem: str) -> None:
    source = assets_folder() / dataset / f"{stem}.safetensors"
    arguments = json.loads(read_tensors(source)[1]["arguments"])
    for name in arguments.keys() - {"image_size", "dropout"}:
        for value in (10**9, 0, -4, "8", True):
            path = with_arguments(tmp_path / "network.safetensors", source, **{name: value})
            assert str(path) in refused(lambda path=path: load_network(path, CLASSES))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_network_whose_numbers_are_none_is_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "nat.safetensors"
    tensors, metadata = read_tensors(NAT)
    tensors["head.bias"][7] = value
    save_file(tensors, path, metadata)
    assert "no finite numbers, in head.bias" in refused(lambda: load_network(path, CLASSES))


def test_half_precision_at_its_largest_is_finite(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(network.weight, 65504.0)
    save_network(tmp_path / "n.safetensors", "linear", {"in_features": 2, "out_features": 2}, network, half=True)
    loaded = load_network(tmp_path / "n.safetensors", {"linear": torch.nn.Linear})
    assert float(loaded.weight.detach().max()) == 65504.0


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A shipped policy with another description."""
    folder.mkdir()
    description = json.loads((POLICY / "policy.json").read_text())
    change(description)
    (folder / "policy.json").write_text(json.dumps(description))
    (folder / "policy.safetensors").write_bytes((POLICY / "policy.safetensors").read_bytes())
    return folder


@pytest.mark.parametrize("value", [10**8, 10**18, 0, -1, 17, 1.5, "96", True, None, [96]], ids=str)
@pytest.mark.parametrize("name", ["hidden_size", "feature_width", "feature_length", "num_actions", "horizon"])
def test_sizes_of_a_policy_that_its_tensors_do_not_bear_out_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    folder = edited(tmp_path / "policy", lambda description: description["policy"].update({name: value}))
    assert "policy" in refused(lambda: load_policy(folder))


def test_a_table_for_other_classes_than_its_generator_draws_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    edited(folder, lambda description: description["policy"].update(kind="per_class", num_classes=3))
    save_file({"table": torch.zeros(4, 3, 4)}, folder / "policy.safetensors")
    description = json.loads((folder / "policy.json").read_text())
    description["weights_sha256"] = file_sha256(folder / "policy.safetensors")
    (folder / "policy.json").write_text(json.dumps(description))
    assert "policy.num_classes is 3, but its generator has 10" in refused(lambda: load_pipeline(folder))


TEXTS = {
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "a key twice": b'{"format": 1, "format": 1}',
    "a long number": b"[" + b"9" * 6_000 + b"]",
    "huge": b" " * (17 * 2**20) + b"{}",
    "no utf-8": b"\xff\xfe{}",
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
}
READERS: dict[str, Callable[[Path], object]] = {
    "policy.json": lambda path: load_policy(path.parent),
    "schedule.json": load_schedule,
    "reference.json": load_references,
    "baselines.json": load_baselines,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", TEXTS)
def test_json_of_others_is_bounded(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(TEXTS[text])
    assert name in refused(lambda: READERS[name](path))


def test_a_byte_order_mark_does_not_hinder(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    path.write_bytes(b"\xef\xbb\xbf[[0.5, 1, 1, 1]]")
    assert load_schedule(path).tolist() == [[0.5, 1.0, 1.0, 1.0]]


ROW = [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("column", "value"), [(0, 2.0), (0, -0.1), (1, -1.0), (2, 0.0), (2, 1e-30), (3, 1e300)])
def test_decisions_out_of_range_are_refused_wherever_they_come_from(tmp_path: Path, column: int, value: float) -> None:
    row = [*ROW]
    row[column] = value
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps([row]))
    reference = tmp_path / "reference.json"
    baseline = {"name": "a", "title": "a", "how": "a", "decisions": [row]}
    reference.write_text(json.dumps({"format": 1, "dataset": "d", "command": "", "baselines": [baseline]}))
    for load in (
        lambda: load_schedule(file),
        lambda: load_references(reference),
        lambda: base_schedule(BaseScheduleConfig.model_construct(values=(tuple(row),)), 1),
    ):
        assert f"{DECISION_NAMES[column]} {value:g}" in refused(load)


def header(content: Any, *, length: int | None = None, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], *offsets: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


HEADERS = {
    "longer than the file": header({}, length=10**6),
    "of gigabytes": header(b"{" + b" " * 5_000_000 + b"}"),
    "of 2^63 bytes": header({}, length=2**63),
    "deep": header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a tensor twice": header(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 1
        + b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        data=bytes(4),
    ),
    "tensors over each other": header({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, data=bytes(6)),
    "beyond the end": header({"a": entry([100], 0, 400)}, data=bytes(4)),
    "a negative size": header({"a": entry([-1], 0, 4)}, data=bytes(4)),
    "a size that overflows": header({"a": entry([2**62, 4], 0, 4)}, data=bytes(4)),
    "an unknown type": header({"a": entry([1], 0, 4, dtype="F33")}, data=bytes(4)),
    "metadata that is no text": header({"__metadata__": {"format": 3}, "a": entry([1], 0, 4)}, data=bytes(4)),
    "a list": header([1, 2]),
    "zeros": bytes(100),
    "text": b"hello, world",
    "nothing": b"",
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_is_none_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "nat.safetensors"
    path.write_bytes(HEADERS[case])
    assert "nat.safetensors is damaged or no safetensors file" in refused(lambda: load_network(path, CLASSES))


def test_what_is_no_plain_file_is_told(tmp_path: Path) -> None:
    """Opening a pipe would wait for whoever writes into it, reading a device would never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "is a pipe" in refused(lambda: load_network(tmp_path / "pipe", CLASSES))
    assert "is a device" in refused(lambda: load_network(Path("/dev/zero"), CLASSES))
    assert "is a folder" in refused(lambda: load_network(tmp_path, CLASSES))
    assert "loop" in refused(lambda: load_network(tmp_path / "loop", CLASSES))
    for name in ("policy.json", "policy.safetensors"):
        folder = edited(tmp_path / f"with a pipe as {name}", lambda description: None)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert f"{name} is a pipe" in refused(lambda folder=folder: load_policy(folder))


def test_weights_of_other_programs_are_sent_to_the_import(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "y.safetensors")
    for name in ("x.pth", "y.safetensors"):
        line = refused(lambda name=name: load_network(tmp_path / name, CLASSES))
        assert f"adanat-rl import-checkpoint {tmp_path / name}" in line


def npz(path: Path, shape: tuple[int, ...], data: bytes, *, packed: bool = False) -> Path:
    """An archive whose only array claims a shape."""
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    text = repr({"descr": "<f8", "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name in ("mu.npy", "sigma.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    return path


def test_statistics_are_as_long_as_they_say(tmp_path: Path) -> None:
    for shape in ((10**12,), (10**6, 10**6), (-1,), (3,)):
        path = npz(tmp_path / "s.npz", shape, bytes(16))
        assert "s.npz is damaged or no .npz" in refused(lambda path=path: load_statistics(path, "torch_fidelity"))
    bomb = npz(tmp_path / "s.npz", (2**25,), bytes(2**28), packed=True)
    assert bomb.stat().st_size < 2**20
    assert "would unpack to" in refused(lambda: load_statistics(bomb, "torch_fidelity"))
    np.savez(tmp_path / "good.npz", mu=np.zeros(2), sigma=np.eye(2))
    assert load_statistics(tmp_path / "good.npz", "torch_fidelity").mean.tolist() == [0, 0]


def test_a_hostile_file_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    """In a process of its own: computing and memory beyond what importing takes; both bounds are generous."""
    paths = [
        with_arguments(tmp_path / f"{name}.safetensors", **{name: value})
        for name, value in (("width", 10**6), ("depth", 10**5), ("vocab_size", 10**9), ("grid_size", 10**5))
    ]
    folder = edited(tmp_path / "policy", lambda description: description["policy"].update(feature_width=10**8))
    code = """
import resource, sys, time
from pathlib import Path
from adanat_rl.config.errors import UserError
from adanat_rl.generation.build import NAT_CLASSES
from adanat_rl.generation.policies.files import load_policy
from adanat_rl.generation.weights import load_network
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_network(Path(sys.argv[1]), NAT_CLASSES)
before, start = peak(), time.process_time()
for path in map(Path, sys.argv[2:]):
    try:
        load_policy(path) if path.is_dir() else load_network(path, NAT_CLASSES)
    except UserError:
        continue
    sys.exit("taken")
print((peak() - before) / 1024, time.process_time() - start)
"""
    command = [sys.executable, "-c", code, str(NAT), *map(str, paths), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    megabytes, seconds = map(float, result.stdout.split())
    assert megabytes < 100
    assert seconds < 10


def test_shipped_files_are_all_taken() -> None:
    classes = {**CLASSES}
    for path in assets_folder().rglob("*.safetensors"):
        metadata = read_tensors(path)[1]
        if metadata.get("kind") in classes:
            assert load_network(path, classes).state_dict().keys() == load_file(path).keys()


def test_measuring_a_file_imports_nothing_large() -> None:
    """Torch has its shapes of some operations in Python, behind seconds of imports."""
    code = """
import sys
from pathlib import Path
from adanat_rl.generation.build import NAT_CLASSES, TOKENIZER_CLASSES
from adanat_rl.generation.policies.files import load_policy
from adanat_rl.generation.weights import load_network
from adanat_rl.rewards.discriminator import PatchDiscriminator
folder = Path(sys.argv[1])
before = set(sys.modules)
load_network(folder / "nat.safetensors", NAT_CLASSES)
load_network(folder / "tokenizer.safetensors", TOKENIZER_CLASSES)
load_network(folder / "discriminator.safetensors", {"patch_discriminator": PatchDiscriminator})
load_policy(folder / "policy")
print(*sorted(set(sys.modules) - before))
"""
    command = [sys.executable, "-c", code, str(NAT.parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "sympy" not in result.stdout.split()
    assert len(result.stdout.split()) < 100


@pytest.mark.parametrize("calls_before", [0, 1])
def test_a_construction_without_end_is_ended_and_gradients_stay_on(tmp_path: Path, calls_before: int) -> None:
    """To switch them off and on are calls as well: with both offsets, the end falls on each of the two."""

    def build() -> None:
        for _ in range(calls_before):
            torch.empty(1)
        while True:
            with torch.no_grad():
                pass

    with pytest.raises(UserError, match="more tensors than the 0 in the file"):
        refuse_oversized(build, tmp_path, "config.json")
    assert torch.is_grad_enabled()
    assert torch.empty(1).device.type == "cpu"
