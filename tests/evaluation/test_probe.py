"""The adaptivity probe against planted effects, and its statistics against an independent computation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_rl.evaluation.probe import ProbeResult, Site, run_probe
from adanat_rl.evaluation.probe_design import ProbeDesign, probe_images, probe_sites
from adanat_rl.evaluation.probe_drawing import BranchedNoise, draw_rewards, moved, starting_schedule
from adanat_rl.evaluation.probe_findings import effect_size, probe_table, sentences
from adanat_rl.evaluation.probe_statistics import Estimate
from adanat_rl.generation.decisions import Decision, DecisionSpace, inverse_activation
from adanat_rl.generation.generator import ContextSpec, Observation, SampleSpec
from adanat_rl.generation.noise import ImageNoise, Noise, Stream
from adanat_rl.generation.policies.base import SchedulePolicy
from tests.fakes import EXTENT, PointGenerator

CLASS_SLOPES = torch.tensor([-0.3, -0.1, 0.1, 0.3])
BASE_PUSH = 1.0
RANGE = 200.0  # scores in an image: [-100, 100]
MATTERS = 1  # the step at which a push matters


@dataclass(frozen=True)
class Plan:
    """What a push of one action unit does to the score."""

    mean: float = 0.0
    classes: float = 0.0  # factor of CLASS_SLOPES
    told: float = 0.0  # sd
    hidden: float = 0.0  # sd
    noise: float = 0.0  # sd, from finish to finish


@dataclass(frozen=True)
class PlantedState:
    """B drawings: sample is trait, hidden trait, score."""

    sample: Tensor
    context: Tensor
    step: int
    noise: Noise
    features: Tensor | None

    @property
    def observation(self) -> Observation:
        return Observation(self.sample, self.context, self.step, self.features)

    @property
    def num_passes(self) -> Tensor:
        return torch.full((len(self.sample),), self.step)


class PlantedGenerator:
    """Adds offset · slope to a score at one step; the offset is that of the push in pre-activation space."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        rows = (Decision("push", "softplus"), Decision("idle", "sigmoid", effective_at_last=False))
        self.decision_space = DecisionSpace(rows, np.tile([BASE_PUSH, 0.5], (3, 1)))
        self.horizon = 3
        self.sample_spec = SampleSpec("score", (3,), torch.float32, -1e4, 1e4, np.dtype(np.float32))
        self.context_spec = ContextSpec(len(CLASS_SLOPES))
        self.feature_shape = (5, 2)
        self.image_shape = (1, 1, 1)
        self.device = torch.device("cpu")

    def with_base_schedule(self, base_schedule: np.ndarray) -> PlantedGenerator:
        raise NotImplementedError

    def reset(self, context: Tensor, noise: Noise, plan: Tensor | None = None) -> PlantedState:
        assert plan is None, "what is changed was not planned"
        sample = torch.cat([normal(noise, MATTERS, Stream.CONTEXTS, 2), torch.zeros(len(context), 1)], dim=1)
        state = PlantedState(sample, context, 0, noise, None)
        return replace(state, features=self.features(state.observation))

    def step(self, state: PlantedState, decision: Tensor) -> PlantedState:
        sample = state.sample.clone()
        if state.step == MATTERS:
            plan, trait, hidden = self.plan, sample[:, 0], sample[:, 1]
            chance = normal(state.noise, state.step, Stream.TOKENS, 1)[:, 0]
            slope = plan.mean + plan.classes * CLASS_SLOPES[state.context]
            slope = slope + plan.told * trait + plan.hidden * hidden + plan.noise * chance
            offset = inverse_activation(decision[:, 0].numpy(), "softplus") - inverse_activation(
                np.array(BASE_PUSH), "softplus"
            )
            sample[:, 2] += torch.from_numpy(offset).float() * slope + 3 * chance  # the last drops out
        state = replace(state, sample=sample, step=state.step + 1)
        return replace(state, features=self.features(state.observation) if state.step < 3 else None)

    def features(self, observation: Observation) -> Tensor:
        row = torch.stack([observation.sample[:, 0], observation.context.float()], dim=1)
        return row[:, None].expand(-1, 5, -1)

    def decode(self, sample: Tensor) -> Tensor:
        return (sample[:, 2:] / RANGE + 0.5).view(-1, 1, 1, 1)


def normal(noise: Noise, step: int, stream: Stream, count: int) -> Tensor:
    """Standard normal draws `[B, count]`."""
    return torch.special.ndtri(torch.exp(-noise.exponential(step, stream, (count,)).double())).float()


