"""The benchmark's peer: what DSIN's released Taobao scripts do, step by step, in our words.

`python benchmarks/released_alibaba.py RAW OUT [--lists]` reads the four raw files in the folder RAW
and leaves `input.pkl` (the arrays that a model is given) and the pickles between the steps in OUT.
pandas frames and Python loops, one process:

1. read: the files whole; only page views are kept; category and brand of ads and behaviours are
   numbered together; pickled.
2. sessions: a Python loop over each user's behaviours cuts them where the gap is more than 30
   minutes and keeps sessions of more than 2; each user's behaviours are kept as a list too (the
   DIN script's part); pickled.
3. input: a Python loop over impressions looks up the latest 5 sessions that began before it, 10
   behaviours of each, and the latest 50 behaviours; ads and profiles are merged, every column is
   numbered, the price standardised, every list padded; pickled.

The loops run over `DataFrame.iterrows` and count what is before an impression one by one, as the
scripts' do; with `--lists` they run over plain lists and bisect, which nobody released but is what
such loops could be. Step 2 of the scripts uses several processes, here one. What else differs makes
it comparable: users without a profile are kept, as ours keeps them. A session
never holds a behaviour from after its impression, and each earlier one counts only if it is long
enough. Histories carry no position, interval or bin: the scripts make none.
"""

from __future__ import annotations

import bisect
import gc
import itertools
import json
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

MAX_LEN, GAP, SESSIONS, SESSION_LEN = 50, 30 * 60, 5, 10
SINCE = 1_493_769_600  # 2017-05-03 00:00 UTC, the scripts' constant
SPLIT_AT = 1_494_633_600  # 2017-05-13 00:00 UTC: the scripts' train and test
ID_COLUMNS = (
    *("userid", "adgroup_id", "pid", "campaign_id", "customer"),
    *("cms_segid", "cms_group_id", "final_gender_code", "age_level"),
    *("pvalue_level", "shopping_level", "occupation", "new_user_class_level"),
)


def save(path: Path, value: Any) -> None:
    """Pickle one value into a file."""
    with path.open("wb") as file:
        pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)


def load(path: Path) -> Any:
    """Read what `save` wrote."""
    with path.open("rb") as file:
        return pickle.load(file)


def read(raw: Path, out: Path) -> None:
    """Step 1: raw files to frames with numbered categories and brands."""
    frames = {}
    for name in ("raw_sample", "ad_feature", "user_profile"):
        path = raw / f"{name}.csv"
        frames[name] = pd.read_csv(path if path.exists() else f"{path}.gz")
        frames[name].columns = frames[name].columns.str.strip()
    path = raw / "behavior_log.csv"
    log = pd.read_csv(path if path.exists() else f"{path}.gz")
    log = log.loc[log["btag"] == "pv"]
    ads = frames["ad_feature"]
    for of_ad, of_log in (("cate_id", "cate"), ("brand", "brand")):
        both = np.concatenate([ads[of_ad].fillna(-1), log[of_log].fillna(-1)])
        numbers = np.unique(both, return_inverse=True)[1] + 1
        ads[of_ad] = numbers[: len(ads)]
        log = log.assign(**{of_log: numbers[len(ads) :]})
    log = log.loc[log["user"].isin(frames["raw_sample"]["user"].unique())]
    log = log.loc[log["time_stamp"] > 0].drop(columns="btag")
    save(out / "log.pkl", log)
    save(out / "frames.pkl", frames)


def by_row(frame: pd.DataFrame, lists: bool) -> Iterator[tuple[int, ...]]:
    """The rows of a frame as tuples, one by one."""
    if lists:
        yield from zip(*(frame[name].tolist() for name in frame.columns), strict=True)
        return
    for _, row in frame.iterrows():
        yield tuple(row[name] for name in frame.columns)


def before(behaviours: list[tuple[int, int, int]], now: int, lists: bool) -> int:
    """How many of the behaviours, in order of time, are before `now`."""
    if lists:
        return bisect.bisect_left(behaviours, (now,))
    count = 0
    for behaviour in behaviours:
        if behaviour[0] < now:
            count += 1
    return count


