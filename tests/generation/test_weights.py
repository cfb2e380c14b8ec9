from __future__ import annotations

import gc
import json
import os
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from adanat_rl.config.errors import UserError
from adanat_rl.generation import weights
from adanat_rl.generation.masked.nat import TransformerNAT
from adanat_rl.generation.masked.patch_tokenizer import PatchTokenizer
from adanat_rl.generation.weights import fit_state, load_network, read_tensors, save_network, share_network

ARGUMENTS = {"vocab_size": 6, "grid_size": 2, "num_classes": 3, "width": 8, "depth": 1, "num_heads": 2}
CLASSES: dict[str, type[nn.Module]] = {"transformer": TransformerNAT}


@pytest.fixture
def network() -> TransformerNAT:
    torch.manual_seed(0)
    return TransformerNAT(**ARGUMENTS)


@pytest.fixture
def file(tmp_path: Path, network: TransformerNAT) -> Path:
    path = tmp_path / "folder" / "nat.safetensors"
    save_network(path, "transformer", ARGUMENTS, network)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    return read_tensors(path)[1]


def rewrite(
    path: Path, *, metadata: dict[str, str] | None = None, tensors: dict[str, torch.Tensor] | None = None
) -> None:
    """The same file with other metadata or tensors."""
    now = {**metadata_of(path), **(metadata or {})}
    save_file(load_file(path) if tensors is None else tensors, path, {k: v for k, v in now.items() if v is not None})


def test_a_saved_network_comes_back_with_the_same_bits_in_eval_mode(file: Path, network: TransformerNAT) -> None:
    loaded = load_network(file, CLASSES)
    assert isinstance(loaded, TransformerNAT)
    assert not loaded.training
    assert loaded.state_dict().keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_the_file_says_what_it_holds(file: Path) -> None:
    metadata = metadata_of(file)
    assert metadata["kind"] == "transformer"
    assert json.loads(metadata["arguments"]) == ARGUMENTS


def test_nothing_is_left_beside_the_file(file: Path) -> None:
    assert [entry.name for entry in file.parent.iterdir()] == ["nat.safetensors"]


def load(path: Path) -> None:
    load_network(path, CLASSES)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: .*none\.safetensors"):
        load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:100], lambda data: data[:-5], lambda data: b"", lambda data: b"\x80\x05pickle" * 9]
)
def test_a_damaged_file_is_named(file: Path, damage) -> None:
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"nat\.safetensors is damaged or no safetensors file"):
        load(file)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        load(tmp_path)


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.safetensors"
    save_network(path, "patch", {"vocab_size": 4, "patch_size": 2, "image_size": 4}, PatchTokenizer(4, 2, 4))
    with pytest.raises(UserError, match=r"tokenizer\.safetensors holds: patch; accepted here: transformer"):
        load(path)


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"other\.safetensors holds: unknown format None"):
        load(path)


def test_missing_extra_and_misshapen_tensors_are_named(file: Path) -> None:
    tensors = load_file(file)
    missing = {name: value for name, value in tensors.items() if name != "head.bias"}
    rewrite(file, tensors=missing)
    with pytest.raises(UserError, match=r"nat\.safetensors lacks: head\.bias$"):
        load(file)
    rewrite(file, tensors={**tensors, "head.spare": torch.zeros(1)})
    with pytest.raises(UserError, match=r"has too many: head\.spare$"):
        load(file)
    rewrite(file, tensors={**tensors, "head.bias": torch.zeros(7)})
    with pytest.raises(UserError, match=r"another shape or dtype of: head\.bias$"):
        load(file)
    rewrite(file, tensors={**tensors, "head.bias": tensors["head.bias"].double()})
    with pytest.raises(UserError, match=r"another shape or dtype of: head\.bias$"):
        load(file)


def test_a_long_list_of_missing_tensors_is_cut_short(network: TransformerNAT) -> None:
    with pytest.raises(UserError) as caught:
        fit_state(network, {}, Path("x"))
    message = str(caught.value)
    assert f"and {len(network.state_dict()) - 5} more" in message
    assert message.count(",") == 4


def test_a_refused_state_leaves_the_network_as_it_was(network: TransformerNAT) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError):
        fit_state(network, {name: value + 1 for name, value in list(before.items())[1:]}, Path("x"))
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("arguments", ['{"vocabulary": 3}', "{}", "[]", "{", '{"vocab_size": "six"}', None], ids=str)
def test_arguments_that_do_not_fit_the_class_are_a_user_error(file: Path, arguments: str | None) -> None:
    rewrite(file, metadata={"arguments": arguments})
    with pytest.raises(UserError, match=r"nat\.safetensors"):
        load(file)


def mapped_files(network: nn.Module) -> set[str]:
    """What the memory of the parameters is a mapping of; "" for memory of the process itself."""
    ranges = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        addresses, _, _, _, _, *name = line.split(maxsplit=5)
        low, high = (int(address, 16) for address in addresses.split("-"))
        ranges.append((low, high, name[0] if name and name[0].startswith("/") else ""))
    return {
        name for parameter in network.parameters() for low, high, name in ranges if low <= parameter.data_ptr() < high
    }


needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")


@needs_proc
def test_a_large_file_is_mapped_and_not_copied(
    file: Path, network: TransformerNAT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_COPIED_BYTES", 0)  # so that a small one counts as large
    loaded = share_network(file, CLASSES)
    assert mapped_files(loaded) == {str(file.resolve())}
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


@needs_proc
def test_a_small_file_is_copied_to_where_kernels_like_it(file: Path) -> None:
    assert mapped_files(share_network(file, CLASSES)) == {""}


def test_two_loads_in_a_process_share_one_frozen_module(file: Path, tmp_path: Path) -> None:
    first = share_network(file, CLASSES)
    (tmp_path / "link.safetensors").symlink_to(file)
    assert share_network(file, CLASSES) is first
    assert share_network(tmp_path / "link.safetensors", CLASSES) is first
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert not first.training


def test_another_precision_or_a_file_that_was_written_again_is_another_module(
    file: Path, network: TransformerNAT
) -> None:
    first = share_network(file, CLASSES)
    half = share_network(file, CLASSES, dtype=torch.bfloat16)
    assert half is not first
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        network.head.bias.add_(1)
    before = file.stat()
    save_network(file, "transformer", ARGUMENTS, network)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # clocks of file systems may be coarse
    second = share_network(file, CLASSES)
    assert second is not first
    assert torch.equal(second.head.bias, network.head.bias)
    assert torch.equal(first.head.bias + 1, second.head.bias)


def test_a_shared_module_lives_as_long_as_somebody_uses_it(file: Path) -> None:
    first = share_network(file, CLASSES)
    watched = weakref.ref(first)
    again = share_network(file, CLASSES)
    del first
    gc.collect()
    assert watched() is again
    del again
    gc.collect()
    assert watched() is None


def test_a_missing_file_that_is_to_be_shared_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: .*none\.safetensors"):
        share_network(tmp_path / "none.safetensors", CLASSES)
