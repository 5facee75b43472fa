from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from schemas.errors import ContractError, InputError, UsageError
from tests.trainer.batches import rows_of
from trainer.data import shards as data
from trainer.data.batches import Rows, Runs, batches_of
from trainer.data.row_groups import RowGroup
from trainer.data.shards import Batch, Shards

COLUMNS = ("row", "label", "target_item", "history_item", "history_interval_bin")


def contents(batches: list[Batch]) -> set[tuple]:
    """Each row with its history, padding stripped."""
    found = set()
    for b in batches:
        for i, n in enumerate(b["history_length"].tolist()):
            lists = (b["history_item"][i, :n], b["history_interval_bin"][i, :n])
            found.add(
                (
                    int(b["row"][i]),
                    float(b["label"][i]),
                    int(b["target_item"][i]),
                    *(tuple(x.tolist()) for x in lists),
                )
            )
    return found


def stored(out: Path, split: str) -> set[tuple]:
    table = pa.concat_tables(pq.read_table(p) for p in sorted((out / split).glob("*.parquet")))
    return {
        (
            r["row"],
            float(r["label"]),
            r["target_item"],
            *(tuple(r[c][: r["history_length"]]) for c in COLUMNS[3:]),
        )
        for r in table.to_pylist()
    }


@pytest.mark.parametrize("layout", ["padded", "ragged"])
@pytest.mark.parametrize("memory_mb", [2048, 0.02])
@pytest.mark.parametrize("cells", [None, 40])
@pytest.mark.parametrize("seed", [None, 3])
def test_every_row_once_with_its_own_history(make_dataset, layout, memory_mb, cells, seed):
    shards = Shards(make_dataset(layout=layout, min_len=0), memory_mb=memory_mb)
    assert (shards.nbytes("train", COLUMNS) > memory_mb * 2**20) == (memory_mb < 1)
    groups = list(
        shards.grouped_batches(
            "train", batch_size=32, cells=cells, shuffle_seed=seed, columns=COLUMNS
        )
    )
    batches = [b for g in groups for b in g]
    assert sum(len(b["row"]) for b in batches) == shards.manifest.rows["train"]
    assert contents(batches) == stored(shards.out, "train")
    sizes = [sum(len(b["row"]) for b in g) for g in groups]
    assert set(sizes[:-1]) == {32}
    if seed is None and cells is None:
        assert rows_of(batches) == sorted(rows_of(batches))


def test_histories_are_trimmed_to_the_batch_and_padded_with_zero(make_dataset):
    shards = Shards(make_dataset(layout="padded", max_len=40, min_len=0))
    for batch in shards.batches("train", batch_size=4, shuffle_seed=1):
        n = batch["history_length"]
        width = batch["history_item"].shape[1]
        assert width == max(1, int(n.max()))
        padding = torch.arange(width) >= n[:, None]
        for name in ("history_item", "history_position", "history_time"):
            assert batch[name].shape == (len(n), width)
            assert (batch[name][padding] == 0).all()
            assert (batch[name][~padding] > 0).all()


def test_tensor_types(make_dataset):
    batch = next(Shards(make_dataset(extra=True)).batches("train", batch_size=5))
    expected = {
        "label": torch.float32,
        "price": torch.float32,
        "row": torch.int64,
        "target_time": torch.int64,
        "history_time": torch.int64,
    }
    for name, tensor in batch.items():
        assert tensor.dtype == expected.get(name, torch.int32), name
    assert batch["session_length"].tolist() == [[0, 1, 2]] * 5


@pytest.mark.parametrize("memory_mb", [2048, 0.02])
def test_order_is_a_function_of_seed_and_epoch(planted, memory_mb):
    def order(seed: int, epoch: int) -> list[int]:
        shards = Shards(planted, memory_mb=memory_mb)
        return rows_of(list(shards.batches("train", batch_size=32, shuffle_seed=seed, epoch=epoch)))

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(s, e)) for s in (1, 2) for e in (0, 1)}) == 4


