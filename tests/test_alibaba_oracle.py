"""The Alibaba oracle against an example worked by hand, and the benchmark's peers against it."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.alibaba_made import RawLog, check_rows, read_made
from tests.alibaba_oracle import ABSENT_AD, Expected, oracle
from tests.alibaba_raw import PROFILE
from tests.conftest import SHARED
from tests.one_history import shard_schema
from tests.oracle import SPLITS

ROOT = Path(__file__).parent.parent
KUAIRAND = SHARED / "data" / "kuairand_tianchi"
DAY = 86_400
NIGHT = 1_494_000_000  # 2017-05-06 00:00 in Beijing
SHAPE = (2, 3)

# Sessions of user 7: three behaviours with gaps of exactly 1800, then after 1801 two more, then
# four; the last one's second is that of the impression in row 1.
LOG = RawLog(
    impressions=[
        (7, NIGHT + DAY, 30, "b_1", 1),  # row 0: valid
        (7, NIGHT - 1, 20, "a_9", 0),  # row 1: train, 23:59:59 of the day before
        (7, NIGHT + 2 * DAY, 10, None, 0),  # row 2: test
        (5, NIGHT - 1, 30, "b_1", 1),  # row 3: train; no profile, no behaviour
        (7, NIGHT + 2 * DAY, 40, "b_1", 0),  # row 4: an ad that is not there
    ],
    ads=[
        (30, 6, 600, 1, None, "0.01"),
        (20, 4, 10**12, 2, 9, "100.0"),
        (10, None, 600, 1, 8, None),
        (30, 5, 600, 2, 9, "5"),  # repeats count in vocabularies, and nowhere else
    ],
    profiles=[(7, 0, 1, 2, 3, None, 3, 0, 4), (7, 1, 1, 1, 1, 1, 1, 1, 1), (8,) + (1,) * 8],
    behaviours=[
        (7, NIGHT - 1, "pv", 6, 9),
        (7, NIGHT - 2, "pv", 4, 9),
        (7, NIGHT - 3, "pv", 5, 9),
        (7, NIGHT - 3, "pv", None, 9),
        (7, NIGHT - 3, "cart", 4, 9),
        (7, NIGHT - 1804, "pv", 5, None),
        (7, NIGHT - 1805, "pv", 5, 9),
        (7, NIGHT - 3606, "pv", 6, 9),
        (7, NIGHT - 5406, "pv", 6, 8),
        (7, NIGHT - 7206, "pv", 6, 7),
        (7, NIGHT - 4 * DAY, "pv", 6, 7),  # the first second that counts: from the 5th on 3 days
        (7, NIGHT - 4 * DAY - 1, "pv", 6, 7),
    ],
)


@pytest.fixture
def worked(tmp_path: Path) -> Expected:
    return oracle(LOG.write(tmp_path / "raw"), max_len=4, bins=2, session_shape=SHAPE)


def test_worked_example(worked: Expected) -> None:
    assert worked.vocabulary == {
        "user": {5: 2, 7: 3},
        "ad": {10: 2, 20: 3, 30: 4},
        "category": {4: 2, 5: 3, 6: 4},
        "brand": {7: 2, 8: 3, 9: 4},
        "campaign": {600: 2, 10**12: 3},
        "customer": {1: 2, 2: 3},
        "pid": {"a_9": 2, "b_1": 3},
        **{name: {0: 2, 1: 3} for name in ("cms_segid", "occupation")},
        "cms_group_id": {1: 2},
        "final_gender_code": {1: 2, 2: 3},
        "age_level": {1: 2, 3: 3},
        "pvalue_level": {1: 2},
        "shopping_level": {1: 2, 3: 3},
        "new_user_class_level": {1: 2, 4: 3},
    }
    assert worked.counts["category"] == {4: 2, 5: 4, 6: 6}
    assert worked.counts["ad"] == {10: 2, 20: 2, 30: 4}
    assert worked.left_out == {
        "repeated ad": 1,
        "repeated user": 1,
        ABSENT_AD: 1,
        "behaviour": 2,
    }
    assert {row: r["split"] for row, r in worked.rows.items()} == {
        0: "valid",
        1: "train",
        2: "test",
        3: "train",
    }
    assert worked.ads == {2: (1, 3, 2, 2, None), 3: (2, 4, 3, 3, 100.0), 4: (4, 1, 2, 2, 0.01)}
    assert worked.profiles == {3: (2, 2, 3, 3, 1, 3, 2, 3)}
    # ln 0.01 and ln 100 are in train: their mean is 0, their deviation ln 100.
    assert worked.price == pytest.approx((0, math.log(100)))
    assert [worked.rows[row]["price"] for row in range(4)] == pytest.approx([-1, 1, 0, -1])


def test_histories_and_sessions_of_the_worked_example(worked: Expected) -> None:
    first = worked.rows[1]
    assert (first["user"], first["ad"], first["pid"], first["label"]) == (3, 3, 2, 0)
    # Not the behaviour of its own second; of three in a second the unknown category comes first.
    assert first["history_time"] == [NIGHT - 1804, NIGHT - 3, NIGHT - 3, NIGHT - 2]
    assert first["history_category"] == [3, 1, 3, 2]
    assert first["history_brand"] == [1, 4, 4, 4]
    assert first["history_position"] == [4, 3, 2, 1]
    assert first["history_session"] == [2, 1, 1, 1]
    # Intervals 1803, 2, 2, 1: the median is 2.
    assert worked.edges == [2]
    assert first["history_interval_bin"] == [2, 1, 1, 1]
    assert worked.train_counts == [3, 1]
    # The session of two is not kept, nor the behaviour alone four days before.
    assert first["session_category"] == [[1, 3, 2], [4, 4, 4]]
    assert first["session_brand"] == [[4, 4, 4], [2, 3, 4]]
    later = worked.rows[2]
    assert later["session_category"] == [[3, 2, 4], [4, 4, 4]]
    assert later["session_length"] == [3, 3]
    nobody = worked.rows[3]
    assert nobody["history_length"] == 0
    assert nobody["session_category"] == []
    assert {nobody[name] for name in PROFILE} == {1}


def test_other_options_of_the_worked_example(tmp_path: Path) -> None:
    raw = LOG.write(tmp_path / "raw", gzipped=True)
    every = oracle(raw, behaviors=("pv", "cart"), since="all", session_shape=None, min_count=2)
    assert len(every.rows[2]["history_time"]) == len(LOG.behaviours)
    assert every.vocabulary["category"] == {4: 2, 5: 3, 6: 4}
    assert every.vocabulary["brand"] == {7: 2, 8: 3, 9: 4}
    assert every.vocabulary["campaign"] == {600: 2}
    assert every.rows[1]["campaign"] == 1
    assert "session_length" not in every.rows[1]
    assert oracle(raw, split_at=NIGHT).sizes == {"train": 2, "valid": 0, "test": 2}
    assert oracle(raw, split_at=NIGHT - 1).sizes == {"train": 0, "valid": 0, "test": 4}
    half = oracle(raw, user_fraction=0.5)
    assert {r["user"] for r in half.rows.values()} <= {2}
    assert half.left_out.get("impression of a user not chosen", 0) == 4 - len(half.rows)


def write(expected: Expected, out: Path, layout: str) -> None:
    """Shards of the expected rows."""
    width, shape = 4, SHAPE
    features = ("ad", "campaign", "customer", "pid", *PROFILE)
    schema = shard_schema(
        ("category", "brand"), layout, width, features=features, numbers=("price",), sessions=shape
    )
    for split in SPLITS:
        rows = [
            {name: stored(row, name, layout) for name in schema.names}
            for row in expected.rows.values()
            if row["split"] == split
        ]
        (out / split).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), out / split / "part-00000.parquet")


def stored(row: dict[str, Any], name: str, layout: str) -> Any:
    """A column's value as its shard holds it."""
    value = row[name]
    if name in ("session_category", "session_brand"):
        width = SHAPE[1] if layout == "padded" else 0
        value = [x for s in value for x in s + [0] * (width - len(s))]
    if layout == "padded" and isinstance(value, list):
        full = {"session_length": SHAPE[0], "session_category": 6, "session_brand": 6}.get(name, 4)
        return value + [0] * (full - len(value))
    return value


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_shards_that_are_right_pass_in_both_layouts(
    worked: Expected, tmp_path: Path, layout: str
) -> None:
    write(worked, tmp_path / "out", layout)
    check_rows(read_made(tmp_path / "out"), worked)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("split", "test"),
        ("label", 1),
        ("price", 0.5),
        ("history_time", [1, 2, 3, 4]),
        ("session_category", [[1, 3, 2]]),
        ("cms_segid", 1),
    ],
)
def test_a_wrong_row_is_found(worked: Expected, column: str, value: Any) -> None:
    rows = {row: {**values} for row, values in worked.rows.items()}
    rows[1][column] = value
    with pytest.raises(AssertionError, match=f"row 1: {column}"):
        check_rows(rows, worked)
    with pytest.raises(AssertionError, match="the impressions differ"):
        check_rows({}, worked)


