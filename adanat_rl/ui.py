"""Command `ui`: the MLflow dashboard over the runs here, on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from adanat_rl.cli import CommandParser, Invocation, run_command
from adanat_rl.config.errors import RunError, UserError
from adanat_rl.stopping import EXIT_STATUS
from adanat_rl.tracking.dashboard import ExperimentPage, experiment_pages
from adanat_rl.tracking.local_store import make_addresses_movable
from adanat_rl.tracking.troubles import explain

_PAGES_SHOWN = 10


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
    pages = _open_store(store.resolve())
    address = f"http://127.0.0.1:{arguments.port}"
    print(f"MLflow on {address} (Ctrl-C ends it)")
    for page in pages[:_PAGES_SHOWN]:
        print(f"  {page.num_runs} {'run' if page.num_runs == 1 else 'runs'} of {page.name}: {address}{page.path}")
    if len(pages) > _PAGES_SHOWN:
        print(f"  and {len(pages) - _PAGES_SHOWN} more experiments: {address}/#/experiments")
    if not pages:
        print("  no runs yet: what is trained while this runs shows itself")
    sys.stdout.flush()
    return _serve(store.resolve(), arguments.port)


def _open_store(store: Path) -> list[ExperimentPage]:
    """Has a look at the store, so that what is wrong with it is said here and not in a browser."""
    try:
        make_addresses_movable(store)
        return experiment_pages(store)
    except (OSError, sqlite3.Error) as error:
        sentence = explain(error, f"MLflow ({store})", "", "try again when it is free").sentence
        raise RunError(sentence, safe="the run folders, which need no MLflow") from error


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
