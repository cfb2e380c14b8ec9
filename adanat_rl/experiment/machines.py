"""Descriptions of machines: how fast a kind of GPU, or a CPU core, is at most according to its maker's data sheet."""

from __future__ import annotations

import re
from dataclasses import dataclass

from adanat_rl.config.errors import UserError, nearest

_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Device:
    """Peak figures of one GPU, or of one core; dense, without the sparsity that data sheets like to count in.

    Args:
        name: as people type it. title: what it is.
        half, tf32, float32: operations per second in bfloat16 with float32 sums, in TF32, in float32.
        memory_bytes, bandwidth: of a GPU's memory, bytes and bytes per second; 0 for a core: not looked at.
        note: what is special.
    """

    name: str
    title: str
    half: float
    tf32: float
    float32: float
    memory_bytes: float = 0.0
    bandwidth: float = 0.0
    note: str = ""

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.memory_bytes > 0

    def peak(self, precision: str) -> float:
        """Operations per second in a precision of the configuration."""
        rates = {"bfloat16": self.half, "float16": self.half, "tf32": self.tf32}
        return rates.get(precision, self.float32)


def _gpu(
    name: str, title: str, half: float, tf32: float, float32: float, memory_gb: float, gb_per_s: float, note: str = ""
) -> Device:
    """A GPU; rates in 10¹² operations per second."""
    rates = (half * _TERA, tf32 * _TERA, float32 * _TERA)
    return Device(name, title, *rates, memory_gb * _GIGA, gb_per_s * _GIGA, note)


_CORE = 100 * 1e9
_DEVICES = (
    _gpu("H100", "NVIDIA H100 SXM 80 GB", 989, 495, 67, 80, 3350),
    _gpu("H200", "NVIDIA H200 SXM 141 GB", 989, 495, 67, 141, 4800),
    _gpu("A100-80", "NVIDIA A100 SXM 80 GB", 312, 156, 19.5, 80, 2039),
    _gpu("A100-40", "NVIDIA A100 40 GB", 312, 156, 19.5, 40, 1555),
    _gpu("L40S", "NVIDIA L40S 48 GB", 362, 183, 91.6, 48, 864),
    _gpu("RTX4090", "NVIDIA GeForce RTX 4090 24 GB", 165, 82.6, 82.6, 24, 1008),
    _gpu(
        "V100",
        "NVIDIA V100 SXM2 32 GB",
        15.7,
        15.7,
        15.7,
        32,
        900,
        "it has neither bfloat16 nor TF32: all counted as float32; float16 is up to 8 times as fast",
    ),
    Device(
        "cpu",
        "one core of a server processor with AVX-512, taken as 100 GFLOP/s",
        _CORE,
        _CORE,
        _CORE,
        note="no gain from bfloat16 is counted; memory is not compared with anything",
    ),
)


@dataclass(frozen=True)
class Machine:
    """So many equal GPUs, or cores."""

    count: int
    device: Device

    @property
    def name(self) -> str:
        """As people type it."""
        return f"{self.count}x{self.device.name}"


def machine_names() -> list[str]:
    """Names of the known devices."""
    return [device.name for device in _DEVICES]


def core() -> Device:
    """A CPU core, for what a machine with GPUs does without them."""
    return _DEVICES[-1]


def parse_machine(text: str) -> Machine:
    """The machine of a description such as `8xH100`; letters of either case, `A100` is the larger one.

    Raises:
        UserError: it is none, or the device is not known.
    """
    match = re.fullmatch(r"(\d{1,5})\s*[x×*]\s*(\S+)", text.strip(), re.IGNORECASE)
    names = machine_names()
    if match is None or int(match[1]) < 1:
        raise UserError(
            f"--machine: {text!r} is not accepted: expected NxNAME, such as 8xH100, with NAME one of {', '.join(names)}"
        )
    wanted = match[2].lower()
    device = next((one for one in _DEVICES if wanted in (one.name.lower(), one.name.lower().removesuffix("-80"))), None)
    if device is None:
        hint = nearest(wanted.upper(), names)
        raise UserError(f"--machine: {match[2]!r} is no known device; accepted: {', '.join(names)}{hint}")
    return Machine(int(match[1]), device)
