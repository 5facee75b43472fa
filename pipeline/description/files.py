"""Which files a description names: a file, a folder, a glob, or a list of these."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import translate
from pathlib import Path

from pipeline.readers.packed import damaged
from pipeline.readers.raw_files import RENAME, find, near
from pipeline.readers.remote import RemotePath, located
from schemas.errors import ByDescription, InputError, UsageError

FORMATS = {
    ".csv": "csv",
    ".txt": "csv",
    ".data": "csv",
    ".dat": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""What is in a file, by the end of its name."""
_PACKED = (".gz", ".zst", ".gzip", ".zstd")
_GLOB = re.compile(r"[*?\[]")
_SHOWN = 5


def filled(pattern: str, parameters: Mapping[str, str]) -> str:
    """A pattern with what stands for the {names} in it."""
    return re.sub(r"\{([^{}]*)\}", lambda found: parameters[found[1]], pattern)


def bases(patterns: Sequence[str], folder: Path) -> list[Path]:
    """What no data set may be made in: the files themselves, and folders of which all is read."""
    found = []
    for pattern in patterns:
        parts = Path(pattern).parts
        glob = _is_glob(pattern, folder)
        plain = next((n for n, part in enumerate(parts) if glob and _GLOB.search(part)), len(parts))
        found.append(_joined(folder, str(Path(*parts[:plain]))))
    return found


def _is_glob(pattern: str, folder: Path) -> bool:
    """Whether it is a pattern: the name of what is there is none, whatever brackets it has."""
    path = _joined(folder, pattern)
    there = not isinstance(path, RemotePath) and path.exists()
    return bool(_GLOB.search(pattern)) and not there


def _joined(folder: Path, pattern: str) -> Path:
    path = located(Path(pattern))
    return path if isinstance(path, RemotePath) else folder / pattern


def files_of(patterns: Sequence[str], folder: Path, whose: str) -> list[Path]:
    """The files of some patterns: those of a folder, at any depth, or of a glob are by name.

    Files are left out whose name, or whose folder's, begins with a dot or an underscore.

    Args:
        patterns: relative to the folder, absolute, or addresses of another file system.

    Raises:
        InputError: there is none.
    """
    found: list[Path] = []
    for pattern in patterns:
        some = list(_of(pattern, folder))
        if not some:
            _none(pattern, folder, whose)
        found += some
    twice = [path for n, path in enumerate(found) if path in found[:n]]
    if twice:
        raise InputError(
            "A file is named twice.",
            where=twice[0],
            expected=f"each file of {whose} once",
            got=", ".join(patterns),
            do="name it once: its events would count twice",
        )
    by_content: dict[Path, Path] = {}
    for path in found:
        packed = path.suffix.lower() in _PACKED
        other = by_content.setdefault(path.with_suffix("") if packed else path, path)
        if other != path:
            raise InputError(
                "A file is there more than once, packed and not.",
                where=path.parent,
                expected=f"each file of {whose} once",
                got=f"{other.name}, {path.name}",
                do="move away what is not meant: its events would count twice",
            )
    return found


def _of(pattern: str, folder: Path) -> Iterator[Path]:
    path = _joined(folder, pattern)
    if _is_glob(pattern, folder):
        (base,) = bases([pattern], folder)
        rest = path.relative_to(base).as_posix()
        if isinstance(base, RemotePath):
            wanted = _matching(rest)
            names = [n for n, is_file in base.below().items() if is_file and wanted.match(n)]
            yield from (base / name for name in sorted(names) if _shown(base / name, base))
        elif "**" in Path(rest).parts:  # pathlib's follows no links
            wanted = _matching(rest)
            yield from (p for p in _below(base) if wanted.match(p.relative_to(base).as_posix()))
        else:
            yield from sorted(p for p in base.glob(rest) if p.is_file() and _shown(p, base))
    elif path.is_file():
        yield path
    elif path.is_dir():
        if isinstance(path, RemotePath):
            names = sorted(name for name, is_file in path.below().items() if is_file)
            yield from (path / name for name in names if _shown(path / name, path))
        else:
            yield from _below(path)
    elif (other := find(path.name, path.parent)) is not None:
        yield other


