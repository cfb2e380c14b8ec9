"""In which order images come, and which are mirrored: pure functions of the seed and the position.

A position counts the images that all workers together have taken since the start; item p belongs to epoch p // N.
Batches run on over the end of an epoch, so that none is short and none is dropped.
"""

from __future__ import annotations

import numpy as np

_ORDER, _FLIPS = 1000, 1001  # first words of the keys; `generation.seeding`, which this layer may not import, is below


def epoch_order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation `[N]` int64."""
    return _generator(_ORDER, seed, epoch).permutation(num_items)


def epoch_flips(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """Coins `[N]` bool with p = 0.5 (paper), by place in the epoch's order."""
    return _generator(_FLIPS, seed, epoch).random(num_items) < 0.5


class EndlessOrder:
    """Items and coins from any position on; keeps the epochs that the last call needed.

    Args:
        num_items: N. seed: of orders and coins.
    """

    def __init__(self, num_items: int, seed: int) -> None:
        if num_items < 1:
            raise ValueError("an order needs at least one item")
        self.num_items = num_items
        self.seed = seed
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def take(self, position: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Items `[count]` int64 at positions position … position + count - 1, and their coins `[count]` bool."""
        epochs, places = np.divmod(np.arange(position, position + count), self.num_items)
        wanted = range(int(epochs[0]), int(epochs[-1]) + 1) if count else range(0)
        self._epochs = {epoch: self._epochs.get(epoch) or self._epoch(epoch) for epoch in wanted}
        items, flips = np.empty(count, np.int64), np.empty(count, np.bool_)
        for epoch in wanted:
            here = epochs == epoch
            order, coins = self._epochs[epoch]
            items[here], flips[here] = order[places[here]], coins[places[here]]
        return items, flips

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        return epoch_order(self.num_items, self.seed, epoch), epoch_flips(self.num_items, self.seed, epoch)


def _generator(purpose: int, *key: int) -> np.random.Generator:
    """Philox keyed by purpose and integers, as `generation.seeding.philox` does it."""
    words = np.random.SeedSequence((purpose, len(key), *key))
    return np.random.Generator(np.random.Philox(key=words.generate_state(2, np.uint64)))
