"""How fast the loader and the training are: prints a Markdown table of rows per second.

python benchmarks/training.py                       synthetic shards, made for the occasion
python benchmarks/training.py --data data/amazon    an existing data set
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from schemas.manifest import Bins, Manifest, ShardFile
from schemas.shards import shard_schema
from trainer.config import TrainConfig
from trainer.data import Shards
from trainer.fit import gradients
from trainer.models import build, inputs_of
from trainer.optimizer import DenseAdam
from trainer.rows import Batch

BATCH_SIZES = (32, 4096)


def synthetic(out: Path, layout: str, rows: int, max_len: int, items: int, full: bool) -> Path:
    """Random shards in the contract's schema; `full` makes every history `max_len` long."""
    rng = np.random.default_rng(0)
    n = np.full(rows, max_len) if full else np.minimum(rng.geometric(1 / 9, rows), max_len)
    offsets = np.r_[0, np.cumsum(n)]
    total = int(offsets[-1])
    place = np.arange(total) - np.repeat(offsets[:-1], n)
    schema = shard_schema(("item", "category"), layout, max_len)
    values = {
        "row": np.arange(rows),
        "user": np.arange(rows) // 10 + 2,
        "target_item": rng.integers(2, items + 2, rows),
        "target_category": rng.integers(2, 202, rows),
        "target_time": np.zeros(rows),
        "label": np.arange(rows) % 2,
        "history_length": n,
        "history_item": rng.integers(2, items + 2, total),
        "history_category": rng.integers(2, 202, total),
        "history_position": np.repeat(n, n) - place,
        "history_interval_bin": rng.integers(1, 11, total),
        "history_time": np.zeros(total),
        "history_session": np.ones(total),
    }
    arrays = []
    for field in schema:
        a = values[field.name]
        if not pa.types.is_nested(field.type):
            arrays.append(pa.array(a).cast(field.type))
            continue
        a = a.astype(field.type.value_type.to_pandas_dtype())
        if layout == "ragged":
            arrays.append(
                pa.ListArray.from_arrays(offsets.astype(np.int32), pa.array(a), type=field.type)
            )
            continue
        cells = np.zeros((rows, max_len), a.dtype)
        cells[np.arange(max_len) < n[:, None]] = a
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(cells.ravel()), type=field.type))
    path = out / "train" / "part-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(arrays, schema=schema), path, compression="zstd")
    manifest = Manifest(
        format=1,
        dataset="benchmark",
        synthetic=True,
        version="0",
        config={},
        inputs=[],
        rows={"train": rows},
        fields=["item", "category"],
        vocabulary={"item": items + 2, "category": 202, "user": rows // 10 + 3},
        layout=layout,
        max_len=max_len,
        bins=Bins(10, list(range(9)), [0] * 10),
        history_lengths={},
        rejected={},
        notes=[],
        shards=[ShardFile("train/part-00000.parquet", rows, "0" * 64)],
    )
    (out / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return out


def rate(batches: Iterator[list[Batch]], work: Callable[[list[Batch]], None], spend: float) -> int:
    """Rows per second of `work`, in the best of three stretches of `spend` seconds each."""
    best = 0.0
    for _ in range(3):
        rows, began = 0, time.perf_counter()
        while time.perf_counter() - began < spend:
            groups = next(batches)
            work(groups)
            rows += sum(len(group["label"]) for group in groups)
        best = max(best, rows / (time.perf_counter() - began))
    return round(best)


def epochs(
    shards: Shards, size: int, columns: tuple[str, ...], cells: int | None
) -> Iterator[list[Batch]]:
    """Shuffled batches of one epoch after another, the first one of them already read."""
    endless = chain.from_iterable(
        shards.grouped_batches(
            "train", batch_size=size, cells=cells, shuffle_seed=0, epoch=e, columns=columns
        )
        for e in count()
    )
    next(endless)
    return endless


def lines(
    shards: Shards, name: str, spend: float, threads: int | None, train: bool
) -> Iterator[str]:
    """The table's lines of one data set."""
    torch.manual_seed(0)
    for size in BATCH_SIZES:
        config = TrainConfig(Path(), Path(), batch_size=size, threads=threads)
        torch.set_num_threads(config.cpu_threads)
        model = build("tin", None, inputs_of(shards))
        columns = (*model.columns, "label")
        loaded = rate(epochs(shards, size, columns, None), lambda groups: None, spend)
        yield f"| loader, whole batches | {name} | {size:,} | {loaded:,} |"
        if not train:
            continue
        optimizer = DenseAdam(model.parameters(), lr=1e-3)

        def step(groups: list[Batch]) -> None:
            rows = sum(len(group["label"]) for group in groups)
            for group in groups:
                gradients(model, group, rows)  # noqa: B023
                optimizer.collect()  # noqa: B023
            optimizer.step()  # noqa: B023

        trained = rate(epochs(shards, size, columns, config.group_cells), step, 3 * spend)
        yield f"| training, tin | {name} | {size:,} | {trained:,} |"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data set; synthetic shards by default")
    parser.add_argument("--rows", type=int, default=200_000, help="synthetic rows")
    parser.add_argument("--items", type=int, default=12_101, help="synthetic items (Beauty's)")
    parser.add_argument("--max-len", type=int, default=50, help="longest synthetic history")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a measurement")
    parser.add_argument("--threads", type=int, help="CPU threads; the trainer's choice by default")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, ", end="")
    print(f"PyTorch {torch.__version__}; best of 3\n")
    print("| what | data | batch | rows/s |\n|---|---|---:|---:|")
    if args.data:
        for line in lines(
            Shards(args.data), str(args.data.name), args.seconds, args.threads, train=True
        ):
            print(line, flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        for layout in ("ragged", "padded"):
            for full in (False, True):
                out = Path(folder) / f"{layout}{full}"
                synthetic(out, layout, args.rows, args.max_len, args.items, full)
                name = f"{layout}, L = {args.max_len}, " + ("all full" if full else "mean 9")
                # Only how shards are read differs between the layouts, not the training.
                train = layout == "ragged" and not full
                for line in lines(Shards(out), name, args.seconds, args.threads, train):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
