"""Files that are whole, or not there; folders that hold some, or are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import UsageError
from schemas.interrupts import held
from schemas.manifest import NAME
from schemas.replacing import replacing
from schemas.shape import decode


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


def require_no_data_set(path: Path) -> None:
    """Refuse a place in a data set's folder, or in one of its folders: it holds nothing else.

    Raises:
        UsageError: it is.
    """
    for folder in path.resolve().parents[:2]:
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
            )


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