def cut(out: Path, lists: bool) -> None:
    """Step 2: each user's sessions and behaviours, as lists of tuples."""
    log = load(out / "log.pkl")
    log = log.loc[log["time_stamp"] >= SINCE]
    sessions: dict[int, list[list[tuple[int, int, int]]]] = {}
    histories: dict[int, list[tuple[int, int, int]]] = {}
    for user, mine in log.groupby("user"):
        mine = mine.sort_values("time_stamp")
        behaviours = list(by_row(mine[["time_stamp", "cate", "brand"]], lists))
        found = []
        session: list[tuple[int, int, int]] = []
        last = behaviours[0][0]
        for behaviour in behaviours:
            if behaviour[0] - last > GAP:
                if len(session) > 2:
                    found.append(session)
                session = []
            session.append(behaviour)
            last = behaviour[0]
        if len(session) > 2:
            found.append(session)
        sessions[user], histories[user] = found, behaviours
    save(out / "sessions.pkl", sessions)
    save(out / "histories.pkl", histories)


def padded(rows: list[list[int]], width: int) -> np.ndarray[Any, Any]:
    """(rows, width) with each list from the left, and 0 after its end."""
    made = np.zeros((len(rows), width), np.int32)
    for k, row in enumerate(rows):
        if row:
            made[k, : len(row)] = row
    return made


def build(out: Path, as_lists: bool) -> dict[str, int]:
    """Step 3: the model's input; returns the rows before and from the scripts' split time."""
    sessions, histories = load(out / "sessions.pkl"), load(out / "histories.pkl")
    frames = load(out / "frames.pkl")
    sample = frames["raw_sample"].rename(columns={"user": "userid"})
    names = [f"session_{m}_{field}" for m in range(SESSIONS) for field in ("category", "brand")]
    lists: dict[str, list[list[int]]] = {name: [] for name in names}
    lists |= {"history_category": [], "history_brand": []}
    session_counts, history_lengths = [], []
    for user, now in by_row(sample[["userid", "time_stamp"]], as_lists):
        count = 0
        for session in reversed(sessions.get(user, ())):
            if count == SESSIONS:
                break
            if session[0][0] >= now:
                continue
            end = before(session, now, as_lists)
            if end <= 2:
                continue
            kept = session[max(0, end - SESSION_LEN) : end]
            lists[f"session_{count}_category"].append([b[1] for b in kept])
            lists[f"session_{count}_brand"].append([b[2] for b in kept])
            count += 1
        session_counts.append(count)
        for m in range(count, SESSIONS):
            lists[f"session_{m}_category"].append([])
            lists[f"session_{m}_brand"].append([])
        mine = histories.get(user, [])
        end = before(mine, now, as_lists)
        latest = mine[max(0, end - MAX_LEN) : end]
        lists["history_category"].append([b[1] for b in latest])
        lists["history_brand"].append([b[2] for b in latest])
        history_lengths.append(len(latest))
    del sessions, histories
    gc.collect()

    data = sample.merge(frames["user_profile"].fillna(-1), how="left", on="userid")
    data = data.merge(frames["ad_feature"], how="left", on="adgroup_id")
    columns = {name: pd.factorize(data[name], sort=True)[0] for name in ID_COLUMNS}
    columns |= {"category": data["cate_id"].to_numpy(), "brand": data["brand"].to_numpy()}
    price = data["price"]
    columns["price"] = ((price - price.mean()) / price.std(ddof=0)).to_numpy()
    for name, rows in lists.items():
        columns[name] = padded(rows, SESSION_LEN if name.startswith("session") else MAX_LEN)
    columns["session_count"] = np.array(session_counts, np.int32)
    columns["history_length"] = np.array(history_lengths, np.int32)
    save(out / "input.pkl", columns)
    save(out / "label.pkl", data["clk"].to_numpy())
    train = int((data["time_stamp"] < SPLIT_AT).sum())
    return {"train": train, "test": len(data) - train}


def main() -> None:
    """Run the three steps and print their seconds and the rows made, as a line of JSON."""
    lists = "--lists" in sys.argv
    if len(sys.argv) != 3 + lists:
        sys.exit("usage: python benchmarks/released_alibaba.py RAW OUT [--lists]")
    raw, out = map(Path, sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    marks = [time.perf_counter()]
    read(raw, out)
    marks.append(time.perf_counter())
    cut(out, lists)
    marks.append(time.perf_counter())
    rows = build(out, lists)
    marks.append(time.perf_counter())
    steps = [round(b - a, 2) for a, b in itertools.pairwise(marks)]
    seconds = dict(zip(("read", "sessions", "input"), steps, strict=True))
    print(json.dumps({"rows": rows, "seconds": seconds, "pandas": pd.__version__}))


if __name__ == "__main__":
    main()
