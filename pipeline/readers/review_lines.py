"""Amazon's review lines, which are JSON objects, of the 2014 release and of the one of 2018.

msgspec reads nearly all of them, and reads them strictly: what it accepts is a review. What it does
not accept is for Python's own json, which also takes other spellings, or tells why it is none.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.json import Decoder

from pipeline.readers.json_text import NOT_JSON, NOT_OBJECT, NOT_USUAL, decode, text_of_id
from pipeline.readers.parsed import MILLISECONDS_FROM

NO_USER = "no reviewerID"
USER_NOT_TEXT = "reviewerID is not text"
NO_ITEM = "no asin"
ITEM_NOT_TEXT = "asin is not text"
NO_TIME = "no unixReviewTime"
TIME_NOT_WHOLE = "unixReviewTime is not a whole number"
TIME_NEGATIVE = "negative unixReviewTime"
TIME_TOO_LARGE = "unixReviewTime is too large"
MILLISECONDS = "unixReviewTime looks like milliseconds"

_DIGITS = re.compile(r"-?[0-9]{1,20}", re.ASCII)


class Review(Struct, gc=False):
    """A review by its keys: who, what (both are not empty), and when (unix seconds)."""

    reviewerID: Annotated[str, Meta(min_length=1)]  # noqa: N815
    asin: Annotated[str, Meta(min_length=1)]
    unixReviewTime: Annotated[int, Meta(ge=0, lt=MILLISECONDS_FROM)]  # noqa: N815


DECODER = Decoder(Review)


def read_review(text: str) -> Review | str:
    """Read one line exactly: a review, or the reason why it is none.

    Ids are non-empty strings, or integers (taken as their text). Time is a whole number from 0,
    however it is spelled (5, 5.0, 5e0, "5"), in unix seconds, and before the year 5138: what is
    later is in milliseconds. Null, NaN and Infinity are the same as no value. Of equal keys the
    last counts, as in Python. What nests deeper than 2,000 is no JSON.
    """
    try:
        return DECODER.decode(text)
    except NOT_USUAL:
        pass
    try:
        fields = decode(text)
    except ValueError:
        return NOT_JSON
    if not isinstance(fields, dict):
        return NOT_OBJECT
    given = [fields.get(key) for key in ("reviewerID", "asin", "unixReviewTime")]
    user, item, time = text_of_id(given[0]), text_of_id(given[1]), _whole(given[2])
    if user is None:
        return NO_USER if given[0] in (None, "") else USER_NOT_TEXT
    if item is None:
        return NO_ITEM if given[1] in (None, "") else ITEM_NOT_TEXT
    if time is None:
        return NO_TIME if given[2] in (None, "") else TIME_NOT_WHOLE
    if time < 0:
        return TIME_NEGATIVE
    if time >= 1 << 63:
        return TIME_TOO_LARGE
    return Review(user, item, time) if time < MILLISECONDS_FROM else MILLISECONDS


def _whole(value: Any) -> int | None:
    """The whole number that a value stands for, None if it is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return value if type(value) is int else None  # bool is a kind of int