@pytest.mark.parametrize("memory_mb", [2048, 0.02])
def test_streamed_shuffle_mixes_row_groups(planted, memory_mb):
    batches = Shards(planted, memory_mb=memory_mb).batches("train", batch_size=32, shuffle_seed=0)
    row_groups = [len(np.unique(b["row"].numpy() // 25)) for b in batches]
    assert np.mean(row_groups) > 3  # 32 rows in stored order touch at most 3 groups of 25


def test_set_epoch_gives_another_order(planted):
    dataset = Shards(planted).dataset("valid", batch_size=16, shuffle_seed=1)
    first = rows_of(list(dataset))
    dataset.set_epoch(1)
    assert rows_of(list(dataset)) != first


def test_only_the_columns_asked_for(planted):
    batch = next(Shards(planted).batches("train", batch_size=4, columns=("label",)))
    assert set(batch) == {"label", "history_length"}


def test_a_batch_is_the_readers_own(planted):
    shards = Shards(planted)
    for batch in shards.batches("valid", batch_size=16):
        for tensor in batch.values():
            tensor.fill_(77)
    assert contents(list(shards.batches("valid", batch_size=16))) == stored(planted, "valid")


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=80),
    histories=st.integers(1, 2),
    ends=st.lists(st.integers(0, 80), max_size=12),
    cells=st.one_of(st.none(), st.integers(1, 200)),
)
def test_batches_of_any_lengths(lengths, histories, ends, cells):
    of = {
        name: np.array(n)
        for name, n, _ in zip("xy", zip(*lengths, strict=True), range(histories), strict=False)
    }
    every = sum(of.values())
    starts = {name: np.cumsum(n) - n for name, n in of.items()}
    row = np.arange(len(every), dtype=np.int64)
    runs = {name: Runs.of({name: np.arange(n.sum(), dtype=np.int32)}, n) for name, n in of.items()}
    rows = Rows({"row": row}, {}, runs)
    assert np.array_equal(rows.lengths, every)
    order = np.random.default_rng(0).permutation(len(row))
    seen = []
    bounds = sorted([0, len(row), *(min(end, len(row)) for end in ends)])
    sizes = np.diff(bounds)  # some perhaps 0
    end = 0
    for size, groups in zip(sizes, batches_of(rows, order, sizes, cells), strict=True):
        ids = [int(i) for g in groups for i in g["row"]]
        assert sorted(ids) == sorted(order[end : end + size].tolist())
        end += size
        for group in groups:
            for name, n in of.items():
                for r, x in zip(group["row"].tolist(), group[name].tolist(), strict=True):
                    assert x[: n[r]] == list(range(starts[name][r], starts[name][r] + n[r]))
                    assert not any(x[n[r] :])
            longest = sum(n[group["row"]].max() for n in of.values())
            fits = cells is None or longest * len(group["row"]) <= cells
            assert fits or len(group["row"]) == 1
        seen += ids
    assert sorted(seen) == list(range(len(row)))


def test_errors_name_what_is_wrong(make_dataset, tmp_path):
    with pytest.raises(InputError, match="no data set"):
        Shards(tmp_path / "nowhere")
    out = make_dataset(splits=("train",))
    shards = Shards(out)
    with pytest.raises(UsageError, match="no split 'test'"):
        next(shards.batches("test", batch_size=2))
    with pytest.raises(UsageError, match="no column nonsense"):
        next(shards.batches("train", batch_size=2, columns=("nonsense",)))
    with pytest.raises(UsageError, match="no batches"):
        next(shards.batches("train", batch_size=2, rank=1, world=1))
    part = out / "train/part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        next(Shards(out).batches("train", batch_size=2))
    part.unlink()
    with pytest.raises(InputError, match="missing"):
        next(Shards(out).batches("train", batch_size=2))


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("target_item", 32, "target_item holds a value"),
        ("history_item", [2] * 13, "history_item do not match history_length"),
        ("history_position", [13, 1], "history_position holds a value"),
        ("label", 2, "label holds a value"),
        ("history_length", 13, "history_length holds a value"),
    ],
)
def test_a_shard_that_breaks_its_contract_is_refused(make_dataset, column, value, what):
    out = make_dataset()
    path = out / "train/part-00000.parquet"
    table = pq.read_table(path)
    row = next(i for i, n in enumerate(table["history_length"].to_pylist()) if n == 2)
    values = table[column].to_pylist()
    values[row] = value
    i = table.schema.get_field_index(column)
    field = table.schema.field(i)
    pq.write_table(table.set_column(i, field, pa.array(values, field.type)), path)
    with pytest.raises(ContractError, match=what) as caught:
        next(Shards(out).batches("train", batch_size=2))
    assert caught.value.where == path


def test_rows_that_the_manifest_does_not_count_are_refused(make_dataset):
    out = make_dataset()
    path = out / "train/part-00000.parquet"
    pq.write_table(pq.read_table(path)[:-1], path)
    with pytest.raises(ContractError, match="another number of rows"):
        next(Shards(out).batches("train", batch_size=2))


