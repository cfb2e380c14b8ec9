"""The judge of a configuration."""

from __future__ import annotations

from pathlib import Path

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.loading import load_dataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.judge import Judge, load_judge
from adanat_rl.evaluation.panel.own import JudgeData, load_own_judge
from adanat_rl.evaluation.panel.panel import Panel, PanelledJudge
from adanat_rl.evaluation.panel.photos import photo_judges, refuse_photo_networks
from adanat_rl.evaluation.panel.small import load_small_panel
from adanat_rl.generation.build import load_captions, load_further_captions


def build_judge(config: ExperimentConfig, device: str = "cpu") -> Judge:
    """The classifiers and the panel of a small data set, or Inception with the statistics of the real images and the
    judges of photos; CLIPScore if wanted.

    Raises:
        UserError: weights or statistics are missing, damaged, or do not fit each other.
    """
    evaluation = config.evaluation
    if evaluation.judge == "classifiers":
        refuse_photo_networks(config)
        dataset = load_dataset(config.data)
        data = JudgeData(split_of(dataset, Split.TEST), split_of(dataset, Split.TRAIN))
        own = [load_own_judge(name, data) for name in evaluation.judges]
        judge: Judge = PanelledJudge(load_judge(dataset), Panel([*load_small_panel(dataset).judges, *own]))
    else:
        judge = _inception_judge(config, device)
        judges = [*photo_judges(config, device), *(load_own_judge(name, None) for name in evaluation.judges)]
        if judges:
            judge = PanelledJudge(judge, Panel(judges))
    if evaluation.clip_score is None:
        return judge
    from adanat_rl.evaluation.clip_judge import ClipJudge
    from adanat_rl.metrics.clip_score import ClipScorer

    scorer = ClipScorer(Path(evaluation.clip_score).expanduser(), device=device)
    further = load_further_captions(config)
    captions = load_captions(config.generator).captions if further is None else further.all_captions
    return ClipJudge(judge, scorer, captions)


def _inception_judge(config: ExperimentConfig, device: str) -> Judge:
    from adanat_rl.evaluation.inception_judge import InceptionJudge
    from adanat_rl.metrics.inception import load_extractor
    from adanat_rl.metrics.statistics import load_statistics

    evaluation = config.evaluation
    if evaluation.inception is None or config.data.statistics is None:
        missing = "evaluation.inception" if evaluation.inception is None else "data.statistics"
        raise UserError(f"{missing}: null is not accepted: evaluation.judge=inception needs it")
    extractor = load_extractor(resolve_path(evaluation.inception, "evaluation.inception"), evaluation.resize, device)
    statistics = load_statistics(resolve_path(config.data.statistics, "data.statistics"), evaluation.resize)
    return InceptionJudge(extractor, statistics, device=device)
