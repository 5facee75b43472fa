"""`--memory`: what is planned with stays within it, and less than can be kept is refused.

Whether the plan is kept is measured by `benchmarks/memory.py`, on data that takes minutes.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import memory
from pipeline.description.toml import Source
from pipeline.presets.described import Asked, of_source
from pipeline.steps import deal
from schemas.manifest import load
from tests.alibaba_made import alibaba
from tests.conftest import Ended, amazon, finished, tinprep
from tests.golden_sets import raw_alibaba, raw_amazon

GIB = 1 << 30


@given(
    fixed=st.integers(0, 8 * GIB),
    above=st.integers(0, 64 * GIB),
    threads=st.integers(1, 256),
)
def test_what_is_planned_is_within_the_limit(fixed: int, above: int, threads: int) -> None:
    limit = memory.least(fixed) + above
    memory.check(limit, fixed)
    at_once = memory.workers(limit, fixed, threads)
    bucket = memory.bucket_bytes(limit, fixed, at_once)
    assert 1 <= at_once <= threads
    assert memory.RESIDENT + fixed + at_once * (memory.A_WORKER + bucket) <= 1.2 * limit
    assert bucket <= GIB // 2  # however much there is


HISTORY = '[histories.{}]\ntable = "log"\nmax_len = 50\n{}\n'


def test_each_history_is_planned_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log of 100 million events: more buckets, and so smaller ones."""
    (tmp_path / "log.csv").write_text("u,i,t\n" + "".join(f"{n},{n},{n}\n" for n in range(9)))
    table = '[tables.log]\nfiles = "log.csv"\nuser = "u"\nfields = { item = "i" }\n'
    table += 'time = { column = "t", unit = "s" }\n'
    target = '[target]\ntable = "log"\nsplit = { by = "order" }\nnegatives = {}\n'
    monkeypatch.setattr(deal, "estimate_table", lambda paths: 100_000_000)

    def buckets(histories: list[str]) -> int:
        told = "".join(HISTORY.format(f"h{n}", where) for n, where in enumerate(histories))
        source = Source("made", table + target + told)
        config = of_source(source, tmp_path, Asked(), "made", out=tmp_path / "out", memory=4 * GIB)
        run = SimpleNamespace(config=config, engine=SimpleNamespace(least_buckets=2))
        return deal.choose_buckets(run, config.description(config.obtain()))  # type: ignore[arg-type]

    one, whole, some = buckets([""]), buckets([""] * 4), buckets(["where = 'u > 1'"] * 4)
    bytes_each = [1.0, whole / one, some / one]
    assert bytes_each == pytest.approx([1, 370 / 250, 610 / 250], rel=0.03)


def test_the_disk_is_asked_for_the_rows_of_targets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3,000 events 60 are targets: their rows take no 10 MB, which rows of all would."""
    lines = [f"{n % 20},{n % 999},{n},{int(n % 50 == 0)}\n" for n in range(3_000)]
    (tmp_path / "log.csv").write_text("u,i,t,buy\n" + "".join(lines))
    (tmp_path / "mine.toml").write_text(
        '[tables.log]\nfiles = "log.csv"\nuser = "u"\nfields = { item = "i" }\n'
        'time = { column = "t", unit = "s" }\n[target]\ntable = "log"\nwhere = "buy = 1"\n'
        'split = { by = "time", test = 2000 }\nnegatives = {}\n'
        + HISTORY.format("some", "where = 'buy = 0'").replace("50", "5000")
    )
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    finished(tinprep("prepare", tmp_path / "mine.toml", "--out", tmp_path / "out"))


def raw_and_command(name: str, folder: Path):  # type: ignore[no-untyped-def]
    """Raw files, and the command that takes them."""
    raw = (raw_amazon if name == "amazon" else raw_alibaba)(folder / "raw")

    def run(*flags: object) -> Ended:
        command = amazon if name == "amazon" else alibaba
        return command(raw, folder / "out", "--max-rejected", "20%", *flags)

    return run


@pytest.mark.parametrize("name", ["amazon", "alibaba"])
def test_the_least_that_works_is_named_and_works(name: str, tmp_path: Path) -> None:
    run = raw_and_command(name, tmp_path)
    refused = run("--memory", "256MB")
    assert refused.code == 2
    found = re.search(r"give --memory (\d+)MB or more", refused.said)
    assert found, refused.said
    assert not (tmp_path / "out").exists()
    named = int(found[1])
    assert run("--memory", f"{named - 1}MB").code == 2
    finished(run("--memory", f"{named}MB", "--threads", 8))
    assert load(tmp_path / "out").config["threads"] == 1
