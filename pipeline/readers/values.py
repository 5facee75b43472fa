"""What a column of a person's own table may hold, and the exact reading of one value.

`read_value` is the truth on what a value says; `pipeline.readers.converted` reads many values at
once and must agree with it.
"""

from __future__ import annotations

import ast
import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import timezone as fixed_zone
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from schemas.errors import ByDescription
from schemas.manifest import SPLITS
from schemas.shards import UNITS

NULLS = (
    *("", "NULL", "Null", "null", "NaN", "nan", "NAN", "None", "none", "\\N"),
    *("NA", "N/A", "n/a", "<NA>"),
)
"""What pandas, R, Hive, MySQL and Python write for a value that is missing."""

KINDS = ("whole", "text", "time", "label", "number", "list", "mask", "keep", "weight", "split")

CANONICAL = r"^(0|[1-9][0-9]{0,17})(\.0*)?$"
"""A whole number as it is written once: without a sign or zeros before it."""

NO_VALUE = "missing value"
NOT_WHOLE = "not a whole number"
EXPONENT = "whole number with an exponent: digits may be lost"
INEXACT = "whole number written as a float above 2^53: digits may be lost"
INEXACT_32 = "whole number written as a float of 32 bits above 2^24: digits may be lost"
NEGATIVE = "negative number"
TOO_LARGE = "number too large"
NOT_NUMBER = "not a number"
NOT_FINITE = "infinite number"
NOT_TEXT = "not text"
NOT_UTF8 = "not UTF-8"
BAD_LABEL = "label is not 0 or 1"
BAD_SPLIT = "split is not train, valid or test"
NOT_LIST = "not a list"
NOT_TIME = "not a time"
NEGATIVE_TIME = "time before 1970"
TOO_LATE = {
    "s": "time looks like milliseconds",
    "ms": "time looks like microseconds",
    "us": "time looks like nanoseconds",
}
FRACTION = "time finer than the table's unit"
NO_ZONE = "time without a zone"
SKIPPED = "time that its zone's clocks skip"
_DIGITS_LOST = "have the program that wrote the file write whole numbers with all their digits"
_BY_DESCRIPTION = {
    **{
        of: f'give times the unit that they have: unit = "{unit}" (--unit {unit})'
        for of, unit in ((TOO_LATE["s"], "ms"), (TOO_LATE["ms"], "us"))
    },
    NO_VALUE: 'mend the file, leave such lines out in a description (where = "NAME is not null"), '
    "or allow more with --max-rejected",
    BAD_LABEL: """say in SQL when it is 1, such as label = "answer = 'yes'" or "rating >= 4\"""",
    BAD_SPLIT: """spell them so in SQL, such as column = "if(part = 'val', 'valid', part)\"""",
    FRACTION: "cut it off with SQL, which may stand for a column: floor(NAME) of numbers, "
    "left(NAME, 26) of text, cast(NAME as timestamp) of timestamps",
    NO_ZONE: 'say the zone of the clock that wrote them: timezone = "UTC" (--timezone UTC)',
    NOT_TIME: "write them as 2026-01-31 23:00:00, in the file or with SQL, which may stand for a "
    "column",
    NOT_LIST: 'say what stands between the values: separator = "|"',
    NOT_NUMBER: "mend them with SQL, which may stand for a column: replace(NAME, ',', '.')",
}
CURES = {
    **{of: ByDescription(do) for of, do in _BY_DESCRIPTION.items()},
    **dict.fromkeys((EXPONENT, INEXACT, INEXACT_32), _DIGITS_LOST),
    SKIPPED: "look at the timezone: clocks of the zone that wrote them show each; UTC skips none",
}
"""What to do about a column's values that are refused for such a reason, where that is plain."""

# Of unix time in seconds: the year 5138. What is later is of a finer unit.
LATEST_S = 100_000_000_000
# Of unix time, 1985: what is later in seconds is hardly of another unit.
OLD_S = 473_385_600
BLANKS = " \t"
_LIMIT = 1 << 63
EXACT = 1 << 53  # of whole numbers, a float holds each up to here
_LONGEST = 10**38

