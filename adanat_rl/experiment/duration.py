"""How long an iteration and a run would take on a machine: operations over assumed speeds, and what is not arithmetic.

An estimate, for deciding where to run and what to change; `benchmarks/` measures.
"""

from __future__ import annotations

from dataclasses import dataclass

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.controls import Control
from adanat_rl.experiment.footprint import Costs, Work, evaluation_flops
from adanat_rl.experiment.machines import Device, Machine, core
from adanat_rl.experiment.outline import Outline
from adanat_rl.experiment.reward_outline import RewardOutline
from adanat_rl.experiment.workers import Process, feature_bytes, nat_dtype, place

TRANSFORMER_USE = 0.35  # part of a device's peak that networks reach
CONVOLUTION_USE = 0.25
POLICY_USE = 0.10  # small products, mostly bound by memory
CPU_USE = 0.5  # in all networks
BANDWIDTH_USE = 0.6
NOISE_PER_SECOND = 7e7  # draws of a rollout, on one core in NumPy
CPU_IMAGE_NOISE_PER_SECOND = 9e6  # draws of an evaluation, on one core
FEATURE_FILE_BYTES_PER_SECOND = 1e9
_LOGIT_TRAFFIC = 80  # bytes moved for each logit of a step
_CONTROL_ROWS = 2 + len(Control)  # policy, controls, base schedule


@dataclass(frozen=True)
class Duration:
    """Seconds.

    Args:
        rollout, noise, scoring, learning, features, feature_file, reward_update: of an iteration.
        iteration: of all of them, as far as they do not run at the same time.
        evaluation: one during training. final: the last one, of all rows and seeds. warm_up: of the reward model.
        run: everything.
    """

    rollout: float
    noise: float
    scoring: float
    features: float
    feature_file: float
    learning: float
    reward_update: float
    iteration: float
    evaluation: float
    final: float
    warm_up: float
    run: float


def estimate_duration(
    config: ExperimentConfig,
    outline: Outline,
    costs: Costs,
    work: Work,
    reward: RewardOutline | None,
    processes: list[Process],
    machine: Machine,
) -> Duration:
    """The estimate; the machine must have the GPUs that the processes take."""
    speeds = _Speeds(config, processes, machine)
    trajectories, horizon = config.training.trajectories_per_iteration, config.generator.horizon
    logits = trajectories * horizon * outline.length * outline.vocab_size
    rollout = speeds.nat("env runner", work.rollout) + speeds.traffic("env runner", _LOGIT_TRAFFIC * logits)
    noise = 0.0 if speeds.on_gpu("env runner") else logits / NOISE_PER_SECOND / speeds.parallel_on_cpu("env runner")
    scoring = speeds.decoder("reward actor", work.decoding) + speeds.transformers("reward actor", work.scoring)
    spread = speeds.decoder("reward actor", work.reward_decoding)
    spread += speeds.transformers("reward actor", work.reward_update)
    reward_update = spread * speeds.processes_at_once("reward actor")  # a single actor trains
    features = speeds.nat("learner", work.features)
    learning = speeds.policy("learner", work.learning)
    file_bytes = 0.0
    if config.ppo.features == "disk" and outline.policy.needs_features:
        file_bytes = (2 + config.ppo.num_epochs) * feature_bytes(config, outline, nat_dtype(outline))
    feature_file = file_bytes / FEATURE_FILE_BYTES_PER_SECOND
    learn = features + feature_file + learning
    overlap = config.resources.num_reward_actors > 0
    iteration = rollout + noise + scoring + (max(learn, reward_update) if overlap else learn + reward_update)
    image = _evaluated_image(config, outline, costs, speeds)
    evaluation = config.evaluation.num_images * image
    final_images = config.evaluation.num_final_images or config.evaluation.num_images
    final = final_images * config.evaluation.num_seeds * _CONTROL_ROWS * image
    warm_up = 0.0
    if reward is not None and reward.num_updates:
        warm_up = reward_update * reward.num_warmup_updates / reward.num_updates
    iterations = config.training.num_iterations
    num_evaluations = iterations // config.evaluation.interval_iterations + 1
    run = warm_up + iterations * iteration + num_evaluations * evaluation + final
    return Duration(
        rollout,
        noise,
        scoring,
        features,
        feature_file,
        learning,
        reward_update,
        iteration,
        evaluation,
        final,
        warm_up,
        run,
    )


def assumptions(config: ExperimentConfig, machine: Machine) -> list[str]:
    """What the estimate takes for granted, and what it leaves out."""
    device = machine.device
    lines = []
    if device.is_gpu:
        precision = config.generator.precision
        lines.append(
            f"peak {device.title}: {device.half / 1e12:g} TFLOP/s bfloat16, {device.tf32 / 1e12:g} TF32, "
            f"{device.float32 / 1e12:g} float32, {device.bandwidth / 1e9:,.0f} GB/s"
        )
        lines.append(
            f"assumed: {TRANSFORMER_USE:.0%} of it in the NAT ({precision}) and the reward model "
            f"({_reward_precision(config)}), "
            f"{CONVOLUTION_USE:.0%} in convolutions (decoder {_decode_precision(config)}, Inception tf32, torch's "
            f"default), {POLICY_USE:.0%} in actor and critic "
            f"({config.ppo.precision}), {BANDWIDTH_USE:.0%} of the memory's bandwidth in the draws"
        )
    else:
        lines.append(f"peak: {device.title}; assumed: {CPU_USE:.0%} of it, with a core for each thread")
    lines.append(
        f"assumed: {NOISE_PER_SECOND / 1e6:.0f} million random numbers/s a core in the rollout, "
        f"{FEATURE_FILE_BYTES_PER_SECOND / 1e9:g} GB/s for features on disk"
    )
    lines.append(
        "not counted: loading of weights and real images, the first step's cache, transfers between processes, "
        "checkpoints, tables, report, searches of baselines"
    )
    return [*lines, device.note] if device.note else lines


