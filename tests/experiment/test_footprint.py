"""Sizes and counts of the presets against the parity data, formulas written out here, and the real objects."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, Dinov2Model

from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.duration import TRANSFORMER_USE, estimate_duration
from adanat_rl.experiment.estimate import bytes_per_trajectory
from adanat_rl.experiment.footprint import (
    Costs,
    Work,
    costs_of,
    judge_network,
    photo_networks,
    policy_networks,
    work_of,
)
from adanat_rl.experiment.machines import parse_machine
from adanat_rl.experiment.measuring import measure, num_parameters
from adanat_rl.experiment.outline import Outline, outline_of
from adanat_rl.experiment.reward_outline import RewardOutline, reward_outline
from adanat_rl.experiment.workers import Process, feature_bytes, gpu_bytes, place, processes_of
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import SchedulePolicy, draw
from tests.contracts.parity import ParityModule
from tests.tiny_clip import write_tiny_clip
from tests.tiny_dinov2 import write_tiny_dinov2

Plan = tuple[ExperimentConfig, Outline, RewardOutline | None, Costs, Work, list[Process]]


@cache
def outlined(preset: str, *overrides: str) -> Outline:
    return outline_of(resolve(preset, overrides=overrides))


@cache
def measured(preset: str, *overrides: str) -> tuple[RewardOutline | None, Costs]:
    config = resolve(preset, overrides=overrides)
    reward = reward_outline(config, outlined(preset, *overrides))
    return reward, costs_of(config, outlined(preset, *overrides), reward)


@cache
def plan(preset: str, *overrides: str) -> Plan:
    """Everything about a configuration; the costs of single calls do not depend on how many there are, or where."""
    config = resolve(preset, overrides=overrides)
    outline = outlined(preset, *overrides)
    changing = [
        one for one in overrides if not one.startswith(("resources.", "training.", "ppo.features", "tracking."))
    ]
    reward, costs = measured(preset, *changing)
    work = work_of(config, outline, costs, reward)
    return config, outline, reward, costs, work, processes_of(config, outline, costs, reward)


def count_of(contract: str) -> int:
    return int(ParityModule(contract).description["n_params"])


def test_networks_have_as_many_parameters_as_the_official_ones() -> None:
    config, outline, reward, *_ = plan("imagenet256")
    assert num_parameters(outline.nat) == count_of("nat_class_full") == 193_655_297
    assert num_parameters(outline.tokenizer) == count_of("vqgan") == 54_515_587
    actor, critic = policy_networks(outline)
    counts = ParityModule("policy").description["n_params"]
    assert (num_parameters(actor), num_parameters(critic)) == (counts["actor768"], counts["critic768"])
    assert reward is not None
    assert reward.num_parameters == count_of("discriminator")
    assert num_parameters(judge_network(config)) == count_of("inception")
    outline = outlined("cc3m")
    assert num_parameters(outline.nat) == 503_628_929
    actor, critic = policy_networks(outline)
    assert (num_parameters(actor), num_parameters(critic)) == (counts["actor1152"], counts["critic1152"])


@pytest.mark.parametrize(("preset", "published"), [("amused256", 603), ("amused512", 608)])
def test_amused_is_as_large_as_published(preset: str, published: int) -> None:
    outline = outlined(preset)
    assert num_parameters(outline.nat) // 10**6 == published
    assert num_parameters(outline.tokenizer) // 10**6 == 146


def nat_flops(length: int, context: int, width: int, depth: int, vocab_size: int, text_width: int = 0) -> float:
    """A U-ViT by hand: qkv, projection and a fourfold MLP, attention, long skips, head, embedding of a text."""
    rows = length + context
    block = 2 * rows * 12 * width**2 + 4 * rows**2 * width
    skips = depth // 2 * 2 * rows * 2 * width**2
    head = 2 * length * (width**2 + width * vocab_size)
    return (depth + 1) * block + skips + head + 2 * context * text_width * width


@pytest.mark.parametrize(
    ("preset", "arguments"),
    [
        ("imagenet256", (256, 1, 768, 24, 1024)),
        ("imagenet512", (1024, 1, 768, 24, 1024)),
        ("cc3m", (256, 77, 1152, 28, 1024, 1280)),
    ],
)
def test_a_nat_pass_costs_what_a_hand_calculation_gives(preset: str, arguments: tuple[int, ...]) -> None:
    costs = plan(preset)[3]
    assert costs.nat.flops / costs.block_rows == pytest.approx(nat_flops(*arguments), rel=0.01)


def decoder_flops(image_size: int) -> float:
    """The decoder of the VQ tokenizer by hand: 3×3 convolutions, five levels, two blocks each, doubled in between."""
    side = image_size // 16

    def convolution(before: int, after: int, kernel: int = 3) -> float:
        return 2 * side**2 * before * after * kernel**2

    total, width = convolution(256, 512) + 4 * convolution(512, 512), 512
    for level, after in enumerate((512, 256, 256, 128, 128)):
        total += convolution(width, after) + 3 * convolution(after, after)
        if width != after:
            total += convolution(after, after, 1)
        width = after
        if level < 4:
            side *= 2
            total += convolution(width, width)
    return total + convolution(128, 3)


@pytest.mark.parametrize(("preset", "image_size"), [("imagenet256", 256), ("imagenet512", 512)])
def test_decoding_costs_what_a_hand_calculation_gives(preset: str, image_size: int) -> None:
    costs = plan(preset)[3]
    assert costs.decode.flops / costs.decode_rows == pytest.approx(decoder_flops(image_size), rel=1e-3)


def test_an_iteration_is_its_calls() -> None:
    _, _, _, costs, work, _ = plan("imagenet256")
    assert work.rollout_passes == 4096 * (2 * 4 - 2)
    assert work.feature_passes == 4096 * (4 - 1)
    one_pass = nat_flops(256, 1, 768, 24, 1024)
    assert work.rollout == pytest.approx(4096 * 6 * one_pass, rel=0.02)
    assert work.features == pytest.approx(4096 * 3 * one_pass, rel=0.01)
    assert work.decoding + work.reward_decoding == pytest.approx((4096 + 5 * 128) * decoder_flops(256), rel=1e-3)
    learned = work.learning / (4096 * 4)
    acted = costs.act.flops / costs.block_rows
    assert 5 * 2 * 3 * acted < learned < 5 * 2 * 3.6 * acted + 2 * acted, "forward and backward of actor and critic"
    parts = (work.rollout, work.features, work.learning, work.decoding, work.scoring)
    assert work.flops == sum(parts) + work.reward_decoding + work.reward_update
    half = plan("imagenet256", "training.trajectories_per_iteration=2048")[4]
    assert half.rollout * 2 == work.rollout
    assert half.reward_update == work.reward_update


@pytest.mark.parametrize(
    ("preset", "overrides", "passes", "again"),
    [
        ("imagenet256", (), 6, 3),
        ("imagenet256", ("generator.horizon=8",), 14, 7),
        ("imagenet256", ("generator.first_step_mb=100",), 7, 4),
        ("imagenet256", ("decisions.learned=[mask_ratio]",), 6, 3),
        ("imagenet256", ("decisions.learned=[mask_ratio]", "decisions.base.guidance_scale=0"), 3, 3),
        ("imagenet512", (), 14, 7),
        ("cc3m", (), 15, 8),
        ("adagen_maskgit", (), 30, 15),
    ],
)
def test_passes_are_those_of_the_sampler(preset: str, overrides: tuple[str, ...], passes: int, again: int) -> None:
    outline = outlined(preset, *overrides)
    assert (outline.passes_per_image, outline.feature_passes_per_image) == (passes, again)


def test_the_outline_of_the_digits_is_their_generator(digits_generator: MaskedTokenGenerator) -> None:
    outline = outlined("digits")
    nat, tokenizer = digits_generator.nat, digits_generator.tokenizer
    assert isinstance(nat, torch.nn.Module)
    assert {name: tuple(t.shape) for name, t in outline.nat.state_dict().items()} == {
        name: tuple(t.shape) for name, t in nat.state_dict().items()
    }
    assert outline.image_shape == digits_generator.image_shape
    assert outline.storage_dtype == digits_generator.sample_spec.storage_dtype
    assert (outline.length, outline.nat.width) == digits_generator.feature_shape
    assert outline.vocab_size == tokenizer.vocab_size
    assert outline.num_contexts == digits_generator.context_spec.num_contexts
    policy = SchedulePolicy(digits_generator.decision_space.base_schedule + 1)
    drawing = draw(digits_generator, policy, torch.arange(10), ImageNoise(torch.arange(10)))
    assert drawing.num_passes.max() == outline.passes_per_image
    kept = digits_generator._first_step._kept
    assert kept is not None
    assert sum(tensor.nbytes for tensor in kept) == outline.first_step_bytes


def test_a_trajectory_travels_in_tokens_and_a_few_numbers() -> None:
    config, outline = resolve("imagenet256"), outlined("imagenet256")
    tokens, numbers = 5 * 256 * 2, 4 * (4 + 1 + 4) * 4 + 8 + 2
    assert tokens + numbers <= bytes_per_trajectory(config, outline) < tokens + numbers + 10


def test_features_on_disk_are_those_of_a_train_batch() -> None:
    config, outline = resolve("cc3m"), outlined("cc3m")
    assert feature_bytes(config, outline, torch.bfloat16) == 4096 * 8 * 256 * 1152 * 2


@pytest.mark.parametrize("preset", ["imagenet256", "imagenet512", "cc3m"])
def test_workers_of_a_preset_share_eight_gpus_evenly(preset: str) -> None:
    processes = plan(preset)[5]
    gpus = place(processes)
    assert len(gpus) == 8
    assert gpus[0] == ["driver", "reward actor", "reward actor"]
    assert [names.count("env runner") for names in gpus] == [0] + [1] * 7
    assert sum(names.count("learner") for names in gpus) == 1
    reserved = {process.name: process.num_gpus for process in processes}
    assert all(sum(reserved[name] for name in names) <= 1 + 1e-9 for names in gpus)
    assert max(gpu_bytes(processes, names) for names in gpus) < 40e9, "an A100 of 40 GB is enough"


def test_the_line_for_one_gpu_in_the_presets_takes_one() -> None:
    settings = (
        "resources.num_env_runners=1",
        "resources.num_reward_actors=1",
        "resources.num_gpus_per_env_runner=0.4",
        "resources.num_gpus_per_reward_actor=0.3",
        "resources.num_gpus_per_learner=0.3",
    )
    assert place(plan("imagenet256", *settings)[5]) == [["driver", "reward actor", "env runner", "learner"]]


def test_processes_that_do_not_fit_together_get_gpus_of_their_own() -> None:
    whole = plan("imagenet256", "resources.num_gpus_per_env_runner=2", "resources.num_env_runners=2")[5]
    names = ["driver", "reward actor", "reward actor"]
    assert place(whole) == [names, *[["env runner"]] * 4, ["learner"]]


def test_memory_grows_with_what_is_held_and_work_of_one_process_is_held_once() -> None:
    alone = ("resources.num_env_runners=0", "resources.num_reward_actors=0", "resources.num_learners=0")
    (driver,) = plan("imagenet256", *alone, "ppo.features=keep", "resources.num_gpus_per_driver=1")[5]
    held = [part.what for part in driver.parts(on_gpu=True)]
    assert held.count("NAT") == held.count("tokenizer") == 1
    kept = next(part for part in driver.parts(on_gpu=True) if part.what == "features of the train batch")
    assert kept.num_bytes == 4096 * 4 * 256 * 768 * 2
    disk, memory = (
        {process.name: process for process in plan("imagenet256", f"ppo.features={kind}")[5]}["learner"]
        for kind in ("disk", "recompute")
    )
    difference = memory.num_bytes(on_gpu=True) - disk.num_bytes(on_gpu=True)
    assert difference == 4096 * 4 * 256 * 768 * 2, "in the NAT's precision, once"
    few = plan("imagenet256", "ppo.features=disk", "training.trajectories_per_iteration=256")[5]
    assert [p.num_bytes(True) for p in few if p.name == "learner"] == [disk.num_bytes(on_gpu=True)]


def seconds(machine: str, *overrides: str) -> float:
    config, outline, reward, costs, work, processes = plan("imagenet256", *overrides)
    return estimate_duration(config, outline, costs, work, reward, processes, parse_machine(machine)).features


def test_times_are_operations_over_the_speed_that_is_assumed() -> None:
    work = plan("imagenet256")[4]
    assert seconds("8xH100") == pytest.approx(work.features / (989e12 * TRANSFORMER_USE))
    assert seconds("8xA100") == pytest.approx(work.features / (312e12 * TRANSFORMER_USE))
    assert seconds("8xH100", "generator.precision=float32") == pytest.approx(work.features / (67e12 * TRANSFORMER_USE))
    assert seconds("2xcpu") == pytest.approx(work.features / (2 * 50e9))
    assert seconds("1xcpu") == pytest.approx(work.features / 50e9)


def test_a_run_is_its_iterations_and_evaluations() -> None:
    config, outline, reward, costs, work, processes = plan("imagenet256")
    took = estimate_duration(config, outline, costs, work, reward, processes, parse_machine("8xH100"))
    drawn = took.rollout + took.noise + took.scoring
    assert took.iteration == pytest.approx(drawn + took.features + took.learning), "the reward is trained meanwhile"
    assert took.reward_update < took.features + took.learning
    assert took.final == pytest.approx(took.evaluation * 50000 / 5000 * 2 * 6)
    warm_up = took.reward_update  # as many updates as in an iteration
    assert took.run == pytest.approx(warm_up + 1000 * took.iteration + 21 * took.evaluation + took.final)


def test_networks_that_judge_photos_are_counted_where_they_are(tmp_path: Path) -> None:
    folders = (write_tiny_dinov2(tmp_path / "dinov2"), write_tiny_clip(tmp_path / "clip"))
    photos = tuple(f"evaluation.{folder.name}={folder}" for folder in folders)
    without, counted = plan("imagenet256"), plan("imagenet256", *photos)
    networks = {name: num_parameters(network) for name, network, _ in photo_networks(counted[0])}
    models = (Dinov2Model.from_pretrained(folders[0]), CLIPModel.from_pretrained(folders[1]))
    eyes = [models[0], models[1].vision_model, models[1].visual_projection]
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in eyes]
    assert networks == {"DINOv2": sizes[0], "CLIP": sizes[1] + sizes[2]}
    width, tokens, patch = 16, 65, 3 * 28**2
    block = tokens * (4 * width**2 + 2 * 2 * width**2) + 2 * tokens**2 * width
    by_hand = 2 * ((tokens - 1) * patch * width + 2 * block)
    config = resolve("imagenet256", overrides=photos[:1])
    (_, network, size) = photo_networks(config)[0]
    assert size == 224
    found = measure(lambda: network(pixel_values=torch.empty(1, 3, 224, 224, device="meta"))).flops
    assert found == pytest.approx(by_hand, rel=0.02)
    assert counted[3].photos.flops > 32 * found
    assert without[3].photos.flops == 0
    names = {part.what for process in counted[5] for role in process.roles for part in role.parts}
    assert {"DINOv2", "CLIP", "judging 32 photos"} <= names
    assert photo_networks(resolve("imagenet256", overrides=["evaluation.dinov2=nowhere"])) == []
