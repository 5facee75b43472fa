"""Many values at once, as `values.read_value` reads each: usual ones by Polars, others alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.readers.values import (
    BLANKS,
    EXACT,
    FRACTION,
    INEXACT_32,
    LATEST_S,
    NEGATIVE_TIME,
    NO_VALUE,
    NO_ZONE,
    NOT_LIST,
    NOT_TEXT,
    NOT_UTF8,
    SKIPPED,
    Column,
    Refusal,
    read_value,
)
from schemas.manifest import SPLITS
from schemas.shards import UNITS

_EXACT_32 = 1 << 24  # a float of 32 bits holds each whole number up to here
_DIGITS = r"^[0-9]{1,18}$"
_ZERO_FRACTION = r"^([0-9]{1,18})\.0*$"
_USUAL_NUMBER = r"^-?[0-9]{1,15}(\.[0-9]{1,15})?$"
_DATE = r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
# The usual spellings of times: by what they match, Polars' format, and whether they say their zone.
_TIMES = (
    (_DATE + "$", "%Y-%m-%d %H:%M:%S", " 00:00:00", False),
    (_DATE + _CLOCK + "$", "%Y-%m-%d %H:%M:%S", "", False),
    (_DATE + _CLOCK + r"\.[0-9]{1,6}$", "%Y-%m-%d %H:%M:%S%.f", "", False),
    (_DATE + _CLOCK + r"(?:\.[0-9]{1,6})?Z$", "%Y-%m-%d %H:%M:%S%.f", "", True),
    (
        _DATE + _CLOCK + r"(?:\.[0-9]{1,6})?[+-][0-9]{2}:[0-9]{2}$",
        "%Y-%m-%d %H:%M:%S%.f%z",
        "",
        True,
    ),
)
_SIMPLE = (pl.String, pl.Int64, pl.Float64, pl.Boolean)
_NANO = {"ns": 1, "us": 1_000, "ms": 1_000_000}


class Converted(NamedTuple):
    """A column as rows have it.

    Attributes:
        values: with anything where there is a reason.
        reasons: why a value is refused, null where it is not; None where no value is.
    """

    values: pl.Series
    reasons: pl.Series | None


class _Usual(NamedTuple):
    """What Polars has read: right where `done`; `why` tells refusals that are known already."""

    values: pl.Series
    done: pl.Series
    why: pl.Series | None = None


def converted(
    series: pl.Series, column: Column, unit: str, nulls: frozenset[str], *, told: bool = False
) -> Converted:
    """Read the values of a column.

    Args:
        series: text, numbers, truth values, dates, datetimes, lists, or objects of all these.
        nulls: text that stands for a missing value.
        told: whether null stands already wherever a value is missing.
    """
    simple = _simple(series, column, unit, told)
    if simple is not None:
        return Converted(simple, None)
    if series.dtype == pl.Object:
        return _one_by_one(series, column, unit, nulls)
    if series.dtype == pl.Binary:
        return _bytes(series, column, unit, nulls)
    if series.dtype == pl.Float32 and column.value in ("whole", "integer", "text", "time"):
        return _of_32_bits(series, column, unit, nulls)
    plain = _plain(series)
    if column.kind == "list":
        return _lists(plain, column, nulls)
    missing = plain.is_null() if told else _missing(plain, nulls)
    values, done, why = _usual(plain, column, unit)
    why = why if why is not None else _nothing(len(plain))
    left = ~(done | missing | why.is_not_null())
    if missing.any():
        refused = not column.nullable and column.kind != "mask"
        values = values.set(missing, False if column.kind == "mask" else None)
        why = why.set(missing, NO_VALUE if refused else None)
    if left.any():
        at, odd = left.arg_true(), _one_by_one(plain.filter(left), column, unit, nulls)
        values = values.scatter(at, odd.values)
        if odd.reasons is not None:
            why = why.scatter(at, odd.reasons)
    return Converted(values, why if why.null_count() < len(why) else None)


def _simple(series: pl.Series, column: Column, unit: str, told: bool) -> pl.Series | None:
    """The values of a column in which all is as usual, as one look at it says; else None."""
    kind, value = series.dtype, column.value
    if column.kind == "list" or series.null_count() or not len(series):
        return None
    if kind == pl.Int64:
        least, most = series.min(), series.max()
        assert isinstance(least, int)
        assert isinstance(most, int)
        if value == "integer" or (value == "whole" and least >= 0):
            return series
        if value == "time" and column.unit == unit:
            return series if least >= 0 and most < LATEST_S * UNITS[unit] else None
        if value == "number" and least >= -EXACT and most <= EXACT:
            return series.cast(pl.Float64)
    if kind == pl.Float64 and value == "number" and series.is_finite().all():
        return series
    if kind == pl.String and value == "text" and told:
        return series
    return series if kind == pl.Boolean and value == "mask" else None


def _nothing(rows: int) -> pl.Series:
    """No reasons."""
    return pl.repeat(None, rows, dtype=pl.String, eager=True)


def text_of_bytes(series: pl.Series) -> pl.Series:
    """The text of bytes, null where they are no UTF-8."""
    with suppress(pl.exceptions.ComputeError):
        return series.cast(pl.String)
    return pl.Series(series.name, [_decoded(raw) for raw in series], pl.String)


def _decoded(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _bytes(series: pl.Series, column: Column, unit: str, nulls: frozenset[str]) -> Converted:
    text = text_of_bytes(series)
    values, reasons = converted(text, column, unit, nulls)
    odd = text.is_null() & series.is_not_null()
    if odd.any():
        reasons = (reasons if reasons is not None else _nothing(len(series))).set(odd, NOT_UTF8)
    return Converted(values, reasons)


def _of_32_bits(series: pl.Series, column: Column, unit: str, nulls: frozenset[str]) -> Converted:
    """Whole numbers in floats of 32 bits, which take neighbours for one where they are large."""
    values, reasons = converted(series.cast(pl.Float64), column, unit, nulls)
    lost = series.is_finite() & (series.abs() > _EXACT_32)
    if lost.any():
        reasons = (reasons if reasons is not None else _nothing(len(series))).set(lost, INEXACT_32)
    return Converted(values, reasons)


def _one_by_one(series: pl.Series, column: Column, unit: str, nulls: frozenset[str]) -> Converted:
    values = series.to_list()
    if series.dtype in _SIMPLE:
        memo = {value: _alone(value, column, unit, nulls) for value in set(values)}
        pairs = [memo[value] for value in values]
    else:  # and perhaps no key of a dictionary
        pairs = [_alone(value, column, unit, nulls) for value in values]
    return _of_pairs(pairs, column)


def _alone(value: Any, column: Column, unit: str, nulls: frozenset[str]) -> tuple[Any, str | None]:
    try:
        return read_value(value, column, unit, nulls), None
    except Refusal as refusal:
        return None, str(refusal)


def _of_pairs(pairs: list[tuple[Any, str | None]], column: Column) -> Converted:
    values = pl.Series("", [value for value, _ in pairs], polars_type(column.type))
    reasons = [why for _, why in pairs]
    some = any(why is not None for why in reasons)
    return Converted(values, pl.Series("", reasons, pl.String) if some else None)


def polars_type(kind: pa.DataType) -> Any:
    """The type of Polars for one of Arrow's."""
    return pl.Series(pa.array([], kind)).dtype


