"""YAML: what a scalar is, what is refused, and that nothing grows."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import dump, load_file, resolve
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.sweep_settings import load_sweep, validate_sweep
from adanat_rl.config.yaml_reader import MAX_BYTES, dump_yaml, parse_yaml, plain

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


@pytest.mark.parametrize("word", WORDS)
def test_text_stays_text_where_text_is_asked_for(tmp_path: Path, word: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"tracking: {{experiment: {word}}}\nrun_dir: {word}\ntext.cache: '{word}'\n")
    for config in (
        resolve(file=file),
        resolve(overrides=[f"tracking.experiment={word}", f"run_dir={word}", f"text.cache={word}"]),
    ):
        assert (config.tracking.experiment, config.run_dir, config.text.cache) == (word, word, word)
        (tmp_path / "saved.yaml").write_text(dump(config))
        assert resolve(file=tmp_path / "saved.yaml") == config


@pytest.mark.parametrize("word", [word for word in WORDS if ":" not in word])
def test_a_name_of_digits_is_a_name(word: str) -> None:
    assert resolve(overrides=[f"name={word}"]).name == word


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


def test_arguments_of_an_own_reward_are_numbers_and_text_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("reward: {kind: a:B, args: {target: 3e-1, count: 1e3, flag: true, word: no, text: '3e-1'}}\n")
    expected = {"target": 0.3, "count": 1000.0, "flag": True, "word": "no", "text": "3e-1"}
    typed = [
        "reward.kind=a:B",
        *(f"reward.args.{pair}" for pair in ("target=3e-1", "count=1e3", "flag=true", "word=no")),
    ]
    for config in (resolve(file=file), resolve(overrides=[*typed, "reward.args.text='3e-1'"])):
        assert config.reward.args == expected
        (tmp_path / "saved.yaml").write_text(dump(config))
        assert resolve(file=tmp_path / "saved.yaml").reward.args == expected


def test_whole_numbers_may_have_an_exponent() -> None:
    assert resolve(overrides=["training.num_iterations=1e3"]).training.num_iterations == 1000
    with pytest.raises(UserError, match=r"training.num_iterations: 1.5"):
        resolve(overrides=["training.num_iterations=1.5"])


@pytest.mark.parametrize("text", ["ppo:\n  # lr: 1\n", "ppo:\n", "ppo: {}\n", "ppo: ~\n", "reward.args:\n"])
def test_a_section_of_comments_is_an_empty_section(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert resolve(file=file) == resolve()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfppo:\r\n  lr: 3e-4\r\n", b"ppo:\r  lr: 3e-4\r"])
def test_marks_and_line_ends_make_no_difference(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    assert load_file(file) == {"ppo": {"lr": 3e-4}}


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nname: x\nseed: 2", "line 3: seed stands here and in line 1"),
        ("ppo: {lr: 1,\n lr: 2}", "line 2: lr stands here and in line 1"),
        ("'seed': 1\nseed: 2", "line 2: seed stands here and in line 1"),
        ("reward:\n  args:\n    a: 1\n    a: 2", "line 4: a stands here and in line 3"),
        ("a: &a [*a]", "line 1: *a stands inside of what it names"),
        ("a: &a\n  b: {c: *a}", "line 2: *a stands inside"),
        ("a: *b", "line 1: *b names nothing"),
        (bomb(12), "more than 10,000 values"),
        ("a: " + "[" * 100_000, "more than 32 lists and mappings inside each other"),
        ("{a: " * 60_000, "more than 32 lists and mappings"),
        ("- " * 60_000, "more than 32 lists and mappings"),
        ("\n".join(f"k{n}: 1" for n in range(20_000)), "more than 10,000 values"),
        ("seed: " + "9" * 5000, "seed: a number of 5,000 characters"),
        ("reward: {args: {x: 0." + "1" * 5000 + "}}", "reward.args.x: a number of 5,002 characters"),
        ("seed: 1\n---\nseed: 2", "line 2: a second document begins"),
        ("seed: !!int 1", "line 1: the tag !!int is not accepted"),
        ("a: !!python/object/apply:os.system [true]", "line 1: the tag !!python/object/apply:os.system is not"),
        ("ppo:\n\tlr: 1", "line 2: found character '\\t'"),
        ("? [a]\n: 1", "line 1: a list or mapping is no key"),
        ("<<: 3", "line 1: << takes a mapping"),
        ("a: 'x", "line 1: found unexpected end of stream"),
        ("a: b: c", "line 1: mapping values are not allowed here"),
        ('a: "\\q"', "line 1: found unknown escape character"),
        ('a: "\\UFFFFFFFF"', "mine.yaml is no YAML"),
        ("a: 1\nb: \x01", "line 2: character 0x0001 is not accepted"),
        ("a: %x", "line 1: "),
        ("#" * (MAX_BYTES + 1), "is larger than 262,144 bytes"),
    ],
)  # fmt: skip
def test_what_no_settings_can_be_is_refused_at_once(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    tracemalloc.start()
    with pytest.raises(UserError) as caught:
        load_file(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 500
    assert peak < 50e6


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


def test_settings_of_a_sweep_have_the_types_of_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "rates.yaml"
    file.write_text(
        "settings: {tracking.experiment: 2024_11, ppo: {lr: 3e-4}, preset: mnist}\n"
        "arms:\n  007: {reward.kind: a:B, reward.args.target: 1e-1}\n  plain:\n"
        "parameters:\n  ppo.clip: {grid: [1e-1, 2e-1]}\n  text: {cache: {grid: [1.10, 007]}}\n"
        "seeds: 1e1\n"
    )
    sweep = load_sweep(file)
    assert sweep.settings == {"tracking.experiment": "2024_11", "ppo.lr": 3e-4, "preset": "mnist"}
    assert sweep.arms == {"007": {"reward.kind": "a:B", "reward.args.target": 0.1}, "plain": {}}
    assert sweep.parameters["ppo.clip"].values == (0.1, 0.2)
    assert sweep.parameters["text.cache"].values == ("1.10", "007")
    assert len(sweep.seeds) == 10
    saved = plain(parse_yaml(dump_yaml(sweep.model_dump(mode="json")), "x"))
    assert validate_sweep(saved) == sweep


def test_no_file_is_read_with_yaml_1_1() -> None:
    package = Path(ExperimentConfig.__module__.replace(".", "/")).parts[0]
    sources = [file for file in Path(package).rglob("*.py") if file.name != "yaml_reader.py"]
    assert len(sources) > 100
    assert not [file for file in sources if "import yaml" in file.read_text("utf-8")]
