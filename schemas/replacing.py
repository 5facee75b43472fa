"""Files that are whole and on disk, or not there; and the checksum of one."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import UsageError
from schemas.interrupts import held

UNFINISHED = re.compile(r"\.tinprep-(?:([0-9a-f]+)-)?[0-9a-f]{16}\.unfinished")
"""The names of files that are being written; the group is their writer, if they have one."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty new file that becomes `path`, on disk, when the block ends without an error.

    Args:
        path: what it becomes; its folder exists, and has the file meanwhile.
    """
    with held():
        file = unfinished(path.parent)
        try:
            yield file
            to_disk(file)
            file.replace(path)
        except BaseException:
            file.unlink(missing_ok=True)
            raise


def unfinished(folder: Path, writer: str = "") -> Path:
    """An empty new file with a name that cannot be guessed.

    Nothing that stands there already is opened: so nobody has it written through a link of theirs.

    Args:
        writer: hexadecimal digits in its name, by which the writer knows it again.
    """
    file = folder / unfinished_name(writer)
    file.touch(exist_ok=False)
    return file


def unfinished_name(writer: str = "") -> str:
    """A name that matches `UNFINISHED` and cannot be guessed."""
    return f".tinprep-{writer and writer + '-'}{secrets.token_hex(8)}.unfinished"


def to_disk(file: Path) -> None:
    """Have a file on disk, so that it outlives a power cut."""
    with file.open("rb") as written:
        os.fsync(written.fileno())


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_folder(what: str, folder: Path) -> None:
    """Refuse a folder that cannot be one, as something else stands there or above it.

    Args:
        what: it is, e.g. `The run's folder`.
        folder: which need not be there yet.

    Raises:
        UsageError: something else stands there.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if there.is_dir():
        return
    got = "a file" if there.is_file() else "a device or the like"
    if there.is_symlink() and not there.exists():
        got = f"a link to {there.readlink()}, which is not there"
    raise UsageError(
        f"{what} cannot be made.",
        where=there,
        expected="a folder, or nothing yet",
        got=got,
        do="give another name, or remove it",
    )
