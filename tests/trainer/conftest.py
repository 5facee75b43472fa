"""Small data sets in the contract's schema, with an effect to find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import count, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from schemas.manifest import (
    FORMAT,
    Bins,
    DataFile,
    Feature,
    History,
    Lookup,
    Manifest,
    Negatives,
    Target,
)
from schemas.shards import UNITS, Shape, schema_of
from tests.one_history import shard_schema

MakeDataset = Callable[..., Path]


def _column(values: list[np.ndarray], kind: pa.DataType) -> pa.Array:
    """Histories as the schema's list type, padded with 0 where its size is fixed."""
    dtype = kind.value_type.to_pandas_dtype()
    if pa.types.is_fixed_size_list(kind):
        cells = np.zeros((len(values), kind.list_size), dtype)
        for cell, value in zip(cells, values, strict=True):
            cell[: len(value)] = value
        return pa.FixedSizeListArray.from_arrays(pa.array(cells.ravel()), type=kind)
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
    flat = np.concatenate(values).astype(dtype)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind)


def _write_split(
    out: Path, split: str, schema: pa.Schema, columns: dict[str, list]
) -> list[DataFile]:
    """Write the rows as two shards of small row groups."""
    arrays = []
    for field in schema:
        nested = pa.types.is_nested(field.type)
        v = columns[field.name]
        arrays.append(_column(v, field.type) if nested else pa.array(v).cast(field.type))
    table = pa.table(arrays, schema=schema)
    (out / split).mkdir(parents=True)
    half, shards = len(table) // 2, []
    for i, part in enumerate((table[:half], table[half:])):
        path = f"{split}/part-{i:05d}.parquet"
        pq.write_table(part, out / path, row_group_size=25)
        digest = hashlib.sha256((out / path).read_bytes()).hexdigest()
        shards.append(DataFile(path, len(part), digest))
    return shards


def _write_vocabularies(out: Path, sizes: dict[str, int]) -> None:
    """Values of each field: its first letter and the id, e.g. 'c2', 'c3', ..."""
    (out / "vocabulary").mkdir()
    for name, size in sizes.items():
        ids = np.arange(2, size)
        table = pa.table(
            {
                "value": pa.array([f"{name[0]}{i}" for i in ids], pa.string()),
                "id": pa.array(ids, pa.int32()),
                "count": pa.array(np.ones(size - 2, np.int64)),
            }
        )
        pq.write_table(table, out / "vocabulary" / f"{name}.parquet")


