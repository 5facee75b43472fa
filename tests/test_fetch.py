"""Downloads against a real server that breaks them in every way that is known."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline import download
from pipeline.download_progress import BarProgress, LineProgress
from pipeline.fetch import AMAZON_MIRRORS, fetch
from pipeline.raw_files import RawFile, missing
from schemas.errors import EnvironmentFault, InputError, UsageError
from schemas.expected import AMAZON_FILES, PublishedFile
from tests.http_server import Answer, FileServer

NAME = "reviews_Some_5.json.gz"
OFFLINE = "tinprep amazon --demo"
BODY = gzip.compress(random.Random(7).randbytes(400_000), mtime=0)
OTHER = gzip.compress(random.Random(8).randbytes(400_000), mtime=0)
HALF = 200_000


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


# What is there, and what it may be called


def test_a_file_that_is_there_is_used_and_no_network_touched(
    tmp_path: Path, server: FileServer
) -> None:
    (tmp_path / NAME).write_bytes(b"brought by hand")
    assert get(tmp_path, server, file=RawFile(NAME, published(BODY))) == b"brought by hand"
    assert server.requests == []


def test_only_what_is_missing_is_downloaded(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "a.gz").write_bytes(b"mine")
    files = [RawFile("a.gz", published(OTHER)), RawFile(NAME)]
    assert missing(files, tmp_path) == [NAME]
    paths = fetch(files, tmp_path, [server.url], offline_command=OFFLINE)
    assert [path.read_bytes() for path in paths] == [b"mine", BODY]
    assert missing(files, tmp_path) == []
    assert [request.path for request in server.requests] == [f"/{NAME}"]


@pytest.mark.parametrize("name", ["", "..", "../x.gz", "a/b.gz", "/etc/x.gz", "a\\b.gz", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(
    tmp_path: Path, server: FileServer, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot have this name"):
        fetch([RawFile(name)], tmp_path / "raw", [server.url], offline_command=OFFLINE)
    assert server.requests == []


def test_a_folder_under_the_files_name_is_refused(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(InputError) as caught:
        fetch([RawFile(NAME)], tmp_path, [server.url], offline_command=OFFLINE)
    assert caught.value.got == "a folder"


def test_a_name_with_unusual_characters_is_quoted(tmp_path: Path, server: FileServer) -> None:
    name = "reviews_Home & Kitchen?_5.json.gz"
    server.files["reviews_Home%20%26%20Kitchen%3F_5.json.gz"] = BODY
    assert get(tmp_path, server, file=RawFile(name)) == BODY


def test_the_name_never_comes_from_the_server(tmp_path: Path, server: FileServer) -> None:
    server.files["elsewhere.html"] = BODY
    server.answers.append(Answer(302, headers={"Location": "/elsewhere.html"}))
    server.always = Answer(headers={"Content-Disposition": 'attachment; filename="evil.sh"'})
    assert get(tmp_path / "new" / "folder", server) == BODY
    assert [request.path for request in server.requests] == [f"/{NAME}", "/elsewhere.html"]


def test_the_built_in_mirrors_and_sums() -> None:
    assert AMAZON_MIRRORS[0].startswith("http://snap.stanford.edu/")
    assert AMAZON_MIRRORS[1].startswith("https://mcauleylab.ucsd.edu/")
    assert all(len(file.md5) == 32 for file in AMAZON_FILES.values())


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


def test_a_part_of_unknown_origin_is_not_built_on(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:HALF])
    (tmp_path / f"{NAME}.part.json").write_text('{"url": ')
    assert get(tmp_path, server) == BODY
    assert ranges(server) == [None]


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
    assert f"{second.url}{NAME}: 404 Not Found" in str(fault)


def test_503_once_is_tried_again(tmp_path: Path, server: FileServer) -> None:
    server.answers.append(Answer(503, headers={"Retry-After": "3600"}))
    assert get(tmp_path, server) == BODY
    assert len(server.requests) == 2


def test_503_always_goes_to_the_next_mirror(
    tmp_path: Path, server: FileServer, second: FileServer
) -> None:
    server.always = Answer(503)
    assert get(tmp_path, server, second, retries=2) == BODY
    assert len(server.requests) == 3


def test_503_everywhere_says_to_come_back(tmp_path: Path, server: FileServer) -> None:
    server.always = Answer(503)
    fault = fails(tmp_path, server)
    assert fault.what == f"{NAME} could not be downloaded from any mirror."
    assert "503 Service Unavailable" in str(fault)
    assert "later" in str(fault)


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
    assert list((tmp_path / "two").iterdir()) == []


def test_a_login_page_does_not_cost_what_is_there(tmp_path: Path, server: FileServer) -> None:
    page = Answer(body=b"<html>Please log in</html>", ranges=False)
    server.answers.extend([Answer(drop_at=HALF), page])
    fails(tmp_path, server)
    assert (tmp_path / f"{NAME}.part").read_bytes() == BODY[:HALF]
    assert get(tmp_path, server) == BODY
    assert server.requests[-1].sent == len(BODY) - HALF


# No network, no disk, no patience


def closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}/"


def test_no_network_is_told_in_seconds_with_all_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):  # the name itself is to be looked up
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    nothing, unknown = closed_port(), "http://mirror.invalid/data/"
    files = [RawFile(NAME), RawFile("meta_Some.json.gz")]
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as caught:
        fetch(files, tmp_path / "raw", [nothing, unknown], offline_command=OFFLINE, retries=9)
    assert time.monotonic() - began < 4
    assert caught.value.exit_code == 5
    text = str(caught.value)
    assert "no network" in caught.value.what
    assert f"{nothing}{NAME}: no connection (" in text
    assert "refused" in text
    assert f"{unknown}{NAME}: the name cannot be resolved" in text
    assert NAME in text
    assert "meta_Some.json.gz" in text
    assert f"put them in {tmp_path / 'raw'}" in text
    assert f"`{OFFLINE}`" in text
    assert list((tmp_path / "raw").iterdir()) == []


def test_https_that_cannot_be_secured_is_refused(tmp_path: Path, server: FileServer) -> None:
    fault = fails(tmp_path, server.url.replace("http:", "https:"))
    assert "no secure connection" in str(fault)


def test_a_full_disk_is_told(tmp_path: Path, server: FileServer) -> None:
    server.answers.append(Answer(drop_at=HALF))
    server.answers.append(Answer(404))
    fails(tmp_path, server)
    part = tmp_path / f"{NAME}.part"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF + 50_000, hard))
    try:
        fault = fails(tmp_path, server)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert fault.what == "The disk is full."
    assert "goes on where it stopped" in str(fault)
    kept = part.stat().st_size
    assert HALF <= kept <= HALF + 50_000
    assert get(tmp_path, server) == BODY
    assert server.requests[-1].headers["Range"] == f"bytes={kept}-"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_left_on_the_device_is_told(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / f"{NAME}.part").symlink_to("/dev/full")
    fault = fails(tmp_path, server)
    assert (fault.what, fault.got) == ("The disk is full.", "No space left on device")


def test_a_folder_that_is_a_file_is_told(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "raw").write_text("")
    with pytest.raises(EnvironmentFault) as caught:
        fetch([RawFile(NAME)], tmp_path / "raw", [server.url], offline_command=OFFLINE)
    assert caught.value.what == "The folder for raw files cannot be used."
    assert server.requests == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_second_process_keeps_out_and_an_interrupt_leaves_the_part(
    tmp_path: Path, server: FileServer, sign: signal.Signals
) -> None:
    at = 2 * download.CHUNK_BYTES
    server.answers.append(Answer(stall_at=at))
    program = (
        "import sys; from pathlib import Path; from pipeline.fetch import fetch\n"
        "from pipeline.raw_files import RawFile\n"
        "fetch([RawFile(sys.argv[1])], Path(sys.argv[2]), [sys.argv[3]], offline_command='-')"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program, NAME, str(tmp_path), server.url],
        stderr=subprocess.PIPE,
        text=True,
    )
    part = tmp_path / f"{NAME}.part"
    try:
        assert server.stalled.wait(20)
        until = time.monotonic() + 5
        while (not part.exists() or part.stat().st_size < at) and time.monotonic() < until:
            time.sleep(0.01)
        assert "Another process is downloading this file." in str(fails(tmp_path, server))
        assert len(server.requests) == 1
        first.send_signal(sign)
        _, told = first.communicate(timeout=10)
    finally:
        first.kill()
        first.wait()
    assert first.returncode != 0
    assert ("KeyboardInterrupt" in told) == (sign == signal.SIGINT)
    assert part.read_bytes() == BODY[:at]
    assert get(tmp_path, server) == BODY
    assert server.requests[-1].sent == len(BODY) - at


# What the user sees


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers.append(Answer(drop_at=HALF))
    get(tmp_path, server)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{NAME}: downloading, 0.4 MB"
    assert "the connection was dropped" in lines[1]
    assert lines[2] == f"{NAME}: downloading, 0.4 MB, 0.2 MB of it here already"
    assert lines[3].startswith(f"{NAME}: 0.4 MB of 0.4 MB (100%), ")
    assert len(lines) == 4


def test_lines_come_now_and_then() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, every_s=0.0)
    progress.start("x.gz", 0, 4_000_000)
    progress.advance(1_000_000)
    assert "x.gz: 1.0 MB of 4.0 MB (25%), " in stream.getvalue()
    assert " s left" in stream.getvalue()


def test_a_bar_where_there_is_one(tmp_path: Path, server: FileServer) -> None:
    server.answers.append(Answer(drop_at=HALF))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    fetch(
        [RawFile(NAME)],
        tmp_path,
        [server.url],
        offline_command=OFFLINE,
        progress=BarProgress(console),
    )
    shown = stream.getvalue()
    assert "the connection was dropped" in shown
    assert "400.1/400.1 kB" in shown
