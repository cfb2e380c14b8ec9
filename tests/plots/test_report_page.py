"""The report: complete, self-contained, well-formed, escaped, the same every time; whatever a run has."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.evaluation.judge import INCEPTION_NAMES, JudgeNames
from adanat_rl.evaluation.reference import Baseline, References, dump_references
from adanat_rl.plots.charts import baseline_levels, draw_charts
from adanat_rl.plots.curves import Level
from adanat_rl.plots.pictures import cards, cut_grid, pick, sample_picture, strips
from adanat_rl.plots.report import write_report
from adanat_rl.plots.run_data import read_run
from adanat_rl.plots.tables import (
    changed_settings,
    command_again,
    comparison_columns,
    comparison_groups,
    without_secrets,
)
from tests.plots.runs import Folder, comparison, draw_images, make_run, row, write_grid

_VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element has to be closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def write(folder: Folder) -> tuple[str, Page]:
    write_report(folder)
    text = folder.report_file.read_text()
    return text, Page(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    compared = comparison(
        [0.123, 0.145, 0.134], [0.301, 0.322, 0.311], verdict="The policy is adaptive per class only."
    )
    folder = make_run(
        tmp_path_factory.mktemp("runs") / "finished",
        compared=compared,
        overrides=(
            "tracking.experiment=<script>alert(1)</script> & co",
            "ppo.lr=1e-3",
            "tracking.uri=http://me:secret@host/",
        ),
    )
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(finished: Folder) -> Page:
    return Page(finished.report_file.read_text())


def test_the_page_is_well_formed_and_ids_are_unique(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    targets = {value[1:] for tag, name, value in page.attributes if name.endswith("href") and value.startswith("#")}
    assert targets <= set(page.ids)


def test_the_page_loads_nothing(finished: Folder, page: Page) -> None:
    text = finished.report_file.read_text()
    assert "<script" not in text
    assert "@import" not in text
    for tag, name, value in page.attributes:
        if name in {"src", "srcset", "href", "xlink:href", "data", "action", "poster"}:
            assert value.startswith(("#", "data:")), f"<{tag} {name}={value[:40]!r}>"
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_the_page_has_all_its_sections(page: Page) -> None:
    sections = ("samples", "comparison", "learning", "decisions", "gallery", "reward", "again")
    assert set(sections) <= set(page.ids)


def test_numbers_of_the_table_appear_with_their_spread(page: Page) -> None:
    for expected in (
        "0.134 ± 0.011",
        "0.311 ± 0.011",
        "hand-made, T = 8",
        "best of a grid",
        "900 images for each of 3",
    ):
        assert expected in page.words
    assert "The policy is adaptive per class only." in page.words
    assert "it is no FID" in page.words


def test_text_from_the_run_is_escaped(finished: Folder, page: Page) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in finished.report_file.read_text()
    assert "<script>alert(1)</script> & co" in page.words


def test_passwords_in_addresses_are_left_out(finished: Folder, page: Page) -> None:
    assert "secret" not in finished.report_file.read_text()
    assert "http://***@host/" in page.words


def test_the_page_tells_how_to_do_it_again(page: Page) -> None:
    assert "git checkout 0123abc python -m adanat_rl.train seed=0" in page.words
    assert "adanat_rl.load_pipeline(" in page.words
    assert "finished/policy" in page.words
    assert "ppo.lr" in page.words
    assert "torch 2.6" in page.words


def test_changed_settings_come_with_their_defaults() -> None:
    settings = {setting.key: setting for setting in changed_settings(resolve(overrides=("ppo.lr=1e-3", "name=x")))}
    of_the_preset = {"decisions.base.confidence_temperature", "decisions.base.guidance_scale"}
    assert set(settings) == {"ppo.lr"} | of_the_preset
    assert (settings["ppo.lr"].value, settings["ppo.lr"].default) == ("0.001", str(resolve().ppo.lr))


def test_a_second_rendering_gives_the_same_bytes(finished: Folder) -> None:
    def content() -> dict[str, bytes]:
        files = [finished.report_file, *finished.figures.iterdir()]
        return {file.name: file.read_bytes() for file in files}

    before = content()
    write_report(finished)
    assert content() == before
    assert {"decisions.png", "fd_a_over_nat_passes.png", "comparison_fd_a.png", "report.html"} <= before.keys()


def test_figure_files_are_not_taken_for_pictures_of_an_iteration(finished: Folder) -> None:
    assert not list(finished.figures.glob("*iteration_*"))


def test_a_report_stays_small(finished: Folder) -> None:
    assert finished.report_file.stat().st_size < 400_000


def test_large_images_and_many_classes_do_not_blow_it_up(tmp_path: Path) -> None:
    compared = comparison([0.2, 0.3], [0.3, 0.4])
    folder = make_run(tmp_path / "run", compared=compared, horizon=12, num_classes=12, side=64, channels=3)
    write(folder)
    assert folder.report_file.stat().st_size < 1_700_000  # of noise, which does not compress


def test_an_unfinished_run_shows_what_there_is(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", iterations=5, total=20, finished=False)
    with folder.metrics_file.open("a") as file:
        file.write('{"iteration": 6, "rew')  # cut off
    _, page = write(folder)
    assert "This run is not finished: 5 of 20 iterations are done." in page.words
    assert {"samples", "learning", "decisions", "reward", "again"} <= set(page.ids)
    assert not {"comparison", "gallery"} & set(page.ids)
    assert "is exported to" in page.words


@pytest.mark.parametrize("iterations", [0, -1])
def test_a_run_of_one_row_or_none_gives_a_report(tmp_path: Path, iterations: int) -> None:
    folder = make_run(tmp_path / "run", iterations=iterations, total=20, finished=False)
    _, page = write(folder)
    assert "0 of 20 iterations are done" in page.words
    assert ("learning" in page.ids) == (iterations == 0)


def test_a_run_without_optional_files_gives_a_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", iterations=-1, finished=False)
    folder.environment_file.unlink()
    folder.metrics_file.unlink()
    folder.samples.rmdir()
    _, page = write(folder)
    assert "adanat-rl train" in page.words


def test_a_damaged_file_is_named_and_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", compared=comparison([0.2, 0.3]))
    (folder.samples / "gallery.npz").write_bytes(b"no archive")
    _, page = write(folder)
    assert "gallery.npz cannot be read" in page.words
    assert "gallery" not in page.ids


def test_an_evaluation_without_its_numbers_is_left_out_by_name(tmp_path: Path) -> None:
    compared = comparison([0.2, 0.3])
    del compared["rows"][0]["summary"]["fd_a"]["mean"]
    folder = make_run(tmp_path / "run", compared=compared)
    _, page = write(folder)
    assert "evaluation.json cannot be read" in page.words


@pytest.mark.parametrize("content", ['{"command": [{}]}', '{"command": "train"}', '{"packages": 3}', "[]"])
def test_an_environment_that_says_nothing_sensible_is_left_out(tmp_path: Path, content: str) -> None:
    run = make_run(tmp_path / "run")
    run.environment_file.write_text(content)
    write_report(run)
    assert "environment.json cannot be read" in run.report_file.read_text()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run folder"):
        write_report(Folder(tmp_path))


def test_numbers_over_training_seeds_stand_beside_those_of_this_run(tmp_path: Path) -> None:
    trained = {
        "adaptive": {"training_seeds": 5, "fd_a": {"mean": 0.171, "sd": 0.013}},
        "static": {"training_seeds": 4, "fd_a": {"mean": 0.288, "sd": 0.021}},
    }
    published = {"fd_a": {"mean": 0.31, "sd": 0.02}, "fd_b": {"mean": 0.32, "sd": 0.02}}
    baseline = Baseline("hand_made_t4", "hand-made", "grid", np.full((4, 4), 0.5), {}, published)
    reference = tmp_path / "reference.json"
    reference.write_text(dump_references(References("digits", "", (baseline,), trained)))
    overrides = (f"evaluation.reference={reference}",)
    folder = make_run(tmp_path / "run", compared=comparison([0.25, 0.27]), overrides=overrides)
    _, page = write(folder)
    assert "0.171 ± 0.013; this run 0.260" in page.words
    assert "0.288 ± 0.021" in page.words
    assert "5 trainings" in page.words
    folder.evaluation_file.unlink()
    assert baseline_levels(read_run(folder), "fd_a") == [Level("hand made T=4", 0.31, 0.02, strong=True)]
    reference.unlink()
    assert read_run(folder).notes[0].startswith("Reference numbers are left out")


def test_a_static_policy_and_another_horizon_give_a_report(tmp_path: Path) -> None:
    compared = comparison([0.2, 0.3])
    folder = make_run(tmp_path / "run", compared=compared, horizon=8, overrides=("policy.kind=static",))
    same = np.ones((12, 8, 4), np.float32)
    np.savez(folder.samples / "decisions.npz", decisions=same, context=np.arange(12) % 3)
    _, page = write(folder)
    assert page.words.count("The same for every image: this decision depends neither") == 4
    assert "A static policy makes the same decisions for every image" in page.words


def test_passes_are_shown_where_images_took_different_numbers_of_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", compared=comparison([0.2, 0.3]))
    with np.load(folder.samples / "decisions.npz") as file:
        kept = dict(file)
    count = len(kept["context"])
    equal, different = np.full(count, 6), np.arange(count) % 3 + 4
    for passes, shown in ((equal, False), (different, True)):
        np.savez(folder.samples / "decisions.npz", **kept, nat_passes=passes)
        charts = {chart.name: chart.alt for chart in draw_charts(read_run(folder)).ranking}
        assert ("nat_passes_per_image" in charts) == shown
    assert charts["nat_passes_per_image"].startswith("images took 4 to 6 NAT passes")
    _, page = write(folder)
    assert "NAT passes per image" in page.words
    np.savez(folder.samples / "decisions.npz", **kept, nat_passes=-different)
    assert "decisions.npz cannot be read" in read_run(folder).notes[0]


COLUMNS = comparison_columns(JudgeNames(), {"fd_a", "fd_b", "precision", "recall", "accuracy"})


def test_columns_are_those_that_were_measured_and_distances_have_the_names_of_the_judge() -> None:
    columns = comparison_columns(INCEPTION_NAMES, {"fd_a", "recall", "inception_score"})
    assert [column.title for column in columns] == ["FID", "IS", "Recall"]


def test_the_best_value_of_a_column_is_marked_unless_most_share_it() -> None:
    rows = comparison([0.2, 0.3], [0.1, 0.2])["rows"]
    lines = [line for _, group in comparison_groups(rows, COLUMNS) for line in group]
    marked = {(line.title, cell.title) for line in lines for cell in line.cells if cell.best}
    assert marked == {("hand-made, T = 8", "FD A")}
    alone = comparison_groups([row("policy", "policy", [0.2])], COLUMNS)
    assert not any(cell.best for cell in alone[0][1][0].cells)


def test_the_gallery_shows_each_step_with_its_decisions(finished: Folder) -> None:
    run = read_run(finished)
    assert run.gallery is not None
    assert run.decisions is not None
    first = cards(run.gallery, run.decisions)[0]
    assert (first.label, first.seed) == ("0", 0)
    assert [number for number, _ in first.steps] == [1, 2, 3, 4]
    for column, (name, bars) in enumerate(first.decisions):
        values = run.gallery.decisions[0, :, column]
        longest = run.gallery.decisions[:, run.decisions.effective[:, column], column].max()
        for step, bar in enumerate(bars):
            if step == 3 and name in {"mask ratio", "confidence temperature"}:
                assert bar.share is None
                assert bar.text == "–"
            else:
                assert bar.text == f"{values[step]:.2f}"
                assert bar.share == pytest.approx(values[step] / longest)


def test_a_sample_grid_is_cut_into_its_images(tmp_path: Path) -> None:
    images = draw_images(24, 8, 1, 0)
    write_grid(tmp_path / "grid.png", images)
    cells = cut_grid(tmp_path / "grid.png")
    assert cells is not None
    assert cells.shape == (3, 8, 32, 32, 1)
    assert np.array_equal(cells[:, :, ::4, ::4].reshape(24, 8, 8, 1), images)


def test_a_picture_that_is_no_grid_is_shown_whole(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (1001, 77)).save(tmp_path / "odd.png")
    assert cut_grid(tmp_path / "odd.png") is None
    assert sample_picture(tmp_path / "odd.png", "odd").width == 600
    assert strips({0: tmp_path / "odd.png"}) == []


def test_grids_beyond_the_last_row_are_not_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", iterations=4, total=9, finished=False)
    write_grid(folder.samples / "iteration_000006.png", draw_images(24, 8, 1, 0))
    assert list(read_run(folder).samples) == [0, 2, 4]


def test_first_and_last_are_always_picked() -> None:
    assert pick(range(20), 5) == [0, 5, 10, 14, 19]
    assert pick([3, 4], 5) == [3, 4]


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/a/adanat_rl/train.py", "--run-dir", "my runs"], "python -m adanat_rl.train --run-dir 'my runs'"),
        (["/venv/bin/adanat-rl", "train"], "adanat-rl train"),
        (["own.py", "x"], "python own.py x"),
        ([], "adanat-rl train"),
    ],
)
def test_the_command_can_be_typed_again(argv: list[str], command: str) -> None:
    assert command_again(argv) == command


def test_secrets_are_starred_out_and_nothing_else() -> None:
    assert without_secrets("uri: http://me:pw@host:5000/x a@b") == "uri: http://***@host:5000/x a@b"


def test_nothing_in_the_page_is_escaped_twice(finished: Folder) -> None:
    assert "&amp;amp;" not in finished.report_file.read_text()
    assert html.unescape("&amp;") == "&"


def test_the_environment_may_be_anything(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", iterations=0, finished=False)
    folder.environment_file.write_text(json.dumps({"git_revision": None, "processor": "<x>", "num_cpus": 2}))
    text, page = write(folder)
    assert "<x>, 2 CPUs" in page.words
    assert "git checkout" not in text
