"""How fast the loader and the training are: prints a Markdown table of rows per second.

python benchmarks/training.py                       synthetic shards, made for the occasion
python benchmarks/training.py --data data/amazon    an existing data set
python benchmarks/training.py --models all          every recipe
python benchmarks/training.py --device cuda         on a GPU
python benchmarks/training.py --histories 1 4       one history, and four at once
python benchmarks/training.py --busy 2 8 --batch-sizes 256 4096    beside processes that never rest

Waiting is the share of the time in which the training stood still for its next batch. What is
measured beside busy processes is the median of three stretches, else the best of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain, count, product
from pathlib import Path
from subprocess import Popen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from schemas.manifest import FORMAT, Bins, DataFile, Feature, History, Manifest, Target
from schemas.shards import Shape, schema_of
from trainer.data.batches import Batch
from trainer.data.inputs import inputs_of
from trainer.data.prefetch import on_device
from trainer.data.shards import Shards
from trainer.models.interest import build
from trainer.models.recipes import RECIPES
from trainer.training.compiling import compiled
from trainer.training.config import cells_of, threads_of
from trainer.training.optimizer import optimizer_of
from trainer.training.threads import sharing
from trainer.training.train import gradients

# As the preset of Taobao's log has it.
_WIDE = {"optimizer": "adagrad", "lr": 1e-2, "batch_size": 4096, "epochs": 1, "hidden": [200, 80]}
BATCH_SIZES = (32, 4096)
# Steps between two looks at the loss on a GPU, for which its queue runs empty, as in training.
LOOKS = 50

# Distinct values of Alibaba's id columns beside its two fields.
WIDE = {
    "ad": 846_811,
    "campaign": 423_436,
    "customer": 255_875,
    "pid": 2,
    "cms_segid": 97,
    "cms_group_id": 13,
    "final_gender_code": 2,
    "age_level": 7,
    "pvalue_level": 3,
    "shopping_level": 3,
    "occupation": 2,
    "new_user_class_level": 4,
}


def synthetic(
    out: Path,
    layout: str,
    rows: int,
    max_len: int,
    sizes: dict[str, int],
    *,
    full: bool = False,
    wide: bool = False,
    histories: int = 1,
) -> Path:
    """Random shards in the contract's schema.

    Args:
        out: folder to write.
        layout: `padded` or `ragged`.
        rows: rows of the train split.
        max_len: L.
        sizes: distinct values of each field.
        full: every history is `max_len` long; else 9 on average.
        wide: Alibaba's other id columns and its price as well.
        histories: how many a row has.
    """
    rng = np.random.default_rng(0)

    def ids(size: int, n: int) -> np.ndarray:
        # Popularity with a heavy tail, as in both data sets.
        return 2 + (size * rng.random(n) ** 3).astype(np.int64)

    names = [f"history{k}" for k in range(histories)] if histories > 1 else ["history"]
    others = WIDE if wide else {}
    shapes = dict.fromkeys(names, Shape(tuple(sizes), max_len))
    numbers = ("price",) if wide else ()
    schema = schema_of(tuple(sizes), shapes, layout, features=tuple(others), numbers=numbers)
    values = {
        "row": np.arange(rows),
        "user": np.arange(rows) // 10 + 2,
        **{f"target_{name}": ids(size, rows) for name, size in sizes.items()},
        "target_time": np.zeros(rows),
        "label": np.arange(rows) % 2,
        **{name: ids(size, rows) for name, size in others.items()},
        "price": rng.normal(size=rows),
    }
    lengths = {}
    for called in names:
        n = np.full(rows, max_len) if full else np.minimum(rng.geometric(1 / 9, rows), max_len)
        starts, total = np.cumsum(n) - n, int(n.sum())
        found = {
            "length": n,
            **{name: ids(size, total) for name, size in sizes.items()},
            "position": np.repeat(n + starts, n) - np.arange(total),
            "interval_bin": rng.integers(1, 11, total),
            "time": np.zeros(total),
            "session": np.ones(total),
        }
        values |= {f"{called}_{name}": column for name, column in found.items()}
        lengths |= {f"{called}_{name}": n for name in found}
    arrays = []
    for field in schema:
        a = values[field.name]
        if not pa.types.is_nested(field.type):
            arrays.append(pa.array(a).cast(field.type))
            continue
        a, n = a.astype(field.type.value_type.to_pandas_dtype()), lengths[field.name]
        if layout == "ragged":
            offsets = pa.array(np.r_[0, np.cumsum(n)].astype(np.int32))
            arrays.append(pa.ListArray.from_arrays(offsets, pa.array(a), type=field.type))
            continue
        cells = np.zeros((rows, max_len), a.dtype)
        cells[np.arange(max_len) < n[:, None]] = a
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(cells.ravel()), type=field.type))
    path = out / "train" / "part-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(arrays, schema=schema), path, compression="zstd")
    vocabulary = {name: size + 2 for name, size in (sizes | others).items()}
    vocabulary["user"] = rows // 10 + 3
    (out / "vocabulary").mkdir()
    for name, size in vocabulary.items():
        words = pa.table({"value": np.arange(size - 2), "id": np.arange(2, size, dtype=np.int32)})
        words = words.append_column("count", words["value"])
        pq.write_table(words, out / "vocabulary" / f"{name}.parquet")
    bins = Bins(10, list(range(9)), [0] * 10)
    history = History("events", list(sizes), max_len, "before", 1_800, None, bins, {})
    manifest = Manifest(
        format=FORMAT,
        dataset="benchmark",
        synthetic=True,
        version="0",
        config={},
        inputs=[],
        rows={"train": rows},
        events={},
        target=Target("events", {"by": "time"}, None),
        fields=list(sizes),
        features={name: Feature("id", name) for name in others},
        histories=dict.fromkeys(names, history),
        lookups={},
        vocabulary=vocabulary,
        known=[],
        layout=layout,
        timezone="UTC",
        train=_WIDE if wide else {},
        rejected={},
        notes=[],
        shards=[DataFile("train/part-00000.parquet", rows, "0" * 64)],
    )
    (out / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return out


def rate(
    batches: Iterator[list[Batch]],
    work: Callable[[list[Batch]], None],
    spend: float,
    device: torch.device,
    busy: int = 0,
) -> tuple[float, float]:
    """Rows per second of `work` and its share of waiting.

    Args:
        batches: endless.
        work: what is done to each.
        spend: seconds of a stretch.
        device: where `work` computes.
        busy: processes that keep the cores busy meanwhile.
    """
    with sharing(), busy_beside(busy):
        found = sorted(stretch(batches, work, spend, device) for _ in range(3))
    return found[1 if busy else -1]


def stretch(
    batches: Iterator[list[Batch]],
    work: Callable[[list[Batch]], None],
    spend: float,
    device: torch.device,
) -> tuple[float, float]:
    """Rows per second of `work` and its share of waiting, over `spend` seconds."""
    rows, steps, waited, began = 0, 0, 0.0, time.perf_counter()
    while time.perf_counter() - began < spend:
        asked = time.perf_counter()
        groups = next(batches)
        waited += time.perf_counter() - asked
        work(groups)
        rows += sum(len(group["label"]) for group in groups)
        steps += 1
        if steps % LOOKS == 0:
            settle(device)
    settle(device)
    seconds = time.perf_counter() - began
    return rows / seconds, waited / seconds


@contextmanager
def busy_beside(count: int) -> Iterator[None]:
    """Keep cores busy meanwhile, by processes that only compute."""
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


def told(found: tuple[float, float]) -> str:
    """The last columns of a line."""
    return f"{found[0]:,.0f} | {found[1]:.1%}"


def settle(device: torch.device) -> None:
    """Wait for a GPU to be done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def epochs(
    shards: Shards, size: int, columns: tuple[str, ...], cells: int | None, device: torch.device
) -> Iterator[list[Batch]]:
    """Shuffled batches of one epoch after another, the first one of them already read."""
    endless = chain.from_iterable(
        shards.grouped_batches(
            "train", batch_size=size, cells=cells, shuffle_seed=0, epoch=e, columns=columns
        )
        for e in count()
    )
    found = on_device(endless, device)
    next(found)
    return found