@pytest.mark.parametrize("column", ["history_brand", "session_category", "session_length"])
def test_padding_that_is_not_zero_is_found(worked: Expected, tmp_path: Path, column: str) -> None:
    write(worked, tmp_path / "out", "padded")
    path = tmp_path / "out" / "train" / "part-00000.parquet"
    table = pq.read_table(path, partitioning=None)
    rows = table.to_pylist()
    empty = next(row for row in rows if row["history_length"] == 0)
    empty[column] = [0] * (len(empty[column]) - 1) + [5]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    with pytest.raises(AssertionError, match=column if column != "session_length" else "session"):
        read_made(tmp_path / "out")


# ---- the benchmark's peers


@pytest.fixture(scope="module")
def kuairand() -> Path:
    if not KUAIRAND.is_dir():
        pytest.skip(f"the real data is not here: {KUAIRAND} (see TINPREP_SHARED)")
    return KUAIRAND


def peer(script: str, raw: Path, out: Path) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks" / script), str(raw), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_the_in_memory_peer_makes_what_the_oracle_says(kuairand: Path, tmp_path: Path) -> None:
    want = oracle(kuairand)
    told = peer("naive_alibaba.py", kuairand, tmp_path)
    check_rows(read_made(tmp_path), want)
    assert told["edges_s"] == want.edges
    assert told["rows"] == want.sizes


def test_the_released_peer_keeps_the_sessions_that_the_oracle_keeps(
    kuairand: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pandas", reason="the benchmark's peer needs pandas: install '.[bench]'")
    want = oracle(kuairand, since=1_493_769_600)
    assert sum(peer("released_alibaba.py", kuairand, tmp_path)["rows"].values()) == len(want.rows)
    with (tmp_path / "input.pkl").open("rb") as file:
        got = pickle.load(file)
    for row, values in want.rows.items():
        assert got["history_length"][row] == values["history_length"]
        assert got["session_count"][row] == len(values["session_length"])
        for m, length in enumerate(values["session_length"]):
            assert (got[f"session_{m}_category"][row] > 0).sum() == length
