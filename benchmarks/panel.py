"""What the panel sees, and how often its verdict is wrong: planted defects, and policies whose difference is known.

    python -m benchmarks.panel                 # both, digits, half an hour on two cores
    python -m benchmarks.panel --defects       # planted defects alone, a minute

Defects are planted in real training images, which no judge has learned from, and judged against the same images without
them; training images, as copies, against validation images. Equal policies are one
hand-made schedule, drawn with other random numbers; a policy that is better by half the gap between T = 4 and T = 8
draws two of four images by the schedule of T = 8.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.loading import resolve
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.loading import load_dataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.comparison import for_horizon
from adanat_rl.evaluation.drawing import evaluation_set
from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.evaluation.panel.defects import DEFECTS
from adanat_rl.evaluation.panel.panel import Panel
from adanat_rl.evaluation.panel.small import load_small_panel
from adanat_rl.evaluation.panel.verdict import PanelVerdict, panel_verdict
from adanat_rl.evaluation.reference import Baseline
from adanat_rl.evaluation.verdicts import Finding
from adanat_rl.experiment.build import build_baselines, build_scene
from adanat_rl.generation.seeding import Purpose, philox
from benchmarks.common import print_rows, write_result

COPIES = "copies of training images"
NONE = "none"
_SETS = 10  # of images, none of which is in two of them
_NUM_SEEDS, _SEEDS_OF_ONE = 60, (5, 10)
_NUM_TRIALS = 1000

Replicates = Mapping[str, Sequence[float]]


def judge_defects(panel: Panel, dataset: ImageDataset) -> dict[str, PanelVerdict]:
    """The verdict on each defect, on copies of training images, and on other sound images of the same kind."""
    training, validation = split_of(dataset, Split.TRAIN), split_of(dataset, Split.VALIDATION)
    sound = _disjoint(training, _SETS)
    numbers = _numbers(panel, sound)
    verdicts = {
        name: panel_verdict(panel.values, _numbers(panel, [defect(*images) for images in sound]), numbers)
        for name, defect in DEFECTS.items()
    }
    unseen = _disjoint(validation, _SETS)
    copies = [(images[: len(unseen[0][1])], context[: len(unseen[0][1])]) for images, context in sound]
    verdicts[COPIES] = panel_verdict(panel.values, _numbers(panel, copies), _numbers(panel, unseen))
    first, second = ({key: row[half::2] for key, row in numbers.items()} for half in (0, 1))
    verdicts[NONE] = panel_verdict(panel.values, first, second)
    return verdicts


def _disjoint(dataset: ImageDataset, count: int) -> list[tuple[Tensor, Tensor]]:
    """Random sets of equal size, none of which has an image of another."""
    order = torch.from_numpy(philox(Purpose.JUDGE, len(dataset), count).permutation(len(dataset)))
    rows = order[: len(dataset) // count * count].split(len(dataset) // count)
    return [(dataset.images[row], dataset.labels[row]) for row in rows]


def kinds(panel: Panel, verdict: PanelVerdict) -> set[str]:
    """Kinds of judges with a value that got worse."""
    worse = verdict.keys(Finding.WORSE)
    return {judge.kind for judge in panel.judges if any(value.key in worse for value in judge.values)}


def _numbers(panel: Panel, sets: Sequence[tuple[Tensor, Tensor]]) -> dict[str, list[float]]:
    rows = [panel(*images) for images in sets]
    return {key: [row[key] for row in rows] for key in rows[0]}


def known_differences(data: str, num_seeds: int, num_trials: int) -> dict[str, Any]:
    """How often two equal policies are told apart, and how often half of a known gap is found."""
    config = resolve(preset=data)
    panel = load_small_panel(load_dataset(config.data))
    evaluator = build_scene(config).evaluator
    four, eight = (
        next(row for row in build_baselines(config) if row.name == f"hand_made_t{steps}") for steps in (4, 8)
    )
    drawn: dict[str, list[Replicates]] = {"T = 4": [], "T = 8": [], "half": []}
    for seed in range(5000, 5000 + num_seeds):
        images = {name: _images(evaluator, row, seed) for name, row in (("T = 4", four), ("T = 8", eight))}
        context = evaluation_set(evaluator.labels, evaluator.num_images, seed).context
        is_better = (torch.arange(len(context)) // 2 % 2 == 0)[:, None, None, None]
        images["half"] = torch.where(is_better, images["T = 8"], images["T = 4"])
        for name, pictures in images.items():
            gathered = panel.begin()
            gathered.add(pictures, context)
            drawn[name].append(gathered.replicates())
        print(f"drawn and judged: {len(drawn['half'])} of {num_seeds} seeds", flush=True)
    gap = panel_verdict(panel.values, _joined(drawn["T = 8"]), _joined(drawn["T = 4"]))
    half = panel_verdict(panel.values, _joined(drawn["half"]), _joined(drawn["T = 4"]))
    draws = philox(Purpose.JUDGE, num_seeds, num_trials)
    found: dict[str, Any] = {
        "T = 4 to T = 8, all seeds": _findings(gap),
        "half the gap, all seeds": _findings(half),
        "means": {
            name: {key: float(np.mean(parts)) for key, parts in _joined(rows).items()} for name, rows in drawn.items()
        },
    }
    for count in _SEEDS_OF_ONE:
        equal, better = [], []
        for _ in range(num_trials):
            order = draws.permutation(num_seeds)[: 2 * count]
            theirs = _joined([drawn["T = 4"][place] for place in order[count:]])
            equal.append(
                panel_verdict(panel.values, _joined([drawn["T = 4"][place] for place in order[:count]]), theirs)
            )
            better.append(
                panel_verdict(panel.values, _joined([drawn["half"][place] for place in order[:count]]), theirs)
            )
        wrong = [verdict.count(Finding.BETTER) + verdict.count(Finding.WORSE) > 0 for verdict in equal]
        found[f"{count} seeds"] = {
            "equal: any value better or worse": float(np.mean(wrong)),
            "equal: level, by value": _shares(equal, Finding.LEVEL),
            "half the gap: better, by value": _shares(better, Finding.BETTER),
            "half the gap: worse, by value": _shares(better, Finding.WORSE),
        }
    return found


def _images(evaluator: Evaluator, baseline: Baseline, seed: int) -> Tensor:
    """Images `[N, C, H, W]` of a schedule."""
    own = for_horizon(evaluator, baseline)
    sample = own.judge_once(baseline.policy, seed, replicated=False).drawing.sample
    return torch.cat([own.generator.decode(part) for part in sample.split(own.batch_size)])


def _joined(rows: Sequence[Replicates]) -> dict[str, list[float]]:
    return {key: [number for row in rows for number in row[key]] for key in rows[0]}


def _findings(verdict: PanelVerdict) -> dict[str, str]:
    return {row.value.key: row.finding.value for row in verdict.rows}


def _shares(verdicts: Sequence[PanelVerdict], finding: Finding) -> dict[str, float]:
    keys = [row.value.key for row in verdicts[0].rows]
    return {key: float(np.mean([key in verdict.keys(finding) for verdict in verdicts])) for key in keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--defects", action="store_true", help="planted defects alone")
    parser.add_argument("--seeds", type=int, default=_NUM_SEEDS)
    arguments = parser.parse_args()
    dataset = load_dataset(resolve(preset="digits").data)
    panel = load_small_panel(dataset)
    verdicts = judge_defects(panel, dataset)
    words = {Finding.WORSE: "seen", Finding.BETTER: "likes it", Finding.LEVEL: "·", Finding.UNDECIDED: "?"}
    for names in (list(verdicts)[:5], list(verdicts)[5:]):
        rows = [
            [value.title, *(words[verdicts[name].rows[place].finding] for name in names)]
            for place, value in enumerate(panel.values)
        ]
        print_rows("Who sees what", ["value", *names], rows)
    write_result(
        "panel_defects",
        {
            "command": "python -m benchmarks.panel --defects",
            "sets": _SETS,
            "judges": [{"name": judge.name, "kind": judge.kind, "blind_to": judge.blind_to} for judge in panel.judges],
            "titles": {value.key: value.title for value in panel.values},
            "findings": {name: _findings(verdict) for name, verdict in verdicts.items()},
            "kinds": {name: sorted(kinds(panel, verdict)) for name, verdict in verdicts.items()},
        },
    )
    if not arguments.defects:
        command = f"python -m benchmarks.panel{'' if arguments.seeds == _NUM_SEEDS else f' --seeds {arguments.seeds}'}"
        write_result("panel", {"command": command, **known_differences("digits", arguments.seeds, _NUM_TRIALS)})


if __name__ == "__main__":
    main()
