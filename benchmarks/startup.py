"""How long a user waits before anything happens: import and help.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.common import print_rows, write_result

REPEATS = 7
COMMANDS = {
    "python, nothing imported": ["-c", "pass"],
    "import adanat_rl": ["-c", "import adanat_rl"],
    "adanat-rl --help": ["-m", "adanat_rl", "--help"],
    "adanat-rl train --help": ["-m", "adanat_rl", "train", "--help"],
}
LIMITS = {"import adanat_rl": 0.5, "adanat-rl --help": 1.0}


def seconds(arguments: list[str]) -> float:
    """Wall time of a new interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    for arguments in COMMANDS.values():  # fills the caches of files and bytecode
        seconds(arguments)
    taken = {
        name: statistics.median(seconds(arguments) for _ in range(REPEATS)) for name, arguments in COMMANDS.items()
    }
    write_result("startup", {"command": "python -m benchmarks.startup", "seconds": taken, "limits": LIMITS})
    rows = [[name, f"{value:.2f}", LIMITS.get(name, "")] for name, value in taken.items()]
    print_rows(f"Start, median of {REPEATS}, seconds of wall time", ["command", "seconds", "at most"], rows)


if __name__ == "__main__":
    main()
