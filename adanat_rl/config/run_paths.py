"""What lies where in a run folder."""

from __future__ import annotations

from pathlib import Path


class RunPaths:
    """Paths of a run; whether they exist depends on how far it has come.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config_file(self) -> Path:
        """Resolved configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def environment_file(self) -> Path:
        """Git revision, packages, hardware, command of the first start and of later ones, JSON."""
        return self.path / "environment.json"

    @property
    def hashes_file(self) -> Path:
        """Hashes of the files that the run is made of, JSON: so that a start after the first reads nothing twice."""
        return self.path / "content_hashes.json"

    @property
    def changes_file(self) -> Path:
        """What was accepted as changed in the middle of the run (`--accept-change`), JSON lines."""
        return self.path / "changes.jsonl"

    @property
    def damaged_rows_file(self) -> Path:
        """Lines of metrics.jsonl that no reader understands, as they were found."""
        return self.path / "metrics.damaged"

    @property
    def evaluations(self) -> Path:
        """Evaluations that somebody asked for beside the run's own, JSON, named after what was evaluated and when."""
        return self.path / "evaluations"

    @property
    def metrics_file(self) -> Path:
        """One JSON row per iteration; the truth of the run."""
        return self.path / "metrics.jsonl"

    @property
    def evaluation_file(self) -> Path:
        """The final comparison, JSON; written by the training of the run alone."""
        return self.path / "evaluation.json"

    @property
    def summary_file(self) -> Path:
        """What the run comes to, JSON; written last, so a run that has it is complete."""
        return self.path / "summary.json"

    @property
    def report_file(self) -> Path:
        """The report, HTML."""
        return self.path / "report.html"

    @property
    def tracking_file(self) -> Path:
        """The run's identity in MLflow, JSON."""
        return self.path / "tracking.json"

    @property
    def checkpoints(self) -> Path:
        """Folders `iteration_000123`."""
        return self.path / "checkpoints"

    @property
    def best_checkpoints(self) -> Path:
        """The checkpoint of the best evaluation, if it is kept."""
        return self.checkpoints / "best"

    @property
    def policy(self) -> Path:
        """The exported policy."""
        return self.path / "policy"

    @property
    def rollouts(self) -> Path:
        """Tables `iteration_000123.parquet`."""
        return self.path / "rollouts"

    @property
    def pieces(self) -> Path:
        """Images of an evaluation that is under way; gone when it is done."""
        return self.path / "evaluation_pieces"

    @property
    def figures(self) -> Path:
        """PNG figures of the report, and `decisions_iteration_000123.png` of each evaluation."""
        return self.path / "figures"

    @property
    def samples(self) -> Path:
        """Sample grids `iteration_000123.png`, `gallery.npz`, `decisions.npz`."""
        return self.path / "samples"
