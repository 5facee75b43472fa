"""The durable store of posted events: a file of SQLite, and how far it was acknowledged.

SQLite in its write-ahead mode needs one flush a commit, and all calls that wait share it. Measured
on one disk, a commit of 10 events, median: 4 ms; in SQLite's other modes 15 to 20 ms; in DuckDB 32
ms, and 664 ms for 200 events, where SQLite takes 5 ms. A plain file and `fdatasync` take 0.5 ms,
but all that SQLite does would be own code then: to forget, to find an id, to mend a torn page.

Two things SQLite does not tell. Where its write-ahead log is damaged, it goes without what follows:
so the last sequence that was acknowledged lies in a small file of its own, written after each
commit and not flushed, and the events must reach as far. And its pages have no checksum: so each
row has.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

import msgspec

from pipeline.serving.arrivals import Arrived
from pipeline.serving.live import Stored
from schemas import digests
from schemas.errors import ContractError, EnvironmentFault, InputError

FILE, ACKNOWLEDGED = "events.sqlite", "acknowledged"
_FORMAT = 1
_OF_THE_FILE = (0, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_TABLES = """
CREATE TABLE about (said TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    event BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
"""
_ADD = "INSERT INTO events VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
_Said = tuple[int, int | str, int, dict[str, tuple[int, ...]], str]  # row, and what arrived


class _About(msgspec.Struct):
    """What a store says of itself; see `Store`."""

    format: int
    meaning: dict[str, str]
    base: str
    sequence: int
    rows: dict[str, int]


class Store:
    """Posted events that the histories can need, in the order of their arrival.

    One thread at a time may use it.

    Args:
        folder: of its files; made where there is none.
        meaning: the digests of what ids and histories mean: those of the bundle.
        base: of the data set's own events.
        rows: table -> the row of its next event, where the store is new.

    Raises:
        InputError: a file was damaged, or acknowledged events are missing.
        ContractError: it holds events of other ids or histories.
        EnvironmentFault: another process uses it, or the disk refuses it.
    """

    def __init__(
        self, folder: Path, meaning: Mapping[str, str], base: str, rows: Mapping[str, int]
    ) -> None:
        self.folder, self.path = folder, folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        with self._told():
            self.db = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False
            )
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
                self.db.execute(f"PRAGMA {pragma}")
            if not self.db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                with self._transaction():
                    for statement in _TABLES.split(";")[:-1]:
                        self.db.execute(statement)
                    self._say(_About(_FORMAT, dict(meaning), base, 0, dict(rows)))
            self.about = self._checked(meaning)
        self._mark = os.open(folder / ACKNOWLEDGED, os.O_RDWR | os.O_CREAT, 0o666)
        self._require_all()

    def close(self) -> None:
        """Put all in one file, and close it."""
        with self._told():
            self.db.close()
        os.close(self._mark)

    @property
    def sequence(self) -> int:
        """Of the last event."""
        return self.about.sequence

    def events(self) -> Iterator[Stored]:
        """All of them, in the order of their arrival."""
        with self._told():
            for sequence, raw in self.db.execute(
                "SELECT sequence, event FROM events ORDER BY sequence"
            ):
                row, *event = msgspec.msgpack.decode(raw, type=_Said)
                yield Stored(sequence, row, Arrived(*event))

    def __len__(self) -> int:
        found: int = self.db.execute("SELECT count(*) FROM events").fetchone()[0]
        return found

    def add(
        self, arrived: Sequence[tuple[str, str, Arrived]], gone: Iterable[int] = ()
    ) -> list[Stored | None]:
        """Keep events for ever, or for as long as they are needed, in one commit.

        Args:
            arrived: id, table and event of each.
            gone: the sequences of earlier ones that are not needed any more.

        Returns:
            Each with its place; None where there is one of its id.

        Raises:
            EnvironmentFault: the disk is full, or refuses it. Then none of it is kept.
        """
        found: list[Stored | None] = []
        sequence, rows = self.about.sequence, dict(self.about.rows)
        with self._told(), self._transaction():
            self.db.executemany("DELETE FROM events WHERE sequence = ?", ((n,) for n in gone))
            for id_, table, event in arrived:
                raw = msgspec.msgpack.encode((rows[table], *event))
                checksum = _sum(sequence + 1, id_, raw)
                if not self.db.execute(_ADD, (sequence + 1, id_, raw, checksum)).rowcount:
                    found.append(None)
                    continue
                sequence += 1
                found.append(Stored(sequence, rows[table], event))
                rows[table] += 1
            about = msgspec.structs.replace(self.about, sequence=sequence, rows=rows)
            self._say(about)
        self.about = about
        self._acknowledge()
        return found

    def follow(self, base: str, rows: Mapping[str, int], gone: Iterable[int]) -> None:
        """Go on behind another data set, which holds the events of the sequences `gone` itself.

        Raises:
            EnvironmentFault: as `add`.
        """
        more = {name: max(row, rows.get(name, 0)) for name, row in self.about.rows.items()}
        about = msgspec.structs.replace(self.about, base=base, rows=more)
        with self._told(), self._transaction():
            self.db.executemany("DELETE FROM events WHERE sequence = ?", ((n,) for n in gone))
            self._say(about)
        self.about = about

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block, or nothing, once it is on disk."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have done so itself
                self.db.execute("ROLLBACK")
            raise

    def _say(self, about: _About) -> None:
        said = msgspec.json.encode(about).decode()
        self.db.execute("DELETE FROM about")
        self.db.execute("INSERT INTO about VALUES (?, ?)", (said, crc32(said.encode())))

    # Whether it is whole.

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell SQLite's errors as ours.

        Raises:
            InputError: the file is damaged.
            EnvironmentFault: another process has it, or the disk does not take it.
        """
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _OF_THE_FILE:
                raise self._damaged(str(error)) from None
            busy, full = code == sqlite3.SQLITE_BUSY, code == sqlite3.SQLITE_FULL
            raise EnvironmentFault(
                "The disk is full." if full else "The events cannot be stored.",
                where=self.path,
                expected="no other process with this store" if busy else "a disk that takes them",
                got=str(error)[:200],
                do="stop the other server, or name another --store" if busy else "free some space",
            ) from None

    def _damaged(self, got: str) -> InputError:
        return InputError(
            "The stored events were damaged.",
            where=self.path,
            expected="what was written",
            got=got[:200],
            do="put back the store's folder from a backup, or name a new --store: the events that "
            "the data set has kept stay",
        )

    def _checked(self, meaning: Mapping[str, str]) -> _About:
        """Read all of it once; returns what it says of itself.

        Raises:
            InputError: something was changed.
            ContractError: it is of another bundle, or another version.
        """
        if (told := self.db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise self._damaged(str(told))
        said, checksum = self.db.execute("SELECT said, checksum FROM about").fetchone() or ("", 1)
        if crc32(said.encode()) != checksum:
            raise self._damaged("another text of what it is")
        about = msgspec.json.decode(said, type=_About)
        if about.format != _FORMAT:
            raise ContractError(
                "The events are stored by another version.",
                where=self.path,
                expected=f"format {_FORMAT}",
                got=f"format {about.format}",
                do="serve them with that version, or name another --store",
            )
        if wrong := digests.differing(dict(meaning), about.meaning):
            raise ContractError(
                "The stored events are those of another bundle.",
                where=self.path,
                expected=digests.in_short(meaning, wrong),
                got=digests.in_short(about.meaning, wrong),
                do="give the --store that was made with this bundle, or a new one",
            )
        for sequence, id_, raw, checksum in self.db.execute("SELECT * FROM events"):
            if _sum(sequence, id_, raw) != checksum:
                raise self._damaged(f"another event {sequence}")
        return about

    def _require_all(self) -> None:
        """Hold the events to what was acknowledged."""
        raw = os.pread(self._mark, 64, 0)
        if not raw and not self.sequence:
            self._acknowledge()
            return
        number = raw[:20]
        whole = number.isdigit() and raw == _marked(int(number))
        if not whole or self.sequence < int(number):
            raise InputError(
                "Acknowledged events are missing.",
                where=self.folder / ACKNOWLEDGED,
                expected=f"events up to {int(number)}" if whole else "the number of the last event",
                got=f"events up to {self.sequence}" if whole else f"{raw!a}"[:100],
                do="put back the store's folder from a backup; or remove this file: then what was "
                "acknowledged last is lost",
            )

    def _acknowledge(self) -> None:
        os.pwrite(self._mark, _marked(self.sequence), 0)


def _marked(sequence: int) -> bytes:
    number = b"%020d" % sequence
    return number + b" %010d\n" % crc32(number)


def _sum(sequence: int, id_: str, raw: bytes) -> int:
    return crc32(raw, crc32(f"{sequence} {id_}".encode()))
