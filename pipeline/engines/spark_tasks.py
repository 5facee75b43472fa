"""What runs on Spark's executors: a task has a share of a table, or a bucket, to work on.

Its files lie in a temporary folder of its own, as they lie in the work folder on one machine.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.engines.buckets import AT, bucket_path, lines_at, read_spilled
from pipeline.engines.engine import Deal, Each
from pipeline.engines.tally import Words
from pipeline.readers.parsed import Reader
from pipeline.readers.shares import Share, rows_of
from schemas.errors import EnvironmentFault, TinprepError

TABLE = "bucket int, kind string, blob binary"
REPORT = "report"
LINES = "lines"
COUNTED = "number long, rows long"
_BLOB_BYTES = 4 << 20
# Of a large table of which buckets ask for some rows: what one task answers of.
PART_BYTES = 16 << 20

# What has to be the same everywhere: tinprep, and Polars, whose hash decides on a user's bucket.
_SAME = ("tinprep", "polars")


def versions() -> dict[str, str]:
    """The versions of what has to be the same everywhere."""
    return {name: version(name) for name in _SAME}


def count_rows(
    reader: Reader, paths: list[Path], rows: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """A task: how many rows some files have."""
    for batch in rows:
        for number in batch["id"].to_pylist():
            found = (number, rows_of(reader, paths[number]))
            columns = [pa.array([value], pa.int64()) for value in found]
            yield pa.RecordBatch.from_arrays(columns, ["number", "rows"])


def deal_shares(
    work: Deal[Any],
    shares: list[Share],
    buckets: int,
    kinds: tuple[str, ...],
    wanted: dict[str, str],
    rows: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """A task: what becomes of some shares of a table."""
    for batch in rows:
        for number in batch["id"].to_pylist():
            with tempfile.TemporaryDirectory(prefix="tinprep-") as name:
                folder = Path(name)
                result = _checked(wanted, partial(work, folder, shares[number], lambda _: None))
                if not isinstance(result, TinprepError):
                    for kind in kinds:
                        for bucket in range(buckets):
                            # Of the first share an empty file, too, so that every bucket has one.
                            yield from _pieces(folder, kind, bucket, empty=number == 0)
                yield _row(buckets, REPORT, pickle.dumps((number, result)))


def work_on_bucket(
    work: Each[Any],
    buckets: int,
    needs: tuple[str, ...],
    makes: tuple[str, ...],
    tallies: tuple[type[Words], ...],
    wanted: dict[str, str],
    rows: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """A task: what becomes of a bucket."""
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    bucket = context.partitionId()
    if bucket == buckets:  # reports of the table before, which nobody wants
        return
    with tempfile.TemporaryDirectory(prefix="tinprep-") as name:
        folder = Path(name)
        _lay(folder, bucket, needs, rows)
        counted = [kind() for kind in tallies]
        result = _checked(wanted, partial(work, folder, bucket, *counted))
        if not isinstance(result, TinprepError):
            result = (result, [tally.counts() for tally in counted])
            for kind in makes:
                yield from _pieces(folder, kind, bucket, empty=True)
        yield _row(buckets, REPORT, pickle.dumps((bucket, result)))


def ask_parts(
    firsts: npt.NDArray[np.int32], rows: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """A task: what buckets ask of a large table, by the part of it that has the answers.

    Args:
        firsts: the first number of each part of the table, but for the first part.
        rows: a bucket's question each, or a piece of it.
    """
    for batch in rows:
        for bucket, blob in zip(batch["bucket"].to_pylist(), batch["blob"], strict=True):
            with pa.ipc.open_stream(blob.as_buffer()) as stream:
                at = stream.read_all()[AT].to_numpy()
            part = np.searchsorted(firsts, at, "right")
            for k in np.unique(part).tolist():
                of_part = pa.table({AT: at[part == k]})
                yield row_of(k, str(bucket), of_part)


def answer_part(kind: str, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A task: the rows of a part of a large table that buckets ask for."""
    lines: pa.Table | None = None
    asked: list[tuple[int, pa.Table]] = []
    for batch in rows:
        for who, blob in zip(batch["kind"].to_pylist(), batch["blob"], strict=True):
            with pa.ipc.open_stream(blob.as_buffer()) as stream:
                table = stream.read_all()
            if who == LINES:
                lines = table
            else:
                asked.append((int(who), table))
    for bucket, table in asked:
        assert lines is not None
        yield from _rows_of(bucket, kind, lines_at(lines, table[AT].to_numpy()))


def row_of(bucket: int, kind: str, table: pa.Table) -> pa.RecordBatch:
    """Some rows of a bucket's file as a row of a Spark table."""
    return _row(bucket, kind, _stream(table))


def _rows_of(bucket: int, kind: str, table: pa.Table) -> Iterator[pa.RecordBatch]:
    """A bucket's file as rows of a Spark table, none of which is large."""
    a_piece = max(1, len(table) * _BLOB_BYTES // max(table.nbytes, 1))
    for begin in range(0, len(table), a_piece):
        yield row_of(bucket, kind, table.slice(begin, a_piece))


def _checked(wanted: dict[str, str], work: Callable[[], Any]) -> Any:
    """What `work` returns, or one of our errors: to try again would not mend it."""
    if versions() != wanted:
        return EnvironmentFault(
            "An executor has other libraries than the driver.",
            where=f"Python {sys.executable} of an executor",
            expected=", ".join(f"{name} {number}" for name, number in wanted.items()),
            got=", ".join(f"{name} {number}" for name, number in versions().items()),
            do="install the same on all machines, e.g. with the driver's constraints.txt",
        )
    try:
        return work()
    except TinprepError as error:
        return error


def _pieces(folder: Path, kind: str, bucket: int, *, empty: bool) -> Iterator[pa.RecordBatch]:
    """A bucket's file of a kind, if there is one, as rows of a Spark table."""
    path = bucket_path(folder / kind, bucket)
    if not path.exists():
        return
    table = read_spilled(path)
    yield from _rows_of(bucket, kind, table)
    if empty and not len(table):
        yield row_of(bucket, kind, table)


def _stream(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def _row(bucket: int, kind: str, blob: pa.Buffer | bytes) -> pa.RecordBatch:
    ends = pa.py_buffer(np.array([0, len(blob)], np.int64))
    columns = [
        pa.array([bucket], pa.int32()),
        pa.array([kind], pa.large_string()),
        pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(blob)]),
    ]
    return pa.RecordBatch.from_arrays(columns, ["bucket", "kind", "blob"])


def _lay(folder: Path, bucket: int, needs: tuple[str, ...], rows: Iterator[pa.RecordBatch]) -> None:
    """Write the files of a bucket from rows of a Spark table, one piece at a time."""
    writers: dict[str, tuple[pa.OSFile, pa.RecordBatchFileWriter]] = {}
    for batch in rows:
        for kind, blob in zip(batch["kind"].to_pylist(), batch["blob"], strict=True):
            if kind not in needs:
                continue
            with pa.ipc.open_stream(blob.as_buffer()) as stream:
                if kind not in writers:
                    path = bucket_path(folder / kind, bucket)
                    path.parent.mkdir()
                    file = pa.OSFile(str(path), "wb")
                    writers[kind] = file, pa.ipc.new_file(file, stream.schema)
                for piece in stream:
                    writers[kind][1].write_batch(piece)
    for file, writer in writers.values():
        writer.close()
        file.close()
