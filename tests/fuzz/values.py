"""Strategies for odd values: scalars, YAML text, settings and whole command lines."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

import yaml
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from adanat_rl.cli import COMMANDS
from adanat_rl.config.loading import leaf_fields, preset_names

FIELDS: dict[str, FieldInfo] = dict(leaf_fields())
LAUNCHING = ("train", "sweep", "search", "pretrain", "probe", "evaluate")
"""Commands that start processes or take long; scenarios type `--dry-run` with them."""

ODD_TEXTS = (
    "", " ", "~", "null", "Null", "true", "YES", "off", "0", "-0", "00", "007", "1_000", "0x10", "0o17", "1e3", "3e-1",
    "1e400", "-1e400", ".inf", "-.inf", ".nan", "nan", "inf", "1.", ".5", "+1", "12:30:00", "2024_11_05", "2024-11-05",
    "1.10", "²", "١٢", "9" * 40, "9" * 5000, "-" + "9" * 30, "4000000000", "[", "]", "{", "}", "[]", "{}", "[1, 2]",
    "{a: 1}", "a: b", "a: b: c", "- a", "# x", "'", '"', "'a", '"\\x00"', "\x00", "\x1b[31m", "\n", "a\nb", "\t", "\\",
    "&a [*a]", "*a", "!!python/object/apply:os.system ['true']", "!!binary x", "%", "@", "`", "|", ">", "?", "...",
    "---",
    "=", "a=b", "../x", "folder", "odd.yaml", ".", "..", "~nobody9", "fifo",
    "x" * 300, "x/" * 3000, "é", "e\u0301", "\ud800", "\U0001f600", "\u202e", "\ufeff", "asset:", "asset:../x",
    "asset:digits/nat.safetensors", "asset:mnist/tokenizer.safetensors", "os:system", "module:", ":function", "a:b:c",
    "s3://bucket/x", "file:///x", "http://bob:secret@host", "localhost:99999", "auto", "local", "cpu", "cuda:9", "--x",
)  # fmt: skip
OPTIONS = (
    "--preset", "--config", "--run-dir", "--policy", "--schedule", "--context", "--prompts", "--per-context", "--seed",
    "--steps", "--output", "--address", "--machine", "--quiet", "--log-json", "--baseline", "--num-images", "--help",
    "--num-repeats", "--offsets", "--reward-from", "--iteration", "--seeds", "--tokens", "--captions", "--statistics",
    "--batch-size", "--device", "--verify", "--horizon", "--nat", "--weights", "--markdown", "--keep-features",
    "--accept-change", "--start-over", "--epochs", "--lr", "--resume", "-h", "-v", "--", "-", "---", "--no-such",
)  # fmt: skip


def texts() -> st.SearchStrategy[str]:
    """Short texts, odd ones often; what no command line can hold is left out."""
    drawn = st.one_of(
        st.sampled_from(ODD_TEXTS), st.text(max_size=12), st.from_regex(r"[-+.\d_eE]{1,8}", fullmatch=True)
    )
    return drawn.map(_typeable)


def _typeable(text: str) -> str:
    """As the operating system hands it over: no zero bytes, and bytes that are no UTF-8 as lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def json_values() -> st.SearchStrategy[Any]:
    """What JSON can hold, and what Python writes as JSON."""
    numbers = st.one_of(
        st.integers(-(10**30), 10**30), st.floats(), st.sampled_from([0, -1, 2**31, 2**63, 1e300, -0.0, 10**400])
    )
    leaves = st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(ODD_TEXTS), st.text(max_size=8))
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    )


def json_text(value: Any) -> str:
    """As text; numbers too long for Python's own limit stay out."""
    try:
        return json.dumps(value)
    except ValueError:
        return "[" * 3000


def _fitting(field: FieldInfo) -> st.SearchStrategy[str]:
    """Values near what a setting takes: of its type, often at a bound or beyond."""
    kinds = _leaf_types(field.annotation)
    drawn: list[st.SearchStrategy[str]] = []
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            drawn.append(st.sampled_from([str(value) for value in typing.get_args(kind)]))
        elif kind is bool:
            drawn.append(st.sampled_from(["true", "false", "yes", "0", "1"]))
        elif kind is int:
            drawn.append(
                st.integers(-2, 300).map(str) | st.sampled_from(["1", "2", "4", "16", "64", str(2**31), "1e3"])
            )
        elif kind is float:
            drawn.append(st.sampled_from(["0.5", "1", "0.1", "1e-4", "2"]))
            drawn.append(
                st.floats(-2, 10).map(str) | st.sampled_from(["0", "1", "1e-4", "1e20", "-1", ".inf", "1e-300"])
            )
        elif kind is type(None):
            drawn.append(st.just("null"))
        else:
            drawn.append(texts())
    return st.one_of(drawn)


