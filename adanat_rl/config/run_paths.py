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
        """Git revision, packages, hardware, command, JSON."""
        return self.path / "environment.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON row per iteration; the truth of the run."""
        return self.path / "metrics.jsonl"

    @property
    def evaluation_file(self) -> Path:
        """The final comparison, JSON."""
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
