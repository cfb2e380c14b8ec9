"""The YAML reader and writer by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.yaml_reader import dump_yaml, parse_yaml, plain

WORDS = [
    "2024_11_05",
    "007",
    "1.10",
    "12:30:00",
    "0x1F",
    "0o17",
    "2024-11-05",
    "no",
    "yes",
    "on",
    "1e3",
    "true",
    "1_000",
]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-1", 0.3), ("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ("+2", 2), ("-0.5E+2", -50.0), ("0x1F", 31),
        ("0o17", 15), ("007", 7), ("010", 10), ("1_000", "1_000"), ("12:30:00", "12:30:00"), ("2024-11-5", "2024-11-5"),
        ("no", "no"), ("on", "on"), ("True", True), ("false", False), ("~", None), ("", None), ("'1'", "1"),
        ("=", "="), ("1e", "1e"), ("0b1", "0b1"), ("- ", [None]), ("{a: , b: 1}", {"a": None, "b": 1}),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = plain(parse_yaml(text, "x"))
    assert found == value
    assert type(found) is type(value)


def test_anchors_and_merge_keys_are_understood() -> None:
    text = "base: &base {lr: 1, clip: 2}\nppo: {<<: *base, lr: 3}\nlist: [*base, *base]\n"
    text += "both: {<<: [{a: 1}, {a: 2, b: 3}]}"
    assert plain(parse_yaml(text, "x")) == {
        "base": {"lr": 1, "clip": 2},
        "ppo": {"lr": 3, "clip": 2},
        "list": [{"lr": 1, "clip": 2}] * 2,
        "both": {"a": 1, "b": 3},
    }


@pytest.mark.parametrize("ascii_only", [False, True])
def test_what_is_written_is_read_back_by_readers_of_both_versions(ascii_only: bool) -> None:
    texts = [
        *WORDS,
        "",
        "~",
        "null",
        " x ",
        "a\nb",
        "#a",
        "- a",
        "a: b",
        "!!x",
        "*a",
        "&a",
        "<<",
        "=",
        "é\x85\u2028",
        "x" * 300,
    ]
    content = {
        "texts": texts,
        "numbers": [0, -1, 2**60, 1e20, 1e-5, 0.1, float("inf"), -float("inf")],
        "others": [True, False, None, [], {}],
        **{text: text for text in texts},
    }
    text = dump_yaml(content, ascii_only=ascii_only)
    assert plain(parse_yaml(text, "x")) == content
    assert yaml.safe_load(text) == content
    assert text.isascii() or not ascii_only


def test_no_file_is_read_with_yaml_1_1() -> None:
    package = Path(ExperimentConfig.__module__.replace(".", "/")).parts[0]
    sources = [file for file in Path(package).rglob("*.py") if file.name != "yaml_reader.py"]
    assert len(sources) > 100
    assert not [file for file in sources if "import yaml" in file.read_text("utf-8")]
