"""Ranks and workers share the rows out: each row comes once."""

from __future__ import annotations

import pytest
from torch.utils.data import DataLoader

from tests.trainer.batches import rows_of
from trainer.data import Shards


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
