"""Which torch device a process works on."""

from __future__ import annotations

import torch

from adanat_rl.config.errors import UserError


def check_device(name: str | torch.device) -> torch.device:
    """A device of torch that can be computed on here.

    Raises:
        UserError: torch does not know it, or does not see it in this process.
    """
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        seen = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"device: {str(name)!r} is not accepted here: {reason}; torch sees {', '.join(seen)}") from None
    return device


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
