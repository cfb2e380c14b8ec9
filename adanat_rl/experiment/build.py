"""From a resolved configuration to live objects, in the driver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from ray.exceptions import RayError

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import ExperimentConfig, ResourcesConfig
from adanat_rl.config.side_thread import DeadlineError, SideThread
from adanat_rl.data.dataset import RealImages
from adanat_rl.data.loading import load_images, load_source
from adanat_rl.data.mnist import require_mnist
from adanat_rl.evaluation.build import build_judge
from adanat_rl.evaluation.drawing import DrawHere
from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.evaluation.reference import Baseline, load_references
from adanat_rl.evaluation.rewarded import check_deciding_metric
from adanat_rl.experiment.cluster import RAYS_LOG, filtered_stderr
from adanat_rl.experiment.fitting import check_fit, check_references
from adanat_rl.experiment.inputs import missing_inputs, require_inputs, with_absolute_paths
from adanat_rl.generation.build import build_generator, evaluated_contexts, inline_base_schedule, load_captions
from adanat_rl.generation.devices import device_for
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.threads import settle_process
from adanat_rl.rewards.build import reward_class
from adanat_rl.rewards.composite import reward_service
from adanat_rl.rewards.ray_errors import is_lost, reason
from adanat_rl.rewards.service import RewardService
from adanat_rl.rl.algorithm import GenerationPPO, RolloutInterruptedError
from adanat_rl.rl.cluster_watch import ClusterWatch
from adanat_rl.rl.config import RLInputs, build_algorithm_config, generator_factory

_COMPARED_CAPTIONS = 64
# Ray warns that a runner's configuration lies in the object store; its owner is the driver, which outlives the runner.
# What Ray and RLlib print while workers start; who was lost, and that it was tried again in vain, is said by us.
_HARMLESS = (
    "has constructor arguments in the object store",
    "actor_manager.py:",
    "env_runner_group.py:",
    RAYS_LOG,
    "Overriding environment",
)
_STARTS = 3


@dataclass(frozen=True)
class Scene:
    """What evaluation and drawing need; no Ray.

    Args:
        dataset: real images. generator: frozen, in this process. evaluator: draws and judges with it.
    """

    dataset: RealImages
    generator: Generator
    evaluator: Evaluator


def build_scene(config: ExperimentConfig) -> Scene:
    """Data, generator and evaluator."""
    torch.set_num_threads(config.resources.torch_threads)
    settle_process()
    check_deciding_metric(config)
    check_fit(config)
    dataset = load_images(config.data)
    device = driver_device(config)
    generator = build_generator(config, device)
    check_contexts(generator, dataset)
    evaluation = config.evaluation
    evaluator = Evaluator(
        generator,
        evaluated_contexts(config, dataset.labels),
        build_judge(config, device),
        evaluation.num_images,
        evaluation.batch_size,
        draw_here(config),
    )
    return Scene(dataset, generator, evaluator)


def driver_device(config: ExperimentConfig) -> str:
    """Where the driver evaluates."""
    return device_for(config.resources.num_gpus_per_driver, "resources.num_gpus_per_driver")


def draw_here(config: ExperimentConfig) -> DrawHere:
    """How the driver draws: several batches at once on a CPU, one on a GPU, whose settings are those of the process."""
    num_threads = config.resources.driver_threads if config.resources.num_gpus_per_driver == 0 else 1
    return DrawHere(config.evaluation.batch_size, num_threads)


def check_contexts(generator: Generator, dataset: RealImages) -> None:
    """Contexts of the real images must be contexts of the generator.

    Raises:
        UserError: there are more of them, or of another kind.
    """
    spec = generator.context_spec
    fits = dataset.num_classes == spec.num_contexts or (
        spec.kind == "text" and dataset.num_classes <= spec.num_contexts
    )
    if not fits:
        what = "captions" if spec.kind == "text" else "classes"
        raise UserError(
            f"data.name: {dataset.name} has {dataset.num_classes} {what}, the generator draws {spec.num_contexts}"
        )


def check_captions(config: ExperimentConfig) -> None:
    """The encoded captions must be those of the data, row by row; a sample of them is compared.

    Raises:
        UserError: they are of other data, or in another order.
    """
    if config.generator.captions is None or config.data.path is None:
        return
    encoded, own = load_captions(config.generator).captions, load_source(config.data).captions
    rows = range(0, len(own), max(1, len(own) // _COMPARED_CAPTIONS))
    if len(encoded) != len(own) or any(encoded[row] != own[row] for row in rows):
        raise UserError(
            f"generator.captions: {config.generator.captions} holds other captions than data {config.data.name} at "
            f"{config.data.path} ({len(encoded)} and {len(own)}); encode these: adanat-rl prepare --captions"
        )


def build_baselines(config: ExperimentConfig) -> tuple[Baseline, ...]:
    """The baselines that a policy of this configuration is compared with.

    Raises:
        UserError: their file is missing, damaged, or of other data.
    """
    if config.evaluation.reference is None:
        return ()
    name = config.evaluation.reference
    references = load_references(resolve_path(name, "evaluation.reference"))
    check_references(references, name, config.data.name, None)
    return references.baselines


def complete_inputs(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration with files that decide what is learned taken in; all inputs are checked before a launch.

    Raises:
        UserError: naming the setting, and of a missing file what it is and where it comes from.
    """
    _require_packages(config)
    require_inputs(config)
    check_fit(config)
    config = with_absolute_paths(config)
    decisions = inline_base_schedule(config.decisions, config.generator.horizon)
    config = config.model_copy(update={"decisions": decisions})
    reward_class(config)
    check_captions(config)
    build_generator(config)
    build_baselines(config)
    return config


