"""What people type who come from Stable-Baselines3, Hydra, Lightning or argparse, in this product's own words.

It is understood where the meaning is plain, and answered with the exact words to type where it is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adanat_rl.config.errors import UserError
from adanat_rl.config.problems import SYNONYMS, keys_meant

_NUMBER = re.compile(r"-(\d|\.\d|\.?inf)")  # what begins with a dash and is a value
_GPU_SHARES = ("env_runner", "reward_actor", "learner", "driver")
# Commands that draw in their own process, so that a device is the driver's.
_DRIVER_ALONE = frozenset({"sample", "evaluate", "probe", "search"})
_GOES_ON = frozenset({"train", "sweep", "search"})
_RESUME = frozenset({"resume", "continue", "auto-resume", "resume-from-checkpoint", "ckpt-path", "load-checkpoint"})
# Options that another of this product is named like.
_OPTIONS = {
    "-c": "--config", "-q": "--quiet", "-o": "--output", "-n": "--dry-run", "--cfg": "--config",
    "--config-file": "--config", "--config-name": "--config", "--output-dir": "--run-dir", "--out-dir": "--run-dir",
    "--logdir": "--run-dir", "--log-dir": "--run-dir", "--save-dir": "--run-dir", "--rundir": "--run-dir",
    "--default-root-dir": "--run-dir", "--dryrun": "--dry-run", "--silent": "--quiet", "--json": "--log-json",
    "--out": "--output", "--num-seeds": "--seeds", "--n-seeds": "--seeds",
}  # fmt: skip
# What has no single meaning here, and the words for each. Keys that a command does not take are left out.
_SEVERAL = {
    "epochs": {"training.num_iterations": "policy updates of the run", "ppo.num_epochs": "passes over a train batch"},
    "max_epochs": {"training.num_iterations": "policy updates of the run", "ppo.num_epochs": "passes over a batch"},
    "batch_size": {
        "training.trajectories_per_iteration": "images of a policy update",
        "ppo.minibatch_size": "env steps of a gradient step",
        "reward.adversarial.batch_size": "images of a discriminator step",
        "pretraining.batch_size": "images of a training step",
        "evaluation.batch_size": "images drawn at once in an evaluation",
        "text.batch_size": "captions of one pass",
    },
    "train_batch_size": {"training.trajectories_per_iteration": "images of a policy update"},
    "num_workers": {
        "resources.num_env_runners": "processes that draw images",
        "data.num_workers": "threads that decode images from files",
    },
    "n_jobs": {"resources.num_env_runners": "processes that draw images"},
    "total_timesteps": {"training.num_iterations": "policy updates; each takes trajectories_per_iteration × horizon"},
    "n_steps": {"generator.horizon": "steps of an image", "training.trajectories_per_iteration": "images of an update"},
    "num_steps": {"generator.horizon": "steps of an image", "training.num_iterations": "policy updates of the run"},
    "steps": {"generator.horizon": "steps of an image", "training.num_iterations": "policy updates of the run"},
    "max_steps": {"training.num_iterations": "policy updates of the run"},
    "gpus": {f"resources.num_gpus_per_{who}": f"share of a GPU of each {who}" for who in _GPU_SHARES},
    "num_gpus": {f"resources.num_gpus_per_{who}": f"share of a GPU of each {who}" for who in _GPU_SHARES},
    "cpus": {"resources.num_env_runners": "processes that draw images", "resources.torch_threads": "threads of each"},
}  # fmt: skip
_ANSWERS = {
    "multirun": "many runs are a sweep: write a file such as tune_configs/credit.yaml, and type adanat-rl sweep FILE",
    "gamma": "there is no discount: the reward of an image is the return of each of its steps; leave it out",
    "gae_lambda": "there is no GAE: the reward of an image is the return of each of its steps; see ppo.advantage=",
    "lambda": "there is no GAE: the reward of an image is the return of each of its steps; see ppo.advantage=",
    "wandb": "metrics go to MLflow and metrics.jsonl; type tracking.uri=URL, or tracking.enabled=false for none",
    "no_wandb": "type tracking.enabled=false",
    "verbose": "messages are shown unless --quiet is given; leave it out",
    "debug": "messages are shown unless --quiet is given; leave it out",
    "algo": "the algorithm is PPO; its variants are ppo.advantage=critic, group_relative or leave_one_out",
    "env": "the environment is the generator; type --preset NAME, or generator.nat=FILE",
}


@dataclass
class Typed:
    """A command line in this product's own words.

    Args:
        words: what to parse. notes: what was understood, one phrase each: `--lr 1e-4 as ppo.lr=1e-4`.
    """

    words: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def understand(
    command: str,
    argv: Sequence[str],
    options: Mapping[str, bool],
    keys: Sequence[str],
    presets: Callable[[], Sequence[str]],
) -> Typed:
    """The command line in this product's words.

    Args:
        options: the command's options, and whether each takes a value. keys: settings that the command takes; none for
            a command without settings. presets: names of the presets, looked up only if need be.

    Raises:
        UserError: something is known, but means several things here or nothing; the message has the words to type.
    """
    typed, rest = Typed(), list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            typed.words += [word, *rest]
            break
        name, has_value, _ = word.partition("=")
        if name in options:
            typed.words.append(word)
            if options[name] and not has_value and rest:
                typed.words.append(rest.pop(0))
        elif word.startswith("-") and len(word) > 1 and not _NUMBER.match(word):
            _option(command, word, rest, options, keys, typed)
        else:
            _word(command, word, rest, options, keys, presets, typed)
    return typed


def _option(
    command: str, word: str, rest: list[str], options: Mapping[str, bool], keys: Sequence[str], typed: Typed
) -> None:
    """Something with dashes that is no option of the command."""
    name, given, value = word.partition("=")
    plain = name.lstrip("-").lower().replace("-", "_")
    same = _OPTIONS.get(name.lower().replace("_", "-"), f"--{plain.replace('_', '-')}")
    if same in options:
        taken = [same + given + value]
        if options[same] and not given and rest:
            taken.append(rest.pop(0))
        _take(typed, " ".join([word, *taken[1:]]), taken)
    elif plain in {"resume", "continue", "auto_resume"} and command in _GOES_ON and not (given or _is_folder(rest)):
        typed.notes.append(f"{word} as nothing: the same command always goes on where it stopped")
    elif plain.replace("_", "-") in _RESUME and command in _GOES_ON and (given or _is_folder(rest)):
        folder = value if given else rest.pop(0)
        _take(typed, f"{word}{'' if given else ' ' + folder}", ["--run-dir", _run_of(folder)])
    elif plain in {"m", "multirun"}:
        raise UserError(f"{word}: {_ANSWERS['multirun']}")
    elif plain in {"v", "vv"}:
        raise UserError(f"{word}: {_ANSWERS['verbose']}")
    elif plain in {"device", "accelerator"} and keys:
        _device(command, word, value if given else _value_of(word, rest), keys, typed)
    elif plain in {"cpu", "no_cuda", "no_gpu"} and keys and not given:
        _device(command, word, "cpu", keys, typed)
    elif keys:
        _setting(word, plain, given, value, rest, keys, typed)
    else:
        typed.words.append(word)  # argparse says that it is unknown


def _setting(word: str, plain: str, given: str, value: str, rest: list[str], keys: Sequence[str], typed: Typed) -> None:
    """A setting that was typed like an option."""
    several = {key: what for key, what in _SEVERAL.get(plain, {}).items() if key in keys}
    if several:
        shown = value if given else rest[0] if rest and _is_value(rest[0]) else "N"
        raise UserError(f"{word}: type " + ", or ".join(f"{key}={shown} ({what})" for key, what in several.items()))
    if plain in _ANSWERS:
        raise UserError(f"{word}: {_ANSWERS[plain]}")
    found = keys_meant(plain, keys)
    if not found:
        typed.words.append(word)
        return
    is_plain = len(found) == 1 or SYNONYMS.get(plain) == found[0]
    if not is_plain:
        shown = value if given else rest[0] if rest and _is_value(rest[0]) else "VALUE"
        raise UserError(f"{word}: type " + ", or ".join(f"{key}={shown}" for key in found))
    text = value if given else _value_of(word, rest, such_as=f"{found[0]}=VALUE")
    _take(typed, word if given else f"{word} {text}", [f"{found[0]}={text}"])


def _device(command: str, word: str, device: str, keys: Sequence[str], typed: Typed) -> None:
    """`--device`: this product reserves GPUs by what runs where, not by one name."""
    shares = [f"resources.num_gpus_per_{who}" for who in _GPU_SHARES]
    if not set(shares) <= set(keys):
        raise UserError(f"{word}: {command} has no device; leave it out")
    if device.lower() == "cpu":
        _take(typed, _with(word, device), [f"{key}=0" for key in shares])
    elif command in _DRIVER_ALONE and device.lower() in {"cuda", "gpu", "cuda:0"}:
        _take(typed, _with(word, device), ["resources.num_gpus_per_driver=1"])
    else:
        example = " ".join(f"{key}={share}" for key, share in zip(shares, ("0.3", "0.2", "0.3", "0.2"), strict=True))
        raise UserError(f"{word}: GPUs are reserved for each kind of worker; for one GPU type {example}")


def _word(
    command: str,
    word: str,
    rest: list[str],
    options: Mapping[str, bool],
    keys: Sequence[str],
    presets: Callable[[], Sequence[str]],
    typed: Typed,
) -> None:
    """Something without dashes: a setting, a file, or a word of another library's command line."""
    if word == "help" and not typed.words:
        _take(typed, word, ["--help"])
    elif not keys:
        typed.words.append(word)
    elif word.startswith("~") and word[1:].partition("=")[0] in keys:
        raise UserError(f"{word!r}: a setting cannot be removed; type {word[1:].partition('=')[0]}=VALUE")
    elif "=" in word:
        _assignment(word, keys, typed)
    elif "--config" in options and word.endswith((".yaml", ".yml")) and command != "sweep" and Path(word).is_file():
        _take(typed, word, ["--config", word])
    elif "--run-dir" in options and command == "train" and (Path(word) / "config.yaml").is_file():
        _take(typed, word, ["--run-dir", word])
    elif word.rstrip(":") in keys:
        key, after = word.rstrip(":"), [other for other in rest if other != "="]
        value = after[0] if after and "=" not in after[0] and _is_value(after[0]) else "VALUE"
        raise UserError(f"{word!r} is no override; expected KEY=VALUE without spaces: type {key}={value}")
    elif (
        "--preset" in options
        and "--preset" not in typed.words
        and "/" not in word
        and not Path(word).exists()
        and word in presets()
    ):
        _take(typed, word, ["--preset", word])
    else:
        typed.words.append(word)


