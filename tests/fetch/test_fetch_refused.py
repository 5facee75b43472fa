"""Downloads that a real server refuses, or answers with something else."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.readers import download
from pipeline.readers.raw_files import RawFile
from tests.fetch.downloads import BODY, HALF, NAME, OTHER, fails, get, published
from tests.http_server import Answer, FileServer

# Answers that are wrong


def test_404_goes_straight_to_the_next_mirror(
    tmp_path: Path, server: FileServer, second: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.always = Answer(404)
    assert get(tmp_path, server, second) == BODY
    assert len(server.requests) == 1
    assert f"{server.url}{NAME}: 404 Not Found" in capsys.readouterr().err


def test_404_everywhere_asks_for_the_name(
    tmp_path: Path, server: FileServer, second: FileServer
) -> None:
    server.always = second.always = Answer(404)
    fault = fails(tmp_path, server, second)
    assert fault.what == f"No mirror has {NAME}."
    assert "check the name of the category" in str(fault)
    assert f"{server.url}{NAME}: 404 Not Found" in str(fault)
    assert f"404 Not Found\n            {second.url}{NAME}: 404 Not Found\n" in str(fault)


def test_503_once_is_tried_again(tmp_path: Path, server: FileServer) -> None:
    server.answers.append(Answer(503, headers={"Retry-After": "3600"}))
    assert get(tmp_path, server) == BODY
    assert len(server.requests) == 2


def test_503_always_goes_to_the_next_mirror(
    tmp_path: Path, server: FileServer, second: FileServer
) -> None:
    server.always = Answer(503)
    fault = fails(tmp_path, server, retries=0)
    assert fault.what == f"{NAME} could not be downloaded from any mirror."
    assert "503 Service Unavailable" in str(fault)
    assert "later" in str(fault)
    assert get(tmp_path, server, second, retries=2) == BODY
    assert len(server.requests) == 1 + 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(body=OTHER), "its md5 is not the published one"),
        (Answer(body=OTHER[:-9]), f"where {len(BODY):,} are published"),
        (Answer(body=OTHER + b"x", length=False), f"more than the {len(BODY):,} bytes"),
    ],
)
def test_a_wrong_body_is_discarded(
    tmp_path: Path, server: FileServer, second: FileServer, answer: Answer, reason: str
) -> None:
    file = RawFile(NAME, published(BODY))
    server.always = second.always = answer
    fault = fails(tmp_path, server, second, file=file)
    assert str(fault).count(reason) == 2, "each mirror is asked, and named with its reason"
    assert [request.headers.get("Range") for request in second.requests] == [None]
    assert list(tmp_path.iterdir()) == [], "a wrong body is never resumed from"
    second.always = Answer()
    assert get(tmp_path, server, second, file=file) == BODY


def test_a_damaged_gzip_is_refused_though_nothing_is_published(
    tmp_path: Path, server: FileServer, second: FileServer
) -> None:
    damaged = bytearray(BODY)
    damaged[HALF] ^= 1
    server.always = Answer(body=bytes(damaged))
    assert get(tmp_path, server, second) == BODY


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"", b"\x1f"])
def test_a_page_with_status_200_is_refused(
    tmp_path: Path, server: FileServer, second: FileServer, body: bytes
) -> None:
    page = Answer(body=body, headers={"Content-Type": "text/html"})
    server.always = page
    assert get(tmp_path / "one", server, second) == BODY
    fault = fails(tmp_path / "two", server)
    assert ("damaged" if body == b"\x1f" else "not a gzip file but text/html") in str(fault)
    assert "kept" not in str(fault)
    assert list((tmp_path / "two").iterdir()) == []


def test_a_login_page_does_not_cost_what_is_there(tmp_path: Path, server: FileServer) -> None:
    page = Answer(body=b"<html>Please log in</html>", ranges=False)
    server.answers.extend([Answer(drop_at=HALF), page])
    fails(tmp_path, server)
    assert (tmp_path / f"{NAME}.tinprep-part").read_bytes() == BODY[:HALF]
    assert get(tmp_path, server) == BODY
    assert server.requests[-1].sent == len(BODY) - HALF


# Answers that never end


@pytest.mark.parametrize(
    "answer",
    [
        Answer(drop_at=1),  # on every connection
        Answer(drip_s=0.02),
        Answer(drip_s=0.02, length=False),
        Answer(drip_head_s=0.02),
    ],
)
def test_a_mirror_that_drips_is_given_up(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(download, "WINDOW_S", 1.0)
    server.always = answer
    began = time.monotonic()
    fault = fails(tmp_path, server, retries=10**6)
    assert time.monotonic() - began < 30  # and not the minutes that the whole would take
    part = tmp_path / f"{NAME}.tinprep-part"
    kept = part.stat().st_size if part.exists() else 0
    assert bool(kept) == (answer.drip_head_s is None)
    assert f"{server.url}{NAME}: only {kept:,} bytes came in 1 s" in str(fault)
    assert (f"again later: the {kept:,} bytes that came are kept" in str(fault)) == bool(kept)
    server.always = Answer()
    assert get(tmp_path, server) == BODY


@pytest.mark.parametrize("known", [True, False])
def test_a_body_without_an_end_is_cut(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    server.always = Answer(length=False, endless=True)
    most = len(BODY)
    if not known:
        most = 10 * len(BODY)
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2 * most))
    fault = fails(tmp_path, server, file=RawFile(NAME, published(BODY) if known else None))
    assert f"more than the {most:,} bytes" in str(fault)
    assert list(tmp_path.iterdir()) == []
    assert server.requests[-1].sent < most + 10_000_000


def test_a_size_beyond_any_raw_file_is_refused(tmp_path: Path, server: FileServer) -> None:
    server.always = Answer(headers={"Content-Length": str(1 << 50)})
    assert f"where {1 << 36:,} are the most" in str(fails(tmp_path, server))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("known", [True, False])
def test_what_is_compressed_on_the_way_is_the_file_or_refused(
    tmp_path: Path, server: FileServer, known: bool
) -> None:
    file = RawFile(NAME, published(BODY) if known else None)
    labelled = {"Content-Encoding": "gzip"}
    server.always = Answer(headers=labelled)  # of the file's own gzip
    assert get(tmp_path / "own", server, file=file) == BODY
    server.always = Answer(body=gzip.compress(BODY), headers=labelled)
    fault = fails(tmp_path / "twice", server, file=file)
    assert ("are published" if known else "gzip within gzip") in str(fault)
    assert list((tmp_path / "twice").iterdir()) == []


def test_a_redirect_without_an_end_is_refused(tmp_path: Path, server: FileServer) -> None:
    server.always = Answer(302, headers={"Location": f"/{NAME}"})
    fault = str(fails(tmp_path, server))
    assert "TooManyRedirects" in fault
    assert "kept" not in fault


def test_a_size_of_thousands_of_digits_is_refused(tmp_path: Path, server: FileServer) -> None:
    server.always = Answer(headers={"Content-Length": "9" * 5_000})
    assert "a Content-Length of 5,000 digits" in str(fails(tmp_path, server))
    size = f"bytes {HALF}-{'9' * 5_000}/{'9' * 5_000}"
    server.always = Answer()
    server.answers.extend([Answer(drop_at=HALF), Answer(headers={"Content-Range": size})])
    assert get(tmp_path, server) == BODY
