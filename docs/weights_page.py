"""The page `weights.md`: the catalogue of published files as a table, and what `import-checkpoint` takes."""

from __future__ import annotations

from adanat_rl.config.catalogue import CATALOGUE

_HEAD = """\
# Weights and other files of the presets

Made from `adanat_rl/config/catalogue.py` by `make docs`; do not edit.

Nothing is downloaded at run time. `adanat-rl import-checkpoint FILE` turns a published file into one of the product's
own: it recognises what the file is by the names of its tensors, checks names, shapes, types and values, writes
safetensors with the constructor's arguments, reads the result back, compares it, and prints a checksum of what the
network gives on a fixed input. `adanat-rl import-checkpoint --verify FILE` prints it again and says if anything has
changed. Files are read so that nothing in them can run; one that needs code to load is refused, with a line that saves
its weights alone.

Places are those that the presets name, below the folder where commands are typed. What is missing for a preset:
`adanat-rl train --preset NAME --dry-run`.

| file | what it is | published | licence | what to type |
|---|---|---|---|---|
"""

_OPTIONS = """
Licences are what the publishers state, for their code where they say nothing about the weights; "none stated" means
that nothing was found, not that everything is allowed.

## Options of `import-checkpoint`

| option | for |
|---|---|
| `--output PATH` | where the result goes; default: the place in the table of a file with these sizes |
| `--kind KIND` | what is not recognised: nat, tokenizer, policy, image_reward, dino, inception, aesthetic, statistics |
| `--heads N` | NATs: attention heads, which no tensor tells; by default 8 for width 768, 16 for 1152 |
| `--image-size N` | tokenizers: pixels of a side (default 256) |
| `--convention NAME` | Fréchet statistics of others: torch_fidelity or vendored |
| `--preset NAME`, `KEY=VALUE` | policies: the generator and the decisions that they were trained with |
| `--horizon T` | policies: steps of an image (default: 8, or 16 for AdaGen's) |
| `--nat FILE`, `--tokenizer FILE` | policies: the networks that they belong to, if not those of the preset |
| `--dry-run` | says what the file is and whether it is complete; writes nothing |
| `--overwrite` | replaces a result that is there |

A policy becomes a folder that `sample`, `evaluate` and `adanat_rl.load_pipeline` take. Critic and discriminator of a
training checkpoint lie in it as `critic.safetensors` and `discriminator.safetensors`; a training starts with that
discriminator by `reward.adversarial.weights=FOLDER/discriminator.safetensors`. Optimizers are not taken over:
Adam's moments belong to the order of parameters in the program that wrote them, and a training here starts its own.
"""


def weights_markdown() -> str:
    """The page."""
    rows, notes = [], []
    for entry in CATALOGUE:
        mark = ""
        if entry.note:
            if entry.note not in notes:
                notes.append(entry.note)
            mark = f" [{notes.index(entry.note) + 1}]"
        cells = (f"`{entry.path}`", entry.what + mark, entry.published, entry.licence, f"`{entry.command}`")
        rows.append(f"| {' | '.join(cells)} |")
    numbered = [f"{number}. {note[0].upper()}{note[1:]}." for number, note in enumerate(notes, 1)]
    return _HEAD + "\n".join([*rows, "", *numbered, ""]) + _OPTIONS
