"""YAML as settings: types are those of the schema, what cannot be meant is refused, and nothing grows."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import dump, load_file, resolve
from adanat_rl.config.sweep_settings import load_sweep, validate_sweep

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
        ("a: 'x", "line 1: found end of stream"),
        ("a: b: c", "line 1: mapping values are not allowed here"),
        ('a: "\\q"', "line 1: found unknown escape character"),
        ('a: "\\UFFFFFFFF"', "mine.yaml is no YAML"),
        ("a: 1\nb: \x01", "line 2: character 0x0001 is not accepted"),
        ("a: %x", "line 1: "),
        ("#" * (256 * 1024 + 1), "is larger than 262,144 bytes"),
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
    saved = yaml.safe_load(yaml.safe_dump(sweep.model_dump(mode="json")))
    assert validate_sweep(saved) == sweep
