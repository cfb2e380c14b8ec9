"""Command `ui`: the MLflow dashboard over the runs here, on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from adanat_rl.cli import CommandParser, Invocation, run_command
from adanat_rl.config.errors import RunError, UserError
from adanat_rl.stopping import EXIT_STATUS


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("ui", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = CommandParser(
        prog="adanat-rl ui", description="Open the MLflow dashboard of the runs here.", allow_abbrev=False
    )
    parser.add_argument(
        "--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder with mlflow.db (default: runs)"
    )
    parser.add_argument("--port", metavar="N", type=int, default=5000, help="port on 127.0.0.1 (default: 5000)")
    arguments = parser.parse_args(invocation.argv)
    store = arguments.runs / "mlflow.db"
    if not store.is_file():
        raise UserError(
            f"--runs: {arguments.runs} has no mlflow.db; train something first, or give the folder of your runs"
        )
    _check_port(arguments.port)
    print(f"MLflow on http://127.0.0.1:{arguments.port} (Ctrl-C ends it)", flush=True)
    return _serve(store.resolve(), arguments.port)


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise UserError(f"--port: {port} is not accepted: expected 1 … 65535")
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise UserError(f"--port: {port} is in use; choose another, such as --port {port + 1}") from None


def _serve(store: Path, port: int) -> int:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{store}"]
    command += ["--default-artifact-root", (store.parent / "mlartifacts").as_uri()]
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        os.killpg(server.pid, signal.SIGTERM)

    for number in EXIT_STATUS:
        signal.signal(number, stop)
    status = server.wait()
    if stopped:
        return EXIT_STATUS[signal.Signals(stopped[0])]
    raise RunError(f"the MLflow server ended with status {status}")


if __name__ == "__main__":
    sys.exit(main())
