"""A disk that fills in the middle: one message, exit code 5, and the same command goes on."""

from __future__ import annotations

import gc
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from pipeline import workspace
from schemas.manifest import NAME, load
from tests.conftest import amazon, finished, refused, tinprep

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 200 MiB."""
    at = tmp_path / "disk"
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(at)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield at
    # What is garbage holds mapped files, and Polars unmaps in a thread of its own, later.
    gc.collect()
    for _ in range(100):
        if subprocess.run(["umount", str(at)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", str(at)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Write a file that leaves `left` bytes free."""
    hog = disk / "hog"
    hog.write_bytes(bytes(shutil.disk_usage(disk).free - left))
    return hog


@pytest.mark.parametrize("step", ["deal reviews", "order and fit intervals", "transform"])
def test_the_disk_fills_in_the_middle(
    beauty: Path, beauty_out: Path, small_disk: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = small_disk / "out"
    begin = workspace.Run.step

    def filling(run: workspace.Run, name: str):  # type: ignore[no-untyped-def]
        if name == step:
            fill(small_disk, MIB)
        return begin(run, name)

    with monkeypatch.context() as patch:
        patch.setattr(workspace.Run, "step", filling)
        # What is asked first, whether there is room, was true when it was asked.
        patch.setattr("pipeline.workspace.Run.check_space", lambda run, needed: None)
        ended = amazon(beauty, out)
    assert ended.code == 5, ended.said
    assert "disk is full" in ended.said
    assert "Traceback" not in ended.said
    assert not (out / NAME).exists()
    (small_disk / "hog").unlink()
    finished(amazon(beauty, out))
    for split in ("train", "valid", "test"):
        got, want = (
            pl.concat(pl.read_parquet(p) for p in load(o).shard_paths(o, split)).sort(
                "row", "label"
            )
            for o in (out, beauty_out)
        )
        assert got.equals(want)


def test_too_little_room_is_said_before_the_work(beauty: Path, small_disk: Path) -> None:
    fill(small_disk, 8 * MIB)
    ended = amazon(beauty, small_disk / "out")
    assert ended.code == 5
    assert "too little free space" in ended.said


def test_figures_on_a_full_disk_are_whole_or_not_there(
    beauty_out: Path, small_disk: Path, tmp_path: Path
) -> None:
    figures, whole = small_disk / "figures", tmp_path / "whole"
    finished(tinprep("correlate", beauty_out, "--out", whole))
    first = (whole / "ctc.parquet").stat().st_size
    for left in (0, first // 2, first + 40_000):
        hog = fill(small_disk, left)
        refused(tinprep("correlate", beauty_out, "--out", figures), 5, "disk is full")
        assert figures.exists() == (left > first)
        hog.unlink()
    for path in (path for path in figures.iterdir() if path.name != ".tinprep.json"):
        assert path.read_bytes() == (whole / path.name).read_bytes()


def test_the_disk_is_full_at_a_checkpoint(beauty_out: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    command = ("train", beauty_out, "--run", run, "--steps", 40, "--evaluate-every", 20)
    hog = fill(small_disk, MIB)
    refused(tinprep(*command), 5, "disk is full", "--resume")
    assert sorted(path.name for path in run.iterdir()) == [".lock", "config.json", "log.csv"]
    hog.unlink()
    finished(tinprep(*command, "--resume"))
    assert (run / "metrics.json").exists()
