"""Judges of photos: what they see in real photos with planted defects, through networks of random weights, and what
they refuse. The photos are pieces of the two that scikit-learn bundles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.findings import failures
from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation import build
from adanat_rl.evaluation.build import build_judge
from adanat_rl.evaluation.clip_judge import ClipJudge
from adanat_rl.evaluation.inception_judge import InceptionJudge
from adanat_rl.evaluation.judge import Judge, Judgement
from adanat_rl.evaluation.panel.conformance import check_judge
from adanat_rl.evaluation.panel.defects import DEFECTS
from adanat_rl.evaluation.panel.judges import FrechetJudge
from adanat_rl.evaluation.panel.panel import Panel, PanelledJudge
from adanat_rl.evaluation.panel.photos import PHOTO_NETWORKS, one_half
from adanat_rl.experiment.fitting import check_fit
from adanat_rl.metrics.clip_images import ClipImageEncoder
from adanat_rl.metrics.dinov2 import Dinov2Encoder
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.kernels import gaussian_mmd
from adanat_rl.metrics.manifold import density_coverage, precision_recall
from adanat_rl.metrics.reference_set import ReferenceSet
from adanat_rl.metrics.statistics import load_statistics, save_statistics, sister_file
from tests.metrics.fake_extractor import FakeExtractor
from tests.tiny_clip import write_tiny_clip
from tests.tiny_dinov2 import write_tiny_dinov2

KEYS = {"fd_dinov2", "precision_dinov2", "recall_dinov2", "density_dinov2", "coverage_dinov2", "cmmd_clip"}


def photos() -> tuple[Tensor, Tensor]:
    """260 pieces `[N, 3, 32, 32]` and where each is from, four classes."""
    pieces, classes = [], []
    for number, photo in enumerate(load_sample_images().images):
        whole = torch.from_numpy(photo.copy()).permute(2, 0, 1)[:, :416]
        grid = whole.unfold(1, 32, 32).unfold(2, 32, 32).permute(1, 2, 0, 3, 4)[:, ::2]
        for row, line in enumerate(grid):
            pieces.append(line)
            classes += [2 * number + row * 2 // len(grid)] * len(line)
    return torch.cat(pieces).float() / 255, torch.tensor(classes)


PHOTOS, CLASSES = photos()
REAL, DRAWN, CONTEXT = PHOTOS[::2], PHOTOS[1::2], CLASSES[1::2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    spaces = (Dinov2Encoder(write_tiny_dinov2(root / "dinov2")), ClipImageEncoder(write_tiny_clip(root / "clip")))
    for file, extractor in (
        (root / "real.npz", FakeExtractor()),
        *((sister_file(root / "real.npz", one.name), space) for one, space in zip(PHOTO_NETWORKS, spaces, strict=True)),
    ):
        gathered = ReferenceSet(extractor, len(REAL), len(REAL))
        gathered.add(REAL)
        save_statistics(file, gathered.statistics())
    return root


@pytest.fixture(scope="module", autouse=True)
def _small_inception() -> Iterator[None]:
    """In place of Inception, which takes seconds."""

    def load(config: ExperimentConfig, device: str) -> InceptionJudge:
        return InceptionJudge(FakeExtractor(), load_statistics(Path(str(config.data.statistics))), device=device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_inception_judge", load)
        yield


def config_of(root: Path, *overrides: str) -> ExperimentConfig:
    return resolve(
        overrides=[
            "evaluation.judge=inception",
            "data.name=image_folder",
            f"data.path={root}",
            f"data.statistics={root}/real.npz",
            f"evaluation.dinov2={root}/dinov2",
            f"evaluation.clip={root}/clip",
            *overrides,
        ]
    )


@pytest.fixture(scope="module")
def judge(root: Path) -> Judge:
    return build_judge(config_of(root))


def judged(judge: Judge, images: Tensor, context: Tensor, sizes: int = 1000) -> Judgement:
    judgement = judge.begin(len(images))
    for part, labels in zip(images.split(sizes), context.split(sizes), strict=True):
        judgement.add(part, labels)
    return judgement


def test_the_numbers_are_those_of_all_features_at_once(judge: Judge, root: Path) -> None:
    found = judged(judge, DRAWN, CONTEXT).result()
    dinov2, clip = Dinov2Encoder(root / "dinov2"), ClipImageEncoder(root / "clip")
    real, drawn = dinov2(REAL), dinov2(DRAWN)
    assert found["fd_dinov2"] == pytest.approx(FrechetDistance(real)(drawn), rel=1e-6)
    assert (found["density_dinov2"], found["coverage_dinov2"]) == pytest.approx(density_coverage(real, drawn))
    assert (found["precision_dinov2"], found["recall_dinov2"]) == pytest.approx(precision_recall(real, drawn))
    x, y = (clip(images).double().numpy() for images in (REAL, DRAWN))
    kernels = [np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / 200) for a, b in ((x, x), (y, y), (x, y))]
    within = [(k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    assert found["cmmd_clip"] == pytest.approx(1000 * (sum(within) - 2 * kernels[2].mean()), abs=1e-6)
    assert {value.key for value in judge.values} == {*KEYS, "fd_a", "inception_score", "precision", "recall"}
    assert found.keys() == {value.key for value in judge.values}


SEEN = {
    "noise": {"fd_dinov2", "precision_dinov2"},
    "a dropped class": {"fd_dinov2", "coverage_dinov2", "cmmd_clip"},
    "a dropped mode": {"fd_dinov2", "recall_dinov2", "cmmd_clip"},
    "few images": {"fd_dinov2", "recall_dinov2", "coverage_dinov2"},
    "swapped classes": set(),
}


@pytest.mark.parametrize("name", SEEN)
def test_planted_defects_are_seen_and_what_a_judge_is_blind_to_is_not(judge: Judge, name: str) -> None:
    sound = judged(judge, DRAWN, CONTEXT).result()
    defective = judged(judge, *DEFECTS[name](DRAWN, CONTEXT)).result()
    worse = set()
    for value in judge.values:
        gap = defective[value.key] - sound[value.key]
        if (gap if value.minimises else -gap) > value.margin_at(sound[value.key]):
            worse.add(value.key)
    assert worse & KEYS >= SEEN[name]
    assert SEEN[name] or not worse & KEYS


def test_a_half_of_the_real_images_is_the_defect_that_gives_cmmd_its_margin(judge: Judge, root: Path) -> None:
    features = load_statistics(root / "real.clip.npz").features
    assert features is not None
    half = one_half(features)
    assert len(half) == len(features) / 2
    first = np.linalg.svd((features - features.mean(dim=0)).double().numpy(), full_matrices=False)[2][0]
    places, kept = (rows.double().numpy() @ first for rows in (features, half))
    beyond = np.sort(places)[len(places) // 2 :], np.sort(places)[: len(places) // 2]
    assert any(np.sort(kept) == pytest.approx(side) for side in beyond)
    (margin,) = (value.margin for value in judge.values if value.key == "cmmd_clip")
    assert margin == pytest.approx(0.03 * float(gaussian_mmd(features.double())(half.double())))


@pytest.mark.parametrize("with_captions", [False, True])
def test_a_set_goes_on_from_its_state_to_the_same_bits(judge: Judge, root: Path, with_captions: bool) -> None:
    if with_captions:
        judge = ClipJudge(judge, lambda images, captions: images.mean(dim=(1, 2, 3)), ["a", "b", "c", "d"])
    first = judge.begin(len(DRAWN))
    first.add(DRAWN[:50], CONTEXT[:50])
    resumed = judge.begin(len(DRAWN))
    resumed.restore(first.state())
    assert resumed.count == 50
    for judgement in (first, resumed):
        judgement.add(DRAWN[50:], CONTEXT[50:])
    in_pieces = judged(judge, DRAWN, CONTEXT, sizes=45)
    assert first.result() == resumed.result()
    assert first.replicates() == resumed.replicates()
    for key in KEYS:  # the fake of Inception depends on batches to rounding
        assert in_pieces.result()[key] == first.result()[key]


def test_a_state_of_other_judges_is_refused(judge: Judge, root: Path, tmp_path: Path) -> None:
    state = judged(judge, DRAWN[:20], CONTEXT[:20]).state()
    bare = build_judge(config_of(root, "evaluation.dinov2=null"))
    with pytest.raises(UserError, match="judged by another panel"):
        bare.begin(20).restore(state)
    scored = ClipJudge(judge, lambda images, captions: images.mean(dim=(1, 2, 3)), ["a"] * 4)
    with pytest.raises(UserError, match="judged without CLIPScore"):
        scored.begin(20).restore(state)


def test_replicates_spread_around_the_values(judge: Judge) -> None:
    images, context = torch.cat([DRAWN, REAL]), torch.cat([CONTEXT, CLASSES[::2]])
    judgement = judged(judge, images, context)
    row, found = judgement.result(), judgement.replicates()
    for key in ("fd_dinov2", "cmmd_clip", "fd_a"):
        assert len(found[key]) == 4
        assert np.mean(found[key]) == pytest.approx(row[key], rel=1e-6, abs=1e-9)
    assert len(found["recall_dinov2"]) == 2  # sets as large as the real one
    assert np.mean(found["inception_score"]) == pytest.approx(row["inception_score"])


def test_statistics_of_another_network_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    other = write_tiny_dinov2(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"real\.dinov2\.npz was made with another network than evaluation\.dinov2"):
        build_judge(config_of(root, f"evaluation.dinov2={other}"))
    clip = load_statistics(root / "real.clip.npz")
    (tmp_path / "real.npz").write_bytes((root / "real.npz").read_bytes())
    save_statistics(tmp_path / "real.clip.npz", replace(clip, extractor_hash=""))
    here = (f"data.statistics={tmp_path}/real.npz", "evaluation.dinov2=null")
    with pytest.raises(UserError, match=r"real\.clip\.npz was made with another network .* unknown weights, not"):
        build_judge(config_of(root, *here))
    save_statistics(tmp_path / "real.clip.npz", replace(clip, features=None))
    with pytest.raises(UserError, match=r"fewer than 4 images; evaluation\.clip compares with more.*--keep-features"):
        build_judge(config_of(root, *here))
    (tmp_path / "real.clip.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"real\.clip\.npz is damaged"):
        build_judge(config_of(root, *here))


def test_without_features_dinov2_gives_the_distance_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "real.npz").write_bytes((root / "real.npz").read_bytes())
    save_statistics(tmp_path / "real.dinov2.npz", replace(load_statistics(root / "real.dinov2.npz"), features=None))
    judge = build_judge(config_of(root, f"data.statistics={tmp_path}/real.npz", "evaluation.clip=null"))
    assert {value.key for value in judge.values} & KEYS == {"fd_dinov2"}


def test_old_statistics_alone_give_what_they_gave(root: Path) -> None:
    judge = build_judge(config_of(root, "evaluation.dinov2=null", "evaluation.clip=null"))
    assert isinstance(judge, InceptionJudge)


def test_small_images_are_not_judged_as_photos(root: Path) -> None:
    config = resolve(overrides=[f"evaluation.dinov2={root}/dinov2"])
    for check in (build_judge, check_fit):
        with pytest.raises(UserError, match=r"evaluation\.dinov2: .* not accepted with evaluation\.judge=classifiers"):
            check(config)


@pytest.mark.parametrize("number", range(3))
def test_the_judges_obey_the_contract(judge: Judge, number: int) -> None:
    assert isinstance(judge, PanelledJudge)
    findings = check_judge(judge.panel.judges[number], DRAWN, CONTEXT)
    assert not failures(findings), "\n".join(map(str, findings))


def test_a_state_of_other_weights_is_refused(tmp_path: Path) -> None:
    folders = [write_tiny_dinov2(tmp_path / str(seed), seed) for seed in (0, 1)]
    panels = []
    for folder in folders:
        space = Dinov2Encoder(folder)
        panels.append(Panel([FrechetJudge(space, space(REAL[:9]), "DINOv2", "nothing")]))
    gathered = panels[0].begin()
    gathered.add(DRAWN[:5], CONTEXT[:5])
    panels[0].begin().restore(gathered.state())
    with pytest.raises(UserError, match="judged by another panel"):
        panels[1].begin().restore(gathered.state())
