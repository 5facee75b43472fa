"""One file from one address, resumed where an earlier attempt stopped.

Nothing here trusts the server: what it sends is checked before it touches the disk, may not be too
long, and may not be too slow, over all connections together. No library that the project has does
this: requests' and pooch's downloads neither go on nor give up.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

import requests
from requests.adapters import HTTPAdapter
from urllib3 import exceptions as transport
from urllib3.util import Retry

from pipeline.readers.download_progress import Progress
from pipeline.readers.packed import GZIP_MAGIC
from schemas.expected import PublishedFile

CHUNK_BYTES = 1 << 16
CONNECT_TIMEOUT_S = 5.0
BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 8.0
_SIZE = r"[0-9]{1,18}"
CONTENT_RANGE = re.compile(rf"bytes (?:(?P<start>{_SIZE})-{_SIZE}|\*)/(?P<total>{_SIZE}|\*)")
# An address that gives less than this in so many seconds is given up: 22 GB would take a year.
LEAST_BYTES, WINDOW_S = 1 << 16, 120.0
# What is taken where no size is published, be it announced or not; the largest raw file has 22 GB.
MOST_BYTES = 1 << 36
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_UNREACHED = (transport.NewConnectionError, transport.ConnectTimeoutError, transport.ProxyError)


class RefusedError(Exception):
    """An address did not give the file; another may.

    Args:
        reason: for the user, in a few words.
        reached: whether a server answered at all.
        status: the HTTP status, where that is the reason.
    """

    def __init__(self, reason: str, *, reached: bool = True, status: int | None = None) -> None:
        self.reason, self.reached, self.status = reason, reached, status
        super().__init__(reason)


class BrokenError(RefusedError):
    """The transfer broke on the way: trying the same address again may help."""


@dataclass(frozen=True)
class Part:
    """A file half downloaded.

    Attributes:
        name: of the file that it becomes.
        file: open for reading and writing bytes.
    """

    name: str
    file: BinaryIO

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return os.fstat(self.file.fileno()).st_size

    def empty(self) -> None:
        """Forget what there is."""
        self.file.truncate(0)


class Downloader:
    """Fills parts over one HTTP session.

    Args:
        timeout_s: seconds without a byte after which a transfer counts as broken.
        retries: attempts after the first that brought nothing new, before an address is given up.
    """

    def __init__(self, progress: Progress, timeout_s: float, retries: int) -> None:
        self._progress, self._retries = progress, retries
        self._timeout = (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        self._reached = False
        self._session = requests.Session()
        # Statuses are retried here; a transfer that breaks is retried below, where it can resume.
        policy = Retry(
            total=None,
            connect=0,
            read=False,
            other=0,
            status=retries,
            status_forcelist=PASSING_STATUSES,
            backoff_factor=BACKOFF_S,
            respect_retry_after_header=False,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=policy))

    def close(self) -> None:
        """Close the session's connections."""
        self._session.close()

    def fill(self, part: Part, url: str, published: PublishedFile | None) -> bool:
        """Bring `part` to the whole file at `url`, on the disk for good (fsync).

        The size is checked against Content-Length and `published`; checksums are the caller's.

        Returns:
            Whether bytes of an earlier response are in it, so that a wrong checksum may be no
            fault of this address.

        Raises:
            RefusedError: the address does not give the file. What could be resumed is kept.
            OSError: the disk; the part is kept.
        """
        farthest, failures, pace = part.size, 0, _Pace()
        while True:
            try:
                return self._attempt(part, url, published, pace)
            except BrokenError as broken:
                pace.check()
                failures = 0 if part.size > farthest else failures + 1
                farthest = max(farthest, part.size)
                # With nothing ever reached there is no network: waiting would only cost time.
                if failures > self._retries or not self._reached:
                    raise
                self._progress.note(f"{part.name}: {broken.reason}; trying again")
                time.sleep(min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** max(0, failures - 1)))

    def _attempt(self, part: Part, url: str, published: PublishedFile | None, pace: _Pace) -> bool:
        """One request and its body; returns what `fill` does."""
        # Not compressed on the way: bytes on the disk are bytes on the wire.
        headers = {"Accept-Encoding": "identity"}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
        get = partial(self._session.get, headers=headers, stream=True, timeout=self._timeout)
        try:
            with pace.head(partial(get, url)) as response:
                self._reached = True
                start, total = _accepted(response, part)
                if published is not None:
                    if total not in (None, published.bytes):
                        raise RefusedError(
                            f"{total:,} bytes, where {published.bytes:,} are published"
                        )
                    total = published.bytes
                if not start or start != total:
                    self._receive(response, part, start, total, pace)
        except (requests.RequestException, transport.HTTPError) as error:
            raise _explained(error, self._timeout[1]) from error
        return start > 0

    def _receive(
        self, response: requests.Response, part: Part, start: int, total: int | None, pace: _Pace
    ) -> None:
        """Write a body behind the `start` bytes that the part holds already."""
        most = _most(part, start, total)
        # As it comes: of a slow server each byte counts.
        read = partial(response.raw.read1, CHUNK_BYTES, decode_content=False)
        chunk = read()
        if start == 0:
            # Looked at before the part is emptied: a login page must not cost what is there.
            if not chunk or chunk[:2] != GZIP_MAGIC[: len(chunk)]:
                kind = response.headers.get("Content-Type", "something untyped")
                raise RefusedError(f"not a gzip file but {kind}, beginning with {chunk[:16]!r}")
            part.empty()
        part.file.seek(start)
        self._progress.start(part.name, start, total)
        done = start
        while chunk:
            done += len(chunk)
            if done > most:
                part.empty()
                should = "it should have" if total == most else "that are taken"
                raise RefusedError(f"more than the {most:,} bytes {should}")
            part.file.write(chunk)
            part.file.flush()
            self._progress.advance(len(chunk))
            pace.came(len(chunk))
            chunk = read()
        os.fsync(part.file.fileno())
        if total is not None and done < total:
            raise BrokenError(f"the connection was dropped at {done:,} of {total:,} bytes")


