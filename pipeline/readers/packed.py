"""How a raw file is packed, known by its first bytes, and the errors for one that cannot be read.

Text, gzip and zstd are read, whatever the file's name says.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import BinaryIO, cast

from isal import igzip
from isal.igzip_lib import IsalError

from schemas.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
PARQUET = b"PAR1"
# isal's stub gives its error class as an instance.
DAMAGE = (EOFError, OSError, cast("type[Exception]", IsalError))

_HEAD_BYTES = 512  # as long as tar's header
_SKIPPABLE = re.compile(
    rb"[\x50-\x5f]\x2a\x4d\x18"
)  # a zstd frame of no data, as pzstd begins with
_UNPACK = "unpack it"
_AGAIN = "download it again: an error or login page saved under its name is a common cause"
# What is taken for a raw file at times: how it begins, and what to do then.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (rb"PK\x03\x04", "a zip archive", _UNPACK),
    (rb"BZh[1-9]1AY", "a bzip2 file", _UNPACK),
    (rb"\xfd7zXZ\0", "an xz file", _UNPACK),
    (rb"\x04\x22\x4d\x18", "an lz4 file", _UNPACK),
    (rb"\x1f\x9d", "a file packed by compress", _UNPACK),
    (rb"(?s).{257}ustar(?:\0|  \0)", "a tar archive", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (PARQUET, "a Parquet file", "give the raw text file"),
    (rb"\xff\xfe|\xfe\xff", "text in UTF-16", "write it as UTF-8"),
    (rb"(?i)(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|\?xml)", "a web page", _AGAIN),
    (rb"version https://git-lfs", "a pointer of Git LFS", "fetch the file with `git lfs pull`"),
)


class Packing(Enum):
    """What a raw file is; the value is what it begins with."""

    TEXT = b""
    GZIP = GZIP_MAGIC
    ZSTD = b"\x28\xb5\x2f\xfd"


_PACKED = (Packing.GZIP, Packing.ZSTD)


def packing_of(path: Path) -> Packing:
    """How a file is packed.

    Raises:
        InputError: it is neither text nor gzip nor zstd, or no text is packed in it.
        OSError, EOFError, IsalError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        packing = _checked(path, head, Packing.TEXT)
        if packing is not Packing.TEXT:
            file.seek(0)
            _checked(path, unpacked(file, packing).read(_HEAD_BYTES), packing)
    return packing


def _checked(path: Path, head: bytes, within: Packing) -> Packing:
    """The packing that the first bytes tell, of a file or of what is packed `within` it."""
    found = next(((what, do) for begin, what, do in _FOREIGN if re.match(begin, head)), None)
    packing = packing_by(head)
    if found is None and Packing.TEXT not in (within, packing):
        found = packing.name.lower(), "it was packed twice: unpack it once"
    if found is None:
        return packing
    inside = "" if within is Packing.TEXT else f" within {within.name.lower()}"
    raise InputError(
        "The raw file is not text.",
        where=path,
        expected="text, which may be packed by gzip or zstd",
        got=f"{found[0]}{inside} (first bytes {head[:8].hex(' ')})",
        do=found[1],
    )


def packing_by(head: bytes) -> Packing:
    """The packing of what begins so."""
    if _SKIPPABLE.match(head):
        return Packing.ZSTD
    return next((p for p in _PACKED if head.startswith(p.value)), Packing.TEXT)


def unpacked(file: BinaryIO, packing: Packing) -> BinaryIO:
    """The text of an open file as a stream; reading it may raise one of `DAMAGE`."""
    if packing is Packing.GZIP:
        return cast("BinaryIO", igzip.open(file, "rb"))  # type: ignore[no-untyped-call]
    if packing is Packing.ZSTD:
        # Imported where it is wanted, as it is slow to load.
        import pyarrow as pa

        return cast("BinaryIO", pa.CompressedInputStream(file, "zstd"))
    return file


def damaged(path: Path, lines: int, error: Exception) -> InputError:
    """What the person should know about `error`, met while the file was read.

    Args:
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
        "The packed file is cut short or damaged.",
        where=path,
        line=lines + 1,
        expected="whole gzip members, or zstd frames, to the end of the file",
        got=f"{error} (near this line)",
        do="download it again, and compare its size and checksum",
    )
