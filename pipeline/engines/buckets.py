"""Buckets of users on disk: spilled while parsing, then encoded and ordered one at a time."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.record import atomic, begun, finished
from schemas.shards import numpy_type

AT = "at"
"""The column of a large table by which buckets ask for its rows, and of what they ask."""

# Files open besides a spill's own: raw files, shards, libraries.
_OTHER_FILES = 256
# Files brought to disk at once: each waits for the disk, none takes a core.
_WRITERS = 8


class Spill:
    """Appends rows to one Arrow file a bucket; the files appear together at the end.

    Rows may be appended by several threads. What a bucket holds is the same whatever their order;
    in which order it holds it is not.

    Args:
        first: number of the first bucket.
        gather: rows that are gathered before they are dealt out: many small batches a bucket cost
            more than they hold.
    """

    def __init__(
        self, folder: Path, buckets: int, schema: pa.Schema, first: int = 0, gather: int = 100_000
    ) -> None:
        self.gather = gather
        self.paths = [bucket_path(folder, first + k) for k in range(buckets)]
        self.schema = schema
        _allow_files(buckets)
        self.files = [begun(path) for path in self.paths]
        self.open = [pa.OSFile(str(file), "wb") for file in self.files]
        self.writers = [pa.ipc.new_file(f, schema) for f in self.open]
        self.locks = [threading.Lock() for _ in self.paths]
        self.gathered: list[tuple[pa.RecordBatch, npt.NDArray[np.uint16]]] = []
        self.gathering = threading.Lock()

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._deal(self.gathered)
        finally:
            for writer, file in zip(self.writers, self.open, strict=True):
                writer.close()
                file.close()
        if kind is None:
            with ThreadPoolExecutor(_WRITERS, "sync") as pool:
                list(pool.map(finished, self.files, self.paths))
        for file in self.files:
            file.unlink(missing_ok=True)

    def append(self, columns: list[pa.Array], bucket: npt.NDArray[np.integer[Any]]) -> None:
        """Send each row to its bucket.

        Args:
            columns: (rows,) each, in the order of the schema.
            bucket: (rows,) the bucket of each row.
        """
        rows = pa.record_batch(columns, schema=self.schema), bucket.astype(np.uint16)
        with self.gathering:
            self.gathered.append(rows)
            if sum(len(to) for _, to in self.gathered) < self.gather:
                return
            some, self.gathered = self.gathered, []
        self._deal(some)

    def _deal(self, some: list[tuple[pa.RecordBatch, npt.NDArray[np.uint16]]]) -> None:
        if not some:
            return
        bucket = np.concatenate([to for _, to in some])
        rows = some[0][0] if len(some) == 1 else pa.concat_batches([rows for rows, _ in some])
        # A stable sort of 16-bit numbers is a radix sort.
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=len(self.paths)))
        dealt = rows.take(pa.array(order))
        begin = 0
        for k, end in enumerate(ends.tolist()):
            if end > begin:
                with self.locks[k]:
                    self.writers[k].write_batch(dealt.slice(begin, end - begin))
            begin = end


def _allow_files(more: int) -> None:
    """Raise the number of files that may be open, which is often 1,024, as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sum(1 for _ in Path("/dev/fd").iterdir()) + more + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def bucket_path(folder: Path, bucket: int) -> Path:
    """Where a bucket's rows are."""
    return folder / f"bucket-{bucket:05d}.arrow"


def read_spilled(path: Path) -> pa.Table:
    """One bucket's rows as they were spilled."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def spilled_pieces(path: Path) -> Iterator[pa.Table]:
    """One bucket's rows as they were spilled, one batch of them in memory at a time."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as spilled:
        for k in range(spilled.num_record_batches):
            yield pa.Table.from_batches([spilled.get_batch(k)])


class Behaviours(NamedTuple):
    """One bucket's behaviours with ids, ordered by user and time.

    Attributes:
        user: (behaviours,) ids.
        time: (behaviours,) unix seconds.
        fields: (behaviours,) ids of each field.
        offsets: (users + 1,) where each user's behaviours begin.
    """

    user: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    fields: dict[str, npt.NDArray[np.int32]]
    offsets: npt.NDArray[np.int64]

    @staticmethod
    def of(
        user: npt.NDArray[np.int32],
        time: npt.NDArray[np.int64],
        fields: dict[str, npt.NDArray[np.int32]],
    ) -> Behaviours:
        """Behaviours that are in order already."""
        firsts = np.flatnonzero(np.diff(user, prepend=-1))
        return Behaviours(user, time, fields, np.append(firsts, len(user)).astype(np.int64))

    @property
    def place_of_user(self) -> npt.NDArray[np.int64]:
        """(behaviours,) the user of each, as its place in the bucket."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def take(self, some: npt.NDArray[np.bool_]) -> Behaviours:
        """Some of them, in the same order."""
        fields = {name: ids[some] for name, ids in self.fields.items()}
        return Behaviours.of(self.user[some], self.time[some], fields)


def lines_at(table: pa.Table, at: npt.NDArray[np.int32]) -> pa.Table:
    """Those rows of a table that is ascending by `AT` that have one of some distinct numbers."""
    held = table[AT].to_numpy()
    begin = np.searchsorted(held, at)
    count = np.searchsorted(held, at, "right") - begin
    before = np.cumsum(count) - count
    return table.take(pa.array(np.arange(count.sum()) + np.repeat(begin - before, count)))


def save_columns(path: Path, columns: dict[str, npt.NDArray[Any]]) -> None:
    """Write arrays of equal length; whole or absent."""
    save_table(path, pa.table(columns))


def save_table(path: Path, table: pa.Table) -> None:
    """Write a table for `read_spilled`; whole or absent."""
    with (
        atomic(path, sync=False) as unfinished,
        pa.OSFile(str(unfinished), "wb") as file,
        pa.ipc.new_file(file, table.schema) as out,
    ):
        out.write_table(table)


def load_columns(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read what `save_columns` wrote; arrays are mapped, not copied."""
    return numpy_columns(read_spilled(path).combine_chunks())


def numpy_columns(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """The columns of a table without nulls."""
    return {
        name: column.chunk(0).to_numpy()
        if column.num_chunks == 1
        else np.concatenate([np.zeros(0, numpy_type(column.type)), *map(_plain, column.chunks)])
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _plain(chunk: pa.Array) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = chunk.to_numpy()
    return values
