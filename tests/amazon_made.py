"""An Amazon data set read back, and held against the oracle and the released algorithm."""

from __future__ import annotations

import ast
import gzip
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.manifest import load
from tests.conftest import amazon, finished, meta_file, reviews_file
from tests.one_history import shard_schema
from tests.oracle import (
    SEQUENCES,
    SPLITS,
    Expected,
    in_history,
    interval_bin,
    not_in_train,
    quantile_edges,
)
from tests.released import SHIFT, as_released, read_reviews, released

FIELDS = ("item", "category")
TOUCHED = "touched every item"


def read_shards(out: Path) -> list[dict[str, Any]]:
    """Every row of every shard below `out`, as dicts with `split`, histories without padding.

    Raises:
        AssertionError: padding is not 0, or a list is not as long as its layout says.
    """
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        for path in sorted((out / split).glob("part-*.parquet")):
            table = pq.read_table(path, partitioning=None)
            width = {
                column.name: column.type.list_size
                for column in table.schema
                if pa.types.is_fixed_size_list(column.type)
            }
            rows.extend({"split": split, **_unpadded(r, width, path)} for r in table.to_pylist())
    return rows


def _unpadded(row: dict[str, Any], width: dict[str, int], path: Path) -> dict[str, Any]:
    """The row with its history lists cut to `history_length`, what is cut checked to be 0."""
    length = row["history_length"]
    trimmed = dict(row)
    for name in (f"history_{sequence}" for sequence in SEQUENCES):
        whole, where = row[name], f"{path.name} row {row['row']} {name}"
        assert len(whole) == width.get(name, length), f"{where}: {len(whole)} entries"
        assert not any(whole[length:]), f"{where}: padding is not 0: {whole[length:]}"
        trimmed[name] = whole[:length]
    return trimmed


