"""The released algorithm on a worked example, and whoever claims to do the same."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.amazon_made import read_shards, write_shards
from tests.oracle import (
    SPLITS,
    Review,
    oracle,
)
from tests.released import as_released, read_meta, read_reviews, released

# The first draws of randint(0, 4) after random.seed(1234).
FIRST_DRAWS = [3, 0, 0, 0, 4, 0, 0, 0, 2, 1, 0, 0, 0, 2, 4, 3, 4, 3]


PLAIN = [
    ("x", "b", 20),
    ("y", "e", 10),
    ("x", "a", 10),
    ("y", "c", 10),
    ("x", "d", 30),
]


PLAIN_META = [("d", "M"), ("a", "N"), ("b", "M"), ("c", "L"), ("e", "N"), ("f", "Z")]


def test_released_algorithm_on_a_worked_example() -> None:
    stream = random.Random(1234)
    assert [stream.randint(0, 4) for _ in FIRST_DRAWS] == FIRST_DRAWS
    got = released(PLAIN, PLAIN_META)
    # Items a..e are 0..4, categories L, M, N are 0..2; f is not reviewed. x: [a, b, d] = [0, 1, 3]
    # takes from the stream, past every 0, 1 and 3: 4, 2, 2. y: [e, c] = [4, 2] then takes 3, 3.
    assert got.categories == [2, 1, 0, 1, 2]
    assert got.train == Counter()
    assert got.valid == {(0, (0,), 1, 1): 1, (0, (0,), 2, 0): 1}
    assert got.test == {
        (0, (0, 1), 3, 1): 1,
        (0, (0, 1), 2, 0): 1,
        (1, (4,), 2, 1): 1,
        (1, (4,), 3, 0): 1,
    }


def test_released_algorithm_wants_one_meta_line_an_item() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        released(PLAIN, PLAIN_META[1:])
    with pytest.raises(ValueError, match="exactly one"):
        released(PLAIN, [*PLAIN_META, ("a", "N")])


def test_shards_of_the_oracle_are_the_released_positives(tmp_path: Path) -> None:
    reviews = [Review(*line) for line in PLAIN]
    expected = oracle(reviews, PLAIN_META, max_len=10, bins=2)
    write_shards(expected, tmp_path, "ragged", 10, negative=0)
    shard_rows = [r for r in read_shards(tmp_path) if r["label"] == 1]
    theirs = released(PLAIN, PLAIN_META)
    for split in SPLITS:
        want = Counter({s: n for s, n in getattr(theirs, split).items() if s[3] == 1})
        assert as_released(shard_rows, split) == want


def test_the_benchmarks_peer_makes_what_the_released_algorithm_makes(
    beauty: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pandas", reason="the benchmark's peer needs pandas: install '.[bench]'")
    peer = Path(__file__).parents[1] / "benchmarks" / "released_amazon.py"
    done = subprocess.run(
        [sys.executable, peer, beauty, tmp_path], check=True, capture_output=True, text=True
    )
    theirs = released(
        read_reviews(beauty / "reviews_Beauty_5.json.gz"), read_meta(beauty / "meta_Beauty.json.gz")
    )
    with (tmp_path / "dataset.pkl").open("rb") as file:
        train, valid, test, categories, _ = (pickle.load(file) for _ in range(5))
    assert categories.tolist() == theirs.categories
    assert Counter((u, tuple(h), t, y) for u, h, t, y in train) == theirs.train
    for pairs, want in ((valid, theirs.valid), (test, theirs.test)):
        unfolded = [(u, tuple(h), pair[y == 0], y) for u, h, pair in pairs for y in (0, 1)]
        assert Counter(unfolded) == want
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert rows == {name: getattr(theirs, name).total() for name in SPLITS}
