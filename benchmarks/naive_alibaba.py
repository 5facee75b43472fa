"""The benchmark's second peer: our own steps, all in memory, without streaming or buckets.

`python benchmarks/naive_alibaba.py RAW OUT` reads the four raw files in the folder RAW whole with
Polars, sorts all behaviours at once, finds each impression's history and sessions by NumPy's
`searchsorted`, makes every padded column at once, and writes to OUT the shards that
`tinprep alibaba` makes with its default options. It is what somebody would write who has the
memory: it checks no line, counts nothing that it leaves out, and a crash costs all of it.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

MAX_LEN, BINS, GAP, SESSIONS, SESSION_LEN = 50, 10, 1800, 5, 10
ZONE = "Asia/Shanghai"
PROFILE = (
    *("cms_segid", "cms_group_id", "final_gender_code", "age_level"),
    *("pvalue_level", "shopping_level", "occupation", "new_user_class_level"),
)
SPLITS = ("train", "valid", "test")


def read(raw: Path) -> dict[str, pl.DataFrame]:
    """The raw files as tables: impressions of known ads with their day, ads, profiles, log."""

    def table(name: str) -> pl.DataFrame:
        found = raw / name
        path = found if found.exists() else raw / f"{name}.gz"
        return pl.read_csv(path, null_values=["NULL", ""]).rename(str.strip)

    ads = table("ad_feature.csv").unique("adgroup_id", keep="first", maintain_order=True)
    profiles = table("user_profile.csv").unique("userid", keep="first", maintain_order=True)
    seconds = pl.from_epoch("time_stamp").dt.replace_time_zone("UTC")
    impressions = (
        table("raw_sample.csv")
        .with_row_index("row")
        .join(ads.select("adgroup_id"), on="adgroup_id", how="semi", maintain_order="left")
        .with_columns(day=seconds.dt.convert_time_zone(ZONE).dt.date())
    )
    midnight = pl.col("day").min().cast(pl.Datetime).dt.offset_by("-3d").dt.replace_time_zone(ZONE)
    since = impressions.select(midnight.dt.epoch("s")).item()
    counts = (pl.col("btag") == "pv") & (pl.col("time_stamp") >= max(since, 1))
    log = table("behavior_log.csv").filter(counts)
    return {"impressions": impressions, "ads": ads, "profiles": profiles, "log": log}


def ids(out: Path, name: str, *columns: pl.Series) -> list[pl.Series]:
    """Ids of each column's values: one vocabulary, sorted, from 2 on; 1 where there is none."""
    counted = pl.concat([c.alias("value") for c in columns]).drop_nulls().value_counts()
    words = counted.sort("value").with_row_index("id", offset=2).cast({"id": pl.Int32})
    words.select("value", "id", "count").write_parquet(out / "vocabulary" / f"{name}.parquet")
    known = words.select("value", "id")
    return [
        c.to_frame("value").join(known, on="value", how="left", maintain_order="left")["id"]
        for c in (c.alias("value") for c in columns)
    ]


