"""Reading parity data and comparing with it under the tolerances that stand beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.contracts.fill import filled

_FOLDER = Path(__file__).parent / "data"


class ParityModule:
    """Arrays and description of one module of the parity data."""

    def __init__(self, name: str) -> None:
        self.description: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
        self._arrays = np.load(_FOLDER / f"{name}.npz")

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def tensor(self, name: str) -> torch.Tensor:
        """A stored array as a tensor."""
        return torch.from_numpy(self._arrays[name])

    def outputs(self) -> set[str]:
        """Names of the arrays that an implementation has to reproduce."""
        return {name for name, row in self.description["arrays"].items() if row["role"] == "output"}

    def check(self, name: str, found: Any) -> None:
        """Fails unless `found` agrees with the stored output."""
        rule = self.description["arrays"][name]
        golden = self._arrays[name]
        found = np.asarray(found.detach().numpy() if isinstance(found, torch.Tensor) else found)
        assert rule["role"] == "output", f"{name} is {rule['role']}, not an output"
        assert found.shape == golden.shape, f"{name}: shape {found.shape}, stored {golden.shape}"
        if rule["compare"] == "exact":
            np.testing.assert_array_equal(found, golden, err_msg=name)
        else:
            np.testing.assert_allclose(
                found.astype(np.float64), golden.astype(np.float64), rule["rtol"], rule["atol"], err_msg=name
            )


def fill_network(
    network: nn.Module, rows: list[dict[str, Any]], seed: int, overrides: list[Any], prefix: str = ""
) -> None:
    """Fills a network by the rule; names, shapes and number of its tensors must be those of `rows`."""
    state = network.state_dict()
    wanted = {row["name"].removeprefix(prefix): row for row in rows if row["name"].startswith(prefix)}
    assert list(state) == list(wanted), "state dict has other names or another order"
    for name, value in state.items():
        assert list(value.shape) == wanted[name]["shape"], name
        values = filled(prefix + name, value.shape, seed, [tuple(row) for row in overrides])
        state[name] = torch.from_numpy(values)
    network.load_state_dict(state)
    network.eval()
