"""A real HTTP server on 127.0.0.1 that misbehaves as told, for the tests of downloads."""

from __future__ import annotations

import re
import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass(frozen=True)
class Answer:
    """How one request is answered; as it stands, the way a good server does."""

    status: int = 200
    body: bytes | None = None  # instead of the file
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    range_shift: int = 0  # lies about where the part starts
    drop_at: int | None = None  # cut the connection after so many bytes of body
    stall_at: int | None = None  # go silent after so many bytes of body
    length: bool = True  # send Content-Length
    drip_s: float | None = None  # send a byte at a time, so many seconds apart
    drip_head_s: float | None = None  # send the head so
    endless: bool = False  # never end the body


@dataclass
class Request:
    """What came in, and how many bytes of body went out."""

    path: str
    headers: dict[str, str]
    sent: int = 0


class FileServer(ThreadingHTTPServer):
    """Serves `files` (path without '/' -> bytes).

    `answers` are used up one a request; then `always` holds.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.answers: deque[Answer] = deque()
        self.always = Answer()
        self.requests: list[Request] = []
        self.stalled = threading.Event()
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """The mirror's address, with the slash at its end."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""

    def do_GET(self) -> None:
        server = self.server
        answer = server.answers.popleft() if server.answers else server.always
        request = Request(self.path, dict(self.headers.items()))
        server.requests.append(request)
        body = server.files.get(self.path.lstrip("/")) if answer.body is None else answer.body
        if body is None or answer.status != 200:
            status = 404 if answer.status == 200 else answer.status
            self._head(status, {"Content-Length": "0", **answer.headers})
            return
        start = self._start(answer, request)
        if start is not None and start >= len(body):
            self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(body)}"})
            return
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if start is not None:
            first = start + answer.range_shift
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        if answer.length:
            headers["Content-Length"] = str(len(body) - (start or 0))
        else:
            self.close_connection = True
        if answer.drip_head_s is not None:
            self._drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000, answer.drip_head_s)
        self._head(200 if start is None else 206, headers | answer.headers)
        self._send(body[start or 0 :], answer, request)

    def _start(self, answer: Answer, request: Request) -> int | None:
        """Where the part asked for starts; None for the whole file."""
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        return int(asked[1]) if asked and answer.ranges else None

    def _drip(self, piece: bytes, seconds: float) -> None:
        for byte in piece:
            if self.server.closing.wait(seconds):
                return
            self.wfile.write(bytes([byte]))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes, answer: Answer, request: Request) -> None:
        cut = answer.drop_at if answer.drop_at is not None else answer.stall_at
        piece = body if cut is None else body[:cut]
        if answer.drip_s is not None:
            self._drip(piece, answer.drip_s)
        while answer.endless and not self.server.closing.is_set():
            request.sent += len(piece)
            self.wfile.write(piece)
        # Before it is sent: a client that has it all may look at once.
        request.sent = len(piece)
        self.wfile.write(piece)
        if answer.stall_at is not None:
            self.server.stalled.set()
            self.server.closing.wait(120)
        if cut is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
