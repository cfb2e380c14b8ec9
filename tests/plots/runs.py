"""Run folders made of invented numbers, as far as a run has come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adanat_rl.config.loading import dump, resolve

NAMES = ("mask_ratio", "confidence_temperature", "sampling_temperature", "guidance_scale")
METRICS = ("fd_a", "fd_b", "precision", "recall", "accuracy", "nat_passes_per_image", "images_per_s")
_USUAL = {"fd_b": 0.3, "precision": 0.78, "recall": 0.84, "accuracy": 0.99, "images_per_s": 1000.0}


@dataclass(frozen=True)
class Folder:
    """The paths that a report asks for."""

    path: Path

    config_file = property(lambda self: self.path / "config.yaml")
    environment_file = property(lambda self: self.path / "environment.json")
    metrics_file = property(lambda self: self.path / "metrics.jsonl")
    evaluation_file = property(lambda self: self.path / "evaluation.json")
    report_file = property(lambda self: self.path / "report.html")
    figures = property(lambda self: self.path / "figures")
    samples = property(lambda self: self.path / "samples")


def row(name: str, kind: str, fd_a: list[float], *, title: str = "", horizon: int = 4, how: str = "") -> dict[str, Any]:
    """A line of a comparison; what is not FD A is the same everywhere."""
    values = {key: [value] * len(fd_a) for key, value in _USUAL.items()}
    values |= {"fd_a": fd_a, "nat_passes_per_image": [2.0 * horizon - 2] * len(fd_a)}
    summary = {
        key: {"mean": float(np.mean(values[key])), "sd": float(np.std(values[key], ddof=1)) if len(fd_a) > 1 else 0.0}
        for key in METRICS
    }
    title = title or name.replace("_", " ")
    return {
        "name": name, "title": title, "kind": kind, "horizon": horizon, "how": how, "summary": summary, "values": values
    }  # fmt: skip


def comparison(
    policy: list[float], baseline: list[float] | None = None, *, verdict: str | None = None
) -> dict[str, Any]:
    """A policy, a base schedule and perhaps a baseline of 8 steps."""
    rows = [row("policy", "policy", policy, title="adaptive policy, T = 4 (this run)")]
    if verdict is not None:
        rows.append(row("shuffled_over_all", "control", [value + 0.01 for value in policy]))
    rows.append(row("base_schedule", "base_schedule", [0.45 + 0.01 * index for index in range(len(policy))]))
    if baseline is not None:
        rows.append(
            row("hand_made_t8", "baseline", baseline, title="hand-made, T = 8", horizon=8, how="best of a grid")
        )
    return {
        "rows": rows,
        "verdict": {"sentence": verdict} if verdict is not None else None,
        "seeds": list(range(1001, 1001 + len(policy))),
        "num_images": 900,
    }


def make_run(
    path: Path,
    *,
    iterations: int = 4,
    total: int = 4,
    interval: int = 2,
    compared: dict[str, Any] | None = None,
    overrides: tuple[str, ...] = (),
    horizon: int = 4,
    num_classes: int = 3,
    side: int = 8,
    channels: int = 1,
    finished: bool = True,
) -> Folder:
    """A run folder after some iterations.

    Args:
        iterations: done; -1 for none, not even the evaluation before training. compared: content of evaluation.json.
        finished: whether policy, gallery and decisions are there.
    """
    folder = Folder(path)
    folder.samples.mkdir(parents=True)
    settings = (f"training.num_iterations={total}", f"generator.horizon={horizon}", "evaluation.reference=null")
    folder.config_file.write_text(dump(resolve(overrides=(*settings, *overrides))))
    environment = {
        "git_revision": "0123abc+changes",
        "command": ["/x/adanat_rl/train.py", "seed=0"],
        "packages": {"torch": "2.6"},
    }
    folder.environment_file.write_text(json.dumps(environment))
    rows = [metrics_row(iteration, interval, horizon) for iteration in range(iterations + 1)]
    folder.metrics_file.write_text("".join(json.dumps(item) + "\n" for item in rows))
    for item in rows:
        if "eval/fd_a" in item:
            grid = draw_images(num_classes * 8, side, channels, item["iteration"])
            write_grid(folder.samples / f"iteration_{item['iteration']:06d}.png", grid)
    if compared is not None:
        folder.evaluation_file.write_text(json.dumps({"iteration": iterations, **compared}))
    if finished:
        write_results(folder, iterations, horizon, num_classes, side, channels)
    return folder


def metrics_row(iteration: int, interval: int, horizon: int) -> dict[str, Any]:
    """A row of metrics.jsonl; FD A is 0.5 at the start and falls by 0.01 an iteration."""
    item: dict[str, Any] = {
        "iteration": iteration,
        "reward_model/loss": 0.6,
        "reward_model/real_score": 0.55,
        "reward_model/generated_score": 0.4 + 0.001 * iteration,
    }
    if iteration:
        item |= {
            "reward/mean": 0.4 + 0.01 * iteration,
            "reward/std": 0.2,
            "learner/approx_kl": 0.001 * iteration,
            "rollout/nat_passes_total": 3072.0 * iteration,
            "rollout/trajectories_total": 512 * iteration,
            "time/train_total_s": 1.5 * iteration,
        }
    if iteration % interval == 0:
        item |= {"eval/fd_a": 0.5 - 0.01 * iteration, "eval/fd_b": 0.6, "eval/nat_passes_per_image": 2.0 * horizon - 2}
        for step in range(horizon):
            for number, name in enumerate(NAMES):
                item[f"decisions/{name}/step_{step}_mean"] = number + 0.1 * step + 0.01 * iteration
                item[f"decisions/{name}/step_{step}_sd"] = 0.01 * iteration
    return item


def draw_images(count: int, side: int, channels: int, seed: int) -> np.ndarray:
    """Noise, uint8 `[count, side, side, channels]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


def write_grid(path: Path, images: np.ndarray) -> None:
    """Eight images a row with gaps of two pixels on white, small ones enlarged to at least 32 pixels."""
    factor = max(1, -(-32 // images.shape[1]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    pitch, rows = images.shape[1] + 2, len(images) // 8
    canvas = np.full((rows * pitch - 2, 8 * pitch - 2, images.shape[3]), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // 8 * pitch, index % 8 * pitch
        canvas[top : top + pitch - 2, left : left + pitch - 2] = image
    Image.fromarray(canvas[:, :, 0] if canvas.shape[2] == 1 else canvas).save(path)


def write_results(folder: Folder, iterations: int, horizon: int, num_classes: int, side: int, channels: int) -> None:
    """Policy description, decisions that differ by class, and a gallery."""
    (folder.path / "policy").mkdir()
    (folder.path / "policy" / "policy.json").write_text(json.dumps({"trained": {"iterations": iterations}}))
    decisions, context = draw_decisions(10 * num_classes, horizon, num_classes)
    np.savez_compressed(folder.samples / "decisions.npz", decisions=decisions, context=context)
    count = 2 * num_classes
    np.savez_compressed(
        folder.samples / "gallery.npz",
        images=draw_images(count, side, channels, 1),
        steps=draw_images(count * horizon, side, channels, 2).reshape(count, horizon, side, side, channels),
        decisions=decisions[:count],
        context=context[:count],
        seeds=np.arange(count),
    )


def draw_decisions(count: int, horizon: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Decisions float32 `[N, T, 4]` with a mean for each class, and labels `[N]`."""
    context = np.arange(count) % num_classes
    noise = np.random.default_rng(0).normal(0, 0.01, (count, horizon, 4))
    trend = np.linspace(1, 0.2, horizon)[:, None] * np.array([0.9, 4.0, 1.0, 0.5])
    return (trend * (1 + 0.05 * context[:, None, None]) + noise).astype(np.float32), context
