"""Requests as a file has them, and their scores as it is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.record import atomic
from pipeline.serving.requests import Request
from schemas.checked import Misfit, build, decode
from schemas.errors import InputError
from schemas.shards import UNITS

_SHOWN = 200
_BATCH = 4096  # requests written at once


class Line(NamedTuple):
    """A request of a file, and the number of its line, from 1."""

    number: int
    request: Request


def requests(path: Path, unit: str) -> Iterator[Line]:
    """The requests of a file, a JSON object a line; empty lines are passed over.

    Args:
        path: the file.
        unit: of times that are numbers; others are text with a date, a time and a zone.

    Raises:
        InputError: the file cannot be read, or a line is no request.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield _line(path, number, text, unit)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "The requests cannot be read.",
            where=path,
            expected="a file of UTF-8 text, a JSON object a line",
            got=str(error)[:_SHOWN],
        ) from None


def _line(path: Path, number: int, text: str, unit: str) -> Line:
    try:
        raw = decode(text)
        if not isinstance(raw, dict):
            raise Misfit("request", "an object", ascii(raw))
        if isinstance(told := raw.get("time"), str):
            raw["time"] = _time(told, unit)
        return Line(number, build(Request, raw))
    except ValueError as error:
        at = f"{error.at}: " if isinstance(error, Misfit) else ""
        raise InputError(
            "A line is no request.",
            where=path,
            line=number,
            expected=at + (error.expected if isinstance(error, Misfit) else "a JSON object"),
            got=(error.got if isinstance(error, Misfit) else text.strip())[:_SHOWN],
            do='e.g. {"user": "u1", "time": 1700000000, "candidates": [{"item": "i1"}]}',
        ) from None


def _time(told: str, unit: str) -> int:
    """A time of text in a unit; what is finer is cut off.

    Raises:
        Misfit: it is none, or names no zone.
    """
    try:
        since = datetime.fromisoformat(told) - datetime.fromisoformat("1970-01-01T00:00:00Z")
    except (ValueError, TypeError):
        expected = f"a whole number of the unit {unit}, or a date, a time and a zone"
        raise Misfit("time", expected, ascii(told)) from None
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return micros * UNITS[unit] // 1_000_000


def written(request: Request, **more: Any) -> str:
    """A request as a line of a file."""
    found = {name: value for name, value in vars(request).items() if value not in (None, {})}
    return json.dumps({**found, **more}, ensure_ascii=False) + "\n"


def write_scores(path: Path, scored: Iterable[tuple[Line, np.ndarray[Any, Any]]]) -> int:
    """Write the scores of requests as Parquet, whole or not at all; returns how many there are.

    Args:
        path: of the file: `line` and `id` of each request, `candidate`, from 0, and `score`, the
            probability of a positive label.
        scored: requests and (candidates,) their scores.
    """
    schema = pa.schema(
        [
            ("line", pa.int64()),
            ("id", pa.string()),
            ("candidate", pa.int32()),
            ("score", pa.float32()),
        ]
    )
    count = 0
    with atomic(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        some: list[tuple[Line, np.ndarray[Any, Any]]] = []

        def flush() -> None:
            sizes = [len(scores) for _, scores in some]
            columns = [
                np.repeat([line.number for line, _ in some], sizes),
                [line.request.id for line, scores in some for _ in scores],
                np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
                np.concatenate([scores for _, scores in some]),
            ]
            writer.write_table(pa.table(columns, schema))
            some.clear()

        for one in scored:
            some.append(one)
            count += len(one[1])
            if len(some) == _BATCH:
                flush()
        if some:
            flush()
    return count
