"""Logs in a store of objects: the rows of files with the same data, whatever breaks on the way."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from pipeline.readers import remote
from pipeline.readers.remote import located
from pipeline.steps import make
from pipeline.verify import verify
from schemas.errors import InputError
from schemas.manifest import load
from tests import databases, object_store
from tests.conftest import finished, refused, tinprep
from tests.object_store import BUCKET, Store
from tests.test_queries import VARIABLE, same

USAGE, INPUT, FAULT = 2, 3, 5


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with object_store.store() as found:
        yield found


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The server with an empty bucket."""
    for page in server.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for one in page.get("Contents", ()):
            server.client.delete_object(Bucket=BUCKET, Key=one["Key"])
    server.use(monkeypatch)
    return server


# The ad log of the design: what is shown stands in a database, the rest in files.
AD_LOG = """
SHOWN
user = "uid"
time = { column = "shown_at", timezone = "UTC" }
label = "clicked"
features = { ad = "ad_id", slot = "slot" }
[tables.clicks]
files = "STORE/clicks/*/*.parquet"
user = "uid"
time = { column = "ts", unit = "ms" }
fields = { category = "cat", brand = "brand" }
[tables.orders]
files = "STORE/orders/"
user = "uid"
time = { column = "paid_at", timezone = "UTC" }
fields = { category = "cat", brand = "brand" }
[lookups.ad]
files = "STORE/ads.parquet"
key = "ad_id"
time = { column = "valid_from", timezone = "UTC" }
fields = { category = "cat", brand = "brand" }
lists = { tag = { column = "tags", max_len = 8 } }
numbers = { price = { column = "price", scale = "log" } }
missing = "refuse"
[lookups.user]
files = "STORE/users.parquet"
key = "uid"
features = { age = "age_band" }
missing = "unknown"
[target]
table = "shown"
split = { by = "time", valid = "2026-11-01", test = "2026-11-08", timezone = "UTC" }
[histories.clicks]
table = "clicks"
max_len = 100
within = "30d"
[histories.orders]
table = "orders"
max_len = 20
delay = "1h"
"""
QUERY = f"""
[connections.ads]
url_env = "{VARIABLE}"
[tables.shown]
connection = "ads"
query = "select * from impressions"
row = "impression_id"
"""
FILE = '[tables.shown]\nfiles = "shown.parquet"'