def _leaf_types(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(annotation) for kind in _leaf_types(part)]
    if typing.get_origin(annotation) is typing.Annotated:
        return _leaf_types(typing.get_args(annotation)[0])
    return [annotation]


@st.composite
def overrides(draw: st.DrawFn) -> str:
    """`KEY=VALUE`, the key mostly real."""
    key = draw(st.sampled_from(sorted(FIELDS)))
    value = draw(texts() if draw(st.integers(0, 4)) == 0 else _fitting(FIELDS[key]))
    mangled = draw(st.integers(0, 19))
    if mangled == 0:
        key = draw(st.one_of(texts(), st.just(key.upper()), st.just(key.partition(".")[0]), st.just(f"{key}.x")))
    elif mangled == 1:
        key = key.replace(".", draw(st.sampled_from(["..", " . ", ":", "/"])))
    return f"{key}={value}" if draw(st.integers(0, 19)) else key


@st.composite
def yaml_documents(draw: st.DrawFn) -> bytes:
    """Files of settings: proper ones with odd values, ones with a letter changed, and no YAML at all."""
    kind = draw(st.sampled_from(["settings", "settings", "changed", "text", "odd", "bytes"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "odd":
        return draw(st.sampled_from(ODD_YAML))
    if kind == "text":
        return draw(st.lists(texts(), max_size=6)).__str__().encode("utf-8", "replace")
    settings: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=4)):
        place = settings
        *sections, leaf = key.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = draw(st.one_of(_fitting(FIELDS[key]), json_values()))
    text = yaml.safe_dump(settings, allow_unicode=draw(st.booleans()), default_flow_style=draw(st.booleans()))
    if draw(st.booleans()):
        text = text.replace("'", "")  # the values themselves instead of texts
    if kind == "changed":
        at = draw(st.integers(0, max(0, len(text) - 1)))
        text = text[:at] + draw(st.sampled_from([*"\t:-[]{}&*!|>'\"%@`#,?\n ", "\ufeff", "\x00", ""])) + text[at + 1 :]
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"])), "replace")


_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
ODD_YAML = tuple(
    text.encode()
    for text in (
        "", "\n", "# only a comment\n", "ppo:\n", "ppo: ~\n", "ppo:\n  # nothing\n", "---\n---\n", "a: 1\n---\nb: 2\n",
        "ppo: &p {lr: *p}\n", "ppo: {<<: {lr: 1}}\n", "ppo: {lr: 1, lr: 2}\n", "ppo: {lr: 1}\nppo: {lr: 2}\n", _BOMB,
        "[" * 5000, "{" * 5000, "a: " * 2000, "- " * 3000, "? a\n: b\n", "1: 2\n", "null: 1\n", "[1, 2]: 3\n",
        "preset: nowhere\n", "preset: digits\nseed: 3\n", "preset: [digits]\n", "ppo.lr: 1e-4\n", "seed: !!int '3'\n",
        "seed: !!python/name:os.system\n", "name: !!binary aGVsbG8=\n", f"seed: {'9' * 6000}\n", "ppo: [lr, 1]\n",
        "ppo: text\n", "name: 2024_11_05\n", "name: |\n  a\n  b\n", "x" * 200_000, "\t", "a:\tb\n", "@",
        "%YAML 9.9\n---\n",
    )
)  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, ...]:
    """Commands with options, settings and words in any order."""
    command = draw(st.sampled_from([name for name in COMMANDS if name not in {"ui", "doctor", "check-reward"}]))
    words: list[str] = []
    for _ in range(draw(st.integers(0, 4))):
        option = draw(st.sampled_from(OPTIONS))
        value = draw(
            st.one_of(texts(), st.sampled_from([*preset_names(), "odd.yaml", "odd.json", "folder", "1", "0-9"]))
        )
        words += draw(st.sampled_from([[option], [option, value], [f"{option}={value}"], [value]]))
    words += draw(st.lists(overrides(), max_size=3))
    if command in LAUNCHING or (command == "sample" and ("--" in words or draw(st.booleans()))):
        words.insert(0, "--dry-run")
    elif command == "sample":
        words += ["--per-context", "1"]
    first = draw(st.integers(0, 29))
    return (draw(texts()) if first == 0 else command, *words)