def _plain(series: pl.Series) -> pl.Series:
    """The same values in one of a few types; a number that is none is missing."""
    kind = series.dtype
    if kind in (pl.Categorical, pl.Enum) or kind == pl.Null:
        return series.cast(pl.String)
    if kind.is_decimal():  # as text, since ids may have more digits than a float
        return series.cast(pl.String).str.replace(r"\.0*$", "")
    if kind == pl.UInt64 and (series > (1 << 63) - 1).any():
        return series.cast(pl.String)  # read exactly, and refused where it is too large
    if kind.is_integer():
        return series.cast(pl.Int64)
    if kind.is_float():
        return series.cast(pl.Float64).fill_nan(None)
    return series


def _missing(series: pl.Series, nulls: frozenset[str]) -> pl.Series:
    missing = series.is_null()
    if series.dtype == pl.String:
        missing |= series.str.strip_chars(BLANKS).is_in(["", *sorted(nulls)]).fill_null(value=False)
    return missing


def _usual(series: pl.Series, column: Column, unit: str) -> _Usual:
    """What Polars can read of values that are there."""
    kind, value = series.dtype, column.value
    if value == "time" and kind in (pl.Date, pl.Datetime):
        return _moments(series, column, unit)
    if value != "text" and kind not in _SIMPLE:
        return _none(series, column)
    if value == "time":
        read = _texts_of_time if column.unit == "iso" else _times
        return read(series, column, unit)
    if value in ("whole", "integer"):
        return _wholes(series, signed=value == "integer")
    if value in ("number", "weight"):
        return _numbers(series, signed=value == "number")
    if value == "text":
        return _texts(series)
    if value == "label":
        return _labels(series)
    if value == "split" and kind == pl.String:
        return _Usual(series, series.is_in(SPLITS).fill_null(value=False))
    if value == "mask" and kind == pl.Boolean:
        return _Usual(series, series.is_not_null())
    return _none(series, column)


