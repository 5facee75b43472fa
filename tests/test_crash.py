"""`tinprep amazon` killed at random moments: the same command finishes, and no half is listed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from schemas.manifest import NAME, SPLITS, load
from tests.conftest import amazon, finished

KILLS = 8
ROOT = Path(__file__).parent.parent
FLAGS = ["--bins", "10", "--buckets", "7"]


def rows(out: Path) -> pl.DataFrame:
    """All rows in a fixed order, from the shards that the manifest lists."""
    manifest = load(out)
    frames = [
        pl.read_parquet(path).with_columns(split=pl.lit(split))
        for split in SPLITS
        for path in manifest.shard_paths(out, split)
    ]
    return pl.concat(frames).sort("row", "label", "target_item")


def whole(out: Path) -> None:
    """Assert that every shard of the manifest, if there is one, is there with all its rows."""
    if (out / NAME).exists():
        for shard in load(out).shards:
            assert pl.scan_parquet(out / shard.path).select(pl.len()).collect().item() == shard.rows


def begin(raw: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline.cli", "amazon", "--category", "Beauty"]
    command += ["--raw", str(raw), "--out", str(out), *FLAGS]
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=silent, stderr=silent)


def test_killed_at_random_moments_and_run_again(
    beauty: Path, beauty_out: Path, tmp_path: Path
) -> None:
    want = rows(beauty_out)
    moments = random.Random(4)
    out = tmp_path / "out-0"
    cut = 0
    for kill in range(KILLS):
        process = begin(beauty, out)
        try:
            # Counted from its first file on, so that none is spent on the interpreter's start.
            give_up = time.monotonic() + 30
            while not (out / ".work").exists() and process.poll() is None:
                assert time.monotonic() < give_up
                time.sleep(0.005)
            process.wait(moments.uniform(0.0, 1.5))
        except subprocess.TimeoutExpired:
            cut += 1
        finally:
            process.kill()
            process.wait()
        whole(out)
        if (out / NAME).exists():
            assert rows(out).equals(want)
            out = tmp_path / f"out-{kill + 1}"
    assert cut >= KILLS // 2, "too few were killed at work"
    finished(amazon(beauty, out, *FLAGS))
    whole(out)
    assert rows(out).equals(want)


def test_only_what_was_lost_is_made_again(beauty: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = out / ".work" / "done"
    process = begin(beauty, out)
    give_up = time.monotonic() + 60
    while len([*done.glob("0*.json")] if done.exists() else []) < 2 and process.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (out / NAME).exists()
    buckets = {path.stem for path in done.glob("0*.json")}
    assert buckets
    made = {p: p.stat() for b in buckets for p in out.glob(f"*/part-{b}.parquet")}
    assert len(made) >= len(buckets)
    finished(amazon(beauty, out, *FLAGS))
    for path, before in made.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert load(out).rows == {"train": 262_826, "valid": 44_726, "test": 44_726}
    assert not [*out.rglob(".tmp-*")]