def _require_packages(config: ExperimentConfig) -> None:
    if config.data.name == "mnist":
        require_mnist()


def complete_known_inputs(config: ExperimentConfig) -> ExperimentConfig:
    """The same as far as it goes before all files are there: what can be wrong without them is checked.

    Raises:
        UserError: naming the setting.
    """
    if not missing_inputs(config):
        return complete_inputs(config)
    _require_packages(config)
    check_fit(config)
    reward_class(config)
    return config


def _built_in_time(resources: ResourcesConfig, build: Callable[[], GenerationPPO]) -> GenerationPPO:
    """The algorithm that `build` makes; the host waits without end for a worker that hangs while it starts.

    Raises:
        RunError: the workers do not start in time.
    """
    kinds = [name for name in ("env_runners", "learners") if getattr(resources, f"num_{name}")]
    limit_s = resources.start_timeout_s * len(kinds) if kinds else None
    try:
        return SideThread("adanat-rl workers").run(lambda: _built(build), timeout_s=limit_s)
    except DeadlineError:
        raise RunError(
            f"the workers ({' and '.join(kinds).replace('_', ' ')}) do not start within {limit_s:g} s: "
            f"resources.start_timeout_s = {resources.start_timeout_s:g} s for each kind"
        ) from None


def _built(build: Callable[[], GenerationPPO]) -> GenerationPPO:
    """What `build` makes; tried again when a worker is lost while it starts, which the host does not make good."""
    for left in reversed(range(_STARTS)):
        try:
            return build()
        except RayError as error:
            if not left or not is_lost(error):
                raise
        except IndexError as error:  # the host asks the first runner that lives
            if not left:
                raise RunError("the workers do not start: no env runner lives") from error
    raise AssertionError


def build_algorithm(
    config: ExperimentConfig, scene: Scene, interrupted: Callable[[], bool]
) -> tuple[GenerationPPO, RewardService]:
    """The algorithm with its reward service attached; needs a running Ray.

    Args:
        interrupted: asked all the time, from the start of the workers on.

    Raises:
        RunError: a worker does not start, or Ray fails. RolloutInterruptedError: it was interrupted.
    """
    inputs = RLInputs(
        policy=PolicySpec.of(config.policy, scene.generator),
        effect_mask=scene.generator.decision_space.effect_mask,
        contexts=scene.dataset.labels.numpy(),
        runner_generator=generator_factory(
            config, config.resources.num_gpus_per_env_runner, "resources.num_gpus_per_env_runner"
        ),
        learner_generator=generator_factory(
            config, config.resources.num_gpus_per_learner, "resources.num_gpus_per_learner"
        ),
    )
    watch = ClusterWatch(config.resources.cluster_timeout_s)

    def check() -> None:
        watch()
        if interrupted():
            raise RolloutInterruptedError

    def start() -> tuple[GenerationPPO, RewardService]:
        with ExitStack() as started:
            started.callback(watch.close)
            rewards = reward_service(config, check)
            started.callback(rewards.close)
            settings = build_algorithm_config(config, inputs, GenerationPPO)
            algorithm = _built_in_time(config.resources, settings.build_algo)
            algorithm.attach(rewards, interrupted, watch)
            started.pop_all()
        return algorithm, rewards

    try:
        with filtered_stderr(*_HARMLESS):
            return SideThread("adanat-rl start").run(start, check=check)
    except RayError as error:
        raise RunError(f"the workers do not start: {reason(error)}") from error
