"""Files that the trainer writes: whole, or not there; and never in the place of another's.

```
TO/.tinprep.json   the SHA-256 of what was written last, and before that, under each name
```

A user names some files himself: these are replaced (`atomically`). Others have fixed names in a
folder that he names (`put`). Such a file is replaced where it is what the folder's record says; any
other of that name is another's, or was changed since, and is an error.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.checked import STRICT, build, decode
from schemas.errors import UsageError
from schemas.interrupts import held
from schemas.manifest import NAME
from schemas.replacing import replacing, require_folder, sha256

RECORD = ".tinprep.json"
_ABOUT = "what was written here, so that files of others are not replaced"


@dataclass(frozen=True)
class _Record:
    """What was written: the checksums by the file's name."""

    __pydantic_config__ = STRICT
    tinprep: str
    sha256: dict[str, list[str]]


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `path` and put it in place in one step.

    A link stays, and what it leads to is replaced.

    Raises:
        UsageError: something that is no file stands there, or it is in a data set's folder.
        OSError: the disk is full, or refuses it.
    """
    path = path.resolve()
    require_no_data_set(path)
    if path.exists() and not path.is_file():
        raise UsageError(
            "The file cannot be written.",
            where=path,
            expected="the name of a file",
            got="a folder" if path.is_dir() else "a device or the like",
            do="give another name",
        )
    with replacing(path) as unfinished:
        write(unfinished)


def put(path: Path, write: Callable[[Path], object]) -> None:
    """As `atomically`, with a note in the folder's record; a file of others stays.

    Raises:
        UsageError: a file of this name is there that was not written so.
        OSError: the disk is full, or refuses it.
    """
    path = path.resolve()

    def noted(unfinished: Path) -> None:
        write(unfinished)
        digest = sha256(unfinished)
        with _locked(path.parent):
            require_own([path])
            found = _recorded(path.parent)
            # Both, since a kill may come before the new one is in place.
            last = found.get(path.name, [])[-1:]
            found[path.name] = [digest] if last == [digest] else [*last, digest]
            text = json.dumps(asdict(_Record(_ABOUT, found)), indent=1, ensure_ascii=False) + "\n"
            atomically(path.parent / RECORD, lambda record: record.write_text(text, "utf-8"))

    require_own([path])
    atomically(path, noted)


def put_text(path: Path, text: str) -> None:
    """As `put`, of a text."""
    put(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def require_own(paths: Iterable[Path]) -> None:
    """Refuse files that are there and were not written by `put`, or were changed since.

    Raises:
        UsageError: there are some, or it is the folder of a data set.
    """
    foreign = []
    for path in paths:
        require_no_data_set(path)
        if path.exists() and not _own(path.resolve()):
            foreign.append(path)
    if foreign:
        raise in_the_way(foreign)


def in_the_way(paths: Sequence[Path]) -> UsageError:
    """The error that says so of some files of one folder."""
    return UsageError(
        "Files are in the way that tinprep did not write, or that were changed since.",
        where=paths[0].parent,
        expected=f"files that {RECORD} tells of, or none",
        got=", ".join(path.name for path in paths),
        do="choose another folder, or move them away",
    )


def require_no_data_set(path: Path) -> None:
    """Refuse a place below a data set's folder: it holds nothing else.

    Raises:
        UsageError: it is.
    """
    for folder in path.resolve().parents:
        try:
            found = decode((folder / NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.keys() >= {"format", "dataset", "shards"}:
            raise UsageError(
                "Nothing else can be written to the folder of a data set.",
                where=path,
                expected="another folder",
                got=f"one with {folder / NAME}",
                do="name one outside of it",
            )


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Make a folder, if absent, for files; where none came of it, it is gone in the end."""
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    require_folder("The folder", folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with held():
            yield
    finally:
        for path in absent:
            with suppress(OSError):  # it holds something
                path.rmdir()


def _own(path: Path) -> bool:
    return path.is_file() and sha256(path) in _recorded(path.parent).get(path.name, [])


def _recorded(folder: Path) -> dict[str, list[str]]:
    """The checksums that a folder's record has; none where there is no record."""
    path = folder / RECORD
    try:
        return build(_Record, decode(path.read_text(encoding="utf-8"))).sha256
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(
            "The record of what tinprep wrote to this folder cannot be read.",
            where=path,
            expected="the file that tinprep wrote",
            got=str(error)[:200],
            do="choose another folder",
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for who changes the folder's record."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
