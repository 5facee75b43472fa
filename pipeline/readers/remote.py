"""Files of object stores and Hadoop, through Arrow: s3://, gs://, hdfs:// and what else it knows.

Keys and addresses come from where each store's own tools have them, e.g. AWS_ACCESS_KEY_ID and
AWS_ENDPOINT_URL; hdfs:// needs Hadoop's client (its libhdfs, and CLASSPATH).
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, Self, cast

import pyarrow as pa
import pyarrow.fs as fs

from schemas.errors import EnvironmentFault
from schemas.replacing import unfinished_name

# Here a file that is being written is not there until it is whole.
_WHOLE_OR_ABSENT = ("s3", "gs", "gcs", "abfs", "abfss")
_URI = re.compile(r"([a-z][a-z0-9+.-]+):/+")
_COPIED_BYTES = 8 << 20


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
        scheme, _, rest = super().__str__().partition(":/")
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

    def open(self, mode: str = "rb", *_: Any, **__: Any) -> BinaryIO:  # type: ignore[override]
        """Open for reading bytes."""
        assert mode == "rb", mode
        store, path = self._place()
        return cast("BinaryIO", store.open_input_file(path))

    @property
    def local(self) -> Path | None:
        """The same as a path of this machine, if it is one."""
        scheme, _, rest = str(self).partition("://")
        return Path(rest) if scheme == "file" else None

    def below(self) -> dict[str, bool]:
        """What the folder holds, and the folders in it: names below it, True for a file."""
        store, path = self._place()
        selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
        root = PosixPath(path)
        return {
            PosixPath(info.path).relative_to(root).as_posix(): info.type == fs.FileType.File
            for info in store.get_file_info(selector)
        }

    def iterdir(self) -> Generator[RemotePath]:
        """What the folder holds."""
        store, path = self._place()
        found = store.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return (self / name for name in sorted(info.base_name for info in found))

    def put(self, local: Path, writer: str) -> None:
        """Copy a local file to here; whole or absent.

        Args:
            local: the file.
            writer: what the name of an unfinished file has in it, where there is one.
        """
        store, path = self._place()
        folder = PosixPath(path).parent
        store.create_dir(str(folder))
        direct = str(self).partition(":")[0] in _WHOLE_OR_ABSENT
        to = path if direct else str(folder / unfinished_name(writer))
        with pa.OSFile(str(local)) as file, store.open_output_stream(to) as out:
            while piece := file.read(_COPIED_BYTES):
                out.write(piece)
        if not direct:
            store.move(to, path)

    def remove(self) -> None:
        """Remove a file, or a folder that is empty."""
        store, path = self._place()
        if self.is_file():
            store.delete_file(path)
        elif self.is_dir() and not [*self.iterdir()]:
            store.delete_dir(path)

    def _place(self) -> tuple[fs.FileSystem, str]:
        scheme, _, rest = str(self).partition("://")
        authority = rest.partition("/")[0]
        try:
            store, base = _store(f"{scheme}://{authority}")
        except (pa.ArrowException, OSError) as error:
            raise EnvironmentFault(
                "There is no way to these files.",
                where=self,
                got=str(error).splitlines()[0],
                do="check the address; a store's keys and address are taken from where its own "
                "tools have them",
            ) from error
        return store, f"{base}{rest[len(authority) :]}"

    def _info(self) -> fs.FileInfo:
        store, path = self._place()
        try:
            return store.get_file_info(path)
        except OSError as error:
            raise EnvironmentFault(
                "The files cannot be reached.",
                where=self,
                got=str(error).splitlines()[0],
                do="check the address, the network, and your keys",
            ) from error


@lru_cache
def _store(root: str) -> tuple[fs.FileSystem, str]:
    """A file system, and what its paths begin with."""
    if root == "file://":
        return fs.LocalFileSystem(), ""
    store, base = fs.FileSystem.from_uri(root + "/")
    return store, base.rstrip("/")
