"""Downloads: what is used, what is told where none can be, what is shown meanwhile."""

from __future__ import annotations

import io
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from pipeline.presets.amazon import MIRRORS
from pipeline.readers import download
from pipeline.readers.download_progress import Progress
from pipeline.readers.fetch import fetch
from pipeline.readers.raw_files import RawFile, missing
from schemas.errors import EnvironmentFault, InputError, UsageError
from schemas.expected import AMAZON_FILES
from tests.fetch.downloads import BODY, HALF, NAME, OFFLINE, OTHER, fails, get, published
from tests.http_server import Answer, FileServer

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
    assert MIRRORS[0].startswith("http://snap.stanford.edu/")
    assert MIRRORS[1].startswith("https://mcauleylab.ucsd.edu/")
    assert all(len(file.md5) == 32 for file in AMAZON_FILES.values())


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
    assert f"{unknown}{NAME}: no connection (" in text
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
    part = tmp_path / f"{NAME}.tinprep-part"
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


def test_a_file_for_which_there_is_no_room_is_not_begun(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = SimpleNamespace(free=len(BODY) - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: room)
    fault = fails(tmp_path, server)
    assert fault.what == "The disk is full."
    assert f"{len(BODY):,} bytes are to come, {room.free:,} are free" in str(fault)
    assert list(tmp_path.iterdir()) == []


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
        "import sys; from pathlib import Path; from pipeline.readers.fetch import fetch\n"
        "from pipeline.readers.raw_files import RawFile\n"
        "fetch([RawFile(sys.argv[1])], Path(sys.argv[2]), [sys.argv[3]], offline_command='-')"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program, NAME, str(tmp_path), server.url],
        stderr=subprocess.PIPE,
        text=True,
    )
    part = tmp_path / f"{NAME}.tinprep-part"
    try:
        assert server.stalled.wait(120)
        until = time.monotonic() + 120
        while (not part.exists() or part.stat().st_size < at) and time.monotonic() < until:
            time.sleep(0.01)
        assert "Another process is downloading this file." in str(fails(tmp_path, server))
        assert len(server.requests) == 1
        first.send_signal(sign)
        _, told = first.communicate(timeout=120)
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
    assert lines[0] == f"{NAME}: downloading, 400.1 kB"
    assert "the connection was dropped" in lines[1]
    assert lines[2] == f"{NAME}: downloading, 400.1 kB, 200.0 kB of it here already"
    assert lines[3].startswith(f"{NAME}: 400.1 kB of 400.1 kB (100%), ")
    assert len(lines) == 4


def test_lines_come_now_and_then() -> None:
    stream = io.StringIO()
    progress = Progress(Console(file=stream), every_s=0.0)
    progress.start("x.gz", 0, 4_000_000)
    progress.advance(1_000_000)
    assert "x.gz: 1.0 MB of 4.0 MB (25%), " in stream.getvalue()
    assert " s left" in stream.getvalue()


def test_a_bar_where_there_is_one(tmp_path: Path, server: FileServer) -> None:
    server.answers.append(Answer(drop_at=HALF))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    files = [RawFile(NAME)]
    fetch(files, tmp_path, [server.url], offline_command=OFFLINE, progress=Progress(console))
    assert "the connection was dropped" in stream.getvalue()
    assert "400.1/400.1 kB" in stream.getvalue()