@dataclass
class _Pace:
    """How fast an address gives, over all its connections."""

    since: float = field(default_factory=time.monotonic)
    bytes: int = 0

    def head(self, ask: Callable[[], requests.Response]) -> requests.Response:
        """The answer's head, in a thread of its own: it, too, could come forever.

        Raises:
            Exception: what the request ends in; and as `check`.
        """
        found: Future[requests.Response] = Future()

        def answer() -> None:
            try:
                found.set_result(ask())
            except Exception as error:
                found.set_exception(error)

        threading.Thread(target=answer, daemon=True).start()
        while not found.done():
            self.check()
            wait([found], timeout=0.5)
        return found.result()

    def came(self, size: int) -> None:
        """So many bytes have come; raises as `check`."""
        self.bytes += size
        self.check()

    def check(self) -> None:
        """Give an address up that is too slow.

        Raises:
            RefusedError: it is.
        """
        if time.monotonic() < self.since + WINDOW_S:
            return
        if self.bytes < LEAST_BYTES:
            raise RefusedError(
                f"only {self.bytes:,} bytes came in {WINDOW_S:g} s, where {LEAST_BYTES:,} is the "
                "least to go on"
            )
        self.since, self.bytes = time.monotonic(), 0


def _most(part: Part, start: int, total: int | None) -> int:
    """The bytes after which a body is cut, where the file has `start` of `total` already.

    Raises:
        RefusedError: it is said to be longer than any raw file.
        OSError: the disk has no room for it.
    """
    if total is not None and total > MOST_BYTES:
        raise RefusedError(f"{total:,} bytes, where {MOST_BYTES:,} are the most that is taken")
    free = shutil.disk_usage(part.file.fileno()).free
    if total is None:  # half of the room, so that a body without an end does not fill the disk
        return min(MOST_BYTES, start + free // 2)
    if total - start > free:
        raise OSError(errno.ENOSPC, f"{total - start:,} bytes are to come, {free:,} are free")
    return total


def _accepted(response: requests.Response, part: Part) -> tuple[int, int | None]:
    """Where the body starts in the file and how long the file is, if the server says so.

    Raises:
        BrokenError: the answer does not continue the part, which is emptied.
        RefusedError: any other status than 200, 206 and 416.
    """
    if response.status_code == requests.codes.ok:
        length = response.headers.get("Content-Length", "")
        if not length.isdecimal():
            return 0, None
        if not re.fullmatch(_SIZE, length):
            raise RefusedError(f"a Content-Length of {len(length):,} digits")
        return 0, int(length)
    if response.status_code in (206, 416):
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = int(found["total"]) if found and found["total"] != "*" else None
        start = int(found["start"]) if found and found["start"] else None
        # 416 is also the answer of a server whose whole file is here.
        if part.size == (start if response.status_code == 206 else total):
            return part.size, total
        part.empty()
        raise BrokenError("what is there cannot be continued from this address")
    raise RefusedError(
        f"{response.status_code} {response.reason}", status=int(response.status_code)
    )


def _explained(error: Exception, timeout_s: float) -> RefusedError:
    """Say what went wrong on the way; a `BrokenError` where another attempt may help."""
    cause: object = error
    if isinstance(error, requests.ConnectionError) and error.args:
        cause = getattr(error.args[0], "reason", error.args[0])
    inner: BaseException = error  # the innermost says why, e.g. `[Errno 111] Connection refused`
    while (next_inner := inner.__cause__ or inner.__context__) is not None:
        inner = next_inner
    why = str(inner) or type(inner).__name__
    if isinstance(error, (requests.exceptions.SSLError, transport.SSLError)):
        return RefusedError(f"no secure connection ({why})")
    # From the special to the general: urllib3 derives some of these from each other.
    if isinstance(cause, _UNREACHED):
        return BrokenError(f"no connection ({why})", reached=False)
    if isinstance(cause, (transport.ReadTimeoutError, requests.Timeout)):
        return BrokenError(f"nothing came for {timeout_s:g} s")
    if isinstance(cause, transport.ProtocolError):
        return BrokenError(f"the connection was dropped ({why})")
    return RefusedError(f"{type(error).__name__}: {error}")
