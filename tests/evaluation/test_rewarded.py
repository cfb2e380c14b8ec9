"""A run is never judged by what it was paid in: which numbers those are, and what follows from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.metric_keys import EVAL, ITERATION, REWARD_MEAN
from adanat_rl.config.paths import assets_folder
from adanat_rl.evaluation.hacking import find_hacking
from adanat_rl.evaluation.judge import ACCURACY, CLIP_SCORE, FD_A, FD_B, PRECISION, RECALL
from adanat_rl.evaluation.panel.photos import CMMD_KEY
from adanat_rl.evaluation.rewarded import check_deciding_metric, remaining_judges, rewarded_judges
from tests.tiny_clip import write_tiny_clip

OF_A = {FD_A, PRECISION, RECALL, ACCURACY}
COMPOSITE = ("reward.kind=composite", "reward.parts=[{kind: adversarial}, {kind: fid, weight: 0.1}]")


def rewarded(*overrides: str) -> set[str]:
    return set(rewarded_judges(resolve(overrides=list(overrides))))


@pytest.mark.parametrize("kind", ["adversarial", "classifier", "nat_pass_cost"])
def test_other_rewards_leave_both_judges(kind: str) -> None:
    assert rewarded(f"reward.kind={kind}") == set()


@pytest.mark.parametrize("overrides", [("reward.kind=fid",), COMPOSITE])
def test_the_frechet_reward_uses_judge_a_also_in_a_composite(overrides: tuple[str, ...]) -> None:
    assert rewarded(*overrides) >= OF_A
    assert FD_B not in rewarded(*overrides)
    assert remaining_judges(resolve(overrides=list(overrides))) == [FD_B]


def test_a_judge_is_known_by_its_content_under_any_name(tmp_path: Path) -> None:
    copy = tmp_path / "my_features.safetensors"
    shutil.copyfile(assets_folder() / "digits" / "judge_b.safetensors", copy)
    assert rewarded("reward.kind=fid", f"reward.fid.weights={copy}") == {FD_B}
    assert rewarded("reward.kind=fid", "reward.fid.weights=asset:digits/judge_b.safetensors") == {FD_B}
    assert rewarded("reward.kind=classifier", f"reward.classifier.weights={copy}") == {FD_B}
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x01")
    assert rewarded("reward.kind=fid", f"reward.fid.weights={copy}") == set()
    copy.unlink()
    assert rewarded("reward.kind=fid", f"reward.fid.weights={copy}") == set()


@pytest.mark.parametrize("setting", ["checkpoints.keep_best=true", "evaluation.early_stop_patience=3"])
def test_the_best_evaluation_is_never_told_by_the_reward(setting: str) -> None:
    with pytest.raises(UserError, match=r"fd_a is not accepted: the run is paid in it.*use evaluation.metric=fd_b"):
        check_deciding_metric(resolve(overrides=["reward.kind=fid", setting]))
    check_deciding_metric(resolve(overrides=["reward.kind=fid", setting, "evaluation.metric=fd_b"]))
    check_deciding_metric(resolve(overrides=["reward.kind=adversarial", setting]))
    check_deciding_metric(resolve(overrides=["reward.kind=fid"]))


def test_hacking_is_told_by_the_judges_that_remain() -> None:
    # The reward is FD A itself and gets better, while the other judge gets worse; and the other way about
    def rows(fd_a: float, fd_b: float) -> list[dict[str, float]]:
        found = []
        for iteration in range(41):
            row = {ITERATION: iteration, REWARD_MEAN: 0.1 * iteration}
            if iteration % 10 == 0:
                row |= {EVAL + FD_A: 1 + fd_a * iteration, EVAL + FD_B: 1 + fd_b * iteration, EVAL + RECALL: 0.8}
            found.append(row)
        return found

    paid = rewarded("reward.kind=fid")
    worse_by_b = find_hacking(rows(-0.01, 0.05), 5, 0.1, paid)
    assert worse_by_b is not None
    assert [judge.metric for judge in worse_by_b.judges] == [FD_B]
    assert find_hacking(rows(0.05, -0.01), 5, 0.1, paid) is None
    assert find_hacking(rows(0.05, -0.01), 5, 0.1) is not None


@pytest.mark.parametrize("kind", ["clip_score", "aesthetic"])
def test_a_clip_that_pays_judges_no_more_however_it_is_stored(tmp_path: Path, kind: str) -> None:
    clip, other = write_tiny_clip(tmp_path / "clip"), write_tiny_clip(tmp_path / "other", 1)
    copy = shutil.copytree(clip, tmp_path / "copy")
    (copy / "vocab.json").unlink()  # images need no words
    judges = (f"evaluation.clip={copy}", f"evaluation.clip_score={clip}", "evaluation.judge=inception")
    pays = (f"reward.kind={kind}", f"reward.{kind}.encoder={clip}", "reward.aesthetic.head=head.safetensors")
    assert rewarded(*pays, *judges) == {CLIP_SCORE, CMMD_KEY}
    assert rewarded(*pays, f"evaluation.clip={other}") == set()
    assert rewarded(*judges) == set()
    composite = ("reward.kind=composite", f"reward.parts=[{{kind: adversarial}}, {{kind: {kind}, weight: 0.1}}]")
    assert rewarded(*pays[1:], *judges, *composite) == {CLIP_SCORE, CMMD_KEY}
    shutil.rmtree(copy)
    assert rewarded(*pays, f"evaluation.clip={copy}") == set()
    assert rewarded(*pays, f"evaluation.clip={clip}/../clip") == {CMMD_KEY}
