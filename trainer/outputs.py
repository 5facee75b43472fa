"""Files of fixed names in a folder that a user gave: those of others stay.

```
TO/.tinprep.json   the SHA-256 of what was written last, and before that, under each name
```

A file is replaced where it is what this record says; any other file of that name is another's, or
was changed since, and is an error. A file that the user named is no matter of this: see `atomic`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.errors import UsageError
from schemas.replacing import sha256
from schemas.shape import decode, misfit
from trainer.atomic import atomically, require_no_data_set

RECORD = ".tinprep.json"
_SAID = "what was written here, so that files of others are not replaced"


@dataclass(frozen=True)
class _Record:
    """What was written: the checksums by the file's name."""

    tinprep: str
    sha256: dict[str, list[str]]


def put(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file, put it in place in one step, and note it in its folder's record.

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
            found = _read(path.parent)
            # Both, since a kill may come before the new one is in place.
            last = found.get(path.name, [])[-1:]
            found[path.name] = [digest] if last == [digest] else [*last, digest]
            text = json.dumps(asdict(_Record(_SAID, found)), indent=1, ensure_ascii=False) + "\n"
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


def _own(path: Path) -> bool:
    return path.is_file() and sha256(path) in _read(path.parent).get(path.name, [])


def _read(folder: Path) -> dict[str, list[str]]:
    """The checksums that a folder's record has; none where there is no record.

    Raises:
        UsageError: something else is called so.
    """
    path = folder / RECORD
    try:
        found = decode(path.read_text(encoding="utf-8"))
        if wrong := misfit(found, _Record):
            raise ValueError("expected {1}, got {2}".format(*wrong))
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
    return _Record(**found).sha256


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for who changes the folder's record."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
