"""A preparation that fails while it reads a file leaves neither its threads nor the file open."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.flow import prepare
from pipeline.presets.alibaba import AlibabaConfig
from pipeline.presets.amazon import AmazonConfig
from pipeline.readers import alibaba_parse, amazon_parse, lines
from pipeline.steps import spill
from tests.alibaba_made import RawLog
from tests.conftest import meta_file, reviews_file, write_raw
from tests.oracle import Review

NIGHT = 1_494_000_000  # 2017-05-06 00:00 in Beijing
BLOCK_BYTES = 300  # so that much of each file is unread when the first block is done


class StoppedError(Exception):
    """What ends the preparation."""


@pytest.fixture(autouse=True)
def kept_streams(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every stream of the flows, kept: so none of them ends just because nobody holds it."""
    kept = []

    def keeping(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **named: Any) -> Any:
            kept.append(make(*args, **named))
            return kept[-1]

        return made

    for module, name in ((spill, "map_stream"), (amazon_parse, "map_stream")):
        monkeypatch.setattr(module, name, keeping(getattr(module, name)))
    for parse in (amazon_parse, alibaba_parse):
        monkeypatch.setattr(parse, "blocks", lambda path, _: lines.blocks(path, BLOCK_BYTES))
    return kept


def fails_in(config: AmazonConfig | AlibabaConfig, step: str, path: Path) -> None:
    """Fail when `step` tells of its first rows; then no thread of it, nor `path`, may be open."""
    before = set(threading.enumerate())

    def told(name: str, done: int, _: int | None) -> None:
        if name == step and done:
            raise StoppedError

    with pytest.raises(StoppedError):
        prepare(config, told)
    give_up = time.monotonic() + 120
    while set(threading.enumerate()) - before or is_open(path):
        assert time.monotonic() < give_up, (set(threading.enumerate()) - before, is_open(path))
        time.sleep(0.01)


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    wanted = path.stat()
    for descriptor in Path("/dev/fd").iterdir():
        try:
            found = os.fstat(int(descriptor.name))
        except OSError:  # the one that listed them
            continue
        if os.path.samestat(found, wanted):
            return True
    return False


@pytest.mark.parametrize("step", ["deal reviews", "read meta"])
def test_amazon(tmp_path: Path, step: str) -> None:
    reviews = [Review(f"A{u}", f"B{(u + n) % 50}", 86_400 * n) for u in range(99) for n in range(5)]
    raw = write_raw(tmp_path / "raw", reviews, [(f"B{n}", "Red") for n in range(500)])
    config = AmazonConfig(category="Beauty", raw=raw, out=tmp_path / "out")
    fails_in(config, step, (reviews_file if step == "deal reviews" else meta_file)(raw))


@pytest.mark.parametrize(
    ("step", "name"),
    [("deal impressions", "raw_sample.csv"), ("deal behaviours", "behavior_log.csv")],
)
def test_alibaba(tmp_path: Path, step: str, name: str) -> None:
    raw = RawLog(
        impressions=[(u, NIGHT + 86_400 * d, u % 9, "p", d % 2) for u in range(99) for d in (0, 7)],
        ads=[(ad, ad % 3, ad, ad, ad, "9.5") for ad in range(9)],
        behaviours=[(u, NIGHT - n, "pv", n % 3, n % 5) for u in range(99) for n in range(1, 9)],
    ).write(tmp_path / "raw")
    fails_in(AlibabaConfig(raw=raw, out=tmp_path / "out"), step, raw / name)
