"""Raw files that are missing are downloaded: mirrors in order, resumed, checked, placed whole.

A file that is there is used as it is, and no network is touched. A file appears under its name
only when its size, its md5 (where one is published) or else its gzip CRC has been checked; until
then it is `<name>.tinprep-part`. Nothing else is kept of it: whether halves belong together, the
checks tell.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import quote

from isal import igzip, isal_zlib

from pipeline.readers.download import Downloader, Part, RefusedError
from pipeline.readers.download_progress import Progress
from pipeline.readers.packed import GZIP_MAGIC
from pipeline.readers.raw_files import RawFile, missing, place
from schemas.errors import EnvironmentFault
from schemas.expected import PublishedFile
from schemas.interrupts import held

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# isal's stubs declare its exception class as an instance.
DAMAGED = (EOFError, igzip.BadGzipFile, cast(type[Exception], isal_zlib.error))


@dataclass(frozen=True)
class _Tried:
    """An address that did not give a file."""

    url: str
    refused: RefusedError


def fetch(
    files: Sequence[RawFile],
    folder: Path,
    mirrors: Sequence[str],
    *,
    offline_command: str,
    progress: Progress | None = None,
    timeout_s: float = 30.0,
    retries: int = 4,
) -> list[Path]:
    """Make sure that `files` are in `folder`, downloading what is missing.

    A download that stops for any reason goes on at the next call where it stopped, unless the
    file has changed on the server meanwhile.

    Args:
        folder: where the files are or go; made if need be.
        mirrors: URLs of folders that hold the files, tried in this order.
        offline_command: a command that works without the network, for the message.
        progress: told of every byte; by default a bar or lines on stderr.
        timeout_s: seconds without a byte after which a transfer counts as broken. Connecting is
            given at most 5 s.
        retries: attempts after the first that brought nothing new, before an address is given up.

    Returns:
        The path of each file, in order.

    Raises:
        EnvironmentFault: no mirror gave a file, another process is downloading it, or the disk
            gave out.
        InputError, UsageError: see `missing`.
    """
    if missing(files, folder):
        shown = progress or Progress()
        downloader = Downloader(shown, timeout_s, retries)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                with _alone(folder, file.name) as part:
                    # Asked again: another process may have placed it since.
                    tried = (
                        _from_mirrors(downloader, file, part, folder, mirrors, shown)
                        if missing([file], folder)
                        else []
                    )
                    if tried:
                        raise _no_mirror(tried, part, files, folder, offline_command)
        except OSError as error:
            raise _disk_fault(error, folder) from error
        finally:
            downloader.close()
            shown.stop()
    return [path for file in files if (path := place(file, folder))]


def _from_mirrors(
    downloader: Downloader,
    file: RawFile,
    part: Part,
    folder: Path,
    mirrors: Sequence[str],
    progress: Progress,
) -> list[_Tried]:
    """Place `file` from the first mirror that gives it; else return what each one answered."""
    tried: list[_Tried] = []
    for mirror in mirrors:
        # The name is ours, whatever a redirect or a Content-Disposition says.
        url = f"{mirror.rstrip('/')}/{quote(file.name)}"
        try:
            _place(downloader, file, part, folder, url)
        except RefusedError as refused:
            tried.append(_Tried(url, refused))
            if len(tried) < len(mirrors):
                progress.note(f"{url}: {refused.reason}; trying the next mirror")
        else:
            return []
    return tried


def _place(downloader: Downloader, file: RawFile, part: Part, folder: Path, url: str) -> None:
    """Download `file` from `url`, check it, and rename it to its name.

    A body that fails its check is forgotten. If bytes of an earlier response were in it, the
    address gets one chance to send the whole.
    """
    for chance in (1, 2):
        mixed = downloader.fill(part, url, file.published)
        wrong = _wrong(_path(folder, file.name), file.published)
        if wrong is None:
            break
        part.empty()
        if not mixed or chance == 2:
            raise RefusedError(wrong)
    _path(folder, file.name).replace(folder / file.name)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename itself, too, outlives a power cut
    finally:
        os.close(handle)


def _wrong(path: Path, published: PublishedFile | None) -> str | None:
    """What is wrong with a file, by its md5, or else by its gzip CRC; None for nothing.

    A server may have compressed on the way what it keeps as gzip: that is not the file.
    """
    try:
        if published is not None:
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, "md5").hexdigest()
            return None if md5 == published.md5 else "its md5 is not the published one"
        with igzip.open(path, "rb") as stream:  # type: ignore[no-untyped-call]
            if stream.read(1 << 20).startswith(GZIP_MAGIC):
                return "damaged (gzip within gzip)"
            while stream.read(1 << 20):
                pass
    except DAMAGED as error:
        return f"damaged ({error})"
    return None


def _path(folder: Path, name: str) -> Path:
    """The file that is to become `name`."""
    return folder / f"{name}.tinprep-part"


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[Part]:
    """Open the part of a file and hold its lock, which goes with the process, however that ends.

    Raises:
        EnvironmentFault: another process holds it.
        OSError: it cannot be opened; no link is followed.
    """
    path = _path(folder, name)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with held(), os.fdopen(os.open(path, flags, 0o666), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before may have renamed the file between our open and our lock.
            ours = os.path.samestat(path.stat(), os.fstat(file.fileno()))
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise EnvironmentFault(
                "Another process is downloading this file.",
                where=folder / name,
                do="let it finish, then run the same command again",
            )
        part = Part(name, file)
        try:
            yield part
        finally:
            if not part.size:
                path.unlink(missing_ok=True)


def _no_mirror(
    tried: Sequence[_Tried],
    part: Part,
    files: Sequence[RawFile],
    folder: Path,
    offline_command: str,
) -> EnvironmentFault:
    """Tell what to do when no mirror gave the file of `part`."""
    offline = not any(one.refused.reached for one in tried)
    if offline:
        what = "Raw files are missing, and no mirror can be reached: there seems to be no network."
        first = "connect to the network and run the same command again"
    elif all(one.refused.status == 404 for one in tried):
        what = f"No mirror has {part.name}."
        first = "check the name of the category"
    else:
        what = f"{part.name} could not be downloaded from any mirror."
        first = "run the same command again later"
        if part.size:
            first += f": the {part.size:,} bytes that came are kept"
    return EnvironmentFault(
        what,
        where=folder,
        expected=tuple(missing(files, folder)),
        got=tuple(f"{one.url}: {one.refused.reason}" for one in tried),
        do=(
            first,
            f"or bring the missing files yourself and put them in {folder}",
            f"or, without a network, run `{offline_command}`",
        ),
    )


def _disk_fault(error: OSError, folder: Path) -> EnvironmentFault:
    full = error.errno in FULL
    return EnvironmentFault(
        "The disk is full." if full else "The folder for raw files cannot be used.",
        where=error.filename or folder,
        expected="room for the raw files" if full else "a folder that can be written to",
        got=error.strerror or str(error),
        do="make room and run the same command again: it goes on where it stopped"
        if full
        else "give another folder, or the right to write to this one",
    )
