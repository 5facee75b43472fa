"""A Spark cluster of this machine alone: a master and workers on the loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pyspark

from pipeline.presets.alibaba import AlibabaConfig
from pipeline.presets.described import DescribedConfig

Prepared = TypeVar("Prepared", AlibabaConfig, DescribedConfig)
STARTED = 90.0  # seconds that a busy machine may take to start a process of Java
LOOPBACK = "127.0.0.1"


@dataclass
class Cluster:
    """A master and its workers, each a session of processes of its own."""

    address: str
    workers: list[subprocess.Popen[bytes]]

    def kill(self, worker: int) -> None:
        """Kill a worker and its executors at once, as when a machine loses its power."""
        os.killpg(self.workers[worker].pid, signal.SIGKILL)

    def on(self, config: Prepared, out: Path) -> Prepared:
        """The configuration with this cluster as its engine."""
        conf = (
            f"spark.driver.host={LOOPBACK}",
            "spark.executor.memory=512m",
            "spark.executor.cores=1",
            "spark.ui.enabled=false",
        )
        return replace(config, out=out, engine="spark", master=self.address, spark_conf=conf)


@contextmanager
def cluster(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """Start a cluster, and end it.

    Args:
        folder: for its logs and its executors' files.
        workers: how many, of one core each.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_start(folder, "master", "master.Master", "--port", "0"))
        address = _said(folder / "master.log", r"Starting Spark master at (spark://\S+)")
        for k in range(workers):
            name, size = f"worker-{k}", ("--cores", "1", "--memory", "1g")
            where = ("--work-dir", str(folder / name))
            started.append(_start(folder, name, "worker.Worker", *size, *where, address))
        for k in range(workers):
            _said(folder / f"worker-{k}.log", r"Successfully registered with master (\S+)")
        yield Cluster(address, started[1:])
    finally:
        for process in reversed(started):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(folder: Path, name: str, main: str, *words: str) -> subprocess.Popen[bytes]:
    home = Path(pyspark.__file__).parent
    own = {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_LOCAL_DIRS": str(folder / f"{name}-local"),
        "PYSPARK_PYTHON": sys.executable,
    }
    command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{main}"]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--host", LOOPBACK, "--webui-port", "0", *words],
            env={**os.environ, **own},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _said(log: Path, pattern: str) -> str:
    """What a process says once it is ready."""
    until = time.monotonic() + STARTED
    while time.monotonic() < until:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.2)
    raise AssertionError(f"not started in {STARTED} s:\n{log.read_text(errors='replace')[-2_000:]}")
