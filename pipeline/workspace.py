"""The output folder of one preparation while it is under way.

Work lies in `OUT/.work` until the manifest is written. Each step leaves its result whole or not at
all, so the same command run again goes on from the last finished step, or bucket.

A file is ours if our manifest names it, or the record of an unfinished run (`pipeline.record`).
With any other file in the folder nothing is begun, and no other file is ever removed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline import memory
from pipeline.config import Config
from pipeline.engines.engine import Deal, Each, Engine
from pipeline.identity import Identity, changed
from pipeline.readers.line_count import estimate_table
from pipeline.readers.remote import RemotePath
from pipeline.record import RECORD, WORK, Record, as_line
from schemas import manifest
from schemas.alone import LOCK, alone
from schemas.errors import EnvironmentFault, InputError, UsageError
from schemas.replacing import UNFINISHED, require_folder

if TYPE_CHECKING:
    from pipeline.engines.tally import Words
    from pipeline.readers.parsed import Reader

_FOLDERS = {WORK, *manifest.FOLDERS}
# More than a run of most buckets has: among so many, some are of others.
_ENOUGH = 100_000
# What the unfinished work of an older version was known by.
_OLD_KEY = f"{WORK}/key.json"

Told = Callable[[str, int, int | None], None]
Result = TypeVar("Result")


@dataclass
class Run:
    """One preparation under way.

    Attributes:
        told: progress: step, done, total.
        states: of each raw file before it is first opened; see `identity.state`.
        identity: waits until it is known what the data set is made from.
        record: of the files that it writes.
        engine: where the buckets are worked on.
        steps: what each finished step took.
        count: how many buckets.
        remote: where the data set goes from `config.out`, its shards at once; None where it stays.
    """

    config: Config
    told: Told
    paths: list[Path] = field(default_factory=list)
    states: list[object] = field(default_factory=list)
    record: Record = field(init=False)
    identity: Callable[[], Identity] = field(init=False)
    engine: Engine = field(init=False)
    steps: list[manifest.Step] = field(default_factory=list)
    count: int = 1
    remote: RemotePath | None = None

    @property
    def work(self) -> Path:
        """Where unfinished work lies."""
        return self.config.out / WORK

    def key(self) -> list[Any]:
        """What the work depends on."""
        # Polars' hash, which may change with its version, decides on the bucket of a user.
        return [self.identity().key, self.config.buckets, version("polars")]

    @contextmanager
    def step(self, name: str) -> Iterator[list[int]]:
        """Time a step; its block sets the rows that went in and came out."""
        begun = time.perf_counter()
        rows = [0, 0]
        self.told(name, 0, None)
        yield rows
        memory.give_back(self.config.memory)
        self.steps.append(
            manifest.Step(name, round(time.perf_counter() - begun, 3), rows[0], rows[1], peak_mb())
        )

    def check_space(self, needed: int) -> None:
        """Refuse to begin what the disk cannot hold.

        Args:
            needed: bytes in `config.out`, unless the data set goes elsewhere.

        Raises:
            EnvironmentFault: there is less free space.
        """
        free = shutil.disk_usage(self.config.out).free
        if self.remote is None and free < needed:
            raise EnvironmentFault(
                "There is too little free space on the disk.",
                where=self.config.out,
                expected=f"about {needed / 1e6:,.0f} MB",
                got=f"{free / 1e6:,.0f} MB free",
                do="free some, give --out on another disk, or --layout ragged, which is smaller",
            )

    def deal(
        self,
        name: str,
        paths: Sequence[Path],
        reader: Reader,
        work: Deal[Result],
        kinds: Sequence[str],
    ) -> Iterable[Result]:
        """`Engine.deal` of a table's files to `count` buckets, with its progress told."""
        about, lines = estimate_table(paths), 0

        def read(more: int) -> None:
            nonlocal lines
            lines += more
            self.told(name, lines, max(about, lines))

        shares = self.engine.shares(paths, reader)
        return self.engine.deal(work, shares, self.count, kinds, read)

    def each(
        self,
        name: str,
        work: Each[Result],
        needs: Sequence[str],
        makes: Sequence[str] = (),
        tallies: Sequence[Words] = (),
    ) -> list[Result]:
        """`Engine.each` of all buckets, with its progress told.

        Raises:
            InputError: see `check_raw`.
        """
        self.check_raw()  # a later run relies on the files of each bucket that is finished
        done = 0

        def one_more() -> None:
            nonlocal done
            done += 1
            self.told(name, done, self.count)

        return list(self.engine.each(work, self.count, needs, makes, tallies, one_more))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned, as JSON holds it; kept, so that a later run does not make it."""
        if not self.engine.resumes:
            return json.loads(json.dumps(make()))
        if name not in self.record.made:
            self.keep(name, make())
        return self.record.made[name]

    def keep(self, name: str, made: Any) -> None:
        """Have a later run know what a step returned, which may rely on the files so far.

        Raises:
            InputError: see `check_raw`.
        """
        key = self.key() if self.record.key is None else None
        self.check_raw()
        if key is not None:
            self.record.add("key", key)
        self.record.add("made", name, made, sync=True)

    def check_raw(self) -> None:
        """Make sure that what was read of the raw files is what their checksums are of.

        Raises:
            InputError: one has changed since before it was first opened.
        """
        if (found := changed(self.paths, self.states)) is not None:
            path, how = found
            raise InputError(
                "A raw file was changed while it was read.",
                where=path,
                expected="the same file from the first byte read to the last",
                got=how,
                do="run the same command again when nothing writes to the file",
            )


def peak_mb() -> int:
    """The process's peak resident memory so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