def _reward_precision(config: ExperimentConfig) -> str:
    """Arithmetic of the reward model's networks."""
    return config.reward.adversarial.precision if config.reward.kind == "adversarial" else "float32"


def _decode_precision(config: ExperimentConfig) -> str:
    """Arithmetic of the decoder on a GPU."""
    chosen = config.generator.decode_precision
    return "tf32" if chosen == "float32" else chosen


def _evaluated_image(config: ExperimentConfig, outline: Outline, costs: Costs, speeds: _Speeds) -> float:
    """Seconds of an image that is drawn, decoded and judged."""
    drawn, decoded, judged, photos = evaluation_flops(outline, costs)
    drawer = "env runner" if config.evaluation.on_env_runners and config.resources.num_env_runners else "driver"
    logits = outline.space.horizon * outline.length * outline.vocab_size
    seconds = speeds.nat(drawer, drawn) + speeds.traffic(drawer, _LOGIT_TRAFFIC * logits)
    if not speeds.on_gpu(drawer):
        seconds += logits / CPU_IMAGE_NOISE_PER_SECOND / speeds.parallel_on_cpu(drawer)
    seconds += speeds.decoder("driver", decoded)
    return seconds + speeds.judge("driver", judged) + speeds.photos("driver", photos)


class _Speeds:
    """Seconds of an amount of work on the processes that do it; work without processes of its own is the driver's."""

    def __init__(self, config: ExperimentConfig, processes: list[Process], machine: Machine) -> None:
        self._config = config
        self._machine = machine
        self._processes = {process.name: process for process in processes}
        self._gpus = place(processes)

    def nat(self, name: str, flops: float) -> float:
        """A NAT."""
        return self._seconds(name, flops, self._config.generator.precision, TRANSFORMER_USE)

    def transformers(self, name: str, flops: float) -> float:
        """The networks of the reward model."""
        return self._seconds(name, flops, _reward_precision(self._config), TRANSFORMER_USE)

    def decoder(self, name: str, flops: float) -> float:
        """The tokenizer."""
        return self._seconds(name, flops, _decode_precision(self._config), CONVOLUTION_USE)

    def judge(self, name: str, flops: float) -> float:
        """Inception."""
        return self._seconds(name, flops, "tf32", CONVOLUTION_USE)

    def photos(self, name: str, flops: float) -> float:
        """DINOv2 and CLIP."""
        return self._seconds(name, flops, "float32", TRANSFORMER_USE)

    def policy(self, name: str, flops: float) -> float:
        """Actor and critic."""
        return self._seconds(name, flops, self._config.ppo.precision, POLICY_USE)

    def traffic(self, name: str, num_bytes: float) -> float:
        """Reading and writing the memory of GPUs; on a CPU it is small beside the arithmetic."""
        if not self.on_gpu(name):
            return 0.0
        return num_bytes / (self._machine.device.bandwidth * BANDWIDTH_USE * self.places(name))

    def on_gpu(self, name: str) -> bool:
        """Whether this work is done on GPUs of the machine."""
        process = self._processes.get(name, self._processes["driver"])
        role = next((role for role in process.roles if role.name == _ROLES[name]), process.roles[0])
        return role.on_gpu and self._machine.device.is_gpu

    def places(self, name: str) -> float:
        """GPUs, or cores, that do it at the same time."""
        if not self.on_gpu(name):
            return self.parallel_on_cpu(name)
        wanted = name if name in self._processes else "driver"
        return max(1, sum(wanted in names for names in self._gpus))

    def processes_at_once(self, name: str) -> float:
        """Processes that do it without being in each other's way."""
        if self.on_gpu(name):
            return self.places(name)
        return max(1.0, self.parallel_on_cpu(name) / self._config.resources.torch_threads)

    def parallel_on_cpu(self, name: str) -> float:
        """Cores that do it at the same time."""
        resources = self._config.resources
        process = self._processes.get(name)
        if process is None or name == "driver":
            cores = resources.driver_threads if name in ("driver", "learner") else 1
        else:
            threads = resources.driver_threads if name == "learner" else resources.torch_threads
            cores = process.count * threads
        return min(cores, self._machine.count) if not self._machine.device.is_gpu else cores

    def _seconds(self, name: str, flops: float, precision: str, use: float) -> float:
        if self.on_gpu(name):
            return flops / (self._machine.device.peak(precision) * use * self.places(name))
        device: Device = core()
        return flops / (device.peak(precision) * CPU_USE * self.parallel_on_cpu(name))


_ROLES = {"driver": "driver", "env runner": "env runner", "reward actor": "reward", "learner": "learner"}
