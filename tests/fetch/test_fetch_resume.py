"""Downloads that break off go on, and halves of two files never become one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import download
from pipeline.readers.raw_files import RawFile
from schemas.expected import PublishedFile
from tests.fetch.downloads import BODY, HALF, NAME, OTHER, fails, get, published, ranges
from tests.http_server import Answer, FileServer

# Transfers that break


@pytest.mark.parametrize("known", [None, published(BODY)])
def test_what_came_is_gone_on_with_by_this_mirror_or_another(
    tmp_path: Path, server: FileServer, second: FileServer, known: PublishedFile | None
) -> None:
    file = RawFile(NAME, known)
    server.answers.extend([Answer(drop_at=HALF), Answer(drop_at=HALF // 2), Answer(403)])
    kept = HALF + HALF // 2
    assert f"the {kept:,} bytes that came are kept" in str(fails(tmp_path, server, file=file))
    assert (tmp_path / f"{NAME}.tinprep-part").read_bytes() == BODY[:kept]
    assert get(tmp_path, second, file=file) == BODY
    assert ranges(server) == [None, f"bytes={HALF}-", f"bytes={kept}-"]
    assert ranges(second) == [f"bytes={kept}-"]
    assert [request.sent for request in server.requests] == [HALF, HALF // 2, 0]
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(2, 3 * download.CHUNK_BYTES), max_size=6), st.booleans())
def test_however_often_it_drops_every_byte_comes_once(cuts: list[int], known: bool) -> None:
    with FileServer() as server, tempfile.TemporaryDirectory() as folder:
        server.files[NAME] = BODY
        at = 0
        for cut in cuts:
            if at + cut < len(BODY):
                server.answers.append(Answer(drop_at=cut))
                at += cut
        # retries=0: a drop that brought something new is no failure
        file = RawFile(NAME, published(BODY) if known else None)
        assert get(Path(folder), server, file=file, retries=0) == BODY
        assert sum(request.sent for request in server.requests) == len(BODY)


def test_a_drop_before_the_first_byte_counts_as_a_failure(
    tmp_path: Path, server: FileServer
) -> None:
    server.always = Answer(drop_at=0)
    fault = fails(tmp_path, server, retries=2)
    assert len(server.requests) == 3
    assert f"{server.url}{NAME}: the connection was dropped" in str(fault)


def test_a_server_that_ignores_range_sends_the_whole(tmp_path: Path, server: FileServer) -> None:
    server.answers.append(Answer(drop_at=HALF))
    server.always = Answer(ranges=False)
    assert get(tmp_path, server) == BODY
    assert ranges(server) == [None, f"bytes={HALF}-"]
    assert server.requests[1].sent == len(BODY)


@pytest.mark.parametrize("known", [True, False])
def test_halves_that_do_not_belong_together_are_fetched_anew(
    tmp_path: Path, server: FileServer, known: bool
) -> None:
    # The file changed, its size did not: only the checksum can tell.
    assert len(OTHER) == len(BODY)
    server.answers.extend([Answer(drop_at=HALF), Answer(404)])
    file = RawFile(NAME, published(OTHER) if known else None)
    fails(tmp_path, server, file=file)
    server.files[NAME] = OTHER
    assert get(tmp_path, server, file=file) == OTHER
    assert ranges(server)[-2:] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    "answer",
    [Answer(range_shift=5), Answer(416), Answer(body=BODY + b"x"), Answer(body=BODY[:HALF])],
)
def test_a_range_that_does_not_fit_starts_anew(
    tmp_path: Path, server: FileServer, answer: Answer
) -> None:
    server.answers.extend([Answer(drop_at=HALF), answer])
    assert get(tmp_path, server) == BODY
    assert ranges(server) == [None, f"bytes={HALF}-", None]


def test_a_whole_part_needs_no_second_download(tmp_path: Path, server: FileServer) -> None:
    # As if killed just before the rename.
    (tmp_path / f"{NAME}.tinprep-part").write_bytes(BODY)
    assert get(tmp_path, server) == BODY
    assert [request.sent for request in server.requests] == [0]


def test_no_link_is_followed(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "elsewhere").write_bytes(BODY[:HALF])
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / f"{NAME}.tinprep-part").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in str(fails(folder, server))
    assert (tmp_path / "elsewhere").read_bytes() == BODY[:HALF]
    assert not server.requests


def test_a_stall_times_out_and_is_resumed(tmp_path: Path, server: FileServer) -> None:
    server.answers.append(Answer(stall_at=2 * download.CHUNK_BYTES))
    assert get(tmp_path, server, timeout_s=0.3) == BODY
    assert ranges(server) == [None, f"bytes={2 * download.CHUNK_BYTES}-"]


def test_a_server_that_always_stalls_is_given_up(tmp_path: Path, server: FileServer) -> None:
    server.always = Answer(stall_at=0)
    fault = fails(tmp_path, server, timeout_s=0.2, retries=1)
    assert "nothing came for 0.2 s" in str(fault)
    assert len(server.requests) == 2


def test_a_body_without_a_length_is_checked_by_its_crc(tmp_path: Path, server: FileServer) -> None:
    server.always = Answer(length=False)
    assert get(tmp_path, server) == BODY
    server.always = Answer(length=False, drop_at=HALF)
    fault = fails(tmp_path / "cut", server)
    assert "damaged" in str(fault)
    assert list((tmp_path / "cut").iterdir()) == []
