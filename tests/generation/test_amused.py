from __future__ import annotations

import copy
import json
import pickle
import shutil
import string
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AmusedImg2ImgPipeline, AmusedPipeline, AmusedScheduler, UVit2DModel, VQModel
from diffusers.schedulers.scheduling_amused import gumbel_noise
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from adanat_rl.config.errors import UserError
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.amused import AmusedContexts, AmusedNAT, AmusedTokenizer, amused_schedule, join_text
from adanat_rl.generation.masked.amused_folder import (
    AmusedTextEncoder,
    load_amused,
    load_amused_tokenizer,
    missing_files,
)
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.masked.schedules import masked_token_decisions
from adanat_rl.generation.masked.step_rule import guided_logits, remask
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import SchedulePolicy, draw
from adanat_rl.generation.text.cache import EmbeddingCache
from adanat_rl.generation.text.encoder import ClipTextEncoder

CODES, MASK_ID, WIDTH, TEXT_WIDTH, TEXT_LENGTH = 48, 63, 24, 16, 10
PROMPTS = ["a cat", "two cats in a row of nine", "b"]


def make_pipeline(grid_size: int) -> AmusedPipeline:
    """The pipeline with tiny networks, every parameter at random; the 32×32 grid with the coarser trunk of the 512
    model.
    """
    letters = list(string.ascii_lowercase)
    words = [*letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=[("c", "a"), ("ca", "t</w>")],
        model_max_length=TEXT_LENGTH,
    )
    text_config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        projection_dim=TEXT_WIDTH,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    transformer = UVit2DModel(
        hidden_size=32,
        cond_embed_dim=TEXT_WIDTH,
        micro_cond_encode_dim=4,
        micro_cond_embed_dim=20,
        encoder_hidden_size=TEXT_WIDTH,
        vocab_size=64,
        codebook_size=CODES,
        in_channels=WIDTH,
        block_out_channels=16,
        num_res_blocks=1,
        downsample=grid_size == 32,
        upsample=grid_size == 32,
        block_num_heads=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        sample_size=grid_size,
    )
    vqvae = VQModel(
        block_out_channels=(8, 8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        latent_channels=8,
        num_vq_embeddings=CODES,
        norm_num_groups=4,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
        force_upcast=True,
    )
    text_encoder = CLIPTextModelWithProjection(text_config)
    generator = torch.Generator().manual_seed(grid_size)
    for network in (transformer, vqvae, text_encoder):
        network.eval()
        for parameter in network.parameters():
            scale = parameter.shape[1] ** -0.5 if parameter.ndim > 1 else 0.5
            offset = 1.0 if parameter.ndim == 1 else 0.0
            parameter.data = offset + scale * torch.randn(parameter.shape, generator=generator)
    pipeline = AmusedPipeline(
        vqvae=vqvae,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        transformer=transformer,
        scheduler=AmusedScheduler(mask_token_id=MASK_ID),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", params=[16, 32], ids=["256", "512"])
def pipeline(request: pytest.FixtureRequest) -> AmusedPipeline:
    return make_pipeline(request.param)


@pytest.fixture(scope="module")
def pipeline_256() -> AmusedPipeline:
    return make_pipeline(16)


@pytest.fixture(scope="module")
def encoder(pipeline: AmusedPipeline, tmp_path_factory: pytest.TempPathFactory) -> AmusedTextEncoder:
    path = tmp_path_factory.mktemp("amused")
    pipeline.save_pretrained(path)
    return AmusedTextEncoder(path)


@pytest.fixture(scope="module")
def folder(pipeline_256: AmusedPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("amused")
    pipeline_256.save_pretrained(path)
    return path


def make_nat(pipeline: AmusedPipeline, **settings: Any) -> AmusedNAT:
    size = pipeline.transformer.config.sample_size
    return AmusedNAT(copy.deepcopy(pipeline.transformer), MASK_ID, 16 * size, **settings).eval()


def ours(ids: Tensor) -> Tensor:
    """The pipeline's token ids `[B, h, w]` with our mask."""
    return ids.flatten(1).masked_fill(ids.flatten(1) == MASK_ID, CODES)


def encode(encoder: AmusedTextEncoder, prompts: list[str]) -> Tensor:
    embedding = encoder(prompts)
    return join_text(embedding.hidden, embedding.pooled)


@dataclass
class Recording:
    """What went into and out of the pipeline's transformer, call by call, and the tokens after the last step."""

    ids: list[Tensor]
    logits: list[Tensor]
    micro_conditions: Tensor
    final: Tensor
    images: np.ndarray


def record(pipeline: AmusedPipeline, prompts: list[str], **settings: Any) -> Recording:
    ids, logits, micro = [], [], []

    def keep(module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Tensor], output: Tensor) -> None:
        ids.append(args[0])
        logits.append(output)
        micro.append(kwargs["micro_conds"])

    handle = pipeline.transformer.register_forward_hook(keep, with_kwargs=True)
    decoded: list[Tensor] = []
    decode = pipeline.vqvae.decode

    def keep_tokens(tokens: Tensor, **kwargs: Any) -> Any:
        decoded.append(tokens)
        return decode(tokens, **kwargs)

    pipeline.vqvae.decode = keep_tokens
    try:
        images = pipeline(prompts, output_type="np", generator=torch.Generator().manual_seed(1), **settings).images
    finally:
        handle.remove()
        del pipeline.vqvae.decode
    return Recording(ids, logits, micro[0], decoded[0], images)


@pytest.fixture(scope="module")
def recording(pipeline: AmusedPipeline) -> Recording:
    return record(pipeline, PROMPTS[:2], num_inference_steps=3)


def test_logits_of_a_guided_pass_are_those_of_the_pipeline(pipeline, encoder, recording) -> None:
    nat, context = make_nat(pipeline), encode(encoder, ["", "", *PROMPTS[:2]])
    for step in range(3):
        assert (recording.ids[step] == MASK_ID).any()
        with torch.no_grad():
            logits, _ = nat(ours(recording.ids[step]), context)
        expected = recording.logits[step].flatten(2).transpose(1, 2)
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        unconditional, conditional = logits.chunk(2)
        assert (unconditional - conditional).abs().mean() > 0.01  # the text matters
        guided = guided_logits(conditional, unconditional, torch.full((2,), 9.0))
        theirs = expected[:2] + 10.0 * (expected[2:] - expected[:2])
        torch.testing.assert_close(guided, theirs, rtol=1e-4, atol=1e-4)


def test_micro_conditions_are_those_of_the_pipeline_and_matter(pipeline, encoder, recording) -> None:
    size = 16 * pipeline.transformer.config.sample_size
    assert recording.micro_conditions.tolist() == [[size, size, 0, 0, 6]] * 4
    assert make_nat(pipeline).micro_conditions.tolist() == [size, size, 0, 0, 6]
    other = {"micro_conditioning_aesthetic_score": 5, "micro_conditioning_crop_coord": (16, 3)}
    again = record(pipeline, PROMPTS[:1], num_inference_steps=1, guidance_scale=1.0, **other)
    nat = make_nat(pipeline, aesthetic_score=5, crop=(16, 3))
    assert torch.equal(nat.micro_conditions, again.micro_conditions[0])
    context = encode(encoder, PROMPTS[:1])
    with torch.no_grad():
        logits, _ = nat(ours(again.ids[0]), context)
        plain, _ = make_nat(pipeline)(ours(again.ids[0]), context)
    torch.testing.assert_close(logits, again.logits[0].flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)
    assert (logits - plain).abs().max() > 1e-3


def test_features_are_the_input_of_the_last_convolution_and_the_head_continues_from_them(pipeline, encoder) -> None:
    seen: list[Tensor] = []
    handle = pipeline.transformer.mlm_layer.conv2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    record(pipeline, PROMPTS[:2], num_inference_steps=1)
    handle.remove()
    nat = make_nat(pipeline)
    context = encode(encoder, ["", "", *PROMPTS[:2]])
    tokens = torch.full((4, nat.grid_size**2), CODES)
    with torch.no_grad():
        logits, features = nat(tokens, context)
        alone = nat.head(features)
    assert features.shape == (4, nat.grid_size**2, nat.width)
    assert nat.width == WIDTH
    torch.testing.assert_close(features, seen[0].flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)
    assert torch.equal(alone, logits)


def test_decoded_images_are_those_of_the_pipeline(pipeline, recording) -> None:
    tokenizer = AmusedTokenizer(pipeline.vqvae, pipeline.transformer.config.sample_size)
    assert (tokenizer.vocab_size, tokenizer.image_channels) == (CODES, 3)
    with torch.no_grad():
        images = tokenizer.decode(ours(recording.final))
    assert images.shape == (2, 3, tokenizer.image_size, tokenizer.image_size)
    expected = torch.from_numpy(recording.images).permute(0, 3, 1, 2)
    assert expected.std() > 0.01
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_encoded_tokens_are_those_of_the_image_to_image_pipeline(pipeline) -> None:
    grid_size = pipeline.transformer.config.sample_size
    tokenizer = AmusedTokenizer(pipeline.vqvae, grid_size)
    images = torch.rand(2, 3, 16 * grid_size, 16 * grid_size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens = tokenizer.encode(images)
    assert tokens.dtype == torch.int64
    assert tokens.shape == (2, grid_size**2)
    assert len(tokens.unique()) > 1
    scheduler = AmusedScheduler(mask_token_id=MASK_ID)
    other = AmusedImg2ImgPipeline(**{**pipeline.components, "scheduler": scheduler})
    other.set_progress_bar_config(disable=True)
    seen: list[Tensor] = []
    scheduler.add_noise = lambda sample, *args, **kwargs: seen.append(sample) or sample  # type: ignore[method-assign]
    other(PROMPTS[:2], images, num_inference_steps=2, strength=0.5, output_type="latent")
    assert torch.equal(tokens, seen[0].flatten(1))


def test_masks_are_shown_grey_and_no_more_than_masks(pipeline_256) -> None:
    tokenizer = AmusedTokenizer(pipeline_256.vqvae, 16)
    tokens = torch.randint(0, CODES, (1, 256), generator=torch.Generator().manual_seed(3))
    tokens[0, 18] = CODES  # row 1, column 2
    with torch.no_grad():
        image, blank = tokenizer.decode(tokens)[0], tokenizer.decode(torch.full((1, 256), CODES))[0]
        grey_tokens = tokenizer.encode(torch.full((1, 3, 256, 256), 0.5))
        neighbours = tokenizer.decode(torch.where(tokens == CODES, grey_tokens, tokens))[0]
    grey = torch.zeros(256, 256, dtype=torch.bool)
    grey[16:32, 32:48] = True
    assert (image[:, grey] == 0.5).all()
    assert torch.equal(image[:, ~grey], neighbours[:, ~grey])
    assert (neighbours[:, grey] != 0.5).any()
    assert (blank == 0.5).all()


def make_generator(pipeline: AmusedPipeline, encoder: AmusedTextEncoder, schedule: np.ndarray) -> MaskedTokenGenerator:
    grid_size = pipeline.transformer.config.sample_size
    contexts = AmusedContexts(EmbeddingCache(None, encoder).table(PROMPTS), torch.device("cpu"))
    space = DecisionSpace(masked_token_decisions(), schedule)
    return MaskedTokenGenerator(make_nat(pipeline), AmusedTokenizer(pipeline.vqvae, grid_size), space, 2, contexts)


def test_the_sampler_draws_whole_images_and_masks_as_many_tokens_as_the_pipeline(pipeline, encoder) -> None:
    schedule = amused_schedule(4)
    generator = make_generator(pipeline, encoder, schedule)
    assert (generator.context_spec.num_contexts, generator.context_spec.kind) == (3, "text")
    context = torch.tensor([0, 1, 2])
    policy = SchedulePolicy(torch.from_numpy(schedule.astype(np.float32)))
    drawing = draw(generator, policy, context, ImageNoise(context + 7), keep_steps=True)
    steps = torch.as_tensor(drawing.steps)
    theirs = record(pipeline, PROMPTS, num_inference_steps=4)
    for t in range(3):
        assert (steps[:, t] == CODES).sum(dim=1).tolist() == (theirs.ids[t + 1][:3] == MASK_ID).flatten(1).sum(
            dim=1
        ).tolist()
    assert ((steps[:, -1] >= 0) & (steps[:, -1] < CODES)).all()
    images = generator.decode(torch.as_tensor(drawing.sample))
    assert images.shape == (3, *generator.image_shape)
    again = draw(generator, policy, context[[2]], ImageNoise(context[[2]] + 7))
    assert torch.equal(torch.as_tensor(again.sample[0]), torch.as_tensor(drawing.sample[2]))


def test_the_null_context_is_the_empty_prompt(pipeline_256, folder: Path) -> None:
    encoder = AmusedTextEncoder(folder)
    generator = make_generator(pipeline_256, encoder, amused_schedule(2))
    null = generator.contexts(torch.tensor([3]))
    torch.testing.assert_close(null, encode(encoder, [""]), rtol=1e-3, atol=1e-3)  # tables are in half precision
    state = generator.reset(torch.tensor([0]), ImageNoise(torch.tensor([0])))
    with torch.no_grad():
        logits, _ = generator.nat(torch.full((1, 256), CODES), null)
    torch.testing.assert_close(state.unconditional, logits, rtol=1e-5, atol=1e-5)


def scheduler_step(scheduler: AmusedScheduler, logits: Tensor, ids: Tensor, t: int, seed: int) -> tuple[Tensor, ...]:
    """Their step on our layout, with the drawn tokens and the Gumbel noise that it used."""
    generator = torch.Generator().manual_seed(seed)
    timestep = scheduler.timesteps[t]
    output = scheduler.step(logits, timestep, ids, generator=generator)
    replay = torch.Generator().manual_seed(seed)
    torch.multinomial(logits.softmax(dim=-1).flatten(0, 1), 1, generator=replay)
    noise = gumbel_noise(torch.zeros(ids.shape), generator=replay)
    return output.prev_sample, output.pred_original_sample, noise


@pytest.mark.parametrize(("length", "horizon"), [(256, 12), (256, 8), (256, 35), (1024, 12), (1024, 71)])
def test_our_step_rule_under_the_amused_schedule_is_that_of_its_scheduler(length: int, horizon: int) -> None:
    scheduler = AmusedScheduler(mask_token_id=MASK_ID)
    scheduler.set_timesteps(horizon, (2, 0))
    schedule = torch.from_numpy(amused_schedule(horizon).astype(np.float32))
    ids = torch.full((3, length), MASK_ID)
    for t in range(horizon):
        logits = 3 * torch.randn(3, length, CODES, generator=torch.Generator().manual_seed(100 + t))
        following, drawn, noise = scheduler_step(scheduler, logits, ids, t, seed=t)
        if t == horizon - 1:
            assert (following != MASK_ID).all()
            break
        ratio, temperature = schedule[t, 0].expand(3), schedule[t, 1].expand(3)
        tokens = ids.masked_fill(ids == MASK_ID, CODES)
        result = remask(logits, tokens, drawn, CODES, ratio, temperature, noise)
        assert torch.equal(result.masked_fill(result == CODES, MASK_ID), following), t
        ids = following


def test_schedule_has_the_pipelines_defaults_in_our_convention() -> None:
    schedule = amused_schedule()
    assert schedule.shape == (12, 4)
    np.testing.assert_allclose(schedule[:, 0], np.cos(np.pi / 2 * np.arange(1, 13) / 12).clip(0), atol=1e-6)
    np.testing.assert_allclose(schedule[:, 1], 2 * (1 - np.arange(12) / 11))
    assert (schedule[:, 2] == 1).all()
    assert (schedule[:, 3] == 9).all()
    assert (amused_schedule(3, pipeline_guidance_scale=0.5)[:, 3] == 0).all()
    assert amused_schedule(1).tolist() == [[0.0, 2.0, 1.0, 9.0]]


def test_a_saved_folder_gives_the_same_networks(pipeline_256, folder: Path) -> None:
    nat, tokenizer = load_amused(folder, aesthetic_score=5.5, crop=(1, 2))
    assert nat.micro_conditions.tolist() == [256, 256, 1, 2, 5.5]
    assert not any(parameter.requires_grad for parameter in nat.parameters())
    assert missing_files(folder) == []
    tokens = torch.randint(0, CODES + 1, (3, 256), generator=torch.Generator().manual_seed(4))
    context = encode(AmusedTextEncoder(folder), PROMPTS)
    assert context.shape == (3, TEXT_LENGTH + 1, TEXT_WIDTH)
    with torch.no_grad():
        logits, _ = nat(tokens, context)
        assert torch.equal(logits, make_nat(pipeline_256, aesthetic_score=5.5, crop=(1, 2))(tokens, context)[0])
        assert torch.equal(tokenizer.decode(tokens), AmusedTokenizer(pipeline_256.vqvae, 16).decode(tokens))
    assert (nat.grid_size, tokenizer.grid_size, tokenizer.image_size) == (16, 16, 256)


def test_half_precision_files_serve_where_there_are_no_others(pipeline_256, tmp_path: Path) -> None:
    half = copy.deepcopy(pipeline_256.transformer).half()
    pipeline_256.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "transformer")
    half.save_pretrained(tmp_path / "transformer", variant="fp16")
    nat, _ = load_amused(tmp_path)
    assert nat.last.weight.dtype == torch.float32
    assert torch.equal(nat.last.weight, half.mlm_layer.conv2.weight.float())


def test_bfloat16_weights_take_float32_contexts(pipeline_256) -> None:
    nat = make_nat(pipeline_256)
    tokens = torch.randint(0, CODES + 1, (2, 256), generator=torch.Generator().manual_seed(5))
    context = torch.randn(2, TEXT_LENGTH + 1, TEXT_WIDTH, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        logits, _ = nat(tokens, context)
        half, features = nat.to(torch.bfloat16)(tokens, context)
    assert half.dtype == features.dtype == torch.bfloat16
    assert nat.micro_conditions.tolist() == [256, 256, 0, 0, 6]
    assert (half.float() - logits).abs().mean() < 0.1 * logits.std()


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("transformer", r"lacks transformer/config\.json, transformer/\*\.safetensors"),
        ("vqvae/diffusion_pytorch_model.safetensors", r"lacks vqvae/\*\.safetensors"),
        ("scheduler/scheduler_config.json", r"lacks scheduler/scheduler_config\.json"),
    ],
)
def test_missing_files_are_named_with_their_source(folder: Path, tmp_path: Path, lost: str, expected: str) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    path = copied / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=expected) as error:
        load_amused(copied)
    assert "amused/amused-256 and amused/amused-512" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_text_parts_matter_to_the_text_encoder_alone(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copied / "text_encoder")
    (copied / "tokenizer" / "tokenizer.json").unlink()
    load_amused(copied)
    with pytest.raises(UserError, match=r"text_encoder/config\.json, text_encoder/\*\.safetensors, tokenizer/tok"):
        AmusedTextEncoder(copied)
    with pytest.raises(UserError, match=r"no such folder: .*nowhere; aMUSEd is published as"):
        load_amused(tmp_path / "nowhere")


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    weights = copied / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match=r"transformer/diffusion_pytorch_model\.bin is a pickle and is not read"):
        load_amused(copied)


