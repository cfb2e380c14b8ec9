"""What a set of features must be before anything is measured on it; the rest is refused by the name of the set."""

from __future__ import annotations

from torch import Tensor

from adanat_rl.config.errors import RunError, UserError


class NonFiniteError(RunError, ValueError):
    """A network gave numbers that are NaN or infinite: a failure at run time, and a wrong argument of a function."""


def checked_rows(rows: Tensor, name: str, *, fewest: int = 0, width: int | None = None, use: str = "") -> Tensor:
    """The same rows in float64, if something can be measured on them.

    Args:
        rows: `[N, D]` of any real type; half precision is widened, not computed in.
        name: what they are, such as "features of the generated images". fewest: N at least. width: D, if it is known.
        use: what they are for, told where there are too few.

    Returns:
        Float64 `[N, D]` on the same device, without a gradient.

    Raises:
        UserError: another shape, or too few rows. NonFiniteError: NaN or infinite numbers.
    """
    expected = f"[N, {width if width is not None else 'D'}]"
    if rows.dim() != 2 or not rows.shape[1] or width not in (None, rows.shape[1]):
        raise UserError(f"{name} are {list(rows.shape)}, expected {expected}")
    if rows.is_complex():
        raise UserError(f"{name} are complex, expected real numbers")
    if len(rows) < fewest:
        raise UserError(f"{use or name}: {fewest} images or more are needed; {name} are of {len(rows)}")
    checked_finite(rows, name)
    return rows.detach().double()


def checked_finite(values: Tensor, name: str) -> Tensor:
    """The same values, if all are finite.

    Raises:
        NonFiniteError: naming how many are not.
    """
    bad = int((~values.isfinite()).sum())
    if bad:
        raise NonFiniteError(f"{name} are not finite: {bad:,} of {values.numel():,} numbers are NaN or infinite")
    return values
