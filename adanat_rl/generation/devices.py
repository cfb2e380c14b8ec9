"""Which torch device a process works on."""

from __future__ import annotations

import torch

from adanat_rl.config.errors import UserError


def device_for(num_gpus: float, setting: str) -> str:
    """The GPU for whoever has a share of one, the CPU otherwise.

    Args:
        num_gpus: share, in GPUs. setting: where it stands, for the message.

    Raises:
        UserError: torch sees no GPU in this process.
    """
    if num_gpus == 0:
        return "cpu"
    if not torch.cuda.is_available():
        raise UserError(f"{setting}: {num_gpus:g} is not accepted: torch sees no GPU here; set it to 0")
    return "cuda"
