"""Shards that are damaged, read page by page: what Arrow reads, and nothing else."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import parquet_pages, parquet_shards
from pipeline import parquet_thrift as thrift
from pipeline.parquet_pages import read_batches
from pipeline.parquet_shards import ShardWriter
from pipeline.verify.findings import UNREADABLE
from tests.parquet_made import listed, schema_of, table_of, write
from tests.parquet_read import SHARD, asked, outcome, read


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damage_is_read_as_arrow_reads_it(data: st.DataObject) -> None:
    """What is read without Arrow, after some bytes changed, is what Arrow reads.

    What Arrow reads after a damaged page may depend on where batches begin.
    """
    with TemporaryDirectory() as folder, patch.object(parquet_shards, "PAGE_BYTES", 96):
        path = Path(folder) / "s"
        write(path, SHARD, [table_of(SHARD, 25), table_of(SHARD, 15, 1)])
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 2))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            file = pq.ParquetFile(path)
        except UNREADABLE:
            return
        with file:
            with asked() as by_arrow:
                found = outcome(lambda: pa.Table.from_batches(read_batches(file, path, 7)))
            wanted = outcome(lambda: file.read(use_threads=False))
        assert by_arrow or (found is not None and found.equals(wanted))


def assert_left_to_arrow(path: Path) -> None:
    with asked() as by_arrow:
        found = outcome(lambda: read(path, 100))
    wanted = outcome(lambda: pq.read_table(path))
    assert by_arrow == [0]
    assert (found is None) == (wanted is None)
    assert found is None or found.equals(wanted)


@pytest.mark.parametrize("number", [-129, 128, 1 << 20, -(1 << 31)])
@pytest.mark.parametrize("kind", [pa.int8(), listed(pa.int8(), 3)])
def test_a_value_beyond_its_type(tmp_path: Path, kind: pa.DataType, number: int) -> None:
    block = ShardWriter._block

    def wide(writer: ShardWriter, page: Any, dtype: Any) -> memoryview:
        made = block(writer, page, dtype)
        np.frombuffer(made, np.uint8)[-4:] = np.frombuffer(np.int32(number).tobytes(), np.uint8)
        return made

    schema = schema_of([kind, listed(pa.int32(), 2)])
    with patch.object(ShardWriter, "_block", wide):
        write(tmp_path / "s", schema, [table_of(schema, 40)])
    assert_left_to_arrow(tmp_path / "s")


@pytest.mark.parametrize("place", range(27))
def test_lists_that_start_elsewhere(tmp_path: Path, place: int) -> None:
    """Any change of the levels: of 40 lists of 3, they take 20 and 7 bytes."""
    block, schema = ShardWriter._block, schema_of([listed(pa.int32(), 3)])

    def moved(writer: ShardWriter, page: Any, dtype: Any) -> memoryview:
        made = block(writer, page, dtype)
        assert len(page.levels) == 27
        made[place] ^= 1
        return made

    with patch.object(ShardWriter, "_block", moved):
        write(tmp_path / "s", schema, [table_of(schema, 40)])
    assert_left_to_arrow(tmp_path / "s")


@pytest.mark.parametrize("cells", [[7, 5], [6, 0, 6], [12, 0], [5, 1, 6]])
def test_pages_of_odd_sizes(tmp_path: Path, cells: list[int]) -> None:
    """Pages that end within a list, and empty ones."""
    schema, table = SHARD.empty_table().select([2]).schema, table_of(SHARD, 4).select([2])
    values = table.column(0).chunk(0).values.to_numpy()
    pages, low = [], 0
    for count in cells:
        levels = parquet_shards.fixed_levels(3, count // 3) if count > 2 else b""
        pages.append(parquet_shards.Page(levels, count, values[low : low + count]))
        low += count
    with patch.object(parquet_shards, "_pages", lambda *_: pages):
        write(tmp_path / "s", schema, [table])
    assert_left_to_arrow(tmp_path / "s")


def told_otherwise(name: str, place: int, by: int) -> Any:
    """A part of the footer with another number at one place."""
    part = getattr(thrift, name)

    def other(*given: Any) -> thrift.Thrift:
        numbers = list(given)
        numbers[place] += by
        made: thrift.Thrift = part(*numbers)
        return made

    return patch.object(thrift, name, other)


FOOTERS = {
    **{f"codec {k}": patch.object(thrift, "LZ4_RAW", k) for k in (0, 1, 2, 3, 5, 9)},
    "negative": patch.object(thrift, "i64", lambda n: thrift.Thrift(6, thrift.varint(2 * n + 1))),
    **{f"values {by}": told_otherwise("column_chunk", 1, by) for by in (-3, -1, 1, 3)},
    **{f"plain {by}": told_otherwise("column_chunk", 2, by) for by in (-1, 1)},
    **{f"start {by}": told_otherwise("column_chunk", 3, by) for by in (-1, 1)},
    **{f"end {by}": told_otherwise("column_chunk", 4, by) for by in (-1, 1, 30)},
    **{f"packed {by}": told_otherwise("row_group", 3, by) for by in (-1, 1)},
    **{f"rows {by}": told_otherwise("row_group", 1, by) for by in (-1, 1)},
    **{f"all rows {by}": told_otherwise("footer", 2, by) for by in (-1, 1)},
}


HEADERS = {
    f"{name} {by}": told_otherwise("page_header", place, by)
    for place, name in enumerate(("levels", "plain", "packed"))
    for by in (-3, -1, 1, 3)
}


@pytest.mark.parametrize("said", HEADERS)
def test_a_header_that_says_otherwise(tmp_path: Path, said: str) -> None:
    schema = schema_of([pa.int64(), listed(pa.int32(), 3)])
    with HEADERS[said]:
        write(tmp_path / "s", schema, [table_of(schema, 40)])
    assert_left_to_arrow(tmp_path / "s")


@pytest.mark.parametrize("by", [-1, 1])
def test_bytes_behind_the_last_page(tmp_path: Path, by: int) -> None:
    """As all of the footer has it."""
    path, schema = tmp_path / "s", schema_of([listed(pa.int32(), 3)])
    with told_otherwise("column_chunk", 4, by), told_otherwise("row_group", 3, by):
        write(path, schema, [table_of(schema, 40)])
    assert_left_to_arrow(path)


@pytest.mark.parametrize("said", FOOTERS)
@pytest.mark.parametrize("page_bytes", [96, parquet_shards.PAGE_BYTES])
def test_a_footer_that_says_otherwise(tmp_path: Path, said: str, page_bytes: int) -> None:
    """Nothing is read that Arrow, which trusts the footer, would not read."""
    path, schema = tmp_path / "s", schema_of([pa.int64(), listed(pa.int32(), 3)])
    with patch.object(parquet_shards, "PAGE_BYTES", page_bytes):
        with FOOTERS[said]:
            write(path, schema, [table_of(schema, 40)])
        with asked() as by_arrow:
            found = outcome(lambda: read(path, 100))
    wanted = outcome(lambda: pq.read_table(path))
    assert (found is None) == (wanted is None)
    assert found is None or found.equals(wanted)
    assert by_arrow or said.startswith(("plain", "all rows"))


@pytest.mark.parametrize(("name", "least"), [("PAGE_BYTES", 96), ("_MOST_BYTES", 500)])
def test_what_is_larger_is_left_to_arrow(tmp_path: Path, name: str, least: int) -> None:
    path, table = tmp_path / "s", table_of(SHARD, 400)
    write(path, SHARD, [table])
    where = parquet_shards if name == "PAGE_BYTES" else parquet_pages
    with patch.object(where, name, least), asked() as by_arrow:
        assert read(path, 100).equals(table)
    assert by_arrow == [0]


class Resizing:
    """A codec whose blocks hold so many bytes more than they are asked to."""

    def __init__(self, codec: pa.Codec, by: int) -> None:
        self.codec, self.by = codec, by

    def compress(self, block: memoryview) -> pa.Buffer:
        return self.codec.compress((bytes(block) + b"more")[: len(block) + self.by])


@settings(max_examples=100, deadline=None)
@given(by=st.integers(-40, 4).filter(bool), seed=st.integers(0, 1 << 32), zeros=st.booleans())
def test_a_block_of_other_bytes(by: int, seed: int, zeros: bool) -> None:
    """What lacks is never made up from what the memory held, e.g. of the page before."""
    schema = schema_of([listed(pa.int32(), 3)])
    table = table_of(schema, 40, seed)
    if zeros:
        cells = pa.array(np.zeros(120, np.int32))
        table = pa.table([pa.FixedSizeListArray.from_arrays(cells, type=schema[0].type)], schema)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        write(path, schema, [table])
        read(path, 100)  # the memory holds the very page
        with ShardWriter(path, schema) as writer:
            writer._codec = Resizing(writer._codec, by)
            writer.write_table(table)
        assert outcome(lambda: pq.read_table(path)) is None
        with pytest.raises(OSError, match="expected size" if by < 0 else "Corrupt"):
            read(path, 100)
