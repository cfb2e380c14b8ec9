"""Makes what is generated: configuration.md from the schema, weights.md from the catalogue, architecture.svg from the
imports, the tables of README and judges.md.

python docs/make_docs.py            # writes them
python docs/make_docs.py --check    # fails if a committed one is not what would be written
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import textwrap
import tomllib
from collections import Counter
from pathlib import Path

import grimp
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as MplPath
from readme_tables import with_tables
from weights_page import weights_markdown

from adanat_rl.config.loading import settings_markdown

ROOT = Path(__file__).parent
README = ROOT.parent / "README.md"
INK, MUTED, FILL, ACCENT = "#1f2937", "#6b7280", "#f1f5f9", "#2563eb"
UNDRAWN = {"registration", "forking", "stopping", "version"}  # single modules at the bottom
WIDTH, ROW, BOX, BOX_WIDTH, BOX_RIGHT = 10.0, 0.62, 0.44, 1.5, 6.0


def layer_rows() -> list[list[str]]:
    """The layers of the import contract, top down; commands are one box."""
    contracts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = [[name.strip() for name in layer.split("|")] for layer in contracts[0]["layers"]]
    rows = [["commands"] if "train" in row else row for row in rows]
    drawn = [[name for name in row if name not in {"cli", *UNDRAWN}] for row in rows]
    return [row for row in drawn if row]


def imports_between(rows: list[list[str]]) -> Counter[tuple[str, str]]:
    """How many imports lead from one box to another."""
    graph = grimp.build_graph("adanat_rl")
    boxes = {name for row in rows for name in row}
    counts: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = (_box(module, boxes), _box(imported, boxes))
            if pair[0] and pair[1] and pair[0] != pair[1]:
                counts[pair[0], pair[1]] += 1
    return counts


def _box(module: str, boxes: set[str]) -> str:
    parts = module.split(".")
    if len(parts) < 2:
        return ""
    if parts[1] in boxes:
        return parts[1]
    return "commands" if len(parts) == 2 and parts[1] not in UNDRAWN else ""


def architecture() -> bytes:
    """The picture: the layers from top to bottom, an arc from each package to every package that it imports."""
    rows = layer_rows()
    counts = imports_between(rows)
    names = [name for row in rows for name in row]
    height = ROW * len(names) + 0.6
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.set_axis_off()
    places = {name: height - ROW * (index + 0.5) - 0.1 for index, name in enumerate(names)}
    for (source, target), count in sorted(counts.items()):
        _arc(axes, places[source], places[target], count)
    for name, y in places.items():
        corner = (BOX_RIGHT - BOX_WIDTH, y - BOX / 2)
        axes.add_patch(
            FancyBboxPatch(corner, BOX_WIDTH, BOX, boxstyle="round,pad=0,rounding_size=0.09", fc=FILL, ec=INK, lw=1)
        )
        axes.text(BOX_RIGHT - BOX_WIDTH / 2, y, name, ha="center", va="center", color=INK, fontsize=11, weight="bold")
        text = "\n".join(textwrap.wrap(purpose(name), 52))
        axes.text(BOX_RIGHT - BOX_WIDTH - 0.2, y, text, ha="right", va="center", color=MUTED, fontsize=8.5)
    note = (
        "made from the code's imports: an arc leads down to what is imported, thicker for more imports; none leads up"
    )
    axes.text(WIDTH / 2, 0.2, note, ha="center", va="center", color=MUTED, fontsize=8)
    with matplotlib.rc_context({"svg.hashsalt": "adanat-rl", "svg.fonttype": "path"}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    return buffer.getvalue()


def purpose(name: str) -> str:
    """What a package owns: the first line of its docstring."""
    if name == "commands":
        return "One module per user command, thin."
    text = (ROOT.parent / "adanat_rl" / name / "__init__.py").read_text()
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def _arc(axes: Axes, source: float, target: float, count: int) -> None:
    """Half an ellipse on the right side, from the importer down to what it imports."""
    reach = BOX_RIGHT + 0.55 + 0.48 * (source - target)
    path = MplPath(
        [(BOX_RIGHT, source - 0.07), (reach, source - 0.07), (reach, target + 0.07), (BOX_RIGHT + 0.03, target + 0.07)],
        [MplPath.MOVETO, MplPath.CURVE4, MplPath.CURVE4, MplPath.CURVE4],
    )
    width = 0.7 + 0.5 * min(count, 12) ** 0.7
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=9, color=ACCENT, lw=width, alpha=0.55))


def main() -> int:
    """Writes, or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    files = {
        ROOT / "configuration.md": settings_markdown().encode(),
        ROOT / "weights.md": weights_markdown().encode(),
        ROOT / "figures" / "architecture.svg": architecture(),
        **{page: with_tables(page.read_text()).encode() for page in (README, ROOT / "judges.md")},
        **{
            ROOT / name: with_tables((ROOT / name).read_text()).encode()
            for name in ("rewards.md", "probe.md", "sweeps.md")
        },
    }
    stale = []
    for path, content in files.items():
        if not path.exists() or path.read_bytes() != content:
            stale.append(path)
            if not arguments.check:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
    if arguments.check and stale:
        print(f"out of date: {', '.join(str(path.relative_to(ROOT.parent)) for path in stale)}; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
