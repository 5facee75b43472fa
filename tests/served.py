"""A server of its own process, and a client of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Server:
    """`tinprep serve ARGS`, until it is stopped.

    Args:
        args: of the command.
        command: in its place.
        how: as for `Popen`.
    """

    def __init__(self, *args: object, command: list[str] | None = None, **how: Any) -> None:
        own = [sys.executable, "-m", "pipeline.cli", "serve", *map(str, args), "--port", "0"]
        command = command or own
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **how)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if " at http" not in said:
            self.refused = self.process.communicate()[1]
            return
        self.refused = ""
        self.url = said.split()[-1]
        self.address = urlsplit(self.url).hostname or "", urlsplit(self.url).port or 0
        self.client = self.connect()

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is kept."""
        return http.client.HTTPConnection(*self.address, timeout=120)

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """The status and the decoded answer of a call."""
        method = "GET" if body is None else "POST"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        try:
            return self._ask(method, path, data, {"content-type": "application/json", **headers})
        except (http.client.HTTPException, ConnectionError):
            self.client.close()
            raise

    def _ask(
        self, method: str, path: str, data: Any, headers: Mapping[str, str]
    ) -> tuple[int, Any]:
        self.client.request(method, path, data, dict(headers))
        answer = self.client.getresponse()
        text = answer.read()
        kind = answer.headers.get("content-type", "")
        return answer.status, json.loads(text) if "json" in kind else text.decode()

    def get(self, path: str, body: Any = None) -> Any:
        """The answer of a call that goes well."""
        status, answer = self.ask(path, body)
        assert status == 200, answer
        return answer

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """The exit code, and what it said of errors."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        _, said = self.process.communicate(timeout=120)
        return self.process.returncode, said

    def __enter__(self) -> Server:
        assert not self.refused, self.refused
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def lines(path: Path) -> list[Any]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
