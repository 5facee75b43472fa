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
from tests.verify.damage import ITEMS, USERS, cell, flip, stray, swap, without
from tests.verify.made import at, checked, copied


def test_where_a_finding_is(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "ragged reviews", tmp_path / "out")
    path, table = copy.shard(), copy.table(copy.shard())
    columns = table.to_pydict()
    row = at(columns, 3)
    columns["history_item"][row][2] = 777
    copy.write(path, pa.Table.from_pydict(columns, schema=table.schema), row_group_size=10)
    [finding] = [f for f in checked(copy.out).findings if f.got == "777"][:1]
    assert finding.what == "id outside its vocabulary"
    assert finding.where == f"{path}: row group {row // 10}, row {row}, history_item[2]"
    assert finding.expected == f"2 to {copy.read()['vocabulary']['item'] - 1}"


def test_all_are_counted_and_some_are_shown(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    rows = len(copy.table(copy.shard()))
    copy.edit(lambda columns: columns.update(label=[2] * rows, pid=[99] * rows))
    report = checked(copy.out)
    assert report.counts == {"label": rows, "id outside its vocabulary": rows}
    assert len(report.findings) == 2 * LIMIT
    assert not report.sound
    assert f"in {2 * rows} places" in str(report.error(copy.out))


def test_several_kinds_are_found_at_once(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded reviews", tmp_path / "out")
    for damage in (
        cell("history_position", 9),
        without(ITEMS),
        stray("all.parquet"),
        flip("test/part-00000.parquet"),
    ):
        damage(copy)
    kinds = {"history position", "missing file", "stray file", "checksum"}
    assert kinds <= set(checked(copy.out).counts)


def test_threads_change_nothing(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    swap("target_category", "target_brand")(copy)
    steps = []
    one, many = checked(copy.out), verify(copy.out, lambda *step: steps.append(step), threads=3)
    assert (one.findings, one.counts) == (many.findings, many.counts)
    assert one.shards == 6
    assert steps == [("verify", k, 6) for k in range(1, 7)]


def test_nothing_is_written(made: dict[str, Path]) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        paths = sorted(made["ragged ads"].rglob("*"))
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    before = state()
    checked(made["ragged ads"])
    assert state() == before


def test_what_is_no_data_set(made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        verify(tmp_path)
    (tmp_path / "metrics.json").touch()
    with pytest.raises(InputError, match=r"a run\n.*`tinprep evaluate "):
        verify(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(InputError):
        verify(tmp_path)
    out = made["padded ads"]
    with pytest.raises(InputError) as raised:
        verify(out / "test")
    assert str(out.absolute()) in str(raised.value)
    assert "--split test" in str(raised.value)
    with pytest.raises(UsageError):
        verify(out, threads=0)


def test_what_is_told_can_be_shown_in_a_terminal(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    (copy.out / "train" / "a\x1b[31m\nsound").touch()
    report = checked(copy.out)
    [finding] = report.findings
    assert finding.where == "train/a\\x1b[31m\\nsound"
    assert "contract in 1 place." in str(report.error(copy.out))


@pytest.mark.parametrize("size", [3, (1 << 31) - 1])
@pytest.mark.parametrize("content", [None, b"no", "short"])
def test_a_vocabulary_that_does_not_bear_out_its_size(
    made: dict[str, Path], tmp_path: Path, size: int, content: bytes | str | None
) -> None:
    """Nothing of that size is then asked for."""
    copy = copied(made, "padded ads", tmp_path / "out")
    if content == "short":
        pq.write_table(copy.table(USERS).slice(7), copy.out / USERS)
    elif content is None:
        without(USERS)(copy)
    else:
        (copy.out / USERS).write_bytes(b"no")
    copy.manifest(lambda m: m["vocabulary"].update(user=size))
    held = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30), held[1]))
    try:
        assert not checked(copy.out).sound
    finally:
        resource.setrlimit(resource.RLIMIT_AS, held)


@pytest.mark.parametrize("name", ["lookups/ad.parquet", USERS, "rejected/x.parquet"])
def test_a_pipe_in_place_of_a_table(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    (copy.out / "rejected").mkdir()
    (copy.out / name).unlink(missing_ok=True)
    os.mkfifo(copy.out / name)
    assert checked(copy.out).counts.keys() & {"missing file", "stray file"}
