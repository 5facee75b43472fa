"""Amazon's review lines, which are JSON objects: an exact reader, and a fast one that agrees.

`read_review` is the truth: Python's json with the choices named there. `scan_reviews` lets Polars
read many lines at once and says of which rows it is sure. Polars accepts only JSON, and takes the
first of equal keys, as we do; but it turns values of other types into text, which is what the
checks on ids are about. Versions before 2.1 take whatever nesting there is, and end a number at a
zero byte.
"""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.sources.parsed import MILLISECONDS_FROM
from pipeline.sources.python_literal import is_text

NOT_JSON = "not JSON"
NOT_OBJECT = "not a JSON object"
NO_USER = "no reviewerID"
USER_NOT_TEXT = "reviewerID is not text"
NO_ITEM = "no asin"
ITEM_NOT_TEXT = "asin is not text"
NO_TIME = "no unixReviewTime"
TIME_NOT_WHOLE = "unixReviewTime is not a whole number"
TIME_NEGATIVE = "negative unixReviewTime"
TIME_TOO_LARGE = "unixReviewTime is too large"
MILLISECONDS = "unixReviewTime looks like milliseconds"

Review = tuple[str, str, int]

_RAW = {"reviewerID": pl.String, "asin": pl.String, "unixReviewTime": pl.Int64}
_DEEPEST = 2_000  # of nested lists and objects
_SHALLOW = 200  # far from Python's own limit
_LIMIT_RAISED = threading.Lock()
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)

# An id that no JSON value but a string turns into: of the others Polars makes true, false, numbers
# without leading zeros, and text with brackets.
_SURE_ID = r"^(?:[A-Za-eg-su-z][A-Za-z0-9_-]{0,35}|0[0-9]{1,35}[A-Z]?|[0-9]{1,35}[A-Z])$"
# An id, or what another value turned into. It is an id if the line begins with both keys and
# strings, since the first of equal keys counts.
_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,35}$"
_USUAL_HEAD = re.compile(rb'\{"reviewerID": "[A-Za-z0-9_-]+", "asin": "[A-Za-z0-9_-]+", ')

# Lines that Polars reads: no deeper than a list or object of plain values, with modest numbers.
_STRING = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
_NUMBER = r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:[eE][-+]?[0-9]{1,2})?"
_PLAIN = f"(?:{_STRING}|{_NUMBER}|true|false|null)"


def _json_list(element: str) -> str:
    return rf"\[ *(?:{element}(?: *, *{element})*)? *\]"


def _json_object(value: str) -> str:
    return rf"\{{ *(?:{_STRING} *: *{value}(?: *, *{_STRING} *: *{value})*)? *\}}"


_VALUE = f"(?:{_PLAIN}|{_json_list(_PLAIN)}|{_json_object(_PLAIN)})"
_REVIEW_LIKE = rf"^{_json_object(_VALUE)}[ \t\r]*\n$"


def read_review(text: str) -> Review | str:
    """Read one review line exactly: `(user, item, time)`, or the reason why it cannot be read.

    Ids are non-empty strings, or integers (taken as their text); time is an integer from 0, in unix
    seconds, and before the year 5138: what is later is in milliseconds. Null is the same as no
    value. Of equal keys the first counts. NaN and Infinity are no JSON, nor is what nests deeper
    than 2,000.
    """
    try:
        fields = _decode(text)
    except (ValueError, RecursionError):
        return NOT_JSON
    if not isinstance(fields, dict):
        return NOT_OBJECT
    user, item = _id(fields.get("reviewerID")), _id(fields.get("asin"))
    if user is None:
        return NO_USER if fields.get("reviewerID") in (None, "") else USER_NOT_TEXT
    if item is None:
        return NO_ITEM if fields.get("asin") in (None, "") else ITEM_NOT_TEXT
    time = fields.get("unixReviewTime")
    if time is None:
        return NO_TIME
    if type(time) is not int:  # bool is a kind of int
        return TIME_NOT_WHOLE
    if time < 0:
        return TIME_NEGATIVE
    if time >= 1 << 63:
        return TIME_TOO_LARGE
    if time >= MILLISECONDS_FROM:
        return MILLISECONDS
    return user, item, time


def scan_reviews(data: bytes, offsets: npt.NDArray[np.int64]) -> pl.DataFrame | None:
    """Read whole lines at once.

    Args:
        data: the lines.
        offsets: (lines + 1,) where each begins, and the end of the last.

    Returns:
        A row for each line, in order: user, item (strings), time (int64) and sure (bool): where
        that is false `read_review` is to decide. None if Polars cannot read the lines, were it
        for a single one: then `looks_good` says which to leave out.
    """
    # Polars passes over blank lines. A line that begins with a brace gives one row or an error,
    # so as many rows as lines are one for each.
    if (np.frombuffer(data, np.uint8)[offsets[:-1]] != ord("{")).any():
        return None
    try:
        frame = pl.read_ndjson(io.BytesIO(data), schema=_RAW, ignore_errors=True)
    except pl.exceptions.ComputeError:
        return None
    if frame.height != len(offsets) - 1:
        return None
    frame = frame.rename({"reviewerID": "user", "asin": "item", "unixReviewTime": "time"})
    sure = frame.select(_are(_SURE_ID)).to_series().to_numpy(writable=True)
    if not sure.all():
        likely = frame.select(_are(_ID)).to_series().to_numpy()
        for line in np.flatnonzero(likely & ~sure).tolist():
            sure[line] = _USUAL_HEAD.match(data, offsets[line]) is not None
    for line in np.flatnonzero(np.diff(offsets) > 2 * _DEEPEST).tolist():
        begin, end = offsets[line : line + 2].tolist()
        sure[line] &= data.count(b"[", begin, end) + data.count(b"{", begin, end) <= _DEEPEST
    if b"\0" in data:
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0)
        sure[np.searchsorted(offsets, ends, side="right") - 1] = False
    return frame.with_columns(sure=pl.Series(sure))


def _are(pattern: str) -> pl.Expr:
    """Whether both ids match `pattern` and the time is one."""
    ids = [pl.col(name).str.contains(pattern) for name in ("user", "item")]
    return pl.all_horizontal(*ids, pl.col("time").is_between(0, MILLISECONDS_FROM - 1)).fill_null(
        value=False
    )


def looks_good(lines: pl.Series) -> pl.Series:
    """Whether each line is an object of plain values, lists and objects, as reviews are.

    Args:
        lines: (lines,) strings, each ending in a newline.

    Returns:
        (lines,) booleans. Polars can read the lines for which it is true together; of the others
        some may still be good.
    """
    return lines.str.contains(_REVIEW_LIKE)


def _decode(text: str) -> Any:
    """The value of one JSON text.

    Raises:
        ValueError: it is not JSON, or nests too deeply.
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
        finally:
            sys.setrecursionlimit(limit)


def _depth(text: str) -> int:
    """How deeply lists and objects nest in JSON."""
    deepest = depth = 0
    for mark in re.findall(r"[\[\]{}]", _JSON_STRING.sub("", text)):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _first_of_equal_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _whole(text: str) -> int | float:
    # Python refuses integers of thousands of digits; none of more than 20 can be a time or an id.
    return int(text) if len(text) <= 20 else float("inf")


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_first_of_equal_keys, parse_int=_whole, parse_constant=_refuse
)


def _id(value: Any) -> str | None:
    """The id that `value` stands for, None if it is none."""
    if type(value) is int:
        return str(value)
    return value if value and is_text(value) else None
