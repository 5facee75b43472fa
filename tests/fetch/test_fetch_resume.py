"""Downloads that break off go on, and halves of two files never become one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import download
from pipeline.fetch import fetch
from pipeline.raw_files import RawFile
from schemas.errors import UsageError
from schemas.expected import PublishedFile
from tests.fetch.downloads import BODY, HALF, NAME, OFFLINE, OTHER, fails, get, published, ranges
from tests.http_server import Answer, FileServer

# Transfers that break


@pytest.mark.parametrize("known", [None, published(BODY)])
def test_a_dropped_connection_is_resumed(
    tmp_path: Path, server: FileServer, known: PublishedFile | None
) -> None:
    server.answers.append(Answer(drop_at=HALF))
    assert get(tmp_path, server, file=RawFile(NAME, known)) == BODY
    assert ranges(server) == [None, f"bytes={HALF}-"]
    assert [request.sent for request in server.requests] == [HALF, len(BODY) - HALF]
    assert server.requests[1].headers["If-Range"] == '"one"'
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


def test_a_part_is_kept_for_the_next_run(tmp_path: Path, server: FileServer) -> None:
    server.answers.extend([Answer(drop_at=HALF), Answer(404)])
    fails(tmp_path, server)
    assert (tmp_path / f"{NAME}.part").read_bytes() == BODY[:HALF]
    assert get(tmp_path, server) == BODY
    assert server.requests[-1].sent == len(BODY) - HALF


def test_a_server_that_ignores_range_sends_the_whole(tmp_path: Path, server: FileServer) -> None:
    server.answers.append(Answer(drop_at=HALF))
    server.always = Answer(ranges=False)
    assert get(tmp_path, server) == BODY
    assert ranges(server) == [None, f"bytes={HALF}-"]
    assert server.requests[1].sent == len(BODY)


@pytest.mark.parametrize("tag", ["etag", "modified"])
def test_a_changed_file_is_not_glued_to_an_old_half(
    tmp_path: Path, server: FileServer, tag: str
) -> None:
    old, new = {
        "etag": ('"one"', '"two"'),
        "modified": ("Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT"),
    }[tag]
    server.etag = None if tag == "modified" else old
    server.modified = None if tag == "etag" else old
    server.answers.extend([Answer(drop_at=HALF), Answer(404)])
    fails(tmp_path, server)
    server.files[NAME] = OTHER
    setattr(server, tag, new)
    assert get(tmp_path, server) == OTHER
    assert server.requests[-1].headers["If-Range"] == old
    assert server.requests[-1].sent == len(OTHER)


def test_a_server_that_gives_no_validator_starts_anew(tmp_path: Path, server: FileServer) -> None:
    server.etag = None
    server.answers.append(Answer(drop_at=HALF))
    assert get(tmp_path, server) == BODY
    assert ranges(server) == [None, None]


def test_a_weak_etag_is_no_validator(tmp_path: Path, server: FileServer) -> None:
    server.etag = 'W/"one"'
    server.answers.append(Answer(drop_at=HALF))
    assert get(tmp_path, server) == BODY
    assert ranges(server) == [None, None]


def test_a_published_md5_lets_another_mirror_continue(
    tmp_path: Path, server: FileServer, second: FileServer
) -> None:
    server.answers.extend([Answer(drop_at=HALF), Answer(404)])
    second.etag = '"another"'
    assert get(tmp_path, server, second, file=RawFile(NAME, published(BODY))) == BODY
    assert [request.sent for request in second.requests] == [len(BODY) - HALF]


def test_without_one_another_mirror_starts_anew(
    tmp_path: Path, server: FileServer, second: FileServer
) -> None:
    server.answers.extend([Answer(drop_at=HALF), Answer(404)])
    assert get(tmp_path, server, second) == BODY
    assert ranges(second) == [None]


@pytest.mark.parametrize("known", [True, False])
def test_halves_that_do_not_belong_together_are_fetched_anew(
    tmp_path: Path, server: FileServer, known: bool
) -> None:
    # The file changed, its size and ETag did not: only the checksum can tell.
    assert len(OTHER) == len(BODY)
    server.answers.extend([Answer(drop_at=HALF), Answer(404)])
    file = RawFile(NAME, published(OTHER) if known else None)
    fails(tmp_path, server, file=file)
    server.files[NAME] = OTHER
    assert get(tmp_path, server, file=file) == OTHER
    assert ranges(server)[-2:] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    "answer", [Answer(range_shift=5), Answer(416), Answer(body=BODY + b"x", honours_if_range=False)]
)
def test_a_range_that_does_not_fit_starts_anew(
    tmp_path: Path, server: FileServer, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers.extend([Answer(drop_at=HALF), answer])
    assert get(tmp_path, server) == BODY
    assert ranges(server) == [None, f"bytes={HALF}-", None]
    assert "cannot be continued from this address" in capsys.readouterr().err


def test_a_whole_part_needs_no_second_download(tmp_path: Path, server: FileServer) -> None:
    server.answers.extend([Answer(drop_at=HALF), Answer(404)])
    fails(tmp_path, server)
    with (tmp_path / f"{NAME}.part").open("ab") as part:  # as if killed just before the rename
        part.write(BODY[HALF:])
    asked = len(server.requests)
    assert get(tmp_path, server) == BODY
    assert len(server.requests) == asked


@pytest.mark.parametrize("name", ["part", "part.json", "part.lock"])
@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_others_is_left_as_it_is(
    tmp_path: Path, server: FileServer, name: str, link: bool
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    theirs = folder / f"{NAME}.{name}"
    if link:  # which other programs follow
        theirs.symlink_to(tmp_path / "elsewhere")
    theirs.write_bytes(BODY[:HALF])
    if name == "part.lock" and not link:
        fetch([RawFile(NAME)], folder, [server.url], offline_command=OFFLINE)
        assert (folder / NAME).read_bytes() == BODY
    else:
        with pytest.raises(UsageError) as caught:
            get(folder, server)
        assert str(theirs) in str(caught.value)
        assert [path.name for path in folder.iterdir()] == [theirs.name]
        assert not server.requests
    assert theirs.read_bytes() == BODY[:HALF]


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
