"""Shards that are damaged, as the trainer reads them, `inspect` shows and `verify` checks them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.manifest import GOOD
from fuzz.target import Target, written
from pipeline.inspection import inspect
from pipeline.steps.shards import write_blocks, write_table
from pipeline.verify import verify
from pipeline.verify.tables import UNREADABLE
from schemas.manifest import NAME, DataFile
from schemas.shards import numpy_type
from tests.one_history import shard_schema
from trainer.data.shards import Shards

_ROWS, _LEN = 4, 3
_VOCABULARY = {"user": 9, "item": 9, "category": 4}


def _shard(layout: str) -> bytes:
    """A small shard as the pipeline writes it."""
    schema = shard_schema(("item", "category"), layout, _LEN)
    arrays = []
    for field in schema:
        if pa.types.is_fixed_size_list(field.type):
            cells = np.tile([2, 1, 0], _ROWS).astype(numpy_type(field.type.value_type))
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(cells), type=field.type))
        elif pa.types.is_list(field.type):
            cells = np.tile([2, 1], _ROWS).astype(numpy_type(field.type.value_type))
            offsets = pa.array(np.arange(0, 2 * _ROWS + 1, 2, dtype=np.int32))
            arrays.append(pa.ListArray.from_arrays(offsets, pa.array(cells), type=field.type))
        else:
            value = 2 if field.name == "history_length" else 1
            arrays.append(pa.array([value] * _ROWS, field.type))
    table = pa.table(arrays, schema=schema)
    path = written("seed.parquet", b"")
    write_blocks(path, schema, [table])
    return path.read_bytes()


def _data_set(data: bytes, layout: str = "padded") -> Path:
    """A data set of the one shard, in which nothing stops a reader before the shard."""
    shard = written("shards/train/part-00000.parquet", data)
    out = shard.parents[1]
    listed = DataFile("train/part-00000.parquet", _ROWS, hashlib.sha256(data).hexdigest())
    made = replace(
        GOOD,
        rows={"train": _ROWS, "valid": 0, "test": 0},
        vocabulary=_VOCABULARY,
        layout=layout,
        features={},
        histories={"history": replace(GOOD.history, max_len=_LEN, lengths={})},
        numbers={},
        shards=[listed],
        tables=[],
    )
    for name, size in _VOCABULARY.items():
        path = out / "vocabulary" / f"{name}.parquet"
        if not path.exists():
            ids = np.arange(2, size, dtype=np.int32)
            write_table(
                path, pa.table({"value": ids.astype(str), "id": ids, "count": ids.astype(np.int64)})
            )
    (out / NAME).write_text(made.to_json(), encoding="utf-8")
    return out


def read_shard(data: bytes) -> int:
    """Read every row of a split: what comes is within what the manifest says."""
    rows = 0
    for batch in Shards(_data_set(data)).batches("train", batch_size=3):
        rows += len(batch["history_length"])
        assert int(batch["history_length"].max()) <= _LEN
        for name, size in (("user", 9), ("target_item", 9), ("history_category", 4)):
            if name in batch and batch[name].numel():
                assert 0 <= int(batch[name].min()) <= int(batch[name].max()) < size
    assert rows == _ROWS
    return 1


def show(data: bytes) -> int:
    """Show the rows of a data set."""
    inspect(_data_set(data), 2)
    return 1


def check(data: bytes) -> int:
    """Verify the data set."""
    found = verify(_data_set(data, "ragged" if _has_ragged_lists(data) else "padded"), threads=1)
    assert {f.what for f in found.findings} == found.counts.keys()
    return 1


def _has_ragged_lists(data: bytes) -> bool:
    try:
        return any(pa.types.is_list(kind) for kind in pq.read_schema(pa.BufferReader(data)).types)
    except UNREADABLE:
        return False


_WORDS = (b"PAR1", b"PARE", b"\x15\x00", b"\x19\x1c", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 8)

_SEEDS = (_shard("padded"), _shard("ragged"))

TARGETS = (
    Target("shard", _SEEDS, _WORDS, read_shard),
    Target("inspect", _SEEDS, _WORDS, show),
    Target("verify", _SEEDS, _WORDS, check),
)