def _assignment(word: str, keys: Sequence[str], typed: Typed) -> None:
    """`KEY=VALUE`, also as Hydra writes it."""
    key, _, value = word.partition("=")
    plain = key.lstrip("+").replace("/", ".").replace("__", ".")
    if plain != key and (plain in keys or key.startswith("+")):
        _take(typed, word, [f"{plain}={value}"])
    else:
        typed.words.append(word)


def _with(word: str, value: str) -> str:
    """An option and its value, as they were typed."""
    is_whole = "=" in word or not word.lstrip("-").startswith(("device", "accelerator"))
    return word if is_whole else f"{word} {value}"


def _take(typed: Typed, what: str, words: Sequence[str]) -> None:
    typed.words += words
    typed.notes.append(f"{what} as {' '.join(words)}")


def _value_of(word: str, rest: list[str], such_as: str = "") -> str:
    """The value behind an option.

    Raises:
        UserError: there is none.
    """
    if not rest or not _is_value(rest[0]):
        raise UserError(f"{word}: expected a value{f'; type {such_as}' if such_as else ''}")
    return rest.pop(0)


def _is_value(word: str) -> bool:
    return not word.startswith("-") or _NUMBER.match(word) is not None


def _is_folder(rest: Sequence[str]) -> bool:
    return bool(rest) and _is_value(rest[0]) and "=" not in rest[0] and (Path(rest[0]).exists() or "/" in rest[0])


def _run_of(folder: str) -> str:
    """The run that a checkpoint lies in, or the folder itself."""
    path = Path(folder)
    inside = next((parent for parent in path.parents if parent.name == "checkpoints"), None)
    return str(inside.parent if inside is not None else path.parent if path.name == "checkpoints" else path)
