"""Buckets on Apache Spark: dealt out by its shuffle, worked on by its executors.

What travels is Arrow. A row of a Spark table here is a piece of a bucket's file: the bucket, the
kind of file, and some record batches of it as an Arrow stream. So Spark moves few large rows, and
partition k of every table is bucket k: the shuffle is the partition by user, and functions over
buckets are tasks, which find their bucket's files in a folder of their own, as on one machine.

What a function returns travels as one more such row, in the partition behind the last bucket's.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.buckets import bucket_path, read_spilled
from pipeline.engines.engine import Deal, Each, Read, Result
from pipeline.engines.spark_parts import cut
from pipeline.lines import Part, estimate_lines
from pipeline.tally import Tally
from schemas.errors import EnvironmentFault, TinprepError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_TABLE = "bucket int, kind string, blob binary"
_REPORT = "report"
_BLOB_BYTES = 4 << 20
_POLL_SECONDS = 0.5
_PYTHON_ERROR = re.compile(r"[A-Za-z_.]+(Error|Exception|Fault|Exit)\b: ")

# Partition k must stay bucket k, and a few rows of some MB are much for a batch.
_SETTINGS = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "4",
    "spark.sql.inMemoryColumnarStorage.batchSize": "4",
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    "spark.sql.execution.arrow.useLargeVarTypes": "true",
    "spark.driver.maxResultSize": "0",
    "spark.ui.showConsoleProgress": "false",
    # What goes wrong is said by us, once, not by Java for each try of each task.
    "spark.log.level": "FATAL",
    # One task has one core: a second pool of threads would only be in the way of the next task.
    "spark.executorEnv.POLARS_MAX_THREADS": "1",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
}
# What has to be the same everywhere: tinprep, and Polars, whose hash decides on a user's bucket.
_SAME = ("tinprep", "polars")


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _SAME}


@contextmanager
def session(master: str | None, settings: Mapping[str, str]) -> Iterator[SparkSession]:
    """A Spark session, stopped at the end.

    Args:
        master: as Spark's `--master`; None for the one that Spark's own configuration names.
        settings: of Spark, in place of ours.

    Raises:
        UsageError: pyspark is not installed, or is too old.
        EnvironmentFault: Spark cannot be started.
    """
    try:
        import pandas  # noqa: F401  # pyspark's functions over Arrow want it
        from pyspark.sql import DataFrame, SparkSession
    except ImportError as error:
        raise UsageError(
            "--engine spark needs Spark for Python.",
            where="--engine",
            got=str(error),
            do="pip install 'tinprep[spark]'",
        ) from None
    if not hasattr(DataFrame, "repartitionById"):
        raise UsageError(
            "This Spark is too old.",
            where="--engine",
            expected="pyspark 4.1 or newer",
            got=f"pyspark {version('pyspark')}",
            do="pip install 'tinprep[spark]'",
        )
    # Executors on this machine run the same Python.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("tinprep")
    builder = builder.master(master) if master else builder
    for name, value in {**_SETTINGS, **settings}.items():
        builder = builder.config(name, value)
    # It logs a Ctrl-C as an error, with all that led to it.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    with _told(), _started():
        spark = builder.getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


@contextmanager
def _started() -> Iterator[None]:
    """Hold a Ctrl-C or SIGTERM back while Java starts: half started, it would stay behind."""
    from pyspark import SparkContext

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _: object) -> None:
        held.append(number)

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:  # of the handler that Spark has set meanwhile
        held.append(signal.SIGINT)
    finally:
        # Spark's own handler would speak to Java in the middle of another word to it.
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        if SparkContext._gateway is not None:
            SparkContext._gateway.proc.kill()
            SparkContext._gateway = SparkContext._jvm = None
        raise KeyboardInterrupt


@contextmanager
def _told() -> Iterator[None]:
    """Say in our words that Spark gave up."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # The last line of Python's account says what went wrong; what follows is Java's.
        told = [line for line in lines if _PYTHON_ERROR.match(line)] or lines[:2]
        raise EnvironmentFault(
            "Spark gave up.",
            where="--engine spark",
            got=" ".join(told)[:600],
            do="see Spark's log of the executors; memory that gave out is the most common cause: "
            "more --buckets, or more of spark.executor.memoryOverhead",
        ) from error


