"""The platform trains as one plain file of PyTorch does: same losses, gradients and weights to float tolerance.

That the comparison would notice a mistake is shown by planting some: each of them must make it fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import adanat_rl.rl.advantages as advantages_module
import adanat_rl.rl.algorithm as algorithm_module
import adanat_rl.rl.connectors as connectors_module
import adanat_rl.rl.learner as learner_module
from adanat_rl.config.loading import resolve
from adanat_rl.rl.algorithm import GenerationPPO, learner_metrics
from adanat_rl.rl.learner import GenerationPPOLearner
from benchmarks.reference_loop import ReferenceLoop
from tests.tiny import IN_PROCESS, OVERRIDES

ITERATIONS = 3
# So that ratios leave the clip range, gradients are clipped, the noise shrinks and minibatches matter
SETTINGS = (
    "ppo.lr=3e-3", "ppo.clip=0.05", "ppo.grad_clip=0.5", "ppo.num_epochs=3", "ppo.minibatch_size=160",
    "ppo.entropy_coefficient=0.01", "ppo.normalize_advantages=true", "exploration.decay=0.1",
    "exploration.decay_interval_iterations=1",
)  # fmt: skip
LOSSES = ("policy_loss", "value_loss", "entropy")


@dataclass
class Trace:
    """What a training comes to: numbers and gradients of each iteration, then the weights, by name."""

    rewards: list[float]
    losses: list[dict[str, float]]
    gradients: list[list[dict[str, Tensor]]]
    weights: dict[str, Tensor]


def start_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights without the zeros of the last layers, which would leave the others without a gradient.

    With them the critic's first gradient would be rounding alone, which Adam blows up to the learning rate.
    """
    return {
        name: value + 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(sum(name.encode())))
        for name, value in state.items()
        if name.startswith(("actor.", "critic."))
    }


@pytest.fixture(scope="module")
def plain() -> Trace:
    """The plain loop."""
    loop = ReferenceLoop(resolve(overrides=[*OVERRIDES, *IN_PROCESS, *SETTINGS]))
    networks = (("actor", loop.actor), ("critic", loop.critic))
    state = {f"{name}.{key}": value for name, network in networks for key, value in network.state_dict().items()}
    first = start_weights(state)
    for name, network in networks:
        network.load_state_dict({key: first[f"{name}.{key}"] for key in network.state_dict()})
    loop.warm_up()
    trace = Trace([], [], [], {})
    for _ in range(ITERATIONS):
        row = loop.iterate()
        trace.rewards.append(row["reward"])
        trace.losses.append({name: row[name] for name in LOSSES})
        trace.gradients.append(loop.gradients)
    trace.weights = {
        f"{name}.{key}": value.clone() for name, network in networks for key, value in network.state_dict().items()
    }
    moved = max(float((trace.weights[name] - value).abs().max()) for name, value in first.items())
    assert moved > 1e-3, "something was learned"
    return trace


