"""Numbers as text: digits, spread, counts, durations; a true minus sign, thousands apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def fixed(value: float, digits: int = 3) -> str:
    """A number with so many decimals."""
    text = f"{value:,.{digits}f}"
    return ("−" + text[1:]) if text.startswith("-") and text.strip("-0.,") else text.removeprefix("-")


def with_spread(value: Mapping[str, float], digits: int = 3) -> str:
    """`mean ± sd`."""
    return f"{fixed(value['mean'], digits)} ± {fixed(value['sd'], digits)}"


def trimmed(value: float) -> str:
    """A number with at most one decimal: `6`, `5.4`, `1,200`."""
    return fixed(value, 0 if abs(value - round(value)) < 0.05 else 1)


def compact(value: float) -> str:
    """A count in few characters: `250`, `2k`, `2.5k`, `1.2M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time span in its two largest units: `59 s`, `4 min 10 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def time_unit(seconds: float) -> tuple[str, float]:
    """Name and length in seconds of the unit that suits a time span."""
    if seconds < 180:
        return "s", 1.0
    return ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)


def plural(count: int, word: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
