"""An interrupted `tinprep alibaba` goes on where it was, and makes what it would have made."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline import flow
from pipeline.presets.alibaba import AlibabaConfig
from schemas.manifest import NAME, load
from tests.alibaba_made import RawLog, agree, alibaba, check_rows, read_made
from tests.alibaba_oracle import Expected, oracle
from tests.conftest import finished
from tests.crash_harness import finished_shards

NIGHT = 1_494_000_000  # 2017-05-06 00:00 in Beijing
DAY = 86_400
BUCKETS = 3


def made_up(seed: int) -> RawLog:
    """A random log of eight days and sixty users, in no order."""
    draw = random.Random(seed)
    users = range(60)
    impressions = [
        (draw.choice(users), NIGHT + draw.randrange(8 * DAY), draw.randrange(20), "p", n % 2)
        for n in range(2_000)
    ]
    ads = [(a, a % 5, a // 2, a // 3, a % 7 or None, str(a / 4)) for a in range(20)]
    profiles = [(u, *(draw.randrange(4) for _ in range(8))) for u in users if u % 9]
    behaviours = [
        (u, NIGHT - 2 * DAY + start + 60 * n, draw.choice(["pv", "cart"]), n % 5, n % 7)
        for u in users
        for start in draw.sample(range(9 * DAY), 12)
        for n in range(draw.randrange(1, 9))
    ]
    draw.shuffle(behaviours)
    return RawLog(impressions, ads, profiles, behaviours)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(1).write(tmp_path_factory.mktemp("resume") / "raw")


@pytest.fixture(scope="module")
def want(raw: Path) -> Expected:
    return oracle(raw)


def interrupted(raw: Path, out: Path, after: int, buckets: int = BUCKETS) -> list[str]:
    """Run until Ctrl-C comes at the word of progress `after`, or to the end; returns the words.

    Progress may be told by a worker, and Ctrl-C always comes to the main thread.
    """
    said: list[str] = []

    def told(step: str, done: int, total: int | None) -> None:
        said.append(step)
        if len(said) == after:
            main = threading.main_thread()
            assert main.ident is not None
            signal.pthread_kill(main.ident, signal.SIGINT)
            if threading.current_thread() is not main:
                time.sleep(0.5)  # buckets are small: one more must not begin meanwhile

    try:
        flow.prepare(AlibabaConfig(out=out, raw=raw, buckets=buckets, threads=1), told)
    except KeyboardInterrupt:
        assert not (out / NAME).exists()
    return said


def test_it_goes_on_from_whatever_step_it_was_in(raw: Path, want: Expected, tmp_path: Path) -> None:
    said = interrupted(raw, tmp_path / "whole", -1)
    agree(tmp_path / "whole", want)
    begun = {step: said.index(step) + 1 for step in dict.fromkeys(said)}
    assert len(begun) > 5
    for after in [*begun.values()][::2] + [
        begun[name] + 2 for name in ("order and fit intervals", "transform")
    ]:
        out = tmp_path / f"out-{after}"
        interrupted(raw, out, after)
        assert not (out / NAME).exists()
        finished(alibaba(raw, out, "--buckets", BUCKETS))
        check_rows(read_made(out), want)
        assert not [*out.rglob(".tinprep-*"), *out.rglob(".work")]


def test_what_is_finished_is_not_made_again(raw: Path, want: Expected, tmp_path: Path) -> None:
    buckets = 40
    said = interrupted(raw, tmp_path / "whole", -1, buckets)
    out = tmp_path / "out"
    # Told as the step begins and after each bucket: two are finished, and those under way end.
    interrupted(raw, out, said.index("transform") + 3, buckets)
    made = finished_shards(out)
    assert 2 <= len({path.name for path in made}) < buckets
    finished(alibaba(raw, out, "--buckets", buckets))
    for path, before in made.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    agree(out, want)


def test_other_settings_start_anew(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = interrupted(raw, tmp_path / "whole", -1)
    interrupted(raw, out, said.index("transform") + 3)
    finished(alibaba(raw, out, "--max-len", 4, "--sessions", "2x3", "--buckets", BUCKETS))
    agree(out, oracle(raw, max_len=4, session_shape=(2, 3)))
    assert load(out).history.max_len == 4
