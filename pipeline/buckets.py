"""Buckets of users on disk: spilled while parsing, then encoded and ordered one at a time."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.shards import TEMPORARY
from pipeline.vocabulary import arrow

_SPILLED = pa.schema(
    [
        ("row", pa.int64()),
        ("user", pa.large_string()),
        ("item", pa.large_string()),
        ("time", pa.int64()),
        ("tie", pa.int64()),
    ]
)


# Rows gathered before they are dealt out: many small batches a bucket cost more than they hold.
_GATHERED = 100_000


class Spill:
    """Appends behaviours to one Arrow file a bucket; the files appear together at the end."""

    def __init__(self, folder: Path, buckets: int) -> None:
        self.paths = [folder / f"bucket-{k:05d}.arrow" for k in range(buckets)]
        folder.mkdir(parents=True, exist_ok=True)
        self.open = [pa.OSFile(str(self._temporary(p)), "wb") for p in self.paths]
        self.writers = [pa.ipc.new_file(f, _SPILLED) for f in self.open]
        self.gathered: list[pl.DataFrame] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is None:
            self._deal()
        for writer, file in zip(self.writers, self.open, strict=True):
            writer.close()
            file.close()
        for path in self.paths:
            if kind is None:
                with self._temporary(path).open("rb") as whole:
                    os.fsync(whole.fileno())
                self._temporary(path).replace(path)
            else:
                self._temporary(path).unlink(missing_ok=True)

    def append(self, rows: pl.DataFrame) -> None:
        """Send each row to the bucket of its user."""
        self.gathered.append(rows)
        if sum(part.height for part in self.gathered) >= _GATHERED:
            self._deal()

    def _deal(self) -> None:
        if not self.gathered:
            return
        rows = pl.concat(self.gathered)
        self.gathered.clear()
        bucket = (pl.col("user").hash(seed=0) % len(self.paths)).cast(pl.Int32)
        parts = rows.with_columns(bucket.alias("bucket")).partition_by(
            "bucket", as_dict=True, include_key=False
        )
        for (k,), part in parts.items():
            self.writers[int(k)].write_table(arrow(part.select(_SPILLED.names)).cast(_SPILLED))

    @staticmethod
    def _temporary(path: Path) -> Path:
        return path.with_name(f"{TEMPORARY}{path.name}")


def read_spilled(path: Path) -> pa.Table:
    """One bucket's behaviours as they were spilled."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


class Sequences(NamedTuple):
    """One bucket's behaviours with ids, ordered by user and time.

    Attributes:
        row: (behaviours,) line of the raw file.
        user: (behaviours,) ids.
        time: (behaviours,) unix seconds.
        fields: (behaviours,) ids of each field.
        offsets: (users + 1,) where each user's behaviours begin.
    """

    row: npt.NDArray[np.int64]
    user: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    fields: dict[str, npt.NDArray[np.int32]]
    offsets: npt.NDArray[np.int64]


def save_sequences(path: Path, columns: dict[str, npt.NDArray[Any]]) -> None:
    """Write ordered behaviours; whole or absent."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    table = pa.table(columns)
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    temporary.replace(path)


def load_sequences(path: Path, fields: tuple[str, ...]) -> Sequences:
    """Read what `save_sequences` wrote."""
    table = read_spilled(path).combine_chunks()
    column = {
        name: table[name].chunk(0).to_numpy() if len(table) else _empty(table[name].type)
        for name in table.column_names
    }
    user = column["user"]
    firsts = np.flatnonzero(np.diff(user, prepend=-1))
    offsets = np.append(firsts, len(user)).astype(np.int64)
    return Sequences(
        column["row"], user, column["time"], {name: column[name] for name in fields}, offsets
    )


def _empty(kind: pa.DataType) -> npt.NDArray[Any]:
    return np.zeros(0, kind.to_pandas_dtype())
