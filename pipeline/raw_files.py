"""Raw files by name, and which of them a folder lacks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import InputError, UsageError
from schemas.expected import PublishedFile


@dataclass(frozen=True)
class RawFile:
    """A raw file by its name, and what is published about it (None: nothing is)."""

    name: str
    published: PublishedFile | None = None


def missing(files: Sequence[RawFile], folder: Path) -> list[str]:
    """List the names of `files` that are not in `folder`, in order.

    Raises:
        UsageError: a name is not a plain file name, so it could lead out of the folder.
        InputError: something that is no file stands under a name.
    """
    for file in files:
        if file.name in ("", ".", "..") or set(file.name) & set("/\\\0"):
            raise UsageError(
                "A raw file cannot have this name.",
                where=folder,
                expected="a plain file name",
                got=repr(file.name),
                do="check the name of the category",
            )
        path = folder / file.name
        if path.exists() and not path.is_file():
            raise InputError(
                "Something that is no file stands where a raw file belongs.",
                where=path,
                expected="a gzip file, or nothing",
                got="a folder" if path.is_dir() else "a special file",
                do="move it away",
            )
    return [file.name for file in files if not (folder / file.name).is_file()]


def in_other_case(names: Collection[str], folder: Path) -> str:
    """What to add of files in `folder` whose names are `names` but for their letters' case."""
    if not folder.is_dir():
        return ""
    small = {name.lower() for name in names}
    held = {path.name for path in folder.iterdir() if path.name.lower() in small} - {*names}
    return f", but {', '.join(sorted(held))} (case counts)" if held else ""
