"""A request has the features of a row: every row of a data set, asked for as a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings

from pipeline.serving.events import read
from pipeline.serving.golden import Asked, differing, requests_of
from pipeline.serving.requests import Features, Request, Words
from pipeline.serving.scorer import newcomers
from pipeline.verify import verify
from schemas import manifest
from schemas.errors import InputError
from schemas.manifest import UNKNOWN_ID
from tests.conftest import finished, real_data, tinprep
from tests.description_made import Made, descriptions
from tests.description_oracle import Oracle
from tests.test_new_events import prepare

WHOLE = """\
[tables.log]
files = "log.csv"
user = "user"
time = { column = "second", unit = "s" }
fields = { item = "item" }
[lookups.item]
files = "items.csv"
key = "item"
fields = { kind = "kind" }
lists = { tag = { column = "tags", separator = "|", max_len = 2 } }
[target]
table = "log"
split = { by = "time", test = 400, timezone = "UTC" }
negatives = { per_positive = 1 }
[histories.history]
table = "log"
"""


def require_every_row(out: Path, each: int = 1) -> int:
    """Hold the requests of each row, or of one target in `each`, to it; returns how many rows."""
    made = manifest.load(out)
    features, rows = Features(out, made, read(out, made)), 0
    for one in made.shards:
        shard = pq.read_table(out / one.path).combine_chunks()
        for asked in requests_of(features, shard, out, each):
            rows += len(asked.rows)
            wrong = differing(features(asked.request), made, shard, asked)
            assert not wrong, (asked, one.path)
    return rows


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(made=descriptions())
def test_every_row_of_a_made_up_description(
    made: Made, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("made")
    path, out = made.write(folder / "raw"), folder / "out"
    assume(not Oracle(path, folder / "raw").wrong)
    finished(prepare(path, out))
    require_every_row(out)


def test_values_of_requests_are_read_as_those_of_files(tmp_path: Path) -> None:
    """Text is a whole number where a column's values are: also of one that train lacks."""
    lines = [f"{u},{i + u % 2},{100 * u + i}" for u in range(4) for i in range(5)] + ["1,9,999"]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,second", *lines]))
    (tmp_path / "items.csv").write_text(
        "item,kind,tags\n" + "".join(f"{i},{i % 3},{i}|0\n" for i in range(10))
    )
    (tmp_path / "log.toml").write_text(WHOLE)
    out = tmp_path / "out"
    finished(prepare(tmp_path / "log.toml", out))
    features = Features(out, made := manifest.load(out), read(out, made))
    asked = [{"item": item} for item in (9, "9", "009")]
    found = features(Request("1", 2_000, [*asked, {"item": 9, "tag": ["", "0", 0, 9]}]))
    assert found["target_item"].tolist() == [UNKNOWN_ID] * 4
    assert found["target_kind"].tolist() == [features.words["kind"].of(0)] * 4
    assert found["history_length"][0] == 6
    assert found["tag"][:, 0].tolist() == [UNKNOWN_ID] * 3 + [features.words["tag"].of(0)]
    with pytest.raises(InputError, match="tag of another type"):
        features(Request(1, 2_000, [{"item": 1, "tag": [[1]]}]))
    none = pa.table({"value": pa.array([], pa.int64()), "id": pa.array([], pa.int32())})
    path = tmp_path / "none.parquet"
    pq.write_table(none.append_column("count", pa.array([], pa.int64())), path)
    assert Words(path).of(7) == Words(path).of("7") == UNKNOWN_ID


@pytest.mark.parametrize(
    ("folder", "command", "each", "rows"),
    [
        ("taobao_userbehavior", "prepare taobao-userbehavior-kinds", 1, 202),
        ("kuairand_tianchi", "alibaba --split-by-day", 16, 4_060),
        ("amazon_beauty", "amazon --category Beauty", 40, 8_800),
    ],
)
def test_rows_of_real_logs(folder: str, command: str, each: int, rows: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(tinprep(*command.split(), "--raw", real_data(folder), "--out", out, "--keep-events"))
    assert verify(out).findings == ()
    # Each shard's first is asked for, so the more shards, as on more cores, the more rows.
    assert rows <= require_every_row(out, each) < rows * 1.02


def test_users_of_behaviours_alone_have_histories(tmp_path: Path) -> None:
    """What a request for one has is what a target would have; shards do not change by it."""
    raw, out, plain = (tmp_path / name for name in ("raw", "out", "plain"))
    finished(tinprep("synthesize", "alibaba", "--out", raw, "--scale", "0.0002"))
    (path,) = raw.glob("raw_sample*")
    shown = pl.read_csv(path).filter(pl.col("user") % 3 > 0)
    path.unlink()
    shown.write_csv(raw / "raw_sample.csv")
    finished(tinprep("alibaba", "--raw", raw, "--out", out, "--keep-events"))
    finished(tinprep("alibaba", "--raw", raw, "--out", plain))
    made, before = manifest.load(out), manifest.load(plain)
    assert (made.shards, made.digests) == (before.shards, before.digests)
    log = pl.concat(pl.read_csv(path) for path in raw.glob("behavior_log*"))
    assert made.kept is not None
    counts = (pl.col("btag") == "pv") & (pl.col("time_stamp") >= made.kept.since)
    others = {*log.filter(counts)["user"]} - {*shown["user"]}
    users = pl.read_parquet(out / "events/users.parquet")
    assert users["value"].to_list() == sorted(others) and len(others) > 20
    first = made.vocabulary["user"]
    assert users["id"].to_list() == list(range(first, first + len(others)))
    last, ads = shown["time_stamp"].max(), shown["adgroup_id"]
    asked = shown.head(len(others)).with_columns(
        user=users["value"], time_stamp=pl.lit(last), adgroup_id=ads.head(len(others))
    )
    asked.write_csv(tmp_path / "asked.csv")
    given = ("--targets", tmp_path / "asked.csv", "--out", tmp_path / "rows")
    finished(tinprep("transform", out, *given))
    rows = manifest.load(tmp_path / "rows")
    features = Features(out, made, read(out, made))
    features = replace(features, newcomers=newcomers(out, made, features.words["user"]))
    found, of = [], asked.rows(named=True)
    for one in rows.shards:
        shard = pq.read_table(tmp_path / "rows" / one.path).combine_chunks()
        for k, row in enumerate(shard["row"].to_pylist()):
            event = of[row - made.kept.rows["impressions"]]
            candidate = {"ad": event["adgroup_id"], "pid": event["pid"]}
            request = Request(event["user"], event["time_stamp"], [candidate])
            assert not differing(features(request), rows, shard, Asked(request, [k]))
            found.append(shard["history_length"][k].as_py())
    assert len(found) == len(others) and min(found) > 0