def _below(folder: Path) -> list[Path]:
    """The files below a folder by name, those behind links too; of what is reached twice, once."""
    found: list[Path] = []
    reached: set[str] = set()
    left = [folder]
    for begin in left:
        for at, folders, names in os.walk(begin, onerror=_unreadable):
            folders[:] = sorted(name for name in folders if name[0] not in "._")
            if (real := os.path.realpath(at)) in reached:
                folders.clear()
                continue
            reached.add(real)
            found += (Path(at, name) for name in names if name[0] not in "._")
            left += (path for name in folders if (path := Path(at, name)).is_symlink())
    return sorted(path for path in found if path.is_file())


def _unreadable(error: OSError) -> None:
    raise damaged(Path(error.filename), 0, error) from None


def _matching(rest: str) -> re.Pattern[str]:
    """What a pattern matches of paths: as pathlib has it, no star takes in a slash."""
    *folders, last = rest.split("/")
    # A `**` is any number of folders, none too.
    within = ["(?:[^/]+/)*" if one == "**" else f"{_matched(one)}/" for one in folders]
    return re.compile("".join(within) + (".*" if last == "**" else _matched(last)) + r"\Z")


def _matched(part: str) -> str:
    inner = translate(part).removeprefix("(?s:").removesuffix(r")\Z")
    return inner.replace(".*", "[^/]*")


def _shown(path: Path, base: Path) -> bool:
    return not any(part[0] in "._" for part in path.relative_to(base).parts)


def _none(pattern: str, folder: Path, whose: str) -> None:
    path = _joined(folder, pattern)
    bucket = path.bucket if isinstance(path, RemotePath) else None
    if bucket is not None and not bucket.exists():
        raise InputError(
            f"There is no bucket of the files of {whose}.",
            where=bucket,
            expected=pattern,
            got="no such bucket, or none that your keys show",
            do="correct `files`, or name the folder of the files with --raw",
        )
    there, got = near([path.name], path.parent), "no such file"
    if path.is_dir():
        there, got = "", "an empty folder"
    elif not isinstance(path, RemotePath) and os.path.lexists(path):
        there, got = "", "a special file, such as a pipe" if path.exists() else "a link to nothing"
    what = "folder of files" if path.is_dir() else "file"
    raise InputError(
        f"There is no {what} of {whose}.",
        where=path,
        expected=pattern,
        got=got + there,
        do=f"{RENAME}, or correct `files`"
        if there
        else "correct `files`, or name the folder of the files with --raw",
    )


def format_of(paths: Sequence[Path], told: str | None, whose: str) -> str:
    """What is in some files: csv, tsv, jsonl or parquet.

    Raises:
        UsageError: it cannot be told by the ends of their names, or they differ.
    """
    if told is not None:
        return told
    found = {by_name(path) for path in paths}
    if len(found) == 1 and (only := found.pop()) is not None:
        return only
    ends = dict.fromkeys("".join(path.suffixes[-2:]) or path.name for path in paths)
    raise UsageError(
        f"It cannot be told what is in the files of {whose}.",
        where=paths[0],
        expected="names that end in .csv, .tsv, .jsonl, .json or .parquet, all alike, and .gz or "
        ".zst after it",
        got=", ".join([*ends][:_SHOWN]),
        do=ByDescription(
            'say it in a description: format = "csv", "tsv", "jsonl" or "parquet"; of a file of '
            "events that is text give --delimiter; unpack an archive"
        ),
    )


def by_name(path: Path) -> str | None:
    """What is in a file, by its name; None where that does not tell."""
    ends = [end.lower() for end in path.suffixes]
    while ends and ends[-1] in _PACKED:
        ends.pop()
    return FORMATS.get(ends[-1]) if ends else None
