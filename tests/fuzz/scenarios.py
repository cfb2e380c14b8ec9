"""Scenarios: files in a folder and what is done there; a target is a strategy of scenarios of one kind."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import adanat_rl
from adanat_rl.config.errors import RunError
from adanat_rl.config.loading import resolve
from adanat_rl.console.failures import plain_warnings
from adanat_rl.data.loading import load_images
from adanat_rl.data.streaming import StreamedImages
from adanat_rl.rewards.base import RewardError
from adanat_rl.rewards.build import build_reward_parts
from adanat_rl.rewards.conformance import check_reward, example_batch
from adanat_rl.rewards.service import Finished, LocalRewardService
from tests.fuzz import watched
from tests.fuzz.files import Damage, damages, headers, image_bytes, tar_bytes, with_header, with_numbers
from tests.fuzz.values import ODD_YAML, command_lines, json_text, json_values, overrides, texts, yaml_documents

ASSETS = Path(adanat_rl.__file__).parent / "assets" / "digits"
RUN, POLICY = "<run>", "<policy>"
"""Folders that a scenario starts from: a finished run, an exported policy."""


@dataclass(frozen=True)
class Scenario:
    """Args:
    argv: the command; or a call of this module, as `@NAME` with its arguments.
    files: contents by path. copies: folders by path, each RUN or POLICY.
    damage: done to the copies, in turn. fifos: paths.
    """

    argv: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...] = ()
    copies: tuple[tuple[str, str], ...] = ()
    damage: tuple[Damage, ...] = ()
    fifos: tuple[str, ...] = ()

    def prepare(self, folder: Path, templates: Mapping[str, Path]) -> list[str]:
        """Makes the files; what was done to them, in words."""
        done = []
        for name, template in self.copies:
            shutil.copytree(templates[template], folder / name, symlinks=True)
            for damage in self.damage:
                with contextlib.suppress(OSError):  # a second damage of what a first one took away
                    done.append(damage.apply(folder / name))
        for name, content in self.files:
            with contextlib.suppress(OSError):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        return done

    @property
    def is_command(self) -> bool:
        """Whether it can run as a process."""
        return not self.argv[0].startswith("@")

    def run(self, folder: Path) -> watched.Outcome:
        """Runs it in this process."""
        if self.is_command:
            return watched.command_in_process(self.argv, folder)
        return watched.in_process(lambda: CALLS[self.argv[0]](*self.argv[1:]), folder)

    def __str__(self) -> str:
        files = "".join(f"\n  file {name}: {_short(content)}" for name, content in self.files)
        return f"{' '.join(map(repr, self.argv))}{files}"


def _short(content: bytes) -> str:
    text = repr(content)
    return (
        text
        if len(text) <= 1500
        else f"{text[:700]} … {len(content)} bytes, base64 of the first 300: "
        + (base64.b64encode(content[:300]).decode())
    )


# --- calls


def read_data(*settings: str) -> int:
    """What training does with real images: opens the set, reads a few, some twice."""
    with plain_warnings():
        images = load_images(resolve(overrides=list(settings)).data)
        if isinstance(images, StreamedImages):
            for row in sorted({0, len(images) // 2, len(images) - 1}):
                images.pairs_at(np.array([row]))
            images.close()
    return 0


def score_with(module: str) -> int:
    """What training does with an own reward, and what `check-reward` does."""
    sys.path.insert(0, "")
    importlib.invalidate_caches()
    try:
        return _score_with(module)
    finally:
        sys.path.remove("")
        sys.modules.pop(module, None)


def _score_with(module: str) -> int:
    reward = importlib.import_module(module).Reward
    check_reward(reward, example_batch(8))
    finished = Finished(np.zeros((8, 16), np.uint8), np.zeros(8, np.int64))
    config = resolve(overrides=[f"reward.kind={module}:Reward"])
    service = LocalRewardService(partial(build_reward_parts, config))
    service.score([finished])
    service.start_update(finished, (0, 1, 2), 1)
    service.finish_update()
    try:
        service.load_state(service.state(), 1)
    except RewardError as error:  # which a resumed training tells in a line
        raise RunError(str(error)) from None
    return 0


CALLS: dict[str, Callable[..., int]] = {"@data": read_data, "@reward": score_with}

# --- targets


def _command_lines() -> st.SearchStrategy[Scenario]:
    files = st.tuples(
        st.tuples(st.just("odd.yaml"), yaml_documents()),
        st.tuples(st.just("odd.json"), json_values().map(json_text).map(lambda text: text.encode("utf-8", "replace"))),
        st.just(("folder/file", b"")),
    )
    return st.builds(Scenario, command_lines(), files)


@st.composite
def _settings(draw: st.DrawFn) -> Scenario:
    command = draw(st.sampled_from(["train", "train", "train", "evaluate", "probe", "search", "pretrain"]))
    preset = draw(st.sampled_from([(), (), ("--preset", "mnist"), ("--preset", "imagenet256"), ("--preset", "coco")]))
    return Scenario((command, "--dry-run", *preset, *draw(st.lists(overrides(), min_size=1, max_size=3))))


@st.composite
def _yaml(draw: st.DrawFn) -> Scenario:
    if draw(st.integers(0, 3)):
        return Scenario(("train", "--dry-run", "--config", "own.yaml"), (("own.yaml", draw(yaml_documents())),))
    content = draw(st.one_of(st.sampled_from(ODD_YAML), _sweeps()))
    return Scenario(("sweep", "--dry-run", "own.yaml"), (("own.yaml", content),))


@st.composite
def _sweeps(draw: st.DrawFn) -> bytes:
    keys = ("preset", "name", "seeds", "arms", "grid", "settings", "search", "scheduler", "metric", "trials", "samples")
    content: dict[str, Any] = {"preset": "digits", "seeds": 2, "settings": {"training.num_iterations": 1}}
    for key in draw(st.lists(st.sampled_from(keys), max_size=3)):
        content[key] = draw(
            st.one_of(json_values(), st.dictionaries(st.sampled_from(["ppo.lr", "seed", "x"]), json_values()))
        )
    return json_text(content).encode("utf-8", "replace")


@st.composite
def _run_folders(draw: st.DrawFn) -> Scenario:
    commands = (
        ("audit", "run"), ("audit", "run"), ("report", "run"), ("export", "run", "--output", "out"),
        ("export", "run", "--output", "out", "--iteration", "2"), ("train", "--run-dir", "run", "--dry-run"),
        ("sample", "--policy", "run", "--context", "1", "--per-context", "1"), ("evaluate", "run", "--dry-run"),
        ("probe", "--reward-from", "run", "--dry-run"), ("evaluate", "--run-dir", "run", "--dry-run"),
    )  # fmt: skip
    damage = tuple(draw(st.lists(damages(), min_size=1, max_size=3)))
    return Scenario(draw(st.sampled_from(commands)), copies=(("run", RUN),), damage=damage)


_PATTERNS = (
    b"\x00\x00\xc0\x7f",
    b"\x00\x00\x80\x7f",
    b"\x00\x00\x80\xff",
    b"\xff\xff\x7f\x7f",
    b"\x00",
    b"\x01\x00\x00\x00",
)


@st.composite
def _weights(draw: st.DrawFn) -> Scenario:
    names = ("nat", "tokenizer", "judge_a", "discriminator", "policy/policy")
    name = draw(st.sampled_from(names))
    content = _asset(f"{name}.safetensors")
    kind = draw(st.sampled_from(["header", "header", "header", "numbers", "cut", "garbage"]))
    if kind == "header":
        content = with_header(content, draw(headers()))
    elif kind == "numbers":
        content = with_numbers(content, draw(st.sampled_from(_PATTERNS)))
    elif kind == "cut":
        content = content[: int(draw(st.floats(0, 1)) * len(content))] + draw(st.binary(max_size=9))
    else:
        content = draw(st.one_of(st.binary(max_size=100), st.binary(max_size=60).map(lambda b: b"\xff" * 7 + b)))
    few = ("--context", "1", "--per-context", "1")
    uses = {
        "nat": ("sample", "generator.nat=x.safetensors", *few),
        "tokenizer": ("sample", "generator.tokenizer=x.safetensors", *few),
        "judge_a": ("train", "--dry-run", "evaluation.judge_a=x.safetensors"),
        "discriminator": ("probe", "--dry-run", "--reward-from", "x.safetensors"),
        "policy/policy": ("sample", "--policy", "policy", *few),
    }
    importing = ("import-checkpoint", "x.safetensors", "--output", "out.safetensors")
    argv = importing if draw(st.integers(0, 5)) == 0 else uses[name]
    if name != "policy/policy":
        return Scenario(argv, (("x.safetensors", content),))
    files = (("policy/policy.safetensors", content), ("policy/policy.json", _asset("policy/policy.json")))
    return Scenario(uses[name], files)


@cache
def _asset(name: str) -> bytes:
    return (ASSETS / name).read_bytes()


@st.composite
def _policies(draw: st.DrawFn) -> Scenario:
    few = ("--context", "1", "--per-context", "1")
    if draw(st.booleans()):
        damage = tuple(draw(st.lists(damages(), min_size=1, max_size=2)))
        return Scenario(("sample", "--policy", "policy", *few), copies=(("policy", POLICY),), damage=damage)
    rows: Any = draw(st.lists(st.lists(st.floats() | st.integers(-2, 20), min_size=3, max_size=5), max_size=5))
    content = draw(st.one_of(st.just(rows), json_values()))
    argv = draw(
        st.sampled_from(
            [("sample", "--schedule", "x.json", *few), ("train", "--dry-run", "decisions.base.file=x.json")]
        )
    )
    return Scenario(argv, (("x.json", json_text(content).encode("utf-8", "replace")),))


_IMAGES = (
    "good",
    "good",
    "jpeg",
    "palette",
    "grey",
    "alpha",
    "cmyk",
    "16 bits",
    "bits",
    "truncated",
    "text",
    "nothing",
)
_NAMES = ("a", "b c", "é", "n02119789", ".hidden", "A", "0", "x" * 100, "a.b")


@st.composite
def _data(draw: st.DrawFn) -> Scenario:
    images = [image_bytes(draw(st.sampled_from(_IMAGES))) for _ in range(draw(st.integers(0, 4)))]
    names = [draw(st.sampled_from(_NAMES)) for _ in images]
    suffixes = [draw(st.sampled_from([".png", ".jpg", ".JPEG", ".txt", "", ".tar"])) for _ in images]
    texts_ = draw(st.lists(st.one_of(texts(), json_values().map(json_text)), max_size=4))
    blobs = [
        text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])), "replace") for text in texts_
    ]
    kind = draw(st.sampled_from(["image_folder", "webdataset", "cc3m_tsv", "coco", "cifar10", "captions"]))
    size = f"data.image_size={draw(st.sampled_from([1, 4, 8]))}"
    limit = f"data.max_damaged={draw(st.sampled_from([0, 1, 16]))}"
    argv: tuple[str, ...] = ("@data", f"data.name={kind}", "data.path=set", size, limit)
    tree = [
        (f"set/{name}/{n}{suffix}", image)
        for n, (name, suffix, image) in enumerate(zip(names, suffixes, images, strict=True))
    ]
    if kind in ("image_folder", "cifar10"):
        files = tree
        if kind == "image_folder" and draw(st.booleans()):
            files = [*tree, ("list", b"\n".join(blobs) if draw(st.booleans()) else b"".join(blobs[:1]))]
            argv += ("data.class_names=list",)
    elif kind == "webdataset":
        fields = draw(st.sampled_from([("png", "txt"), ("jpg", "json"), ("png", "cls"), ("cls", "png")]))
        members = [(f"{n}.{fields[0]}", image) for n, image in enumerate(images)]
        members += [(f"{n}.{fields[1]}", blob) for n, blob in enumerate(blobs)]
        packed = tar_bytes(draw(st.permutations(members)), draw(st.sampled_from([0, 0, 0, 0, 1, 2, 3])))
        packed = packed[: int(draw(st.sampled_from([1, 1, 0.5, 0.9, 0])) * len(packed))]
        files = [("set/0.tar", packed)]
    elif kind == "cc3m_tsv":
        cells = [base64.b64encode(image).decode() for image in images] + texts_
        rows = draw(
            st.lists(st.lists(st.sampled_from([*cells, "1"]), min_size=1, max_size=5).map("\t".join), max_size=4)
        )
        files = [("set/train.tsv", "\n".join(rows).encode("utf-8", "replace"))]
    elif kind == "coco":
        entry = st.fixed_dictionaries({"id": json_values(), "image_id": json_values(), "caption": json_values()})
        listed = {
            "images": [{"id": n, "file_name": path} for n, (path, _) in enumerate(tree)],
            "annotations": draw(
                st.lists(st.one_of(entry, st.just({"id": 1, "image_id": 0, "caption": "x"}), json_values()), max_size=3)
            ),
        }
        content = draw(st.one_of(st.just(listed), st.just(listed), json_values()))
        files = [*tree, ("set/x", b""), ("captions.json", json_text(content).encode("utf-8", "replace"))]
        argv += ("data.captions=captions.json",)
    else:
        files = [("set", b"\n".join(blobs))]
    return Scenario(argv, tuple(dict(files).items()))


_RESULTS = (
    "None", "1.0", "[1.0] * len(batch)", "np.zeros(len(batch))", "torch.zeros(len(batch))", "RewardOutput(None)",
    "RewardOutput(torch.zeros(len(batch)))", "RewardOutput(torch.zeros(len(batch), 1))",
    "RewardOutput(torch.zeros(()))",
    "RewardOutput(torch.zeros(3))", "RewardOutput(torch.zeros(len(batch), dtype=torch.int64))",
    "RewardOutput(torch.zeros(len(batch), dtype=torch.float64))", "RewardOutput(torch.zeros(len(batch)).half())",
    "RewardOutput(torch.full((len(batch),), float('nan')))", "RewardOutput(torch.full((len(batch),), 1e300).double())",
    "RewardOutput(torch.zeros(len(batch), dtype=torch.complex64))",
    "RewardOutput(torch.zeros(len(batch), dtype=torch.bool))",
    "RewardOutput(np.zeros(len(batch)))", "RewardOutput([0.0] * len(batch))",
    "RewardOutput(torch.zeros(len(batch)), {INFO})",
    "RewardOutput(torch.zeros(len(batch)), INFO)", "RewardOutput(torch.zeros(len(batch)).to('meta'))",
    "RewardOutput(torch.zeros(len(batch)).to_sparse())", "RewardOutput(torch.zeros(len(batch), requires_grad=True))",
    "RewardOutput(batch.images.sum(dim=(1, 2, 3)))", "RewardOutput(batch.images.mul_(2).sum(dim=(1, 2, 3)))", "batch",
    "1 / 0", "raise_(KeyError('x'))", "raise_(StopIteration())", "raise_(MemoryError())", "raise_(ValueError())",
    "raise_(NotImplementedError)", "raise_(RecursionError('deep'))", "self.score(batch)", "raise_(ValueError('a\\nb'))",
)  # fmt: skip
_INFOS = (
    "None", "[]", "'x'", "1", "{}", "{'a': torch.zeros(len(batch))}", "{'a': 1}", "{1: torch.zeros(len(batch))}",
    "{None: None}", "{'a b (%)': torch.zeros(len(batch))}", "{'score': torch.zeros(len(batch))}",
    "{'': torch.zeros(2)}",
    "{'a': {'b': torch.zeros(len(batch))}}", "{'a': torch.full((len(batch),), float('inf'))}", "dict", "{(1, 2): 3}",
)  # fmt: skip
_STATES = (
    "{}",
    "None",
    "[]",
    "{'a': 1}",
    "{'a': torch.zeros(2)}",
    "{'a': {'b': torch.zeros(2)}}",
    "{1: torch.zeros(2)}",
    "1 / 0",
)
_COUNTS = ("0", "1", "-1", "1.5", "None", "'2'", "10**9", "True")


@st.composite
def _rewards(draw: st.DrawFn) -> Scenario:
    result = draw(st.sampled_from(_RESULTS))
    info = draw(st.sampled_from(_INFOS))
    result = result.replace("{INFO}", info).replace("INFO", info)
    base = draw(st.sampled_from(["RewardModel", "RewardModel", "RewardModel", "RewardModel", "object", "dict"]))
    text = f"""import numpy as np
