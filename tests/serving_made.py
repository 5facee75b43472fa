"""A log of a shop, and all that a server needs of it: made once for the tests of scores."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline.serving.events import read
from pipeline.serving.files import written
from pipeline.serving.golden import requests_of
from pipeline.serving.requests import Features
from schemas import manifest
from tests.conftest import finished, tinprep

DAY = 86_400
DESCRIPTION = """\
[tables.log]
files = "log.csv"
user = "user"
time = { column = "second", unit = "s" }
fields = { item = "item", category = "category" }
features = { device = "device" }
numbers = { spent = { column = "spent", scale = "log" } }
order = "hash"

[lookups.item]
files = "items.csv"
key = "item"
fields = { category = "category" }
numbers = { price = { column = "price", scale = "standard" } }
lists = { word = { column = "words", separator = "|", max_len = 3 } }

[target]
table = "log"
where = "kind = 'buy'"
split = { by = "time", valid = "2020-09-20", test = "2020-09-22", timezone = "UTC" }
negatives = { per_positive = 2 }

[histories.past]
table = "log"
window = "order"
max_len = 9

[histories.bought]
table = "log"
where = "kind = 'buy'"
within = "6d"
delay = "1h"
max_len = 4
"""


def make(folder: Path) -> Path:
    """Write a data set that keeps its events, a run, its bundle, requests of test."""
    rows = ["user,item,category,kind,second,device,spent\n"]
    for user in range(60):
        for n in range(11):
            item = (user * 7 + n * n * 3) % 31 + 9 * (n > 8)  # some that train has never seen
            kind = "buy" if (user + n) % 3 == 0 else "pv"
            # Two events of one second, in whose order it stands which is a behaviour.
            second = 1_600_041_600 + (n - n % 2) * DAY
            rows.append(f"u{user},i{item},c{item % 4},{kind},{second},d{n % 3},{1 + n * n}\n")
    (folder / "log.csv").write_text("".join(rows))
    items = [f"i{k},c{k % 4},{3 * k + 1},w{k % 5}|w{k % 3}\n" for k in range(40)]
    (folder / "items.csv").write_text("".join(["item,category,price,words\n", *items]))
    (folder / "log.toml").write_text(DESCRIPTION)
    out, run = folder / "data", folder / "run"
    finished(tinprep("prepare", folder / "log.toml", "--out", out, "--keep-events"))
    finished(tinprep("train", out, "--model", "tin", "--steps", "60", "--run", run))
    finished(tinprep("export", run, "--out", folder / "bundle"))
    of = manifest.load(out)
    features = Features(out, of, read(out, of))
    lines = []
    for one in of.shards:
        if one.path.startswith("test/"):
            shard = pq.read_table(out / one.path).combine_chunks()
            for asked in requests_of(features, shard, out):
                row = shard["row"][asked.rows[0]].as_py()
                lines.append(written(asked.request, id=str(row)))
    (folder / "requests.jsonl").write_text("".join(lines))
    return folder
