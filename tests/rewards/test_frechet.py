from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.reward_settings import FrechetRewardConfig
from adanat_rl.data.digits import ImageDataset
from adanat_rl.evaluation.judge import FD_A, load_judge
from adanat_rl.generation.weights import load_network, save_network
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.metrics.inception import InceptionExtractor
from adanat_rl.metrics.reference_set import ReferenceSet
from adanat_rl.metrics.statistics import save_statistics
from adanat_rl.rewards import frechet
from adanat_rl.rewards.base import RewardBatch, check_scores
from adanat_rl.rewards.frechet import FrechetReward, from_config
from tests.metrics.fake_extractor import FakeExtractor

FEW = 16  # images of a group


def images_of(seed: int, count: int, brightness: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (brightness + 0.2 * torch.randn(count, 3, 8, 8, generator=generator)).clamp(0, 1)


def batch_of(seed: int, count: int, brightness: float = 0.4) -> RewardBatch:
    return RewardBatch(images_of(seed, count, brightness), torch.arange(count) % 4)


REAL = images_of(99, 400)


def reward(**settings: object) -> FrechetReward:
    extractor = FakeExtractor()
    whole = ReferenceSet(extractor, len(REAL))
    whole.add(REAL)
    config = FrechetRewardConfig.model_validate({"group_size": FEW, **settings})
    return FrechetReward(config, extractor, whole.statistics())


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), np.cov(features.T)


def by_matrix_root(real: tuple[np.ndarray, np.ndarray], generated: tuple[np.ndarray, np.ndarray]) -> float:
    (m, s), (n, g) = real, generated
    return float(((m - n) ** 2).sum() + np.trace(s) + np.trace(g) - 2 * np.trace(linalg.sqrtm(s @ g)).real)


def features_of(images: Tensor) -> np.ndarray:
    return FakeExtractor()(images).double().numpy()


def expected_distances(batch: RewardBatch) -> list[float]:
    real = moments(features_of(REAL))
    return [by_matrix_root(real, moments(features_of(group))) for group in batch.images.split(FEW)]


def test_group_credit_is_minus_the_distance_of_the_group() -> None:
    batch = batch_of(0, 3 * FEW)
    scores, info = check_scores("fid", reward().score(batch), 3 * FEW)
    assert not info
    np.testing.assert_allclose(scores, -np.repeat(expected_distances(batch), FEW), rtol=1e-4)


def test_leave_one_out_credit_is_what_the_distance_rises_by_without_the_image() -> None:
    batch = batch_of(1, 2 * FEW)
    scores, info = check_scores("fid", reward(credit="leave_one_out").score(batch), 2 * FEW)
    real, expected = moments(features_of(REAL)), []
    for group, whole in zip(batch.images.split(FEW), expected_distances(batch), strict=True):
        features = features_of(group)
        expected += [by_matrix_root(real, moments(np.delete(features, row, axis=0))) - whole for row in range(FEW)]
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(info["fid_group_distance"], np.repeat(expected_distances(batch), FEW), rtol=1e-4)


@pytest.mark.parametrize("credit", ["group", "leave_one_out"])
def test_a_score_depends_on_the_images_of_its_group_alone(credit: str) -> None:
    one, batch = reward(credit=credit), batch_of(2, 5 * FEW)
    whole = one.score(batch).scores
    for number in range(5):
        rows = torch.arange(number * FEW, (number + 1) * FEW)
        assert torch.equal(one.score(batch.rows(rows)).scores, whole[rows])
    assert one.set_valued


@pytest.mark.parametrize("credit", ["group", "leave_one_out"])
def test_without_a_group_size_the_batch_is_the_group(credit: str) -> None:
    batch = batch_of(3, 30)
    alike = reward(credit=credit, group_size=30).score(batch).scores
    assert torch.equal(reward(credit=credit, group_size=None).score(batch).scores, alike)


def test_an_image_unlike_the_real_ones_gets_less_than_the_others() -> None:
    batch = batch_of(4, FEW, brightness=0.5)
    batch.images[5] = 0
    scores = reward(credit="leave_one_out").score(batch).scores
    assert scores.argmin() == 5
    assert scores[5] < 0