def _none(series: pl.Series, column: Column) -> _Usual:
    """Each value is to be read alone."""
    values = pl.repeat(None, len(series), dtype=polars_type(column.type), eager=True)
    return _Usual(values, values.is_not_null())


def _wholes(series: pl.Series, *, signed: bool) -> _Usual:
    if series.dtype == pl.String:
        simple = series.str.contains(_DIGITS)
        if not simple.all():
            series = series.str.strip_chars(BLANKS).str.replace(_ZERO_FRACTION, "$1")
            simple = series.str.contains(_DIGITS)
        return _Usual(series.cast(pl.Int64, strict=False), simple.fill_null(value=False))
    if series.dtype == pl.Float64:
        done = (series == series.floor()) & (series.abs() <= EXACT)
        values = series.cast(pl.Int64, strict=False)
    else:
        values, done = series.cast(pl.Int64, strict=False), series.is_not_null()
    return _Usual(values, (done if signed else done & (values >= 0)).fill_null(value=False))


def _numbers(series: pl.Series, *, signed: bool) -> _Usual:
    if series.dtype == pl.String:
        done = series.str.contains(_USUAL_NUMBER)
        values = series.cast(pl.Float64, strict=False)
    else:
        values = series.cast(pl.Float64, strict=False)
        done = values.is_finite()
    return _Usual(values, (done if signed else done & (values >= 0)).fill_null(value=False))


def _texts(series: pl.Series) -> _Usual:
    kind = series.dtype
    if kind == pl.Float64:
        done = (series == series.floor()) & (series.abs() <= EXACT)
        values = series.cast(pl.Int64, strict=False).cast(pl.String)
        return _Usual(values, done.fill_null(value=False))
    if kind in (pl.Boolean, pl.Date, pl.String) or kind.is_integer():
        values = series.cast(pl.String)
        return _Usual(values, values.is_not_null())
    why = pl.repeat(NOT_TEXT, len(series), dtype=pl.String, eager=True)
    return _Usual(_nothing(len(series)), series.is_null(), why)


def _labels(series: pl.Series) -> _Usual:
    if series.dtype == pl.String:
        done = series.is_in(["0", "1"]).fill_null(value=False)
        return _Usual((series == "1").cast(pl.Int8), done)
    done = series.cast(pl.Float64).is_in([0.0, 1.0]).fill_null(value=False)
    return _Usual(series.cast(pl.Int8, strict=False), done)


