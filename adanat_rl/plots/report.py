"""The report of a run: `report.html`, one self-contained file, and its figures as PNG."""

from __future__ import annotations

from adanat_rl.config.files import write_atomically
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.plots.charts import draw_charts
from adanat_rl.plots.page import render_page
from adanat_rl.plots.run_data import read_run
from adanat_rl.plots.theme import png


def write_report(folder: RunPaths) -> None:
    """Writes report and figures of a run, finished or not; the same run gives the same bytes.

    Raises:
        UserError: the folder is no run folder.
    """
    run = read_run(folder)
    charts = draw_charts(run)
    folder.figures.mkdir(exist_ok=True)
    for chart in charts.files:
        write_atomically(folder.figures / f"{chart.name}.png", png(chart.figure), parents=False)
    write_atomically(folder.report_file, render_page(run, charts), parents=False)
