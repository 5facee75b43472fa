"""Requests as a file has them, and their scores as it is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.csv import CSVWriter

from pipeline.readers.packed import DAMAGE, packing_by, unpacked
from pipeline.readers.values import EXACT
from pipeline.record import atomic
from pipeline.serving.features import Columns
from pipeline.serving.requests import Request
from pipeline.serving.scorer import Scorer
from schemas import bundle, manifest
from schemas.checked import Misfit, build, decode
from schemas.errors import InputError, UsageError
from schemas.manifest import UNKNOWN_ID
from schemas.plain import for_spreadsheet
from schemas.replacing import require_folder
from schemas.shards import UNITS

Told = Callable[[str, int, int | None], None]
ROUNDING = 1e-5
"""How far the probability of a score may be from itself, on another machine."""

_SHOWN = 200
_BATCH = 4096  # requests written at once


class Line(NamedTuple):
    """A request of a file, and the number of its line, from 1."""

    number: int
    request: Request


def requests(path: Path, unit: str) -> Iterator[Line]:
    """The requests of a file, a JSON object a line; empty lines are passed over.

    Args:
        unit: of times that are numbers; others are text with a date, a time and a zone.

    Raises:
        InputError: the file cannot be read, or a line is no request.
    """
    return (Line(number, read_request(path, number, raw, unit)) for number, raw in objects(path))


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, plain or packed, and the number of each one's line.

    Raises:
        InputError: the file cannot be read, or a line holds something else.
    """
    try:
        with path.open("rb") as file:  # perhaps a pipe, which nothing can be read from twice
            plain = unpacked(file, packing_by(file.peek()))
            for number, text in enumerate(TextIOWrapper(plain, "utf-8-sig"), 1):
                if not text.strip():
                    continue
                try:
                    raw = decode(text)
                except ValueError:
                    raw = None
                if not isinstance(raw, dict):
                    expected = "a JSON object; null for a missing value, not NaN"
                    raise misfit(path, number, expected, text.strip())
                yield number, raw
    except (*DAMAGE, UnicodeDecodeError) as error:
        raise InputError(
            "The requests cannot be read.",
            where=path,
            expected="a file of UTF-8 text, plain or packed by gzip or zstd, a JSON object a line",
            got=(getattr(error, "strerror", None) or str(error))[:_SHOWN],
        ) from None


def read_request(path: Path, number: int, raw: dict[str, Any], unit: str) -> Request:
    """A request of a line.

    Raises:
        InputError: it is none.
    """
    try:
        return request_of(raw, unit)
    except Misfit as error:
        raise misfit(path, number, f"{error.at}: {error.expected}", error.got) from None


def misfit(path: Path, number: int, expected: str, got: str) -> InputError:
    """What is wrong with a line."""
    return InputError(
        "A line is no request.",
        where=path,
        line=number,
        expected=expected,
        got=got[:_SHOWN],
        do='e.g. {"user": "u1", "time": 1700000000, "candidates": [{"item": "i1"}]}',
    )


def _time(told: str, unit: str) -> int:
    """A time of text in a unit; what is finer is cut off."""
    try:
        since = datetime.fromisoformat(told) - datetime.fromisoformat("1970-01-01T00:00:00Z")
    except (ValueError, TypeError):
        expected = f"a whole number of the unit {unit}, or a date, a time and a zone"
        raise Misfit("time", expected, ascii(told)) from None
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return micros * UNITS[unit] // 1_000_000


def request_of(raw: Any, unit: str) -> Request:
    """A request of decoded JSON; `unit` is as for `requests`.

    Raises:
        Misfit: it is none.
    """
    if isinstance(raw, dict):
        if isinstance(told := raw.get("time"), str):
            raw = {**raw, "time": _time(told, unit)}
        # As other programs write whole numbers of a column in which some value is missing.
        odd = [n for n in ("user", "time") if type(raw.get(n)) is float and raw[n].is_integer()]
        raw = {**raw, **{name: int(raw[name]) for name in odd if abs(raw[name]) <= EXACT}}
    return build(Request, raw)


def said(request: Request) -> dict[str, Any]:
    """A request as JSON has it."""
    return {name: value for name, value in vars(request).items() if value not in (None, {})}


def written(request: Request, **more: Any) -> str:
    """A request as a line of a file."""
    return json.dumps({**said(request), **more}, ensure_ascii=False) + "\n"