_WHOLE = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?", re.ASCII)
DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)
_MOST_DIGITS = 19
_ISO = re.compile(
    r"([12][0-9]{3})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r" ?(Z|z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?)?",
    re.ASCII,
)
_ELEMENT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,\[\]'"]+"""
_IN_BRACKETS = re.compile(rf"\[\s*(?:(?:{_ELEMENT})\s*,\s*)*(?:{_ELEMENT})?\s*\]", re.DOTALL)
_TRUTHS = {"0": 0, "1": 1, "false": 0, "true": 1}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Column:
    """A column that rows are to have.

    Attributes:
        name: what it is called in our rows.
        source: the file's column, or else SQL over its columns, such as `seconds > 10`. Of JSON
            and Parquet, `a.b` is the key `b` of the object `a`.
        kind: what it holds, one of `KINDS`:
            `whole`: an id that is a whole number from 0 to 2^63 - 1, read from 7, "7", 7.0;
            `text`: an id that is text, as it stands: 007 is not 7;
            `time`: a time from 1970 on, by `unit`;
            `label`: 0 or 1, or false or true;
            `number`: any finite number, a float64;
            `list`: several ids, whole numbers or text by `of`;
            `mask`: a condition, true or false; null is false;
            `keep`: a value passed through, by `of`: text, whole (of any sign), or number;
            `weight`: a number from 0;
            `split`: train, valid or test.
        nullable: whether a value may be missing; else such a line is refused. A list that is
            missing is empty, and a mask false.
        unit: of a time: `s`, `ms` or `us` since 1970, a whole number; or `iso`, dates, timestamps
            and their ISO text. A typed timestamp needs no unit.
        timezone: of times that say none, e.g. Asia/Shanghai.
        of: what a list's elements, or a `keep`, are: `whole`, `text`, or of a keep `number`.
        separator: what separates a list's elements in text; blanks around them mean nothing. None
            where text is a list as JSON and Python write one: `["a", "b"]`, `['a', None]`.
    """

    name: str
    source: str
    kind: str
    nullable: bool = False
    unit: str = "s"
    timezone: str | None = None
    of: str = "text"
    separator: str | None = None

    def __post_init__(self) -> None:
        kinds = {"list": ("whole", "text"), "keep": ("whole", "text", "number")}
        assert self.kind in KINDS, self.kind
        assert self.unit in (*UNITS, "iso"), self.unit
        assert self.of in kinds.get(self.kind, (self.of,)), self.of

    @property
    def value(self) -> str:
        """The kind of one value: that of its elements, or of what is kept."""
        if self.kind == "list":
            return self.of
        if self.kind == "keep":
            return {"whole": "integer", "text": "text", "number": "number"}[self.of]
        return self.kind

    @property
    def type(self) -> pa.DataType:
        """What its values are in our rows."""
        kinds = {
            "whole": pa.int64(),
            "integer": pa.int64(),
            "text": pa.large_string(),
            "time": pa.int64(),
            "label": pa.int8(),
            "number": pa.float64(),
            "mask": pa.bool_(),
            "weight": pa.float64(),
            "split": pa.large_string(),
        }
        one = kinds[self.value]
        return pa.large_list(one) if self.kind == "list" else one


class Refusal(Exception):
    """Why a value cannot be read."""


def read_value(value: Any, column: Column, unit: str, nulls: frozenset[str]) -> Any:
    """Read one value exactly.

    Blanks around a number, a time and a label mean nothing, and around text that stands for a
    missing value; other text is as it stands.

    Args:
        value: text, a number, a truth value, a date, a datetime, a list of them, or None.
        nulls: what stands for a missing value; no text at all always does.

    Returns:
        An int, float, str, bool or list of int or str; None where it is missing, and may be.

    Raises:
        Refusal: it cannot be read; the text is the reason.
    """
    if column.kind == "list":
        return _list(value, column, nulls)
    if _is_missing(value, nulls):
        if column.kind == "mask":
            return False
        if column.nullable:
            return None
        raise Refusal(NO_VALUE)
    return _one(value, column, unit)


def _is_missing(value: Any, nulls: frozenset[str]) -> bool:
    if isinstance(value, str):
        bare = value.strip(BLANKS)
        return not bare or bare in nulls
    return value is None or (isinstance(value, float) and math.isnan(value))


