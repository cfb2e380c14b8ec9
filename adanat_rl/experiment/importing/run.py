"""The way of a file: read, recognised, converted and checked, written, read back, compared, its outputs recorded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adanat_rl.config.catalogue import CATALOGUE, WEIGHTS_FOLDER
from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.importing.checksums import (
    NETWORK_CLASSES,
    RECORD_SUFFIX,
    Checksum,
    check_against_record,
    network_checksum,
    statistics_checksum,
    write_record,
)
from adanat_rl.experiment.importing.networks import ImportedNetwork, network_of
from adanat_rl.experiment.importing.policies import (
    CRITIC_FILE,
    DISCRIMINATOR_FILE,
    POLICY_NETWORK_KIND,
    ImportedPolicy,
    import_policy,
    usual_settings,
    write_policy,
)
from adanat_rl.experiment.importing.reading import ForeignFile, read_foreign
from adanat_rl.experiment.importing.recognition import Checkpoint, Kind, recognise
from adanat_rl.generation.policies.files import DESCRIPTION_FILE, WEIGHTS_FILE, load_policy
from adanat_rl.generation.weights import load_network, read_tensors, save_network
from adanat_rl.metrics.statistics import load_statistics, save_statistics

_POLICY_RECORD = "import.json"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ImportOptions:
    """What a person may say about a file.

    Args:
        settings: what a policy belongs to: from the usual preset and horizon to a configuration, with what the person
            said in their place.
        policy_options: options that were given and mean something for policies alone.
        num_heads: of a NAT. image_size: of a tokenizer. convention: resize convention of statistics.
        kind: what the file is, in place of what its names say.
        weights: which weights of a file that holds several: "ema", "model", or their place in it.
        output: where the result goes, None: the catalogue's place for it.
        overwrite: whether a result that is there is replaced. dry_run: whether nothing is written.
    """

    settings: Callable[[str, int | None], ExperimentConfig]
    kind: Kind | None = None
    weights: str | None = None
    num_heads: int | None = None
    image_size: int | None = None
    convention: str | None = None
    policy_options: tuple[str, ...] = ()
    output: Path | None = None
    overwrite: bool = False
    dry_run: bool = False


def import_file(path: Path, options: ImportOptions, tell: Tell) -> None:
    """Imports a file; `tell` is given what happens, line by line.

    Raises:
        UserError: it is no checkpoint that is known, not complete, or does not fit.
    """
    file = read_foreign(path)
    checkpoint = recognise(file, options.kind, options.weights)
    _refuse_options(checkpoint, options, path)
    if checkpoint.kind == "statistics":
        _import_statistics(file, options, tell)
    elif checkpoint.kind == "policy":
        _import_policy(file, checkpoint, options, tell)
    else:
        _import_network(file, checkpoint, options, tell)


def verify_file(path: Path, tell: Tell) -> None:
    """Prints the checksum of an imported file or policy folder again and compares it with the record beside it.

    Raises:
        UserError: it is none, or not what was imported.
    """
    if path.is_dir():
        for name, (kind, network) in _policy_networks(path).items():
            checksum = network_checksum(kind, network)
            compared = check_against_record(path / _POLICY_RECORD, path / name, checksum)
            tell(f"{path / name}: checksum {checksum.describe()}, {compared}")
        return
    record = path.with_name(path.name + RECORD_SUFFIX)
    if path.suffix == ".npz":
        checksum = statistics_checksum(load_statistics(path))
    else:
        kind = read_tensors(path)[1].get("kind", "")
        network = load_network(path, NETWORK_CLASSES)
        checksum = network_checksum(kind, network)
    tell(f"{path}: checksum {checksum.describe()}, {check_against_record(record, path, checksum)}")


def _import_network(file: ForeignFile, checkpoint: Checkpoint, options: ImportOptions, tell: Tell) -> None:
    sizes = {"num_heads": options.num_heads, "image_size": options.image_size}
    network = network_of(checkpoint.kind, checkpoint.state, file.path, **sizes)
    tell(f"{file.path}: {checkpoint.kind}, {len(checkpoint.state)} tensors, {network.num_values:,} values")
    if checkpoint.taken:
        tell(f"weights: {checkpoint.taken}")
    tell(f"sizes: {', '.join(f'{key} {value}' for key, value in network.arguments.items()) or 'the only ones'}")
    _tell_notes([*network.notes, *checkpoint.left_out], tell)
    output = _free_output(options, catalogued_place(network), tell)
    if output is None:
        return
    with _put_in_place(output) as scratch:
        save_network(scratch, network.kind, network.arguments, network.network)
        checksum = _checked_copy(scratch, network)
    record = output.with_name(output.name + RECORD_SUFFIX)
    write_record(record, {output.name: checksum}, _facts(file, checkpoint, kind=network.kind))
    tell(f"{output}: read back and equal; checksum {checksum.describe()}")


def _import_policy(file: ForeignFile, checkpoint: Checkpoint, options: ImportOptions, tell: Tell) -> None:
    config = options.settings(*usual_settings(checkpoint))
    facts = {"imported_from": file.path.name, "sha256": file.sha256, **checkpoint.counters}
    policy = import_policy(checkpoint, file.path, config, facts)
    spec, decisions = policy.exported.spec, config.decisions
    tell(f"{file.path}: policy with {', '.join(checkpoint.parts)}, {policy.actor.num_values:,} values in the actor")
    if checkpoint.taken:
        tell(f"weights: {checkpoint.taken}")
    tell(
        f"made for: {spec.horizon} steps, {spec.feature_length} tokens, features of width {spec.feature_width}; "
        f"actions are {'offsets to the base schedule' if decisions.residual else 'whole pre-activations'}, "
        f"smoothing {decisions.smoothing:g} (settings {config.name})"
    )
    notes = [note for network in (policy.actor, *policy.networks.values()) for note in network.notes]
    _tell_notes([*notes, *checkpoint.left_out], tell)
    output = _free_output(options, Path(WEIGHTS_FOLDER) / config.name / "policy", tell, folder=True)
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    write_policy(output, policy)
    checksums = _checked_policy(output, policy)
    write_record(output / _POLICY_RECORD, checksums, _facts(file, checkpoint, kind=POLICY_NETWORK_KIND))
    for name, checksum in checksums.items():
        tell(f"{output / name}: read back and equal; checksum {checksum.describe()}")
    tell(f"use it: adanat-rl sample --policy {output}")


def _import_statistics(file: ForeignFile, options: ImportOptions, tell: Tell) -> None:
    statistics = load_statistics(file.path, options.convention)
    count = "a number of images that it does not say" if statistics.count is None else f"{statistics.count} images"
    tell(f"{file.path}: Fréchet statistics of {count}, {len(statistics.mean)} features, {statistics.convention}")
    output = _free_output(options, None, tell)
    if output is None:
        return
    if output.suffix != ".npz":
        raise UserError(f"--output: {output} is not accepted: Fréchet statistics are an .npz")
    save_statistics(output, statistics)
    again = load_statistics(output)
    if not (torch.equal(again.mean, statistics.mean) and torch.equal(again.covariance, statistics.covariance)):
        raise _differs(output, "the statistics")
    checksum = statistics_checksum(again)
    record = output.with_name(output.name + RECORD_SUFFIX)
    write_record(record, {output.name: checksum}, {"source": file.path.name, "source_sha256": file.sha256})
    tell(f"{output}: read back and equal; checksum {checksum.describe()}")


def _checked_copy(path: Path, wanted: ImportedNetwork) -> Checksum:
    """The checksum of a file that was written, after comparing all of its tensors."""
    network = load_network(path, NETWORK_CLASSES)
    _compare(path, network, wanted.network)
    return network_checksum(wanted.kind, network)


def _checked_policy(folder: Path, policy: ImportedPolicy) -> dict[str, Checksum]:
    wanted: dict[str, nn.Module] = {WEIGHTS_FILE: policy.exported.actor}
    wanted |= {name: network.network for name, network in policy.networks.items()}
    found = _policy_networks(folder)
    for name, network in wanted.items():
        _compare(folder / name, found[name][1], network)
    return {name: network_checksum(kind, network) for name, (kind, network) in found.items()}


def _policy_networks(folder: Path) -> dict[str, tuple[str, nn.Module]]:
    """Kind and network of each weight file in a policy folder."""
    exported = load_policy(folder)
    if not exported.spec.needs_features:
        raise UserError(f"{folder / DESCRIPTION_FILE} describes a {exported.spec.kind} policy, a table; nothing to run")
    networks: dict[str, tuple[str, nn.Module]] = {WEIGHTS_FILE: (POLICY_NETWORK_KIND, exported.actor)}
    for name in (CRITIC_FILE, DISCRIMINATOR_FILE):
        if (folder / name).is_file():
            kind = read_tensors(folder / name)[1].get("kind", "")
            networks[name] = (kind, load_network(folder / name, NETWORK_CLASSES))
    return networks


def _compare(path: Path, found: nn.Module, wanted: nn.Module) -> None:
    theirs = found.state_dict()
    for name, tensor in wanted.state_dict().items():
        if not torch.equal(theirs[name], tensor):
            raise _differs(path, name)


def _differs(path: Path, name: str) -> RunError:
    return RunError(f"{path} was written, but {name} reads back differently: the disk or the memory is at fault")


def _free_output(options: ImportOptions, default: Path | None, tell: Tell, *, folder: bool = False) -> Path | None:
    """Where the result goes, a file or a policy's folder; None in a dry run."""
    output = options.output or default
    if options.dry_run:
        tell(f"complete; nothing written (dry run){f'; it would go to {output}' if output else ''}")
        return None
    if output is None:
        raise UserError("--output: needed: the catalogue has no place, or not a single one, for a file of these sizes")
    if output.exists() and not options.overwrite:
        raise UserError(f"--output: {output} exists; choose another place, or --overwrite")
    if output.is_dir() and not (folder and (output / DESCRIPTION_FILE).is_file()):
        raise UserError(f"--output: {output} is a folder and no {'policy' if folder else 'file'}; it is not replaced")
    return output


