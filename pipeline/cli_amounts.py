"""Amounts as they are written on the command line."""

from __future__ import annotations

from schemas.errors import UsageError


def as_bytes(text: str) -> int:
    """'2GB', '1500MB' or '1.5g' as bytes."""
    units = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    trimmed = text.strip().lower().removesuffix("b").removesuffix("i")
    number, unit = (trimmed[:-1], trimmed[-1]) if trimmed[-1:] in "kmgt" else (trimmed, "")
    try:
        value = int(float(number) * units[unit])
    except (KeyError, ValueError):
        value = 0
    if value < 1:
        raise UsageError(
            "--memory is no amount of memory.",
            where="--memory",
            expected="e.g. 2GB or 1500MB",
            got=text,
        )
    return value


def as_share(text: str, option: str) -> float:
    """'0.1%' or '0.001' as a share; `option` is where it was given."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(
            f"{option} is no share.", where=option, expected="e.g. 0.1%", got=text
        ) from None