def read_score(images: Tensor, context: Tensor) -> Tensor:
    return RANGE * (images[:, 0, 0, 0] - 0.5)


def probe(plan: Plan, **design: object) -> ProbeResult:
    generator = PlantedGenerator(plan)
    settings = {"num_images": 400, "num_repeats": 6, "offsets": (-1.0, 1.0), "num_resamples": 400, **design}
    policy = SchedulePolicy(starting_schedule(generator.decision_space))
    return run_probe(generator, policy, read_score, ProbeDesign(**settings))  # type: ignore[arg-type]


def push(result: ProbeResult, step: int = MATTERS) -> Site:
    return next(site for site in result.sites if (site.step, site.decision) == (step, "push"))


def is_near(found: Estimate, truth: float, num_errors: float = 4.0) -> bool:
    error = (found.high - found.low) / (2 * 1.96)
    return abs(found.value - truth) <= num_errors * error + 1e-6


FULL = Plan(mean=0.3, classes=2.0, told=0.4, hidden=0.3, noise=0.5)


@pytest.fixture(scope="module")
def full() -> ProbeResult:
    return probe(FULL)


def test_every_part_of_a_planted_effect_is_found(full: ProbeResult) -> None:
    split = push(full).split
    truth = {
        "mean": FULL.mean**2,
        "classes": float((FULL.classes * CLASS_SLOPES).var(correction=0)),
        "images": FULL.told**2 + FULL.hidden**2,
        "noise": FULL.noise**2,
        "predicted": FULL.told**2,
    }
    for part, expected in truth.items():
        found = getattr(split, part)
        assert is_near(found, expected), (part, found, expected)
        assert found.low < found.value < found.high
        assert found.value == pytest.approx(expected, rel=0.5), part


def test_mean_effects_have_the_planted_size_and_sign(full: ProbeResult) -> None:
    down, up = push(full).effects
    assert is_near(up, FULL.mean)
    assert is_near(down, -FULL.mean)
    assert up.value > 0 > down.value
    assert push(full).best_level == 1
    assert push(full).base_value == pytest.approx(BASE_PUSH)
    assert push(full).values[0] < BASE_PUSH < push(full).values[1]


def test_what_has_no_effect_has_exactly_none(full: ProbeResult) -> None:
    others = [site for site in full.sites if site is not push(full)]
    assert [(site.step, site.decision) for site in others] == [(0, "push"), (0, "idle"), (1, "idle"), (2, "push")]
    for site in others:
        assert all(part.value == pytest.approx(0, abs=1e-9) for part in (site.split.mean, site.split.images))
        assert abs(site.schedule.value) < 1e-4
        assert site.features.p_value > 0.01 or abs(site.features.value) < 1e-4


def folded(mean: np.ndarray, sd: float) -> float:
    """E max(x, -x) of normal numbers, by many draws."""
    draws = np.random.default_rng(0).normal(size=200_000)
    return float(np.abs(mean[:, None] + sd * draws).mean())


def test_gains_are_those_of_the_best_choice_or_bound_it(full: ProbeResult) -> None:
    site = push(full)
    class_means = FULL.mean + FULL.classes * CLASS_SLOPES.numpy()
    schedule = abs(FULL.mean)
    per_class = float(np.abs(class_means).mean()) - schedule
    known = folded(class_means, float(np.hypot(FULL.told, FULL.hidden))) - per_class - schedule
    by_features = folded(class_means, FULL.told) - per_class - schedule
    for gain, truth in ((site.schedule, schedule), (site.per_class, per_class), (site.features, by_features)):
        assert gain.low - 0.02 <= truth <= gain.high + 0.02
    assert site.per_class.at_most is not None
    assert site.per_image.at_most is not None
    assert per_class <= site.per_class.at_most
    assert site.per_image.low <= known <= site.per_image.at_most
    assert site.per_image.value > 0.6 * known, "a bound that is worth something"
    assert site.per_image.at_most < 2.5 * known
    assert max(gain.p_value for gain in (site.schedule, site.per_class, site.per_image, site.features)) < 1e-3


