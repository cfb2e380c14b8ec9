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
from adanat_rl.generation.weight_header import (
    FORMAT,
    facts_of,
    lay_out,
    network_arguments,
    read_header,
    refuse_misfits,
    refuse_non_finite,
)
from adanat_rl.version import __version__

_COPIED_BYTES = 64 * 2**20


def save_network(
    path: Path, kind: str, arguments: Mapping[str, Any], network: nn.Module, *, half: bool = False
) -> None:
    """Writes a network, atomically; with `half` its float32 tensors are stored as float16."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {"format": FORMAT, "kind": kind, "arguments": json.dumps(dict(arguments)), "adanat_rl": __version__}
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

    Its sizes are compared with the tensors that the file really holds before anything is built to them.

    Args:
        classes: which kinds are accepted, and their classes.

    Raises:
        UserError: the file is damaged, of another kind, its tensors do not fit the class, or are no finite numbers.
    """
    header = read_header(path)
    arguments = network_arguments(path, header, classes)
    cls, stored_as = classes[header.kind or ""], header.metadata.get("stored_as")
    outline = lay_out(lambda: cls(**arguments), path, header.kind or "", header.tensors, stored_as)
    tensors, _ = read_tensors(path)
    network = _network_to_fill(outline, lambda: cls(**arguments), sum(tensor.nbytes for tensor in tensors.values()))
    if stored_as == "float16":
        tensors = {name: _converted(tensor, torch.float16, torch.float32) for name, tensor in tensors.items()}
    fit_state(network, tensors, path)
    return network.eval()


def _network_to_fill(outline: nn.Module, build: Callable[[], nn.Module], size: int) -> nn.Module:
    """The network before its weights come; a large one takes no memory and no random draws for what is replaced."""
    kept = outline.state_dict().keys()
    is_whole = all(name in kept for name, _ in outline.named_buffers())  # no buffers that no file holds
    return outline if size > _COPIED_BYTES and is_whole else build()


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
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
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
        UserError: the file is missing, damaged, or no plain file.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in header.tensors}, dict(header.metadata)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from None


def fit_state(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Puts tensors into a network after checking that names, shapes and dtypes are all there and no more, and that all
    numbers are finite.

    Large ones are taken as they are, so that those of a file stay mapped; small ones are copied, which puts them where
    kernels like them.

    Raises:
        UserError: naming what is missing, too many, of another shape or not finite.
    """
    refuse_misfits(path, facts_of(network.state_dict()), facts_of(tensors))
    refuse_non_finite(path, tensors)
    size = sum(tensor.nbytes for tensor in tensors.values())
    network.load_state_dict(dict(tensors), assign=size > _COPIED_BYTES)
