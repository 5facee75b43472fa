"""A request has the features of a row: every row of a data set, asked for as a request."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings

from pipeline.serving.events import read
from pipeline.serving.golden import differing, events_of, requests_of
from pipeline.serving.requests import Features
from pipeline.verify import verify
from schemas import manifest
from tests.conftest import finished, real_data, tinprep
from tests.description_made import Made, descriptions
from tests.description_oracle import Oracle
from tests.test_new_events import prepare


def require_every_row(out: Path, each: int = 1) -> int:
    """Hold the requests of each row, or of one target in `each`, to it; returns how many rows."""
    made = manifest.load(out)
    features, events, rows = Features(out, made, read(out, made)), events_of(out, made), 0
    for one in made.shards:
        shard = pq.read_table(out / one.path).combine_chunks()
        for asked in requests_of(features, shard, events, each):
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


@pytest.mark.parametrize(
    ("folder", "command", "each", "rows"),
    [
        ("taobao_userbehavior", "prepare taobao-userbehavior-kinds", 1, 202),
        ("kuairand_tianchi", "alibaba --split-by-day", 16, 4_067),
        ("amazon_beauty", "amazon --category Beauty", 40, 8_820),
    ],
)
def test_rows_of_real_logs(folder: str, command: str, each: int, rows: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(tinprep(*command.split(), "--raw", real_data(folder), "--out", out, "--keep-events"))
    assert verify(out).findings == ()
    assert require_every_row(out, each) == rows
