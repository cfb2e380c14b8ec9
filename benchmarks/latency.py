"""How long an image of AdaNAT-L takes (paper, figure 5): our sampler against the plain loop of 2T + 1 passes.

    python -m benchmarks.latency                            # batch 1 on a CPU, batch 50 where there is a GPU
    python -m benchmarks.latency --horizons 4 --repeats 1 --no-save

Weights come from a seed. The two take turns and draw with the same networks, decisions and rule of a step; ours reads
the all-masked first step of a class from its cache, runs nothing after the last draw, and takes guidance in the same
call. The first step of a class is computed once, before the timing, as it would be in a run of many images.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adanat_rl.config.files import write_atomically
from adanat_rl.config.schema import BaseScheduleConfig
from adanat_rl.generation.build import base_schedule
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.noise import ImageNoise, gumbel
from adanat_rl.generation.policies.base import ActorPolicy, Drawing, draw
from adanat_rl.generation.precision import matmul_precision
from adanat_rl.plots.curves import Curve, curve_figure
from adanat_rl.plots.theme import png
from benchmarks.common import print_rows, seconds, write_result
from benchmarks.large import build_actor, build_generator, generator_settings, write_weights
from benchmarks.plain_sampler import Gumbel, draw_plainly, torch_gumbel

LIMITS = {4: 0.70, 8: 0.85}  # our time over the plain loop's, on a CPU, by T
FIGURES = Path(__file__).parents[1] / "docs" / "figures"
_STRIDE = 37  # between the classes that are drawn


@dataclass(frozen=True)
class Samplers:
    """The two samplers for one horizon and a batch of class labels `[B]`."""

    generator: MaskedTokenGenerator
    actor: torch.nn.Module
    context: Tensor

    def ours(self, seed: int) -> Drawing:
        """Through the product's sampler and policy."""
        policy = ActorPolicy(self.actor, self.generator.decision_space, self.generator.block_rows)
        return draw(self.generator, policy, self.context, self.noise(seed))

    def plain(self, seed: int, draws: Gumbel | None = None) -> Tensor:
        """Through the plain loop, with torch's random numbers by default."""
        generator, count = self.generator, len(self.context)
        draws = draws or torch_gumbel(seed, count, generator.device)
        with matmul_precision(generator.precision):
            space, num_classes = generator.decision_space, generator.context_spec.num_contexts
            return draw_plainly(generator.nat, num_classes, self.actor, space, self.context, draws)

    def noise(self, seed: int) -> ImageNoise:
        """The product's random numbers."""
        return ImageNoise(torch.arange(len(self.context), device=self.generator.device) + 1000 * seed)

    def check(self) -> dict[str, float]:
        """Both draw images, and with the same random numbers the same one; how much of it agrees."""
        drawing, noise = self.ours(0), self.noise(0)
        plain = self.plain(0, partial(gumbel, noise))
        horizon, vocab_size = self.generator.horizon, self.generator.sample_spec.high
        for tokens in (drawing.sample, plain):
            if not bool(((tokens >= 0) & (tokens < vocab_size)).all()):
                raise RuntimeError(f"T = {horizon}: something that is no token was drawn")
        passes = set(drawing.num_passes.tolist())
        if passes != {2 * horizon - 2}:
            raise RuntimeError(f"T = {horizon}: {passes} NAT passes for an image, expected {2 * horizon - 2}")
        return {"equal_tokens": float((drawing.sample == plain).float().mean())}

    def teraflops(self) -> dict[str, float]:
        """TFLOP for an image; a multiplication and an addition count as two."""
        return {"ours": _teraflops(partial(self.ours, 0)), "plain": _teraflops(partial(self.plain, 0))}


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, until the device is done with it."""
    if device.type != "cuda":
        return seconds(call)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) / 1000


def measure(samplers: Samplers, repeats: int) -> dict[str, Any]:
    """Seconds per image of both, in turn, and who is first changes too."""
    device, count = samplers.generator.device, len(samplers.context)
    calls: dict[str, Callable[[int], object]] = {"ours": samplers.ours, "plain": samplers.plain}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats):
        names = list(calls) if repeat % 2 == 0 else list(reversed(calls))
        for name in names:
            taken[name].append(timed(partial(calls[name], repeat), device) / count)
    pairs = [ours / plain for ours, plain in zip(taken["ours"], taken["plain"], strict=True)]
    return {
        **{f"{name}_s": _spread(values) for name, values in taken.items()},
        "ratio": statistics.median(taken["ours"]) / statistics.median(taken["plain"]),
        "ratio_of_pairs": {"least": min(pairs), "largest": max(pairs)},
    }


def measure_decoding(samplers: Samplers, repeats: int) -> dict[str, float]:
    """Seconds and TFLOP of the tokenizer, per image."""
    generator, count = samplers.generator, len(samplers.context)
    tokens = torch.arange(generator.sample_spec.shape[0], device=generator.device).expand(count, -1)
    call = partial(generator.decode, tokens)
    teraflops = _teraflops(call) / count  # the first call also fills caches
    return {**_spread([timed(call, generator.device) / count for _ in range(repeats)]), "teraflops": teraflops}


def measure_all(arguments: argparse.Namespace, folder: Path, device: torch.device) -> dict[str, Any]:
    """Everything, by horizon."""
    write_weights(folder)
    count = arguments.batch_size
    settings = generator_settings(folder, min(arguments.horizons), 2 * count, precision=arguments.precision)
    eager = build_generator(settings, str(device))
    generator = eager
    if arguments.compile:
        generator = build_generator(settings.model_copy(update={"compile": True}), str(device))
    actor = build_actor(generator)
    context = (_STRIDE * torch.arange(count, device=device)) % generator.context_spec.num_contexts
    first_step_s = timed(partial(generator.reset, context, ImageNoise(context)), device)
    rows: dict[int, dict[str, Any]] = {}
    for horizon in arguments.horizons:
        schedule = base_schedule(BaseScheduleConfig(), horizon)
        samplers = Samplers(generator.with_base_schedule(schedule), actor, context)
        teraflops = Samplers(eager.with_base_schedule(schedule), actor, context).teraflops()
        print(f"T = {horizon} …", flush=True)
        rows[horizon] = {
            "passes": {"ours": 2 * horizon - 2, "plain": 2 * horizon + 1},
            "teraflops": {name: value / count for name, value in teraflops.items()},
            **samplers.check(),
            **measure(samplers, arguments.repeats),
        }
    decoding = measure_decoding(samplers, arguments.repeats)
    for row in rows.values():
        row["ratio_with_decoding"] = _with_decoding(row, decoding, "ours") / _with_decoding(row, decoding, "plain")
    return {
        "first_step_of_these_classes_once_s": first_step_s,
        "decode_s_per_image": decoding,
        "horizons": rows,
    }


def main() -> None:
    arguments = parse()
    device = torch.device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure_all(arguments, Path(scratch), device)
    content = {
        "command": " ".join(["python -m benchmarks.latency", *sys.argv[1:]]),
        "network": "AdaNAT-L (U-ViT, width 768, depth 24, 16×16 tokens), VQ tokenizer 256×256, weights from a seed",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "batch_size": arguments.batch_size,
        "precision": arguments.precision,
        "compile": arguments.compile,
        "torch_threads": torch.get_num_threads(),
        "repeats": arguments.repeats,
        "note": "first step of a class computed once, before the timing; seconds and TFLOP are per image",
        **measured,
        "limits": LIMITS,
    }
    show(content)
    if not arguments.no_save:
        name = "_".join(["latency", *_differences(arguments)])
        write_result(name, content)
        figure = FIGURES / f"{name}.png"
        write_atomically(figure, plot(content))
        print(f"figure: {figure}")


def show(content: dict[str, Any]) -> None:
    """The table."""
    decode_s = content["decode_s_per_image"]["median"]
    rows = []
    for horizon, row in content["horizons"].items():
        pairs, passes, teraflops = row["ratio_of_pairs"], row["passes"], row["teraflops"]
        rows.append(
            [
                horizon,
                f"{passes['ours']} / {passes['plain']}",
                f"{teraflops['ours']:.3f} / {teraflops['plain']:.3f}",
                *(_range(row[f"{name}_s"]) for name in ("ours", "plain")),
                f"{row['ratio']:.3f} ({pairs['least']:.3f}-{pairs['largest']:.3f})",
                LIMITS.get(horizon, ""),
                f"{row['ratio_with_decoding']:.3f}",
                f"{row['equal_tokens']:.1%}",
            ]
        )
    headings = ["T", "passes", "TFLOP", "ours, s", "plain loop, s", "ratio", "at most", "decoded too", "equal tokens"]
    title = f"An image of AdaNAT-L, {content['device']}, batch {content['batch_size']}, {content['precision']}"
    print_rows(f"{title}: ours / plain loop, median (least-largest)", headings, rows)
    print(f"decoding: {decode_s:.3f} s, {content['decode_s_per_image']['teraflops']:.3f} TFLOP an image")


def plot(content: dict[str, Any]) -> bytes:
    """Seconds per image over T as a PNG."""
    rows = content["horizons"]
    horizons = np.array(list(rows), float)
    curves = [
        Curve(
            label,
            horizons,
            np.array([row[f"{name}_s"]["median"] for row in rows.values()]),
            np.array([row[f"{name}_s"]["sd"] for row in rows.values()]),
            against=name == "plain",
        )
        for name, label in (("ours", "our sampler"), ("plain", "plain loop"))
    ]
    place = "CPU" if content["device"] == "cpu" else "GPU"
    title = f"Seconds per image, AdaNAT-L, {place}, batch {content['batch_size']}"
    figure = curve_figure(title, "decoding steps T", curves)
    figure.axes[0].set_ylim(bottom=0)
    return png(figure)


def parse() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--horizons", type=int, nargs="+", default=[4, 8, 16], help="decoding steps T (4 8 16)")
    parser.add_argument("--repeats", type=int, default=5, help="timed images of each sampler (5)")
    parser.add_argument("--device", help="torch device (cuda if there is one, else cpu)")
    parser.add_argument("--batch-size", type=int, help="images at once (50 on a GPU, 1 on a CPU)")
    parser.add_argument("--threads", type=int, help="threads of torch (torch's own choice)")
    parser.add_argument(
        "--precision", choices=["float32", "tf32", "bfloat16", "float16"], default="float32", help="of the NAT"
    )
    parser.add_argument("--compile", action="store_true", help="compile the NAT, for both samplers")
    parser.add_argument("--no-save", action="store_true", help="print the table, write no file")
    arguments = parser.parse_args()
    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    arguments.batch_size = arguments.batch_size or (50 if arguments.device.startswith("cuda") else 1)
    if min(arguments.horizons) < 2 or arguments.repeats < 1 or arguments.batch_size < 1:
        parser.error("--horizons: at least 2 steps; --repeats, --batch-size: at least 1")
    return arguments


def _differences(arguments: argparse.Namespace) -> list[str]:
    """What sets this measurement apart from the one on a CPU in float32: each has its own file."""
    words = [arguments.device.partition(":")[0], arguments.precision, "compiled" if arguments.compile else ""]
    return [word for word in words if word not in ("cpu", "float32", "")]


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "least": min(values),
        "largest": max(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
    }


def _range(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3f} ({spread['least']:.3f}-{spread['largest']:.3f})"


def _with_decoding(row: dict[str, Any], decoding: dict[str, float], name: str) -> float:
    return float(row[f"{name}_s"]["median"] + decoding["median"])


def _teraflops(call: Callable[[], object]) -> float:
    """Attention is spelled out in matrix products meanwhile: the counter does not know its CPU kernel."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e12


if __name__ == "__main__":
    main()
