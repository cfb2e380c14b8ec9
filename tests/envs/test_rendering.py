from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.envs import GenerationEnv
from adanat_rl.envs.rendering import rgb_frames
from tests.envs.conftest import parts


def test_frames_show_the_image_as_it_stands(make_env, generator) -> None:
    env = make_env(render_mode="rgb_array", frame_size=64)
    observation, _ = env.reset(seed=1)
    channels, height, width = generator.image_shape
    factor = 64 // height
    for step in range(generator.horizon + 1):
        frame = env.render()
        assert frame.shape == (64, width * factor, 3)
        assert frame.dtype == np.uint8
        sample = torch.from_numpy(observation[generator.sample_spec.name])
        image = generator.decode(sample[None])[0].numpy()
        expected = np.rint(image.clip(0, 1) * 255).astype(np.uint8).repeat(factor, 1).repeat(factor, 2)
        assert np.array_equal(frame, np.moveaxis(expected.repeat(3 // channels, 0), 0, -1)), step
        if step < generator.horizon:
            observation = env.step(np.zeros(env.action_space.shape, np.float32))[0]


def test_a_half_drawn_digit_is_grey_where_masked(digits_generator) -> None:
    env = GenerationEnv(**parts(digits_generator), render_mode="rgb_array")
    env.reset(seed=0)
    assert (env.render() == 128).all()
    assert env.render().shape == (128, 128, 3)


def test_without_a_render_mode_nothing_is_rendered(make_env, make_envs) -> None:
    for env in (make_env(), make_envs(2)):
        env.reset(seed=0)
        assert env.render() is None


def test_a_vector_environment_renders_one_frame_per_image(make_envs) -> None:
    envs = make_envs(3, render_mode="rgb_array")
    envs.reset(seed=0)
    frames = envs.render()
    assert isinstance(frames, tuple)
    assert len(frames) == 3


@pytest.mark.parametrize(("size", "height"), [(1, 8), (8, 8), (9, 16), (100, 104)])
def test_frames_are_enlarged_by_whole_factors_to_the_least_size(size: int, height: int) -> None:
    assert rgb_frames(np.zeros((2, 1, 8, 8), np.float32), size).shape == (2, height, height, 3)


def test_colour_stays_colour_and_values_are_rounded_and_clipped() -> None:
    image = np.array([[-0.2, 0.5], [0.999, 1.3]], np.float32)
    frame = rgb_frames(np.stack([image, image.T, np.zeros_like(image)])[None], 1)[0]
    assert frame[..., 0].tolist() == [[0, 128], [255, 255]]
    assert frame[..., 1].tolist() == [[0, 255], [128, 255]]
    assert (frame[..., 2] == 0).all()
