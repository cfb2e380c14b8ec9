"""Judges of one's own: what is taken, what is refused by name, and what the kit says of broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.findings import failures
from adanat_rl.config.loading import resolve
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.build import build_judge
from adanat_rl.evaluation.panel.conformance import check_judge
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.evaluation.panel.own import JudgeData, load_own_judge
from tests import tiny

WRITTEN = '''
from adanat_rl.evaluation.panel.contract import Value

class Ink:
    """How far the mean ink is from that of the test images."""
    name, kind, blind_to = "ink", "mean grey", "everything but ink"
    values = (Value("ink_gap", "ink gap", True, 0.05, is_relative=True),)
    set_size = None

    class Mean:
        name = "ink"
        def __call__(self, images):
            return images.mean(dim=(1, 2, 3))[:, None]

    def __init__(self, data):
        self.space = self.Mean()
        self.expected = float(data.test.images.mean())

    def __call__(self, features, context):
        return {"ink_gap": abs(float(features.mean()) - self.expected)}
'''


class Space:
    """What a space looks like."""

    name = "first pixels"

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, 10:20]


class Good:
    """A judge that keeps the contract: distance of the mean pixels to those of its first call."""

    name, kind, blind_to = "means", "mean pixels", "all but means"
    set_size: int | None = None
    expected = torch.full((10,), 0.3)

    def __init__(self) -> None:
        self.space: Any = Space()
        self.values: Any = (Value("mean_gap", "mean gap", True, 0.05, is_relative=True),)

    def __call__(self, features: Tensor, context: Tensor) -> Any:
        return {"mean_gap": float((features.mean(dim=0) - self.expected).norm())}


def broken(**changes: Any) -> Good:
    judge = Good()
    for name, value in changes.items():
        setattr(judge, name, value)
    return judge


def space_of(extract: Callable[[Tensor], Any]) -> Any:
    return type("Made", (), {"name": "made", "__call__": lambda self, images: extract(images)})()


@pytest.fixture
def real(digits: ImageDataset) -> tuple[Tensor, Tensor]:
    validation = split_of(digits, Split.VALIDATION)
    return validation.images, validation.labels


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_judges.py").write_text(WRITTEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_judge_that_keeps_the_contract_has_no_failures(real: tuple[Tensor, Tensor]) -> None:
    findings = check_judge(Good(), *real)
    assert not failures(findings), "\n".join(map(str, findings))
    (sight,) = (finding for finding in findings if finding.rule == "planted defects")
    assert "shifted by a pixel" in sight.detail


@pytest.mark.parametrize(
    ("judge", "rule", "detail"),
    [
        (broken(name=""), "announcement", "name is ''"),
        (broken(kind=None), "announcement", "kind is None"),
        (broken(space=3), "announcement", "space is int"),
        (broken(values=()), "announcement", "values is ()"),
        (broken(values=(Value("Mean gap", "x", True, 0.1),)), "announcement", "key 'Mean gap'"),
        (broken(values=(Value("recall", "x", True, 0.1),)), "announcement", "key recall is that of another"),
        (broken(values=(Value("gap", "x", True, -1.0),)), "announcement", "margin -1.0"),
        (broken(values=(Value("gap", "x", True, "3%"),)), "announcement", "margin '3%'"),
        (broken(values=(Value("gap", None, True, 0.1),)), "announcement", "title of gap is None"),
        (broken(set_size=1), "announcement", "set_size is 1"),
        (broken(space=space_of(lambda images: images)), "features: shape", "expected [269, D]"),
        (broken(space=space_of(lambda images: images.numpy())), "features: shape", "a ndarray"),
        (broken(space=space_of(lambda images: images.flatten(1) / 0)), "features: finite", "NaN or infinite"),
        (broken(space=space_of(lambda images: images.flatten(1).mul_(2))), "images are left alone", "changed"),
        (broken(space=space_of(lambda images: torch.rand(len(images), 2))), "the same images, the same features", ""),
        (
            broken(space=space_of(lambda images: images.flatten(1) - images.flatten(1).mean(dim=0))),
            "a row depends on its image alone",
            "alone they differ",
        ),
        (broken(space=space_of(lambda images: 1 / 0)), "calls", "ZeroDivisionError"),
        (broken(values=(Value("other", "x", True, 0.1),)), "numbers", "expected those announced"),
    ],
)
def test_a_broken_rule_is_named(real: tuple[Tensor, Tensor], judge: Good, rule: str, detail: str) -> None:
    (failure, *_) = failures(check_judge(judge, *real))
    assert failure.rule == rule
    assert detail in failure.detail


def test_a_judge_that_draws_or_gives_nan_is_told(real: tuple[Tensor, Tensor]) -> None:
    class Drawing(Good):
        def __call__(self, features: Tensor, context: Tensor) -> Any:
            return {"mean_gap": float(torch.rand(()))}

    class Nothing(Good):
        def __call__(self, features: Tensor, context: Tensor) -> Any:
            return {"mean_gap": float("nan")}

    assert [one.rule for one in failures(check_judge(Drawing(), *real))] == ["the same features, the same numbers"]
    assert [one.rule for one in failures(check_judge(Nothing(), *real))] == ["numbers: finite"]


def test_one_that_sees_nothing_is_noted(real: tuple[Tensor, Tensor]) -> None:
    class Blind(Good):
        def __call__(self, features: Tensor, context: Tensor) -> Any:
            return {"mean_gap": 1.0}

    findings = check_judge(Blind(), *real)
    assert not failures(findings)
    assert "it sees none of" in findings[-1].detail


def test_the_example_keeps_the_contract(monkeypatch: pytest.MonkeyPatch, digits: ImageDataset) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples")
    judge = load_own_judge("own_judge:InkJudge", JudgeData(split_of(digits, Split.TEST), digits))
    validation = split_of(digits, Split.VALIDATION)
    assert not failures(check_judge(judge, validation.images, validation.labels))


def test_the_command_says_what_it_sees(written: Path) -> None:
    result = tiny.run("check_judge", "my_judges:Ink", cwd=written)
    assert result.returncode == 0, result.stderr
    assert "my_judges:Ink: keeps the contract" in result.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("        import os; os._exit(3)\n", "ended the process with status 3"),
        ("        raise ArithmeticError('the moon is full')\n", "ArithmeticError: the moon is full"),
        ("        while True: pass\n", "no end within resources.start_timeout_s = 3 s"),
    ],
)
def test_the_command_survives_what_it_tries(written: Path, change: str, told: str) -> None:
    (written / "my_judges.py").write_text(WRITTEN.replace("        self.space =", change + "        self.space ="))
    wide = {"COLUMNS": "200"}
    limit = ["resources.start_timeout_s=3"] if "while" in change else []
    result = tiny.run("check_judge", "my_judges:Ink", *limit, cwd=written, **wide)
    assert result.returncode == 1
    assert told in result.stdout
    assert "my_judges:Ink: 1 rule is broken" in result.stdout


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("", "no judge: expected one judge, module:Class"),
        ("my_judges", "my_judges: expected one judge, module:Class"),
        ("nowhere:Ink", "cannot import nowhere"),
        ("my_judges:Inc", "my_judges has no Inc (did you mean 'Ink'?)"),
    ],
)
def test_a_name_that_is_none_is_refused(written: Path, word: str, told: str) -> None:
    result = tiny.run("check_judge", *filter(None, [word]), cwd=written)
    assert result.returncode == 2
    assert told in result.stderr


def test_an_own_judge_judges_beside_the_others(written: Path, digits: ImageDataset) -> None:
    config = resolve(overrides=["evaluation.judges=[my_judges:Ink]"])
    judge = build_judge(config)
    assert judge.values[-1].key == "ink_gap"
    images, labels = digits.images[:300], digits.labels[:300]
    judgement = judge.begin(300)
    judgement.add(images, labels)
    gap = abs(float(images.mean()) - float(split_of(digits, Split.TEST).images.mean()))
    assert judgement.result()["ink_gap"] == pytest.approx(gap, rel=1e-4)
    assert len(judgement.replicates()["ink_gap"]) == 4


def test_an_own_judge_may_look_through_a_space_of_the_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: ImageDataset
) -> None:
    written = WRITTEN.replace("self.space = self.Mean()", "self.space = Pixels()")
    written = written.replace("class Ink:", "from adanat_rl.evaluation.panel.spaces import Pixels\n\nclass Ink:")
    (tmp_path / "through_pixels.py").write_text(written)
    monkeypatch.syspath_prepend(tmp_path)
    judge = build_judge(resolve(overrides=["evaluation.judges=[through_pixels:Ink]"]))
    judgement = judge.begin(20)
    judgement.add(digits.images[:20], digits.labels[:20])
    assert judgement.result()["ink_gap"] < 0.1


def test_what_a_judge_announces_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: ImageDataset) -> None:
    broken_property = "    @property\n    def kind(self): raise RuntimeError('no kind')\n"
    written = WRITTEN.replace("name, kind, blind_to = ", "name, _, blind_to = ")
    (tmp_path / "unannounced.py").write_text(written.replace("    set_size = None\n", broken_property))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="unannounced:Ink failed: RuntimeError: no kind"):
        load_own_judge("unannounced:Ink", JudgeData(digits, digits))


def test_settings_name_judges_once_each() -> None:
    for text, told in (("[ink]", "expected module:Class"), ("[a:B, a:B]", "one stands there twice")):
        with pytest.raises(UserError, match=told):
            resolve(overrides=[f"evaluation.judges={text}"])


def test_a_judge_that_fails_later_is_named(written: Path, digits: ImageDataset) -> None:
    (written / "failing.py").write_text(WRITTEN.replace('return {"ink_gap":', 'return 1 / 0 or {"ink_gap":'))
    data = JudgeData(digits, digits)
    judge = load_own_judge("failing:Ink", data)
    with pytest.raises(RunError, match="judge failing:Ink failed: ZeroDivisionError"):
        judge(judge.space(digits.images[:4]), digits.labels[:4])
    (written / "halfway.py").write_text(WRITTEN.replace("name, kind, blind_to =", "name, kind, other ="))
    with pytest.raises(UserError, match=r"evaluation.judges: halfway:Ink made no judge: blind_to is None"):
        load_own_judge("halfway:Ink", data)