def trained(build: Callable[..., Any]) -> Trace:
    """The platform, in one process."""
    algorithm, _ = build(*IN_PROCESS, *SETTINGS)
    assert isinstance(algorithm, GenerationPPO)
    state = algorithm.training_state()
    module = {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
    first = start_weights(module)
    algorithm.load_training_state({f"module.{name}": first.get(name, value) for name, value in module.items()}, 0)
    algorithm.warm_up()
    learner = algorithm.learner_group._learner
    assert isinstance(learner, GenerationPPOLearner)
    names = {id(parameter): name for name, parameter in learner._unwrapped.named_parameters()}
    trace, steps, apply = Trace([], [], [], {}), [], learner.apply_gradients

    def record(gradients: dict[Any, Tensor]) -> None:
        steps.append({names[id(learner._params[key])]: gradient.clone() for key, gradient in gradients.items()})
        apply(gradients)

    learner.apply_gradients = record  # type: ignore[method-assign]
    for _ in range(ITERATIONS):
        result = algorithm.train()
        trace.rewards.append(result["generation"]["reward"]["mean"])
        trace.losses.append({name: learner_metrics(result)[name] for name in LOSSES})
        trace.gradients.append(list(steps))
        steps.clear()
    state = algorithm.training_state()
    trace.weights = {
        name.removeprefix("module."): value
        for name, value in state.items()
        if name.startswith(("module.actor.", "module.critic."))
    }
    return trace


def assert_same(found: Trace, expected: Trace) -> None:
    """Everything that decides what is learned, of actor and critic."""
    for ours, theirs in zip(found.rewards, expected.rewards, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
    for ours, theirs in zip(found.losses, expected.losses, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=2e-6)
    for ours, theirs in zip(found.gradients, expected.gradients, strict=True):
        assert len(ours) == len(theirs), "gradient steps of an iteration"
        for step, other in zip(ours, theirs, strict=True):
            assert step.keys() == other.keys()
            for network in ("actor.", "critic."):
                mine, its = (
                    torch.cat([part[name].flatten() for name in sorted(part) if name.startswith(network)])
                    for part in (step, other)
                )
                assert its.norm() > 1e-3, "the case says something"
                assert (mine - its).norm() <= 1e-3 * its.norm(), f"gradients of {network}"
    assert found.weights.keys() == expected.weights.keys()
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, atol=1e-4, rtol=1e-3)


def test_platform_and_plain_loop_learn_the_same(build: Callable[..., Any], plain: Trace) -> None:
    assert_same(trained(build), plain)


def changed(module: Any, name: str, change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A mistake: a function of the product is replaced by one that is made from it."""
    original = getattr(module, name)
    return lambda patch: patch.setattr(module, name, change(original))


def loss_with(**factors: float) -> Callable[[pytest.MonkeyPatch], None]:
    """The loss with some of its settings multiplied."""

    def change(loss: Callable[..., Any]) -> Callable[..., Any]:
        def wrong(*terms: Any, **settings: Any) -> Any:
            return loss(*terms, **{name: value * factors.get(name, 1.0) for name, value in settings.items()})

        return wrong

    return changed(learner_module, "ppo_loss", change)


def wrong_sign(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda new, old, advantages, *rest, **settings: loss(new, old, -advantages, *rest, **settings)


def without_mask(density: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *terms: density(*terms[:-1], torch.ones_like(terms[-1]))


def one_epoch_less(iterate: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    return lambda self, *, num_epochs, **options: iterate(self, num_epochs=num_epochs - 1, **options)


def biased(standardise: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The standard deviation divided by n instead of n - 1."""

    def wrong(rewards: Tensor, horizon: int) -> Tensor:
        count = len(rewards) * horizon
        return standardise(rewards, horizon) * (count / (count - 1)) ** 0.5

    return wrong


def not_minibatched(iterate: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    return lambda self, *, minibatch_size, **options: iterate(self, minibatch_size=None, **options)


def not_clipped(clip: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: GenerationPPOLearner, gradients: dict[Any, Tensor]) -> dict[Any, Tensor]:
        kept = {key: gradient.clone() for key, gradient in gradients.items()}
        clip(self, gradients)
        return kept

    return wrong


def one_iteration_late(schedule: Callable[..., float]) -> Callable[..., float]:
    return lambda config, iteration: schedule(config, max(1, iteration - 1))


MISTAKES = {
    "clip range": loss_with(clip=1.2),
    "value coefficient": loss_with(value_coefficient=2.0),
    "sign of the advantage": changed(learner_module, "ppo_loss", wrong_sign),
    "normalisation of returns": changed(advantages_module, "standardise_returns", biased),
    "normalisation of advantages": changed(connectors_module, "_standardised", lambda _: lambda values: values),
    "entropy": changed(learner_module, "gaussian_entropy", without_mask),
    "effect mask": changed(learner_module, "gaussian_log_prob", without_mask),
    "epochs": changed(GenerationPPOLearner, "_create_iterator_if_necessary", one_epoch_less),
    "minibatches": changed(GenerationPPOLearner, "_create_iterator_if_necessary", not_minibatched),
    "timing of the action noise": changed(algorithm_module, "action_std", one_iteration_late),
    "clipping of gradients": changed(GenerationPPOLearner, "postprocess_gradients", not_clipped),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_noticed(
    mistake: str, build: Callable[..., Any], plain: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    MISTAKES[mistake](monkeypatch)
    trace = trained(build)
    with pytest.raises(AssertionError):
        assert_same(trace, plain)
