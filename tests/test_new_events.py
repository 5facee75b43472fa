"""New events behind those that a data set was made of: what is kept, and what comes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from pipeline.verify import verify
from tests.conftest import Ended, finished, tinprep
from tests.description_made import Made, descriptions
from tests.description_oracle import Oracle

SOME = settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def prepare(description: Path, out: Path, *flags: object) -> Ended:
    """Prepare what a description says, and keep its events."""
    return tinprep(
        "prepare", description, "--out", out, "--max-rejected", "100%", "--keep-events", *flags
    )


@SOME
@given(made=descriptions())
def test_all_events_are_kept_in_order(made: Made, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("made")
    path, out = made.write(folder / "raw"), folder / "out"
    oracle = Oracle(path, folder / "raw")
    if oracle.wrong:
        return
    finished(prepare(path, out))
    assert verify(out).findings == ()
    kept = json.loads((out / "manifest.json").read_text())["kept"]
    assert kept["rows"] == {name: len(rows) for name, rows in oracle.raw.items()}
    for name in oracle.events:
        found: dict[int, Any] = {}
        for file in sorted(out.glob(f"events/{name}-*.parquet")):
            rows = pq.read_table(file).to_pylist()
            order = [(row["user"], row["time"], row["row"]) for row in rows]
            assert order == sorted(order)
            found |= {row["row"]: row for row in rows}
        for event in oracle.events[name].every:
            row = found[event["row"]]
            fields = oracle.told["tables"][name]["fields"]
            assert {n: row[n] for n in ("user", "time", *fields)} == {
                n: event[n] for n in ("user", "time", *fields)
            }
