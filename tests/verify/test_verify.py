"""`verify` says where and what it finds, and ends whatever there is."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.verify import LIMIT, verify
from schemas.errors import InputError, UsageError
from tests.verify.damage_files import flip, stray, without
from tests.verify.damage_rows import cell, swap
from tests.verify.made import (
    at,
    checked,
    copied,
)


def test_where_a_finding_is(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "ragged reviews", tmp_path / "out")
    table = copy.table()
    columns = table.to_pydict()
    row = at(columns, 3)
    columns["history_item"][row][2] = 777
    table = pa.Table.from_pydict(columns, schema=table.schema)
    copy.write(copy.path(), table, row_group_size=10)
    report = checked(copy.out)
    [finding] = [f for f in report.findings if f.got == "777"][:1]
    path = copy.path().relative_to(copy.out).as_posix()
    assert finding.what == "id outside its vocabulary"
    assert finding.where == f"{path}: row group {row // 10}, row {row}, history_item[2]"
    size = copy.read()["vocabulary"]["item"]
    assert finding.expected == f"1 to {size - 1}"


def test_all_are_counted_and_some_are_shown(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    rows = len(copy.table())
    copy.edit(lambda columns: columns.update(label=[2] * rows, pid=[99] * rows))
    report = checked(copy.out)
    # None of the two pids occurs any more.
    assert report.counts == {
        "label": rows,
        "id outside its vocabulary": rows,
        "vocabulary counts": 2,
    }
    assert len(report.findings) == 2 * LIMIT + 2
    assert not report.sound


def test_several_kinds_are_found_at_once(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded reviews", tmp_path / "out")
    cell("history_position", 9)(copy)
    without("items.parquet")(copy)
    stray(copy)
    flip(copy)
    assert {"history position", "missing file", "stray file", "checksum"} <= set(
        checked(copy.out).counts
    )


def test_threads_change_nothing(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    swap("target_category", "target_brand")(copy)
    steps = []
    one, many = checked(copy.out), verify(copy.out, lambda *step: steps.append(step), threads=3)
    assert (one.findings, one.counts) == (many.findings, many.counts)
    # One split of a bucket after the other.
    assert one.shards == 6
    assert steps == [("verify", 1, 2), ("verify", 2, 2)]


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        verify(tmp_path)


def test_a_split_in_place_of_its_data_set(made: dict[str, Path]) -> None:
    out = made["padded ads"]
    with pytest.raises(InputError) as raised:
        verify(out / "test")
    assert str(out.absolute()) in str(raised.value)
    assert "--split test" in str(raised.value)


def test_threads_out_of_range(made: dict[str, Path]) -> None:
    with pytest.raises(UsageError):
        verify(made["padded ads"], threads=0)


def test_nothing_is_written(made: dict[str, Path]) -> None:
    out = made["ragged ads"]
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(out.rglob("*"))}
    checked(out)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(out.rglob("*"))} == before


def test_a_folder_in_place_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(InputError):
        verify(tmp_path)


def test_what_is_told_can_be_shown_in_a_terminal(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    (copy.out / "train" / "a\x1b[31m\nsound").touch()
    [finding] = checked(copy.out).findings
    assert finding.where == "train/a\\x1b[31m\\nsound"


@pytest.mark.parametrize("size", [3, (1 << 31) - 1])
@pytest.mark.parametrize("content", [None, b"no", "short"])
def test_a_vocabulary_that_does_not_bear_out_its_size(
    made: dict[str, Path], tmp_path: Path, size: int, content: bytes | str | None
) -> None:
    """Nothing of that size is then asked for."""
    copy = copied(made, "padded ads", tmp_path / "out")
    path = copy.out / "vocabulary/user.parquet"
    if content == "short":
        pq.write_table(pq.ParquetFile(path).read().slice(7), path)
    else:
        path.write_bytes(content or b"")
    if content is None:
        path.unlink()
    copy.manifest(lambda m: m["vocabulary"].update(user=size))
    held = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30), held[1]))
    try:
        assert not checked(copy.out).sound
    finally:
        resource.setrlimit(resource.RLIMIT_AS, held)


def test_one_place_is_one_place(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    copy.path("test").unlink()
    assert "contract in 1 place." in str(checked(copy.out).error(copy.out))


@pytest.mark.parametrize("name", ["ads.parquet", "vocabulary/user.parquet", "rejected/x.parquet"])
def test_a_pipe_in_place_of_a_table(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    (copy.out / "rejected").mkdir()
    (copy.out / name).unlink(missing_ok=True)
    os.mkfifo(copy.out / name)
    assert checked(copy.out).counts.keys() & {"missing file", "stray file"}
