"""What an error of Ray says, in one line, and whether another process would meet it too."""

from __future__ import annotations

import re

from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError

# Words of exceptions that speak of memory or a device, which another process may have more or a better one of.
_OF_THE_MACHINE = ("out of memory", "OutOfMemory", "CUDA", "CUBLAS", "cuDNN", "NCCL", "AcceleratorError", "allocate")
# What the classes of our actors are called for people; RLlib wraps a learner.
_WORKERS = {"ShardEnvRunner": "env runner", "RewardWorker": "reward actor", "_WrappedExecutable": "learner"}


def reason(error: BaseException) -> str:
    """What happened: of a call the exception of the remote code, of an actor that cannot start its constructor's."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        return reason(error.cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if _is_creation_failure(error):
        return lines[-1]  # of the traceback of the constructor
    if isinstance(error, RayActorError):
        return _death(lines)
    if isinstance(error, OutOfMemoryError):
        return _want_of_memory(lines)
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _death(lines: list[str]) -> str:
    """Which worker is dead, out of the lines in which Ray lists what it knows of it."""
    known = dict(line.split(": ", 1) for line in lines if ": " in line)
    worker = _WORKERS.get(known.get("class_name", "").rpartition(".")[2], "worker")
    process = f" (process {known['pid']} on {known.get('ip', 'its node')})" if "pid" in known else ""
    return f"the {worker}{process} died"


def _want_of_memory(lines: list[str]) -> str:
    """That Ray's memory monitor ended a worker, and how full its machine was."""
    found = re.search(r"was (\S+) used / (\S+) limit", lines[0] if lines else "")
    full = f": {found[1]} of {found[2]} were in use" if found else ""
    return f"Ray ended a worker because its machine ran out of memory{full}"


def is_lost(error: BaseException) -> bool:
    """Whether a worker is gone for reasons of its machine (killed, crashed, ended for want of memory); a fresh one
    may fare better.
    """
    gone = (RayActorError, OutOfMemoryError, WorkerCrashedError, NodeDiedError)
    return isinstance(error, gone) and not _is_creation_failure(error)


def _is_creation_failure(error: BaseException) -> bool:
    """Whether an actor is dead because its constructor raised, which it would do again."""
    return isinstance(error, RayActorError) and "creation task" in str(error)


def is_of_the_machine(error: RayError) -> bool:
    """Whether remote code raised for want of memory or because of a device, and might not do so elsewhere."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, MemoryError | OSError) or any(word in reason(error) for word in _OF_THE_MACHINE)
