"""Any description against an oracle that knows nothing of the pipeline, row by row."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

import pipeline.description
from pipeline.verify import verify
from schemas.manifest import load
from tests.conftest import SHARED, Ended, finished, refused, tinprep
from tests.description_made import BEGIN, DAY, PER_SECOND, Log, Made, Row, descriptions
from tests.description_oracle import Oracle, differences, made_rows, made_vocabulary

# More of them, for hours: TINPREP_EXAMPLES=5000.
PRESETS = Path(pipeline.description.__file__).parent / "presets"
EXAMPLES = int(os.environ.get("TINPREP_EXAMPLES", "10"))
INPUT = 3
SOME = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def prepare(description: Path, out: Path, *flags: object) -> Ended:
    """Prepare what a description says, whatever share of its lines is refused."""
    return tinprep("prepare", description, "--out", out, "--max-rejected", "100%", *flags)


@SOME
@given(made=descriptions(), buckets=st.integers(1, 3))
def test_every_row_is_what_the_oracle_says(
    made: Made, buckets: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("made")
    path, out = made.write(folder / "raw"), folder / "out"
    oracle = Oracle(path, folder / "raw")
    ended = prepare(path, out, "--buckets", buckets)
    if oracle.wrong:
        refused(ended, INPUT)
        return
    finished(ended)
    assert not differences(oracle, out)[:9]
    assert verify(out).findings == ()


# --- point in time ------------------------------------------------------------------------------

VALID = BEGIN + 2 * DAY
_LATER: dict[str, Any] = {
    "split": {"by": "time", "valid": "2020-09-16", "test": "2020-09-17", "timezone": "UTC"},
    "from": "train",
    "pool": "train",
    "times": "unit",
}
_CHANGES = st.lists(
    st.tuples(
        st.integers(0, 30),  # which event, of those that may be changed
        st.sampled_from(
            [
                *("leave out", "twice", "what", "kind", "stars", "clicked", "cat", "price"),
                *("group", "maker", "size", "age"),
            ]
        ),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=12,
)


def changed(made: Made, since: int, changes: list[tuple[int, str, int]]) -> Made:
    """The description with events changed that are of a second or later; they stand last."""
    logs = {}
    for name, log in made.logs.items():
        kind, _, of = name.partition(".")
        told = made.description[kind][of].get("time")
        if told is None:
            logs[name] = log
            continue
        at, unit = told["column"], PER_SECOND[told["unit"]]
        early = [row for row in log.rows if (row[at] or 0) < since * unit]
        late = [dict(row) for row in log.rows if (row[at] or 0) >= since * unit]
        for n, how, value in changes:
            if not late:
                break
            row = late[n % len(late)]
            if how == "leave out":
                late.remove(row)
            elif how == "twice":
                late.append(row | {at: row[at] + value})
            elif how in row:
                others = [other[how] for other in log.rows]
                row[how] = others[value % len(others)]
        logs[name] = Log(**(vars(log) | {"rows": early + late}))
    return Made(made.description, logs)


def state(out: Path) -> Any:
    """What is fitted: vocabularies but that of users, edges, scales."""
    told = load(out)
    words = {n: made_vocabulary(out, n) for n in told.vocabulary if n != "user"}
    edges = {name: (h.bins.edges_s, h.bins.train_counts) for name, h in told.histories.items()}
    return words, edges, told.numbers


@SOME
@given(data=st.data())
def test_nothing_after_a_target_changes_its_row(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From valid on, so that what is fitted stays; and that it does is held as well.

    Nor does what is known of values from a target's time on.
    """
    since_unit = data.draw(st.sampled_from(["s", "ms", "us"]))
    lookup = {"lookup": "file", "timed": True, "repeated": "first", "since_unit": since_unit}
    made = data.draw(descriptions(**_LATER, exclude="history", **lookup))
    since = VALID + data.draw(st.sampled_from([0, 3_600, 43_200, DAY, DAY + 43_201]))
    folder = tmp_path_factory.mktemp("made")
    found = []
    for n, one in enumerate((changed(made, since, []), changed(made, since, data.draw(_CHANGES)))):
        path = one.write(folder / f"{n}")
        if Oracle(path, folder / f"{n}").wrong:
            return
        ended = prepare(path, folder / f"out{n}")
        finished(ended)
        users = {row["id"]: row["value"] for row in made_vocabulary(folder / f"out{n}", "user")}
        rows = [row | {"user": users[row["user"]]} for row in made_rows(folder / f"out{n}")]
        unit = PER_SECOND[made.description["tables"]["log"]["time"].get("unit", "s")]
        before = [row for row in rows if row["target_time"] < since * unit]
        found.append((sorted(before, key=lambda row: row["row"]), state(folder / f"out{n}")))
    assert found[0] == found[1]


