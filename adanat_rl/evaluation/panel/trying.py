"""Tries a judge of somebody's own on a small data set, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adanat_rl.config.apart import check_apart
from adanat_rl.config.errors import UserError
from adanat_rl.config.findings import Finding, failed, name_of
from adanat_rl.config.loading import validate
from adanat_rl.config.own_code import import_own
from adanat_rl.config.schema import ExperimentConfig


def check_in_process(name: str, config: ExperimentConfig) -> list[Finding]:
    """Findings of the judge that `module:Class` makes for the data of a configuration.

    Raises:
        UserError: a setting or a file is wrong, or there is no such class. RunError: the check itself failed.
    """
    limit = ("resources.start_timeout_s", config.resources.start_timeout_s)
    order = {"name": name, "config": config.model_dump(mode="json")}
    return check_apart("adanat_rl.evaluation.panel.trying:try_judge", order, lambda phase: limit, "judge")


def try_judge(order: Any, begin: Callable[[str], None]) -> list[Finding]:
    """What runs in the process."""
    import torch

    from adanat_rl.data.loading import load_dataset
    from adanat_rl.data.splits import Split, split_of
    from adanat_rl.evaluation.panel.conformance import check_judge
    from adanat_rl.evaluation.panel.own import JudgeData

    config = validate(order["config"])
    torch.set_num_threads(config.resources.torch_threads)
    dataset = load_dataset(config.data)
    parts = {split: split_of(dataset, split) for split in Split}
    cls = import_own(order["name"])
    begin("constructor")
    try:
        judge = cls(JudgeData(parts[Split.TEST], parts[Split.TRAIN]))
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's constructor does
        return [failed("constructor", name_of(error))]
    validation = parts[Split.VALIDATION]
    return check_judge(judge, validation.images, validation.labels, begin=begin)
