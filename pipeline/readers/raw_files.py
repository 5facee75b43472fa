"""Raw files by name, and which of them a folder lacks. No library is loaded for it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path

from schemas.errors import InputError, UsageError
from schemas.expected import PublishedFile

RENAME = (
    "if a file named there is the one, give it the expected name; unpack an archive, and join "
    "parts in their order (cat part1 part2 > name)"
)
"""What to do where `near` found something."""

SYNTHETIC = "SYNTHETIC.json"
"""A file beside raw files that are made up."""

_ENDINGS = ("", ".gz", ".zst")
_ALIKE = 0.85  # of two names, by difflib
_MOST_SHOWN = 8
_MOST_FOLDERS = 50
# What the parts and copies of a file have behind its name.
_REST = r"(?:_*(?:\d+|[a-z]{1,2}|parts?|copy|core|kopie|copia))*"


@dataclass(frozen=True)
class RawFile:
    """A raw file by its name, and what is published about it (None: nothing is)."""

    name: str
    published: PublishedFile | None = None


def spellings(name: str) -> list[str]:
    """The names that the file `name` may have, itself first: as text, gzipped, or as zstd."""
    plain = name.removesuffix(".gz")
    return [name, *(plain + end for end in _ENDINGS if plain + end != name)]


def find(name: str, folder: Path) -> Path | None:
    """The file in `folder` that has one of the spellings of `name`; None where there is none.

    Raises:
        InputError: it is there more than once.
    """
    there = [folder / one for one in spellings(name) if (folder / one).is_file()]
    if len(there) > 1:
        raise InputError(
            "A raw file is there more than once.",
            where=folder,
            expected=f"one of {', '.join(spellings(name))}",
            got=", ".join(path.name for path in there),
            do="move away what is not meant",
        )
    return there[0] if there else None


def place(file: RawFile, folder: Path) -> Path | None:
    """Where a published file is: under its own name before any other; None where it is not there.

    Raises:
        InputError: it is not there under its name, and more than once under others.
    """
    published = folder / file.name
    return published if published.is_file() else find(file.name, folder)


def missing(files: Sequence[RawFile], folder: Path) -> list[str]:
    """List the names of `files` that are not in `folder`, in order.

    Raises:
        UsageError: a name is not a plain file name, so it could lead out of the folder.
        InputError: something that is no file stands under a name, or as in `place`.
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
                expected="a file, or nothing",
                got="a folder" if path.is_dir() else "a special file",
                do="move it away",
            )
    return [file.name for file in files if place(file, folder) is None]


def names_of(paths: Sequence[Path]) -> list[str]:
    """What files are called: their names, or with their folders where two have the same name."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    top = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(top).as_posix() for path in paths]


def near(names: Collection[str], folder: Path) -> str:
    """What to add of files in `folder`, or one folder deeper, whose names are nearly `names`.

    Letters' case, endings, spaces, what browsers and `split` add, and a letter or two may differ.
    """
    wanted = {_stem(name) for name in names}
    found = [name for name in _entries(folder) if any(_is_near(name, stem) for stem in wanted)]
    return f", but there is {', '.join(found[:_MOST_SHOWN])}" if found else ""


def _entries(folder: Path) -> Iterator[str]:
    """The names in a folder, and those in its first folders; folders end in a slash."""
    if not folder.is_dir():
        return
    entries = sorted(folder.iterdir())
    below = [path for path in entries if path.is_dir()]
    yield from (path.name + "/" * (path in below) for path in entries)
    for path in islice(below, _MOST_FOLDERS):
        try:
            yield from (f"{path.name}/{one.name}" for one in sorted(path.iterdir()))
        except PermissionError:
            continue


def _is_near(name: str, stem: str) -> bool:
    found = _stem(name.rstrip("/").rpartition("/")[2])
    alike = SequenceMatcher(None, found, stem).ratio() >= _ALIKE
    return alike or re.fullmatch(re.escape(stem) + _REST, found) is not None


def _stem(name: str) -> str:
    """What tells a raw file from others in its name: `music` of `Reviews Music_5 (1).json.gz`."""
    words = re.sub(r"[^a-z0-9]+", "_", name.lower().partition(".")[0]).strip("_")
    return re.sub(r"^reviews_|_5(?=_|$)", "", words)