@dataclass(frozen=True)
class Ours:
    """What an output folder holds of ours.

    Attributes:
        made: the files that the manifest names, by their names below the folder, and it itself;
            none where there is no manifest.
        record: of an unfinished run; None where there is none.
        unfinished: files that it had not finished.
    """

    made: set[str]
    record: Record | None
    unfinished: set[str]

    @property
    def files(self) -> set[str]:
        """The names of all files."""
        recorded = self.record.files if self.record is not None else {}
        return {*self.made, *recorded, *self.unfinished}


def look(out: Path, *, force: bool) -> Ours:
    """Find what a folder holds of ours; nothing is changed.

    Raises:
        UsageError: `out` is no folder, or holds anything else, and something is to be written.
    """
    require_folder("The folder of the data set", out)
    # Looked at before the record is read: so a run that is at work has entered what is found.
    there = dict(islice(below(out), _ENOUGH)) if out.is_dir() else {}
    record = Record.read(out) if there.get(RECORD) else None
    made = (out / manifest.NAME).read_bytes() if there.get(manifest.NAME) else b""
    return ours_of(out, there, record, made, force=force)


def ours_of(
    out: Path, there: dict[str, bool | None], record: Record | None, made: bytes, *, force: bool
) -> Ours:
    """Find what is ours of what is in a folder.

    Args:
        there: what is in it, as `below` has it.
        record: of an unfinished run.
        made: what the file `manifest.json` holds.
        force: whether a data set that is there is to be replaced.

    Raises:
        UsageError: there is anything else, and something is to be written.
    """
    recorded = record.files if record is not None else {}
    unfinished = {name for name in there if record is not None and _of(record, name)}
    ours = Ours(manifest.named(made) or set(), record, unfinished)
    if ours.made and not force:
        return ours  # nothing is written beside what a file browser, say, has put there
    # While a file has its first name still, what stands under its last one is another.
    early = {name for name, whole in recorded.items() if f"{WORK}/{whole.was}" in there}
    files = {*(ours.files - early), *ours.made, *({RECORD} if record is not None else ())}
    folders = _FOLDERS | {str(PurePosixPath(name).parent) for name in ours.files}
    known = {True: files, False: folders, None: set()}
    # What stands in the place of the lock is looked at by who locks it.
    _refuse(out, {name for name, kind in there.items() if name not in known[kind]} - {LOCK}, record)
    return ours


def _refuse(out: Path, others: set[str], record: Record | None) -> None:
    """Refuse a folder where there are files of others, by their names below it."""
    if not others:
        return
    strange = sorted(others)
    what = "The output folder holds something else."
    do = "give another --out, or move that away"
    if _OLD_KEY in others:
        do += "; an older tinprep left it unfinished: to begin anew, remove it yourself"
    elif RECORD in others or (record is not None and not record.sound):
        what = f"The record of an interrupted run, {RECORD}, is damaged."
        more = "" if all(f"{name}/".startswith(f"{WORK}/") for name in others) else " and these"
        do = f"remove {out / WORK}{more} by hand if they are of that run, or give another --out"
    raise UsageError(
        what,
        where=out,
        expected="a new or empty folder, or just what tinprep has made",
        got=", ".join(strange[:5])
        + (f" and {len(strange) - 5:,} more" if len(strange) > 5 else ""),
        do=do,
    )


