"""How long a user waits before anything happens: import and help.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial

from benchmarks.common import print_rows, seconds, write_result

REPEATS = 7
COMMANDS = {
    "python, nothing imported": ["-c", "pass"],
    "import adanat_rl": ["-c", "import adanat_rl"],
    "adanat-rl --help": ["-m", "adanat_rl", "--help"],
    "adanat-rl train --help": ["-m", "adanat_rl", "train", "--help"],
}
LIMITS = {"import adanat_rl": 0.5, "adanat-rl --help": 1.0}


def run(arguments: list[str]) -> None:
    """A new interpreter."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    taken = {}
    for name, arguments in COMMANDS.items():
        run(arguments)  # fills the caches of files and bytecode
        taken[name] = statistics.median(seconds(partial(run, arguments)) for _ in range(REPEATS))
    write_result("startup", {"command": "python -m benchmarks.startup", "seconds": taken, "limits": LIMITS})
    rows = [[name, f"{value:.2f}", LIMITS.get(name, "")] for name, value in taken.items()]
    print_rows(f"Start, median of {REPEATS}, seconds of wall time", ["command", "seconds", "at most"], rows)


if __name__ == "__main__":
    main()
