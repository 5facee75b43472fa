"""Servers on this machine to download from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.readers import download
from tests.fetch.downloads import BODY, NAME
from tests.http_server import FileServer


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_S", 0.01)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        running.files[NAME] = BODY
        yield running


@pytest.fixture
def second() -> Iterator[FileServer]:
    with FileServer() as running:
        running.files[NAME] = BODY
        yield running
