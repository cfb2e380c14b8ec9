"""Features on disk come back as they were written, whatever the order, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adanat_rl.rl.connectors import with_features
from adanat_rl.rl.feature_file import FeatureFile
from adanat_rl.rl.rl_module import FEATURE_ROWS, FEATURES, STEP

SHAPE = (3, 5)


def rows_of(count: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_come_back_by_number_in_the_precision_of_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    file = FeatureFile(SHAPE, dtype, tmp_path)
    values = rows_of(6)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    file.write(order[:4], values[order[:4]])
    file.write(order[4:], values[order[4:]])
    wanted = torch.tensor([5, 5, 0, 3])
    found = file.read(wanted)
    assert found.dtype == torch.float32
    assert torch.equal(found, values[wanted].to(dtype).float())
    assert dtype == torch.float32 or not torch.equal(found, values[wanted])
    file.close()


def test_a_row_that_is_written_again_has_its_last_value_and_its_neighbours_theirs() -> None:
    file = FeatureFile(SHAPE, torch.float32)
    values, other = rows_of(3), rows_of(1)
    file.write(torch.arange(3), values)
    file.write(torch.tensor([1]), other)
    assert torch.equal(file.read(torch.arange(3)), torch.stack([values[0], other[0], values[2]]))
    file.close()


def test_values_that_are_no_whole_block_of_memory_are_written_as_they_look() -> None:
    file = FeatureFile(SHAPE, torch.float32)
    values = rows_of(5).requires_grad_()
    turned = torch.randn(*reversed(SHAPE), 5).permute(2, 1, 0)
    file.write(torch.arange(0, 5), values)
    file.write(torch.arange(5, 10), turned)
    assert torch.equal(file.read(torch.arange(10)), torch.cat([values.detach(), turned]))
    file.close()


def test_a_row_behind_the_end_is_an_error_that_names_it() -> None:
    file = FeatureFile(SHAPE, torch.float32)
    file.write(torch.arange(2), rows_of(2))
    with pytest.raises(OSError, match="row 2 of the feature file was never written"):
        file.read(torch.tensor([0, 2]))
    file.close()


def test_the_file_has_no_name_and_gives_its_space_back(tmp_path: Path) -> None:
    file = FeatureFile(SHAPE, torch.float32, tmp_path)
    file.write(torch.arange(4), rows_of(4))
    assert list(tmp_path.iterdir()) == []
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(torch.tensor([0]))


def test_a_piece_of_a_batch_gets_the_features_of_its_rows_and_keeps_its_other_columns() -> None:
    file = FeatureFile(SHAPE, torch.float32)
    values, steps = rows_of(4), torch.arange(4)
    file.write(steps, values)
    part = {STEP: steps[2:], FEATURE_ROWS: torch.tensor([3, 1])}
    whole = with_features(part, file, torch.device("cpu"))
    assert whole.keys() == {STEP, FEATURES}
    assert torch.equal(whole[FEATURES], values[[3, 1]])
    assert torch.equal(whole[STEP], part[STEP])
    in_memory = {STEP: steps, FEATURES: values}
    assert with_features(in_memory, None, torch.device("cpu")) is in_memory
    rounded = {STEP: steps, FEATURES: values.bfloat16()}
    assert torch.equal(with_features(rounded, None, torch.device("cpu"))[FEATURES], values.bfloat16().float())
    file.close()
