"""One file from one address, resumed where an earlier attempt stopped.

A file on its way is `<name>.part`; `<name>.part.json` beside it says where its bytes come from, by
which the part is known as ours. Nothing here trusts the server: what it sends is checked before it
touches the disk, may not be too long, and may not be too slow, over all connections together.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from queue import Empty, Full, Queue

import requests
from requests.adapters import HTTPAdapter
from urllib3 import exceptions as transport
from urllib3.util import Retry

from pipeline.download_progress import Progress
from pipeline.gzipped import GZIP_MAGIC
from schemas.errors import UsageError
from schemas.expected import PublishedFile
from schemas.replacing import replacing
from schemas.shape import decode, misfit

CHUNK_BYTES = 1 << 16
CONNECT_TIMEOUT_S = 5.0
BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 8.0
RANGE_STATUSES = (206, 416)
_SIZE = r"[0-9]{1,18}"
CONTENT_RANGE = re.compile(rf"bytes (?P<start>{_SIZE})-{_SIZE}/(?P<total>{_SIZE}|\*)")
# An address that gives less than this in so many seconds is given up: 22 GB would take a year.
LEAST_BYTES, WINDOW_S = 1 << 16, 120.0
# What is taken where no size is published, be it announced or not; the largest raw file has 22 GB.
MOST_BYTES = 1 << 36
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)


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
class Origin:
    """Where the bytes of a part come from.

    `validator` is the server's strong ETag, else its Last-Modified: what If-Range may carry.
    """

    url: str
    validator: str | None
    total: int | None


@dataclass(frozen=True)
class Part:
    """A file half downloaded: `path`, to become the file `name`."""

    name: str
    path: Path

    @property
    def origin_path(self) -> Path:
        """The file that holds the part's `Origin`."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def origin(self) -> Origin | None:
        """Where the bytes come from; None where that is not known, so they cannot be used."""
        try:
            held = decode(self.origin_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        # A note of another shape is as good as none: the download begins anew.
        return None if misfit(held, Origin) else Origin(**held)

    def require_own(self) -> None:
        """Refuse to touch a file of others in the place of the part or its origin.

        Raises:
            UsageError: there is one; a part is ours only where its origin is beside it.
        """
        both = (self.path, self.origin_path)
        there = [path for path in both if os.path.lexists(path)]
        if there and (self.origin is None or any(path.is_symlink() for path in there)):
            raise UsageError(
                "A file of others is in the way of a download.",
                where=there[0],
                expected="nothing, or a download that tinprep began",
                got=f"no {self.origin_path.name} beside it that says where it comes from",
                do="move it away",
            )

    def begin(self, origin: Origin) -> None:
        """Empty the part and note where its bytes will come from."""
        # In this order a crash leaves no old bytes under a new origin, and no part without one.
        if self.path.exists():
            os.truncate(self.path, 0)
        with replacing(self.origin_path) as unfinished:
            unfinished.write_text(json.dumps(asdict(origin)), encoding="utf-8")
        self.path.touch()

    def discard(self) -> None:
        """Remove the part and its origin."""
        self.path.unlink(missing_ok=True)
        self.origin_path.unlink(missing_ok=True)


class Downloader:
    """Fills parts over one HTTP session.

    Args:
        progress: told of every byte.
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
        headers = _resume_headers(part, url, published)
        origin = part.origin
        if headers and origin is not None and part.size == origin.total:
            return True
        # Not compressed on the way: bytes on the disk are bytes on the wire.
        answer = _Answer(
            self._session, url, {"Accept-Encoding": "identity", **headers}, self._timeout, pace
        )
        try:
            response = answer.head()
            self._reached = True
            return self._receive(response, answer.body(), part, url, published)
        except (requests.RequestException, transport.HTTPError) as error:
            raise _explained(error, self._timeout) from error
        finally:
            answer.stop()

    def _receive(
        self,
        response: requests.Response,
        chunks: Iterator[bytes],
        part: Part,
        url: str,
        published: PublishedFile | None,
    ) -> bool:
        """Check the answer's head, then write its body behind what the part holds already."""
        start, total = _accepted(response, part)
        if published is not None:
            if total not in (None, published.bytes):
                raise RefusedError(f"{total:,} bytes, where {published.bytes:,} are published")
            total = published.bytes
        most = _most(part, start, total)
        if start == 0:
            # Looked at before the part is emptied: a login page must not cost what is there.
            head = next(chunks, b"")
            if not head or head[:2] != GZIP_MAGIC[: len(head)]:
                kind = response.headers.get("Content-Type", "something untyped")
                raise RefusedError(f"not a gzip file but {kind}, beginning with {head[:16]!r}")
            part.begin(Origin(url, _validator(response), total))
            chunks = chain([head], chunks)
        self._progress.start(part.name, start, total)
        done = start
        with part.path.open("ab") as out:
            for chunk in chunks:
                done += len(chunk)
                if done > most:
                    part.discard()
                    should = "it should have" if total == most else "that are taken"
                    raise RefusedError(f"more than the {most:,} bytes {should}")
                out.write(chunk)
                self._progress.advance(len(chunk))
            out.flush()
            os.fsync(out.fileno())
        if total is not None and done < total:
            raise BrokenError(f"the connection was dropped at {done:,} of {total:,} bytes")
        return start > 0


class _Pace:
    """How fast an address gives, over all its connections."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._since, self._bytes = time.monotonic(), 0

    def left_s(self) -> float:
        """Seconds until it is looked at again."""
        return max(0.0, self._since + WINDOW_S - time.monotonic())

    def add(self, size: int) -> None:
        """So many bytes have come."""
        self._bytes += size

    def check(self) -> None:
        """Give an address up that is too slow.

        Raises:
            RefusedError: it is.
        """
        if self.left_s():
            return
        if self._bytes < LEAST_BYTES:
            raise RefusedError(
                f"only {self._bytes:,} bytes came in {WINDOW_S:g} s, where {LEAST_BYTES:,} is the "
                "least to go on"
            )
        self._begin()


class _Answer:
    """A request in a thread of its own, so that its head, too, cannot come forever.

    Args:
        session: to ask with.
        url: whom.
        headers: of the request.
        timeout: to connect, and without a byte.
        pace: is told of the body's bytes, and asked whether to wait on.
    """

    def __init__(
        self,
        session: requests.Session,
        url: str,
        headers: dict[str, str],
        timeout: tuple[float, float],
        pace: _Pace,
    ) -> None:
        self._pace, self._stopped = pace, threading.Event()
        self._came: Queue[requests.Response | bytes | Exception | None] = Queue(8)

        def ask() -> None:
            try:
                with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
                    self._put(response)
                    read = partial(response.raw.read1, CHUNK_BYTES, decode_content=False)
                    while chunk := read():  # as it comes: of a slow server each byte counts
                        if not self._put(chunk):
                            return
                self._put(None)
            except Exception as error:
                self._put(error)

        threading.Thread(target=ask, daemon=True).start()

    def head(self) -> requests.Response:
        """The answer's head; raises what the request ends in, and as `_Pace.check`."""
        found = self._next()
        assert isinstance(found, requests.Response)
        return found

    def body(self) -> Iterator[bytes]:
        """The chunks of the body; raises as `head`."""
        while isinstance(chunk := self._next(), bytes):
            self._pace.add(len(chunk))
            yield chunk

    def stop(self) -> None:
        """Nobody waits for more."""
        self._stopped.set()

    def _put(self, one: requests.Response | bytes | Exception | None) -> bool:
        """Hand over; returns whether somebody waits."""
        while not self._stopped.is_set():
            try:
                self._came.put(one, timeout=0.1)
            except Full:
                continue
            return True
        return False

    def _next(self) -> requests.Response | bytes | None:
        while True:
            self._pace.check()
            try:
                found = self._came.get(timeout=min(self._pace.left_s(), 1.0) + 0.01)
            except Empty:
                continue
            if isinstance(found, Exception):
                raise found
            return found


def _most(part: Part, start: int, total: int | None) -> int:
    """The bytes after which a body is cut, where the file has `start` of `total` already.

    Raises:
        RefusedError: it is said to be longer than any raw file.
        OSError: the disk has no room for it.
    """
    if total is not None and total > MOST_BYTES:
        raise RefusedError(f"{total:,} bytes, where {MOST_BYTES:,} are the most that is taken")
    free = shutil.disk_usage(part.path.parent).free
    if total is None:  # half of the room, so that a body without an end does not fill the disk
        return min(MOST_BYTES, start + free // 2)
    if total - start > free:
        text = f"{total - start:,} bytes are to come, {free:,} are free"
        raise OSError(errno.ENOSPC, text, str(part.path))
    return total


def _resume_headers(part: Part, url: str, published: PublishedFile | None) -> dict[str, str]:
    """Range, and If-Range where the part's server gave a validator; nothing to start anew.

    Bytes from another address, or without a validator, are only built on where a published md5
    will tell whether the halves belong together.
    """
    origin, size = part.origin, part.size
    if origin is None or size == 0:
        return {}
    bytes_from = {"Range": f"bytes={size}-"}
    if origin.url == url and origin.validator is not None:
        return bytes_from | {"If-Range": origin.validator}
    return bytes_from if published is not None else {}


def _validator(response: requests.Response) -> str | None:
    """Give what If-Range may carry (RFC 9110, 13.1.5): a strong ETag, else Last-Modified."""
    etag: str | None = response.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("Last-Modified")
    return modified


def _accepted(response: requests.Response, part: Part) -> tuple[int, int | None]:
    """Where the body starts in the file and how long the file is, if the server says so.

    Raises:
        BrokenError: the answer does not continue the part, which is discarded.
        RefusedError: any other status than 200 and 206.
    """
    if response.status_code == requests.codes.ok:
        length = response.headers.get("Content-Length", "")
        if not length.isdecimal():
            return 0, None
        if not re.fullmatch(_SIZE, length):
            raise RefusedError(f"a Content-Length of {len(length):,} digits")
        return 0, int(length)
    if response.status_code == requests.codes.partial_content:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is not None and int(found["start"]) == part.size:
            total = None if found["total"] == "*" else int(found["total"])
            if part.origin is None or total is None or part.origin.total in (None, total):
                return part.size, total
    if response.status_code in RANGE_STATUSES:
        part.discard()
        raise BrokenError("what is there cannot be continued from this address")
    raise RefusedError(
        f"{response.status_code} {response.reason}", status=int(response.status_code)
    )


def _explained(error: Exception, timeout: tuple[float, float]) -> RefusedError:
    """Say what went wrong on the way; a `BrokenError` where another attempt may help."""
    cause: object = error
    if isinstance(error, requests.ConnectionError) and error.args:
        cause = getattr(error.args[0], "reason", error.args[0])
    if isinstance(error, (requests.exceptions.SSLError, transport.SSLError)):
        return RefusedError(f"no secure connection ({_last_words(error)})")
    # From the special to the general: urllib3 derives some of these from each other.
    if isinstance(cause, transport.NameResolutionError):
        return BrokenError("the name cannot be resolved", reached=False)
    if isinstance(cause, (transport.NewConnectionError, transport.ProxyError)):
        return BrokenError(f"no connection ({_last_words(cause)})", reached=False)
    if isinstance(cause, (transport.ConnectTimeoutError, requests.ConnectTimeout)):
        return BrokenError(f"no connection within {timeout[0]:g} s", reached=False)
    if isinstance(cause, (transport.ReadTimeoutError, requests.Timeout)):
        return BrokenError(f"nothing came for {timeout[1]:g} s")
    if isinstance(cause, transport.ProtocolError):
        return BrokenError(f"the connection was dropped ({_last_words(cause)})")
    return RefusedError(f"{type(error).__name__}: {error}")


def _last_words(error: Exception) -> str:
    """Dig out the innermost reason, e.g. `[Errno 111] Connection refused`."""
    inner: BaseException = error
    while (next_inner := inner.__cause__ or inner.__context__) is not None:
        inner = next_inner
    return str(inner) or type(inner).__name__