@contextmanager
def _put_in_place(output: Path) -> Iterator[Path]:
    """A place beside a result, which the result leaves for its own when all is well: what fails a check is not kept."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: {output}: {error.filename}: {error.strerror}") from None
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".importing-") as folder:
        scratch = Path(folder) / output.name
        yield scratch
        scratch.replace(output)


def catalogued_place(network: ImportedNetwork) -> Path | None:
    """The place of a network with these sizes in the presets; None if there is none, or more than one."""
    places = [
        Path(entry.path)
        for entry in CATALOGUE
        if entry.kind == network.kind
        and all(network.arguments.get(key) == value for key, value in entry.arguments.items())
    ]
    return places[0] if len(places) == 1 else None


def _facts(file: ForeignFile, checkpoint: Checkpoint, *, kind: str) -> Mapping[str, Any]:
    return {
        "source": file.path.name,
        "source_sha256": file.sha256,
        "kind": kind,
        "weights": checkpoint.taken,
        "counters": dict(checkpoint.counters),
        "left_out": list(checkpoint.left_out),
    }


def _refuse_options(checkpoint: Checkpoint, options: ImportOptions, path: Path) -> None:
    """Options that say nothing about this kind of file are mistakes."""
    takers: dict[str, tuple[object, str]] = {
        "--heads": (options.num_heads, "nat"),
        "--image-size": (options.image_size, "tokenizer"),
        "--weights": (options.weights if checkpoint.kind == "statistics" else None, "a checkpoint of torch"),
        "--convention": (options.convention, "statistics"),
        **dict.fromkeys(options.policy_options, (True, "policy")),
    }
    for option, (value, kind) in takers.items():
        if value is not None and checkpoint.kind != kind:
            raise UserError(f"{option}: only {kind} takes it; {path} is: {checkpoint.kind}")


def _tell_notes(notes: Sequence[str], tell: Tell) -> None:
    for note in notes:
        tell(f"note: {note}")