@dataclass
class Spark:
    """The engine of a Spark cluster.

    Attributes:
        session: of Spark.
        tables: kind -> the table with the files of that kind; partition k has bucket k's.
        groups: numbers for Spark's groups of jobs.
    """

    session: SparkSession
    tables: dict[str, DataFrame] = field(default_factory=dict)
    groups: Iterator[int] = field(default_factory=count)

    @property
    def threads(self) -> int:
        """A task has one core."""
        return 1

    @property
    def resumes(self) -> bool:
        """What was dealt out is gone with the session."""
        return False

    @property
    def least_buckets(self) -> int:
        """A few tasks a core, so that the last ones do not keep most cores waiting."""
        return 3 * int(self.session.sparkContext.defaultParallelism)

    def parts(self, path: Path) -> list[Part]:
        """Parts of whole lines, whose numbers are known; a gzip file is one part."""
        with _told():
            return cut(self.session, path)

    def deal(
        self,
        work: Deal[Result],
        parts: Sequence[Part],
        buckets: int,
        kinds: Sequence[str],
        read: Read,
    ) -> list[Result]:
        """As `Engine.deal`."""
        task = partial(_deal, work, list(parts), buckets, tuple(kinds), _versions())
        # A row a part, and a partition a row.
        rows = self.session.range(0, len(parts), 1, len(parts))
        dealt = rows.mapInArrow(task, _TABLE).repartitionById(buckets + 1, "bucket")
        each = estimate_lines(parts[0].path) // len(parts)
        reports = self._run(dealt, buckets, lambda: read(each))
        self.tables |= dict.fromkeys(kinds, dealt)
        return [reports[k] for k in range(len(parts))]

    def each(
        self,
        work: Each[Result],
        buckets: int,
        needs: Sequence[str],
        makes: Sequence[str],
        tallies: Sequence[Tally],
        done: Callable[[], None],
    ) -> list[Result]:
        """As `Engine.each`; a bucket's counts travel with what its function returns."""
        tables = list({id(self.tables[kind]): self.tables[kind] for kind in needs}.values())
        rows = tables[0]
        if len(tables) > 1:
            for more in tables[1:]:
                rows = rows.union(more)
            rows = rows.filter(rows.bucket < buckets).repartitionById(buckets + 1, "bucket")
        task = partial(_each, work, buckets, tuple(needs), tuple(makes), len(tallies), _versions())
        made = rows.mapInArrow(task, _TABLE)
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
            with _told():
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

    def _ended_tasks(self, group: str) -> int:
        """How many tasks have ended of the stage that has come farthest."""
        tracker = self.session.sparkContext.statusTracker()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
        numbers = [number for job in jobs if job is not None for number in job.stageIds]
        stages = [stage for n in numbers if (stage := tracker.getStageInfo(n)) is not None]
        return max((int(stage.numCompletedTasks) for stage in stages), default=0)


def _deal(
    work: Deal[Any],
    parts: list[Part],
    buckets: int,
    kinds: tuple[str, ...],
    wanted: dict[str, str],
    rows: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """A task: what becomes of some parts."""
    for batch in rows:
        for number in batch["id"].to_pylist():
            with tempfile.TemporaryDirectory(prefix="tinprep-") as name:
                folder = Path(name)
                result = _checked(wanted, partial(work, folder, parts[number], lambda _: None))
                if not isinstance(result, TinprepError):
                    for kind in kinds:
                        for bucket in range(buckets):
                            # Of the first part an empty file, too, so that every bucket has one.
                            yield from _pieces(folder, kind, bucket, empty=number == 0)
                yield _row(buckets, _REPORT, pickle.dumps((number, result)))


def _each(
    work: Each[Any],
    buckets: int,
    needs: tuple[str, ...],
    makes: tuple[str, ...],
    tallies: int,
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
        counted = [Tally() for _ in range(tallies)]
        result = _checked(wanted, partial(work, folder, bucket, *counted))
        if not isinstance(result, TinprepError):
            result = (result, [tally.counts() for tally in counted])
            for kind in makes:
                yield from _pieces(folder, kind, bucket, empty=True)
        yield _row(buckets, _REPORT, pickle.dumps((bucket, result)))


def _checked(wanted: dict[str, str], work: Callable[[], Any]) -> Any:
    """What `work` returns, or one of our errors: to try again would not mend it."""
    if _versions() != wanted:
        return EnvironmentFault(
            "An executor has other libraries than the driver.",
            where=f"Python {sys.executable} of an executor",
            expected=", ".join(f"{name} {number}" for name, number in wanted.items()),
            got=", ".join(f"{name} {number}" for name, number in _versions().items()),
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
    a_piece = max(1, len(table) * _BLOB_BYTES // max(table.nbytes, 1))
    for begin in range(0, len(table), a_piece):
        yield _row(bucket, kind, _stream(table.slice(begin, a_piece)))
    if empty and not len(table):
        yield _row(bucket, kind, _stream(table))


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
