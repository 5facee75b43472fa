"""Small data sets in the contract's schema, with an effect to find."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from schemas.manifest import Bins, DataFile, Manifest
from schemas.shards import history_type, shard_schema

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
    fields = ("item", "category")
    schema = shard_schema(fields, layout, max_len)
    if extra:
        schema = schema.append(pa.field("pid", pa.int32(), nullable=False))
        schema = schema.append(pa.field("price", pa.float32(), nullable=False))
        element = pa.field("element", pa.int16(), nullable=False)
        schema = schema.append(pa.field("session_length", pa.list_(element, 3), nullable=False))
    shards, counts, row = [], {}, 0
    for split in splits:
        columns: dict[str, list] = {name: [] for name in schema.names}
        for user in range(users):
            for _ in range(train_pairs if split == "train" else 1):
                n = int(rng.integers(min_len, max_len + 1))
                history = rng.integers(0, items, n)
                liked = category_of[history[-1]] if n else 2
                same = np.flatnonzero(category_of == liked)
                other = np.flatnonzero(category_of != liked)
                interval = np.sort(rng.integers(0, 1000, n))[::-1]
                for label, pool in ((1, same), (0, other)):
                    target = rng.choice(pool)
                    values = {
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
                    for name in columns:
                        columns[name].append(values[name])
                    row += 1
        counts[split] = row - sum(counts.values())
        shards += _write_split(out, split, schema, columns)
    vocabulary = {"item": items + 2, "category": categories + 2, "user": users + 2}
    vocabulary |= {"pid": 4} if extra else {}
    _write_vocabularies(out, vocabulary)
    manifest = Manifest(
        format=1,
        dataset="planted",
        synthetic=True,
        version="0",
        config={},
        inputs=[],
        rows=counts,
        fields=list(fields),
        vocabulary=vocabulary,
        layout=layout,
        max_len=max_len,
        bins=Bins(4, [249, 499, 749], [1, 1, 1, 1]),
        history_lengths={},
        rejected={},
        notes=[],
        shards=shards,
    )
    (out / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return out


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
    count, most = sessions
    fields = ("category", "brand")
    vocabulary = {"user": users + 2, "category": 8, "brand": 12, **dict.fromkeys(OTHERS, 6)}
    schema = list(shard_schema(fields, layout, max_len))
    place = [f.name for f in schema].index("history_length")
    schema[place:place] = [pa.field(n, pa.int32(), nullable=False) for n in OTHERS] + [
        pa.field("price", pa.float32(), nullable=False)
    ]
    for name, kind, cells in (
        *((n, pa.int32(), count * most) for n in fields),
        ("length", pa.int16(), count),
    ):
        schema.append(
            pa.field(f"session_{name}", history_type(kind, layout, cells), nullable=False)
        )
    schema = pa.schema(schema)
    shards, counts, row = [], {}, 0
    for split in splits:
        columns: dict[str, list] = {name: [] for name in schema.names}
        for user in range(users):
            for _ in range(per_user):
                n = 0 if rng.random() < empty else int(rng.integers(1, max_len + 1))
                liked = int(rng.integers(2, 8))
                category = np.where(rng.random(n) < 0.7, liked, rng.integers(1, 8, n))
                interval = np.sort(rng.integers(1, 1000, n))[::-1]
                target = int(rng.integers(2, 8))
                lengths = rng.integers(3, most + 1, rng.integers(0, count + 1) if n else 0)
                held = np.zeros((count, most), bool)
                held[: len(lengths)] = np.arange(most) < lengths[:, None]
                session = {f: np.where(held, rng.integers(1, 8, held.shape), 0) for f in fields}
                values = {
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
                for name in columns:
                    columns[name].append(values[name])
                row += 1
        counts[split] = row - sum(counts.values())
        shards += _write_split(out, split, schema, columns)
    _write_vocabularies(out, vocabulary)
    manifest = Manifest(
        format=1,
        dataset="alibaba-planted",
        synthetic=True,
        version="0",
        config={"sessions": f"{count}x{most}", "timezone": "Asia/Shanghai"},
        inputs=[],
        rows=counts,
        fields=list(fields),
        vocabulary=vocabulary,
        layout=layout,
        max_len=max_len,
        bins=Bins(4, [249, 499, 749], [1, 1, 1, 1]),
        history_lengths={},
        rejected={},
        notes=[],
        shards=shards,
    )
    (out / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return out


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
