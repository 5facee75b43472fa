"""Raw files in parts of whole lines, each with the number of its first line, found by Spark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from pipeline.readers.lines import Part
from pipeline.readers.packed import Packing, packing_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A part that is lost is parsed again, and what each part counted is held by the driver.
PART_BYTES = 64 << 20
_MOST_PARTS = 1_024
_CHUNK_BYTES = 8 << 20
_COUNTED = "number long, lines long, first long"


class Counted(NamedTuple):
    """A range of a file's bytes: how many newlines it has, and where the first is, -1 for none."""

    lines: int
    first: int


def cut(session: SparkSession, path: Path, part_bytes: int = PART_BYTES) -> list[Part]:
    """Cut a file into parts of about `part_bytes`, or into 1,024 larger ones.

    A packed file cannot be entered in the middle and stays whole.

    Raises:
        InputError: the file is neither text nor gzip nor zstd.
    """
    size = path.stat().st_size
    step = max(part_bytes, -(-size // _MOST_PARTS))
    ranges = -(-size // step)
    if ranges < 2 or packing_of(path) is not Packing.TEXT:
        return [Part(path)]
    task = partial(_count, path, step)
    rows = session.range(0, ranges, 1, ranges).mapInArrow(task, _COUNTED).collect()
    rows.sort(key=lambda row: row.number)
    return whole_lines(path, [Counted(row.lines, row.first) for row in rows])


def whole_lines(path: Path, ranges: Sequence[Counted]) -> list[Part]:
    """The parts of a file whose neighbouring ranges were counted, each of whole lines.

    A line belongs to the range that it begins in.
    """
    parts, before, begin, first_line = [], 0, 0, 0
    for number, found in enumerate(ranges):
        if number and found.first >= 0:
            parts.append(Part(path, begin, found.first + 1, first_line))
            begin, first_line = found.first + 1, before + 1
        before += found.lines
    if begin < path.stat().st_size:
        parts.append(Part(path, begin, None, first_line))
    return parts


def count_range(path: Path, begin: int, end: int) -> Counted:
    """Count the newlines of the bytes `[begin, end)`, as far as the file goes."""
    lines, first, at = 0, -1, begin
    with path.open("rb") as file:
        file.seek(begin)
        while at < end and (chunk := file.read(min(_CHUNK_BYTES, end - at))):
            if first < 0 and (place := chunk.find(b"\n")) >= 0:
                first = at + place
            lines += chunk.count(b"\n")
            at += len(chunk)
    return Counted(lines, first)


def _count(path: Path, step: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A task: some ranges of the file."""
    for batch in rows:
        for number in batch["id"].to_pylist():
            found = (number, *count_range(path, number * step, (number + 1) * step))
            columns = [pa.array([value], pa.int64()) for value in found]
            yield pa.RecordBatch.from_arrays(columns, ["number", "lines", "first"])
