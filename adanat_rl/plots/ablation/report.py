"""The report of a sweep: `report.html`, `summary.csv` and the figures, written into its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adanat_rl.config.files import write_atomically
from adanat_rl.plots.ablation.charts import draw_charts
from adanat_rl.plots.ablation.contest import arms_contest
from adanat_rl.plots.ablation.data import read_sweep
from adanat_rl.plots.ablation.page import render_page
from adanat_rl.plots.ablation.sentences import headline
from adanat_rl.plots.ablation.tables import arm_metrics, summary_frame
from adanat_rl.plots.theme import png


@dataclass(frozen=True)
class AblationFindings:
    """What the report comes to.

    Args:
        sentence: who won, by how much, how sure. metrics: mean of each final number by `arm/metric`.
    """

    sentence: str
    metrics: dict[str, float]


def write_ablation_report(folder: Path) -> AblationFindings:
    """Writes the report of a sweep, finished or not; the same folder gives the same bytes.

    Raises:
        UserError: the folder is no sweep folder.
    """
    sweep = read_sweep(folder)
    charts = draw_charts(sweep)
    contest = arms_contest(sweep)
    for chart in charts.files:
        write_atomically(folder / "figures" / f"{chart.name}.png", png(chart.figure))
    write_atomically(folder / "summary.csv", summary_frame(sweep).to_csv(index=False))
    write_atomically(folder / "report.html", render_page(sweep, charts, contest))
    return AblationFindings(headline(sweep, contest), arm_metrics(sweep))
