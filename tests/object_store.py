"""A store of objects of the tests' own: a server of S3 on the loopback, which asks for keys."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.readers import remote

BUCKET = "logs"
# Its signatures are of an address that it has unquoted.
_SERVER = """
import sys
from urllib.parse import quote, unquote
from moto.iam.access_control import IAMRequestBase as Signed
from moto.server import ThreadedMotoServer
made = Signed._create_aws_request
def quoted(text, safe="-_.~"):
    return quote(unquote(text), safe)
def of_quoted(self):
    path, _, query = self._path.partition("?")
    pairs = [map(quoted, pair.split("=")) for pair in query.split("&") if pair]
    self._path = quoted(path, "/-_.~") + ("?" + "&".join(map("=".join, pairs)) if query else "")
    return made(self)
Signed._create_aws_request = of_quoted
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_ALL = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'


@dataclass
class Store:
    """A server with one bucket.

    Attributes:
        port: of the server.
        client: of boto3.
        keys: what the environment says to reach it.
    """

    port: int
    client: Any
    keys: dict[str, str]

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def put_folder(self, folder: Path, below: str = "") -> None:
        """Every file of a folder, by its name there."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(below + path.relative_to(folder).as_posix(), path.read_bytes())

    def get_folder(self, below: str, folder: Path) -> None:
        """Every object whose name begins so, as a file of the rest of its name."""
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=below
        ):
            for one in page.get("Contents", ()):
                path = folder / one["Key"].removeprefix(below)
                if not one["Key"].endswith("/"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self.client.download_file(BUCKET, one["Key"], str(path))

    def use(self, monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
        """Have the environment lead to it, or elsewhere."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in (self.keys | others).items():
            monkeypatch.setenv(name, value)
        remote._store.cache_clear()


@contextmanager
def store() -> Iterator[Store]:
    """A server of S3 with an empty bucket; what needs one is skipped where it is not installed."""
    pytest.importorskip("moto", reason="needs a server of S3: pip install 'moto[s3]' flask")
    import boto3

    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=own,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        url = f"http://127.0.0.1:{port}"
        asked = {"endpoint_url": url, "region_name": "us-east-1"}
        first = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
        iam = boto3.client("iam", **asked, **first)
        iam.create_user(UserName="tin")
        iam.put_user_policy(UserName="tin", PolicyName="all", PolicyDocument=_ALL)
        key = iam.create_access_key(UserName="tin")["AccessKey"]
        # From here on only who has that key is let in.
        requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=10)
        keys = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
        client = boto3.client("s3", **asked, **{name.lower(): of for name, of in keys.items()})
        client.create_bucket(Bucket=BUCKET)
        keys |= {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"}
        yield Store(port, client, keys | {"AWS_EC2_METADATA_DISABLED": "true"})
    finally:
        process.kill()
        process.wait()


@dataclass
class Cutting:
    """A way to a server that breaks: a connection ends after so many bytes of answers.

    Attributes:
        port: where it begins.
        after: how many bytes a connection brings before it breaks.
        times: how many connections break; the others last.
        broken: how many have.
    """

    port: int
    after: int
    times: int
    broken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def cutting(to: int, after: int, times: int) -> Iterator[Cutting]:
    """A way on the loopback to the port `to`; see `Cutting`."""
    listening = socket.create_server(("127.0.0.1", 0))
    found = Cutting(listening.getsockname()[1], after, times)

    def carry(one: socket.socket, other: socket.socket, *, breaks: bool) -> None:
        brought = 0
        with suppress(OSError):
            while data := one.recv(1 << 16):
                brought += len(data)
                with found.lock:
                    cut = breaks and brought > found.after and found.broken < found.times
                    found.broken += cut
                if cut:
                    other.sendall(data[: len(data) // 2])
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):  # closed once neither thread has it
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", to))
                for ends, breaks in (((near, far), False), ((far, near), True)):
                    threading.Thread(
                        target=carry, args=ends, kwargs={"breaks": breaks}, daemon=True
                    ).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield found
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