def positives(shard_rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with label 1, in the raw file's order."""
    return sorted((r for r in shard_rows if r["label"] == 1), key=lambda r: r["row"])


def check_positives(shard_rows: Iterable[dict[str, Any]], expected: Expected) -> None:
    """Assert that the positives are exactly the expected rows, in every column."""
    got = positives(shard_rows)
    assert [r["row"] for r in got] == [r.row for r in expected.rows], "the targets differ"
    columns = [
        *("split", "user", "target_item", "target_category", "target_time", "label"),
        "history_length",
        *(f"history_{name}" for name in SEQUENCES),
    ]
    for ours, theirs in zip(got, expected.rows, strict=True):
        for name in columns:
            want = getattr(theirs, name)
            assert ours[name] == want, f"row {theirs.row} {name}: {ours[name]} is not {want}"


def check_negatives(
    shard_rows: Iterable[dict[str, Any]],
    expected: Expected,
    *,
    per_positive: int = 1,
    exhausted: int = 0,
) -> None:
    """Assert what must hold of every negative, whatever the draw.

    Each is a reviewed item that its user never touched, before or after; it carries its own
    category, and its positive's split, user, time and history; each positive has `per_positive` of
    them, or `exhausted` where its user has touched every item.
    """
    rows = list(shard_rows)
    of_row = {r["row"]: r for r in positives(rows)}
    drawn: Counter[int] = Counter()
    shared = [
        *("split", "user", "target_time", "history_length"),
        *(f"history_{name}" for name in SEQUENCES),
    ]
    for negative in rows:
        if negative["label"] == 1:
            continue
        where, item = f"negative of row {negative['row']}", negative["target_item"]
        assert negative["label"] == 0, f"{where}: label {negative['label']}"
        assert negative["row"] in of_row, f"{where}: it has no positive"
        assert item in expected.item_category, f"{where}: no item has the id {item}"
        assert item not in expected.touched[negative["user"]], f"{where}: the user touched {item}"
        assert negative["target_category"] == expected.item_category[item], f"{where}: category"
        for name in shared:
            assert negative[name] == of_row[negative["row"]][name], f"{where}: {name}"
        drawn[negative["row"]] += 1
    for row, positive in of_row.items():
        everything = len(expected.touched[positive["user"]]) == len(expected.item_category)
        want = exhausted if everything else per_positive
        assert drawn[row] == want, f"row {row}: {drawn[row]} negatives, not {want}"


def shards(out: Path) -> pl.DataFrame:
    """All rows in a fixed order, with their split."""
    manifest = load(out)
    frames = [
        pl.read_parquet(path).with_columns(split=pl.lit(split))
        for split in SPLITS
        for path in manifest.shard_paths(out, split)
    ]
    return pl.concat(frames).sort("row", "label", "target_item")


def vocabulary(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / "vocabulary" / f"{name}.parquet")


def held(expected: Expected, bins: int) -> tuple[Expected, int]:
    """What is stored of `expected`, and how many targets are not.

    A user who has touched every item can have no negative, so their targets are left out; bins are
    fitted on the histories as stored.
    """
    items = len(expected.item_category)
    full = {user for user, touched in expected.touched.items() if len(touched) == items}
    kept = [row for row in expected.rows if row.user not in full]
    train = [row for row in kept if row.split == "train"]
    edges = quantile_edges([t for row in train for t in row.history_interval], bins)
    kept = [
        replace(row, history_interval_bin=[interval_bin(t, edges) for t in row.history_interval])
        for row in kept
    ]
    in_bin = Counter(b for row in kept if row.split == "train" for b in row.history_interval_bin)
    counts = [in_bin[k] for k in range(1, bins + 1)]
    stored = replace(expected, rows=kept, edges=edges, train_counts=counts)
    return stored, len(expected.rows) - len(kept)


def agree(out: Path, expected: Expected, full: int, negatives: int = 1) -> None:
    """Assert that a data set is what the oracle says, by its manifest and in every row."""
    manifest, got = load(out), read_shards(out)
    check_positives(got, expected)
    check_negatives(got, expected, per_positive=negatives)
    assert manifest.history.bins.edges_s == expected.edges
    # The negatives have their positive's history.
    stored = [n * (1 + negatives) for n in expected.train_counts]
    assert manifest.history.bins.train_counts == stored
    assert manifest.rejected.get(TOUCHED, 0) == full
    told = {name: (share.count, share.of) for name, share in manifest.shares.items()}
    (repeats,) = (name for name in told if name.startswith("repeated reviews"))
    assert told[repeats][0] == expected.repeated
    check_shares(got, FIELDS, told)
    with_line, with_category = expected.listed
    items = len(expected.item_category)
    assert told["items without a meta line"] == (items - with_line, items)
    assert told["items whose meta line has no category"] == (with_line - with_category, items)
    in_split = Counter(row["split"] for row in got)
    assert {name: n for name, n in manifest.rows.items() if n} == dict(in_split)
    for name, ids in expected.vocabulary.items():
        words = vocabulary(out, name)
        assert dict(words.select("value", "id").rows()) == ids, name
        assert dict(words.select("value", "count").rows()) == expected.counts[name], name
        assert manifest.vocabulary[name] == len(ids) + 2
    items = pl.read_parquet(out / "lookups/item.parquet").select(FIELDS)
    assert dict(items.rows()) == expected.item_category


def check_shares(
    got: Iterable[dict[str, Any]], fields: tuple[str, ...], told: dict[str, tuple[int, int]]
) -> None:
    """Assert that the manifest tells what of the rows is in their own history, and not in train."""
    rows = list(got)
    for (split, name), want in not_in_train(rows, fields).items():
        assert told[f"{split} {name} ids not in train"] == want, (split, name)
    counted = in_history(rows, fields)
    for split in SPLITS:
        for label, name in enumerate(("negatives", "positives")):
            held, others = counted[split, label, True], counted[split, label, False]
            key = f"{split} {name} in own history"
            assert told[key] == (held, held + others), key


def check_parity(raw_folder: Path, out: Path, category: str) -> None:
    finished(amazon(raw_folder, out, "--parity", category=category))
    reviews = read_reviews(reviews_file(raw_folder, category))
    reviewed = {item for _, item, _ in reviews}
    # The released code has no rule for items without a category or with several lines: of these
    # the first counts, and no category is one that sorts first.
    categories: dict[str, str] = {}
    with gzip.open(meta_file(raw_folder, category), "rt", encoding="utf-8") as lines:
        for item in map(ast.literal_eval, lines):
            paths = item.get("categories") or [[]]
            if item["asin"] in reviewed:
                categories.setdefault(item["asin"], paths[-1][-1] if paths[-1] else "")
    want = released(reviews, [*categories.items()])
    manifest = load(out)
    assert manifest.layout == "ragged"
    columns = ["user", "history_item", "target_item", "label", "history_length"]
    longest = 0
    for split, theirs in (("train", want.train), ("valid", want.valid), ("test", want.test)):
        frame = pl.concat(
            pl.read_parquet(path, columns=columns) for path in manifest.shard_paths(out, split)
        ).with_columns(split=pl.lit(split))
        assert (frame["history_item"].list.len() == frame["history_length"]).all()
        longest = max(longest, *frame["history_length"].to_list())
        assert as_released(frame.iter_rows(named=True), split) == theirs, split
    assert manifest.history.max_len == longest
    items = pl.read_parquet(out / "lookups/item.parquet").sort("item")
    shift = SHIFT - ("" in categories.values())  # then rank 0 is our unknown
    assert (items["category"] - shift).to_list() == want.categories


def write_shards(expected: Expected, out: Path, layout: str, max_len: int, negative: int) -> None:
    """Shards of the expected rows, each with one negative: the lowest item never touched."""
    schema = shard_schema(("item", "category"), layout, max_len)
    for split in SPLITS:
        rows = []
        for r in expected.rows:
            if r.split != split:
                continue
            row = {name: getattr(r, name) for name in schema.names}
            if layout == "padded":
                for name in schema.names:
                    if isinstance(row[name], list):
                        row[name] = row[name] + [0] * (max_len - r.history_length)
            free = min(expected.item_category.keys() - expected.touched[r.user])
            item = negative or free
            other = {"target_item": item, "target_category": expected.item_category[item]}
            rows += [row, {**row, **other, "label": 0}]
        (out / split).mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema), out / split / "part-00000.parquet")