# --- negatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", ["uniform", "popularity"])
@pytest.mark.parametrize("exclude", ["ever", "history"])
def test_negatives_are_drawn_as_often_as_they_should_be(
    weight: str, exclude: str, tmp_path: Path
) -> None:
    """Of 300 draws a target, each by itself: chi-square, with a seed that is fixed."""
    events = [(u, i, d) for u in range(30) for i in range(12) for d in range(4) if (u * i) % 7 < 2]
    rows: list[Row] = [
        {"u": u, "i": i, "t": BEGIN + d * DAY + 60 * i} for u, i, d in events if u % (i + 1) == 0
    ]
    split = {"by": "time", "valid": "2020-09-16", "test": "2020-09-17", "timezone": "UTC"}
    table = {"user": "u", "time": {"column": "t", "unit": "s"}, "fields": {"item": "i"}}
    drawn = {"per_positive": 300, "weight": weight, "exclude": exclude}
    made = Made(
        {
            "tables": {"log": table},
            "target": {"table": "log", "split": split, "negatives": drawn},
            "histories": {"history": {"table": "log", "max_len": 5}},
        },
        {"tables.log": Log(("u", "i", "t"), rows)},
    )
    path = made.write(tmp_path)
    finished(prepare(path, tmp_path / "out"))
    oracle = Oracle(path, tmp_path)
    assert differences(oracle, tmp_path / "out") == []
    names = {one["id"]: one["value"] for one in made_vocabulary(tmp_path / "out", "item")}
    counted: dict[int, Counter[Any]] = {}
    for row in made_rows(tmp_path / "out"):
        if row["label"] == 0:
            counted.setdefault(row["row"], Counter())[names[row["target_item"]]] += 1
    tests = []
    for target in oracle.rows_of:
        of = {
            v: oracle.pool[v] if weight == "popularity" else 1 for v in oracle.may_be_drawn(target)
        }
        expected = {v: 300 * n / sum(of.values()) for v, n in of.items()}
        got = counted[target.event["row"]]
        far = sum((got[v] - n) ** 2 / n for v, n in expected.items())
        if len(of) > 1:
            tests.append(float(chi2.sf(far, len(of) - 1)))
    assert len(tests) > 20
    assert min(tests) * len(tests) > 1e-3
    assert max(tests) > 0.5  # nor are they too even


# --- real files ---------------------------------------------------------------------------------

MOVIELENS = """\
[tables.ratings]
files = "ratings.csv"
where = "rating >= 4"
user = "userId"
time = { column = "timestamp", unit = "s" }
fields = { item = "movieId" }
order = "hash"
numbers = { rating = { column = "rating", scale = "standard" } }

[lookups.item]
files = "movies.csv"
key = "movieId"
lists = { genre = { column = "genres", separator = "|", max_len = 6 } }

[target]
table = "ratings"
where = "movieId % 15 = 0"
split = { by = "order" }
negatives = { per_positive = 1, exclude = "unfiltered" }

[histories.history]
table = "ratings"
max_len = 50
"""
TAOBAO = """\
[tables.log]
files = "UserBehavior.csv"
csv = { columns = ["user", "item", "category", "kind", "second"] }
where = "second >= 1511539200 and second < 1512316800"
user = "user"
time = { column = "second", unit = "s" }
fields = { item = "item", category = "category" }

[lookups.item]
table = "log"
key = "item"
repeated = "first"
fields = { category = "category" }

[target]
table = "log"
where = "kind = 'buy'"
split = { by = "day", timezone = "Asia/Shanghai" }
only_new = true
negatives = { per_positive = 1, exclude = "ever" }

[histories.history]
table = "log"
max_len = 200
"""
BEAUTY_2018 = """\
[tables.reviews]
files = "All_Beauty_5.json.gz"
user = "reviewerID"
time = { column = "unixReviewTime", unit = "s" }
fields = { item = "asin" }
order = "file"
duplicates = "drop"

[target]
table = "reviews"
split = { by = "order" }
negatives = { per_positive = 4, weight = "popularity" }

[histories.history]
table = "reviews"
max_len = 20
window = "order"
session_gap = "1d"
"""
# Histories of two tables, of which one lacks the target's item, and of both labels; of each 16th
# user, as the oracle is slow.
KUAIRAND = """\
[tables.shown]
files = "raw_sample.csv"
where = "user % 16 = 0"
user = "user"
time = { column = "time_stamp", unit = "s" }
fields = { ad = "adgroup_id" }
features = { page = "pid" }
label = "clk"
order = "hash"

[tables.behaviours]
files = "behavior_log.csv"
where = "user % 16 = 0"
user = "user"
time = { column = "time_stamp", unit = "s" }
fields = { category = "cate", brand = "brand" }
order = "fields"

[lookups.ad]
files = "ad_feature.csv"
key = "adgroup_id"
fields = { category = "cate_id", brand = "brand" }
features = { campaign = "campaign_id" }
numbers = { price = { column = "price", scale = "log" } }

[lookups.user]
files = "user_profile.csv"
key = "userid"
features = { age = "age_level", new_class = "new_user_class_level " }

[target]
table = "shown"
split = { by = "day", timezone = "Asia/Shanghai" }

[histories.viewed]
table = "behaviours"
where = "btag = 'pv'"
max_len = 30

[histories.favoured]
table = "behaviours"
where = "btag = 'fav'"
within = "5d"

[histories.carted]
table = "behaviours"
where = "btag = 'cart'"

[histories.clicked]
table = "shown"
where = "clk = 1"
max_len = 20
sessions = [3, 4]

[histories.ignored]
table = "shown"
where = "clk = 0"
window = "order"
delay = "10m"
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("movielens_latest_small", MOVIELENS),
        ("taobao_userbehavior", TAOBAO),
        ("taobao_userbehavior", (PRESETS / "taobao-userbehavior-kinds.toml").read_text()),
        ("kuairand_tianchi", KUAIRAND),
        ("amazon2018_all_beauty", BEAUTY_2018),
    ],
    ids=["movielens", "taobao", "taobao-kinds", "kuairand", "amazon-2018"],
)
def test_real_files(name: str, text: str, tmp_path: Path) -> None:
    raw = SHARED / "data" / name
    if not raw.is_dir():
        pytest.skip(f"the real data is not here: {raw} (see TINPREP_SHARED)")
    path = tmp_path / "made.toml"
    path.write_text(text)
    finished(tinprep("prepare", path, "--raw", raw, "--out", tmp_path / "out"))
    assert not differences(Oracle(path, raw), tmp_path / "out")[:9]
    assert verify(tmp_path / "out").findings == ()
