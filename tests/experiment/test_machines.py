from __future__ import annotations

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.experiment.machines import machine_names, parse_machine


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("8xH100", 8, "H100"),
        ("1xh200", 1, "H200"),
        ("4 x A100", 4, "A100-80"),
        ("4xA100-40", 4, "A100-40"),
        ("2×rtx4090", 2, "RTX4090"),
        ("16xcpu", 16, "cpu"),
    ],
)
def test_a_machine_is_so_many_devices_of_a_kind(text: str, count: int, name: str) -> None:
    machine = parse_machine(text)
    assert (machine.count, machine.device.name) == (count, name)
    assert parse_machine(machine.name) == machine


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("8xH1000", ["'H1000'", "did you mean 'H100'?", "accepted: H100, H200"]),
        ("8xl40", ["'l40'", "did you mean 'L40S'?"]),
        ("8xcup", ["'cup'", "no known device", "cpu"]),
        ("H100", ["'H100'", "expected NxNAME, such as 8xH100"]),
        ("0xH100", ["'0xH100'", "expected NxNAME"]),
        ("-1xH100", ["expected NxNAME"]),
        ("8x", ["expected NxNAME"]),
        ("", ["expected NxNAME"]),
    ],
)
def test_what_is_no_machine_is_refused_with_what_is_accepted(text: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_machine(text)
    message = str(caught.value)
    assert message.startswith("--machine: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", machine_names())
def test_less_precise_arithmetic_is_never_slower(name: str) -> None:
    device = parse_machine(f"1x{name}").device
    assert device.peak("bfloat16") >= device.peak("tf32") >= device.peak("float32") > 0
    assert device.peak("float16") == device.peak("bfloat16")
    assert device.is_gpu == (name != "cpu")
    assert bool(device.bandwidth) == device.is_gpu