def _times(series: pl.Series, column: Column, unit: str) -> _Usual:
    values, done, _ = _wholes(series, signed=False)
    done &= values < LATEST_S * UNITS[column.unit]
    found = _in_unit(values, 1_000_000_000 // UNITS[column.unit], unit)
    return _Usual(found.values, done & found.done)


def _texts_of_time(series: pl.Series, column: Column, unit: str) -> _Usual:
    found = _none(series, column)
    if series.dtype != pl.String:
        return found
    values, done = found.values, found.done
    bare = series.str.strip_chars(BLANKS)
    for regex, form, more, zoned in _TIMES:
        of_form = bare.str.contains(regex).fill_null(value=False) & ~done
        if not of_form.any():
            continue
        text = bare.filter(of_form).str.replace("T", " ", literal=True)
        if zoned and not form.endswith("%z"):
            text = text.str.strip_suffix("Z")
        moments = (text + more).str.strptime(pl.Datetime("us"), form, strict=False)
        if not zoned:
            if column.timezone is None:
                continue
            moments = _in_zone(moments, column.timezone)
        read = _in_unit(moments.to_physical(), 1_000, unit)
        at = of_form.arg_true()
        values, done = values.scatter(at, read.values), done.scatter(at, read.done)
        if done.all():
            break
    return _Usual(values, done)


def _in_zone(moments: pl.Series, timezone: str) -> pl.Series:
    """Of naive times, in the zone's own words; null where its clocks skip them."""
    return moments.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")


def _in_unit(since: pl.Series, nanoseconds: int, unit: str) -> _Usual:
    """Whole times since 1970, of so many nanoseconds each, in our unit."""
    step = 1_000_000_000 // UNITS[unit]
    if nanoseconds >= step:
        values = since * (nanoseconds // step)
        done = values >= 0
    else:
        values = since // (step // nanoseconds)
        done = (values >= 0) & (since % (step // nanoseconds) == 0)
    return _Usual(values, done.fill_null(value=False))


def _moments(series: pl.Series, column: Column, unit: str) -> _Usual:
    """Typed dates and datetimes; every refusal is told at once."""
    moments = series.cast(pl.Datetime("us")) if series.dtype == pl.Date else series
    kind = moments.dtype
    assert isinstance(kind, pl.Datetime)
    lost = series.is_null()
    if kind.time_zone is None:
        if column.timezone is None:
            why = pl.repeat(NO_ZONE, len(series), dtype=pl.String, eager=True)
            return _none(series, column)._replace(why=why)
        moments = _in_zone(moments, column.timezone)
        lost = moments.is_null()
    since = moments.to_physical()
    values, done, _ = _in_unit(since, _NANO[kind.time_unit], unit)
    if (done | series.is_null()).all():
        return _Usual(values, done)
    why = pl.select(
        pl.when(done | series.is_null())
        .then(None)
        .when(lost)
        .then(pl.lit(SKIPPED))
        .when(since < 0)
        .then(pl.lit(NEGATIVE_TIME))
        .otherwise(pl.lit(FRACTION))
    ).to_series()
    return _Usual(values, done, why)


def _lists(series: pl.Series, column: Column, nulls: frozenset[str]) -> Converted:
    if series.dtype == pl.String and column.separator is None:
        return _one_by_one(series, column, "s", nulls)
    strip = series.dtype == pl.String
    if strip:
        series = series.set(_missing(series, nulls), None).str.split(str(column.separator))
    elif series.dtype in (pl.List, pl.Array):
        series = series.cast(pl.List(series.dtype.inner))  # type: ignore[attr-defined]
    else:
        why = pl.select(pl.when(~_missing(series, nulls)).then(pl.lit(NOT_LIST))).to_series()
        empty = pl.repeat([], len(series), dtype=polars_type(column.type), eager=True)
        return Converted(empty, why if why.is_not_null().any() else None)
    lengths = series.list.len().fill_null(0).to_numpy()
    inner = series.filter(pl.Series(lengths > 0)).explode()
    if strip:
        inner = inner.str.strip_chars(BLANKS)
    one = converted(inner, replace(column, kind=column.of, nullable=True), "s", nulls)
    parents = np.repeat(np.arange(len(series)), lengths)
    kept = one.values.is_not_null().to_numpy()
    counts = np.bincount(parents[kept], minlength=len(series))
    offsets = np.zeros(len(series) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    of = column.type.value_type
    elements = one.values.filter(pl.Series(kept)).to_arrow().cast(of)
    values = pl.Series(pa.LargeListArray.from_arrays(pa.array(offsets), elements))
    if one.reasons is None:
        return Converted(values, None)
    bad = one.reasons.is_not_null()
    first, at = np.unique(parents[bad.to_numpy()], return_index=True)
    why = _nothing(len(series))
    return Converted(values, why.scatter(first, one.reasons.filter(bad).gather(at)))
