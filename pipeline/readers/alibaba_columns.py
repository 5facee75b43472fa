"""The columns of the four raw Alibaba files, and the exact reader of one line.

`read_line` is the truth on what a line says; `alibaba_parse` reads many lines at once and must
agree with it.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from enum import Enum

from pipeline.readers.parsed import MILLISECONDS_FROM
from pipeline.readers.values import (
    BAD_LABEL,
    BLANKS,
    DECIMAL,
    NEGATIVE,
    NO_VALUE,
    NULLS,
    TOO_LARGE,
    TOO_LATE,
    Refusal,
    whole,
)

BTAGS = ("buy", "cart", "fav", "pv")
WHOLE_LIMIT = 1 << 63

WRONG_COLUMNS = "wrong number of columns"
BAD_QUOTES = "quotes out of place"
NOT_DECIMAL = "not a decimal number"
MILLISECONDS = TOO_LATE["s"]
CONTRADICTION = "nonclk is not 1 - clk"
UNKNOWN_BTAG = "unknown btag"

Value = int | float | str | None


class Kind(Enum):
    """What the fields of a column may be."""

    WHOLE = "a whole number from 0 to 2^63 - 1"
    TIME = "unix seconds, from 0"
    SIGNED_TIME = "unix seconds, of which the log has negative ones"
    LABEL = "0 or 1"
    BTAG = "one of BTAGS"
    DECIMAL = "a decimal number, perhaps with an exponent"
    TEXT = "any text"
    OPPOSITE = "1 less the label; held against it, and not kept"


@dataclass(frozen=True)
class Column:
    """A column of a raw file.

    Attributes:
        name: what it is called in our tables.
        header: what it is called in the file.
        kind: what it holds.
        nullable: whether a value may be missing.
    """

    name: str
    header: str
    kind: Kind = Kind.WHOLE
    nullable: bool = False


IMPRESSIONS = (
    Column("user", "user"),
    Column("time", "time_stamp", Kind.TIME),
    Column("ad", "adgroup_id"),
    Column("pid", "pid", Kind.TEXT, nullable=True),
    Column("nonclk", "nonclk", Kind.OPPOSITE, nullable=True),
    Column("label", "clk", Kind.LABEL),
)
ADS = (
    Column("ad", "adgroup_id"),
    Column("category", "cate_id", nullable=True),
    Column("campaign", "campaign_id", nullable=True),
    Column("customer", "customer", nullable=True),
    Column("brand", "brand", nullable=True),
    Column("price", "price", Kind.DECIMAL, nullable=True),
)
PROFILE_FIELDS = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
PROFILES = (
    Column("user", "userid"),
    *(Column(name, name, nullable=True) for name in PROFILE_FIELDS),
)
BEHAVIORS = (
    Column("user", "user"),
    Column("time", "time_stamp", Kind.SIGNED_TIME),
    Column("btag", "btag", Kind.BTAG),
    Column("category", "cate", nullable=True),
    Column("brand", "brand", nullable=True),
)


def read_line(text: str, columns: tuple[Column, ...]) -> tuple[Value, ...] | str:
    """Read one line exactly: a value for each column that is kept, or why it is refused.

    A missing value is None, and a btag its index in `BTAGS`. Blanks and double quotes around a
    field mean nothing. A number is made of ASCII digits; a sign and zeros before it, and a
    fraction of zeros behind it, leave it whole. Only a price may have another fraction or an
    exponent. Of several faults the leftmost counts, after the quotes and the number of columns;
    that two columns contradict each other comes last.

    Args:
        text: the line without its end; a single carriage return there is part of the end.
    """
    values: list[Value] = []
    label, opposite = None, None
    try:
        fields = _split(text.removesuffix("\r"))
        if len(fields) != len(columns):
            return WRONG_COLUMNS
        for field, column in zip(fields, columns, strict=True):
            if column.kind is Kind.OPPOSITE:
                opposite = field
                continue
            values.append(_read(field, column))
            if column.kind is Kind.LABEL:
                label = values[-1]
    except Refusal as refusal:
        return str(refusal)
    if opposite is None or opposite in NULLS:
        return tuple(values)
    try:
        agree = label == 1 - whole(opposite, signed=True)
    except Refusal:
        agree = False
    return tuple(values) if agree else CONTRADICTION


def _split(text: str) -> list[str]:
    """The fields of a line, without blanks and quotes around them."""
    fields = text.split(",")
    if '"' in text:
        if "\r" in text:  # `csv` would end the line there
            raise Refusal(BAD_QUOTES)
        try:
            (fields,) = csv.reader([text], strict=True, skipinitialspace=True)
        except csv.Error:
            raise Refusal(BAD_QUOTES) from None
    return [field.strip(BLANKS) for field in fields]


def _read(field: str, column: Column) -> Value:
    if field in NULLS:
        if column.nullable:
            return None
        raise Refusal(NO_VALUE)
    if column.kind is Kind.TEXT:
        return field
    if column.kind is Kind.BTAG:
        if field not in BTAGS:
            raise Refusal(UNKNOWN_BTAG)
        return BTAGS.index(field)
    if column.kind is Kind.DECIMAL:
        return _decimal(field)
    value = whole(field, signed=True)
    if value < 0 and column.kind is not Kind.SIGNED_TIME:
        raise Refusal(NEGATIVE)
    if column.kind is Kind.LABEL and value > 1:
        raise Refusal(BAD_LABEL)
    if column.kind in (Kind.TIME, Kind.SIGNED_TIME) and value >= MILLISECONDS_FROM:
        raise Refusal(MILLISECONDS)
    return value


def _decimal(field: str) -> float:
    if DECIMAL.fullmatch(field) is None:
        raise Refusal(NOT_DECIMAL)
    value = float(field)
    if math.isinf(value):
        raise Refusal(TOO_LARGE)
    return value
