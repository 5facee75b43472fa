"""From raw files to a finished data set, whatever its description: the one order of steps.

Deal events out to buckets of users, fit what is known of the whole, transform each bucket by it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline import memory
from pipeline.config import Config
from pipeline.engines.engine import Engine
from pipeline.engines.local import Local
from pipeline.identity import differing, identifying, state
from pipeline.publish import publish
from pipeline.readers.line_count import estimate_table
from pipeline.readers.remote import RemotePath
from pipeline.record import Record
from pipeline.workspace import Ours, Run, Told, begin, check_apart, check_out, discard, end, look
from schemas import manifest
from schemas.alone import alone
from schemas.errors import ContractError, InputError, UsageError

# How long a thread that wants Python's lock lets another one keep it; Python's own 5 ms are as long
# as many a call on a block of rows takes.
_SWITCH_S = 0.0005
# For estimates only.
_ROWS_A_SECOND = 300_000


def prepare(config: Config, told: Told = lambda *_: None) -> manifest.Manifest:
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
    """Have Python's lock handed over sooner meanwhile, and what is freed kept for later arrays."""
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
        run.paths = asked.obtain()
        run.states = [state(path) for path in run.paths]
        rows[:] = len(run.paths), len(run.paths)
    for path in asked.apart(run.paths):
        check_apart(path, asked.out)
    with identifying(config, run.paths) as run.identity:
        # Loads the libraries, for which one core has to wait: the other sums up the files.
        from pipeline.steps.make import fixed_bytes, make

        d = config.description(run.paths)
        fixed = fixed_bytes(d)
        memory.check(config.memory, fixed)
        spark = config.engine == "spark"
        threads = 1 if spark else memory.workers(config.memory, fixed, config.workers)
        run.config = config = replace(config, threads=threads)
        new = not os.path.lexists(config.out)
        with alone(config.out), _engine(config, run.work) as run.engine:
            ours = look(config.out, force=config.force)
            if ours.made and not config.force:
                return _done(run, ours)
            run.record = ours.record or Record(config.out)
            with run.record.at_work():
                begin(run, ours)
                try:
                    made = make(run, d)
                except (InputError, ContractError):
                    discard(run.record, folder=new)
                    raise
                end(run.record)
                return made


def check_folders(config: Config) -> None:
    """Refuse, before anything is done, a folder for the data set in which something could be lost.

    Raises:
        UsageError: `out` holds what is not ours, or one of it and the raw files' is in the other.
        EnvironmentFault: another run is at work in `out`.
    """
    for path in config.apart(()):
        check_apart(path, config.out)
    if not isinstance(config.out, RemotePath):
        check_out(config.out, force=config.force)


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
    wanted = run.identity()
    if done.config.get("key") != wanted.key:
        expected, got = differing(done, run.config, wanted.inputs)
        raise UsageError(
            "The folder holds a data set made with other settings or files.",
            where=run.config.out,
            expected=expected,
            got=got,
            do="give another --out, or --force to replace it",
        )
    if ours.record is not None:
        end(ours.record)
    run.told("nothing to do: the data set is there, of the same files and settings", 0, 0)
    return done


def plan(config: Config) -> str:
    """What `--dry-run` says; nothing is downloaded or written."""
    from pipeline.steps.make import output_bytes

    fetched, paths = config.absent()
    if paths is None:
        return f"{fetched}\nrows, disk and time follow from the files"
    d = config.description(paths)
    lines = {table.name: estimate_table(table.paths) for table in d.tables}
    rows = lines[d.target.name] * d.rows_of_a_target
    work = sum(lines[table.name] * table.disk_bytes_a_line for table in d.tables)
    seconds = 1.5 + rows / _ROWS_A_SECOND
    seconds += sum(lines[table.name] / table.lines_a_second for table in d.tables)
    told = [fetched] if fetched else []
    told += [f"{name:<14}about {n:,}" for name, n in lines.items()]
    output = output_bytes(d, rows)
    return "\n".join(
        [
            *told,
            f"{'rows':<14}at most {rows:,}",
            f"{'disk':<14}about {(work + output) / 1e6:,.0f} MB at the most, of which "
            f"{output / 1e6:,.0f} MB stay, in {config.out}",
            f"{'time':<14}about {seconds:.0f} s on two cores",
        ]
    )
