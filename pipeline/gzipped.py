"""What a raw file is, gzip or plain text, and the one error for one that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from isal.igzip_lib import IsalError

from schemas.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
# isal's stub gives its error class as an instance.
DAMAGE = (EOFError, OSError, cast("type[Exception]", IsalError))


def is_gzip(path: Path) -> bool:
    """Whether the file is gzip; it must be if its name says so.

    Raises:
        InputError: its name says so, and it is not.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(len(GZIP_MAGIC))
    if head == GZIP_MAGIC:
        return True
    if path.suffix == ".gz":
        raise InputError(
            "The file is not gzip, though it is named so.",
            where=path,
            expected="a gzip file (first bytes 1f 8b)",
            got=f"first bytes {head.hex(' ')}" if head else "an empty file",
            do="download it again; an error page saved under its name is a common cause",
        )
    return False


def damaged(path: Path, lines: int, error: Exception) -> InputError:
    """What the person should know about `error`, met while the file was read.

    Args:
        path: the file.
        lines: how many whole lines came before it.
        error: one of `DAMAGE`.
    """
    if isinstance(error, FileNotFoundError):
        return InputError(
            "The raw file is missing.",
            where=path,
            expected="a file",
            got="no such file",
            do="check the path, or let tinprep download it",
        )
    if isinstance(error, IsADirectoryError):
        return InputError(
            "The raw file is a folder.", where=path, expected="a file", got="a folder"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return InputError(
            "The raw file cannot be read.",
            where=path,
            line=lines + 1,
            expected="a readable file",
            got=error.strerror,
            do="check its permissions and the disk",
        )
    return InputError(
        "The gzip file is cut short or damaged.",
        where=path,
        line=lines + 1,
        expected="whole gzip members to the end of the file",
        got=f"{error} (near this line)",
        do="download it again, and compare its size and checksum",
    )
