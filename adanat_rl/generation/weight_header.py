"""The header of a safetensors file, and whether a network fits it: all that is decided before a tensor is read.

Nothing is built to the sizes that a file claims. Its network is first laid out on torch's meta device, which holds
shapes and no numbers, with no more tensors and no larger ones than the file really has.
"""

from __future__ import annotations

import inspect
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.json_files import parse_json
from adanat_rl.config.plain_files import require_plain_file

FORMAT = "adanat-rl network 1"
_MAX_HEADER_BYTES = 4 * 2**20  # a thousand times that of a small network, a hundred times that of a large one
_MAX_ARGUMENTS = 64 * 2**10  # characters
_CALLS_PER_TENSOR, _CALLS_AT_LEAST = 200, 4_000  # of torch, while a network is laid out; real ones take a tenth
_VALUES_AT_LEAST = 2**20  # buffers that no file holds may have so many
_FROM_ZERO = {"condition_width", "hooks", "numbers", "dropout"}  # what counts, or numbers things, from 0
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Facts = tuple[tuple[int, ...], torch.dtype | str]
"""Shape and dtype of a tensor; of a dtype that no network here has, its name in the file."""


@dataclass(frozen=True)
class WeightHeader:
    """What a safetensors file says before its numbers.

    Args:
        tensors: shape and dtype by name. metadata: texts by name.
    """

    tensors: Mapping[str, Facts]
    metadata: Mapping[str, str]

    @property
    def kind(self) -> str | None:
        """Which network of this product it holds; None for a file of another program."""
        return self.metadata.get("kind", "unknown") if self.metadata.get("format") == FORMAT else None


def read_header(path: Path) -> WeightHeader:
    """The header of a file; its length and its offsets are checked against the file, its tensors are not read.

    Raises:
        UserError: the file is missing, no plain file, damaged, or no safetensors.
    """
    size = require_plain_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(_SHOWN_BYTES)
            length = int.from_bytes(start[:8], "little")
            if not _begins_like_one(start) or length > size - 8 or length > _MAX_HEADER_BYTES:
                raise UserError(f"{path} is damaged or no safetensors file: {_reason(path, start, size)}")
            file.seek(8)
            content = parse_json(file.read(length))
        if not isinstance(content, dict):
            raise UserError(f"{path} is damaged or no safetensors file: its header is no object")
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            tensors = {
                name: (tuple(one.get_shape()), _DTYPES.get(one.get_dtype(), str(one.get_dtype())))
                for name, one in slices.items()
            }
            return WeightHeader(tensors, dict(opened.metadata() or {}))
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = reason_of(getattr(error, "strerror", None) or error)[:200]
        raise UserError(f"{path} is damaged or no safetensors file: {reason}") from None


