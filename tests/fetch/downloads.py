"""What is downloaded in tests, and how."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import pytest

from pipeline.readers.fetch import fetch
from pipeline.readers.raw_files import RawFile
from schemas.errors import EnvironmentFault
from schemas.expected import PublishedFile
from tests.http_server import FileServer

NAME = "reviews_Some_5.json.gz"
OFFLINE = "tinprep amazon --demo"
BODY = gzip.compress(random.Random(7).randbytes(400_000), mtime=0)
OTHER = gzip.compress(random.Random(8).randbytes(400_000), mtime=0)
HALF = 200_000


def published(body: bytes) -> PublishedFile:
    return PublishedFile(len(body), hashlib.md5(body).hexdigest())


def get(
    folder: Path,
    *servers: FileServer | str,
    file: RawFile | None = None,
    retries: int = 2,
    timeout_s: float = 5.0,
) -> bytes:
    mirrors = [one if isinstance(one, str) else one.url for one in servers]
    file = file or RawFile(NAME)
    (path,) = fetch(
        [file], folder, mirrors, offline_command=OFFLINE, timeout_s=timeout_s, retries=retries
    )
    assert path == folder / file.name
    assert [x.name for x in folder.iterdir()] == [file.name], "nothing is left beside the file"
    return path.read_bytes()


def fails(folder: Path, *servers: FileServer | str, **options: object) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        get(folder, *servers, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 5
    assert not (folder / NAME).exists(), "a refused body never gets the final name"
    return caught.value


def ranges(server: FileServer) -> list[str | None]:
    return [request.headers.get("Range") for request in server.requests]
