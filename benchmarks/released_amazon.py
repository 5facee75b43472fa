"""The benchmark's peer: what DIN's and TIN's released Amazon scripts do, step by step.

`python benchmarks/released_amazon.py RAW OUT [--json]` reads the two raw files in the folder RAW
and leaves `dataset.pkl` and what lies between the steps in OUT. Plain Python and pandas, one
process, in the scripts' own steps and order of random draws, told in our words:

1. both files are unpacked.
2. both files, line by line, go through a dict of dicts into DataFrames with every field; only meta
   lines of reviewed items are kept; both pickled.
3. ids by sorted unique values of items, categories and users; reviews sorted by user and time;
   pickled.
4. a Python loop over users builds histories, negatives and samples; shuffled; pickled.

The scripts `eval` every line of both files. Here `ast.literal_eval` stands for it, which runs
nothing and takes about a tenth longer (33 and 37 us a review line here); `--json` reads the reviews
with `json` instead (3 us), a change that somebody who runs the scripts might make first. Else what
differs is in the peer's favour: a repeated or missing meta line or category neither ends the run
nor shifts the ids. No temporal feature is made, as the scripts make none.
"""

from __future__ import annotations

import ast
import gzip
import itertools
import json
import pickle
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

# Text as Python's own, as in the scripts' time: pandas 3 refuses half a character, as reviews have.
pd.set_option("future.infer_string", False)

SEED = 1234
REVIEWS = "reviews_*.json.gz"
META = "meta_*.json.gz"


def only(raw: Path, pattern: str) -> Path:
    """Return the one file in the folder `raw` that matches `pattern`."""
    found = sorted(raw.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{raw}: expected one file {pattern}, got {len(found)}")
    return found[0]


def unpack(raw: Path, out: Path) -> None:
    """Step 1: raw gzip files to plain ones."""
    for pattern, name in ((REVIEWS, "reviews.json"), (META, "meta.json")):
        with gzip.open(only(raw, pattern)) as packed, (out / name).open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)


def to_frame(path: Path, parse: Callable[[str], Any]) -> pd.DataFrame:
    """Make a DataFrame with a row per line of a file, through a dict of dicts as the scripts do."""
    rows = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            rows[number] = parse(line)
    return pd.DataFrame.from_dict(rows, orient="index")


def save(path: Path, *values: Any) -> None:
    """Pickle the values into one file, one after the other."""
    with path.open("wb") as file:
        for value in values:
            pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)


def load(path: Path, count: int) -> list[Any]:
    """Read the first `count` values of a file that `save` wrote."""
    with path.open("rb") as file:
        return [pickle.load(file) for _ in range(count)]


def read(out: Path, reader: Callable[[str], Any]) -> None:
    """Step 2: plain files to reviews.pkl and meta.pkl."""
    reviews = to_frame(out / "reviews.json", reader)
    save(out / "reviews.pkl", reviews)
    meta = to_frame(out / "meta.json", ast.literal_eval)
    meta = meta[meta["asin"].isin(reviews["asin"].unique())].reset_index(drop=True)
    save(out / "meta.pkl", meta)


def last_category(paths: Any) -> str:
    """Return the last element of the last path; '' where there is none."""
    if not isinstance(paths, list) or not paths or not paths[-1]:
        return ""
    return str(paths[-1][-1])


def remap(out: Path) -> None:
    """Step 3: reviews.pkl and meta.pkl to remap.pkl, with ids for values."""
    (reviews,) = load(out / "reviews.pkl", 1)
    (meta,) = load(out / "meta.pkl", 1)
    reviews = reviews[["reviewerID", "asin", "unixReviewTime"]]
    meta = meta[["asin", "categories"]].drop_duplicates("asin")
    meta["categories"] = meta["categories"].map(last_category)
    # On complete files, as the real ones, these are the meta lines' items.
    meta = meta.set_index("asin").reindex(reviews["asin"].unique(), fill_value="").reset_index()

    def ids(column: pd.Series) -> dict[str, int]:
        return {value: rank for rank, value in enumerate(sorted(column.unique().tolist()))}

    items, categories = ids(meta["asin"]), ids(meta["categories"])
    users = ids(reviews["reviewerID"])
    meta["asin"] = meta["asin"].map(items)
    meta["categories"] = meta["categories"].map(categories)
    meta = meta.sort_values("asin").reset_index(drop=True)
    reviews = reviews.assign(
        reviewerID=reviews["reviewerID"].map(users), asin=reviews["asin"].map(items)
    )
    reviews = reviews.sort_values(["reviewerID", "unixReviewTime"]).reset_index(drop=True)
    counts = (len(users), len(items), len(categories), len(reviews))
    save(out / "remap.pkl", reviews, meta["categories"].to_numpy(), counts)


def build(out: Path) -> dict[str, int]:
    """Step 4: remap.pkl to dataset.pkl; returns the rows of each split, a pair being two."""
    reviews, category_of, counts = load(out / "remap.pkl", 3)
    _, item_count, _, _ = counts
    random.seed(SEED)
    train: list[Any] = []
    valid: list[Any] = []
    test: list[Any] = []
    for user, behaviours in reviews.groupby("reviewerID"):
        items = behaviours["asin"].tolist()

        def draw(items: list[int] = items) -> int:
            negative = items[0]
            while negative in items:
                negative = random.randint(0, item_count - 1)
            return negative

        negatives = [draw() for _ in items]
        for i in range(1, len(items)):
            history = items[:i]
            if i < len(items) - 2:
                train.append((user, history, items[i], 1))
                train.append((user, history, negatives[i], 0))
            else:
                pairs = test if i == len(items) - 1 else valid
                pairs.append((user, history, (items[i], negatives[i])))
    for samples in (train, valid, test):
        random.shuffle(samples)
    save(out / "dataset.pkl", train, valid, test, category_of, counts)
    return {"train": len(train), "valid": 2 * len(valid), "test": 2 * len(test)}


def main() -> None:
    """Run the four steps and print their seconds and the rows made, as a line of JSON."""
    reader = json.loads if "--json" in sys.argv else ast.literal_eval
    folders = [Path(x) for x in sys.argv[1:] if x != "--json"]
    if len(folders) != 2:
        sys.exit("usage: python benchmarks/released_amazon.py RAW OUT [--json]")
    raw, out = folders
    out.mkdir(parents=True, exist_ok=True)
    marks = [time.perf_counter()]
    unpack(raw, out)
    marks.append(time.perf_counter())
    read(out, reader)
    marks.append(time.perf_counter())
    remap(out)
    marks.append(time.perf_counter())
    rows = build(out)
    marks.append(time.perf_counter())
    steps = [round(b - a, 2) for a, b in itertools.pairwise(marks)]
    seconds = dict(zip(("unpack", "read", "remap", "build"), steps, strict=True))
    print(json.dumps({"rows": rows, "seconds": seconds, "pandas": pd.__version__}))


if __name__ == "__main__":
    main()
