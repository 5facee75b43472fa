"""What a run has written below its output folder, said before it is there: `OUT/.work/record`.

So whoever finds the folder of a killed run knows each file of it by name, and what it holds. A line
is a JSON list behind the CRC-32 of its text:

```
["unfinished", WRITER]             files that are being written have names with WRITER, in `.work`
["file", NAME, BYTES, CRC, FROM]   the file FROM becomes NAME
["replaced", NAME, ...]            files of a data set that is being replaced
["key", KEY]                       what the work depends on
["made", STEP, RESULT]             what a step returned
["anew", NAME, ...]                all else is removed: from here on it is another run's
```
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from isal import isal_zlib

from schemas.errors import UsageError
from schemas.replacing import to_disk, unfinished

WORK = ".work"
RECORD = f"{WORK}/record"
ASKED = "query "
"""What the names of steps begin with that read queries: another run may rely on their files."""

_at_work: dict[Path, Record] = {}


class Whole(NamedTuple):
    """A file as it was when it was whole; None where only its name is known."""

    bytes: int | None = None
    crc: int | None = None
    was: str | None = None


@dataclass
class Record:
    """What is known of the files of a run.

    Attributes:
        files: the files of the run, by their names below `out`.
        writers: what the names of unfinished files have in them.
        key: what the work depends on; None before that is known.
        made: what steps returned, as JSON has it.
        sound: whether every line could be read.
    """

    out: Path
    files: dict[str, Whole] = field(default_factory=dict)
    writers: list[str] = field(default_factory=list)
    key: Any = None
    made: dict[str, Any] = field(default_factory=dict)
    sound: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def work(self) -> Path:
        """Where unfinished work lies."""
        return self.out / WORK

    @classmethod
    def read(cls, out: Path) -> Record | None:
        """The record in a folder; None where there is none, or something that is no record."""
        try:
            data = (out / RECORD).read_bytes()
        except OSError:
            return None
        return cls.parse(out, data)

    @classmethod
    def parse(cls, out: Path, data: bytes) -> Record | None:
        """The record of a folder that its file holds; None for something else."""
        record = cls(out)
        # A line is cut short where the disk was full, or lost its power: it was not relied on.
        for line in data.split(b"\n")[:-1]:
            record._take(line)
        # An empty one was just begun.
        return record if record.writers or not data else None

    def _take(self, line: bytes) -> None:
        crc, _, text = line.partition(b" ")
        try:
            good = int(crc, 16) == isal_zlib.crc32(text)
            kind, *what = json.loads(text) if good else [""]
        except ValueError:
            kind = ""
        names = what if kind == "replaced" else what[:1] if kind == "file" else []
        if any(name.startswith("/") or ".." in name.split("/") for name in names):
            kind = ""  # of somebody who means others' files
        if kind == "unfinished":
            self.writers += what
        elif kind == "file":
            self.files[what[0]] = Whole(*what[1:])
        elif kind == "replaced":
            self.files |= {name: self.files.get(name, Whole()) for name in what}
        elif kind == "key":
            (self.key,) = what
        elif kind == "made":
            self.made[what[0]] = what[1]
        elif kind == "anew":
            self.files, self.key = {n: of for n, of in self.files.items() if n in what}, None
            self.made = {step: of for step, of in self.made.items() if step.startswith(ASKED)}
        else:
            self.sound = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Enter every file that `atomic` writes below `out` meanwhile."""
        self.work.mkdir(exist_ok=True)
        path = self.out / RECORD
        if path.exists():  # the next line must not go on with one that was cut short
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self.add("unfinished", secrets.token_hex(8))
        _at_work[self.out] = self
        try:
            yield
        finally:
            del _at_work[self.out]
            # A signal may have come between the making of a file and whoever removes it.
            for file in self.work.glob(f".tinprep-{self.writers[-1]}-*.unfinished"):
                file.unlink(missing_ok=True)

    def add(self, *said: Any, sync: bool = False) -> None:
        """Append a line, and know what it says; with `sync` it is on disk then."""
        line = as_line(*said)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._lock:
            handle = os.open(self.out / RECORD, flags, 0o666)
            try:
                before = os.fstat(handle).st_size
                try:
                    left = line
                    while left:
                        left = left[os.write(handle, left) :]
                except OSError:  # the disk is full
                    os.ftruncate(handle, before)
                    raise
                if sync:
                    os.fsync(handle)
            finally:
                os.close(handle)
            self._take(line[:-1])

    def place(self, file: Path, path: Path, *, sync: bool = True) -> None:
        """Have a whole file become `path`, which is below `out`; with `sync` it is on disk first.

        Raises:
            UsageError: a file of others has come to stand there.
        """
        name = path.relative_to(self.out).as_posix()
        if name not in self.files and os.path.lexists(path):
            raise UsageError(
                "A file of others has come into the output folder.",
                where=path,
                do="move it away, and run the same command again",
            )
        if sync:
            to_disk(file)
        self.add("file", name, *summed(file), file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        file.replace(path)

    def _to_be_placed(self, path: Path, whole: Whole) -> bool:
        """Whether a run ended just before a file got its name: nothing relies on it so far."""
        waits = whole.was is not None and os.path.lexists(self.work / whole.was)
        return waits and not os.path.lexists(path)

    def broken(self) -> str | None:
        """The first file that is not as it was when it was whole; None where there is none."""
        for name, whole in self.files.items():
            path = self.out / name
            if whole.bytes is None or self._to_be_placed(path, whole):
                continue
            if not (path.is_file() and summed(path) == (whole.bytes, whole.crc)):
                return name
        return None if self.sound else RECORD


def as_line(*said: Any) -> bytes:
    """A line of a record."""
    text = json.dumps(said).encode()
    return b"%08x %s\n" % (isal_zlib.crc32(text), text)


def summed(path: Path) -> tuple[int, int]:
    """The size of a file, and the CRC-32 of its bytes."""
    crc, chunk = 0, memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(chunk):
            crc = isal_zlib.crc32(chunk[:size], crc)
        return file.tell(), crc


def record_of(path: Path) -> Record | None:
    """The record of the run that is at work in a folder that `path` is below, if any."""
    for out, record in [*_at_work.items()]:
        if path.is_relative_to(out):
            return record
    return None


def begun(path: Path) -> Path:
    """An empty new file that is to become `path`; see `finished`."""
    record = record_of(path)
    if record is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return unfinished(path.parent)
    return unfinished(record.work, record.writers[-1])


def finished(file: Path, path: Path, *, sync: bool = True) -> None:
    """Have a whole file that was `begun` become `path`; with `sync` it is on disk first."""
    record = record_of(path)
    if record is not None:
        record.place(file, path, sync=sync)
        return
    if sync:
        to_disk(file)
    file.replace(path)


@contextmanager
def atomic(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """An empty new file that becomes `path` when the block ends without an error."""
    file = begun(path)
    try:
        yield file
        finished(file, path, sync=sync)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
