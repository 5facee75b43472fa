"""The data of `fuxictr.py`: shards, and the same rows as FuxiCTR's LongCTR loader reads them.

That loader wants a table of rows (`train`), of each user's sequence of items (`users`, of which a
row takes the first `seq_len`) and of each item's fields (`items`). Here a row's history is a
sequence of its own: the latest `max_len` behaviours are then those of the shard.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from training import synthetic

ITEMS, CATEGORIES = 12_101, 195  # Beauty's


def full_shards(out: Path, rows: int, max_len: int) -> None:
    """Random shards whose histories are all `max_len` long, with one category for each item."""
    synthetic(out, "padded", rows, max_len, {"item": ITEMS, "category": CATEGORIES}, full=True)
    items = np.arange(2, ITEMS + 2, dtype=np.int32)
    category = 2 + (items * 7919 % CATEGORIES).astype(np.int32)
    pq.write_table(pa.table({"item": items, "category": category}), out / "items.parquet")
    of_item = np.r_[0, 1, category].astype(np.int32)
    path = out / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    for prefix in ("target_", "history_"):
        field = table.schema.field(f"{prefix}category")
        found = of_item[_numbers(table, f"{prefix}item")]
        values = pa.array(found)
        if pa.types.is_nested(field.type):
            values = pa.FixedSizeListArray.from_arrays(values, type=field.type)
        table = table.set_column(table.schema.get_field_index(field.name), field, values)
    pq.write_table(table, path)


def convert(shards: Path, out: Path) -> dict[str, Any]:
    """Write the train split's rows as the LongCTR loader reads them, and FuxiCTR's feature map.

    Raises:
        SystemExit: the shards are not of items and categories, or a history is longer than stored.
    """
    out.mkdir(parents=True)
    manifest = json.loads((shards / "manifest.json").read_text(encoding="utf-8"))
    if manifest["fields"] != ["item", "category"]:
        raise SystemExit(f"{shards}: fields item and category are needed")
    names = ["label", "target_item", "history_length", "history_item", "history_category"]
    paths = [shards / s["path"] for s in manifest["shards"] if s["path"].startswith("train/")]
    table = pa.concat_tables(pq.read_table(path, columns=names) for path in paths)
    lengths = _numbers(table, "history_length").astype(np.int64)
    flat = _numbers(table, "history_item")
    width = len(flat) // len(lengths)
    starts = np.arange(len(lengths)) * width
    if manifest["layout"] == "ragged":
        starts = np.cumsum(lengths) - lengths
    # Without padding, one run a row.
    real = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
    sequences = pa.ListArray.from_arrays(offsets, pa.array(flat[real].astype(np.int64)))
    items = pq.read_table(shards / "lookups/item.parquet")
    of_item = np.zeros(manifest["vocabulary"]["item"], np.int64)
    of_item[_numbers(items, "item")] = _numbers(items, "category")
    if (of_item[flat[real]] != _numbers(table, "history_category")[real]).any():
        raise SystemExit(f"{shards}: a behaviour's category is not its item's")
    index = np.arange(len(of_item))
    rows = {
        "label": _numbers(table, "label").astype(np.int64),
        "user_index": np.arange(len(lengths)),
        "seq_len": lengths,
        "item_index": _numbers(table, "target_item").astype(np.int64),
    }
    fields = {"item_index": index, "item": index, "category": of_item}
    pq.write_table(pa.table(rows), out / "train.parquet")
    pq.write_table(pa.table({"full_item_seq": sequences}), out / "users.parquet")
    pq.write_table(pa.table(fields), out / "items.parquet")
    features: list[dict[str, Any]] = [
        {name: {"type": "categorical", "source": "item", "vocab_size": size, "padding_idx": 0}}
        for name, size in manifest["vocabulary"].items()
        if name in manifest["fields"]
    ]
    features += [{name: {"type": "meta"}} for name in ("user_index", "seq_len", "item_index")]
    told = {"dataset_id": "tinprep", "labels": ["label"], "features": features}
    (out / "feature_map.json").write_text(json.dumps(told), encoding="utf-8")
    return {
        "rows": len(lengths),
        "mean": float(lengths.mean()),
        "max_len": manifest["histories"]["history"]["max_len"],
        "synthetic": manifest["synthetic"],
    }


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column's values, of lists one after another."""
    column = table.column(name).combine_chunks()
    return (column.flatten() if pa.types.is_nested(column.type) else column).to_numpy()


def main() -> None:
    """Make the shards where asked to, convert them, and print what they are as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--full", type=int, help="make shards of that many rows, all full")
    parser.add_argument("--max-len", type=int, default=50, help="of the shards to be made")
    flags = parser.parse_args()
    if flags.full:
        flags.shards.mkdir(parents=True)
        full_shards(flags.shards, flags.full, flags.max_len)
    print(json.dumps(convert(flags.shards, flags.out)))


if __name__ == "__main__":
    main()