def edit(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **settings}), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "settings", "expected"),
    [
        ("transformer/config.json", {"_class_name": "UNet2DConditionModel"}, "holds a UNet2DC.*expected a UVit2DModel"),
        ("transformer/config.json", {"num_hidden_layers": 3}, "transformer lacks: transformer_layers.2"),
        ("transformer/config.json", {"num_hidden_layers": 1}, "transformer has too many: transformer_layers.1"),
        ("transformer/config.json", {"hidden_size": 64}, "transformer has another shape of: .*"),
        ("transformer/config.json", {"num_hidden_layers": 10**9}, "transformer/config.json: .*more tensors than the"),
        ("transformer/config.json", {"hidden_size": 10**6}, "transformer/config.json: .*the file holds no such one"),
        ("transformer/config.json", {"hidden_size": -1}, "transformer/config.json: "),
        ("vqvae/config.json", {"layers_per_block": 10**9}, "vqvae/config.json: .*more tensors than the"),
        ("transformer/config.json", {"cond_embed_dim": 17}, "has another shape of: cond_embed.linear_1.weight"),
        ("vqvae/config.json", {"lookup_from_codebook": False}, "vqvae: .*lookup_from_codebook"),
        ("scheduler/scheduler_config.json", {"mask_token_id": 5}, "mask_token_id is 5, expected 48 … 63"),
        ("scheduler/scheduler_config.json", {"mask_token_id": None}, "mask_token_id is None, expected int"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(
    folder: Path, tmp_path: Path, file: str, settings: dict[str, Any], expected: str
) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    edit(copied / file, **settings)
    with pytest.raises(UserError, match=expected) as error:
        load_amused(copied)
    assert "\n" not in str(error.value)


def test_damaged_weights_and_settings_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    weights = copied / "vqvae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"vqvae.* is damaged or no safetensors file") as error:
        load_amused_tokenizer(copied)
    assert "\n" not in str(error.value)
    (copied / "transformer" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"transformer/config\.json is damaged"):
        load_amused(copied)


def test_networks_that_hold_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    weights = copied / "vqvae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["quantize.embedding.weight"][3, 2] = torch.nan
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"no finite numbers, in quantize\.embedding\.weight"):
        load_amused_tokenizer(copied)


def test_text_conditions_of_two_widths_are_refused(pipeline_256) -> None:
    transformer = UVit2DModel.from_config({**pipeline_256.transformer.config, "cond_embed_dim": 17})
    with pytest.raises(ValueError, match="width 16 and a pooled embedding of width 17"):
        AmusedNAT(transformer, MASK_ID, 256)


def test_a_vqvae_of_another_codebook_is_refused(pipeline_256, folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    VQModel.from_config({**pipeline_256.vqvae.config, "num_vq_embeddings": 50}).save_pretrained(copied / "vqvae")
    with pytest.raises(UserError, match="the transformer predicts 48 codes, but the vqvae has 50"):
        load_amused(copied)


def test_a_transformer_serves_one_nat_only(pipeline_256) -> None:
    transformer = copy.deepcopy(pipeline_256.transformer)
    AmusedNAT(transformer, MASK_ID, 256)
    with pytest.raises(ValueError, match="another AmusedNAT has taken it over"):
        AmusedNAT(transformer, MASK_ID, 256)


def test_a_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"aMUSEd needs diffusers: pip install 'adanat-rl\[diffusers\]'"):
        load_amused(folder)


def test_tables_of_penultimate_states_are_told_from_those_of_last_states(folder: Path) -> None:
    last = ClipTextEncoder(folder / "text_encoder", tokenizer_folder=folder / "tokenizer", pad_token_id=None)
    encoder, theirs = AmusedTextEncoder(folder), last(PROMPTS)
    assert encoder.fingerprint != last.fingerprint
    assert encoder.fingerprint == pickle.loads(pickle.dumps(encoder)).fingerprint
    assert (encoder(PROMPTS).hidden - theirs.hidden).abs().mean() > 0.1
    torch.testing.assert_close(encoder(PROMPTS).pooled, theirs.pooled)
