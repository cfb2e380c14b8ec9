"""The dashboard and the report as a browser shows them: headless Chromium, a real server, a real store."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from adanat_rl.config.loading import dump, resolve
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.tracking.mlflow_sink import open_tracker

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one run in its MLflow store: two rows and a picture."""
    folder = tmp_path_factory.mktemp("dashboard") / "runs"
    paths = RunPaths(folder / "digits")
    paths.samples.mkdir(parents=True)
    config = resolve(overrides=["tracking.system_metrics=false"])
    paths.config_file.write_text(dump(config))
    with paths.metrics_file.open("w") as file:
        for iteration in range(3):
            row = {"iteration": iteration, "unix_time_s": 1.7e9 + iteration, "eval/fd_a": 0.5 - 0.1 * iteration}
            file.write(json.dumps(row) + "\n")
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(picture).resize((64, 64)).save(paths.samples / "iteration_000002.png")
    with open_tracker(config, paths, pytest.fail) as tracker:
        tracker.finish("FINISHED")
    return folder


@pytest.fixture(scope="module")
def dashboard(runs: Path) -> Iterator[str]:
    """Address of `adanat-rl ui`; ended by Ctrl-C, as a user would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "adanat_rl.ui", "--runs", str(runs), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    line = process.stdout.readline()
    assert line.startswith("  1 run of adanat-rl: ")
    yield line.split()[-1]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "nothing is left behind"


def open_when_up(page: Page, address: str) -> None:
    """Loads a page of a server that may still be starting."""
    for _ in range(120):
        try:
            page.goto(address, timeout=SLOW_MS)
            return
        except Exception as error:
            if "ERR_CONNECTION_REFUSED" not in str(error):
                raise
            page.wait_for_timeout(500)
    pytest.fail("the dashboard did not come up")


def test_the_dashboard_shows_the_run_a_chart_and_a_sample_image(browser: Browser, dashboard: str) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    open_when_up(page, dashboard)
    run = page.get_by_role("link", name="digits").first
    expect(run).to_be_visible(timeout=SLOW_MS)
    run.click()
    page.get_by_role("tab", name="Model metrics").click()
    chart = page.locator(".js-plotly-plot").first
    expect(chart).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_text("fd_a").first).to_be_visible()
    assert page.locator(".js-plotly-plot .scatterlayer path.js-line").count() >= 1
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("images", exact=True).first.click()
    page.get_by_text(re.compile(r"samples\+step\+2.*\.png")).first.click()
    image = page.locator("img[src*='artifact'], img[src^='blob:']").first
    image.wait_for(state="attached", timeout=SLOW_MS)
    page.wait_for_function("image => image.naturalWidth === 64", arg=image.element_handle(), timeout=SLOW_MS)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_a_phone_in_both_themes(browser: Browser, tmp_path: Path, scheme) -> None:
    from adanat_rl.plots.report import write_report
    from tests.plots.runs import comparison, make_run

    folder = make_run(tmp_path / "run", compared=comparison([0.2, 0.21], [0.3, 0.31]))
    write_report(folder)
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(folder.report_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(background.split("(")[1].split(",")[0])
    assert (red > 200) == (scheme == "light")
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()
