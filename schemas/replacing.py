"""Files that are whole and on disk, or not there."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = re.compile(r"\.tinprep-[0-9a-f]{16}\.unfinished")


def is_unfinished(name: str) -> bool:
    """Whether a file is called as `replacing` calls one: a process that was killed leaves it."""
    return bool(_UNFINISHED.fullmatch(name))


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """An empty new file that becomes `path`, on disk, when the block ends without an error.

    Its name cannot be guessed, and nothing that stands there already is opened: so nobody has it
    written through a link of theirs.

    Args:
        path: what it becomes; its folder exists.
        folder: where the file is meanwhile, on the disk of `path`; by default beside it.
    """
    unfinished = (folder or path.parent) / f".tinprep-{secrets.token_hex(8)}.unfinished"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(unfinished, flags, 0o666))
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
