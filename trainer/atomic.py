"""Files that are whole, or not there; folders that hold some, or are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import UsageError
from schemas.interrupts import held
from schemas.replacing import replacing


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `path` and put it in place in one step.

    A link stays, and what it leads to is replaced.

    Raises:
        UsageError: something that is no file stands there.
        OSError: the disk is full, or refuses it.
    """
    path = path.resolve()
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


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Make a folder, if absent, for files; where none came of it, it is gone in the end.

    Raises:
        UsageError: it cannot be made.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise no_folder("The folder", folder, error) from None
    try:
        with held():
            yield
    finally:
        for path in absent:
            with suppress(OSError):  # it holds something
                path.rmdir()


def no_folder(what: str, folder: Path, error: OSError) -> UsageError:
    """What to say of a folder that cannot be made, since something else stands there."""
    return UsageError(
        f"{what} cannot be made.",
        where=folder,
        expected="a folder, or nothing yet",
        got=str(error),
    )
