"""Vocabularies of a data set that are damaged."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.target import Target, written
from schemas import vocabulary


def _vocabulary(values: pa.Array) -> bytes:
    """A small vocabulary as the pipeline writes it."""
    file = io.BytesIO()
    ids, counts = pa.array([2, 3, 4], pa.int32()), pa.array([1, 2, 3], pa.int64())
    pq.write_table(
        pa.table({"value": values, "id": ids, "count": counts}), file, compression="zstd"
    )
    return file.getvalue()


def read_words(data: bytes) -> int:
    """Read a vocabulary: ids from 2 on, each value once."""
    table = vocabulary.read(written("item.parquet", data))
    assert table["id"].to_pylist() == list(range(2, 2 + len(table)))
    assert len(set(table["value"].to_pylist())) == len(table)
    return 1


_WORDS = (b"PAR1", b"PARE", b"\x15\x00", b"\x19\x1c", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 8)

TARGETS = (
    Target(
        "vocabulary",
        (_vocabulary(pa.array(["B1", "B2", "é"])), _vocabulary(pa.array([1, 5, 1 << 40]))),
        _WORDS,
        read_words,
    ),
)
