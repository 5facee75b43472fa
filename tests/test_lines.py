from __future__ import annotations

import _thread
import gzip
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers.line_count import estimate_lines
from pipeline.readers.lines import Block, blocks, line_offsets
from schemas.errors import InputError
from tests.conftest import zstd

LINES = [b'{"row": %d}' % i for i in range(20_000)]
TEXT = b"\n".join(LINES) + b"\n"
ZIPPED = gzip.compress(TEXT, mtime=0)
ZSTD = zstd(TEXT)
PACKED = {
    "text": bytes,
    "gzip": gzip.compress,
    "zstd": zstd,
}


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"\r")), max_size=30),
    last_newline=st.booleans(),
    members=st.integers(1, 3),
    packing=st.sampled_from(list(PACKED)),
    name=st.sampled_from(["x.txt", "x.gz", "x.zst", "x"]),
    block_bytes=st.integers(1, 80),
    limit=st.integers(1, 15),
)
def test_every_line_is_in_one_block(
    folder: Path,
    lines: list[bytes],
    last_newline: bool,
    members: int,
    packing: str,
    name: str,
    block_bytes: int,
    limit: int,
) -> None:
    lines[:1] = [b"-" + line for line in lines[:1]]  # no other file begins so
    data = b"\n".join(lines) + (b"\n" if lines and last_newline else b"")
    cut = len(data) // members + 1
    parts = [data[i : i + cut] for i in range(0, len(data), cut)] or [b""]
    path, raw = folder / name, b"".join(map(PACKED[packing], parts))
    path.write_bytes(raw)
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()

    found: list[bytes | None] = []
    for block in blocks(path, block_bytes, limit):
        assert block.first_line == len(found)
        if block.too_long is not None:
            assert (block.data, block.lines) == (b"", 1)
            assert block.too_long.startswith(expected[len(found)][: limit + 1])
            found.append(None)
            continue
        assert block.data.endswith(b"\n")
        assert block.lines == block.data.count(b"\n")
        assert block.offsets.tolist() == line_offsets(block.data).tolist()
        found += block.data.split(b"\n")[:-1]
    assert found == [None if len(line) > limit else line for line in expected]
    assert estimate_lines(path) == len(expected)


def test_blocks_are_about_as_large_as_asked(folder: Path) -> None:
    path = folder / "sizes.gz"
    path.write_bytes(ZIPPED)
    sizes = [len(block.data) for block in blocks(path, 10_000)]
    assert sum(sizes) == len(TEXT)
    assert max(sizes) < 20_100
    assert min(sizes[:-1]) > 9_900


def test_an_empty_plain_file_has_no_line(folder: Path) -> None:
    path = folder / "empty.json"
    path.write_bytes(b"")
    assert list(blocks(path)) == []
    assert estimate_lines(path) == 0


