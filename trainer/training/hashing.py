"""Numbers that look drawn, and are a pure function of others: the same on every rank and device."""

from __future__ import annotations

from torch import Tensor

# 2^64 by the golden ratio, and SplitMix64's factors, as signed numbers.
_GOLDEN, *_FACTORS = (
    number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def mixed(number: Tensor) -> Tensor:
    """64 bits for each number, as SplitMix64 makes them; right shifts keep the sign."""
    number = number + _GOLDEN
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        number = (number ^ (number >> shift)) * factor
    return number ^ (number >> 31)
