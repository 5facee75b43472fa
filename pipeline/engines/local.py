"""Buckets on the threads of one machine; Arrow, DuckDB, Polars and NumPy release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from pipeline.engines.buckets import (
    AT,
    bucket_path,
    lines_at,
    load_columns,
    save_table,
    spilled_pieces,
)
from pipeline.engines.engine import Deal, Each, Read
from pipeline.parallel import map_buckets
from pipeline.readers.shares import Share, placed

if TYPE_CHECKING:
    from pipeline.engines.tally import Words
    from pipeline.readers.parsed import Reader

Result = TypeVar("Result")


@dataclass(frozen=True)
class Local:
    """The engine of one machine: every bucket's files lie in one folder.

    Attributes:
        folder: where they lie.
        threads: buckets worked on at once.
    """

    folder: Path
    threads: int

    resumes = True  # the files stay
    least_buckets = 2  # small files need no more

    def shares(self, paths: Sequence[Path], reader: Reader) -> list[Share]:
        """All files one after another: they are read faster than their lines can be parsed."""
        return [Share(tuple(placed(paths)))]

    def deal(
        self,
        work: Deal[Result],
        shares: Sequence[Share],
        buckets: int,
        kinds: Sequence[str],
        read: Read,
    ) -> list[Result]:
        """As `Engine.deal`."""
        return [work(self.folder, share, read) for share in shares]

    def gather(self, kind: str, order: Callable[[pa.Table], Any]) -> Iterator[pa.Table]:
        """As `Engine.gather`; the only share has left every file in order."""
        for path in sorted((self.folder / kind).iterdir()):
            yield from spilled_pieces(path)

    def spread(self, kind: str, asked: str, table: pa.Table, buckets: int) -> None:
        """As `Engine.spread`."""
        for bucket in range(buckets):
            at = load_columns(bucket_path(self.folder / asked, bucket))[AT]
            save_table(bucket_path(self.folder / kind, bucket), lines_at(table, at))

    def each(
        self,
        work: Each[Result],
        buckets: int,
        needs: Sequence[str],
        makes: Sequence[str],
        tallies: Sequence[Words],
        done: Callable[[], None],
    ) -> list[Result]:
        """As `Engine.each`; all buckets count in the same tallies, so memory does not grow."""

        def one(bucket: int) -> Result:
            return work(self.folder, bucket, *tallies)

        return map_buckets(one, range(buckets), self.threads, done)
