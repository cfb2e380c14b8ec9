"""Tries a reward in a process of its own: one that hangs, ends its process or crashes is a broken rule, told in a line.

The process is handed a configuration on standard input and answers in JSON lines: the phase that it is in, findings, or
why it cannot begin. What the reward prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.loading import validate
from adanat_rl.config.schema import ExperimentConfig

_START = "start"
_OF_THE_REWARD = ("score", "update")  # the other phases are those that a worker's start has
_LINE = 2**16


def check_in_process(config: ExperimentConfig, num_images: int | None) -> list[Mapping[str, str]]:
    """Findings of the reward of a configuration, each as the fields of `conformance.Finding`.

    Args:
        num_images: generated images to score; None for 48, or a shard for a reward of sets.

    Raises:
        UserError: a setting or a file is wrong. RunError: the check itself failed.
    """
    order = json.dumps({"config": config.model_dump(mode="json"), "num_images": num_images})
    process = subprocess.Popen(
        [sys.executable, "-c", "from adanat_rl.rewards.checking import answer; answer()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([path for path in sys.path if path])},
        start_new_session=True,  # what the reward starts is ended along with it
    )
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(order.encode())
        return _listen(process, config)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listen(process: subprocess.Popen[bytes], config: ExperimentConfig) -> list[Mapping[str, str]]:
    """Follows the phases, each with a deadline, to the findings or the end of the process."""
    phase, buffer = _START, b""
    key, limit_s = _limit(config, phase)
    deadline = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return [_broken(phase, f"no end within {key} = {limit_s:g} s")]
            found = os.read(process.stdout.fileno(), _LINE)
            if not found:
                return [_broken(phase, _describe_end(process.wait()))]
            *lines, buffer = (buffer + found).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "findings" in message:
                    return list(message["findings"])
                if "user_error" in message:
                    raise UserError(message["user_error"])
                if "run_error" in message:
                    raise RunError(message["run_error"])
                phase = message["phase"]
                key, limit_s = _limit(config, phase)
                deadline = time.monotonic() + limit_s


def _limit(config: ExperimentConfig, phase: str) -> tuple[str, float]:
    """The setting that limits a phase, and its seconds."""
    if phase in _OF_THE_REWARD:
        return "resources.reward_timeout_s", config.resources.reward_timeout_s
    return "resources.start_timeout_s", config.resources.start_timeout_s


def _broken(phase: str, detail: str) -> Mapping[str, str]:
    return {"rule": "constructor" if phase == _START else phase, "status": "fail", "detail": detail}


def _describe_end(status: int) -> str:
    if status >= 0:
        return f"ended the process with status {status} (os._exit?); a reward raises what is wrong"
    name = signal.Signals(-status).name
    return f"the process was ended by {name}" + (" (want of memory?)" if name == "SIGKILL" else "")


# --- in the process


def answer() -> None:
    """Reads what to check from standard input and answers on what was standard output."""
    order = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        found = _check(validate(order["config"]), order["num_images"], lambda phase: tell(phase=phase))
        tell(findings=[asdict(finding) for finding in found])
    except UserError as error:
        tell(user_error=str(error))
    except RunError as error:
        tell(run_error=error.message)
    answers.flush()
    os._exit(0)  # threads of the reward may go on for ever


def _check(config: ExperimentConfig, num_images: int | None, begin: Callable[[str], None]) -> list[Any]:
    import torch

    from adanat_rl.rewards.build import build_reward_parts, reward_class
    from adanat_rl.rewards.conformance import check_reward, constructor_failed

    torch.set_num_threads(config.resources.torch_threads)
    cls = reward_class(config)
    count = num_images or (config.training.shard_size if cls.set_valued else 48)
    begin("constructor")
    try:
        parts = build_reward_parts(config)
    except (UserError, RunError):
        raise
    except (Exception, SystemExit) as error:  # whatever a user's constructor does
        return [constructor_failed(error)]
    begin("drawing")
    batch = _draw(config, parts, count)
    return check_reward(lambda: build_reward_parts(config).model, batch, parts.real, begin=begin)


def _draw(config: ExperimentConfig, parts: Any, count: int) -> Any:
    """Images of the untrained policy for contexts of the data, as a reward actor would see them."""
    import torch

    from adanat_rl.evaluation.drawing import draw_set, evaluation_set
    from adanat_rl.generation.build import build_generator
    from adanat_rl.generation.policies.base import SchedulePolicy
    from adanat_rl.rewards.worker import DecodedLater

    generator = build_generator(config, parts.device)
    contexts = torch.arange(generator.context_spec.num_contexts)
    images = evaluation_set(contexts, count, config.seed)
    policy = SchedulePolicy(generator.decision_space.base_schedule.float())
    drawing = draw_set(generator, policy, images, count)
    samples = drawing.sample.cpu().numpy().astype(generator.sample_spec.storage_dtype)
    return DecodedLater(parts, samples, images.context.numpy(), drawing.num_passes.cpu().numpy()).batch()