def ad_log(folder: Path, shown: int = 600) -> pa.Table:
    """Write the files of an ad log of 40 users; returns what is shown."""
    draw, first = random.Random(25), datetime(2026, 10, 20, tzinfo=UTC)

    def moments(n: int) -> list[datetime]:
        return [first + timedelta(milliseconds=draw.randrange(25 * 86_400_000)) for _ in range(n)]

    def some(n: int, of: int) -> list[int]:
        return [draw.randrange(of) for _ in range(n)]

    impressions = pa.table(
        {
            "impression_id": range(shown),
            "uid": some(shown, 40),
            "shown_at": [at.replace(tzinfo=None) for at in moments(shown)],
            "clicked": some(shown, 2),
            "ad_id": some(shown, 12),
            "slot": [f"slot {n}" for n in some(shown, 3)],
        }
    )
    for day in range(4):
        n = 700
        clicks = {
            "uid": some(n, 44),
            "ts": [int(at.timestamp() * 1_000) for at in moments(n)],
            "cat": some(n, 6),
            "brand": some(n, 9),
        }
        path = folder / "clicks" / f"part {day}" / "0.parquet"
        path.parent.mkdir(parents=True)
        parquet.write_table(pa.table(clicks), path, row_group_size=200)
    (folder / "orders").mkdir()
    for k in range(2):
        n = 200
        orders = pa.table(
            {
                "uid": some(n, 40),
                "paid_at": [at.isoformat() for at in moments(n)],
                "cat": some(n, 6),
                "brand": some(n, 9),
            }
        )
        plain = folder / "orders" / f"{k}.csv"
        csv.write_csv(orders, plain)
        if k:
            (folder / "orders" / "1.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
    since = [first - timedelta(days=1)] * 12 + moments(30)
    ads = {
        "ad_id": [*range(12), *some(30, 12)],
        "valid_from": [at.replace(tzinfo=None) for at in since],
        "cat": some(42, 6),
        "brand": some(42, 9),
        "tags": [[f"t{n % 5}", "all"][: n % 3] for n in range(42)],
        "price": [n / 4 + 1 for n in range(42)],
    }
    parquet.write_table(pa.table(ads), folder / "ads.parquet")
    users = {"uid": range(38), "age_band": [f"age {n % 5}" for n in range(38)]}
    parquet.write_table(pa.table(users), folder / "users.parquet")
    parquet.write_table(impressions, folder / "shown.parquet")
    return impressions


def of_files(folder: Path) -> Path:
    path = folder / "files.toml"
    path.write_text(AD_LOG.replace("SHOWN", FILE).replace("STORE/", ""))
    return path


def test_the_ad_log_of_a_database_and_a_store_is_that_of_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "stores"
    impressions = ad_log(raw)
    finished(tinprep("prepare", of_files(raw), "--out", tmp_path / "files"))
    store.put_folder(raw)
    described = tmp_path / "ads.toml"
    described.write_text(AD_LOG.replace("SHOWN", QUERY).replace("STORE", f"s3://{BUCKET}"))
    with databases.postgres() as database:
        database.put("impressions", impressions)
        monkeypatch.setenv(VARIABLE, database.address)
        finished(tinprep("prepare", described, "--out", out))
        same(out, tmp_path / "files")
        assert verify(out).findings == ()
        made, wanted = load(out), load(tmp_path / "files")
        assert made.counts == wanted.counts
        of = {one.file: one.sha256 for one in wanted.inputs}
        assert all(of[one.file] == one.sha256 for one in made.inputs if not one.query)
        assert "nothing to do" in tinprep("prepare", described, "--out", out).said
    told = (out / "manifest.json").read_text()
    assert not any(secret in told for secret in store.keys.values() if len(secret) > 15)


RATINGS = """
[tables.ratings]
files = "FILES"
user = "u"
time = { column = "t", unit = "s" }
fields = { item = "i" }
[target]
table = "ratings"
split = { by = "order" }
negatives = { per_positive = 1, pool = "all" }
[histories.history]
table = "ratings"
[vocabulary]
from = "all"
"""


def ratings(n: int) -> list[dict[str, Any]]:
    return [{"u": k % 97, "t": 1_700_000_000 + k // 3, "i": k * k % 5_003} for k in range(n)]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    return b"u,t,i\n" + b"".join(b"%d,%d,%d\n" % (r["u"], r["t"], r["i"]) for r in rows)


def described(folder: Path, files: str) -> Path:
    path = folder / "ratings.toml"
    path.write_text(RATINGS.replace("FILES", files))
    return path


def test_every_format_by_name_glob_and_folder(store: Store, tmp_path: Path) -> None:
    rows = ratings(3_000)
    text, lines = as_csv(rows), "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "ratings.csv").write_bytes(text)
    finished(tinprep("prepare", described(tmp_path, "ratings.csv"), "--out", tmp_path / "local"))
    table = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), table, row_group_size=700)
    zstd = pa.compress(lines, "zstd", asbytes=True)
    held = {"a.csv": text, "b.csv.gz": gzip.compress(text), "c/d/e.jsonl.zst": zstd}
    held |= {"f/g.parquet": table.getvalue().to_pybytes(), "c/d/_ignored": b"x"}
    held["_temporary/0/g.parquet"] = held["f/g.parquet"]
    for name, data in held.items():
        store.put(name, data)
    for n, files in enumerate(("a.csv", "b.csv", "c/*/*.zst", "f/", "**/*.parquet")):
        out = tmp_path / str(n)
        finished(tinprep("prepare", described(tmp_path, f"s3://{BUCKET}/{files}"), "--out", out))
        same(out, tmp_path / "local")
    # As the folder of raw files.
    (tmp_path / "of raw").mkdir()
    relative = described(tmp_path / "of raw", "a.csv")
    finished(tinprep("prepare", relative, "--raw", f"s3://{BUCKET}", "--out", tmp_path / "raw"))
    same(tmp_path / "raw", tmp_path / "local")
    columns = ("--user", "u", "--item", "i", "--time", "t", "--unit", "s", "--split", "order")
    finished(tinprep("prepare", f"s3://{BUCKET}/a.csv", *columns, "--out", tmp_path / "plain"))
    assert load(tmp_path / "plain").rows == load(tmp_path / "local").rows
    drafted = tinprep("describe", f"s3://{BUCKET}/a.csv", "--out", tmp_path / "draft.toml")
    finished(drafted)
    assert f"s3://{BUCKET}/a.csv" in (tmp_path / "draft.toml").read_text()


def of_each_format() -> dict[str, bytes]:
    """The same 6,000 lines in files of some 2 MB, whatever packs them."""
    draw = random.Random(1)
    rows = [dict(row, more=draw.randbytes(150).hex()) for row in ratings(6_000)]
    lines = [f"{row['u']},{row['t']},{row['i']},{row['more']}\n" for row in rows]
    text = "".join(["u,t,i,more\n", *lines]).encode()
    found = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), found)
    found = found.getvalue().to_pybytes()
    return {"a.csv": text, "b.csv.gz": gzip.compress(text, 1), "c.parquet": found}