def network_arguments(path: Path, header: WeightHeader, classes: Mapping[str, type[nn.Module]]) -> dict[str, Any]:
    """What the constructor of a file's network takes, each of the type that the class names.

    Raises:
        UserError: the network is of another program or of another kind, or its arguments do not fit the class.
    """
    kind = header.kind
    if kind is None or kind not in classes:
        found = f"unknown format {header.metadata.get('format')!r}" if kind is None else kind
        hint = f"; a file of another program is made into one by: adanat-rl import-checkpoint {path}"
        raise UserError(f"{path} holds: {found}; accepted here: {', '.join(classes)}{hint if kind is None else ''}")
    try:
        text = header.metadata["arguments"]
        if len(text) > _MAX_ARGUMENTS:
            raise ValueError(f"they have {len(text):,} characters, at most {_MAX_ARGUMENTS:,} are accepted")
        arguments = parse_json(text)
        if not isinstance(arguments, dict):
            raise TypeError("they are no JSON object")
        _check_arguments(classes[kind], arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(_unbuildable(path, kind, error)) from None
    return arguments


def lay_out(
    build: Callable[[], nn.Module], path: Path, what: str, tensors: Mapping[str, Facts], stored_as: str | None = None
) -> nn.Module:
    """A network on the meta device whose tensors are those of a file by name, shape and dtype.

    It takes no memory and no random draws, however large the sizes are that a file claims.

    Args:
        build: makes it. what: its kind, for messages. tensors: those of the file.
        stored_as: "float16": the file may hold float32 tensors of the network as float16.

    Raises:
        UserError: it cannot be built, or does not fit the file.
    """
    try:
        with _bounded(tensors):
            network = build()
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise UserError(_unbuildable(path, what, error)) from None
    wanted = {name: _facts(tensor) for name, tensor in network.state_dict().items()}
    if stored_as == "float16":
        tensors = {name: _as_float32(facts, wanted.get(name)) for name, facts in tensors.items()}
    refuse_misfits(path, wanted, tensors)
    return network


def refuse_oversized(build: Callable[[], object], folder: Path, what: str) -> None:
    """Lays out another library's network, which would take whatever its settings claim, within what its files hold.

    Args:
        build: makes it from its settings. folder: holds its weights, in one or several safetensors files. what: the
            settings, for messages.

    Raises:
        UserError: it asks for more or larger tensors than the files have, or cannot be built at all.
    """
    tensors: dict[str, Facts] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= read_header(path).tensors
    try:
        with _bounded(tensors):
            build()
    except Exception as error:  # the library raises many types for settings that do not go together
        raise UserError(f"{what}: {type(error).__name__}: {reason_of(error)[:200]}") from None


def refuse_misfits(path: Path, wanted: Mapping[str, Facts], found: Mapping[str, Facts]) -> None:
    """Compares names, shapes and dtypes.

    Raises:
        UserError: naming what is missing, too many or of another shape.
    """
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    for problem, names in (("lacks", missing), ("has too many", extra), ("has another shape or dtype of", other)):
        if names:
            shown = ", ".join(name[:80] for name in names[:5])
            raise UserError(f"{path} {problem}: {shown}{f' and {len(names) - 5} more' if len(names) > 5 else ''}")


def facts_of(tensors: Mapping[str, Tensor]) -> dict[str, Facts]:
    """Shape and dtype of tensors by name."""
    return {name: _facts(tensor) for name, tensor in tensors.items()}


def refuse_non_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Numbers of a network must be numbers; one pass over them, without a copy.

    Raises:
        UserError: naming the tensors that hold NaN or infinity.
    """
    bad = sorted(name for name, tensor in tensors.items() if not _is_finite(tensor))
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise UserError(f"{path} holds values that are no finite numbers, in {shown}")


def other_program(start: bytes) -> str | None:
    """What a file is by its first bytes, if it is of a kind that people have in hand in place of weights."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not a checkpoint: what was saved is a page of the web site; download the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`"
    return None


_SHOWN_BYTES = 256
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def _begins_like_one(start: bytes) -> bool:
    return len(start) >= 9 and start[8:9] == b"{"


def _reason(path: Path, start: bytes, size: int) -> str:
    """Why a file is no safetensors, and what to do with it."""
    if not start:
        return "it is empty"
    known = other_program(start)
    if known is not None:
        return f"it is {known}"
    if start.startswith(_ZIP) and _is_archive_of_arrays(path):
        return "it is an .npz of arrays"
    if start.startswith((_ZIP, _PICKLE)):
        return f"it is a checkpoint of torch; make a file of adanat-rl of it: adanat-rl import-checkpoint {path}"
    if not _begins_like_one(start):
        return "it does not begin with a header"
    length = int.from_bytes(start[:8], "little")
    if length > size - 8:
        return f"its header would have {length:,} bytes, the whole file has {size:,}"
    return f"its header has {length:,} bytes, at most {_MAX_HEADER_BYTES:,} are accepted"


def _is_archive_of_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


# There are no numbers to change, to multiply or to draw here: only shapes count. Torch would import its decompositions
# for these, which takes seconds.
_FILLING = frozenset(
    (
        "normal_",
        "uniform_",
        "trunc_normal_",
        "fill_",
        "zero_",
        "constant_",
        "kaiming_uniform_",
        "xavier_uniform_",
        "normalize",
    )
)
_PRODUCTS = {"mv": 1, "dot": 0, "vdot": 0}  # rank of the result; of the power iteration of spectral norms
_SCALINGS = frozenset(("div", "__truediv__", "mul", "__mul__", "__rmul__", "exp"))  # by one number
_DRAWS = frozenset(("rand", "randn"))


@contextmanager
def _bounded(tensors: Mapping[str, Facts]) -> Iterator[None]:
    """Inside, networks are laid out on the meta device, within what a file holds.

    To switch gradients on again is a call too, so the construction may be ended in it: they are switched on out here.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled()), torch.device("meta"), _Bounded(tensors):
        yield


class _Bounded(TorchFunctionMode):
    """Ends a construction that makes more tensors, or larger ones, than a file holds."""

    def __init__(self, tensors: Mapping[str, Facts]) -> None:
        super().__init__()
        self._num_tensors = len(tensors)
        self._calls_left = _CALLS_AT_LEAST + _CALLS_PER_TENSOR * len(tensors)
        self._largest = max([_VALUES_AT_LEAST, *(_num_values(shape) for shape, _ in tensors.values())])

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._calls_left -= 1
        if self._calls_left < 0:
            raise ValueError(f"they ask for more tensors than the {self._num_tensors} in the file")
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in _FILLING:
            return args[0] if args else kwargs.get("tensor", kwargs.get("input"))
        if name in _PRODUCTS and len(args) == 2:
            return args[0].new_empty(args[0].shape[: _PRODUCTS[name]])
        if name in _SCALINGS and not (len(args) > 1 and isinstance(args[1], Tensor) and args[1].dim()):
            return args[0]
        is_drawn = name in _DRAWS or (name == "arange" and len(args) == 1)
        result = torch.empty(*args, **kwargs) if is_drawn else function(*args, **kwargs)
        if isinstance(result, Tensor) and result.numel() > self._largest:
            raise ValueError(f"they ask for a tensor of {result.numel():,} numbers, the file holds no such one")
        return result


def _num_values(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _check_arguments(cls: type[nn.Module], arguments: Mapping[str, Any]) -> None:
    """Names, types and signs of a constructor's arguments; a number given as text, a whole number with a fraction and
    a boolean in place of a number are all refused.
    """
    inspect.signature(cls).bind(**arguments)
    hints = get_type_hints(cls.__init__)
    for name, value in arguments.items():
        if name in hints:
            try:
                TypeAdapter(hints[name]).validate_json(json.dumps(value), strict=True)
            except ValidationError:
                raise TypeError(f"{name} is {json.dumps(value)[:60]}, of another type") from None
        least = 0 if name in _FROM_ZERO else 1
        if any(number < least for number in _whole_numbers(value)):
            raise ValueError(f"{name} is {json.dumps(value)[:60]}; accepted: {least} or more")


def _whole_numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, int) and not isinstance(one, bool)]


def _unbuildable(path: Path, kind: str, error: Exception) -> str:
    return f"{path}: cannot build a {kind} of its arguments: {type(error).__name__}: {reason_of(error)[:200]}"


def _facts(tensor: Tensor) -> Facts:
    return tuple(tensor.shape), tensor.dtype


def _as_float32(found: Facts, wanted: Facts | None) -> Facts:
    halved = found[1] is torch.float16 and wanted is not None and wanted[1] is torch.float32
    return (found[0], torch.float32) if halved else found


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    low, high = tensor.aminmax()  # both are NaN if any number is
    return bool(low.isfinite()) and bool(high.isfinite())
