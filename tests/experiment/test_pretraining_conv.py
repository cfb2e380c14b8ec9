from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import assets_folder
from adanat_rl.data.digits import load_digits_dataset
from adanat_rl.data.mnist import load_mnist_dataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.panel.small import PANEL_FILES
from adanat_rl.experiment import pretraining_job
from adanat_rl.generation.build import build_generator
from adanat_rl.generation.masked.conv_tokenizer import ConvVQTokenizer
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import SchedulePolicy, draw
from tests import tiny_pretraining


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrained on some of the images: all would take half a minute."""
    whole = load_mnist_dataset()
    some = replace(whole, images=whole.images[:600], labels=whole.labels[:600])
    folder = tmp_path_factory.mktemp("pretraining")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining_job, "load_dataset", lambda config: some)
        pretraining_job.pretrain(resolve("mnist", overrides=tiny_pretraining.MNIST), folder, quiet=True)
    return folder


def test_it_leaves_weights_in_half_precision_and_a_card_with_source_and_licence(folder: Path) -> None:
    for name in ("tokenizer", "nat", "judge_a", "judge_b", "classifier_c"):
        with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    card = (folder / "MODEL_CARD.md").read_text()
    for words in ("# Model card: mnist", "adanat-rl pretrain --preset mnist seed=0", "CC BY-SA 3.0", "7×7 tokens"):
        assert words in card


def test_the_card_says_who_has_seen_which_images(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    some = load_mnist_dataset()
    some = replace(some, images=some.images[:600], labels=some.labels[:600])
    parts = [len(split_of(some, split)) for split in Split]
    assert sum(parts) == 600
    assert pretraining_job.describe_data("mnist", *parts) in card
    for line in pretraining_job.describe_classifiers(dict.fromkeys("abc", 0.5)):
        assert re.search(re.escape(line).replace(r"50\.0%", r"\d+\.\d%"), card)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_shipped_cards_say_of_the_panel_what_pretraining_writes(name: str) -> None:
    card = (assets_folder() / name / "MODEL_CARD.md").read_text()
    count = len(split_of({"digits": load_digits_dataset, "mnist": load_mnist_dataset}[name](), Split.TEST))
    line = pretraining_job.describe_panel(dict.fromkeys(PANEL_FILES.values(), 0.5), count)
    assert re.search(re.escape(line).replace(r"50\.0%", r"[89]\d\.\d%"), card)


def test_a_generator_is_made_of_them(folder: Path) -> None:
    weights = [f"generator.{name}={folder / name}.safetensors" for name in ("nat", "tokenizer")]
    generator = build_generator(resolve("mnist", overrides=weights))
    assert isinstance(generator.tokenizer, ConvVQTokenizer)
    assert {parameter.dtype for parameter in generator.nat.parameters()} == {torch.float32}
    drawing = draw(
        generator,
        SchedulePolicy(generator.decision_space.base_schedule),
        torch.arange(4),
        ImageNoise(torch.arange(4)),
    )
    assert generator.decode(drawing.sample).shape == (4, 1, 28, 28)