def _write(
    out: Path,
    rows: Callable[[str, Iterator[int]], Iterator[dict]],
    schema: pa.Schema,
    splits: tuple[str, ...],
    vocabulary: dict[str, int],
    **said,
) -> Path:
    """Write shards, vocabularies and a manifest; `rows` gives those of a split, numbered."""
    shards, counts, numbers = [], {}, count()
    for split in splits:
        found = list(rows(split, numbers))
        counts[split] = len(found)
        columns = {name: [values[name] for values in found] for name in schema.names}
        shards += _write_split(out, split, schema, columns)
    _write_vocabularies(out, vocabulary)
    manifest = Manifest(
        format=FORMAT,
        synthetic=True,
        version="0",
        config={},
        inputs=[],
        rows=counts,
        events={},
        vocabulary=vocabulary,
        known=["user"],
        rejected={},
        notes=[],
        shards=shards,
        **said,
    )
    (out / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return out


def _history(fields: list[str], max_len: int, sessions: list[int] | None = None) -> History:
    """A history of four bins of 250 seconds."""
    bins = Bins(4, [249, 499, 749], [1, 1, 1, 1])
    return History("events", fields, max_len, "before", 1_800, sessions, bins, {})


def write_dataset(
    out: Path,
    *,
    layout: str = "ragged",
    users: int = 60,
    items: int = 30,
    categories: int = 6,
    max_len: int = 12,
    min_len: int = 1,
    splits: tuple[str, ...] = ("train", "valid", "test"),
    train_pairs: int = 3,
    extra: bool = False,
    seed: int = 0,
) -> Path:
    """Write shards and a manifest: a positive is of the newest behaviour's category.

    `extra` adds an id column `pid` of 4 ids, a float column `price`, and a matrix of
    `session_length`, as other sources have.
    """
    rng = np.random.default_rng(seed)
    category_of = rng.integers(2, categories + 2, items)
    fields = ["item", "category"]
    schema = shard_schema(tuple(fields), layout, max_len)
    if extra:
        schema = schema.append(pa.field("pid", pa.int32(), nullable=False))
        schema = schema.append(pa.field("price", pa.float32(), nullable=False))
        element = pa.field("element", pa.int16(), nullable=False)
        schema = schema.append(pa.field("session_length", pa.list_(element, 3), nullable=False))

    def rows(split: str, numbers: Iterator[int]) -> Iterator[dict]:
        pairs = train_pairs if split == "train" else 1
        for user, _ in product(range(users), range(pairs)):
            n = int(rng.integers(min_len, max_len + 1))
            history = rng.integers(0, items, n)
            liked = category_of[history[-1]] if n else 2
            same = np.flatnonzero(category_of == liked)
            other = np.flatnonzero(category_of != liked)
            interval = np.sort(rng.integers(0, 1000, n))[::-1]
            for label, pool in ((1, same), (0, other)):
                target, row = rng.choice(pool), next(numbers)
                yield {
                    "row": row,
                    "user": user + 2,
                    "target_item": target + 2,
                    "target_category": category_of[target],
                    "target_time": 10_000,
                    "label": label,
                    "history_length": n,
                    "history_item": history + 2,
                    "history_category": category_of[history],
                    "history_position": np.arange(n, 0, -1),
                    "history_interval_bin": 1 + interval // 250,
                    "history_time": 10_000 - interval,
                    "history_session": np.ones(n),
                    "pid": row % 4,
                    "price": row / 100,
                    "session_length": np.arange(3),
                }

    vocabulary = {"item": items + 2, "category": categories + 2, "user": users + 2}
    vocabulary |= {"pid": 4} if extra else {}
    said = {
        "dataset": "planted",
        "target": Target("reviews", {"by": "order", "valid": True}, Negatives("item", 1)),
        "fields": fields,
        "features": {"pid": Feature("id", "pid"), "price": Feature("number", None)}
        if extra
        else {},
        "histories": {"history": _history(fields, max_len)},
        "lookups": {"item": Lookup(["category"], [], [], True, "", "{}")},
        "timezone": "UTC",
        "train": {"group_field": "category"},
    }
    return _write(out, rows, schema, splits, vocabulary, layout=layout, **said)


PROFILE = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
OTHERS = ("ad", "campaign", "customer", "pid", *PROFILE)


def write_alibaba(
    out: Path,
    *,
    layout: str = "padded",
    users: int = 40,
    per_user: int = 8,
    max_len: int = 10,
    sessions: tuple[int, int] = (3, 4),
    splits: tuple[str, ...] = ("train", "valid", "test"),
    empty: float = 0.2,
    clicks: float = 0.2,
    seed: int = 0,
) -> Path:
    """Write Alibaba's shards: clicks are of users whose newest behaviours have the ad's category.

    A share `empty` of the impressions has no behaviours, and a user clicks with the chance
    `clicks` at an ad of her category, so that many users have one class only.
    """
    rng = np.random.default_rng(seed)
    sets, most = sessions
    fields = ["category", "brand"]
    vocabulary = {"user": users + 2, "category": 8, "brand": 12, **dict.fromkeys(OTHERS, 6)}
    schema = shard_schema(
        tuple(fields), layout, max_len, features=OTHERS, numbers=("price",), sessions=sessions
    )

    def rows(split: str, numbers: Iterator[int]) -> Iterator[dict]:
        for user, _ in product(range(users), range(per_user)):
            row = next(numbers)
            n = 0 if rng.random() < empty else int(rng.integers(1, max_len + 1))
            liked = int(rng.integers(2, 8))
            category = np.where(rng.random(n) < 0.7, liked, rng.integers(1, 8, n))
            interval = np.sort(rng.integers(1, 1000, n))[::-1]
            target = int(rng.integers(2, 8))
            lengths = rng.integers(3, most + 1, rng.integers(0, sets + 1) if n else 0)
            held = np.zeros((sets, most), bool)
            held[: len(lengths)] = np.arange(most) < lengths[:, None]
            session = {f: np.where(held, rng.integers(1, 8, held.shape), 0) for f in fields}
            yield {
                "row": row,
                "user": user + 2,
                "target_category": target,
                "target_brand": int(rng.integers(1, 12)),
                "target_time": 1_494_000_000 + row,
                "label": int(rng.random() < (clicks if n and target == liked else 0.02)),
                **{name: int(rng.integers(1, 6)) for name in OTHERS},
                "price": float(rng.normal()),
                "history_length": n,
                "history_category": category,
                "history_brand": rng.integers(1, 12, n),
                "history_position": np.arange(n, 0, -1),
                "history_interval_bin": 1 + interval // 250,
                "history_time": 1_494_000_000 + row - interval,
                "history_session": np.ones(n),
                **{
                    f"session_{f}": a.ravel() if layout == "padded" else a[held]
                    for f, a in session.items()
                },
                "session_length": lengths,
            }

    features = {name: Feature("id", name) for name in OTHERS} | {"price": Feature("number", None)}
    said = {
        "dataset": "planted-impressions",
        "target": Target("impressions", {"by": "day", "valid": 0, "test": 0}, None),
        "fields": fields,
        "features": features,
        "histories": {"history": _history(fields, max_len, [*sessions])},
        "lookups": {"ad": Lookup(fields, ["campaign", "customer"], ["price"], True, "", "{}")},
        "timezone": "Asia/Shanghai",
        "train": {
            "optimizer": "adagrad",
            "lr": 1e-2,
            "batch_size": 4096,
            "epochs": 1,
            "hidden": [200, 80],
            "group_field": "category",
        },
    }
    return _write(out, rows, schema, splits, vocabulary, layout=layout, **said)


def write_log(
    out: Path,
    *,
    layout: str = "padded",
    users: int = 40,
    per_user: int = 6,
    max_len: int = 6,
    splits: tuple[str, ...] = ("train", "test"),
    weight: bool = True,
    unit: str = "ms",
    garbage: int = 0,
    seed: int = 0,
) -> Path:
    """Write somebody's own log: no group, one field, a multi-valued feature `genre`, a number.

    Clicks are of users whose newest behaviour is the target. Three columns are passed through, with
    nulls. Behind a row's genres, and behaviours, stands `garbage` where lists have a fixed size.
    """
    rng = np.random.default_rng(seed)
    keep = {"request": "string", "bid": "float64", "page": "int64"}
    shapes = {"history": Shape(("item",), max_len)}
    schema = schema_of(
        ("item",), shapes, layout, weight=weight, features=("type",), numbers=("price",),
        lists={"genre": 3}, keep=keep,
    )  # fmt: skip
    now = 1_500_000_000 * UNITS[unit]

    def padded(values: np.ndarray, most: int) -> np.ndarray:
        if layout == "ragged":
            return values
        return np.r_[values, np.full(most - len(values), garbage)]

    def rows(split: str, numbers: Iterator[int]) -> Iterator[dict]:
        for user, _ in product(range(users), range(per_user)):
            row, n = next(numbers), int(rng.integers(0, max_len + 1))
            history = rng.integers(2, 12, n)
            interval = np.sort(rng.integers(1, 1000, n))[::-1]
            clicked = n > 0 and rng.random() < 0.5
            genres = rng.permutation(np.arange(2, 7))[: rng.integers(0, 4)]
            yield {
                "row": row,
                "user": user + 2,
                "target_item": history[-1] if clicked else int(rng.integers(2, 12)),
                "target_time": now + row,
                "label": int(clicked),
                "weight": float(rng.choice([0.0, 0.5, 1.0, 4.0])),
                "type": int(rng.integers(1, 5)),
                "price": float(rng.normal()),
                "genre": padded(genres, 3),
                "genre_length": len(genres),
                "request": None if row % 7 == 0 else f"=r{row}",
                "bid": None if row % 5 == 0 else row / 8,
                "page": None if row % 3 == 0 else row * 10**12,
                "history_length": n,
                "history_item": padded(history, max_len),
                "history_position": padded(np.arange(n, 0, -1), max_len),
                "history_interval_bin": padded(1 + interval // 250, max_len),
                "history_time": padded(now + row - interval, max_len),
                "history_session": padded(np.ones(n, int), max_len),
            }

    said = {
        "dataset": "own-log",
        "target": Target("shown", {"by": "column"}, None),
        "fields": ["item"],
        "features": {
            "type": Feature("id", "type"),
            "price": Feature("number", None),
            "genre": Feature("list", "genre", 3),
        },
        "histories": {"history": _history(["item"], max_len)},
        "lookups": {},
        "timezone": "UTC",
        "train": {"batch_size": 64, "epochs": 1},
        "keep": keep,
        "weight": weight,
        "time_unit": unit,
    }
    vocabulary = {"user": users + 2, "item": 12, "type": 5, "genre": 7}
    _write(out, rows, schema, splits, vocabulary, layout=layout, **said)
    # What the manifest counts of the rows is so.
    path = out / "manifest.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    history = told["histories"]["history"]
    for split in splits:
        stored = pq.read_table([*sorted((out / split).glob("*.parquet"))])
        lengths = stored["history_length"].to_numpy()
        history["lengths"][split] = np.bincount(lengths, minlength=max_len + 1).tolist()
        if split == "train":
            cells = stored["history_interval_bin"].to_pylist()
            counted = [k for row, n in zip(cells, lengths, strict=True) for k in row[:n]]
            history["bins"]["train_counts"] = np.bincount(counted, minlength=5)[1:].tolist()
    path.write_text(json.dumps(told), encoding="utf-8")
    return out


@pytest.fixture
def make_log(tmp_path: Path) -> MakeDataset:
    """`make_log(**options)` writes somebody's own log into a folder; see `write_log`."""
    made = iter(range(100))
    return lambda **options: write_log(tmp_path / f"log{next(made)}", **options)


@pytest.fixture
def make_alibaba(tmp_path: Path) -> MakeDataset:
    """`make_alibaba(**options)` writes Alibaba's shards into a folder; see `write_alibaba`."""
    made = iter(range(100))
    return lambda **options: write_alibaba(tmp_path / f"alibaba{next(made)}", **options)


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """`make_dataset(**options)` writes a data set into its own folder; see `write_dataset`."""
    made = iter(range(100))
    return lambda **options: write_dataset(tmp_path / f"data{next(made)}", **options)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ragged data set, to be read only."""
    return write_dataset(tmp_path_factory.mktemp("planted") / "data")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors are fastest, and sums the same everywhere, on one thread."""
    torch.set_num_threads(1)
