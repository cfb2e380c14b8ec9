from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from adanat_rl.generation.noise import (
    DeviceShardNoise,
    ImageNoise,
    ShardNoise,
    Stream,
    gumbel,
    philox4x32,
)
from adanat_rl.generation.noise import (
    shard_noise as noise_of_shard,
)


def philox(counter: list[int], key: list[int]) -> list[int]:
    words = philox4x32(
        tuple(torch.tensor([word]) for word in counter), tuple(torch.tensor([word]) for word in key)
    )  # fmt: skip
    return [int(word) for word in words]


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_known_answers_of_random123(counter: list[int], key: list[int], words: list[int]) -> None:
    assert philox(counter, key) == words


def philox_in_python(counter: list[int], key: list[int]) -> list[int]:
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1, -1, -(2**63)])
def test_image_noise_is_philox_of_index_step_and_stream_under_the_seed(seed: int) -> None:
    noise = ImageNoise(torch.tensor([seed]))
    uniform = noise.uniform(3, Stream.CONFIDENCE, (2, 3))[0].flatten().tolist()
    unsigned = seed % 2**64
    key = [unsigned & 0xFFFFFFFF, unsigned >> 32]
    words = [word for block in range(2) for word in philox_in_python([block, 3, 1, 0], key)]
    np.testing.assert_allclose(uniform, np.array(words[:6]) / 2**32, rtol=0, atol=2**-23)


