"""Networks on disk: one safetensors file that also says which class it belongs to and how to build it.

Nothing in such a file can run code. Layout: the tensors of the state dict, and in the header's metadata `format`,
`kind` (which class) and `arguments` (JSON, what its constructor takes).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.version import __version__

_FORMAT = "adanat-rl network 1"
_COPIED_BYTES = 64 * 2**20


def save_network(
    path: Path, kind: str, arguments: Mapping[str, Any], network: nn.Module, *, half: bool = False
) -> None:
    """Writes a network, atomically; with `half` its float32 tensors are stored as float16."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {"format": _FORMAT, "kind": kind, "arguments": json.dumps(dict(arguments)), "adanat_rl": __version__}
    if half:
        tensors = {name: _converted(tensor, torch.float32, torch.float16) for name, tensor in tensors.items()}
        metadata["stored_as"] = "float16"
    write_atomically(path, _in_order(save(tensors, metadata)))


def _in_order(data: bytes) -> bytes:
    """The same file with sorted metadata: the library writes them in random order, and equal networks should be equal
    files.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load_network(path: Path, classes: Mapping[str, type[nn.Module]]) -> nn.Module:
    """The network of a file, in eval mode, on the CPU; what was stored as half precision comes back as float32.

    Args:
        classes: which kinds are accepted, and their classes.

    Raises:
        UserError: the file is damaged, of another kind, or its tensors do not fit the class.
    """
    tensors, metadata = read_tensors(path)
    kind = metadata.get("kind", "unknown")
    if metadata.get("format") != _FORMAT or kind not in classes:
        found = kind if metadata.get("format") == _FORMAT else f"unknown format {metadata.get('format')!r}"
        raise UserError(f"{path} holds: {found}; accepted here: {', '.join(classes)}")
    try:
        network = _build(classes[kind], json.loads(metadata["arguments"]), sum(t.nbytes for t in tensors.values()))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot build a {kind} of its arguments: {type(error).__name__}: {error}") from None
    if metadata.get("stored_as") == "float16":
        tensors = {name: _converted(tensor, torch.float16, torch.float32) for name, tensor in tensors.items()}
    fit_state(network, tensors, path)
    return network.eval()


def _build(cls: type[nn.Module], arguments: Mapping[str, Any], size: int) -> nn.Module:
    """The network before its weights come; a large one takes no memory and no random draws for what is replaced."""
    if size <= _COPIED_BYTES:
        return cls(**arguments)
    with torch.device("meta"):
        network = cls(**arguments)
    kept = network.state_dict().keys()
    if any(name not in kept for name, _ in network.named_buffers()):  # buffers that no file holds
        return cls(**arguments)
    return network


def _converted(tensor: Tensor, before: torch.dtype, after: torch.dtype) -> Tensor:
    """The tensor in another type if it has the one; others (counts, indices) stay."""
    return tensor.to(after) if tensor.dtype == before else tensor


_shared: WeakValueDictionary[tuple[object, ...], nn.Module] = WeakValueDictionary()
_shared_lock = threading.Lock()


def share_network(
    path: Path, classes: Mapping[str, type[nn.Module]], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The frozen network of a file, one copy for all who ask in this process for the same file, device and dtype.

    On a CPU the tensors of a large network are the mapped file, so all processes of a machine share one copy in memory,
    and the second one reads nothing from the disk. It lives as long as somebody uses it.

    Raises:
        UserError: as `load_network`.
    """
    return share(path, tuple(classes), lambda: load_network(path, classes), device, dtype)


def share(
    path: Path, key: Hashable, load: Callable[[], nn.Module], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The same for a network that `load` makes from a file; `key` tells apart what else decides it.

    Raises:
        UserError: there is no such file.
    """
    try:
        facts = path.stat()
    except OSError:
        raise UserError(f"no such file: {path}") from None
    whole_key = (path.resolve(), facts.st_mtime_ns, facts.st_size, str(torch.device(device)), dtype, key)
    with _shared_lock:
        network = _shared.get(whole_key)
        if network is None:
            network = load().eval().requires_grad_(False).to(device, dtype)
            _shared[whole_key] = network
    return network


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file and its metadata.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from None


def fit_state(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Puts tensors into a network after checking that names, shapes and dtypes are all there and no more.

    Large ones are taken as they are, so that those of a file stay mapped; small ones are copied, which puts them where
    kernels like them.

    Raises:
        UserError: naming what is missing, too many or of another shape.
    """
    wanted = network.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    extra = sorted(tensors.keys() - wanted.keys())
    other = sorted(
        name
        for name in wanted.keys() & tensors.keys()
        if (wanted[name].shape, wanted[name].dtype) != (tensors[name].shape, tensors[name].dtype)
    )
    for problem, names in (("lacks", missing), ("has too many", extra), ("has another shape or dtype of", other)):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise UserError(f"{path} {problem}: {shown}")
    size = sum(tensor.nbytes for tensor in tensors.values())
    network.load_state_dict(dict(tensors), assign=size > _COPIED_BYTES)
