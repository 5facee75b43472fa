"""A Spark session of ours: its settings, its start and end, and its errors in our words."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from schemas.errors import EnvironmentFault, UsageError
from schemas.interrupts import handled_by

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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
    with spark_errors(), _started():
        spark = builder.getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


@contextmanager
def _started() -> Iterator[None]:
    """Hold a Ctrl-C and the like back while Java starts: half started, it would stay behind."""
    from pyspark import SparkContext

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _: object) -> None:
        held.append(number)

    before = handled_by(hold)
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
def spark_errors() -> Iterator[None]:
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