def test_image_noise_is_uniform_and_independent_between_neighbours() -> None:
    uniform = ImageNoise(torch.arange(100)).uniform(0, Stream.TOKENS, (500,)).double().numpy()
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 0.01
    for other in (np.roll(uniform, 1, axis=0), np.roll(uniform, 1, axis=1)):
        assert abs(np.corrcoef(uniform.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(uniform.size)


# Found by search: draws whose 24 bits are all ones.
LARGEST = [(4696, Stream.TOKENS, (16, 128), (2, 120)), (974360, Stream.CONFIDENCE, (16,), (8,))]


@pytest.mark.parametrize(("seed", "stream", "shape", "index"), LARGEST)
def test_uniform_draws_stay_below_one(
    seed: int, stream: Stream, shape: tuple[int, ...], index: tuple[int, ...]
) -> None:
    assert ImageNoise(torch.tensor([seed])).uniform(0, stream, shape)[0][index].item() < 1


@pytest.mark.parametrize(("seed", "stream", "shape", "index"), LARGEST)
def test_exponential_draws_are_positive_and_gumbel_draws_finite(
    seed: int, stream: Stream, shape: tuple[int, ...], index: tuple[int, ...]
) -> None:
    noise = ImageNoise(torch.tensor([seed]))
    assert noise.exponential(0, stream, shape)[0][index].item() > 0
    assert math.isfinite(gumbel(noise, 0, stream, shape)[0][index].item())


def image_noise(batch_size: int) -> ImageNoise:
    return ImageNoise(torch.arange(batch_size) + 17)


def shard_noise(batch_size: int) -> ShardNoise:
    return ShardNoise((5, 1, 2), batch_size)


@pytest.mark.parametrize("make", [image_noise, shard_noise])
def test_exponential_and_gumbel_draws_follow_their_distributions(make) -> None:
    exponential = make(64).exponential(1, Stream.TOKENS, (16, 40))
    assert exponential.shape == (64, 16, 40)
    assert exponential.dtype == torch.float32
    assert (exponential > 0).all()
    assert stats.kstest(exponential.double().numpy().ravel(), "expon").pvalue > 0.01
    draws = gumbel(make(64), 2, Stream.CONFIDENCE, (16, 40)).double().numpy().ravel()
    assert stats.kstest(draws, "gumbel_r").pvalue > 0.01
    assert draws.mean() == pytest.approx(np.euler_gamma, abs=4 * math.pi / math.sqrt(6 * draws.size))
    assert draws.var() == pytest.approx(math.pi**2 / 6, rel=0.05)


def test_shard_noise_normals_and_choices_follow_their_distributions() -> None:
    noise = shard_noise(256)
    normal = noise.normal(0, Stream.ACTIONS, (50,))
    assert normal.shape == (256, 50)
    assert normal.dtype == torch.float32
    assert stats.kstest(normal.double().numpy().ravel(), "norm").pvalue > 0.01
    chosen = ShardNoise((5, 1, 2), 20_000).choice(Stream.CONTEXTS, np.array([7, 8, 9, 9]))
    counts = [np.count_nonzero(chosen == value) for value in (7, 8, 9)]
    assert stats.chisquare(counts, [5000, 5000, 10_000]).pvalue > 0.01


@pytest.mark.parametrize("make", [image_noise, shard_noise])
def test_steps_and_streams_have_their_own_numbers(make) -> None:
    noise = make(8)
    draws = [noise.exponential(step, stream, (30,)).numpy().ravel() for step in range(4) for stream in Stream]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.35  # equal streams would give 1


@pytest.mark.parametrize("make", [image_noise, shard_noise])
def test_a_draw_can_be_repeated_alone(make) -> None:
    noise = make(8)
    first = noise.exponential(2, Stream.TOKENS, (3, 5)).clone()
    noise.exponential(0, Stream.CONFIDENCE, (7,))
    assert torch.equal(noise.exponential(2, Stream.TOKENS, (3, 5)), first)
    assert torch.equal(make(8).exponential(2, Stream.TOKENS, (3, 5)), first)


def test_an_images_draws_do_not_depend_on_its_batch_mates() -> None:
    seeds = torch.tensor([3, 2**40 + 1, -7, 3])
    together = ImageNoise(seeds).exponential(1, Stream.TOKENS, (16, 33))
    for row, seed in enumerate(seeds):
        assert torch.equal(together[row], ImageNoise(seed[None]).exponential(1, Stream.TOKENS, (16, 33))[0])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("other", [2, 1 + 2**32, 2**32, -1])
def test_image_seeds_that_share_some_bits_differ(other: int) -> None:
    draws = ImageNoise(torch.tensor([1, other])).exponential(0, Stream.TOKENS, (50,))
    assert (draws[0] != draws[1]).all()


@pytest.mark.parametrize(
    "other", [(1, 2, 4), (1, 3, 2), (2, 2, 3), (1 + 2**32, 2, 3), (1, 2 + 2**32, 3), (1, 2, 3 + 2**32)]
)
def test_shard_noise_depends_on_every_bit_of_its_key(other: tuple[int, ...]) -> None:
    mine, theirs = ShardNoise((1, 2, 3), 4), ShardNoise(other, 4)
    for step in range(4):
        for stream in Stream:
            for at in range(4):
                equal = mine.exponential(step, stream, (20,)) == theirs.exponential(at, stream, (20,))
                assert equal.float().mean() < 0.1


def test_noise_of_a_shard_on_a_device_is_standard_normal_and_keyed() -> None:
    noise = DeviceShardNoise((7, 3, 2), 64, torch.device("cpu"))
    draws = noise.normal(1, Stream.ACTIONS, (500,)).double()
    assert draws.shape == (64, 500)
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(draws[:, :-1].flatten(), draws[:, 1:].flatten())[0, 1]) < 0.02
    again = DeviceShardNoise((7, 3, 2), 64, torch.device("cpu"))
    assert torch.equal(again.normal(1, Stream.ACTIONS, (500,)).double(), draws)
    for other in ((8, 3, 2), (7, 4, 2), (7, 3, 3)):
        assert not torch.equal(
            DeviceShardNoise(other, 64, torch.device("cpu")).normal(1, Stream.ACTIONS, (500,)), draws
        )
    assert not torch.equal(noise.normal(2, Stream.ACTIONS, (500,)), noise.normal(1, Stream.ACTIONS, (500,)))


def test_contexts_of_a_shard_are_the_same_on_every_device() -> None:
    options = np.arange(1000)
    on_device = DeviceShardNoise((7, 3, 2), 64, torch.device("cpu")).choice(Stream.CONTEXTS, options)
    assert np.array_equal(on_device, ShardNoise((7, 3, 2), 64).choice(Stream.CONTEXTS, options))
    assert isinstance(noise_of_shard((7, 3, 2), 4, torch.device("cpu")), ShardNoise)
    assert isinstance(noise_of_shard((7, 3, 2), 4, torch.device("meta")), DeviceShardNoise)
