"""The cells of the correlation, counted in memory where that fits, else by SQL, out of core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.interrupts import FOR_EVER
from trainer.counting import SCHEMA, count, fits, tables
from trainer.data import Shards
from trainer.shard_sql import query


@dataclass(frozen=True)
class CtcCells:
    """Eq. 1 in every cell, with the columns and rows of `sql/correlation/ctc.sql`.

    Attributes:
        shards: the data set.
        splits: whose rows.
        column: of the places, `history_position` or `history_interval_bin`.
        places: the last place.
        missing: what stands for a count of 0.
        memory_mb: what the counts may take, and DuckDB, where they do not fit.
        threads: None for all cores.
    """

    shards: Shards
    splits: tuple[str, ...]
    column: str
    places: int
    missing: float
    memory_mb: int
    threads: int | None

    def of(self, target: int) -> pa.Table:
        """The cells of one category of targets.

        Raises:
            InputError: a shard is missing or damaged.
            EnvironmentFault: memory or disk do not suffice.
        """
        if not self._fit(1):
            return self._query(f"target_category = {target}")
        return pa.concat_tables(self._tables([target]))

    def write(self, to: Path) -> None:
        """Write the cells of all categories of targets to a Parquet file; raises as `of`."""
        size = self.shards.manifest.vocabulary["category"]
        if not self._fit(size):
            self._query("true", to)
            return
        with pq.ParquetWriter(to, SCHEMA, compression="zstd") as writer:
            # The next part is made while this one is written.
            parts = self._tables(range(size))
            with ThreadPoolExecutor(1) as beside:
                part = next(parts, None)
                while part is not None:
                    coming = beside.submit(next, parts, None)
                    writer.write_table(part)
                    part = coming.result(FOR_EVER)

    def _fit(self, targets: int) -> bool:
        return fits(self.shards, targets, self.column, self.places, self.memory_mb, self.threads)

    def _tables(self, targets: Sequence[int]) -> Iterator[pa.Table]:
        made = count(self.shards, self.splits, self.column, self.places, targets, self.threads)
        return tables(made, self.missing)

    def _query(self, where: str, to: Path | None = None) -> pa.Table:
        row = f"target_category, label, history_length, history_category, {self.column}"
        return query(
            "correlation/ctc",
            self.shards,
            self.splits,
            f"{row} as history_place",
            where=where,
            to=to,
            memory_mb=self.memory_mb,
            threads=self.threads,
            places=self.places,
            missing=self.missing,
            # A position never holds two behaviours of a history.
            repeats=self.column != "history_position",
        )
