from __future__ import annotations

import pytest
import torch

from adanat_rl.generation.blocks import run_in_blocks


@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 8, 13])
def test_every_call_has_the_same_number_of_rows_and_results_keep_their_order(batch_size: int) -> None:
    calls = []

    def double_and_sum(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(x))
        return 2 * x, x.sum(dim=1) + y

    x, y = torch.arange(3.0 * batch_size).view(batch_size, 3), torch.arange(batch_size) * 100
    doubled, summed = run_in_blocks(double_and_sum, 4, x, y)
    assert torch.equal(doubled, 2 * x)
    assert torch.equal(summed, x.sum(dim=1) + y)
    assert calls == [4] * -(-batch_size // 4)


def test_blocks_are_filled_up_with_valid_rows() -> None:
    seen = []
    run_in_blocks(lambda x: (seen.append(x.clone()) or x,), 4, torch.tensor([[5], [6], [7], [8], [9]]))
    assert seen[1].tolist() == [[9], [9], [9], [9]]
