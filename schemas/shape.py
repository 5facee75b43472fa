"""Decoded JSON held to the types of a dataclass, so that nothing behind it meets another type."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

_LIMIT = 1 << 63
_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a whole number of 64 bits",
    float: "a number",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


def decode(text: str) -> Any:
    """The value of a JSON text; NaN and infinity are none.

    Raises:
        ValueError: the text is not JSON, nests too deeply, has a number of thousands of digits, or
            text that UTF-8 cannot hold.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    return value


def misfit(value: Any, kind: Any, at: str = "") -> tuple[str, str, str] | None:
    """Where `value`, of decoded JSON, is first of another type than `kind`.

    Args:
        value: what JSON holds.
        kind: a dataclass, whose fields are the keys of an object; `list[X]`; `dict[str, X]`; `str`,
            `bool`, `int` (of 64 bits), `float` (finite), one of these `| None`, or `Any`.
        at: the place of `value`, for the answer.

    Returns:
        The place, what was expected and what is there; None where all is well.
    """
    if kind is Any:
        return None
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, dict):
            return at, _NAMES[dict], _told(value)
        hints = _hints(kind)
        if value.keys() != hints.keys():
            return at, f"an object with just {', '.join(hints)}", f"{', '.join(value)!a}"[:200]
        return _first((value[name], of, f"{at}.{name}") for name, of in hints.items())
    origin = get_origin(kind)
    if origin is UnionType:
        return None if value is None else misfit(value, get_args(kind)[0], at)
    if origin is list:
        if not isinstance(value, list):
            return at, _NAMES[list], _told(value)
        (of,) = get_args(kind)
        if of is int and all(_is(one, int) for one in value):  # perhaps a million
            return None
        return _first((one, of, f"{at}[{k}]") for k, one in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            return at, _NAMES[dict], _told(value)
        of = get_args(kind)[1]
        return _first((one, of, f"{at}.{key}") for key, one in value.items())
    return None if _is(value, kind) else (at, _NAMES[kind], _told(value))


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(kind)


def _first(parts: Iterable[tuple[Any, Any, str]]) -> tuple[str, str, str] | None:
    """The first misfit of some parts."""
    return next((found for part in parts if (found := misfit(*part))), None)


def _is(value: Any, kind: type) -> bool:
    if kind is int:
        return type(value) is int and -_LIMIT <= value < _LIMIT
    if kind is float:
        return is_finite(value)
    return isinstance(value, kind)


def is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _told(value: Any) -> str:
    """A value, short and printable."""
    if type(value) is int and not -_LIMIT <= value < _LIMIT:
        return "a number that is too large"
    shown = value if isinstance(value, str | int | float | NoneType) else _NAMES[type(value)]
    return f"{shown!a}"[:100] if isinstance(value, str) else str(shown)[:100]
