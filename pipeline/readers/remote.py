"""Files of object stores and Hadoop, through Arrow: s3://, gs://, hdfs:// and what else it knows.

Keys and addresses come from where each store's own tools have them, e.g. AWS_ACCESS_KEY_ID and
AWS_ENDPOINT_URL; hdfs:// needs Hadoop's client (its libhdfs, and CLASSPATH). A connection that
breaks is made anew, and reading goes on where it broke.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, Self, cast

import pyarrow as pa
import pyarrow.fs as fs

from schemas.errors import EnvironmentFault, InputError, UsageError
from schemas.replacing import unfinished_name

# Here a file that is being written is not there until it is whole.
_WHOLE_OR_ABSENT = ("s3", "gs", "gcs", "abfs", "abfss")
_URI = re.compile(r"([a-z][a-z0-9+.-]+):/+")
_COPIED_BYTES = 8 << 20
# Read at once of a file that is read from the front; after a break a read asks for less.
_AHEAD_BYTES = 2 << 20
_LEAST_BYTES = 64 << 10
# Seconds before each further try of a read that has brought nothing.
_PAUSES = (0.5, 2.0, 8.0)
# Of S3: seconds that it may take to be reached, or say nothing; and how often a request is tried.
_CONNECT_S, _SILENT_S, _TRIES = 10, 30, 3


def located(path: Path) -> Path:
    """The path itself, or the file of another file system that it names: `s3://bucket/folder`."""
    return RemotePath(path) if _URI.match(str(path)) else path


class RemotePath(PosixPath):
    """A file or folder of an Arrow file system, with what of `Path` raw files need.

    Raises:
        EnvironmentFault: the file system cannot be reached (of its methods).
    """

    def __str__(self) -> str:
        """The address; a `Path` has lost one of its slashes."""
        scheme, found, rest = super().__str__().partition(":/")
        if not found:  # what is left of an address that is relative to another one
            return scheme
        return f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def absolute(self) -> Self:
        """Itself: an address is complete."""
        return self

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._info().type != fs.FileType.NotFound)

    def is_file(self) -> bool:
        """Whether it is a file."""
        return bool(self._info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return bool(self._info().type == fs.FileType.Directory)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of change; the rest is 0."""
        info = self._info()
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(2, "no such file", str(self))
        changed = info.mtime_ns or 0
        return os.stat_result([0] * 6 + [info.size or 0, 0, changed // 10**9, 0])

    def open(self, mode: str = "rb", buffering: int = -1, *_: Any) -> BinaryIO:  # type: ignore[override]
        """Open for reading bytes: every read brings all that it asks for, up to the file's end.

        Args:
            mode: `rb`.
            buffering: 0 to read nothing that is not asked for.
        """
        assert mode == "rb", mode
        raw = _Reading(self)
        return cast("BinaryIO", raw if not buffering else io.BufferedReader(raw, _AHEAD_BYTES))

    def state(self) -> tuple[int, int, str]:
        """What tells that the file has changed: its size, and the store's tag of it or else a time.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self._told(), self._opened() as file:
            size, tag = file.size(), _tag(file)
        return size, 0 if tag else self.stat().st_mtime_ns, tag

    @property
    def local(self) -> Path | None:
        """The same as a path of this machine, if it is one."""
        scheme, _, rest = str(self).partition("://")
        return Path(rest) if scheme == "file" else None

    @property
    def bucket(self) -> RemotePath | None:
        """What its store has it in; None of what is no store."""
        stores = str(self).partition(":")[0] in _WHOLE_OR_ABSENT
        return RemotePath(*self.parts[:2]) if stores else None

    def below(self) -> dict[str, bool]:
        """What the folder holds, and the folders in it: names below it, True for a file."""
        store, path = self._place()
        selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
        root = PosixPath(path)
        with self._told():
            return {
                PosixPath(info.path).relative_to(root).as_posix(): info.type == fs.FileType.File
                for info in store.get_file_info(selector)
            }

    def iterdir(self) -> Generator[RemotePath]:
        """What the folder holds."""
        store, path = self._place()
        with self._told():
            found = store.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return (self / name for name in sorted(info.base_name for info in found))

    def put(self, local: Path, writer: str) -> None:
        """Copy a local file to here; whole or absent."""
        store, path = self._place()
        folder = PosixPath(path).parent
        direct = str(self).partition(":")[0] in _WHOLE_OR_ABSENT
        to = path if direct else str(folder / unfinished_name(writer))
        with self._told():
            store.create_dir(str(folder))
            with pa.OSFile(str(local)) as file, store.open_output_stream(to) as out:
                while piece := file.read(_COPIED_BYTES):
                    out.write(piece)
            if not direct:
                store.move(to, path)

    def remove(self) -> None:
        """Remove a file, or a folder that is empty."""
        store, path = self._place()
        with self._told():
            if self.is_file():
                store.delete_file(path)
            elif self.is_dir() and not [*self.iterdir()]:
                store.delete_dir(path)

    def _place(self) -> tuple[fs.FileSystem, str]:
        scheme, _, rest = str(self).partition("://")
        authority = rest.partition("/")[0]
        # A bucket has no colon in its name, and a key may have slashes.
        if ":" in (authority if scheme in _WHOLE_OR_ABSENT else authority.rpartition("@")[0]):
            raise UsageError(
                "An address holds a key, which would stand in errors and manifests.",
                where=f"{scheme}://...",
                expected="the address alone",
                got="something else before it, with a colon",
                do="have keys where the store's own tools have them, as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY",
            )
        try:
            store, base = _store(f"{scheme}://{authority}")
        except (pa.ArrowException, OSError) as error:
            raise EnvironmentFault(
                "There is no way to these files.",
                where=self,
                got=_said(error),
                do="check the address; a store's keys and address are taken from where its own "
                "tools have them",
            ) from error
        return store, f"{base}{rest[len(authority) :]}"

    def _info(self) -> fs.FileInfo:
        store, path = self._place()
        with self._told():
            return store.get_file_info(path)

    def _opened(self) -> pa.NativeFile:
        store, path = self._place()
        return store.open_input_file(path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what kept from the files in one error; those of a file that is not there pass."""
        try:
            yield
        except OSError as error:
            if error.errno is not None:
                raise
            raise EnvironmentFault(
                "The files cannot be reached.",
                where=self,
                got=_said(error),
                do="check the address, the network, and your keys",
            ) from error


class _Reading(io.RawIOBase):
    """A file that is being read, of the size and the tag that it had when it was opened.

    Raises:
        InputError: it is another by now (of reading).
        EnvironmentFault: it cannot be reached (likewise).
    """

    def __init__(self, path: RemotePath) -> None:
        self.path, self.at = path, 0
        with path._told():
            self.file = path._opened()
        self.size, self.tag = self.file.size(), _tag(self.file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer).cast("B")
        wanted = max(0, min(len(into), self.size - self.at))
        done, most, failed = 0, wanted, 0
        while done < wanted:
            try:
                piece = self.file.read_at(min(most, wanted - done), self.at)
                if not piece:
                    raise OSError(f"{self.size - self.at} bytes are missing at the end")
            except OSError as error:
                if error.errno is not None:
                    raise
                if failed == len(_PAUSES):
                    raise EnvironmentFault(
                        "The connection to the files broke, and could not be made anew.",
                        where=self.path,
                        expected=f"{self.size:,} bytes",
                        got=f"{self.at:,}, then {_said(error)}",
                        do="run the same command again when the files can be reached",
                    ) from error
                time.sleep(_PAUSES[failed])
                failed, most = failed + 1, max(most // 4, _LEAST_BYTES)
                self._reopen()
                continue
            into[done : done + len(piece)] = piece
            done, failed, self.at = done + len(piece), 0, self.at + len(piece)
        return done

    def readall(self) -> bytes:
        return self.read(max(0, self.size - self.at)) or b""

    def _reopen(self) -> None:
        """Open the file again, if it can be reached."""
        try:
            again = self.path._opened()
        except FileNotFoundError:
            now = "none"
        except OSError:
            return
        else:
            if (again.size(), _tag(again)) == (self.size, self.tag):
                self.file = again
                return
            now = f"{again.size():,} bytes, {_tag(again)}"
        raise InputError(
            "A raw file was changed while it was read.",
            where=self.path,
            expected=f"{self.size:,} bytes, {self.tag}",
            got=now,
            do="run the same command again when nothing writes to the file",
        )


def _tag(file: pa.NativeFile) -> str:
    """What a store calls the content of a file that is open; nothing where it does not say."""
    told = {str(name).lower(): of for name, of in (file.metadata() or {}).items()}
    return bytes(told.get("etag", b"")).decode(errors="replace")


def _said(error: BaseException) -> str:
    """The first line of an error, without what is of this one request alone."""
    return re.sub(r" \(Request ID: [^)]*\)", "", str(error).partition("\n")[0])


@lru_cache
def _store(root: str) -> tuple[fs.FileSystem, str]:
    """A file system, and what its paths begin with."""
    if root == "file://":
        return fs.LocalFileSystem(), ""
    scheme, _, bucket = root.partition("://")
    if scheme == "s3":
        return _s3(bucket), bucket
    store, base = fs.FileSystem.from_uri(root + "/")
    return store, base.rstrip("/")


def _s3(bucket: str) -> fs.FileSystem:
    """S3, as the environment has it, or one that speaks as it does."""
    named = map(os.environ.get, ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    endpoint = next(filter(None, named), None)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=None if endpoint else fs.resolve_s3_region(bucket),
        connect_timeout=_CONNECT_S,
        request_timeout=_SILENT_S,
        allow_delayed_open=True,  # a small file is written by one request
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    )
