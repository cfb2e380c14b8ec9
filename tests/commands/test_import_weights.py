"""Command `import-checkpoint`: averaged weights are taken before raw ones, unless a person says otherwise."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adanat_rl.cli import main
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.weights import read_tensors

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def states() -> tuple[State, State]:
    """Raw weights, and averaged ones that are all one half."""
    network = UViTNAT(vocab_size=4, grid_size=2, width=16, depth=2, num_heads=2, num_classes=3)
    raw = {name: torch.full_like(value, 0.25) for name, value in network.state_dict().items()}
    return raw, {name: torch.full_like(value, 0.5) for name, value in raw.items()}


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["import-checkpoint", *arguments, "--heads", "2"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def imported(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[float, str]:
    """The one number that all weights of the result are, and what was printed."""
    status, printed, error = call(capsys, *arguments, "--output", "nat.safetensors", "--overwrite")
    assert status == 0, error
    values = {float(value) for tensor in read_tensors(Path("nat.safetensors"))[0].values() for value in tensor.unique()}
    (value,) = values
    return value, printed


def below(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def without_dots(state: State) -> State:
    return {name.replace(".", ""): value for name, value in state.items()}


def as_list(state: State) -> dict[str, Any]:
    return {"decay": 0.999, "optimization_step": 3, "shadow_params": list(state.values())}


LAYOUTS: dict[str, Callable[[State, State], dict[str, Any]]] = {
    "model and ema": lambda raw, ema: {"model": raw, "ema": ema, "opt": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "model_ema": lambda raw, ema: {"model": raw, "model_ema": ema, "epoch": 3},
    "state_dict_ema of timm": lambda raw, ema: {"state_dict": raw, "state_dict_ema": below("module.", ema)},
    "ema_state_dict": lambda raw, ema: {"state_dict": raw, "ema_state_dict": ema},
    "params_ema": lambda raw, ema: {"params": raw, "params_ema": ema},
    "student and teacher": lambda raw, ema: {"student": raw, "teacher": ema},
    "ema_pytorch": lambda raw, ema: {
        "model": raw,
        "ema": {"initted": torch.tensor(True), "step": torch.tensor(9), **below("ema_model.", ema)},
    },
    "ema_pytorch with both": lambda raw, ema: {"ema": {**below("online_model.", raw), **below("ema_model.", ema)}},
    "AveragedModel of torch": lambda raw, ema: {
        "model": raw,
        "swa_model": {"n_averaged": torch.tensor(5), **below("module.", ema)},
    },
    "Lightning": lambda raw, ema: {"state_dict": {**below("model.", raw), **below("model_ema.", ema)}, "epoch": 2},
    "LitEma, without dots": lambda raw, ema: {
        "state_dict": {
            **below("model.", raw),
            **below("model_ema.", without_dots(ema)),
            "model_ema.decay": torch.tensor(0.999),
        }
    },
    "EMAModel of diffusers": lambda raw, ema: {"model": raw, "ema": as_list(ema)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_averaged_weights_are_taken_where_they_lie_beside_raw_ones(capsys, layout: str) -> None:
    torch.save(LAYOUTS[layout](*states()), "both.pt")
    value, printed = imported(capsys, "both.pt")
    assert value == 0.5
    assert "(averaged over training)" in printed
    assert "raw weights of the same network; --weights" in printed
    assert imported(capsys, "both.pt", "--weights", "model")[0] == 0.25
    assert imported(capsys, "both.pt", "--weights", "ema")[0] == 0.5


def test_weights_are_chosen_by_their_place(capsys) -> None:
    raw, averaged = states()
    torch.save({"nets": {"first": raw, "ema": averaged}}, "both.pt")
    assert imported(capsys, "both.pt")[0] == 0.5
    assert imported(capsys, "both.pt", "--weights", "nets.first")[0] == 0.25
    status, _, error = call(capsys, "both.pt", "--weights", "nets.fir", "--dry-run")
    assert status == 2
    assert "--weights: 'nets.fir' is not in both.pt; it holds weights in: nets.first, nets.ema" in error
    assert "did you mean 'nets.first'?" in error


def test_one_set_of_weights_is_taken_whatever_it_is_called(capsys) -> None:
    raw, averaged = states()
    torch.save(raw, "bare.pt")
    torch.save({"ema": averaged, "epoch": 1}, "ema.pt")
    torch.save({"state_dict": below("model.", raw)}, "lightning.pt")
    assert imported(capsys, "bare.pt")[0] == 0.25
    assert imported(capsys, "ema.pt")[0] == 0.5
    assert imported(capsys, "lightning.pt")[0] == 0.25
    status, _, error = call(capsys, "bare.pt", "--weights", "ema", "--dry-run")
    assert status == 2
    assert "--weights: 'ema' is not in bare.pt" in error


def test_a_list_of_averages_that_follows_no_parameters_is_not_guessed(capsys) -> None:
    raw, averaged = states()
    torch.save({"model": raw, "ema": {"shadow_params": list(averaged.values())[1:]}}, "both.pt")
    assert imported(capsys, "both.pt")[0] == 0.25


CODE = {
    "with everything": lambda raw, ema: {"model": raw, "ema": ema, "opt": {}, "args": argparse.Namespace(lr=1)},
    "averaged alone": lambda raw, ema: {"ema": ema, "args": argparse.Namespace(lr=1)},
    "of DINO": lambda raw, ema: {"student": raw, "teacher": ema, "args": argparse.Namespace(lr=1)},
    "deep inside": lambda raw, ema: {"model": raw, "ema": {**as_list(ema), "args": argparse.Namespace(lr=1)}},
}


@pytest.mark.parametrize("layout", CODE)
def test_the_line_for_a_file_that_needs_code_keeps_its_averaged_weights(capsys, layout: str) -> None:
    torch.save(CODE[layout](*states()), "it's full.pt")
    status, _, error = call(capsys, "it's full.pt", "--dry-run")
    assert status == 2
    program = shlex.split(error[error.index("python -c") :])[2]
    exec(compile(program, "what the line says", "exec"), {})
    assert imported(capsys, "it's full-weights.pth")[0] == 0.5


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_is_what_is_in_it_whatever_its_name_ends_with(capsys: pytest.CaptureFixture[str], is_zip: bool) -> None:
    torch.save(states()[0], "wrong.safetensors", _use_new_zipfile_serialization=is_zip)
    assert imported(capsys, "wrong.safetensors")[0] == 0.25


@pytest.mark.parametrize("content", [b"\x80\xb1:\x03\x01.", b"\x80", b"\x80\x02}q\x00."])
def test_a_stump_that_is_called_safetensors_is_one_line(capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    Path("x.safetensors").write_bytes(content)
    status, _, error = call(capsys, "x.safetensors", "--output", "y.safetensors")
    assert status == 2
    assert len(error.splitlines()) == 1
    assert "unexpected" not in error