def test_offsets() -> None:
    assert line_offsets(b"ab\n\nc\n").tolist() == [0, 3, 4, 6]
    assert line_offsets(b"").tolist() == [0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ZIPPED[:-20], "cut short or damaged"),
        (ZIPPED[:-3], "cut short or damaged"),
        (ZIPPED[: len(ZIPPED) // 2], "cut short or damaged"),
        (ZIPPED[:5], "cut short or damaged"),
        (ZIPPED[:-8] + b"abcd" + ZIPPED[-4:], "cut short or damaged"),
        (ZIPPED[:-4] + b"abcd", "cut short or damaged"),
        (ZIPPED[:5_000] + b"\xff" * 50 + ZIPPED[5_050:], "cut short or damaged"),
        (ZIPPED + b"garbage", "cut short or damaged"),
        (ZIPPED + ZIPPED[:9], "cut short or damaged"),
        (ZSTD[:-5], "cut short or damaged"),
        (ZSTD[: len(ZSTD) // 2], "cut short or damaged"),
        (ZSTD + b"garbage", "cut short or damaged"),
        (b"<html>not found</html>", "not text"),
        (gzip.compress(b"\n<!DOCTYPE html>", mtime=0), "not text"),
        (b"PK\x03\x04" + TEXT, "not text"),
        ("text".encode("utf-16"), "not text"),
        (gzip.compress(ZIPPED, mtime=0), "not text"),
        (zstd(ZIPPED), "not text"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1_000, 8 << 20])
def test_damage_is_one_error(folder: Path, content: bytes, said: str, block_bytes: int) -> None:
    path = folder / "damaged.json.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        list(blocks(path, block_bytes))
    assert caught.value.where == path
    with pytest.raises(InputError, match=said):
        estimate_lines(path)


def test_the_error_says_how_far_reading_came(folder: Path) -> None:
    path = folder / "second_member.gz"
    many = gzip.compress(TEXT * 40)
    path.write_bytes(many + ZIPPED[:-100])
    with pytest.raises(InputError) as caught:
        list(blocks(path))
    # What was being decompressed when it ended is lost: at most one block.
    assert caught.value.line is not None
    assert 20_000 * 40 - (9 << 20) // 12 < caught.value.line <= 20_000 * 41


def test_zeros_may_pad_a_gzip_file(folder: Path) -> None:
    path = folder / "padded.gz"
    path.write_bytes(ZIPPED + b"\0" * 100)
    assert b"".join(block.data for block in blocks(path)) == TEXT
    assert estimate_lines(path) == len(LINES)


def test_no_file_and_a_folder(folder: Path) -> None:
    for path, said in ((folder / "absent.gz", "missing"), (folder, "is a folder")):
        for read in (lambda p: list(blocks(p)), estimate_lines):
            with pytest.raises(InputError, match=said):
                read(path)


def test_a_file_that_cannot_be_read() -> None:
    path = Path("/proc/self/mem")  # reading its first bytes fails even for root
    if not path.exists():
        pytest.skip("this system has no /proc/self/mem")
    for read in (lambda p: list(blocks(p)), estimate_lines):
        with pytest.raises(InputError, match="cannot be read"):
            read(path)


def test_a_very_long_line_takes_no_memory(folder: Path) -> None:
    path = folder / "long.json"
    with path.open("wb") as file:
        file.write(b"first\n")
        for _ in range(64):
            file.write(b"a" * (1 << 20))
        file.write(b"\nlast")
    tracemalloc.start()
    found = list(blocks(path, 1 << 20, 2 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(block.first_line, block.data) for block in found] == [
        (0, b"first\n"),
        (1, b""),
        (2, b"last\n"),
    ]
    assert found[1] == Block(1, b"", 1, b"a" * 800)
    assert peak < 16 << 20


@pytest.mark.parametrize("packing", PACKED)
def test_the_estimate_is_near_for_a_large_file(folder: Path, packing: str) -> None:
    rng = np.random.default_rng(5)
    path = folder / "large"
    lines = [rng.bytes(int(n)).hex().encode() for n in rng.integers(20, 200, 80_000)]
    path.write_bytes(PACKED[packing](b"\n".join(lines)))
    assert path.stat().st_size > 8 << 20
    assert estimate_lines(path) == pytest.approx(len(lines), rel=0.02)


def test_leaving_early_stops_the_decompressor(folder: Path) -> None:
    path = folder / "early.gz"
    path.write_bytes(gzip.compress(TEXT * 40, compresslevel=1))
    before = threading.active_count()
    stream = blocks(path, 1_000)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    give_up = time.monotonic() + 120
    while threading.active_count() > before:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_another_thread_may_read_on(folder: Path) -> None:
    path = folder / "thread.gz"
    path.write_bytes(gzip.compress(TEXT * 200, compresslevel=1))
    stream = blocks(path, 100_000)
    begun = []
    opener = threading.Thread(target=lambda: begun.append(next(stream)))
    opener.start()
    opener.join()
    assert sum(block.lines for block in [*begun, *stream]) == 200 * len(LINES)


def test_an_abandoned_stream_waits_for_no_thread(tmp_path: Path) -> None:
    # The garbage collector may end it while some thread holds what a thread's end needs.
    path = tmp_path / "lines.txt"
    path.write_bytes(b"a line\n" * 100_000)
    stream = blocks(path, 1_000)
    next(stream)
    lock = getattr(threading, "_shutdown_locks_lock", None)
    if lock is None:
        pytest.skip("this Python's threads end without that lock")
    with lock:
        ended = threading.Event()

        def end() -> None:
            stream.close()
            ended.set()

        _thread.start_new_thread(end, ())
        assert ended.wait(120)


def test_a_block_of_tiny_lines_is_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.readers.lines._MOST_LINES", 4)
    path = folder / "tiny.csv"
    path.write_bytes(b"".join(b"%d\n" % k for k in range(10)))
    found = [(block.first_line, block.data, block.lines) for block in blocks(path)]
    assert found == [(0, b"0\n1\n2\n3\n", 4), (4, b"4\n5\n6\n7\n", 4), (8, b"8\n9\n", 2)]
