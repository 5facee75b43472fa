"""Small data sets to verify, and copies of them to damage."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.verify import Report, verify
from schemas.manifest import NAME, SPLITS
from tests.alibaba_made import RawLog
from tests.alibaba_raw import PROFILE
from tests.conftest import write_raw
from tests.oracle import Review

DAY = 86_400
MAY_3 = 1_493_740_800  # midnight in Beijing, where the days begin
Columns = dict[str, list[Any]]
REVIEWS, ADS = ("padded reviews", "ragged reviews"), ("padded ads", "ragged ads")
PADDED, RAGGED = (REVIEWS[0], ADS[0]), (REVIEWS[1], ADS[1])
ALL = REVIEWS + ADS
BOTH = (REVIEWS[0], ADS[1])  # where the layout does not matter


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
    """A data set that may be damaged; what damages it says where a finding must be."""

    out: Path

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / NAME).read_text())
        return found

    def manifest(self, change: Callable[[dict[str, Any]], object]) -> str:
        raw = self.read()
        change(raw)
        (self.out / NAME).write_text(json.dumps(raw))
        return NAME

    def shard(self, split: str = "train") -> str:
        """The first shard of a split."""
        paths = (str(shard["path"]) for shard in self.read()["shards"])
        return next(path for path in paths if path.startswith(split))

    def table(self, name: str) -> pa.Table:
        return pq.ParquetFile(self.out / name).read()

    def write(self, name: str, table: pa.Table, **how: Any) -> str:
        """Replace a shard, and all that the manifest says of shards; or a table beside them."""
        pq.write_table(table, self.out / name, **how)
        if name.partition("/")[0] in SPLITS:
            self.settle()
        return name

    def edit(self, change: Callable[[Columns], int | None], name: str = "") -> str:
        """Change a file's rows, by default the first train shard's; `change` may say which."""
        name = name or self.shard()
        table = self.table(name)
        columns = table.to_pydict()
        row = change(columns)
        self.write(name, pa.Table.from_pydict(columns, schema=table.schema))
        group = "row group 0, " if name.partition("/")[0] in SPLITS else ""
        return name if row is None else f"{name}: {group}row {row}"

    def settle(self) -> None:
        """Make the manifest agree with the shards in checksums, rows, lengths and bins.

        It says no more what share of the rows this or that holds for.
        """
        raw = self.read()
        history = raw["histories"]["history"]
        raw["shares"], raw["rows"] = {}, dict.fromkeys(SPLITS, 0)
        lengths = {name: np.zeros(history["max_len"] + 1, int) for name in SPLITS}
        bins = np.zeros(256, int)
        for shard in raw["shards"]:
            split, table = shard["path"].partition("/")[0], self.table(shard["path"])
            shard["sha256"] = hashlib.sha256((self.out / shard["path"]).read_bytes()).hexdigest()
            shard["rows"] = len(table)
            raw["rows"][split] += len(table)
            if {"history_length", "history_interval_bin"} <= set(table.column_names):
                kept = np.clip(table["history_length"].to_numpy(), 0, history["max_len"])
                lengths[split] += np.bincount(kept, minlength=history["max_len"] + 1)
                cells = zip(table["history_interval_bin"].to_pylist(), kept, strict=True)
                for of_row, n in cells if split == "train" else ():
                    bins += np.bincount(of_row[:n], minlength=256)
        history["lengths"] = {name: n.tolist() for name, n in lengths.items()}
        history["bins"]["train_counts"] = bins[1 : history["bins"]["count"] + 1].tolist()
        (self.out / NAME).write_text(json.dumps(raw))


def copied(made: dict[str, Path], name: str, to: Path) -> Copy:
    shutil.copytree(made[name], to)
    return Copy(to)


def checked(out: Path) -> Report:
    return verify(out, threads=1)


def at(columns: Columns, least: int = 4, label: int | None = None) -> int:
    """A row with so many behaviours."""
    rows = enumerate(zip(columns["history_length"], columns["label"], strict=True))
    return next(row for row, (n, of) in rows if n >= least and label in (None, of))
