"""Command `import-checkpoint`: published weights of others as files of this product, checked; see docs/weights.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adanat_rl.cli import COMMANDS, EXIT_DONE, CommandParser, Invocation, run_command
from adanat_rl.config.errors import UserError

_COMMAND = "import-checkpoint"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(_COMMAND, argv, _main)


def _main(invocation: Invocation) -> int:
    arguments = _parser().parse_args(invocation.argv)
    if (arguments.file is None) == (arguments.verify is None):
        raise UserError("give a FILE to import, or --verify FILE to check what was imported")
    for option, value, what in (("heads", arguments.heads, "heads"), ("image-size", arguments.image_size, "pixels")):
        if value is not None and value < 1:
            raise UserError(f"--{option}: {value} is not accepted: expected {what}, at least 1")
    from adanat_rl.experiment.importing.recognition import known_kind
    from adanat_rl.experiment.importing.run import ImportOptions, import_file, verify_file

    if arguments.verify is not None:
        verify_file(arguments.verify, _tell)
        return EXIT_DONE
    options = ImportOptions(
        settings=lambda preset, horizon: _settings(arguments, preset, horizon),
        policy_options=_policy_options(arguments),
        kind=None if arguments.kind is None else known_kind(arguments.kind),
        weights=arguments.weights,
        num_heads=arguments.heads,
        image_size=arguments.image_size,
        convention=arguments.convention,
        output=arguments.output,
        overwrite=arguments.overwrite,
        dry_run=arguments.dry_run,
    )
    import_file(arguments.file, options, _tell)
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    text = COMMANDS[_COMMAND]
    parser = CommandParser(
        prog=f"adanat-rl {_COMMAND}", description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    add = parser.add_argument
    add("file", nargs="?", type=Path, metavar="FILE", help="checkpoint of torch, safetensors, or statistics (.npz)")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="policies: settings, such as generator.block_rows=16")
    add("--output", metavar="PATH", type=Path, help="where the result goes (default: the place the presets name)")
    add("--kind", metavar="KIND", help="what the file is, if it is not recognised")
    add(
        "--weights",
        metavar="WHICH",
        help="of a file with several: ema, model, or their place in it such as ema.shadow_params (default: ema, where "
        "averaged weights lie beside raw ones)",
    )
    add("--heads", metavar="N", type=int, help="NATs: attention heads (default: 8 for width 768, 16 for 1152)")
    add("--image-size", metavar="N", type=int, help="tokenizers: pixels of a side (default: 256)")
    add("--convention", metavar="NAME", help="statistics: resize convention, torch_fidelity or vendored")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--preset", metavar="NAME", help="policies: what they were trained with (default: by width)")
    source.add_argument("--config", metavar="FILE.yaml", type=Path, help="policies: the same as settings of your own")
    add("--nat", metavar="FILE", help="policies: their NAT, if it is not where the preset says")
    add("--tokenizer", metavar="FILE", help="policies: their tokenizer, likewise")
    add("--horizon", metavar="T", type=int, help="policies: steps of an image (default: 8, AdaGen's 16)")
    add("--verify", metavar="PATH", type=Path, help="check an imported file or policy folder, print its checksum again")
    add("--overwrite", action="store_true", help="replace a result that is there")
    add("--dry-run", action="store_true", help="say what the file is and whether it is complete, write nothing")
    return parser


def _settings(arguments: argparse.Namespace, preset: str, horizon: int | None) -> Any:
    """The configuration whose generator and decisions a policy belongs to; what was typed goes before what is usual."""
    from adanat_rl.config.loading import resolve

    overrides = [] if horizon is None or arguments.config else [f"generator.horizon={horizon}"]
    overrides += arguments.overrides
    typed = ((key, getattr(arguments, key)) for key in ("horizon", "nat", "tokenizer"))
    overrides += [f"generator.{key}={value}" for key, value in typed if value is not None]
    return resolve(arguments.preset or (None if arguments.config else preset), arguments.config, overrides)


def _policy_options(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Those that were given and mean something for policies alone."""
    given = [f"--{key}" for key in ("preset", "config", "nat", "tokenizer", "horizon") if getattr(arguments, key)]
    return (*given, *arguments.overrides)


def _tell(line: str) -> None:
    print(line)


if __name__ == "__main__":
    sys.exit(main())
