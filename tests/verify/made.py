"""Small data sets to verify, and copies of them to damage."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_shards import ShardWriter
from pipeline.verify import Report, verify
from schemas.errors import ContractError
from schemas.manifest import NAME, SPLITS
from tests.alibaba_made import RawLog
from tests.alibaba_raw import PROFILE
from tests.conftest import write_raw
from tests.oracle import Review

DAY = 86_400
MAY_3 = 1_493_740_800  # midnight in Beijing, where the days begin
Columns = dict[str, list[Any]]
REVIEWS, IMPRESSIONS = ("padded reviews", "ragged reviews"), ("padded ads", "ragged ads")
PADDED, RAGGED = (REVIEWS[0], IMPRESSIONS[0]), (REVIEWS[1], IMPRESSIONS[1])
ALL = REVIEWS + IMPRESSIONS
BOTH = (REVIEWS[0], IMPRESSIONS[1])  # where the layout does not matter


def review_files(folder: Path) -> Path:
    """40 users with 2 to 14 reviews of 60 items in 5 categories; one item has none."""
    draw = random.Random(1)
    reviews: list[Review | None] = []
    for user in range(40):
        day = 0
        for item in draw.sample(range(60), 2 + user % 13):
            day += draw.choice([0, 1, 1, 2, 5, 30])
            reviews.append(Review(f"U{user:02}", f"I{item:02}", 1_300_000_000 + day * DAY))
    draw.shuffle(reviews)
    seen = sorted({r.item for r in reviews if r})
    meta = [(item, None if item == seen[3] else f"C{int(item[1:]) % 5}") for item in seen]
    return write_raw(folder, reviews, meta)


def impression_files(folder: Path) -> Path:
    """30 users with 0 to 29 behaviours, and impressions on 4 days; 3 users have no profile."""
    draw = random.Random(2)
    impressions, behaviours = [], []
    for user in range(30):
        time = MAY_3 + 1000
        for _ in range(user):
            time += draw.choice([0, 1, 60, 60, 600, 600, 1800, 1801, 20_000])
            brand = draw.choice([None, 1, 2, 3, 4])
            behaviours.append((user, time, "pv", draw.randrange(8), brand))
        for day in (3, 4, 5, 5, 6):
            at = MAY_3 + day * DAY + draw.randrange(DAY)
            impressions.append((user, at, draw.randrange(12), f"p{user % 2}", draw.randrange(2)))
    ads = [
        (ad, ad % 8, ad // 2, ad // 3, None if ad == 5 else ad % 6, ad + 0.5) for ad in range(12)
    ]
    profiles = [(user, *(user % n for n in range(2, 2 + len(PROFILE)))) for user in range(27)]
    return RawLog(impressions, ads, profiles, behaviours).write(folder)


@dataclass
class Copy:
    """A data set that may be damaged."""

    out: Path

    def manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.out / NAME
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / NAME).read_text())
        return found

    def path(self, split: str = "train") -> Path:
        """The first shard of a split."""
        return next(
            self.out / s["path"] for s in self.read()["shards"] if s["path"].startswith(split)
        )

    def paths(self) -> list[Path]:
        return [self.out / s["path"] for s in self.read()["shards"]]

    def table(self, split: str = "train") -> pa.Table:
        return pq.ParquetFile(self.path(split)).read()

    def write(self, path: Path, table: pa.Table, **how: Any) -> None:
        """Replace a shard, and all that the manifest says of it.

        It is written as the pipeline writes shards, where it can write such a table, else by Arrow.
        """
        pq.write_table(table, path, **how)
        if not how:
            with suppress(ContractError), ShardWriter(path, table.schema) as writer:
                writer.write_table(table)
        self.settle()

    def edit(self, change: Callable[[Columns], object], split: str = "train") -> None:
        """Change the first shard's rows, and all that the manifest says of them."""
        path, table = self.path(split), self.table(split)
        columns = table.to_pydict()
        change(columns)
        self.write(path, pa.Table.from_pydict(columns, schema=table.schema))

    def settle(self) -> None:
        """Make the manifest agree with the shards in checksums, rows, lengths and bins.

        It says no more what share of the rows this or that holds for.
        """
        raw = self.read()
        raw["shares"] = {}
        raw["rows"] = dict.fromkeys(SPLITS, 0)
        lengths = {name: np.zeros(raw["max_len"] + 1, int) for name in SPLITS}
        bins = np.zeros(256, int)
        for shard in raw["shards"]:
            path = self.out / shard["path"]
            split = path.parent.name
            table = pq.ParquetFile(path).read()
            shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            shard["rows"] = len(table)
            raw["rows"][split] += len(table)
            if not {"history_length", "history_interval_bin"} <= set(table.column_names):
                continue
            kept = np.clip(table["history_length"].to_numpy(), 0, raw["max_len"])
            lengths[split] += np.bincount(kept, minlength=raw["max_len"] + 1)
            if split == "train":
                for cells, n in zip(table["history_interval_bin"].to_pylist(), kept, strict=True):
                    bins += np.bincount(cells[:n], minlength=256)
        raw["history_lengths"] = {name: n.tolist() for name, n in lengths.items()}
        raw["bins"]["train_counts"] = bins[1 : raw["bins"]["count"] + 1].tolist()
        (self.out / NAME).write_text(json.dumps(raw))

    def small(self, name: str, change: Callable[[Columns], object]) -> None:
        """Change a table beside the shards."""
        table = pq.ParquetFile(self.out / name).read()
        columns = table.to_pydict()
        change(columns)
        pq.write_table(pa.Table.from_pydict(columns, schema=table.schema), self.out / name)


def copied(made: dict[str, Path], name: str, to: Path) -> Copy:
    shutil.copytree(made[name], to)
    return Copy(to)


def checked(out: Path) -> Report:
    return verify(out, threads=1)


def at(columns: Columns, least: int = 4, label: int | None = None) -> int:
    """A row with so many behaviours."""
    for row, length in enumerate(columns["history_length"]):
        if length >= least and label in (None, columns["label"][row]):
            return row
    raise AssertionError("no such row")
