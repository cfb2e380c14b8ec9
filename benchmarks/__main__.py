"""All measurements, the quick ones first; each is also a module of its own.

python -m benchmarks          # about 5 hours on two cores
"""

from __future__ import annotations

import subprocess
import sys

MODULES = (
    "startup",
    "traffic",
    "mnist",
    "probe",
    "latency",
    "memory",
    "scaling",
    "overhead",
    "resume",
    "demo",
    "verdicts",
    "sweeps",
    "reward_ablation",
    "reference_numbers",
)


def main() -> None:
    for module in MODULES:
        subprocess.run([sys.executable, "-m", f"benchmarks.{module}"], check=True)


if __name__ == "__main__":
    main()