def test_what_the_features_do_not_tell_is_not_predicted() -> None:
    site = push(probe(Plan(hidden=0.5, noise=0.3)))
    assert is_near(site.split.images, 0.25)
    assert site.split.images.low > 0.15
    assert abs(site.split.predicted.value) < 0.01
    assert site.features.p_value > 0.01
    assert site.per_image.p_value < 1e-3, "knowing the image would help all the same"


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_alone_is_taken_for_noise(seed: int) -> None:
    site = push(probe(Plan(noise=0.5), seed=seed))
    assert is_near(site.split.noise, 0.25)
    for part in (site.split.mean, site.split.classes, site.split.images):
        assert is_near(part, 0.0)
        assert abs(part.value) < 0.01
    assert abs(site.split.predicted.value) < 0.01
    for gain in (site.schedule, site.per_class, site.per_image, site.features):
        assert gain.value < 0.03
        assert gain.p_value > 0.001
    assert site.per_class.at_most is not None
    assert site.per_class.at_most < 0.1


def test_the_sentences_follow_the_evidence(full: ProbeResult) -> None:
    said = " ".join(sentences(full.as_dict()))
    assert "For all images alike: most is to be gained at step 2 of 3, push" in said
    assert "For each class: a level of its own adds most at step 2 of 3, push" in said
    assert "would gain at least" in said
    assert "a policy per image has something to learn" in said
    assert "holds 0% before step 1, 0% before step 2, 100% before step 3." in said
    quiet = " ".join(sentences(probe(Plan(noise=0.5)).as_dict()))
    assert "no single change of one decision beats the starting point" in quiet
    assert "For each class: a level of its own adds nothing beyond chance" in quiet
    assert "No gain over a choice per class can be shown" in quiet
    assert "they do not tell images apart" in quiet
    assert "parts came out below 0" in quiet


def test_the_table_has_a_line_for_every_place(full: ProbeResult) -> None:
    table = probe_table(full.as_dict())
    assert table.row_count == len(full.sites) == 5
    cells = [list(column.cells) for column in table.columns]
    row = cells[1].index("push", 1)
    assert cells[0][row] == "2"
    assert cells[5][row] == f"{effect_size(full.as_dict()['sites'][2]['split']['images'])[0]:.3f}"
    assert cells[8][row].endswith("*")


def test_batches_and_threads_change_nothing() -> None:
    generator = PlantedGenerator(FULL)
    policy = SchedulePolicy(starting_schedule(generator.decision_space))
    design = ProbeDesign(num_images=32, num_repeats=3, offsets=(1.0,), num_resamples=10)
    told: list[tuple[int, int]] = []
    first = run_probe(
        generator, policy, read_score, design, batch_size=7, num_threads=2, report=lambda *at: told.append(at)
    )
    assert first == run_probe(generator, policy, read_score, design)
    assert told == [(done, 48) for done in range(1, 49)]
    assert first != run_probe(generator, policy, read_score, replace(design, seed=1))


def test_another_generator_with_its_own_decisions_is_probed() -> None:
    generator = PointGenerator("per_image", horizon=2)
    policy = SchedulePolicy(starting_schedule(generator.decision_space))

    def reward(images: Tensor, context: Tensor) -> Tensor:
        return -2 * EXTENT * (images[:, 0, 0, 1] - 0.5)

    result = run_probe(generator, policy, reward, ProbeDesign(num_images=64, num_repeats=3, num_resamples=200))
    found = {(site.step, site.decision): site for site in result.sites}
    assert found.keys() == {(0, "push"), (0, "damping"), (1, "push")}
    assert found[0, "damping"].split.images.value == pytest.approx(0, abs=1e-9)
    for step in (0, 1):  # the trait is in the features, 0.8 of it is what an image wants
        split = found[step, "push"].split
        assert split.predicted.value > 0.8 * split.images.value > 0
        assert found[step, "push"].features.p_value < 1e-3


def test_half_drawn_images_are_the_same_for_all_their_finishes() -> None:
    generator = PlantedGenerator(FULL)
    policy = SchedulePolicy(starting_schedule(generator.decision_space))
    images = probe_images(4, ProbeDesign(num_images=32, num_repeats=4))
    seen: list[Tensor] = []

    def score(pictures: Tensor, context: Tensor) -> Tensor:
        seen.append(context)
        return read_score(pictures, context)

    drawn = draw_rewards(generator, policy, score, images, MATTERS, ("push",), (1e-4, 2.0))
    assert drawn.base.shape == (4, 8, 4)
    assert drawn.changed.shape == (1, 4, 8, 4, 2)
    assert torch.equal(seen[0], images.context.flatten().repeat_interleave(4))
    np.testing.assert_allclose(drawn.changed[0, ..., 0], drawn.base, atol=5e-3), "the same noise at every level"
    assert drawn.base.std(axis=2).min() > 0.1, "every finish has its own"
    slopes = (drawn.changed[0, ..., 1] - drawn.base) / 2.0
    trait = drawn.features[..., 0]
    rest = slopes.mean(axis=2) - FULL.told * trait - FULL.mean - FULL.classes * CLASS_SLOPES.numpy()[:, None]
    assert np.corrcoef(trait.ravel(), slopes.mean(axis=2).ravel())[0, 1] > 0.3
    assert rest.std() == pytest.approx(np.hypot(FULL.hidden, FULL.noise / 2), rel=0.4)


