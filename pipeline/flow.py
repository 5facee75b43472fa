"""From raw files to a finished data set, whatever the source.

The order of the steps between is in `flow_reviews` and `flow_impressions`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from pipeline import memory
from pipeline.config import AlibabaConfig, AmazonConfig, Config
from pipeline.engines.engine import Engine
from pipeline.engines.local import Local
from pipeline.identity import identifying, state
from pipeline.publish import publish
from pipeline.record import Record
from pipeline.remote import RemotePath
from pipeline.workspace import Ours, Run, Told, begin, check_apart, check_out, end, look
from schemas import manifest
from schemas.alone import alone
from schemas.errors import UsageError

# How long a thread that wants Python's lock lets another one keep it; Python's own 5 ms are as long
# as many a call on a block of rows takes.
_SWITCH_S = 0.0005


def prepare(
    config: AmazonConfig | AlibabaConfig, told: Told = lambda *_: None
) -> manifest.Manifest:
    """Make the data set of `config`, or go on with an interrupted one, or find it done.

    Args:
        config: what to make.
        told: progress: step, done, total.

    Raises:
        UsageError: `out` holds something else, or was made with other settings; or `memory` is
            less than the data needs.
        InputError: a raw file is missing or damaged, or too many of its lines are refused.
        EnvironmentFault: network, disk, or another run at work in `out`.
    """
    with _tuned():
        if isinstance(config.out, RemotePath):
            return publish(
                config, config.out, lambda local, to: _prepare(Run(local, told, remote=to))
            )
        return _prepare(Run(config, told))


@contextmanager
def _tuned() -> Iterator[None]:
    """Have Python's lock handed over sooner meanwhile; what malloc keeps, it goes on to keep."""
    memory.keep_freed()
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _prepare(run: Run) -> manifest.Manifest:
    config = run.config
    asked = replace(config, out=run.remote or config.out)
    check_folders(asked)
    with run.step("fetch") as rows:
        run.paths = _files(config).obtain(asked)
        run.states = [state(path) for path in run.paths]
        rows[:] = len(run.paths), len(run.paths)
    for path in run.paths:
        check_apart(path.parent, asked.out)
    with identifying(config, run.paths) as run.identity:
        # Loads the libraries, for which one core has to wait: the other sums up the files.
        source = _source(config)
        fixed = source.fixed_bytes(config, run.paths)
        memory.check(config.memory, fixed)
        spark = config.engine == "spark"
        threads = 1 if spark else memory.workers(config.memory, fixed, config.workers)
        run.config = config = replace(config, threads=threads)
        with alone(config.out), _engine(config, run.work) as run.engine:
            ours = look(config.out)
            if ours.made and not config.force:
                return _done(run, ours)
            run.record = ours.record or Record(config.out)
            with run.record.at_work():
                begin(run, ours)
                made: manifest.Manifest = source.make(run, config)
                end(run.record)
                return made


def check_folders(config: Config) -> None:
    """Refuse, before anything is done, a folder for the data set in which something could be lost.

    Raises:
        UsageError: `out` holds what is not ours, or one of it and the raw files' is in the other.
        EnvironmentFault: another run is at work in `out`.
    """
    check_apart(_files(config).raw_folder(config), config.out)
    if not isinstance(config.out, RemotePath):
        check_out(config.out)


@contextmanager
def _engine(config: Config, work: Path) -> Iterator[Engine]:
    """Where the buckets are worked on."""
    if config.engine == "local":
        yield Local(work, config.workers)
        return
    # Imported where it is wanted: it is an extra, and slow to load.
    from pipeline.engines.spark import Spark
    from pipeline.engines.spark_session import session

    settings = dict(setting.split("=", 1) for setting in config.spark_conf)
    with session(config.master, settings) as started:
        yield Spark(started)


def _done(run: Run, ours: Ours) -> manifest.Manifest:
    """The manifest of the data set that is there already, if it is the one wanted."""
    done = manifest.load(run.config.out)
    if done.config.get("key") != run.identity().key:
        raise UsageError(
            "The folder holds a data set made with other settings or files.",
            where=run.config.out,
            do="give another --out, or --force to replace it",
        )
    if ours.record is not None:
        end(ours.record)
    return done


def plan(config: AmazonConfig | AlibabaConfig) -> str:
    """What `--dry-run` says; nothing is downloaded or written."""
    told: str = _source(config).plan(config)
    return told


def _files(config: Config) -> ModuleType:
    """The module that has the raw files of a data set; it loads no library."""
    if isinstance(config, AmazonConfig):
        from pipeline.sources import amazon_files

        return amazon_files
    from pipeline.sources import alibaba_files

    return alibaba_files


def _source(config: Config) -> ModuleType:
    """The module with the steps of a data set; only that one is imported."""
    if isinstance(config, AmazonConfig):
        from pipeline import flow_reviews

        return flow_reviews
    from pipeline import flow_impressions

    return flow_impressions
