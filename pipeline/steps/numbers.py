"""Numbers of rows: how each is scaled, by what train holds.

Sums are exact, whatever the order of the rows and however they are cut into buckets, so that no
digit depends on either.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, isqrt, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.arrays import Bools, Floats

# Logarithms this close are of one number: a deviation made of them would be their rounding. So are
# numbers that differ by so small a part of themselves.
_ONE_NUMBER = 1e-9
# Sums are whole multiples of 2 ** -_UNIT: the square of the smallest number is one.
_UNIT = 2_300
_HALF = 27
_OF = {"log": "natural logarithm", "standard": "number", "none": "number as it is"}


def usable(numbers: Floats, scale: str) -> Bools:
    """(numbers,) which have a value that can be scaled; the others become 0.

    Args:
        numbers: NaN where there is none.
        scale: `log`, `standard` or `none`. A logarithm is of a number above 0; as it is, a
            number has to fit in a float of 32 bits.
    """
    if scale == "log":
        return (numbers > 0) & (numbers < np.inf)
    if scale == "standard":
        return np.isfinite(numbers)
    fits: Bools = np.abs(numbers) <= np.finfo(np.float32).max
    return fits


def _values(numbers: Floats, scale: str) -> tuple[Bools, Floats]:
    """Which are usable; and what is scaled, 0 for others."""
    some = usable(numbers, scale)
    values = np.zeros(len(numbers))
    values[some] = np.log(numbers[some]) if scale == "log" else numbers[some]
    return some, values


@dataclass(frozen=True)
class Moments:
    """What is known of some numbers; the whole is the sum of its parts.

    Attributes:
        count: how many there are.
        total: their sum, in units of 2 ** -`_UNIT`.
        squares: that of their squares, in the same units.
        low: the least; infinite where there is none.
        high: the greatest.
    """

    count: int = 0
    total: int = 0
    squares: int = 0
    low: float = np.inf
    high: float = -np.inf

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            min(self.low, other.low),
            max(self.high, other.high),
        )

    @property
    def mean(self) -> float:
        """Their mean, rounded once; 0 of none."""
        return self.total / (self.count << _UNIT) if self.count else 0.0

    @property
    def std(self) -> float:
        """Their standard deviation, that of all of them; 0 of none."""
        if not self.count:
            return 0.0
        variance = self.squares * (self.count << _UNIT) - self.total * self.total
        return isqrt(variance) / (self.count << _UNIT)


def moments(numbers: Floats, scale: str) -> Moments:
    """What is known of the usable ones of some numbers, as they are scaled: of their logarithms."""
    some, values = _values(numbers, scale)
    values = values[some]
    if not len(values):
        return Moments()
    fraction, exponent = np.frexp(values)
    whole = np.ldexp(fraction, 53).astype(np.int64)
    exponent = exponent.astype(np.int64) - 53
    high, low = whole >> _HALF, whole & ((1 << _HALF) - 1)
    squares = ((high * high, 2 * _HALF), (high * low, _HALF + 1), (low * low, 0))
    return Moments(
        len(values),
        _exact(whole, exponent),
        sum(_exact(part, 2 * exponent + shift) for part, shift in squares),
        float(values.min()),
        float(values.max()),
    )


def _exact(whole: npt.NDArray[np.int64], exponent: npt.NDArray[np.int64]) -> int:
    """The sum of whole * 2 ** exponent, in units of 2 ** -`_UNIT`."""
    by = np.argsort(exponent, kind="stable")
    whole, exponent = whole[by], exponent[by]
    firsts = np.flatnonzero(np.diff(exponent, prepend=exponent[0] - 1))
    total = 0
    # Halves: their sums fit in 64 bits, however many there are.
    for part, shift in ((whole >> _HALF, _HALF), (whole & ((1 << _HALF) - 1), 0)):
        sums = np.add.reduceat(part, firsts)
        for one, power in zip(sums.tolist(), exponent[firsts].tolist(), strict=True):
            total += one << (power + shift + _UNIT)
    return total


def fitted(found: Moments, scale: str) -> dict[str, Any]:
    """How numbers are scaled of which train holds `found`; as the manifest has it."""
    std = found.std if _differ(found.low, found.high, scale) else 1.0
    return _told(scale, found.mean, std, found.count)


def fitted_by_place(numbers: Floats, shown: npt.NDArray[np.int64], scale: str) -> dict[str, Any]:
    """As `fitted`, of numbers that are looked up.

    Args:
        numbers: (places,) NaN where there is none.
        shown: (places,) train rows of each.
        scale: as of `usable`.
    """
    some, values = _values(numbers, scale)
    weight = np.where(some, shown, 0)
    total, seen = int(weight.sum()), values[weight > 0]
    if not total:
        return _told(scale, 0.0, 1.0, 0)
    # Products are rounded, but there is one a place, however the rows are cut into buckets. None
    # is beyond what a float holds.
    unit = 1.0 if scale == "log" else float(np.abs(seen).max()) or 1.0
    values = np.where(weight > 0, values, 0) / unit
    mean = fsum((values * weight).tolist()) / total
    variance = fsum(((values - mean) ** 2 * weight).tolist()) / total
    differ = _differ(float(seen.min()), float(seen.max()), scale)
    return _told(scale, mean * unit, sqrt(variance) * unit if differ else 1.0, total)


def _differ(low: float, high: float, scale: str) -> bool:
    """Whether numbers, as they are scaled, are more than one."""
    return high - low > _ONE_NUMBER * (1.0 if scale == "log" else max(abs(low), abs(high)))


def _told(scale: str, mean: float, std: float, rows: int) -> dict[str, Any]:
    if scale == "none":
        return {"of": _OF[scale], "mean": 0.0, "std": 1.0}
    return {"of": _OF[scale], "mean": mean, "std": std, "train_rows": rows}


def scaled(numbers: Floats, scale: str, how: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Numbers as rows have them: 0 for what is missing or not usable, which is the mean.

    What is too far from those of train for a float of 32 bits becomes the furthest that it holds.
    """
    some, values = _values(numbers, scale)
    most = float(np.finfo(np.float32).max)
    with np.errstate(over="ignore"):
        found = np.where(some, (values - how["mean"]) / how["std"], 0.0)
    return np.clip(found, -most, most).astype(np.float32)


def as_told(numbers: Floats, how: dict[str, Any]) -> npt.NDArray[np.float32]:
    """As `scaled`, by what the manifest says of the column."""
    scale = next(scale for scale, of in _OF.items() if of == how["of"])
    return scaled(numbers, scale, how)
