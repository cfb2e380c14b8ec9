"""Where a training loop leaves, now and then, what it needs to go on to the same bits."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.generation.weights import read_tensors

INTERVAL_S = 20.0
_RANDOM = "random"  # the state of torch's global generator
_NUMBERS, _SHA256 = "numbers", "sha256"  # metadata


class TrainingState:
    """One safetensors file: tensors, numbers, and the state of torch's global generator.

    Args:
        path: the file. tell: hears of a file that is damaged.
        interval_s: least time between two writings, in seconds.
    """

    def __init__(self, path: Path, tell: Callable[[str], None], interval_s: float = INTERVAL_S) -> None:
        self._path = path
        self._tell = tell
        self._interval_s = interval_s
        self._written = time.monotonic()

    def restore(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and numbers of the last writing, with the generator as it was then; None where there is none.

        A damaged file is told and counts as none: the loop then begins anew, and comes to the same bits.
        """
        if not self._path.exists():
            return None
        try:
            tensors, metadata = read_tensors(self._path)
        except UserError as error:
            self._tell(f"{error}; this part begins anew")
            return None
        if _digest(tensors, metadata.get(_NUMBERS, "")) != metadata.get(_SHA256):
            self._tell(f"{self._path} is damaged; this part begins anew")
            return None
        torch.set_rng_state(tensors.pop(_RANDOM))
        return tensors, json.loads(metadata[_NUMBERS])

    @property
    def is_due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= self._interval_s

    def keep(self, content: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Writes if it is time to.

        Args:
            content: tensors and JSON-ready numbers; asked for only when it is time.
        """
        if not self.is_due:
            return
        tensors, numbers = content()
        whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        whole[_RANDOM] = torch.get_rng_state()
        text = json.dumps(dict(numbers))
        write_atomically(self._path, save(whole, {_NUMBERS: text, _SHA256: _digest(whole, text)}), durable=False)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Deletes the file: the loop is done."""
        self._path.unlink(missing_ok=True)


def _digest(tensors: Mapping[str, Tensor], numbers: str) -> str:
    """SHA-256 in hex of all tensors, in the order of their names, and of the numbers."""
    found = hashlib.sha256(numbers.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
