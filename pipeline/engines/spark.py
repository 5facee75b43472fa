"""Buckets on Apache Spark: dealt out by its shuffle, worked on by its executors.

What travels is Arrow. A row of a Spark table here is a piece of a bucket's file: the bucket, the
kind of file, and some record batches of it as an Arrow stream. So Spark moves few large rows, and
partition k of every table is bucket k: the shuffle is the partition by user, and functions over
buckets are tasks, which find their bucket's files in a folder of their own, as on one machine.

What a function returns travels as one more such row, in the partition behind the last bucket's.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, count, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.engines.buckets import AT
from pipeline.engines.engine import Deal, Each, Read, Result
from pipeline.engines.spark_parts import cut
from pipeline.engines.spark_session import spark_errors
from pipeline.engines.spark_tasks import (
    COUNTED,
    LINES,
    PART_BYTES,
    TABLE,
    answer_part,
    ask_parts,
    count_rows,
    deal_shares,
    row_of,
    versions,
    work_on_bucket,
)
from pipeline.engines.tally import Words
from pipeline.readers.line_count import estimate_lines
from pipeline.readers.parsed import Reader
from pipeline.readers.shares import Share, parts_of, placed
from schemas.errors import TinprepError
from schemas.interrupts import FOR_EVER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_POLL_SECONDS = 0.5
# Parts of a large table; Spark sends them with a task, which may have 128 MB.
_SENT_AT_ONCE = 4


@dataclass
class Spark:
    """The engine of a Spark cluster.

    Attributes:
        tables: kind -> the table with the files of that kind; partition k has bucket k's.
        groups: numbers for Spark's groups of jobs.
    """

    session: SparkSession
    tables: dict[str, DataFrame] = field(default_factory=dict)
    groups: Iterator[int] = field(default_factory=count)

    threads = 1  # a task has one core
    resumes = False  # what was dealt out is gone with the session

    @property
    def least_buckets(self) -> int:
        """A few tasks a core, so that the last ones do not keep most cores waiting."""
        return 3 * int(self.session.sparkContext.defaultParallelism)

    def shares(self, paths: Sequence[Path], reader: Reader) -> list[Share]:
        """Parts of files, each a share; a gzip file is one part."""
        found: list[Share] = []
        sizes = [path.stat().st_size for path in paths]
        whole, before = max(sum(sizes), 1), 0
        rows = self._first_rows(paths, reader)
        for of, row, size in zip(placed(paths), rows, sizes, strict=True):
            parts = parts_of(reader, of.part.path)
            if parts is None:
                with spark_errors():
                    parts = cut(self.session, of.part.path)
            for n, part in enumerate(parts):
                at = before + size * n // len(parts)
                found.append(Share((replace(of, part=part, first_row=row),), at / whole))
            before += size
        return found

    def _first_rows(self, paths: Sequence[Path], reader: Reader) -> list[int]:
        """The table's row of each file's first one; all but the last file are read for it."""
        if len(paths) == 1:
            return [0]
        number = len(paths) - 1
        task = partial(count_rows, reader, list(paths))
        with spark_errors():
            rows = self.session.range(0, number, 1, number).mapInArrow(task, COUNTED).collect()
        counts = {row.number: row.rows for row in rows}
        return list(accumulate((counts[n] for n in range(number)), initial=0))

    def deal(
        self,
        work: Deal[Result],
        shares: Sequence[Share],
        buckets: int,
        kinds: Sequence[str],
        read: Read,
    ) -> list[Result]:
        """As `Engine.deal`."""
        task = partial(deal_shares, work, list(shares), buckets, tuple(kinds), versions())
        # A row a share, and a partition a row.
        rows = self.session.range(0, len(shares), 1, len(shares))
        dealt = rows.mapInArrow(task, TABLE).repartitionById(buckets + 1, "bucket")
        paths = {of.part.path for share in shares for of in share.parts}
        each = sum(map(estimate_lines, paths)) // len(shares)
        reports = self._run(dealt, buckets, lambda: read(each))
        self.tables |= dict.fromkeys(kinds, dealt)
        return [reports[k] for k in range(len(shares))]

    def gather(self, kind: str, order: Callable[[pa.Table], Any]) -> Iterator[pa.Table]:
        """As `Engine.gather`; one bucket's rows are here at a time."""
        table = self.tables[kind]
        rows = self._pulled(table.filter(table.kind == kind).select("bucket", "blob"))
        for _, bucket in groupby(rows, key=itemgetter(0)):
            pieces = [pa.ipc.open_stream(pa.py_buffer(row[1])).read_all() for row in bucket]
            # Of several shares; each share's pieces are in order already.
            yield from sorted(filter(len, pieces), key=order)

    def spread(self, kind: str, asked: str, table: pa.Table, buckets: int) -> None:
        """As `Engine.spread`: parts of the table and what is asked of each meet in one task."""
        at = table[AT].to_numpy()
        most = max(1, PART_BYTES * len(table) // max(table.nbytes, 1))
        # Rows of one number stay together; what is below the first begins is asked of part 0.
        begins = np.unique(np.searchsorted(at, at[::most])) if len(at) else np.zeros(1, np.int64)
        parts = zip(begins, [*begins[1:], len(at)], strict=True)
        rows = [row_of(k, LINES, table.slice(b, e - b)) for k, (b, e) in enumerate(parts)]
        firsts = at[begins[1:]]
        of_buckets = self.tables[asked]
        asking = of_buckets.filter(of_buckets.kind == asked).mapInArrow(
            partial(ask_parts, firsts), TABLE
        )
        met = asking
        with spark_errors():
            for begin in range(0, len(rows), _SENT_AT_ONCE):
                some = pa.Table.from_batches(rows[begin : begin + _SENT_AT_ONCE])
                met = met.union(self.session.createDataFrame(some, TABLE))
        met = met.repartitionById(len(rows), "bucket")
        answered = met.mapInArrow(partial(answer_part, kind), TABLE)
        answered = answered.repartitionById(buckets + 1, "bucket")
        self._run(answered, buckets, lambda: None)
        self.tables[kind] = answered

    def each(
        self,
        work: Each[Result],
        buckets: int,
        needs: Sequence[str],
        makes: Sequence[str],
        tallies: Sequence[Words],
        done: Callable[[], None],
    ) -> list[Result]:
        """As `Engine.each`; a bucket's counts travel with what its function returns."""
        tables = list({id(self.tables[kind]): self.tables[kind] for kind in needs}.values())
        rows = tables[0]
        if len(tables) > 1:
            for more in tables[1:]:
                rows = rows.union(more)
            rows = rows.filter(rows.bucket < buckets).repartitionById(buckets + 1, "bucket")
        of = tuple(map(type, tallies))
        task = partial(work_on_bucket, work, buckets, tuple(needs), tuple(makes), of, versions())
        made = rows.mapInArrow(task, TABLE)
        reports = self._run(made, buckets, done)
        self.tables |= dict.fromkeys(makes, made)
        for _, counts in reports.values():
            for tally, counted in zip(tallies, counts, strict=True):
                tally.merge(counted)
        return [reports[k][0] for k in range(buckets)]

    def _run(self, table: DataFrame, buckets: int, done: Callable[[], None]) -> dict[int, Any]:
        """Compute a table, keep it on the executors' disks, and return its reports by number."""
        from pyspark import StorageLevel

        table.persist(StorageLevel.DISK_ONLY)
        reports: dict[int, Any] = {}
        for blob in self._collected(table.filter(table.bucket == buckets).select("blob"), done):
            number, result = pickle.loads(blob)  # noqa: S301  # our own tasks'
            if isinstance(result, TinprepError):
                raise result
            reports[number] = result
        return reports

    def _collected(self, table: DataFrame, done: Callable[[], None]) -> list[bytes]:
        """The only column of a table; `done` is called for each task that ends meanwhile.

        The thread that waits for Java does nothing else, so that a Ctrl-C does not meet it there.
        """
        context = self.session.sparkContext
        group = f"tinprep-{next(self.groups)}"

        def collect() -> list[bytes]:
            context.setJobGroup(group, "tinprep", interruptOnCancel=True)
            with spark_errors():
                return [row[0] for row in table.collect()]

        told = 0
        with ThreadPoolExecutor(1, "spark") as pool:
            rows = pool.submit(collect)
            try:
                while not rows.done():
                    wait([rows], _POLL_SECONDS)
                    ended = self._ended_tasks(group)
                    for _ in range(ended - told):
                        done()
                    told = max(told, ended)
            except BaseException:
                context.cancelJobGroup(group)
                raise
            return rows.result()

    def _pulled(self, table: DataFrame) -> Iterator[Any]:
        """The rows of a table, one partition's after the other's; see `_collected`."""
        context = self.session.sparkContext
        group = f"tinprep-{next(self.groups)}"

        def begin() -> Iterator[Any]:
            context.setJobGroup(group, "tinprep", interruptOnCancel=True)
            with spark_errors():
                return iter(table.toLocalIterator())

        def more(rows: Iterator[Any]) -> Any:
            with spark_errors():
                return next(rows, None)

        with ThreadPoolExecutor(1, "spark") as pool:
            try:
                rows = pool.submit(begin).result(FOR_EVER)
                while (row := pool.submit(more, rows).result(FOR_EVER)) is not None:
                    yield row
            except BaseException:
                context.cancelJobGroup(group)
                raise

    def _ended_tasks(self, group: str) -> int:
        """How many tasks have ended of the stage that has come farthest."""
        tracker = self.session.sparkContext.statusTracker()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
        numbers = [number for job in jobs if job is not None for number in job.stageIds]
        stages = [stage for n in numbers if (stage := tracker.getStageInfo(n)) is not None]
        return max((int(stage.numCompletedTasks) for stage in stages), default=0)
