"""Command `import-checkpoint`: official files are recognised, converted and checked; what is none is one line."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import shlex
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adanat_rl import load_pipeline
from adanat_rl.cli import main
from adanat_rl.config.catalogue import CATALOGUE
from adanat_rl.experiment.importing.networks import ImportedNetwork
from adanat_rl.experiment.importing.run import catalogued_place
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.policies.files import load_policy
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.weights import load_network, read_tensors, save_network
from adanat_rl.metrics.inception import InceptionV3
from adanat_rl.metrics.statistics import load_statistics
from adanat_rl.rewards.aesthetic import AestheticReward, load_head
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.image_reward_network import ImageRewardNetwork
from adanat_rl.rewards.image_reward_network import convert_official_state as convert_image_reward
from adanat_rl.rewards.projected.dino import DinoFeatures
from adanat_rl.rewards.projected.dino import convert_official_state as convert_dino
from adanat_rl.rewards.projected.discriminator import ProjectedDiscriminator
from tests.commands import official
from tests.contracts.fill import noise
from tests.contracts.parity import ParityModule

SMALL_TOKENIZER = ParityModule("vqgan_small")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Runs the command and returns what it printed."""
    status = main(["import-checkpoint", *map(str, arguments)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line of a refusal; nothing was written."""
    before = sorted(Path().rglob("*"))
    status = main(["import-checkpoint", *map(str, arguments)])
    captured = capsys.readouterr()
    assert status == 2, captured.out + captured.err
    (line,) = captured.err.strip().splitlines()
    assert sorted(Path().rglob("*")) == before
    return line


def checksum(printed: str) -> str:
    """The checksum in what was printed last."""
    return printed.rpartition("checksum ")[2].split(" ")[0]


@pytest.mark.parametrize("name", ["nat_class_small", "nat_text_small"])
def test_an_official_nat_gives_the_official_outputs(capsys, name: str) -> None:
    source = official.save(Path("nnet_ema.pth"), official.nat_state(name))
    printed = call(capsys, source, "--heads", 4, "--output", "nat.safetensors")
    assert f"nnet_ema.pth: nat, {75 if name == 'nat_class_small' else 73} tensors" in printed
    assert "1 tensors that only number positions are left out" in printed
    network = load_network(Path("nat.safetensors"), {"uvit": UViTNAT})
    module = ParityModule(name)
    context = module.tensor("context")
    with torch.no_grad():
        logits, features = network(module.tensor("masked_ids"), context[:, 0] if context.dim() == 2 else context)
    module.check("logits", logits)
    module.check("feat", features)
    again = call(capsys, "--verify", "nat.safetensors")
    assert checksum(again) == checksum(printed)
    assert "as in nat.safetensors.import.json" in again


@pytest.mark.parametrize(("width", "heads"), [(768, 8), (1152, 16)])
def test_a_nat_of_official_width_has_the_official_heads(capsys, width: int, heads: int) -> None:
    """No tensor tells them; with other heads the outputs are others (see below)."""
    network = UViTNAT(vocab_size=4, grid_size=2, width=width, depth=2, num_heads=1, num_classes=3)
    source = official.save(Path("nnet_ema.pth"), official.filled_state(network, 3))
    printed = call(capsys, source, "--output", "nat.safetensors")
    assert f"{heads} attention heads: the official number for width {width}" in printed
    stored = json.loads(read_tensors(Path("nat.safetensors"))[1]["arguments"])
    assert (stored["num_heads"], stored["width"], stored["depth"]) == (heads, width, 2)


def test_every_network_of_the_catalogue_goes_to_its_place_and_twins_to_none() -> None:
    places = {}
    for entry in CATALOGUE:
        if entry.kind is not None:
            network = ImportedNetwork(entry.kind, entry.arguments, nn.Linear(1, 1))
            places[entry.file] = catalogued_place(network)
    twins = {"imagenet256/nat.safetensors", "adagen_maskgit/nat.safetensors"}
    assert len(places) > 9
    for file, place in places.items():
        assert place == (None if file in twins else Path("weights") / file), file
    small = ImportedNetwork("dino_vit", {"patch_size": 16, "width": 64, "depth": 4, "num_heads": 1}, nn.Linear(1, 1))
    assert catalogued_place(small) is None


def test_laions_aesthetic_head_rates_as_its_layers_do(capsys) -> None:
    widths = [768, 1024, 128, 64, 16, 1]
    state = {}
    for number, (inputs, outputs) in zip((0, 2, 4, 6, 7), pairwise(widths), strict=True):
        state[f"layers.{number}.weight"] = torch.from_numpy(noise(f"weight {number}", (outputs, inputs))) / inputs**0.5
        state[f"layers.{number}.bias"] = torch.from_numpy(noise(f"bias {number}", (outputs,)))
    source = official.save(Path("sac+logos+ava1-l14-linearMSE.pth"), state)
    printed = call(capsys, source)
    path = Path("weights/aesthetic_head.safetensors")
    assert checksum(printed) == checksum(call(capsys, "--verify", path))
    embeddings = torch.from_numpy(noise("embeddings", (3, 768)))
    expected = (embeddings / embeddings.norm(dim=1, keepdim=True)).double().numpy()
    for number in (0, 2, 4, 6, 7):
        weight, bias = (state[f"layers.{number}.{part}"].double().numpy() for part in ("weight", "bias"))
        expected = expected @ weight.T + bias
    images = RewardBatch(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64))
    rated = AestheticReward(lambda _: embeddings, load_head(path)).score(images)
    np.testing.assert_allclose(np.asarray(rated.scores), expected[:, 0], rtol=1e-4, atol=1e-5)


def test_a_linear_aesthetic_head_is_told_by_its_kind(capsys) -> None:
    source = official.save(Path("sa_0_4_vit_l_14_linear.pth"), {"weight": torch.ones(1, 4), "bias": torch.ones(1)})
    assert "is not recognised" in refused(capsys, source, "--output", "head.safetensors")
    call(capsys, source, "--kind", "aesthetic", "--output", "head.safetensors")
    ((weight, bias),) = load_head(Path("head.safetensors"))
    assert (weight.tolist(), bias.tolist()) == ([[1.0] * 4], [1.0])


def test_the_fixed_input_is_that_of_its_generator(capsys) -> None:
    """What the checksum is taken of, computed here again from its description."""
    source = official.save(Path("nnet_ema.pth"), official.nat_state("nat_class_small"))
    call(capsys, source, "--heads", 4, "--output", "nat.safetensors")
    row = json.loads(Path("nat.safetensors.import.json").read_text(encoding="utf-8"))["files"]["nat.safetensors"]
    generator = torch.Generator().manual_seed(20240901)
    tokens = torch.randint(33, (1, 16), generator=generator)
    with torch.no_grad():
        logits, _ = load_network(Path("nat.safetensors"), {"uvit": UViTNAT})(tokens, torch.tensor([1]))
    values = logits.double().numpy().ravel()
    expected = [values.mean(), values.std(), np.abs(values).max(), values[0], values[-1]]
    np.testing.assert_allclose(row["outputs"]["logits"], expected, rtol=1e-5)


def test_other_heads_give_another_checksum(capsys) -> None:
    source = official.save(Path("nnet_ema.pth"), official.nat_state("nat_class_small"))
    printed = [call(capsys, source, "--heads", heads, "--output", f"{heads}.safetensors") for heads in (2, 4)]
    assert checksum(printed[0]) != checksum(printed[1])


@pytest.mark.parametrize("form", ["half precision", "data parallel", "safetensors", "old torch", "views"])
def test_a_nat_in_another_form_is_the_same(capsys, form: str) -> None:
    state = official.nat_state("nat_class_small")
    wanted = {name: value for name, value in state.items() if name != "token_emb.position_ids"}
    source = Path("nnet_ema.pth")
    if form == "half precision":
        wanted = {name: value.half().float() for name, value in wanted.items()}
        official.save(source, {name: value.half() for name, value in state.items()})
    elif form == "data parallel":
        official.save(source, {"ema": {f"module.{name}": value for name, value in state.items()}, "epoch": 3})
    elif form == "safetensors":
        source = Path("model.safetensors")
        save_file(state, source)
    elif form == "old torch":
        official.save(source, OrderedDict(state), _use_new_zipfile_serialization=False)
    else:
        wide = torch.cat([state["mid_block.attn.proj.weight"], torch.zeros(64, 3)], dim=1)
        official.save(source, {**state, "mid_block.attn.proj.weight": wide[:, :64]})
    printed = call(capsys, source, "--heads", 4, "--output", "nat.safetensors")
    assert ("float16 was converted to float32" in printed) == (form == "half precision")
    assert ("epoch: beside ema, which holds the weights" in printed) == (form == "data parallel")
    found = load_network(Path("nat.safetensors"), {"uvit": UViTNAT}).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_an_official_tokenizer_decodes_as_the_official_one_at_any_size(capsys) -> None:
    state = {**official.parity_state(SMALL_TOKENIZER), "loss.discriminator.main.0.weight": torch.zeros(2)}
    source = official.save(Path("vqgan.ckpt"), {"state_dict": state, "epoch": 3, "global_step": 7})
    printed = [call(capsys, source, "--image-size", size, "--output", f"vqgan-{size}.safetensors") for size in (32, 64)]
    assert "1 tensors of the training loss" in printed[0]
    tokenizer = load_network(Path("vqgan-32.safetensors"), {"vqgan": VQTokenizer})
    assert isinstance(tokenizer, VQTokenizer)
    with torch.no_grad():
        SMALL_TOKENIZER.check("latents", tokenizer.latents(SMALL_TOKENIZER.tensor("image")))
        decoded = tokenizer.decode_latents(tokenizer.quantize.lookup(SMALL_TOKENIZER.tensor("ids")))
    SMALL_TOKENIZER.check("decode", decoded)
    large = load_network(Path("vqgan-64.safetensors"), {"vqgan": VQTokenizer})
    assert (large.image_size, large.grid_size) == (64, 16)
    assert checksum(printed[0]) == checksum(printed[1]) == checksum(call(capsys, "--verify", "vqgan-64.safetensors"))


def same_state(network: nn.Module, wanted: dict[str, Tensor]) -> bool:
    found = network.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("trained", [True, False])
def test_a_training_checkpoint_becomes_a_policy_that_draws(capsys, tmp_path: Path, trained: bool) -> None:
    generator = official.small_generator(tmp_path)
    checkpoint = official.policy_checkpoint(trained=trained, prefix="" if trained else "module.")
    source = official.save(Path("policy.pth"), checkpoint)
    options = [word for pair in generator.items() for word in pair]
    precision = "generator.precision=float32"
    printed = call(capsys, source, precision, *options, "--preset", "imagenet256", "--output", "made/policy")
    assert "policy_old.*: a copy of policy.*" in printed
    assert ("optimizer, d_optimizer: Adam's moments belong" in printed) == trained
    folder = Path("made/policy")
    exported = load_policy(folder)
    assert (exported.spec.horizon, exported.decisions.residual, exported.decisions.smoothing) == (8, False, 0)
    assert exported.trained["imported_from"] == "policy.pth"
    assert exported.trained["time_step"] == (1000 if trained else 3)
    parts = official.small_policy()
    assert same_state(exported.actor, parts["actor"])
    critic = load_network(folder / "critic.safetensors", {"policy_net": PolicyNet})
    assert same_state(critic, parts["critic"])
    assert (folder / "discriminator.safetensors").exists() == trained
    if trained:
        kinds = {"projected_discriminator": ProjectedDiscriminator}
        discriminator = load_network(folder / "discriminator.safetensors", kinds)
        found = discriminator.state_dict()
        wanted = {name: value for name, value in official.discriminator_state().items() if name[:4] != "dino"}
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
        assert found.keys() - wanted.keys() == {name for name in found if ".mate_" in name}
        assert "1 tensors of the frozen DINO are left out" in printed
    drawing = load_pipeline(folder)([3, 3, 7])
    assert drawing.images.shape == (3, 8, 8, 3)
    assert drawing.decisions.shape == (3, 8, 4)
    again = call(capsys, "--verify", folder)
    assert [line.split("checksum ")[1].split(" ")[0] for line in again.splitlines()] == [
        line.split("checksum ")[1].split(" ")[0] for line in printed.splitlines() if "checksum" in line
    ]
    assert len(again.splitlines()) == (3 if trained else 2)


def test_a_bare_actor_is_adagens_with_its_smoothing_and_16_steps(capsys, tmp_path: Path) -> None:
    options = [word for pair in official.small_generator(tmp_path).items() for word in pair]
    source = official.save(Path("maskgit_policy.pth"), official.small_policy()["actor"])
    printed = call(capsys, source, *options, "--output", "policy")
    assert "made for: 16 steps, 16 tokens" in printed
    exported = load_policy(Path("policy"))
    decisions = exported.decisions
    assert (exported.spec.horizon, exported.generator.horizon) == (16, 16)
    assert (decisions.smoothing, decisions.residual) == (0.8, True)
    assert (decisions.base.convention, decisions.base.guidance_scale) == ("adanat", 1)
    assert not Path("policy/critic.safetensors").exists()


def test_an_actor_of_official_size_gives_the_official_outputs(capsys, tmp_path: Path) -> None:
    module = ParityModule("policy")
    options = [word for pair in official.small_generator(tmp_path).items() for word in pair]
    nat = {"vocab_size": 8, "grid_size": 16, "width": 768, "depth": 2, "num_heads": 8, "num_classes": 1000}
    save_network(tmp_path / "nat.safetensors", "uvit", nat, nn.Linear(1, 1))  # only its header is looked at
    source = official.save(Path("maskgit_policy.pth"), official.parity_state(module, "actor768"))
    call(capsys, source, *options, "--output", "policy")
    features = torch.from_numpy(noise("policy.feat", (4, 256, 768)))
    with torch.no_grad():
        module.check("actor768", load_policy(Path("policy")).actor(features, module.tensor("timestep")))


@pytest.mark.parametrize(
    ("line", "horizon"), [("", 8), ("--horizon 4", 4), ("generator.horizon=6", 6), ("--config own.yaml", 5)]
)
def test_the_horizon_is_what_was_said_and_otherwise_the_official_one(
    capsys, tmp_path: Path, line: str, horizon: int
) -> None:
    Path("own.yaml").write_text("name: own\ngenerator:\n  horizon: 5\n", encoding="utf-8")
    options = [word for pair in official.small_generator(tmp_path).items() for word in pair]
    source = official.save(Path("policy.pth"), official.policy_checkpoint(trained=False))
    call(capsys, source, *line.split(), *options, "--output", "policy")
    assert load_policy(Path("policy")).spec.horizon == horizon


def test_the_preset_of_a_policy_follows_from_its_width(capsys, tmp_path: Path) -> None:
    options = [word for pair in official.small_generator(tmp_path).items() for word in pair]
    nat = {"vocab_size": 8, "grid_size": 4, "width": 1152, "depth": 2, "num_heads": 8, "text_width": 8}
    save_network(tmp_path / "nat.safetensors", "uvit", nat, nn.Linear(1, 1))
    source = official.save(Path("policy.pth"), official.policy_checkpoint(trained=False, width=1152))
    printed = call(capsys, source, *options)
    assert "actions are offsets to the base schedule, smoothing 0 (settings cc3m)" in printed
    assert Path("weights/cc3m/policy/policy.json").exists()
    assert load_policy(Path("weights/cc3m/policy")).decisions.residual


def test_inception_of_before_the_counters(capsys) -> None:
    state = official.parity_state(ParityModule("inception"))
    assert not any("num_batches_tracked" in name for name in state)
    source = official.save(Path("pt_inception-2015-12-05-6726825d.pth"), state)
    printed = call(capsys, source)
    path = Path("weights/inception.safetensors")
    assert checksum(printed) == checksum(call(capsys, "--verify", path))
    found = load_network(path, {"inception": InceptionV3}).state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_image_reward_of_any_size(capsys) -> None:
    state = official.image_reward_state()
    source = official.save(Path("ImageReward.pt"), state)
    printed = call(capsys, source, "--output", "reward.safetensors")
    assert "vision_depth 1, vision_heads 1, vocab_size 50, max_positions 512" in printed
    network = load_network(Path("reward.safetensors"), {"image_reward": ImageRewardNetwork})
    assert same_state(network, convert_image_reward(state))
    assert checksum(printed) == checksum(call(capsys, "--verify", "reward.safetensors"))


@pytest.mark.parametrize("whole", [False, True])
def test_dino_alone_and_out_of_a_full_checkpoint(capsys, whole: bool) -> None:
    state = official.dino_state()
    content = dict(state)
    if whole:
        teacher = {f"module.backbone.{name}": value for name, value in state.items()}
        content = {"teacher": {**teacher, "module.head.mlp.0.weight": torch.zeros(2)}, "student": {}, "epoch": 100}
    source = official.save(Path("dino_deitsmall16_pretrain.pth"), content)
    printed = call(capsys, source, "--output", "dino.safetensors")
    assert ("head.mlp.0.weight: the head of DINO's own loss" in printed) == whole
    network = load_network(Path("dino.safetensors"), {"dino_vit": DinoFeatures})
    assert isinstance(network, DinoFeatures)
    assert (network.hooks, network.image_size) == ((0, 1, 2, 3), 32)
    assert same_state(network, convert_dino(state))
    assert checksum(printed) == checksum(call(capsys, "--verify", "dino.safetensors"))


def test_statistics_of_others_are_given_their_convention(capsys) -> None:
    values = noise("sigma", (6, 6)).astype(np.float64)
    np.savez("fid_stats.npz", mu=noise("mu", (6,)), sigma=values @ values.T)
    assert "does not say its resize convention" in refused(capsys, "fid_stats.npz", "--output", "mine.npz")
    printed = call(capsys, "fid_stats.npz", "--convention", "vendored", "--output", "mine.npz")
    statistics = load_statistics(Path("mine.npz"))
    assert statistics.convention == "vendored"
    np.testing.assert_array_equal(statistics.mean, noise("mu", (6,)))
    np.testing.assert_allclose(statistics.covariance, values @ values.T, rtol=1e-12)
    assert checksum(printed) == checksum(call(capsys, "--verify", "mine.npz"))


def test_a_dry_run_says_what_the_file_is_and_writes_nothing(capsys) -> None:
    source = official.save(Path("nnet_ema.pth"), official.nat_state("nat_class_small"))
    printed = call(capsys, source, "--heads", 4, "--dry-run")
    assert "sizes: vocab_size 32, grid_size 4, width 64, depth 4, num_heads 4" in printed
    assert "complete; nothing written" in printed
    assert sorted(path.name for path in Path().iterdir()) == ["nnet_ema.pth"]


def test_a_changed_file_is_not_verified(capsys) -> None:
    source = official.save(Path("nnet_ema.pth"), official.nat_state("nat_class_small"))
    for heads in (4, 2):
        call(capsys, source, "--heads", heads, "--output", f"{heads}.safetensors")
    Path("2.safetensors").replace("4.safetensors")
    assert "4.safetensors is not the file that was imported" in refused(capsys, "--verify", "4.safetensors")
    record = Path("4.safetensors.import.json")
    other = json.loads(record.read_text(encoding="utf-8"))
    other["files"]["4.safetensors"]["sha256"] = json.loads(
        Path("2.safetensors.import.json").read_text(encoding="utf-8")
    )["files"]["2.safetensors"]["sha256"]
    record.write_text(json.dumps(other), encoding="utf-8")
    assert "gives other outputs than when it was imported" in refused(capsys, "--verify", "4.safetensors")
    record.write_text("{}", encoding="utf-8")
    assert "is damaged or says nothing of 4.safetensors" in refused(capsys, "--verify", "4.safetensors")
    record.unlink()
    assert "no 4.safetensors.import.json to compare with" in call(capsys, "--verify", "4.safetensors")


def written(path: str, content: bytes) -> Callable[[], Path]:
    def write() -> Path:
        Path(path).write_bytes(content)
        return Path(path)

    return write


def saved(path: str, make: Callable[[], object], **options: bool) -> Callable[[], Path]:
    def write() -> Path:
        torch.save(make(), path, **options)
        return Path(path)

    return write


def cut(make: Callable[[], Path]) -> Callable[[], Path]:
    def write() -> Path:
        path = make()
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        return path

    return write


def bit_flipped(make: Callable[[], Path]) -> Callable[[], Path]:
    def write() -> Path:
        path = make()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return path

    return write


def other_storage(make: Callable[[], Path]) -> Callable[[], Path]:
    """A file of old torch whose last list names a storage that is not there."""

    def write() -> Path:
        path = make()
        data = bytearray(path.read_bytes())
        *_, last = re.finditer(rb"\d{9,}", bytes(data))
        data[last.end() - 1] ^= 1  # another digit
        path.write_bytes(data)
        return path

    return write


def small_nat(**changes: object) -> Callable[[], dict[str, object]]:
    """The official small NAT with some entries set, or taken away where they are None."""

    def make() -> dict[str, object]:
        state = {**official.nat_state("nat_class_small"), **changes}
        return {name: value for name, value in state.items() if value is not None}

    return make


NAT = saved("nat.pth", small_nat())
OLD_NAT = saved("nat.pth", small_nat(), _use_new_zipfile_serialization=False)
NORM = "mid_block.norm1.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
NOT_READ = {
    "a page of a web site": (written("a.pth", b"\n<!DOCTYPE html><html>quota</html>"), "is an HTML page, not a"),
    "a pointer of git lfs": (written("a.pth", LFS), "is a pointer of Git LFS"),
    "text": (written("a.pth", b"hello"), "is no checkpoint: neither of torch nor safetensors nor .npz"),
    "nothing": (written("a.pth", b""), "is empty"),
    "half of a checkpoint": (cut(NAT), "is cut off or damaged"),
    "half of an old checkpoint": (cut(OLD_NAT), "is cut off, damaged, or no checkpoint of torch"),
    "one wrong bit": (bit_flipped(NAT), "does not match its checksum; download it again"),
    "half of safetensors": (written("a.safetensors", bytes([255, *[0] * 7]) + b"{"), "is damaged or no safetensors"),
    "a pickle of torch": (written("a.pth", pickle.dumps(argparse.Namespace(a=1), protocol=2)), "argparse.Namespace"),
    "damage that torch meets with an assertion": (other_storage(OLD_NAT), "is cut off, damaged, or no checkpoint"),
    "a list": (saved("a.pth", lambda: [torch.zeros(2)]), "holds a list, expected tensors by name"),
    "no tensors": (saved("a.pth", lambda: {"state_dict": {"a": 1}, "epoch": 2}), "holds no tensors in state_dict"),
    "numbers": (saved("a.pth", lambda: {"epoch": 2}), "holds no tensors; found: epoch"),
    "an unknown network": (saved("a.pth", lambda: {"conv.weight": torch.zeros(2)}), "is not recognised: its 1 tensors"),
}


@pytest.mark.parametrize("case", NOT_READ)
def test_what_is_no_known_checkpoint_is_refused_in_one_line(capsys, case: str) -> None:
    make, expected = NOT_READ[case]
    assert expected in refused(capsys, make(), "--output", "out.safetensors")


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_file_that_needs_code_is_refused_with_the_line_that_saves_its_weights(capsys, options) -> None:
    content = {"state_dict": official.nat_state("nat_class_small"), "args": argparse.Namespace(lr=1)}
    line = refused(capsys, official.save(Path("full.pth"), content, **options))
    assert "full.pth needs code to load: argparse.Namespace; such a file can run anything" in line
    run_what_it_says(line)
    assert "nat, 75 tensors" in call(capsys, "full-weights.pth", "--heads", 4, "--dry-run")


def run_what_it_says(line: str) -> None:
    program = shlex.split(line[line.index("python -c") :])[2]
    exec(compile(program, "what the line says", "exec"), {})


def test_that_line_keeps_the_discriminator_of_a_policy(capsys, tmp_path: Path) -> None:
    content = {**official.policy_checkpoint(), "args": argparse.Namespace(lr=1)}
    run_what_it_says(refused(capsys, official.save(Path("full.pth"), content)))
    options = [word for pair in official.small_generator(tmp_path).items() for word in pair]
    printed = call(capsys, "full-weights.pth", *options, "--preset", "imagenet256", "--dry-run")
    assert "policy with actor, critic, discriminator" in printed


def test_the_class_mapping_of_an_official_discriminator_is_taken_over(capsys, tmp_path: Path) -> None:
    state = official.parity_state(ParityModule("discriminator"))
    source = official.save(Path("policy.pth"), {**official.policy_checkpoint(), "discriminator": state})
    options = [word for pair in official.small_generator(tmp_path).items() for word in pair]
    call(capsys, source, *options, "--preset", "imagenet256", "--output", "policy")
    kinds = {"projected_discriminator": ProjectedDiscriminator}
    discriminator = load_network(Path("policy/discriminator.safetensors"), kinds)
    assert isinstance(discriminator, ProjectedDiscriminator)
    assert (discriminator.num_classes, discriminator.condition_width) == (1000, 512)
    found = discriminator.state_dict()
    heads = {name: value for name, value in state.items() if not name.startswith("dino.")}
    assert any(name.startswith("mapping.") for name in heads)
    assert all(torch.equal(found[name], value) for name, value in heads.items())


NOT_FITTING = {
    "one missing": (small_nat(**{NORM: None}), f"lacks 1 of its 74 tensors: {NORM}"),
    "one too many": (small_nat(extra=torch.zeros(1)), "it has 1 too many: extra"),
    "both": (small_nat(**{NORM: None, "extra": torch.zeros(1)}), f"74 tensors: {NORM}; it has 1 too many: extra"),
    "another shape": (small_nat(**{NORM: torch.ones(3)}), f"{NORM} is float32 [3] instead of float32 [64]"),
    "another type": (small_nat(**{NORM: torch.ones(64).long()}), f"{NORM} is int64 [64] instead of float32 [64]"),
    "not a number": (small_nat(**{NORM: torch.full((64,), torch.nan)}), f"no finite numbers, in {NORM}"),
    "sparse": (small_nat(**{NORM: torch.ones(64).to_sparse()}), f"{NORM} is a sparse tensor"),
    "without values": (small_nat(**{NORM: torch.ones(64, device="meta")}), f"{NORM} is a tensor without values"),
    "outputs that overflow": (small_nat(**{NORM: torch.full((64,), 3e38)}), "not finite on the fixed input (logits)"),
    "no sizes": (small_nat(**{"token_emb.position_embeddings.weight": None}), "which tells sizes of the network"),
    "no square": (small_nat(**{"token_emb.position_embeddings.weight": torch.ones(15, 64)}), "has 15 tokens of an im"),
}


@pytest.mark.parametrize("case", NOT_FITTING)
def test_what_does_not_fit_is_listed(capsys, case: str) -> None:
    make, expected = NOT_FITTING[case]
    line = refused(capsys, official.save(Path("nat.pth"), make()), "--heads", 4, "--output", "out.safetensors")
    assert expected in line


OPTIONS = [
    ("", "give a FILE to import, or --verify FILE"),
    ("nat.pth --verify nat.pth", "give a FILE to import, or --verify FILE"),
    ("nowhere.pth", "no such file: nowhere.pth"),
    (".", ". is a folder"),
    ("nat.pth", "--heads: needed, the width is 64"),
    ("nat.pth --heads 5", "no UViTNAT has these sizes: num_heads 5 does not divide width 64"),
    ("nat.pth --heads 0", "--heads: 0 is not accepted: expected heads, at least 1"),
    ("nat.pth --heads -4", "--heads: -4 is not accepted"),
    ("nat.pth --heads 4 --output nat.pth/x", "--output: nat.pth/x: nat.pth: File exists"),
    ("nat.pth --heads 4", "--output: needed: the catalogue has no place"),
    ("nat.pth --heads 4 --output nat.pth", "--output: nat.pth exists"),
    ("nat.pth --heads 4 --kind nut", "--kind: 'nut' is not accepted; accepted: nat,"),
    ("nat.pth --kind inception", "FID's Inception-v3 has an fc.weight of [1008, 2048], but there is none"),
    ("nat.pth --kind tokenizer", "lacks quantize.embedding.weight, which tells sizes"),
    ("nat.pth --kind statistics", "holds tensors, Fréchet statistics are an .npz"),
    ("nat.pth --heads 4 --image-size 64", "--image-size: only tokenizer takes it; nat.pth is: nat"),
    ("nat.pth --heads 4 --convention vendored", "--convention: only statistics takes it"),
    ("nat.pth --heads 4 --horizon 8", "--horizon: only policy takes it"),
    ("nat.pth --heads 4 ppo.lr=1", "ppo.lr=1: only policy takes it"),
    ("tokenizer.pth --image-size 30 --output x", "image_size is 30; accepted: multiples of 4"),
    ("tokenizer.pth --image-size 0", "--image-size: 0 is not accepted"),
    ("own.safetensors", "is a file of adanat-rl already (kind vqgan)"),
    ("arrays.npz", "holds no tensors; found: a; of arrays, Fréchet statistics are known"),
    ("policy.pth --nat own.safetensors", "generator.nat: own.safetensors holds: vqgan; accepted here: transformer"),
    (
        "policy.pth --nat nat.pth",
        "generator.nat: nat.pth is damaged or no safetensors file: it is a checkpoint of torch",
    ),
    ("policy.pth --nat nowhere", "generator.nat: no such file: nowhere"),
    ("policy.pth --preset imagenet", "--preset: 'imagenet' is no preset"),
    ("policy.pth --nat ours.safetensors --tokenizer nowhere", "generator.tokenizer: no such file: nowhere"),
    ("policy.pth --nat wide.safetensors", "has features of width 96, the actor of policy.pth takes 64"),
    ("policy.pth --nat large.safetensors", "the actor is made for 3 or 4 tokens a side, the NAT has 8"),
    ("policy.pth --nat ours.safetensors decisions.learned=[mask_ratio]", "the actor of policy.pth makes 4;"),
    ("policy.pth --horizon 0 --nat ours.safetensors", "generator.horizon: 0 is not accepted"),
    ("policy.pth --preset amused256", "generator.kind: amused: policies are imported for masked_token only"),
    ("--verify nowhere", "no such file: nowhere"),
    ("--verify nat.pth", "nat.pth is damaged or no safetensors file"),
    ("--verify .", ". is no exported policy"),
]


@pytest.mark.parametrize(("line", "expected"), OPTIONS, ids=[line or "nothing" for line, _ in OPTIONS])
def test_wrong_options_are_one_line_and_status_2(capsys, tmp_path: Path, line: str, expected: str) -> None:
    official.save(Path("nat.pth"), official.nat_state("nat_class_small"))
    official.save(Path("tokenizer.pth"), official.parity_state(SMALL_TOKENIZER))
    official.save(Path("policy.pth"), official.policy_checkpoint(trained=False))
    official.small_generator(tmp_path)
    Path("tokenizer.safetensors").rename("own.safetensors")
    Path("nat.safetensors").rename("ours.safetensors")
    for name, sizes in {"wide": (4, 96), "large": (8, 64)}.items():
        arguments = {"vocab_size": 4, "grid_size": sizes[0], "width": sizes[1], "depth": 2, "num_heads": 2}
        save_network(
            Path(f"{name}.safetensors"), "uvit", {**arguments, "num_classes": 10}, UViTNAT(**arguments, num_classes=10)
        )
    np.savez("arrays.npz", a=np.zeros(2))
    assert expected in refused(capsys, *line.split())


def test_an_existing_result_is_replaced_when_told_to(capsys) -> None:
    source = official.save(Path("nnet_ema.pth"), official.nat_state("nat_class_small"))
    Path("nat.safetensors").write_text("", encoding="utf-8")
    call(capsys, source, "--heads", 4, "--output", "nat.safetensors", "--overwrite")
    assert read_tensors(Path("nat.safetensors"))[1]["kind"] == "uvit"


def test_a_policy_is_replaced_but_no_other_folder(capsys, tmp_path: Path) -> None:
    options = [word for pair in official.small_generator(tmp_path).items() for word in pair]
    official.save(Path("nnet_ema.pth"), official.nat_state("nat_class_small"))
    source = official.save(Path("policy.pth"), official.small_policy()["actor"])
    Path("folder").mkdir()
    Path("folder/precious").write_text("", encoding="utf-8")
    command = (source, *options, "--overwrite", "--output")
    assert "folder is a folder and no policy; it is not replaced" in refused(capsys, *command, "folder")
    assert "folder is a folder and no file" in refused(
        capsys, "nnet_ema.pth", "--heads", 4, "--overwrite", "--output", "folder"
    )
    for _ in range(2):
        call(capsys, *command, "policy")
    assert load_policy(Path("policy")).spec.horizon == 16


def test_the_commands_of_the_catalogue_can_be_typed(capsys) -> None:
    """They fail for want of the file alone."""
    commands = [entry.command for entry in CATALOGUE if entry.command.startswith("adanat-rl import-checkpoint")]
    assert len(commands) > 8
    for command in commands:
        source = command.split()[2]
        assert refused(capsys, *command.split()[2:]).endswith(f"no such file: {source}")
