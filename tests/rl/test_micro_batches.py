"""Micro-batches and features on disk change what the learner holds in memory and nothing of what it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from adanat_rl.rl.feature_file import FeatureFile
from adanat_rl.rl.rl_module import EFFECT_MASK, FEATURE_ROWS, FEATURES, RETURNS, STEP
from tests.rl.learners import STEPS, assert_equal_to_rounding, gradients, update

ON_DISK = "ppo.features=disk"


@pytest.mark.parametrize("size", [3, 7, 60, STEPS - 1])
def test_gradients_of_micro_batches_add_up_to_those_of_the_whole_batch(make_learner, shards, size: int) -> None:
    whole = gradients(make_learner(), shards)
    parts = gradients(make_learner(f"ppo.micro_batch_size={size}"), shards)
    assert len(whole) == 1
    assert_equal_to_rounding(parts, whole)
    assert not torch.equal(parts[0], whole[0]), "there were micro-batches"


def test_minibatches_are_split_too(make_learner, shards) -> None:
    whole = gradients(make_learner(), shards, minibatch=50)
    assert len(whole) == 3
    assert_equal_to_rounding(gradients(make_learner("ppo.micro_batch_size=16"), shards, minibatch=50), whole)
    on_disk = make_learner("ppo.micro_batch_size=16", ON_DISK)
    assert_equal_to_rounding(gradients(on_disk, shards, minibatch=50), whole)


def test_the_gradient_is_that_of_the_loss_written_down_again(make_learner, shards) -> None:
    learner = make_learner("ppo.micro_batch_size=11", ON_DISK)
    module = learner._unwrapped
    columns = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=shards, shared_data={}, metrics=learner.metrics
    )[DEFAULT_MODULE_ID]
    features = learner._feature_file.read(columns[FEATURE_ROWS])
    mean = module.actor(features, columns[STEP])
    density = torch.distributions.Normal(mean, module.action_std).log_prob(columns[Columns.ACTIONS])
    ratio = ((density * columns[EFFECT_MASK]).sum(1) - columns[Columns.ACTION_LOGP]).exp()
    value = module.critic(features, columns[STEP])[:, 0]
    advantage = columns[RETURNS] - value.detach()
    policy_loss = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    loss = policy_loss + 0.5 * ((value - columns[RETURNS]) ** 2).mean()
    expected = torch.autograd.grad(loss, list(module.parameters()))
    assert_equal_to_rounding(gradients(learner, shards), [torch.cat([gradient.flatten() for gradient in expected])])


def test_a_micro_batch_as_large_as_the_batch_is_the_same_bits(make_learner, shards) -> None:
    whole, same = make_learner(), make_learner(f"ppo.micro_batch_size={STEPS}")
    assert torch.equal(gradients(whole, shards)[0], gradients(same, shards)[0])


def test_logged_losses_do_not_depend_on_micro_batches(make_learner, shards) -> None:
    names = ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "gradient_norm", "explained_variance")
    expected = update(make_learner(), shards)
    found = update(make_learner("ppo.micro_batch_size=7", ON_DISK), shards)
    for name in names:
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-4), name
        assert float(found[name]) != 0


@pytest.mark.parametrize(("minibatch", "precision"), [(None, "float32"), (50, "float32"), (None, "bfloat16")])
def test_features_on_disk_give_the_same_bits_as_in_memory(
    make_learner, shards, minibatch: int | None, precision: str
) -> None:
    common = (f"generator.precision={precision}", "ppo.micro_batch_size=16")
    in_memory = make_learner("ppo.features=recompute", *common)
    on_disk = make_learner(ON_DISK, *common)
    before = {name: value.clone() for name, value in on_disk.training_state().items()}
    for learner in (in_memory, on_disk):
        for _ in range(2):  # the second update writes a new file
            update(learner, shards, num_epochs=2, minibatch=minibatch)
    expected, found = in_memory.training_state(), on_disk.training_state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not all(torch.equal(found[name], before[name]) for name in before), "something was learned"
    assert np.array_equal(on_disk.last_advantages(), in_memory.last_advantages())


def test_features_in_memory_take_no_more_than_the_generators_precision_needs(make_learner, shards) -> None:
    columns = {}
    for precision in ("float32", "bfloat16"):
        learner = make_learner("ppo.features=recompute", f"generator.precision={precision}")
        batch = learner._learner_connector(
            rl_module=learner.module, batch={}, episodes=shards, shared_data={}, metrics=learner.metrics
        )
        columns[precision] = batch[DEFAULT_MODULE_ID][FEATURES]
    assert {name: column.dtype for name, column in columns.items()} == {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
    }
    error = (columns["bfloat16"].float() - columns["float32"]).abs().mean() / columns["float32"].abs().mean()
    assert 1e-4 < error < 3e-2, "the same features, rounded"


def test_no_more_features_than_those_of_a_micro_batch_are_in_memory_at_once(
    make_learner, shards, digits_generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 7
    learner = make_learner(ON_DISK, f"ppo.micro_batch_size={size}")
    written, seen = [], []
    write, read = FeatureFile.write, FeatureFile.read
    losses = learner.compute_losses
    monkeypatch.setattr(
        FeatureFile, "write", lambda file, rows, values: (written.append(len(rows)), write(file, rows, values))[1]
    )
    monkeypatch.setattr(FeatureFile, "read", lambda file, rows: (seen.append(len(rows)), read(file, rows))[1])

    def look(*, fwd_out: Any, batch: Any) -> Any:
        seen.append(len(batch[DEFAULT_MODULE_ID][FEATURES]))
        return losses(fwd_out=fwd_out, batch=batch)

    monkeypatch.setattr(learner, "compute_losses", look)
    update(learner, shards, num_epochs=2)
    assert sum(written) == STEPS
    assert max(written) <= digits_generator.block_rows
    assert max(seen) == size
    assert sum(seen) == 5 * STEPS  # values once, two epochs, each seen as it is read and as it is learned from


def test_the_file_of_the_last_update_is_closed(make_learner, shards) -> None:
    learner = make_learner(ON_DISK, "ppo.micro_batch_size=16")
    update(learner, shards)
    first = learner._feature_file
    update(learner, shards)
    assert learner._feature_file is not first
    with pytest.raises(ValueError, match="closed"):
        first.read(torch.tensor([0]))
