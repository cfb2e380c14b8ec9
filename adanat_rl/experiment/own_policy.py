"""A policy of one's own, written as `module:function`, for `evaluate`: from any library, or by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.own_code import import_own
from adanat_rl.generation.generator import Generator, Observation
from adanat_rl.generation.policies.base import GenerationPolicy


class FunctionPolicy:
    """Decides by a function of the observation.

    Args:
        function: takes an `Observation` of B images, gives decisions `[B, K]` in the generator's order and units.
        name: of the function, for messages. num_decisions: K.
    """

    def __init__(self, function: Callable[[Observation], Any], name: str, num_decisions: int) -> None:
        self._function = function
        self._name = name
        self._num_decisions = num_decisions

    def plan(self, context: Tensor) -> None:
        """None: it looks at the image."""
        return

    @torch.no_grad()
    def decide(self, observation: Observation, carry: Any = None) -> tuple[Tensor, Any]:
        """What the function says.

        Raises:
            RunError: it failed, or gave something else than finite decisions `[B, K]`.
        """
        expected = (len(observation.context), self._num_decisions)
        try:
            decision = torch.as_tensor(self._function(observation), dtype=torch.float32)
        except (Exception, SystemExit) as error:
            raise RunError(
                f"{self._name} failed at step {observation.step}: {type(error).__name__}: {error}"
            ) from error
        if tuple(decision.shape) != expected or not bool(torch.isfinite(decision).all()):
            raise RunError(
                f"{self._name} gave decisions of shape {tuple(decision.shape)} at step {observation.step}; "
                f"expected {expected}, all finite"
            )
        return decision.to(observation.context.device), None

    def for_images(self, rows: Tensor) -> FunctionPolicy:
        """Itself."""
        return self

    def to(self, device: torch.device) -> FunctionPolicy:
        """Itself: the function gets observations wherever they are."""
        return self


def load_own_policy(name: str, generator: Generator) -> GenerationPolicy:
    """The policy that `module:function` makes for a generator.

    The function takes the generator and returns a policy (`generation/policies/base.py`), or a function of the
    observation that gives decisions `[B, K]`.

    Raises:
        UserError: no such module or function, or it gives something else.
    """
    make = import_own(name)
    try:
        made = make(generator)
    except (Exception, SystemExit) as error:
        raise UserError(f"{name} failed: {type(error).__name__}: {error}") from error
    if all(hasattr(made, method) for method in ("plan", "decide", "for_images", "to")):
        return cast(GenerationPolicy, made)
    if callable(made):
        return FunctionPolicy(made, name, generator.decision_space.base_schedule.shape[-1])
    raise UserError(
        f"{name} gave a {type(made).__name__}; expected a generation policy, or a function of an observation"
    )