def test_the_example_runs_as_it_stands(planted, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/amazon").symlink_to(planted)
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(Shards, globs={"Shards": Shards})
    assert len(example.examples) == 5
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_a_split_is_read_once(planted, monkeypatch):
    shards = Shards(planted)
    first = list(shards.batches("valid", batch_size=16))
    monkeypatch.setattr(RowGroup, "read", lambda *a: pytest.fail("read again"))
    assert contents(list(shards.batches("valid", batch_size=16))) == contents(first)


def test_a_streamed_block_stays_within_the_bound(planted, monkeypatch):
    shards = Shards(planted, memory_mb=0.06)
    sizes = []

    def spy(rows, *options):
        sizes.append(rows.nbytes)
        return batches_of(rows, *options)

    monkeypatch.setattr(data, "batches_of", spy)
    assert len(list(shards.batches("train", batch_size=32, shuffle_seed=0))) == 12
    assert len(sizes) > 3
    assert max(sizes) <= 0.06 * 2**20


def test_a_field_without_a_vocabulary_is_refused(make_dataset):
    out = make_dataset()
    path = out / "manifest.json"
    path.write_text(path.read_text().replace('"category": 8', '"colour": 8'), encoding="utf-8")
    with pytest.raises(ContractError, match="declares what cannot be: fields"):
        Shards(out)


@pytest.mark.parametrize("memory_mb", [2048, 0.02])
@pytest.mark.parametrize("seed", [None, 5])
def test_ranks_share_the_rows_out(planted, memory_mb, seed):
    shards = Shards(planted, memory_mb=memory_mb)
    parts = [
        rows_of(list(shards.batches("train", batch_size=7, shuffle_seed=seed, rank=rank, world=3)))
        for rank in range(3)
    ]
    assert all(parts)
    joined = [row for part in parts for row in part]
    assert sorted(joined) == sorted(set(joined))
    assert len(joined) == shards.manifest.rows["train"]


def test_more_ranks_than_row_groups_leave_some_without_rows(planted):
    shards = Shards(planted, memory_mb=0.02)
    parts = [list(shards.batches("valid", batch_size=9, rank=r, world=9)) for r in range(9)]
    assert not all(parts)
    found = [row for part in parts if part for row in rows_of(part)]
    assert len(set(found)) == len(found) == shards.manifest.rows["valid"]


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize(("world", "size"), [(1, 32), (2, 32), (3, 32), (7, 5), (3, 1000)])
def test_ranks_make_up_the_batches_of_one_in_memory(planted, world, size, seed):
    shards = Shards(planted)
    wanted = {"batch_size": size, "cells": 40, "shuffle_seed": seed, "columns": ("row",)}
    whole = [rows_of(groups) for groups in shards.grouped_batches("train", **wanted)]
    parts = [
        list(shards.grouped_batches("train", **wanted, rank=r, world=world, together=True))
        for r in range(world)
    ]
    for batch, *of_ranks in zip(whole, *parts, strict=True):
        found = [rows_of(groups) if groups else [] for groups in of_ranks]
        assert sorted(row for part in found for row in part) == sorted(batch)
        assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("split", ["train", "valid"])  # 16 and 6 row groups
@pytest.mark.parametrize(("world", "size"), [(1, 32), (2, 32), (3, 32), (9, 7), (3, 1000)])
def test_ranks_that_stream_have_equally_many_batches(planted, world, size, split, seed):
    shards = Shards(planted, memory_mb=0.005)
    rows = shards.manifest.rows[split]
    steps, seen = -(-rows // size), []
    for rank in range(world):
        part = list(
            shards.grouped_batches(
                split,
                batch_size=size,
                cells=40,
                shuffle_seed=seed,
                columns=("row", "history_item"),
                rank=rank,
                world=world,
                together=True,
            )
        )
        assert len(part) == steps
        sizes = [sum(len(group["row"]) for group in groups) for groups in part]
        if world > 1:
            assert max(sizes) - min(sizes) <= 1
        seen += [int(row) for groups in part for group in groups for row in group["row"]]
    assert len(seen) == len(set(seen)) == rows


def test_workers_of_a_data_loader_share_the_rows_out(planted):
    dataset = Shards(planted).dataset("valid", batch_size=16, shuffle_seed=1, columns=("row",))
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert sorted(rows_of(list(loader))) == sorted(rows_of(list(dataset)))
