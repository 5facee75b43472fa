"""Files that are whole and on disk, or not there."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.interrupts import held

UNFINISHED = re.compile(r"\.tinprep-(?:([0-9a-f]+)-)?[0-9a-f]{16}\.unfinished")
"""The names of files that are being written; the group is their writer, if they have one."""


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """An empty new file that becomes `path`, on disk, when the block ends without an error.

    Args:
        path: what it becomes; its folder exists.
        folder: where the file is meanwhile, on the disk of `path`; by default beside it.
    """
    with held():
        file = unfinished(folder or path.parent)
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
        folder: where it is.
        writer: hexadecimal digits in its name, by which the writer knows it again.
    """
    file = folder / unfinished_name(writer)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(file, flags, 0o666))
    return file


def unfinished_name(writer: str = "") -> str:
    """A name that matches `UNFINISHED` and cannot be guessed."""
    return f".tinprep-{writer and writer + '-'}{secrets.token_hex(8)}.unfinished"


def to_disk(file: Path) -> None:
    """Have a file on disk, so that it outlives a power cut."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