def encode(tables: dict[str, pl.DataFrame], out: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Impressions with the ids of user, ad and profile; behaviours of their users, in order."""
    impressions, ads, profiles, log = tables.values()
    category, behaviour_category = ids(out, "category", ads["cate_id"], log["cate"])
    brand, behaviour_brand = ids(out, "brand", ads["brand"], log["brand"])
    ads = ads.select(
        "adgroup_id",
        "price",
        target_category=category,
        target_brand=brand,
        ad=ids(out, "ad", ads["adgroup_id"])[0],
        campaign=ids(out, "campaign", ads["campaign_id"])[0],
        customer=ids(out, "customer", ads["customer"])[0],
    )
    profiles = profiles.select("userid", *(ids(out, f, profiles[f])[0].alias(f) for f in PROFILE))
    log = log.select(
        "user", time="time_stamp", category=behaviour_category, brand=behaviour_brand
    ).with_columns(pl.col("category", "brand").fill_null(1))
    made = (
        impressions.select(
            pl.col("row").cast(pl.Int64),
            "adgroup_id",
            "day",
            userid="user",
            user=ids(out, "user", impressions["user"])[0],
            target_time="time_stamp",
            label=pl.col("clk").cast(pl.Int8),
            pid=ids(out, "pid", impressions["pid"])[0],
        )
        .join(ads, on="adgroup_id", how="left", maintain_order="left")
        .join(profiles, on="userid", how="left", maintain_order="left")
        .with_columns(pl.col(pl.Int32).fill_null(1))
    )
    age = (pl.col("day").max() - pl.col("day")).dt.total_days()
    split = pl.when(age == 0).then(pl.lit("test")).when(age == 1).then(pl.lit("valid"))
    made = made.with_columns(split=split.otherwise(pl.lit("train")))
    whose = made.select(pl.col("userid").alias("user"), pl.col("user").alias("u")).unique()
    behaviours = log.join(whose, on="user").drop("user").sort("u", "time", "category", "brand")
    price = pl.when(pl.col("price") > 0).then(pl.col("price").log())
    train = pl.col("split") == "train"
    standard = (price - price.filter(train).mean()) / price.filter(train).std(ddof=0)
    return made.with_columns(price=standard.fill_null(0.0).cast(pl.Float32)), behaviours


def windows(impressions: pl.DataFrame, log: pl.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    """Every list column, padded: (impressions, L) for histories, (impressions, M*K) for sessions.

    Also `history_length`, and the interval bins' edges.
    """
    user, at = log["u"].to_numpy().astype(np.int64), log["time"].to_numpy()
    times = impressions["target_time"].to_numpy()
    # One key, so that one search finds a user's behaviours up to a time.
    zero = min(int(at.min(initial=times.min())), int(times.min()))
    begins = np.searchsorted(user, impressions["user"].to_numpy().astype(np.int64))
    ends = np.searchsorted(
        user << 32 | (at - zero),
        impressions["user"].to_numpy().astype(np.int64) << 32 | (times - zero),
    )
    first = np.maximum(begins, ends - MAX_LEN)
    length = ends - first
    place = np.arange(MAX_LEN)
    inside = place < length[:, None]
    # Padding points at an entry past the end, which holds 0.
    index = np.where(inside, first[:, None] + place, len(at))
    new = (np.diff(user, prepend=-1) != 0) | (np.diff(at, prepend=0) > GAP)
    session = np.cumsum(new) - 1
    stored = {
        "category": np.append(log["category"].to_numpy(), np.int32(0)),
        "brand": np.append(log["brand"].to_numpy(), np.int32(0)),
        "time": np.append(at, 0),
    }
    made = {f"history_{name}": values[index] for name, values in stored.items()}
    made["history_length"] = length.astype(np.int16)
    position = np.where(inside, length[:, None] - place, 0)
    made["history_position"] = position.astype(np.int16)
    latest = np.append(session, 0)[ends - 1]
    number = np.where(inside, latest[:, None] - np.append(session, 0)[index] + 1, 0)
    made["history_session"] = number.astype(np.int16)
    interval = times[:, None] - made["history_time"]
    train = (impressions["split"] == "train").to_numpy()
    ordered = np.sort(interval[train][inside[train]])
    ranks = -(-np.arange(1, BINS) * len(ordered) // BINS) - 1
    made["edges"] = ordered[ranks]
    bins = np.where(inside, np.searchsorted(made["edges"], interval) + 1, 0)
    made["history_interval_bin"] = bins.astype(np.uint8)

    starts = np.append(np.flatnonzero(new), len(at))
    long = np.flatnonzero(np.diff(starts) > 2)
    # The latest session may go on after the impression; those before it are whole.
    opened = np.where(ends > begins, starts[latest], ends)
    latest_counts = ends - opened > 2
    before = np.searchsorted(long, latest)
    cells = np.full((len(times), SESSIONS, SESSION_LEN), len(at))
    lengths = np.zeros((len(times), SESSIONS), np.int16)
    for m in range(SESSIONS):
        k = before - 1 - m + latest_counts
        other = long[np.maximum(k, 0)] if len(long) else np.zeros_like(k)
        earlier = (k >= 0) & (ends > begins) & (starts[other] >= begins)
        is_latest = latest_counts & (m == 0)
        begin = np.where(is_latest, opened, starts[other])
        end = np.where(is_latest, ends, starts[other + 1])
        begin = np.maximum(begin, end - SESSION_LEN)
        n = np.where(is_latest | earlier, end - begin, 0)
        place = np.arange(SESSION_LEN)
        cells[:, m] = np.where(place < n[:, None], begin[:, None] + place, len(at))
        lengths[:, m] = n
    flat = cells.reshape(len(times), -1)
    made |= {f"session_{name}": stored[name][flat] for name in ("category", "brand")}
    made["session_length"] = lengths
    return made


def write(impressions: pl.DataFrame, lists: dict[str, np.ndarray[Any, Any]], out: Path) -> None:
    """One shard a split."""
    order = ["row", "user", "target_category", "target_brand", "target_time", "label"]
    order += ["ad", "campaign", "customer", "pid", *PROFILE, "price"]
    names = ["category", "brand", "position", "interval_bin", "time", "session"]
    shown = [f"history_{name}" for name in names]
    shown += ["session_category", "session_brand", "session_length"]
    for split in SPLITS:
        mine = (impressions["split"] == split).to_numpy()
        table = impressions.filter(mine).select(order).to_arrow()
        table = table.append_column("history_length", pa.array(lists["history_length"][mine]))
        for name in shown:
            rows = lists[name][mine]
            cells = pa.array(rows.ravel())
            table = table.append_column(
                name, pa.FixedSizeListArray.from_arrays(cells, rows.shape[1])
            )
        (out / split).mkdir(exist_ok=True)
        path = out / split / "part-00000.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=1)


def main() -> None:
    """Run the steps; print their seconds, the rows of each split and the edges as JSON."""
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/naive_alibaba.py RAW OUT")
    raw, out = map(Path, sys.argv[1:])
    (out / "vocabulary").mkdir(parents=True, exist_ok=True)
    marks = [time.perf_counter()]
    tables = read(raw)
    marks.append(time.perf_counter())
    impressions, log = encode(tables, out)
    del tables
    marks.append(time.perf_counter())
    lists = windows(impressions, log)
    del log
    marks.append(time.perf_counter())
    write(impressions, lists, out)
    marks.append(time.perf_counter())
    steps = [round(b - a, 2) for a, b in itertools.pairwise(marks)]
    seconds = dict(zip(("read", "encode", "windows", "write"), steps, strict=True))
    rows = dict(impressions["split"].value_counts().iter_rows())
    edges = lists["edges"].tolist()
    print(json.dumps({"rows": rows, "seconds": seconds, "edges_s": edges}))


if __name__ == "__main__":
    main()