def test_noise_branches_when_it_is_told_to() -> None:
    before, after = ImageNoise(torch.tensor([1, 2])), ImageNoise(torch.tensor([3, 4]))
    noise = BranchedNoise(before, after)
    ask = (0, Stream.TOKENS, (5,))
    assert torch.equal(noise.exponential(*ask), before.exponential(*ask))
    noise.branch()
    drawn = noise.exponential(*ask)
    assert torch.equal(drawn, after.exponential(*ask))
    drawn.zero_()
    assert torch.equal(noise.exponential(*ask), after.exponential(*ask)), "callers may overwrite what they get"


def test_moves_leave_from_where_the_activation_is_not_flat() -> None:
    row = Decision("x", "softplus", low=0.05, high=3.0, base_low=0.1)
    values = torch.tensor([0.0, 1.0, 0.02])
    up, down = moved(values, row, 1.0), moved(values, row, -1.0)
    lifted = np.log1p(np.exp(inverse_activation(np.array([0.1, 1.0, 0.1]), "softplus") + 1))
    np.testing.assert_allclose(up, lifted, rtol=1e-5)
    assert up.dtype == torch.float32
    assert down.tolist() == pytest.approx([0.05, float(np.log1p((np.e - 1) / np.e)), 0.05], rel=1e-5)
    assert moved(torch.tensor([2.9]), row, 5.0).item() == 3.0
    ratio = Decision("r", "sigmoid", base_low=0.02, base_high=0.98)
    assert moved(torch.tensor([1.0]), ratio, -1.0).item() == pytest.approx(1 / (1 + np.exp(1) * 0.02 / 0.98), rel=1e-5)
    assert moved(torch.tensor([1.0]), ratio, 1.0).item() == pytest.approx(1.0, abs=1e-5)


def test_the_start_is_what_actions_of_zero_decide() -> None:
    rows = (Decision("x", "softplus", base_low=0.1), Decision("y", "sigmoid"))
    base = np.array([[0.0, 0.5], [2.0, 0.9]])
    start = starting_schedule(DecisionSpace(rows, base, smoothing=0.4))
    np.testing.assert_allclose(start, [[0.1, 0.5], [2.0, 0.9]], rtol=1e-5)


def test_very_many_classes_are_thinned_out_evenly() -> None:
    images = probe_images(1000, ProbeDesign(num_images=80, num_repeats=3))
    assert images.context.shape == (10, 8)
    assert images.context[:, 0].tolist() == list(range(0, 1000, 100))
    assert images.finish_seeds.shape == (10, 8, 3)
    everything = torch.cat([images.seeds.flatten(), images.finish_seeds.flatten()])
    assert len(everything.unique()) == len(everything)
    assert probe_images(10, ProbeDesign(num_images=25)).context.shape == (3, 8)


def test_only_places_with_an_effect_are_taken() -> None:
    generator = PlantedGenerator(FULL)
    assert probe_sites(generator, ProbeDesign()) == {0: ("push", "idle"), 1: ("push", "idle"), 2: ("push",)}
    assert probe_sites(generator, ProbeDesign(steps=(2,), decisions=("idle",))) == {}
    for wrong in (ProbeDesign(steps=(3,)), ProbeDesign(decisions=("shove",))):
        with pytest.raises(ValueError, match=r"step 3 is not in|unknown decision 'shove'"):
            probe_sites(generator, wrong)
    with pytest.raises(ValueError, match="3 repeats"):
        ProbeDesign(num_repeats=2)


def test_scores_that_are_no_numbers_are_refused() -> None:
    generator = PlantedGenerator(FULL)
    policy = SchedulePolicy(starting_schedule(generator.decision_space))
    for wrong in (lambda images, context: images.new_full((len(images),), torch.nan), lambda images, context: images):
        with pytest.raises(ValueError, match="the scorer returned"):
            run_probe(generator, policy, wrong, ProbeDesign(num_images=16, num_repeats=3))
