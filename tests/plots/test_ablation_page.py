"""The report of a sweep: complete, self-contained, well-formed, escaped, the same every time; however far it came."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from adanat_rl.plots.ablation.charts import draw_charts
from adanat_rl.plots.ablation.contest import arms_contest
from adanat_rl.plots.ablation.data import read_sweep
from adanat_rl.plots.ablation.page import gather, samples
from adanat_rl.plots.ablation.report import write_ablation_report
from tests.plots.sweeps import Arm, make_search, make_sweep
from tests.plots.test_report_page import Page


def write(path: Path) -> tuple[str, Page]:
    write_ablation_report(path)
    text = (path / "report.html").read_text()
    return text, Page(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_sweep(tmp_path_factory.mktemp("sweeps") / "rewards", title="<script>alert(1)</script> & co")
    write_ablation_report(path)
    return path


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return Page((finished / "report.html").read_text())


def test_the_page_is_well_formed_and_ids_are_unique(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    targets = {value[1:] for tag, name, value in page.attributes if name.endswith("href") and value.startswith("#")}
    assert targets <= set(page.ids)


def test_the_page_loads_nothing_and_has_both_themes(finished: Path, page: Page) -> None:
    text = (finished / "report.html").read_text()
    assert "<script" not in text
    assert "@import" not in text
    for tag, name, value in page.attributes:
        if name in {"src", "srcset", "href", "xlink:href", "data", "action", "poster"}:
            assert value.startswith(("#", "data:")), f"<{tag} {name}={value[:40]!r}>"
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes
    assert "prefers-color-scheme:dark" in text


def test_the_page_has_all_its_sections(page: Page) -> None:
    assert {"arms", "samples", "planes", "curves", "hacking", "trials"} <= set(page.ids)
    assert "parameters" not in page.ids


def test_every_picture_says_what_is_to_be_seen(page: Page) -> None:
    pictures = [attribute for attribute in page.attributes if attribute[:2] in {("svg", "role"), ("img", "src")}]
    words = [value for tag, name, value in page.attributes if (tag, name) in {("svg", "aria-label"), ("img", "alt")}]
    assert len(pictures) == len(words) == 2 + 8 + 4 + 4 + 2  # planes, curves, watched, samples, moments
    assert all(len(text) > 12 for text in words)
    assert len(set(words)) == len(words)


def test_sentence_table_and_hacking_are_in_words(page: Page) -> None:
    for expected in (
        "adversarial wins:",
        "0.180 ± 0.008",
        "hand-made, T = 8",
        "classifier: in 5 of 5 trials, first seen at iteration 30.",
        "Reward hacking, seen at iteration 30: over 4 evaluations (iterations 0 to 30)",
        "When hacking was seen, iteration 30",
        "002_adversarial_seed2: FD A 0.180",  # the one in the middle
        "it is no FID",
    ):
        assert expected in page.words.replace("\N{NO-BREAK SPACE}", " ")


def test_text_from_the_sweep_is_escaped(finished: Path, page: Page) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in (finished / "report.html").read_text()
    assert "<script>alert(1)</script> & co" in page.words


def test_a_second_rendering_gives_the_same_bytes(finished: Path) -> None:
    def content() -> dict[str, bytes]:
        files = [finished / "report.html", finished / "summary.csv", *(finished / "figures").iterdir()]
        return {file.name: file.read_bytes() for file in files}

    before = content()
    found = write_ablation_report(finished)
    assert content() == before
    assert found.sentence in Page((finished / "report.html").read_text()).words.replace("\N{NO-BREAK SPACE}", " ")
    assert found.metrics["adversarial/fd_a"] == pytest.approx(0.18)
    assert {"precision_recall.png", "distance_0_adversarial.png", "reward_3_classifier.png"} <= before.keys()


def test_a_report_stays_small(finished: Path) -> None:
    assert (finished / "report.html").stat().st_size < 700_000


def test_an_unfinished_sweep_shows_what_there_is(tmp_path: Path) -> None:
    states = {
        "001_a_seed1": ("running", None),
        "002_b_seed0": ("pending", None),
        "003_b_seed1": ("failed", "score is not finite: reward <classifier>"),
    }
    _, page = write(make_sweep(tmp_path / "half", {"a": Arm((0.2, 0.3)), "b": Arm((0.4, 0.5))}, states=states))
    assert "This sweep is not finished: 1 of 4 trials are done" in page.words
    assert "failed: score is not finite: reward <classifier>" in page.words
    assert "running: at iteration 30" in page.words
    assert "1 of 2 seeds" in page.words


def test_a_sweep_that_has_only_begun_gives_a_report(tmp_path: Path) -> None:
    states = {"000_a_seed0": ("running", None), "001_a_seed1": ("pending", None)}
    path = make_sweep(tmp_path / "begun", {"a": Arm((0.2, 0.3))}, states=states)
    _, page = write(path)
    assert "There is nothing to compare yet" in page.words
    assert not {"arms", "samples", "planes"} & set(page.ids)
    assert {"curves", "hacking", "trials"} <= set(page.ids)
    states = {"000_a_seed0": ("pending", None), "001_a_seed1": ("pending", None)}
    _, page = write(make_sweep(tmp_path / "empty", {"a": Arm((0.2, 0.3))}, states=states))
    assert {"arms", "curves", "hacking"}.isdisjoint(page.ids)


def test_a_damaged_trial_is_named_and_left_out(tmp_path: Path) -> None:
    path = make_sweep(tmp_path / "sweep", {"a": Arm((0.2, 0.3)), "b": Arm((0.4, 0.5))})
    (path / "trials/000_a_seed0/config.yaml").write_text("- 1\n")
    (path / "trials/001_a_seed1/samples/gallery.npz").write_bytes(b"no archive")
    (path / "trials/002_b_seed0/evaluation.json").write_text("{")
    _, page = write(path)
    assert "000_a_seed0 is left out:" in page.words
    assert "001_a_seed1: gallery.npz cannot be read" in page.words
    assert "its final evaluation is missing or cannot be read" in page.words


def test_continuous_parameters_have_importance_and_parallel_coordinates(tmp_path: Path) -> None:
    path = make_search(tmp_path / "search")
    _, page = write(path)
    assert "parameters" in page.ids
    assert {"importance.png", "parallel_coordinates.png"} <= {file.name for file in (path / "figures").iterdir()}
    assert "The best trials" in page.words
    assert "stopped: by the scheduler at iteration 30" in page.words


def test_galleries_of_other_seeds_are_not_passed_off_as_the_same(tmp_path: Path) -> None:
    path = make_sweep(tmp_path / "sweep", {"a": Arm((0.2,)), "b": Arm((0.4,))})
    before = samples(read_sweep(path))
    file = path / "trials/001_b_seed0/samples/gallery.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez_compressed(file, **(content | {"seeds": content["seeds"] + 1}))
    after = samples(read_sweep(path))
    assert ["drawn for other contexts" in sample.remark for sample in before] == [False, False]
    assert ["drawn for other contexts" in sample.remark for sample in after] == [False, True]


def test_arms_with_odd_names_give_a_report(tmp_path: Path) -> None:
    arms = {f"ppo.lr={value}, «x»/<{value}>": Arm((value,)) for value in (0.2, 0.3)}
    path = make_sweep(tmp_path / "odd", arms)
    _, page = write(path)
    assert "ppo.lr=0.2, «x»/<0.2> has the best FD A" in page.words
    assert (path / "figures" / "distance_1_ppo_lr_0_3_x_0_3.png").exists()


def test_of_many_arms_the_best_are_drawn(tmp_path: Path) -> None:
    arms = {f"{number}": Arm((0.2 + 0.01 * number,)) for number in reversed(range(14))}
    sweep = read_sweep(make_sweep(tmp_path / "many", arms))
    charts = draw_charts(sweep)
    assert [chart.name for chart in charts.distances] == [f"distance_{number}_{number}" for number in range(12)]
    assert len({chart.name for chart in charts.files}) == len(charts.files)
    assert gather(sweep, charts, arms_contest(sweep))["left_out"] == 2


def test_passwords_in_the_sweep_file_are_left_out(tmp_path: Path) -> None:
    path = make_sweep(tmp_path / "sweep", {"a": Arm((0.2,))})
    (path / "sweep.yaml").write_text("settings: {tracking.uri: http://me:secret@host/}\n")
    text, page = write(path)
    assert "secret" not in text
    assert "http://***@host/" in page.words


def test_trials_may_have_other_numbers_of_passes(tmp_path: Path) -> None:
    path = make_sweep(tmp_path / "horizon", {"t4": Arm((0.3,)), "t8": Arm((0.2,))})
    file = path / "trials/001_t8_seed0/evaluation.json"
    content = json.loads(file.read_text())
    content["rows"][0]["summary"]["nat_passes_per_image"]["mean"] = 14.0
    file.write_text(json.dumps(content))
    assert "distance_over_passes" in {chart.name for chart in draw_charts(read_sweep(path)).planes}
