from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import adanat_rl
from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import DecisionsConfig, GeneratorConfig, PolicyConfig
from adanat_rl.generation.pipeline import GenerationPipeline, load_pipeline
from adanat_rl.generation.policies.base import ActorPolicy, SchedulePolicy
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.policies.files import ExportedPolicy, hash_generator, save_policy
from tests.fakes import PointGenerator, ReadingActor


@pytest.fixture(scope="module")
def pipeline(digits_generator) -> GenerationPipeline:
    return GenerationPipeline(digits_generator, SchedulePolicy(digits_generator.decision_space.base_schedule))


def test_output_has_the_promised_shapes_and_types(pipeline: GenerationPipeline) -> None:
    output = pipeline(context=[3, 3, 7], seeds=[0, 1, 2], keep_steps=True)
    assert (output.images.shape, output.images.dtype) == ((3, 8, 8, 1), np.uint8)
    assert (output.decisions.shape, output.decisions.dtype) == ((3, 4, 4), np.float32)
    assert (output.tokens.shape, output.tokens.dtype) == ((3, 16), np.int64)
    assert (output.num_passes.shape, output.num_passes.dtype) == ((3,), np.int64)
    assert (output.steps.shape, output.steps.dtype) == ((3, 4, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(output.steps[:, -1], output.images)
    assert pipeline([3]).steps is None


def test_images_are_the_decoded_tokens_in_256_levels(pipeline: GenerationPipeline) -> None:
    output = pipeline([1, 2, 3, 4])
    codebook = pipeline.generator.tokenizer.codebook.numpy()
    for image, tokens in zip(output.images, output.tokens, strict=True):
        for position, token in enumerate(tokens):
            row, column = 2 * (position // 4), 2 * (position % 4)
            expected = np.rint(codebook[token].clip(0, 1) * np.float32(255)).reshape(2, 2)
            np.testing.assert_array_equal(image[row : row + 2, column : column + 2, 0], expected)


def test_masks_in_half_drawn_images_are_mid_grey(pipeline: GenerationPipeline) -> None:
    first = pipeline([1, 2, 3], keep_steps=True).steps[:, 0]
    assert ((first == 128).mean(axis=(1, 2, 3)) > 0.3).all()


def test_seeds_are_0_1_2_by_default(pipeline: GenerationPipeline) -> None:
    np.testing.assert_array_equal(pipeline([5, 5, 5]).tokens, pipeline([5, 5, 5], [0, 1, 2]).tokens)


def test_an_image_depends_on_context_and_seed(pipeline: GenerationPipeline) -> None:
    tokens = pipeline([5, 5, 5, 6], [0, 0, 1, 0]).tokens
    assert (tokens[0] == tokens[1]).all()
    assert (tokens[0] != tokens[2]).any()
    assert (tokens[0] != tokens[3]).any()


@pytest.mark.parametrize("seeds", [[-1], [2**63 - 1], np.array([7], np.uint8), np.array([2**64 - 1], np.uint64)])
def test_any_integer_is_a_seed(pipeline: GenerationPipeline, seeds) -> None:
    assert pipeline([1], seeds).tokens.max() < 128


def test_a_single_label_is_a_batch_of_one(pipeline: GenerationPipeline) -> None:
    assert pipeline(4, 9).tokens.tolist() == pipeline([4], [9]).tokens.tolist()


@pytest.mark.parametrize(
    ("context", "seeds", "message"),
    [
        ([], None, r"context: expected a list of labels 0 … 9"),
        ([10], None, r"context: 10 is no label; accepted: 0 … 9"),
        ([3, -1], None, r"context: -1 is no label"),
        ([1.0], None, r"context: expected a list of labels"),
        ([True], None, r"context: expected a list of labels"),
        (["3"], None, r"context: expected a list of labels"),
        ([[1, 2]], None, r"context: expected a list of labels"),
        (None, None, r"context: expected a list of labels"),
        ([1, 2], [0], r"seeds: expected 2 integers, one per context"),
        ([1], [0.5], r"seeds: expected 1 integers"),
        ([1], [2**70], r"seeds: expected 1 integers"),
        ([1], ["a"], r"seeds: expected 1 integers"),
    ],
)
def test_wrong_contexts_and_seeds_are_named(pipeline: GenerationPipeline, context, seeds, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pipeline(context, seeds)


def test_the_pipeline_draws_with_a_generator_of_another_kind() -> None:
    generator = PointGenerator()
    policy = ActorPolicy(ReadingActor(0.8, 0.0), generator.decision_space, 8)
    output = GenerationPipeline(generator, policy, batch_size=3)([0, 1, 2, 3, 0], keep_steps=True)
    assert output.tokens.shape == (5, 2)
    assert output.tokens.dtype == np.float32
    assert output.images.shape == (5, 1, 2, 1)
    assert output.steps.shape == (5, 3, 1, 2, 1)
    assert output.num_passes.tolist() == [3] * 5


def test_a_policy_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_pipeline(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no_such_asset"):
        load_pipeline("asset:no_such_asset")


def run_python(code: str, *arguments: str) -> str:
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


BLOCK = "import sys\nfor name in ('ray', 'mlflow'): sys.modules[name] = None\n"


def test_an_exported_policy_draws_where_ray_and_mlflow_are_missing(tmp_path: Path, digits_generator) -> None:
    config = GeneratorConfig()
    spec = PolicySpec.of(PolicyConfig(hidden_size=16), digits_generator)
    policy = ExportedPolicy(spec.build_actor(), spec, config, DecisionsConfig(), {}, hash_generator(config))
    save_policy(tmp_path / "policy", policy)
    code = (
        BLOCK
        + """
import json, torch
torch.set_num_threads(1)
import adanat_rl
output = adanat_rl.load_pipeline(sys.argv[1])(context=[3, 3, 7], seeds=[0, 1, 2])
print(json.dumps([output.images.tolist(), output.decisions.tolist(), output.tokens.tolist()]))
"""
    )
    images, decisions, tokens = json.loads(run_python(code, str(tmp_path / "policy")))
    here = load_pipeline(tmp_path / "policy")([3, 3, 7], [0, 1, 2])
    assert tokens == here.tokens.tolist()
    assert images == here.images.tolist()
    assert np.array_equal(np.array(decisions, np.float32), here.decisions)


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, adanat_rl\nprint([m for m in ('torch', 'ray', 'mlflow', 'pydantic') if m in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_the_core_imports_without_ray_and_mlflow() -> None:
    modules = (
        "adanat_rl.config.loading",
        "adanat_rl.generation.build",
        "adanat_rl.generation.pipeline",
        "adanat_rl.metrics.frechet",
        "adanat_rl.evaluation.comparison",
        "adanat_rl.evaluation.searches",
        "adanat_rl.rewards.adversarial",
        "adanat_rl.rewards.worker",
        "adanat_rl.rewards.build",
        "adanat_rl.rl.losses",
        "adanat_rl.envs",
    )
    code = BLOCK + "import importlib\nfor name in sys.argv[1:]: print(importlib.import_module(name).__name__)"
    assert run_python(code, *modules).split() == list(modules)


def test_the_environments_import_nothing_of_the_product() -> None:
    """But the package that they lie in, which makes them known to Gymnasium by name."""
    code = "import sys, adanat_rl.envs\nprint(*(name for name in sys.modules if name.startswith('adanat_rl')))"
    names = {name for name in run_python(code).split() if not name.startswith("adanat_rl.envs")}
    assert names == {"adanat_rl", "adanat_rl.registration", "adanat_rl.version", "adanat_rl.forking"}


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    assert adanat_rl.load_pipeline is load_pipeline
    with pytest.raises(AttributeError, match="load_pipelin"):
        _ = adanat_rl.load_pipelin
