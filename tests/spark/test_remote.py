"""Raw files and data sets on other file systems: here Arrow's own for file:// addresses."""

from __future__ import annotations

import pickle
from pathlib import Path

import polars as pl
import pytest

from pipeline.readers.remote import RemotePath, located
from pipeline.workspace import enter
from schemas import manifest
from tests.alibaba_made import alibaba
from tests.conftest import finished, refused
from tests.spark.same import same
from tests.spark.test_spark import SPARK, skewed, small_parts

__all__ = ["small_parts"]


@pytest.mark.spark_free
def test_an_address_is_a_path_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_bytes(b"some bytes")
    there = located(Path(f"file://{tmp_path}"))
    assert isinstance(there, RemotePath)
    assert str(there) == f"file://{tmp_path}"
    assert there.is_dir()
    assert [path.name for path in there.iterdir()] == ["a"]
    assert there.below() == {"a": False, "a/b.txt": True}
    file = pickle.loads(pickle.dumps(there / "a" / "b.txt"))
    assert (file.name, file.suffix, file.parent) == ("b.txt", ".txt", there / "a")
    assert file.is_file()
    assert file.stat().st_size == 10
    with file.open() as stream:
        stream.seek(5)
        assert stream.read(100) == b"bytes"
    assert not (there / "c").exists()
    (there / "d" / "e.txt").put(tmp_path / "a" / "b.txt", "0a")
    assert (tmp_path / "d" / "e.txt").read_bytes() == b"some bytes"
    for name in ("d", "d/e.txt", "d"):  # a folder only once it is empty
        assert (there / name).exists()
        (there / name).remove()
    assert [path.name for path in there.iterdir()] == ["a"]
    assert located(tmp_path) is tmp_path
    assert str(located(Path("s3://bucket/folder")) / "x") == "s3://bucket/folder/x"


@pytest.mark.spark_free
def test_raw_files_elsewhere(tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    finished(alibaba(raw, tmp_path / "one"))
    finished(alibaba(Path(f"file://{raw}"), tmp_path / "other"))
    same(tmp_path / "one", tmp_path / "other")


@pytest.mark.spark_free
def test_one_machine_needs_a_folder(tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    refused(alibaba(raw, Path(f"file://{tmp_path}/out")), 2, "--engine spark")
    refused(alibaba(Path("nowhere://host/raw"), tmp_path / "out"), 5, "nowhere://host/raw")


def test_a_data_set_elsewhere(tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    finished(alibaba(raw, tmp_path / "local"))
    there = tmp_path / "there"
    (there / "train").mkdir(parents=True)
    mine, left = there / "train" / "part-00000.parquet", there / "train" / "part-09999.parquet"
    mine.write_bytes(b"of others")
    address = Path(f"file://{there}")
    refused(alibaba(raw, address, *SPARK), 2, "train/part-00000.parquet")
    mine.rename(left)
    enter(located(address), "0a", ["train/part-09999.parquet"])  # as a run that was killed
    finished(alibaba(Path(f"file://{raw}"), address, *SPARK))
    same(tmp_path / "local", there)
    assert manifest.load(there).config["out"] == f"file://{there}"
    written = (there / manifest.NAME).stat().st_mtime_ns
    finished(alibaba(raw, address, *SPARK))  # it is found done
    assert (there / manifest.NAME).stat().st_mtime_ns == written
    refused(alibaba(raw, address, "--bins", 4, *SPARK), 2, "--force")
    finished(alibaba(raw, address, "--bins", 4, "--force", *SPARK))
    assert manifest.load(there).history.bins.count == 4
    bins = pl.scan_parquet(there / "train" / "*.parquet").select("history_interval_bin").collect()
    assert bins["history_interval_bin"].arr.max().max() == 4
    (there / "mine.txt").write_text("not ours")
    refused(alibaba(raw, address, "--force", *SPARK), 2, "mine.txt")
    (there / "mine.txt").unlink()
    (there / "test").rename(tmp_path / "test")
    (there / "test").symlink_to(tmp_path / "test")
    refused(alibaba(raw, address, "--force", *SPARK), 2, "test")
