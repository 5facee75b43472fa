"""What a resumed run relies on is checked, and so is that raw files stay as they are meanwhile."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.flow import prepare
from pipeline.presets.alibaba import AlibabaConfig
from pipeline.presets.amazon import AmazonConfig
from pipeline.record import RECORD, Record
from schemas.alone import LOCK
from schemas.errors import InputError, UsageError
from schemas.manifest import NAME
from tests.conftest import write_raw
from tests.crash_harness import content, fault
from tests.golden_sets import raw_alibaba
from tests.test_bad_input import GOOD, META

Made = dict[str, object]
HOW = {"buckets": 2, "threads": 1, "max_rejected": 0.2}


class Stop(Exception):
    """An interruption."""


def stopped(config: Config, at: tuple[str, int]) -> None:
    """Prepare until the word of progress `at`."""

    def told(step: str, done: int, total: int | None) -> None:
        if (step, done) == at:
            raise Stop

    with pytest.raises(Stop):
        prepare(config, told)


def amazon(raw: Path, out: Path) -> AmazonConfig:
    return AmazonConfig(out=out, raw=raw, category="Beauty", **HOW)


def alibaba(raw: Path, out: Path) -> AlibabaConfig:
    return AlibabaConfig(out=out, raw=raw, **HOW)


MAKERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path, Path], Config]]] = {
    "amazon": (lambda folder: write_raw(folder, GOOD, META), amazon),
    "alibaba": (raw_alibaba, alibaba),
}


@pytest.fixture(scope="module", params=MAKERS)
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Callable[[Path], Config], Path, Made]:
    """A configuration by its folder, a folder where it was interrupted, the whole content."""
    at = tmp_path_factory.mktemp(request.param)
    make_raw, config = MAKERS[request.param]
    raw = make_raw(at / "raw")
    prepare(config(raw, at / "whole"))
    stopped(config(raw, at / "stopped"), ("transform", 1))
    return lambda out: config(raw, out), at / "stopped", content(at / "whole")


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


def damages(data: bytes, draw: random.Random) -> list[bytes | None]:
    """What may become of a file; None where it is gone."""
    places = [0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(3))]
    cut = data[: draw.randrange(1, len(data))]
    return [*(flipped(data, place) for place in places), cut, data + b"\0", b"", None]


def as_dict(record: Record) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key != "_lock"}


def test_every_byte_of_the_work_is_checked(story: tuple[object, Path, Made]) -> None:
    _, left, _ = story
    record = Record.read(left)
    assert record is not None and record.broken() is None
    for name, whole in record.files.items():
        path, one = left / name, Record(left, {name: whole})
        data = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            for place in range(0, len(data), 1 + len(data) // 4_096):
                os.pwrite(file.fileno(), flipped(data[place : place + 1], 0), place)
                assert one.broken() == name, place
                os.pwrite(file.fileno(), data[place : place + 1], place)
    data = (left / RECORD).read_bytes()
    for place in range(len(data)):
        found = Record.parse(left, flipped(data, place))
        # Without its end the last line is as if it had never been written; `a` is the same as `A`
        # in a checksum.
        same = found is not None and as_dict(found) == as_dict(record)
        assert found is None or not found.sound or same or place == len(data) - 1, place
    assert {*record.files} >= {
        path.relative_to(left).as_posix() for path in left.rglob("*.*") if path.is_file()
    } - {LOCK}


def test_damaged_work_is_made_again_or_is_an_error(
    story: tuple[Callable[[Path], Config], Path, Made], tmp_path: Path
) -> None:
    config, left, want = story
    draw = random.Random(7)
    files = [path for path in sorted(left.rglob("*")) if path.is_file() and path.stat().st_size]
    files.remove(left / LOCK)  # what it holds is nothing's state
    for path in [left / RECORD, *draw.sample(files, 8)]:
        name, record = path.relative_to(left), path.name == "record"
        for damaged in draw.sample(damages(path.read_bytes(), draw), 4 if record else 1):
            out = tmp_path / "out"
            shutil.copytree(left, out)
            (out / name).unlink() if damaged is None else (out / name).write_bytes(damaged)
            said: list[str] = []
            try:
                prepare(config(out), lambda step, *_, said=said: said.append(step))
            except UsageError:
                assert record  # which files were ours is not known without it
            else:
                assert not fault(content(out), want), (name, damaged)
                assert record or any("damaged" in word for word in said), (name, damaged)
            shutil.rmtree(out)


def put(path: Path, data: bytes) -> None:
    """Put another file in the place of one."""
    path.with_name("new").write_bytes(data)
    path.with_name("new").replace(path)


CHANGES: tuple[Callable[[Path, bytes], object], ...] = (
    put,
    lambda path, data: os.truncate(path, len(data) // 2),
    lambda path, data: path.write_bytes(data + data),
    lambda path, data: path.write_bytes(data[::-1]),
)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_raw_file_that_changes_while_it_is_read(maker: str, tmp_path: Path) -> None:
    make_raw, config = MAKERS[maker]
    raw, out = make_raw(tmp_path / "raw"), tmp_path / "out"
    begun: list[str] = []
    prepare(config(raw, tmp_path / "whole"), lambda step, *_: begun.append(step))
    want = content(tmp_path / "whole")
    steps = [*dict.fromkeys(begun)][1:]
    draw = random.Random(7)
    for path in sorted(raw.iterdir()):
        for anew, change in enumerate(draw.sample(CHANGES, 2)):
            if anew:
                shutil.rmtree(out)
            else:
                stopped(config(raw, out), ("transform", 1))
            step = draw.choice(steps)
            changed_in_the_middle(path, change, step, lambda told: prepare(config(raw, out), told))
            assert not (out / NAME).exists()
        prepare(config(raw, out))
        assert not fault(content(out), want)
        shutil.rmtree(out)


def changed_in_the_middle(
    path: Path,
    change: Callable[[Path, bytes], object],
    step: str,
    run: Callable[[Callable[..., None]], object],
) -> None:
    """Change a raw file, but for its time, when a step begins; it is refused and restored."""
    data, before = path.read_bytes(), path.stat()
    begun: list[str] = []

    def told(now: str, *_: object) -> None:
        if now == step and not begun:
            begun.append(now)
            change(path, data)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(InputError) as caught:
        run(told)
    assert begun
    assert caught.value.where == path
    path.write_bytes(data)
