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
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as fs

from schemas.errors import EnvironmentFault

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

    def names(self) -> list[str]:
        """What the folder holds; nothing where there is no such folder."""
        store, path = self._place()
        found = store.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found)

    def iterdir(self) -> Generator[RemotePath]:
        """The same as paths."""
        return (self / name for name in self.names())

    def put(self, local: Path) -> None:
        """Copy a local file to here; whole or absent."""
        store, path = self._place()
        store.create_dir(str(PosixPath(path).parent))
        direct = str(self).partition(":")[0] in _WHOLE_OR_ABSENT
        to = path if direct else f"{path}.{os.getpid()}.tmp"
        with pa.OSFile(str(local)) as file, store.open_output_stream(to) as out:
            while piece := file.read(_COPIED_BYTES):
                out.write(piece)
        if not direct:
            store.move(to, path)

    def get(self, local: Path) -> None:
        """Copy it to a local file."""
        with self.open() as file:
            local.write_bytes(file.read())

    def remove(self) -> None:
        """Remove a file, or a folder with all that it holds."""
        store, path = self._place()
        if self.is_dir():
            store.delete_dir(path)
        elif self.exists():
            store.delete_file(path)

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
