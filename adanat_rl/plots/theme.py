"""The look of figures: theme colours, sizes and axes; a figure as SVG that follows the page's theme, or as PNG.

Figures are drawn in the light colours. In the SVG each of them becomes a CSS variable, so that the page decides.
Sizes are in inches, and small: an SVG scales, and 4.6 inches with text of 8.5 points stay readable on a phone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

INK, MUTED, LINE = "#1d1f23", "#5d636b", "#dcd8d1"  # text, second text, rules and grids
ACCENT, SECOND = "#2458b8", "#b0501c"  # the policy of this run; whatever is set against it
PAPER, CARD = "#fbfaf8", "#fffffe"

LIGHT = {"ink": INK, "muted": MUTED, "line": LINE, "accent": ACCENT, "second": SECOND, "paper": PAPER, "card": CARD}
DARK = {
    "ink": "#e9e7e2",
    "muted": "#a3a8b0",
    "line": "#363a41",
    "accent": "#8db6ff",
    "second": "#f2a36b",
    "paper": "#131518",
    "card": "#1b1e22",
}

WIDE = (4.6, 2.9)  # a chart that stands two to a row on a desk, alone on a phone
SMALL = (2.3, 1.55)  # four to a row, two on a phone
TEXT_PT, TITLE_PT, SMALL_PT = 8.5, 9.5, 7.5
BAND_ALPHA = 0.16

_PNG_DPI = 200
_CHARACTER = 0.58  # mean width of a character, in its size
_MARGIN = 0.12  # around a PNG, in inches
_TAG = re.compile(r"<[^>]*>")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}


def new_axes(size: tuple[float, float], title: str, *, right: float = 0.14, left: float = 0.47) -> tuple[Figure, Axes]:
    """A figure with one pair of axes and a title above.

    Args:
        size: width and height. right, left: margins beside the axes. All in inches.
    """
    from matplotlib.figure import Figure  # takes a third of a second; whoever trains without plots is spared it

    width, height = size
    top, bottom = 0.34, 0.44 if height > SMALL[1] else 0.38
    figure = Figure(figsize=size)
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    dress(axes)
    figure.text(0, 1 - 0.07 / height, title, size=TITLE_PT, weight="bold", color=INK, va="top", parse_math=False)
    return figure, axes


def dress(axes: Axes) -> None:
    """Takes everything off that carries no data and sets colours and sizes."""
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LINE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_tick_formatter()())
    axes.tick_params(length=0, labelsize=TEXT_PT, labelcolor=MUTED, pad=4)
    axes.grid(axis="y", color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)


@cache
def _tick_formatter() -> type[ScalarFormatter]:
    """Numbers that stand for themselves: an offset or a power of ten beside the axis would lie over its labels."""
    from matplotlib.ticker import ScalarFormatter

    class Ticks(ScalarFormatter):
        def __init__(self) -> None:
            super().__init__(useOffset=False)
            self.set_powerlimits((-3, 6))

        def __call__(self, x: float, pos: int | None = None) -> str:
            if not self.orderOfMagnitude:
                return str(super().__call__(x, pos))
            return f"{x:.2g}".replace("-", "\N{MINUS SIGN}")

        def get_offset(self) -> str:
            return ""

    return Ticks


def label_x(axes: Axes, text: str) -> None:
    """Names the horizontal axis."""
    axes.set_xlabel(text, size=TEXT_PT, color=MUTED, labelpad=4, parse_math=False)


def text_width(text: str, size_pt: float = TEXT_PT) -> float:
    """About how wide a text is, in inches."""
    return len(text) * _CHARACTER * size_pt / 72


def spread_labels(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves labels apart as little as their order allows.

    Args:
        positions: where they belong. gap: least distance between two. low, high: where they stay, if there is room.
    """
    order = np.argsort(positions, kind="stable")
    blocks: list[list[int]] = []  # of neighbours that touch, each centred on where its members belong
    centres: list[float] = []

    def centre(block: list[int]) -> float:
        half = gap * (len(block) - 1) / 2
        wanted = float(np.mean([positions[index] for index in block]))
        return min(max(wanted, low + half), max(high - half, low + half))

    for index in order:
        blocks.append([int(index)])
        centres.append(centre(blocks[-1]))
        while len(blocks) > 1 and centres[-1] - centres[-2] < gap * (len(blocks[-1]) + len(blocks[-2])) / 2 - 1e-12:
            last = blocks.pop()
            centres.pop()
            blocks[-1] += last
            centres[-1] = centre(blocks[-1])
    moved = [0.0] * len(positions)
    for block, middle in zip(blocks, centres, strict=True):
        for rank, index in enumerate(block):
            moved[index] = middle + gap * (rank - (len(block) - 1) / 2)
    return moved


def svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an `<svg>` element for a page.

    Args:
        name: unique on the page; keeps the ids of two figures apart. alt: what is to be seen, for those who do not.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
    return _for_page(buffer.getvalue(), alt)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, with a margin."""
    from matplotlib.transforms import Bbox

    buffer = io.BytesIO()
    width, height = figure.get_size_inches()
    figure.savefig(
        buffer,
        format="png",
        dpi=_PNG_DPI,
        facecolor=PAPER,
        bbox_inches=Bbox([[-_MARGIN, -_MARGIN], [width + _MARGIN, height + _MARGIN]]),
        metadata={"Software": None},
    )
    return buffer.getvalue()


def _for_page(text: str, alt: str) -> str:
    """Strips what a page does not need, shortens numbers and puts variables in place of colours."""
    from markupsafe import escape

    _, opening, rest = text.partition("<svg ")
    head, _, body = rest.partition(">")
    view = re.search(r'viewBox="[^"]*"', opening + head)
    body = re.sub(r"<style type.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: match.group() if match.group(1) in used else "", body)
    body = _TAG.sub(lambda tag: _LONG_NUMBER.sub(_two_decimals, tag.group()), body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda match: _VARIABLES.get(match.group(), match.group()), body)
    body = re.sub(r"\s*\n\s*", "\n", re.sub(r"<defs>\s*</defs>", "", body))
    return f'<svg class="chart" {view.group() if view else ""} role="img" aria-label="{escape(alt)}">{body}'.rstrip()


def _two_decimals(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")