def check_apart(raw: Path, out: Path) -> None:
    """Refuse folders of which one is in the other, links followed.

    Raises:
        UsageError: they are the same, or one is in the other.
    """
    one, other = (_resolved(path) for path in (raw, out))
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UsageError(
            "The raw files and the data set need folders of their own.",
            where="--out",
            expected=f"a folder that is neither in {raw} nor around it",
            got=str(out),
            do="give another --out, or another --raw",
        )


def _resolved(path: Path) -> PurePosixPath:
    at = path.local if isinstance(path, RemotePath) else path
    return PurePosixPath(str(path) if at is None else at.resolve())


def check_out(out: Path, *, force: bool) -> None:
    """Refuse a folder that holds what is not ours, before anything is done.

    Raises:
        UsageError: as `look`.
        EnvironmentFault: another run is at work there.
    """
    try:
        look(out, force=force)
    except UsageError:
        if (out / LOCK).is_file():
            with alone(out):  # it says so if what was found is another run's
                pass
        raise


def begin(run: Run, ours: Ours) -> None:
    """Go on with the work of an interrupted run of the same key, else start anew, and say so."""
    record = run.record
    if not ours.made and run.engine.resumes and record.key is not None:
        why = "other settings or files than before"
        if record.key == run.key():
            broken = record.broken()
            if broken is None:
                whole = [name for name in record.made if name.startswith("transform ")]
                names = [name for name in record.made if name not in whole]
                names += [f"{len(whole):,} finished buckets"] if whole else []
                run.told(f"going on where it was; reused: {', '.join(names)}", 0, 0)
                return
            why = f"{broken} is damaged"
        run.told(f"{why}: all is made again", 0, 0)
    elif ours.record is not None and not ours.made:
        run.told("an interrupted run left nothing to go on with: all is made again", 0, 0)
    # What there is goes on to be known by its names, also when the manifest is gone.
    if ours.made:
        record.add("replaced", *sorted(ours.made), sync=True)
    asked = {path.relative_to(run.config.out).as_posix() for path in run.config.queries()}
    _remove(run.config.out, ours.files - asked)
    record.add("anew", *sorted(asked))


def end(record: Record) -> None:
    """Remove what there is of a run besides the data set that it has made."""
    # A task that Spark ran twice has left a file that nobody waited for.
    left = {name for name, _ in below(record.out) if _of(record, name)}
    names = {name for name in {*record.files, *left} if name.startswith(f"{WORK}/")}
    _remove(record.out, names)
    _remove(record.out, {RECORD})


def discard(record: Record, *, folder: bool) -> None:
    """Remove all that a run has written: what is wrong has to be mended, and then all is another.

    Args:
        folder: whether the folder goes, too, if nothing else is in it; its lock has to be held.
    """
    end(record)
    _remove(record.out, {*record.files})
    if folder:
        with suppress(OSError):  # something else has come to stand there
            if {name for name, _ in below(record.out)} <= {LOCK}:
                (record.out / LOCK).unlink()
                record.out.rmdir()


def enter(out: RemotePath, writer: str, names: Iterable[str]) -> None:
    """Say which files a run may have in a folder of another file system, before they are."""
    with tempfile.NamedTemporaryFile(prefix="tinprep-") as file:
        file.write(as_line("unfinished", writer) + as_line("replaced", *sorted(names)))
        file.flush()
        (out / RECORD).put(Path(file.name), writer)


def below(folder: Path, above: str = "") -> Iterator[tuple[str, bool | None]]:
    """What is in a folder and in those folders below that may be ours: names, with what it is.

    Yields:
        A name, and True for a file, False for a folder, None for a link or a device.
    """
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = f"{above}{entry.name}"
            is_folder = entry.is_dir(follow_symlinks=False)
            yield name, entry.is_file(follow_symlinks=False) or (False if is_folder else None)
            if is_folder and (name in _FOLDERS or above == f"{WORK}/"):
                yield from below(folder / entry.name, f"{name}/")


def _of(record: Record, name: str) -> bool:
    """Whether it is the name of a file that the run had not finished."""
    found = UNFINISHED.fullmatch(PurePosixPath(name).name)
    return found is not None and found[1] in record.writers


def _remove(out: Path, names: set[str]) -> None:
    """Remove files, and the folders that are empty then.

    The manifest goes first, so that no half is ever taken for a whole.
    """
    for name in sorted(names, key=lambda name: (name != manifest.NAME, name)):
        (out / name).unlink(missing_ok=True)
    for folder in sorted({(out / name).parent for name in names} - {out}, reverse=True):
        with suppress(OSError):  # it holds something
            folder.rmdir()