import torch
from adanat_rl.rewards.base import RewardModel, RewardOutput

def raise_(error):
    raise error

class Reward({base}):
    num_updates = {draw(st.sampled_from(_COUNTS)) if draw(st.booleans()) else 0}
    num_warmup_updates = {draw(st.sampled_from(_COUNTS)) if draw(st.booleans()) else 0}
    requires = {draw(st.sampled_from(["frozenset()", "set()", "()", "None", "{'x'}", "['real images']"]))}
    set_valued = {draw(st.sampled_from(["False", "True", "None", "3"]))}
    def score(self, batch):
        return {result}
    def update(self, generated, real, generator, num_updates):
        return {draw(st.sampled_from(["{}", "None", "{'loss': 0.5}", "{'loss': float('nan')}", "{1: 'x'}", "1 / 0"]))}
    def state_dict(self):
        return {draw(st.sampled_from(_STATES))}
    def load_state_dict(self, state):
        {draw(st.sampled_from(["pass", "1 / 0", "state.clear()"]))}
"""
    content = text.encode()
    module = f"own_{hashlib.sha256(content).hexdigest()[:16]}"
    return Scenario(("@reward", module), ((f"{module}.py", content),))


CALLED = frozenset({"data sets", "rewards"})
"""Targets that are calls of this module, no commands."""

TARGETS: dict[str, st.SearchStrategy[Scenario]] = {
    "command lines": _command_lines(),
    "settings": _settings(),
    "yaml": _yaml(),
    "run folders": _run_folders(),
    "weights": _weights(),
    "policies": _policies(),
    "data sets": _data(),
    "rewards": _rewards(),
}


def policy_folder(place: Path) -> Path:
    """The shipped policy as an exported one."""
    shutil.copytree(ASSETS / "policy", place)
    return place


def described(scenario: Scenario, done: list[str], problem: str) -> str:
    """For people: what was typed, what was done to files, what came out."""
    changes = "".join(f"\n  {text}" for text in done)
    details = "".join(f"\n  {json.dumps(repr(damage))}" for damage in scenario.damage)
    return f"{problem}\n{scenario}{changes}{details}"
