"""The state dicts in a checkpoint: where they lie, which of them are averaged over training, and which one is taken.

Trainers keep two sets of weights, the raw ones that the optimizer moves and a moving average of them, which is what
people publish numbers of. They are told apart by what they are called, in the ways of the usual libraries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adanat_rl.config.errors import UserError, nearest

AVERAGED, RAW = "ema", "model"
_AVERAGED_WORDS = {"ema", "averaged", "average", "averaging", "avg", "swa", "teacher", "shadow", "polyak"}
_RAW_WORDS = {"online", "student", "raw", "current"}
_NO_WEIGHTS = {"opt", "optim", "optimizer", "optimizers", "scheduler", "schedulers", "scaler", "rng", "loss"}
_WRAPPERS = ("state_dict", "model_state_dict", "teacher", "model", "module", "ema", "nnet_ema", "params")
_SHADOW = "shadow_params"  # a list in the order of the parameters: torch_ema, diffusers' EMAModel
_COUNTED = ("running_mean", "running_var", "num_batches_tracked", "position_ids")  # buffers, which nobody averages
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "nnet.")
_PREFIXES_BESIDE = ("ema_model.", "model_ema.", "ema.", "teacher.", "online_model.", "student.")
_COUNTERS = {"n_averaged", "initted", "step", "decay", "num_updates"}  # that lie among averaged tensors
_MAX_DEPTH = 4


@dataclass(frozen=True)
class Weights:
    """One state dict of a checkpoint.

    Args:
        place: its keys from the outside, joined by dots; "" for the outermost mapping.
        state: tensors by name, without the prefixes of wrapping modules.
    """

    place: str
    state: dict[str, Tensor]

    @property
    def is_averaged(self) -> bool:
        """Whether its name says that these are averages; the innermost key that says anything decides."""
        for part in reversed(self.place.split(".")):
            if _AVERAGED_WORDS & _words(part):
                return True
            if _RAW_WORDS & _words(part):
                return False
        return False


def find_weights(content: Mapping[str, Any]) -> list[Weights]:
    """All state dicts in a checkpoint, the outermost first; those of optimizers are none."""
    found = list(_walk(content, "", 0))
    raw = next((one for one in found if not one.is_averaged), None)
    lists = list(_lists(content, "", 0))
    if raw is not None:
        named = ((place, _named(values, raw.state)) for place, values in lists)
        found += [Weights(place, state) for place, state in named if state is not None]
    return found


def choose(found: Sequence[Weights], choice: str | None, fits: Callable[[Weights], bool], path: Path) -> Weights:
    """The weights that are meant: averaged ones where there are any, unless a person says otherwise.

    Args:
        choice: "ema", "model", or a place. fits: whether they are of a network that is known.

    Raises:
        UserError: there are none like that.
    """
    known = [one for one in found if fits(one)] or list(found)
    if choice is None:
        return min(known, key=lambda one: (not one.is_averaged, _rank(one)))
    if choice in (AVERAGED, RAW):
        alike = [one for one in known if one.is_averaged == (choice == AVERAGED)]
        if alike:
            return min(alike, key=_rank)
    chosen = next((one for one in found if one.place == choice), None)
    if chosen is None:
        places = [one.place or "the file itself" for one in found]
        raise UserError(
            f"--weights: {choice!r} is not in {path}; it holds weights in: {', '.join(places[:10])}"
            f"{nearest(choice, places)}"
        )
    return chosen


def others_of(found: Sequence[Weights], taken: Weights) -> list[str]:
    """What else there is of the same network, one line each, with what to type for it."""
    lines = []
    for one in found:
        if one is not taken and one.state.keys() == taken.state.keys():
            kind = "averaged" if one.is_averaged else "raw"
            lines.append(f"{one.place}: {kind} weights of the same network; --weights {one.place} takes them")
    return lines


def only_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a mapping by name."""
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def stripped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrapping modules put before every name."""
    counted = {name: value for name, value in state.items() if name not in _COUNTERS}
    for prefix in _PREFIXES:
        if counted and all(name.startswith(prefix) for name in counted):
            return stripped(below(counted, prefix))
    return counted if len(counted) < len(state) and any("." in name for name in counted) else state


def _walk(content: Mapping[str, Any], place: str, depth: int) -> Iterator[Weights]:
    tensors = only_tensors(content)
    if tensors:
        yield from _parts(place, tensors)
    if depth == _MAX_DEPTH:
        return
    for key, value in content.items():
        if isinstance(value, Mapping) and not (_NO_WEIGHTS & _words(str(key))):
            yield from _walk(value, _joined(place, str(key)), depth + 1)


def _parts(place: str, tensors: dict[str, Tensor]) -> Iterator[Weights]:
    """A state dict as it is, or the networks in it where one module held the raw and the averaged one."""
    groups = {prefix: below(tensors, prefix) for prefix in _PREFIXES_BESIDE}
    groups = {prefix: state for prefix, state in groups.items() if len(state) > 1}
    inside = {f"{prefix}{name}" for prefix, state in groups.items() for name in state}
    rest = {name: value for name, value in tensors.items() if name not in inside}
    if rest and not (groups and all(name in _COUNTERS for name in rest)):
        yield Weights(place, stripped(rest))
    for prefix, state in groups.items():
        yield Weights(_joined(place, prefix.rstrip(".")), _dotted(stripped(state), stripped(rest)))


def _dotted(state: dict[str, Tensor], raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with their dots back where a library took them out, and the buffers that it did not average."""
    flat = {name.replace(".", ""): name for name in raw}
    if not flat or any("." in name for name in state) or not state.keys() & flat.keys():
        return state
    named = {flat[name]: value for name, value in state.items() if name in flat}
    return {name: named.get(name, value) for name, value in raw.items()}


def _lists(content: Mapping[str, Any], place: str, depth: int) -> Iterator[tuple[str, list[Tensor]]]:
    for key, value in content.items():
        where = _joined(place, str(key))
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from _lists(value, where, depth + 1)
        elif key == _SHADOW and isinstance(value, list | tuple) and all(isinstance(one, Tensor) for one in value):
            yield where, [one.detach() for one in value]


def _named(values: Sequence[Tensor], raw: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """A list of averages under the names of the parameters that it follows; None where it does not follow them."""
    parameters = [name for name, value in raw.items() if value.is_floating_point() and not name.endswith(_COUNTED)]
    if [raw[name].shape for name in parameters] != [value.shape for value in values]:
        return None
    return {**raw, **dict(zip(parameters, values, strict=True))}


def _rank(one: Weights) -> tuple[int, int]:
    first = one.place.split(".")[0]
    return (_WRAPPERS.index(first) if first in _WRAPPERS else len(_WRAPPERS) * bool(one.place), len(one.place))


def _words(text: str) -> set[str]:
    return set(re.split(r"[^a-z]+", text.lower()))


def _joined(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
