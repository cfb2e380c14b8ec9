"""What a run came to, as the description that MLflow shows at the top of a run: Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.evaluation.judge import FD_A, FD_B, judge_names


def describe_comparison(config: ExperimentConfig, comparison: Mapping[str, Any]) -> str:
    """The verdict and a table of the final comparison.

    Args:
        comparison: the content of evaluation.json.
    """
    names = judge_names(config.evaluation)
    titles = {FD_A: names.short_a, FD_B: names.short_b}
    keys = [key for key in titles if key in comparison["rows"][0]["summary"]]
    lines = [f"| | T | {' | '.join(titles[key] for key in keys)} | NAT passes |", "|---" * (3 + len(keys)) + "|"]
    for row in comparison["rows"]:
        numbers = row["summary"]
        distances = [f"{numbers[key]['mean']:.3f} ± {numbers[key]['sd']:.3f}" for key in keys]
        passes = f"{numbers[NAT_PASSES]['mean']:.1f}"
        lines.append(f"| {row['title']} | {row['horizon']} | {' | '.join(distances)} | {passes} |")
    verdict = comparison["verdict"]["sentence"] + "\n\n" if comparison["verdict"] else ""
    return verdict + "\n".join(lines)