def test_a_connection_that_breaks_is_made_anew_where_it_broke(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = of_each_format()
    (tmp_path / "a.csv").write_bytes(held["a.csv"])
    finished(tinprep("prepare", described(tmp_path, "a.csv"), "--out", tmp_path / "local"))
    monkeypatch.setattr(remote, "_PAUSES", (0, 0, 0))
    for name, data in held.items():
        store.put(name, data)
        # What a connection brings is less than what is asked for at once.
        with object_store.cutting(store.port, after=100_000, times=7) as way:
            store.use(monkeypatch, AWS_ENDPOINT_URL=f"http://127.0.0.1:{way.port}")
            path = described(tmp_path, f"s3://{BUCKET}/{name}")
            finished(tinprep("prepare", path, "--out", tmp_path / f"out {name}"))
        assert way.broken == 7, name
        same(tmp_path / f"out {name}", tmp_path / "local")


@pytest.mark.parametrize("name", ["a.csv", "b.csv.gz", "c.parquet"])
def test_a_connection_that_cannot_be_made_anew_ends_in_one_error(
    name: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(name, of_each_format()[name])
    monkeypatch.setattr(remote, "_PAUSES", ())
    path = described(tmp_path, f"s3://{BUCKET}/{name}")
    with object_store.cutting(store.port, after=30_000, times=10**9) as way:
        store.use(monkeypatch, AWS_ENDPOINT_URL=f"http://127.0.0.1:{way.port}")
        ended = tinprep("prepare", path, "--out", tmp_path / "out")
    refused(ended, FAULT, f"s3://{BUCKET}/{name}")
    assert store.keys["AWS_SECRET_ACCESS_KEY"] not in ended.err
    assert not (tmp_path / "out").exists()


def test_objects_that_change_are_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a.csv", text := as_csv(ratings(3_000)))
    path, before = described(tmp_path, f"s3://{BUCKET}/a.csv"), make.deal
    other = text.replace(b",1700000000,", b",1700000001,")  # of the same size, in the same second

    def changing(*args: Any) -> Any:
        found = before(*args)
        store.put("a.csv", other)
        return found

    monkeypatch.setattr(make, "deal", changing)
    ended = tinprep("prepare", path, "--out", tmp_path / "out")
    refused(ended, INPUT, "changed while it was read", f"s3://{BUCKET}/a.csv")
    assert not (tmp_path / "out").exists()
    # Nor does a connection that is made anew go on with another one.
    monkeypatch.setattr(remote, "_PAUSES", (0,))
    store.put("b.csv", bytes(1_000_000))
    with object_store.cutting(store.port, after=30_000, times=10**9) as way:
        store.use(monkeypatch, AWS_ENDPOINT_URL=f"http://127.0.0.1:{way.port}")
        with located(Path(f"s3://{BUCKET}/b.csv")).open("rb", 0) as file:
            assert file.read(5) == bytes(5)
            store.put("b.csv", bytes(999_999))
            with pytest.raises(InputError, match="changed while it was read"):
                file.read(500_000)


def test_what_keeps_from_a_store_is_told_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("log.csv", as_csv(ratings(3_000)))
    secret = store.keys["AWS_SECRET_ACCESS_KEY"]
    cases = [
        (
            {},
            f"s3://{BUCKET}/logs.csv",
            INPUT,
            ("There is no file of ratings", "but there is log.csv"),
        ),
        ({}, f"s3://{BUCKET}/b/*.csv", INPUT, ("There is no file of ratings",)),
        ({}, "s3://nowhere/a.csv", INPUT, ("There is no bucket", "s3://nowhere")),
        ({}, "s3://nowhere/*.csv", INPUT, ("There is no bucket", "s3://nowhere")),
        ({"AWS_SECRET_ACCESS_KEY": "x" + secret}, f"s3://{BUCKET}/a.csv", FAULT, ("your keys",)),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, f"s3://{BUCKET}/*.csv", FAULT, ("your keys",)),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, f"s3://{BUCKET}/a.csv", FAULT, ("network",)),
        ({}, f"s3://me:{secret}@{BUCKET}/a.csv", USAGE, ("holds a key",)),
    ]
    for environment, files, code, said in cases:
        store.use(monkeypatch, **environment)
        path = described(tmp_path, files)
        ended = tinprep("prepare", path, "--out", tmp_path / "out")
        refused(ended, code, *said)
        assert secret not in ended.err
        assert not (tmp_path / "out").exists()
