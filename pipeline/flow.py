"""From raw files to a finished data set, whatever its description: the one order of steps.

Deal events out to buckets of users, fit what is known of the whole, transform each bucket by it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import memory
from pipeline.config import Config
from pipeline.engines.engine import Engine
from pipeline.engines.local import Local
from pipeline.identity import differing, identifying, states
from pipeline.publish import publish
from pipeline.readers.line_count import estimate_table
from pipeline.readers.remote import RemotePath
from pipeline.record import ASKED, Record, summed
from pipeline.workspace import Ours, Run, Told, begin, check_apart, check_out, discard, end, look
from schemas import manifest
from schemas.alone import alone
from schemas.errors import ContractError, InputError, TinprepError, UsageError

# How long a thread that wants Python's lock lets another one keep it; Python's own 5 ms are as long
# as many a call on a block of rows takes.
_SWITCH_S = 0.0005
# For estimates only.
_ROWS_A_SECOND = 300_000


def prepare(config: Config, told: Told = lambda *_: None) -> manifest.Manifest:
    """Make the data set of `config`, or go on with an interrupted one, or find it done.

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
        run.states = states(run.paths)
        rows[:] = len(run.paths), len(run.paths)
    for path in asked.apart(run.paths):
        check_apart(path, asked.out)
    queries = config.queries()
    if queries and run.remote is not None:
        raise UsageError(
            "What a query gives has to lie where every machine sees it.",
            where="--out",
            expected="a folder that all machines of the cluster share",
            got=str(run.remote),
            do="give one, and copy the data set when it is done",
        )
    new = not os.path.lexists(config.out)
    with alone(config.out):
        ours = look(config.out, force=config.force)
        run.record = ours.record or Record(config.out)
        if ours.made and not config.force:
            with identifying(config, run.paths, _asked(run, write=False)) as run.identity:
                return _done(run, ours)
        with run.record.at_work():
            try:
                return _make(run, ours)
            except TinprepError as error:
                error.do = config.cure(error.do)
                if (
                    isinstance(error.where, Path) and error.where in queries
                ):  # a file that nobody knows
                    error.where, error.line = queries[error.where].place(error.line), None
                if isinstance(error, InputError | ContractError) or not run.record.made:
                    discard(run.record, folder=new)
                raise


def _make(run: Run, ours: Ours) -> manifest.Manifest:
    """Make the data set, or go on with it."""
    config, paths = run.config, [*run.paths]
    with identifying(config, paths, _asked(run, write=True)) as run.identity:
        # Loads the libraries, for which one core has to wait: the other sums up the files.
        from pipeline.steps.deal import apart, fixed_bytes
        from pipeline.steps.make import make

        d = config.description(run.paths)
        fixed = fixed_bytes(d, apart(config, d))
        memory.check(config.memory, fixed)
        spark = config.engine == "spark"
        threads = 1 if spark else memory.workers(config.memory, fixed, config.workers)
        run.config = config = replace(config, threads=threads)
        with _engine(config, run.work) as run.engine:
            begin(run, ours)
            made = make(run, d)
            end(run.record)
            return made


def _asked(run: Run, *, write: bool) -> list[manifest.InputFile]:
    """What queries give; their files, if they are written, are among the run's.

    What a connection gave an interrupted run is not asked for again: it is of one moment.
    """
    found, queries = [], run.config.queries()
    for connection in dict.fromkeys(one.connection for one in queries.values()):
        some = {path: one for path, one in queries.items() if one.connection == connection}
        told = [[one.name, one.sql, one.row, one.rows] for one in some.values()]
        name, address = ASKED + connection, next(iter(some.values())).address
        with run.step(name) as rows:
            from pipeline.readers.query import Answer, ask

            had = run.record.made.get(name) if write else None
            if had is not None and had["told"] == told and _is_held(had, some, address):
                answers = [Answer(*one) for one in had["answers"]]
            else:
                # Whoever reads the record does not learn the address, and may hold one against it.
                salt = secrets.token_hex(16)
                answers = ask(some, write=write, memory=run.config.memory // 2, told=run.told)
                if write:
                    out, of = run.config.out, run.record.files
                    files = [of[path.relative_to(out).as_posix()][:2] for path in some]
                    made = {"told": told, "salt": salt, "address": _known_by(address, salt)}
                    made |= {"answers": answers, "files": files}
                    run.record.add("made", name, made, sync=True)
            rows[:] = 2 * [sum(answer.rows for answer in answers)]
        for one, gave in zip(some.values(), answers, strict=True):
            input_of = manifest.InputFile(one.name, gave.bytes, gave.sha256)
            found.append(replace(input_of, query=one.sql, rows=gave.rows))
        if write:
            run.paths += some
            run.states += states([*some])
    return found


def _is_held(had: dict[str, Any], paths: Iterable[Path], address: str) -> bool:
    """Whether what an interrupted run was given by a database is there, and of that address."""
    files = [list(summed(path)) for path in paths if path.is_file()]
    return [files, _known_by(address, had["salt"])] == [had["files"], had["address"]]


def _known_by(address: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", address.encode(), salt.encode(), 100_000).hex()


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
    from pipeline.steps.deal import kept_bytes, output_bytes

    fetched, paths = config.absent()
    if paths is None:
        return f"{fetched}\nrows, disk and time follow from what is read"
    d = config.description(paths)
    lines = {table.name: estimate_table(table.paths) for table in d.tables}
    rows = lines[d.target.name] * d.rows_of_a_target
    work = sum(lines[table.name] * table.disk_bytes_a_line for table in d.tables)
    seconds = 1.5 + rows / _ROWS_A_SECOND
    seconds += sum(lines[table.name] / table.lines_a_second for table in d.tables)
    told = [fetched] if fetched else []
    told += [f"{name:<14}about {n:,}" for name, n in lines.items()]
    output = output_bytes(d, rows)
    if config.keep_events:
        work, output = 2 * work, output + kept_bytes(sum(lines.values()))
    return "\n".join(
        [
            *told,
            f"{'rows':<14}at most {rows:,}",
            f"{'disk':<14}about {(work + output) / 1e6:,.0f} MB at the most, of which "
            f"{output / 1e6:,.0f} MB stay, in {config.out}",
            f"{'time':<14}about {seconds:.0f} s on two cores",
        ]
    )
