"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import EnvironmentFault, UsageError
from schemas.interrupts import held

LOCK = ".lock"
_MARK = b"locked by tinprep\n"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if absent; a second process is told.

    The lock ends with its process, however that ends; its file stays, unless who holds it removes
    the folder. A file of that name that is there already is locked and left as it is.

    Raises:
        UsageError: what stands in the place of the lock's file is no file.
        EnvironmentFault: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with held(), opened(folder / LOCK) as (handle, _):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_there(handle, folder / LOCK):
                raise BlockingIOError  # its holder has just removed it
        except BlockingIOError:
            raise EnvironmentFault(
                "Another run is at work in this folder.", where=folder, do="wait for it to end"
            ) from None
        yield


def _is_there(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of its name."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, bool]]:
    """A descriptor of a lock's file, and whether it is ours; nothing is cut, no link followed.

    Raises:
        UsageError: what stands there is no file.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError(
            "The lock of this folder cannot be made.",
            where=path,
            expected="a file, or nothing yet",
            got="a link" if path.is_symlink() else "a folder or a device",
            do="choose another folder, or remove it",
        )
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | os.O_EXCL, 0o666)
        os.write(handle, _MARK)
    except FileExistsError:
        handle = os.open(path, flags, 0o666)
    try:
        yield handle, os.pread(handle, 2 * len(_MARK), 0) == _MARK
    finally:
        os.close(handle)
