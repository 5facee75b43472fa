"""Values of a person's own tables: what each says, and that many at once say the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import values
from pipeline.readers.converted import converted
from pipeline.readers.values import NULLS, Column, Refusal, read_value

NULL = frozenset(NULLS)
DAY_S = 86_400


def column(kind: str, **more: Any) -> Column:
    return Column("c", "c", kind, **more)


def told(value: Any, of: Column, unit: str = "s") -> Any:
    try:
        return read_value(value, of, unit, NULL)
    except Refusal as refusal:
        return str(refusal)


@pytest.mark.parametrize(
    ("of", "value", "expected"),
    [
        (column("whole"), "007", 7),
        (column("text"), "007", "007"),
        (column("text"), " 7", " 7"),
        (column("whole"), " 4.0\t", 4),
        (column("whole"), "4.5", values.NOT_WHOLE),
        (column("whole"), "1e3", values.EXPONENT),
        (column("whole"), "-1", values.NEGATIVE),
        (column("keep", of="whole"), "-1", -1),
        (column("whole"), "9" * 4_000, values.TOO_LARGE),
        (column("whole"), 2.0**53 + 2, values.INEXACT),
        (column("whole"), " null ", values.NO_VALUE),
        (column("whole", nullable=True), "\\N", None),
        (column("text"), 12.0, "12"),
        (column("text"), 12.5, values.NOT_TEXT),
        (column("text"), True, "true"),
        (column("time"), "1.500000000e9", 1_500_000_000),
        (column("time"), "1.5001e9", values.EXPONENT),
        (column("time"), "1500000000.25", values.FRACTION),
        (column("time"), "1511539200000", values.TOO_LATE["s"]),
        (column("time", unit="ms"), "1511539200500", values.FRACTION),
        (column("time", unit="ms"), "1511539200000", 1_511_539_200),
        (column("time"), "-5", values.NEGATIVE_TIME),
        (column("time", unit="iso"), "2026-11-01T10:00:00Z", 1_793_527_200),
        (column("time", unit="iso"), "2026-11-01 10:00", values.NO_ZONE),
        (column("time", unit="iso"), 1_511_539_200, values.NOT_TIME),
        (column("time", unit="iso", timezone="Asia/Shanghai"), "2026-11-01", 1_793_462_400),
        (column("time", unit="iso", timezone="Asia/Shanghai"), date(2026, 11, 1), 1_793_462_400),
        (column("time", unit="iso", timezone="Europe/Berlin"), "2026-03-29 02:30", values.SKIPPED),
        # Clocks show it twice: the earlier.
        (column("time", unit="iso", timezone="Europe/Berlin"), "2026-10-25 02:30", 1_792_888_200),
        (column("time", unit="iso"), "2026-11-01 10:00:00.5+08:00", values.FRACTION),
        (column("time", unit="iso"), "2026-11-01 10:00:00.000+0800", 1_793_498_400),
        (column("time", unit="iso"), "2026-02-30T00:00:00Z", values.NOT_TIME),
        (column("label"), "True", 1),
        (column("label"), 0.0, 0),
        (column("label"), "2", values.BAD_LABEL),
        (column("number"), "inf", values.NOT_FINITE),
        (column("number"), "1e999", values.NOT_FINITE),
        (column("number"), " .5", 0.5),
        (column("number"), "True", 1.0),
        (column("keep", of="number"), "True", values.NOT_NUMBER),
        (column("weight"), -0.1, values.NEGATIVE),
        (column("split"), "dev", values.BAD_SPLIT),
        (column("list", separator="|"), "a| b ||NA", ["a", "b"]),
        (column("list", of="whole"), [1, None, 2.0], [1, 2]),
        (column("list"), "a|b", values.NOT_LIST),
        (column("list"), "['a', \"it's\", None, 'NA']", ["a", "it's"]),
        (column("list", of="whole"), " [7, 1.0, null]", [7, 1]),
        (column("list"), "['a' 'b']", values.NOT_LIST),
        (column("list"), None, []),
        (column("mask"), None, False),
    ],
)
def test_what_a_value_says(of: Column, value: Any, expected: Any) -> None:
    assert told(value, of) == expected


WORDS = [
    "7",
    "007",
    "4.0",
    "4.",
    " 5 ",
    "+6",
    "-1",
    "1e3",
    "1.5",
    "x",
    "",
    " ",
    "NULL",
    " NA",
    "nan",
]
WORDS += ["9223372036854775807", "9223372036854775808", "1" * 25, "0x1F", "1_0", "١", "é", "true"]
WORDS += [
    "False",
    "0",
    "1",
    "1.0",
    "inf",
    "-Infinity",
    ".5",
    "5e-324",
    "1e400",
    "0.1",
    "123456.789",
]
WORDS += ["1.500000001e9", "1.25e1"]
WORDS += ["train", "test ", "TRAIN", "a|b", "1| 2||x", "|", "1511539200", "1511539200.0", "1.5e9"]
WORDS += ["['a', None]", '["é\\u00e9", 7]', "[7, 1.0,]", "['a' 'b']", "[a b]", " []", "['it\\'s']"]
WORDS += ["['\\ud800']", "[[1]]", "[1", "['\\x']", "1511539200123", "1511539200123456"]
WORDS += ["99999999999", "100000000000", "1.5e-1", "1e18"]
MOMENTS = [
    "2026-11-01",
    "2026-11-01 10:00:00",
    "2026-11-01T10:00:00Z",
    "2026-11-01 10:00",
    "1969-12-31",
]
MOMENTS += ["2026-11-01T10:00:00.5", "2026-11-01 10:00:00.123456", "2026-11-01 10:00:00.1234567"]
MOMENTS += ["2026-03-29 02:30:00", "2026-10-25 02:30:00", "2026-10-25 02:30:00+01:00", "2026-02-30"]
MOMENTS += [
    "2026-11-01T10:00:00+08:00",
    "2026-11-01T10:00:00-0330",
    "2026-11-01 24:00:00",
    "20261101",
]
MOMENTS += ["2026-11-01 10:00:60", "2026-13-01", "2026-11-01 10:00:00 UTC", " 2026-11-01 10:00:00 "]
MOMENTS += ["2026-11-01 10:00:00,250", "2999-12-31T23:59:59+23:59", "0001-01-01", "2026-1-1", "x"]
TEXT = st.sampled_from(WORDS + MOMENTS) | st.text("0123456789.-+eE |tT:Z", max_size=12)
WHOLE = st.integers(-(2**63), 2**64 - 1) | st.integers(-2, 3) | st.integers(0, 2 * 10**15)
NUMBER = st.floats() | st.sampled_from(
    [0.0, -0.0, 1.0, 7.0, 1.5e9, 2.0**53, 2.0**53 + 2, -1.0, 1e300]
)
SERIES: list[tuple[Any, Any]] = [
    (TEXT, pl.String),
    (st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2 * 10**15), pl.Int64),
    (st.integers(0, 2**64 - 1) | st.integers(0, 3), pl.UInt64),
    (st.integers(-2, 2), pl.Int8),
    (NUMBER, pl.Float64),
    (st.booleans(), pl.Boolean),
    (st.sampled_from(["a", "NA", "7", "test"]), pl.Categorical),
    (st.dates(date(1960, 1, 1), date(2100, 1, 1)), pl.Date),
    (st.datetimes(datetime(1969, 1, 1), datetime(2100, 1, 1)), pl.Datetime("us")),
    (st.datetimes(datetime(2026, 3, 29, 1), datetime(2026, 3, 29, 4)), pl.Datetime("ns")),
    (
        st.datetimes(datetime(1969, 1, 1), datetime(2100, 1, 1)).map(
            lambda t: t.replace(tzinfo=UTC)
        ),
        pl.Datetime("us", "UTC"),
    ),
    (st.lists(st.none() | st.integers(-1, 9), max_size=4), pl.List(pl.Int64)),
    (st.lists(st.none() | TEXT, max_size=4), pl.List(pl.String)),
    (st.lists(st.none() | NUMBER, max_size=4), pl.List(pl.Float64)),
    (st.binary(max_size=3) | st.just(b"7"), pl.Binary),
    (st.one_of(WHOLE, TEXT, NUMBER, st.booleans(), st.lists(WHOLE, max_size=2)), pl.Object),
    (st.timedeltas(timedelta(0), timedelta(9)), pl.Duration("us")),
]
COLUMNS = st.one_of(
    st.builds(
        column,
        st.sampled_from(["whole", "text", "label", "number", "weight", "split"]),
        nullable=st.booleans(),
    ),
    st.builds(
        column,
        st.just("time"),
        nullable=st.booleans(),
        unit=st.sampled_from(["s", "ms", "us", "iso"]),
        timezone=st.sampled_from([None, "UTC", "Europe/Berlin", "Asia/Shanghai"]),
    ),
    st.builds(
        column,
        st.just("list"),
        of=st.sampled_from(["whole", "text"]),
        separator=st.sampled_from([None, "|"]),
    ),
    st.builds(column, st.just("keep"), of=st.sampled_from(["whole", "number", "text"])),
)


NO_UTF8 = object()


def read_bytes(value: bytes) -> object:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return NO_UTF8


def same(one: Any, other: Any) -> bool:
    return bool(one == other and type(one) is type(other))


@pytest.mark.parametrize("kind", ["whole", "text", "time", "list"])
def test_a_float_of_32_bits_is_no_large_whole_number(kind: str) -> None:
    drawn = [7.0, float(1 << 24), float((1 << 24) + 2), None, 1.5]
    series = pl.Series("c", drawn, pl.Float32)
    of = column(kind, nullable=True)
    if kind == "list":
        series, of = series.reshape((5, 1)).arr.to_list(), column(kind, of="whole")
    found, reasons = converted(series, of, "s", NULL)
    assert reasons is not None
    odd = told(1.5, column("whole" if kind == "list" else kind))
    assert reasons.to_list() == [None, None, values.INEXACT_32, None, odd]
    whole = {"text": str, "list": lambda n: [n]}.get(kind, int)
    assert found.to_list()[:2] == [whole(7), whole(1 << 24)]


def test_decimals_are_the_numbers_that_they_are() -> None:
    series = pl.Series("c", ["7.00", "9007199254740993.00", "7.50"]).cast(pl.Decimal(20, 2))
    text = converted(series, column("text"), "s", NULL)
    assert text.values.to_list() == ["7", "9007199254740993", "7.50"]
    whole = converted(series, column("whole"), "s", NULL)
    assert whole.values.to_list()[:2] == [7, 9007199254740993]
    assert whole.reasons is not None
    assert whole.reasons.to_list() == [None, None, values.NOT_WHOLE]


@settings(max_examples=400, deadline=None)
@given(data=st.data(), of=COLUMNS, unit=st.sampled_from(["s", "ms", "us"]))
def test_many_values_say_what_each_says(data: st.DataObject, of: Column, unit: str) -> None:
    one, kind = data.draw(st.sampled_from(SERIES))
    drawn = data.draw(st.lists(st.none() | one, max_size=8))
    series = pl.Series("c", drawn, kind, strict=False)
    plain = series.to_list()
    if kind == pl.Binary:
        plain = [one if one is None else read_bytes(one) for one in plain]
    found, reasons = converted(series, of, unit, NULL)
    for value, got, why in zip(
        plain, found.to_list(), reasons if reasons is not None else [None] * len(plain), strict=True
    ):
        expected = values.NOT_UTF8 if value is NO_UTF8 else told(value, of, unit)
        if why is not None or (isinstance(expected, str) and of.value not in ("text", "split")):
            assert why == expected, value
        else:
            assert same(got, expected), value
