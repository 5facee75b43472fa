"""The content of data sets stays what it is, however and with what they are made.

The number of buckets and threads must not matter, nor the versions of libraries: `make test-lowest`
runs this file with the oldest that pyproject.toml allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.golden_sets import BUCKETS, GOLDEN, columns, differences, expected
from tests.one_history import shard_schema


@pytest.mark.parametrize("name", GOLDEN)
def test_content_is_as_ever(name: str, tmp_path: Path) -> None:
    assert not differences(GOLDEN[name].make(tmp_path, *BUCKETS), name)


@pytest.mark.parametrize("how", ["--buckets 1 --threads 1", "--buckets 16 --threads 2"])
@pytest.mark.parametrize("name", ["amazon", "amazon --parity", "amazon --ties hash", "alibaba"])
def test_content_is_the_same_however_it_is_made(name: str, how: str, tmp_path: Path) -> None:
    out = GOLDEN[name].make(tmp_path, *how.split())
    assert not differences(out, name, placed=False)


def test_every_flag_tells_in_the_content() -> None:
    contents = {name: {**tables, "placed": {}} for name, tables in expected().items()}
    assert contents.keys() == GOLDEN.keys()
    for name, content in contents.items():
        assert [other for other in contents if contents[other] == content] == [name]
        refused = any(table.startswith("rejected/") for table in content)
        assert refused or GOLDEN[name].real, "the raw files have lines to refuse"


def variants(table: pa.Table) -> Iterator[tuple[str, pa.Field, Any]]:
    """Of each column, fields and values that differ from its own in one thing."""
    for field in table.schema:
        values, kind = table[field.name].to_pylist(), field.type
        yield field.name, field.with_nullable(not field.nullable), values
        if field.nullable:
            yield field.name, field, [*values[:-1], None]
        if not pa.types.is_nested(kind):
            if not pa.types.is_string(kind):
                wider = {pa.float32(): pa.float64(), pa.int64(): pa.uint64()}
                yield field.name, field.with_type(wider.get(kind, pa.int64())), values
            yield field.name, field, [*values[:-1], other(values[-1])]
            continue
        element, size = kind.value_field, getattr(kind, "list_size", -1)
        lists = [pa.list_(element.with_nullable(True), size)]
        lists.append(pa.list_(element.with_type(pa.uint32()), size))
        lists += [pa.list_(element)] * (size > 0)
        yield from ((field.name, field.with_type(one), values) for one in lists)
        for k, cell in enumerate(values[-1]):
            cells = [*values[-1][:k], other(cell), *values[-1][k + 1 :]]
            yield field.name, field, [*values[:-1], cells]
        if size < 0:
            *most, last_but_one, last = values
            yield field.name, field, [*most, last_but_one[:-1], [last_but_one[-1], *last]]


def other(value: Any) -> Any:
    """The next value."""
    if isinstance(value, str):
        return f"{value}\0"
    return float(np.nextafter(np.float32(value), np.float32(9))) if value % 1 else value + 1


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_one_difference_tells_in_its_column_alone(layout: str, tmp_path: Path) -> None:
    shard = shard_schema(("item",), layout, 2, numbers=("price",), sessions=(1, 2))
    schema = shard.append(pa.field("word", pa.string()))
    cells = {"history_length": 1, "price": 0.3, "word": "é"}
    cells |= {name: 0 for name in schema.names if name not in cells}
    rows = [
        {
            field.name: [cell, cell][: getattr(field.type, "list_size", 2)]
            if pa.types.is_nested(field.type)
            else cell
            for field, cell in ((field, cells[field.name]) for field in schema)
        }
    ] * 5
    table = pa.Table.from_pylist(rows, schema)
    kept, seen = columns(table), 0
    for name, field, values in variants(table):
        k = schema.get_field_index(name)
        got = columns(table.set_column(k, field, pa.array(values, field.type)))
        assert [one for one in kept if got[one] != kept[one]] == [name], field
        seen += 1
    assert seen > 3 * len(schema)
    for how in ({"row_group_size": 2, "compression": "zstd"}, {"use_dictionary": False}):
        pq.write_table(table, tmp_path / "file.parquet", **how)
        assert columns(pq.read_table(tmp_path / "file.parquet")) == kept
    assert columns(pa.concat_tables([table.slice(0, 3), table.slice(3)])) == kept
