"""Captions of the evaluation: drawn like those of a table of their own, and never met by training."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.generation.build import evaluated_contexts, load_further_captions, with_evaluated_captions
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.contexts import CaptionContexts, ClassLabels
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import SchedulePolicy, draw
from adanat_rl.generation.seeding import seeded
from adanat_rl.generation.text.further import FurtherCaptions
from adanat_rl.generation.text.table import CaptionTable, open_caption_table
from adanat_rl.generation.text.table_writer import write_caption_table
from tests.generation.test_caption_table import HashEncoder

TRAINING, VALIDATION = ["a", "b", "c"], ["a dog", "b", "two\nlines", "e"]


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    write_caption_table(tmp_path / "training", TRAINING, HashEncoder(), batch_size=2)
    write_caption_table(tmp_path / "validation", VALIDATION, HashEncoder(), batch_size=3)
    folders = [f"generator.captions={tmp_path / 'training'}", f"evaluation.captions={tmp_path / 'validation'}"]
    return resolve("cc3m", overrides=folders)


def table(config: ExperimentConfig) -> FurtherCaptions:
    found = load_further_captions(config)
    assert found is not None
    return found


def text_generator(captions: CaptionTable) -> MaskedTokenGenerator:
    with seeded(0):
        nat = UViTNAT(vocab_size=20, grid_size=3, width=24, depth=4, num_heads=3, text_width=4)
        tokenizer = VQTokenizer(20, 12, code_width=8, base_width=32, width_multipliers=(1, 1, 1))
    space = DecisionSpace(masked_token_decisions(), hand_made_schedule(3, guidance_scale=2))
    return MaskedTokenGenerator(nat, tokenizer, space, 2, CaptionContexts(captions, torch.device("cpu")))


def test_further_rows_stand_behind_the_null_row(config: ExperimentConfig) -> None:
    both = pickle.loads(pickle.dumps(table(config)))
    first, second = (
        open_caption_table(Path(str(path))) for path in (config.generator.captions, config.evaluation.captions)
    )
    assert (both.num_contexts, both.null_index) == (3, 3)
    assert both.further_rows.tolist() == [4, 5, 6, 7]
    assert list(both.all_captions) == [*TRAINING, "", *VALIDATION]
    index = torch.tensor([6, 0, 3, 4, 6, 2])
    for read in ("hidden", "pooled"):
        found, own, others = (getattr(captions, read) for captions in (both, first, second))
        expected = [
            others(torch.tensor([2])),
            own(torch.tensor([0, 3])),
            others(torch.tensor([0, 2])),
            own(torch.tensor([2])),
        ]
        assert torch.equal(found(index), torch.cat(expected))
        assert torch.equal(found(torch.tensor([1, 2])), own(torch.tensor([1, 2])))
    with pytest.raises(IndexError, match="row -1"):
        both.hidden(torch.tensor([-1]))
    with pytest.raises(IndexError, match="row 5 of a caption table of 4"):
        both.hidden(torch.tensor([9]))


@torch.no_grad()
def test_evaluations_draw_what_a_table_of_their_own_would_give(config: ExperimentConfig) -> None:
    generator = text_generator(table(config).table)
    context = evaluated_contexts(config, torch.tensor([0, 1]))
    assert context.tolist() == [4, 5, 6, 7]
    evaluated = with_evaluated_captions(generator, config)
    assert evaluated.context_spec == generator.context_spec, "nobody else is offered the further captions"
    expected = text_generator(table(config).further)
    noise = ImageNoise(torch.arange(4))
    policy = SchedulePolicy(generator.decision_space.base_schedule)
    assert torch.equal(
        draw(evaluated, policy, context, noise).sample, draw(expected, policy, context - 4, noise).sample
    )
    training = torch.tensor([2, 0])
    samples = [draw(one, policy, training, ImageNoise(training)).sample for one in (evaluated, generator)]
    assert torch.equal(*samples)


def test_without_the_setting_nothing_changes(config: ExperimentConfig) -> None:
    plain = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"captions": None})})
    generator, labels = text_generator(table(config).table), torch.tensor([2, 0, 1])
    assert with_evaluated_captions(generator, plain) is generator
    assert evaluated_contexts(plain, labels) is labels


def test_captions_of_another_encoder_or_for_class_labels_are_refused(config: ExperimentConfig, tmp_path: Path) -> None:
    write_caption_table(tmp_path / "other", VALIDATION, HashEncoder("hash-2"), batch_size=3)
    changed = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"captions": str(tmp_path / "other")})}
    )
    with pytest.raises(UserError, match=r"evaluation\.captions: .*other was encoded by hash.*encode both alike"):
        load_further_captions(changed)
    generator = text_generator(table(config).table)
    of_classes = generator.with_contexts(ClassLabels(3))
    with pytest.raises(UserError, match=r"evaluation\.captions: .* draws class labels"):
        with_evaluated_captions(of_classes, config)
