"""The order of images is a function of seed and position alone."""

from __future__ import annotations

import numpy as np

from adanat_rl.data.order import EndlessOrder, epoch_flips, epoch_order


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    orders = {key: epoch_order(50, *key) for key in ((0, 0), (0, 1), (1, 0))}
    for order in orders.values():
        assert sorted(order) == list(range(50))
    assert len({tuple(order) for order in orders.values()}) == 3
    assert np.array_equal(epoch_order(50, 0, 1), orders[0, 1])


def test_half_of_the_coins_are_heads_and_they_do_not_follow_the_order() -> None:
    coins = epoch_flips(20_000, 3, 0)
    assert abs(coins.mean() - 0.5) < 4 * 0.5 / np.sqrt(20_000)
    assert abs(np.corrcoef(coins, epoch_order(20_000, 3, 0))[0, 1]) < 4 / np.sqrt(20_000)


def test_an_order_goes_on_over_the_ends_of_epochs_from_any_position() -> None:
    whole = np.concatenate([epoch_order(7, 5, epoch) for epoch in range(5)])
    coins = np.concatenate([epoch_flips(7, 5, epoch) for epoch in range(5)])
    order = EndlessOrder(7, 5)
    for position, count in ((0, 7), (5, 4), (3, 20), (14, 0), (30, 5), (2, 3)):
        items, flips = order.take(position, count)
        assert np.array_equal(items, whole[position : position + count])
        assert np.array_equal(flips, coins[position : position + count])
