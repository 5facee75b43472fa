"""Records that a raw file holds more than once: how many there are, and which of them stays."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from pipeline.description import ASKED, USER, Table


@dataclass(frozen=True)
class Repeats:
    """What makes two records of a table the same one.

    Attributes:
        by: the columns that are the same.
        label: the column of what became of the record, if there is one.
    """

    by: tuple[str, ...]
    label: str | None = None

    def count(self, rows: pl.DataFrame) -> tuple[int, int]:
        """How many rows repeat another one, and how many records have both labels."""
        hashes = rows.select(self.by).hash_rows(seed=0)
        if hashes.n_unique() == rows.height:
            return 0, 0
        rows = rows.filter(hashes.is_duplicated())  # few, of which alone more is asked
        records = rows.select(pl.struct(self.by).n_unique()).item()
        told = records
        if self.label is not None:
            told = rows.select(pl.struct(*self.by, self.label).n_unique()).item()
        return rows.height - records, told - records

    def kept(self, rows: pl.DataFrame, drop: bool) -> pl.DataFrame:
        """A bucket's rows; with `drop` one of each record: the first in the file.

        Of a record with both labels it is the first with the label 1: a click may be logged after
        the impression, and the impression was clicked.
        """
        if not drop:
            return rows
        rows = rows.sort("row")
        if self.label is not None:
            rows = rows.sort(self.label, descending=True, maintain_order=True)
        return rows.unique(self.by, keep="first", maintain_order=True)


def repeats_of(table: Table) -> Repeats:
    """What makes two events of a table the same one."""
    label = "label" if table.label else None
    asked = (ASKED,) if table.asked else ()
    return Repeats((USER, *(table.fields or table.ids), "time", *asked), label)