def lines(shards: Shards, name: str, models: tuple[str, ...], args: Namespace) -> Iterator[str]:
    """The table's lines of one data set."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    usual = shards.facts.training
    preferred = (usual.batch_size,) if usual.optimizer == "adagrad" else BATCH_SIZES
    for size in args.batch_sizes or preferred:
        chosen = replace(usual, batch_size=size)
        torch.set_num_threads(args.threads or threads_of(chosen))
        inputs = inputs_of(shards)
        read = (*build("tin", None, inputs).columns, "label")
        batches = epochs(shards, size, read, None, device)
        loaded = rate(batches, lambda groups: None, args.seconds, device)
        yield f"| loader, whole batches | {name} | {size:,} | {told(loaded)} |"
        for recipe in models:
            model = build(recipe, None, inputs, hidden=chosen.hidden).to(device)
            forward = compiled(model) if args.compile else None
            optimizer = optimizer_of(chosen, model.parameters())

            def step(groups: list[Batch]) -> None:
                rows = sum(len(group["label"]) for group in groups)
                for group in groups:
                    gradients(model, group, rows, forward=forward, amp=args.amp)  # noqa: B023
                    optimizer.collect()  # noqa: B023
                optimizer.step()  # noqa: B023

            columns, cells = (
                (*model.columns, "label"),
                cells_of(chosen, args.device, len(inputs.histories)),
            )
            batches = epochs(shards, size, columns, cells, device)
            alone = rate(batches, step, 3 * args.seconds, device)
            yield f"| training, {recipe} | {name} | {size:,} | {told(alone)} |"
            for busy in args.busy:
                beside = rate(batches, step, 3 * args.seconds, device, busy)
                what = f"{recipe}, {busy} busy beside: 1/{alone[0] / beside[0]:.1f}"
                yield f"| training, {what} | {name} | {size:,} | {told(beside)} |"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data set; synthetic shards by default")
    parser.add_argument("--rows", type=int, default=200_000, help="synthetic rows")
    parser.add_argument("--items", type=int, default=12_101, help="synthetic items (Beauty's)")
    parser.add_argument("--max-len", type=int, default=50, help="longest synthetic history")
    parser.add_argument(
        "--histories", type=int, nargs="+", default=[1], help="of a synthetic row; several in turn"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a measurement")
    parser.add_argument("--threads", type=int, help="CPU threads; the trainer's choice by default")
    parser.add_argument("--models", default="tin", help="recipes with commas between, or all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="the trainer's by default")
    parser.add_argument(
        "--busy", type=int, nargs="+", default=[], help="also beside so many busy processes"
    )
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    args = parser.parse_args()
    models = tuple(RECIPES) if args.models == "all" else tuple(args.models.split(","))
    torch.set_flush_denormal(True)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, ", end="")
    if args.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, ", end="")
    print(f"PyTorch {torch.__version__}; best of 3\n")
    print("| what | data | batch | rows/s | waiting |\n|---|---|---:|---:|---:|")

    def show(shards: Shards, name: str, models: tuple[str, ...]) -> None:
        for line in lines(shards, name, models, args):
            print(line, flush=True)

    if args.data:
        show(Shards(args.data), str(args.data.name), models)
        return
    narrow = {"item": args.items, "category": 200}
    several = args.histories != [1]
    with tempfile.TemporaryDirectory() as folder:
        for layout, full, count in product(("ragged", "padded"), (False, True), args.histories):
            out = Path(folder) / f"{layout}{full}{count}"
            how = {"full": full, "histories": count}
            synthetic(out, layout, args.rows, args.max_len, narrow, **how)
            name = f"{layout}, L = {args.max_len}, " + ("all full" if full else "mean 9")
            name += f", {count} histories" if count > 1 else ""
            # Only how shards are read differs between the layouts, not the training.
            trained = layout == "ragged" and (several or not full)
            show(Shards(out), name, models if trained else ())
        if several:
            return
        out = Path(folder) / "wide"
        wide = {"category": 12_960, "brand": 461_497}
        synthetic(out, "ragged", args.rows, args.max_len, wide, full=True, wide=True)
        show(Shards(out), f"Alibaba's columns, L = {args.max_len}, all full", models)


if __name__ == "__main__":
    main()
