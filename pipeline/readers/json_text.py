"""JSON as Python reads it, such that what is JSON does not depend on who asks."""

from __future__ import annotations

import json
import re
import sys
import threading
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from msgspec import DecodeError
from msgspec.json import Decoder

NOT_JSON = "not JSON"
NOT_OBJECT = "not a JSON object"
NOT_USUAL = (DecodeError, RecursionError)
"""What msgspec raises for a text that it does not accept."""

_DEEPEST = 2_000  # of nested lists and objects
_SHALLOW = 200  # far from Python's own limit
_LIMIT_RAISED = threading.Lock()
Row = TypeVar("Row")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def decode(text: str) -> Any:
    """The value of one JSON text. Of equal keys the last counts; NaN and Infinity are null.

    Raises:
        ValueError: it is not JSON, or nests deeper than 2,000.
    """
    depth = _depth(text) if text.count("[") + text.count("{") > _SHALLOW else 0
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if depth <= _SHALLOW:
        # Python's limit counts the callers' frames too: what is JSON must not depend on them.
        with suppress(RecursionError):
            return _DECODER.decode(text)
    # The limit is one for all threads: none may lower it while another one relies on it.
    with _LIMIT_RAISED:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + 2 * _DEEPEST)
        try:
            return _DECODER.decode(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        finally:
            sys.setrecursionlimit(limit)


def decode_lines(decoder: Decoder[Row], data: bytes) -> list[Row] | None:
    """The objects of whole lines at once; None where some line may hold no object, or several."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    begins = np.concatenate([[0], ends[:-1] + 1])
    # msgspec passes over white space of any kind: such a line holds objects, and no part of one.
    if not ((text[begins] == ord("{")).all() and (text[ends - 1] == ord("}")).all()):
        return None
    try:
        if not data.isascii():
            data.decode()  # what msgspec passes over it does not look at
        rows = decoder.decode_lines(data)
    except (*NOT_USUAL, UnicodeDecodeError):
        return None
    return rows if len(rows) == len(ends) else None


def is_text(value: Any) -> bool:
    """Whether `value` is a string that can be stored as UTF-8 (it has no lone surrogate)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_of_id(value: Any) -> str | None:
    """The id that a value stands for: a string that is not empty, or an integer; None for none."""
    if type(value) is int:  # bool is a kind of int
        return str(value)
    return value if value and is_text(value) else None


def _depth(text: str) -> int:
    """How deeply lists and objects nest in JSON."""
    deepest = depth = 0
    for mark in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _int(text: str) -> int | float:
    # Python refuses integers of thousands of digits; none of more than 20 can be a time or an id.
    return int(text) if len(text) <= 20 else float("inf")


_DECODER = json.JSONDecoder(parse_int=_int, parse_constant=lambda _: None)