def _list(value: Any, column: Column, nulls: frozenset[str]) -> list[Any]:
    if isinstance(value, str):
        if _is_missing(value, nulls):
            return []
        if column.separator is None:
            value = listed(value)
        else:
            value = [one.strip(BLANKS) for one in value.split(column.separator)]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if not isinstance(value, list | tuple):
        raise Refusal(NOT_LIST)
    return [_one(one, column, "s") for one in value if not _is_missing(one, nulls)]


def listed(text: str) -> list[str | None]:
    """The elements of a list of plain values, as JSON and Python write one.

    Raises:
        Refusal: it is none.
    """
    text = text.strip(BLANKS)
    if _IN_BRACKETS.fullmatch(text) is None:
        raise Refusal(NOT_LIST)
    return [_unquoted(one) for one in re.findall(_ELEMENT, text, re.DOTALL)]


def _unquoted(element: str) -> str | None:
    if element[0] not in "'\"":
        return None if element in NULLS else element
    if "\\" not in element:
        return element[1:-1]
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            found = str(read(element))
            found.encode()  # half a character is none
            return found
    raise Refusal(NOT_LIST)


def _one(value: Any, column: Column, unit: str) -> Any:
    kind = column.value
    if kind == "text":
        return text_of(value)
    if kind in ("whole", "integer"):
        return whole(value, signed=kind == "integer")
    if kind in ("number", "weight"):
        text = value.strip(BLANKS).lower() if isinstance(value, str) else None
        if column.kind == "number" and text in ("true", "false"):  # to SQL, which keeps, it is text
            return float(text == "true")
        number = number_of(value)
        if kind == "weight" and number < 0:
            raise Refusal(NEGATIVE)
        return number
    if kind == "label":
        return label(value)
    if kind == "split":
        if not isinstance(value, str) or value.strip(BLANKS) not in SPLITS:
            raise Refusal(BAD_SPLIT)
        return value.strip(BLANKS)
    if kind == "mask":
        return bool(value)
    return time(value, column, unit)