def score(
    scorer: Scorer, path: Path, out: Path, log: Path | None, told: Told = lambda *_: None
) -> list[str]:
    """Score the requests of a file; returns what to say of it.

    Args:
        out: for the scores, CSV if it is called *.csv, else Parquet: `line` and `id` of each
            request, `candidate`, from 0, and `score`, the probability of a positive label.
        log: for each request and its scores, in the order that they came; None for no log.

    Raises:
        InputError: a request is none, or lacks something; or there is none.
        UsageError: something else stands where a file is to be.
        OSError: the disk is full, or refuses it.
    """
    _require_free(path, out, *([] if log is None else [log]))
    named = [("line", pa.int64()), ("id", pa.string())]
    schema = pa.schema([*named, ("candidate", pa.int32()), ("score", pa.float32())])
    counts: Counter[str] = Counter()
    with ExitStack() as files:
        to, text = files.enter_context(atomic(out)), out.suffix == ".csv"
        writer = files.enter_context(
            CSVWriter(to, schema) if text else pq.ParquetWriter(to, schema, compression="zstd")
        )
        logged = None
        if log is not None:
            temporary = files.enter_context(atomic(log))
            logged = files.enter_context(temporary.open("w", encoding="utf-8"))
        lines = requests(path, scorer.bundle.data.time_unit)
        while some := list(islice(lines, _BATCH)):
            scores = []
            for number, request in some:
                columns = features(scorer, path, number, request)
                scores.append(scorer.score(columns))
                _count(counts, columns, scorer)
                if logged is not None:
                    logged.write(written(request, scores=scores[-1].tolist()))
            sizes = [len(of) for of in scores]
            names = [request.id for _, request in some]
            if text:
                names = [None if name is None else for_spreadsheet(name) for name in names]
            rows = [
                np.repeat([number for number, _ in some], sizes),
                [name for name, n in zip(names, sizes, strict=True) for _ in range(n)],
                np.concatenate([np.arange(n, dtype=np.int32) for n in sizes]),
                np.concatenate(scores),
            ]
            writer.write_table(pa.table(rows, schema))
            counts["requests"] += len(some)
            counts["candidates"] += sum(sizes)
            told("score", counts["requests"], None)
        if not counts["requests"]:
            raise InputError(
                "The file holds no requests.",
                where=path,
                expected="a JSON object a line",
                got="empty lines" if path.stat().st_size else "no bytes",
            )
    candidates, asked = (counts.pop(name, 0) for name in ("candidates", "requests"))
    found = [f"{candidates:,} candidates of {asked:,} request{'s' * (asked != 1)}: {out}"]
    return found + [f"{count:,} {what}" for what, count in sorted(counts.items())]


def _require_free(requests: Path, *outs: Path) -> None:
    """Refuse to replace the requests, one file by the other, or what a folder of tinprep's has."""
    taken = {requests.resolve(): "the requests"}
    for out in outs:
        require_folder("The folder of the scores", out.parent)
        at = out.resolve()
        named = (of / name for of in at.parents for name in (manifest.NAME, bundle.NAME))
        # Others have files of these names, too; all of ours have vocabularies beside them.
        ours = (path for path in named if path.is_file() and (path.parent / "vocabulary").is_dir())
        own = next(ours, None)
        got = taken.get(at, "")
        if at.exists() and not at.is_file():
            got = "a folder or a device"
        elif own is not None:
            got = f"one beside {own}"
        if got:
            raise UsageError(
                "The file cannot be written here.",
                where=out,
                expected="the name of a file of its own, outside of data sets and bundles",
                got=got,
                do="give another name",
            )
        taken[at] = "another file to be written"


def features(scorer: Scorer, path: Path, number: int, request: Request) -> Columns:
    """Those of a request; what is wrong with it is told with its line."""
    try:
        return scorer.features(request)
    except InputError as error:
        error.where, error.line = path, number
        raise


def _count(counts: Counter[str], columns: Columns, scorer: Scorer) -> None:
    """Count what a model can say little of."""
    made = scorer.bundle.data
    for name in made.fields:
        if unknown := int((columns[f"target_{name}"] == UNKNOWN_ID).sum()):
            counts[f"candidates of unknown {name}"] += unknown
    if not any(columns[f"{name}_length"][0] for name in made.histories):
        counts["requests of users with nothing in any history"] += 1