def test_running_moments_are_a_decayed_mean_of_first_and_second_moments() -> None:
    one = reward(running_decay=0.75)
    assert one.num_updates == 1
    running = None
    for iteration in range(3):
        generated = batch_of(10 + iteration, 100 + iteration)
        metrics = one.update(generated, generated, np.random.default_rng(0), 1)
        mean, covariance = moments(features_of(generated.images))
        fresh = mean, covariance + np.outer(mean, mean)
        running = fresh if running is None else tuple(0.75 * a + 0.25 * b for a, b in zip(running, fresh, strict=True))
        real, own = moments(features_of(REAL)), (running[0], running[1] - np.outer(running[0], running[0]))
        assert metrics == pytest.approx(
            {"batch_distance": by_matrix_root(real, (mean, covariance)), "running_distance": by_matrix_root(real, own)},
            rel=1e-3,
        )
    assert running is not None
    state = one.state_dict()
    np.testing.assert_allclose(state["running.mean"], running[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        state["running.covariance"], running[1] - np.outer(running[0], running[0]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("credit", ["group", "leave_one_out"])
def test_scores_are_those_of_the_batch_blended_into_running_moments(credit: str) -> None:
    one, earlier, batch = reward(credit=credit, running_decay=0.75), batch_of(20, 200), batch_of(21, FEW)
    plain = reward(credit=credit).score(batch).scores
    assert torch.equal(one.score(batch).scores, plain)  # before the first update there is nothing to blend with
    one.update(earlier, earlier, np.random.default_rng(0), 1)
    (m, s), real = moments(features_of(earlier.images)), moments(features_of(REAL))

    def blended(features: np.ndarray) -> float:
        n, g = moments(features)
        mean = 0.75 * m + 0.25 * n
        second = 0.75 * (s + np.outer(m, m)) + 0.25 * (g + np.outer(n, n))
        return by_matrix_root(real, (mean, second - np.outer(mean, mean)))

    features = features_of(batch.images)
    whole = blended(features)
    expected = [-whole] * FEW
    if credit == "leave_one_out":
        expected = [blended(np.delete(features, row, axis=0)) - whole for row in range(FEW)]
    np.testing.assert_allclose(one.score(batch).scores, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_an_update_is_a_pure_function_and_its_state_goes_on_to_the_same_bits() -> None:
    one, other = reward(running_decay=0.5), reward(running_decay=0.5)
    assert one.state_dict() == {}
    for seed in range(3):
        generated = batch_of(seed, 70)
        metrics = [model.update(generated, generated, np.random.default_rng(seed), 1) for model in (one, other)]
        assert metrics[0] == metrics[1]
    resumed = reward(running_decay=0.5)
    resumed.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    batch = batch_of(9, 2 * FEW)
    expected = one.score(batch).scores
    for model in (one, other, resumed):
        assert torch.equal(model.score(batch).scores, expected)
        model.update(batch, batch, np.random.default_rng(0), 1)
    states = [model.state_dict() for model in (one, other, resumed)]
    assert states[0].keys() == {"running.mean", "running.covariance"}
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())
    resumed.load_state_dict({})
    assert torch.equal(resumed.score(batch).scores, reward().score(batch).scores)


def test_scoring_changes_nothing_and_a_state_is_a_copy() -> None:
    one, batch = reward(running_decay=0.5), batch_of(0, FEW)
    one.update(batch_of(1, 70), batch, np.random.default_rng(0), 1)
    state = one.state_dict()
    first = one.score(batch).scores
    assert torch.equal(one.score(batch).scores, first)
    assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
    state["running.mean"] += 1
    assert torch.equal(one.score(batch).scores, first)


def test_without_running_moments_it_is_not_trained() -> None:
    one = reward()
    assert (one.num_updates, one.num_warmup_updates, one.state_dict()) == (0, 0, {})
    assert not one.requires


@pytest.mark.parametrize(
    ("group_size", "count", "message"),
    [
        (FEW, 10, "10 images came in a batch; whole groups of 16 are needed"),
        (FEW, 40, "40 images came in a batch; whole groups of 16 are needed"),
        (None, 3, "3 images came in a batch; 4 or more are needed"),
    ],
)
def test_batches_that_are_too_small_are_refused(group_size: int | None, count: int, message: str) -> None:
    with pytest.raises(UserError, match=rf"reward\.fid\.group_size: {message}"):
        reward(group_size=group_size).score(batch_of(0, count))
    assert reward().score(batch_of(0, 0)).scores.shape == (0,)


def test_statistics_of_another_extractor_are_refused() -> None:
    whole = ReferenceSet(FakeExtractor(seed=1), len(REAL))
    whole.add(REAL)
    with pytest.raises(UserError, match="statistics do not compare: extractor"):
        FrechetReward(FrechetRewardConfig(), FakeExtractor(), whole.statistics())
    state = {"running.mean": torch.zeros(5), "running.covariance": torch.eye(5)}
    with pytest.raises(UserError, match="features per image of one is 6, of the other 5"):
        reward(running_decay=0.5).load_state_dict(state)


def test_digits_are_compared_by_judge_a_as_the_evaluation_does(digits: ImageDataset) -> None:
    one = from_config(resolve(overrides=["reward.kind=fid", "reward.fid.group_size=null"]), "cpu")
    noisy = (digits.images[:300] + 0.3 * torch.rand_like(digits.images[:300])).clamp(0, 1)
    batch = RewardBatch(noisy, digits.labels[:300])
    expected = load_judge(digits)(batch.images, batch.labels)[FD_A]
    np.testing.assert_allclose(one.score(batch).scores, -expected, rtol=1e-4)


def test_a_classifier_of_ones_own_is_recognised(digits: ImageDataset, tmp_path: Path) -> None:
    arguments = {"image_size": 8, "channels": 4, "num_features": 5}
    torch.manual_seed(0)
    network = ConvClassifier(**arguments).eval()
    save_network(tmp_path / "own.safetensors", "conv_classifier", arguments, network)
    weights = f"reward.fid.weights={tmp_path / 'own.safetensors'}"
    one = from_config(resolve(overrides=["reward.kind=fid", weights]), "cpu")
    batch = RewardBatch(digits.images[:64].flip(3), digits.labels[:64])
    with torch.no_grad():
        real, ours = (moments(network(images).double().numpy()) for images in (digits.images, batch.images))
    np.testing.assert_allclose(one.score(batch).scores, -by_matrix_root(real, ours), rtol=1e-4)


class TinyInception(nn.Module):
    """6 features and 5 logits of images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 11)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.fc(functional.adaptive_avg_pool2d(x, 4).flatten(1))
        return y[:, :6], y[:, 6:]


@pytest.fixture
def inception_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of a data set of files with Inception's weights and statistics."""
    monkeypatch.setattr(frechet, "InceptionV3", TinyInception)
    monkeypatch.setattr(InceptionExtractor, "num_features", 6)
    folder = tmp_path / "images" / "one"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "0.png")
    save_network(tmp_path / "inception.safetensors", "inception", {}, TinyInception())
    network = load_network(tmp_path / "inception.safetensors", {"inception": TinyInception})
    whole = ReferenceSet(InceptionExtractor(network, "vendored"), 32)  # type: ignore[arg-type]
    whole.add(REAL[:32])
    save_statistics(tmp_path / "statistics.npz", whole.statistics())
    return [
        "reward.kind=fid",
        "data.name=image_folder",
        f"data.path={tmp_path / 'images'}",
        "evaluation.resize=vendored",
        f"reward.fid.group_size={FEW}",
        f"evaluation.inception={tmp_path / 'inception.safetensors'}",
        f"data.statistics={tmp_path / 'statistics.npz'}",
    ]


def test_images_of_files_are_compared_by_inception_with_stored_statistics(inception_run: list[str]) -> None:
    one = from_config(resolve(overrides=inception_run), "cpu")
    path = resolve_path(inception_run[-2].partition("=")[2], "")
    network = load_network(path, {"inception": TinyInception})
    extractor = InceptionExtractor(network, "vendored")  # type: ignore[arg-type]
    batch = batch_of(0, FEW)
    with torch.no_grad():
        real, ours = (moments(extractor(images).double().numpy()) for images in (REAL[:32], batch.images))
    np.testing.assert_allclose(one.score(batch).scores, -by_matrix_root(real, ours), rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.statistics=null", r"data\.statistics: null is not accepted: reward\.kind=fid with Inception needs"),
        ("evaluation.inception=null", r"reward\.fid\.weights: null is not accepted with data\.name=image_folder"),
        ("evaluation.resize=torch_fidelity", "was made with the resize convention vendored, not torch_fidelity"),
        (
            "reward.fid.weights=asset:digits/judge_a.safetensors",
            r"reward\.fid\.weights: .*judge_a\.safetensors takes images of 1×8×8, those of data",
        ),
        (
            "reward.fid.weights=asset:digits/nat.safetensors",
            "holds: transformer; accepted here: conv_classifier, incep",
        ),
    ],
)
def test_missing_and_unfit_files_are_refused(inception_run: list[str], change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_config(resolve(overrides=[*inception_run, change]), "cpu")


def test_inception_is_refused_for_grey_digits(inception_run: list[str]) -> None:
    weights = inception_run[-2].replace("evaluation.inception", "reward.fid.weights")
    with pytest.raises(UserError, match=r"reward\.fid\.weights: .* is Inception, .* those of digits are grey"):
        from_config(resolve(overrides=["reward.kind=fid", weights]), "cpu")