def text_of(value: Any) -> str:
    """The text of an id: a number's digits, true or false.

    Raises:
        Refusal: it has none.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if abs(value) >= _LONGEST:  # Python refuses to write integers of thousands of digits
            raise Refusal(TOO_LARGE)
        return str(value)
    if isinstance(value, float) and value.is_integer():
        if abs(value) > EXACT:
            raise Refusal(INEXACT)
        return str(int(value))
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise Refusal(NOT_TEXT)


def whole(value: Any, *, signed: bool = False, exponent: bool = False) -> int:
    """A whole number below 2^63, however it is spelled.

    Args:
        value: as `read_value`.
        signed: whether it may be negative.
        exponent: whether text may have an exponent, if all digits stand before it, as in
            1.600100168e9: of 1.6001e9 the last may be lost.

    Raises:
        Refusal: it is none.
    """
    found = _whole(value, exponent)
    if found < 0 and not signed:
        raise Refusal(NEGATIVE)
    if not -_LIMIT < found < _LIMIT:
        raise Refusal(TOO_LARGE)
    return found


def _whole(value: Any, exponent: bool) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise Refusal(NOT_WHOLE)
        if abs(value) > EXACT:
            raise Refusal(INEXACT)
        return int(value)
    if not isinstance(value, str):
        raise Refusal(NOT_WHOLE)
    text = value.strip(BLANKS)
    match = _WHOLE.fullmatch(text)
    if match is not None:
        # Python refuses to read integers of thousands of digits.
        found = int(match[2]) if len(match[2]) <= _MOST_DIGITS else _LIMIT
        return -found if match[1] == "-" else found
    decimal = DECIMAL.fullmatch(text)
    if decimal is None or decimal[1] is None:
        raise Refusal(NOT_WHOLE)
    if not exponent:
        raise Refusal(EXPONENT)
    try:
        exact = Decimal(text)
    except InvalidOperation:
        raise Refusal(TOO_LARGE) from None
    if exact.adjusted() > _MOST_DIGITS:
        raise Refusal(TOO_LARGE)
    if exact != exact.to_integral_value():
        raise Refusal(NOT_WHOLE)
    if int(exact.as_tuple().exponent) > 0:
        raise Refusal(EXPONENT)
    return int(exact)


def number_of(value: Any) -> float:
    """A finite number.

    Raises:
        Refusal: it is none.
    """
    if isinstance(value, str):
        text = value.strip(BLANKS)
        if DECIMAL.fullmatch(text) is None:
            infinite = text.lstrip("+-").lower() in ("inf", "infinity")
            raise Refusal(NOT_FINITE if infinite else NOT_NUMBER)
        value = float(text)
    elif not isinstance(value, int | float):
        raise Refusal(NOT_NUMBER)
    try:
        number = float(value)
    except OverflowError:
        raise Refusal(NOT_FINITE) from None
    if math.isinf(number):
        raise Refusal(NOT_FINITE)
    return number


def label(value: Any) -> int:
    """0 or 1.

    Raises:
        Refusal: it is neither.
    """
    if isinstance(value, str):
        text = value.strip(BLANKS)
        found = _TRUTHS.get(text if text in ("0", "1") else text.lower())
        if found is not None:
            return found
    try:
        found = whole(value, signed=True)
    except Refusal:
        raise Refusal(BAD_LABEL) from None
    if found not in (0, 1):
        raise Refusal(BAD_LABEL)
    return found


def time(value: Any, column: Column, unit: str) -> int:
    """A time from 1970 on, in `unit`.

    Raises:
        Refusal: it is none, or finer than `unit`.
    """
    if isinstance(value, date):
        return _in_unit(*_of_date(value, column), unit)
    if column.unit == "iso":
        if not isinstance(value, str):
            raise Refusal(NOT_TIME)
        return _in_unit(*_of_text(value.strip(BLANKS), column), unit)
    try:
        found = whole(value, signed=True, exponent=True)
    except Refusal as refusal:
        if str(refusal) == NOT_WHOLE and _is_fraction(value):
            raise Refusal(FRACTION) from None
        raise
    a_second = UNITS[column.unit]
    if found < 0:
        raise Refusal(NEGATIVE_TIME)
    if found >= LATEST_S * a_second:
        raise Refusal(TOO_LATE[column.unit])
    return _in_unit(found // a_second, found % a_second * (1_000_000_000 // a_second), unit)


def _is_fraction(value: Any) -> bool:
    """Whether it is a number, though no whole one."""
    if isinstance(value, str):
        return DECIMAL.fullmatch(value.strip(BLANKS)) is not None
    return isinstance(value, float) and math.isfinite(value)


def _in_unit(seconds: int, nanoseconds: int, unit: str) -> int:
    step = 1_000_000_000 // UNITS[unit]
    if seconds < 0:
        raise Refusal(NEGATIVE_TIME)
    if nanoseconds % step:
        raise Refusal(FRACTION)
    return seconds * UNITS[unit] + nanoseconds // step


def _of_date(value: date, column: Column) -> tuple[int, int]:
    """Seconds and nanoseconds of a date or a datetime."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return _seconds(value, column), value.microsecond * 1_000


def _of_text(text: str, column: Column) -> tuple[int, int]:
    match = _ISO.fullmatch(text)
    if match is None:
        raise Refusal(NOT_TIME)
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    zone: tzinfo | None = None
    if offset is not None:
        zone = UTC
        if offset[0] in "+-":
            digits = offset[1:].replace(":", "").ljust(4, "0")
            if int(digits[2:]) > 59 or int(digits[:2]) > 23:
                raise Refusal(NOT_TIME)
            ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
            zone = fixed_zone(-ahead if offset[0] == "-" else ahead)
    try:
        moment = datetime(
            *(int(year), int(month), int(day)),
            *(int(hour or 0), int(minute or 0), int(second or 0)),
            tzinfo=zone,
        )
    except ValueError:
        raise Refusal(NOT_TIME) from None
    return _seconds(moment, column), int((fraction or "").ljust(9, "0"))


def _seconds(moment: datetime, column: Column) -> int:
    """Whole seconds since 1970; of a time that clocks show twice, the earlier."""
    if moment.tzinfo is None:
        if column.timezone is None:
            raise Refusal(NO_ZONE)
        zone = ZoneInfo(column.timezone)
        moment = moment.replace(tzinfo=zone)
        try:
            there = moment.astimezone(UTC).astimezone(zone)
        except OverflowError:
            raise Refusal(NOT_TIME) from None
        if there.replace(tzinfo=None) != moment.replace(tzinfo=None):
            raise Refusal(SKIPPED)
    since = moment.replace(microsecond=0) - _EPOCH
    return since.days * 86_400 + since.seconds
