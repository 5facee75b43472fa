"""A real cluster, of which a worker is killed in the middle: the rows are the right ones.

These take minutes, so `make test` leaves them out; `make cluster-test` runs them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import flow
from pipeline.presets.alibaba import AlibabaConfig
from pipeline.presets.described import Asked, DescribedConfig, described
from pipeline.steps import deal
from pipeline.synthetic.alibaba import AlibabaRecipe, synthesize_alibaba
from tests.spark.same import same
from tests.test_object_store import ad_log, of_files

pytestmark = pytest.mark.skipif(
    "TINPREP_CLUSTER" not in os.environ, reason="takes minutes: `make cluster-test` runs it"
)


@pytest.fixture
def alibaba(tmp_path: Path) -> AlibabaConfig:
    synthesize_alibaba(tmp_path / "raw", AlibabaRecipe(scale=0.002))
    return AlibabaConfig(out=tmp_path / "local", raw=tmp_path / "raw")


@pytest.fixture
def ads(tmp_path: Path) -> DescribedConfig:
    ad_log(tmp_path / "raw")
    return described(str(of_files(tmp_path / "raw")), Asked(), out=tmp_path / "local")


@pytest.mark.parametrize(
    ("name", "step"), [("alibaba", "order and fit intervals"), ("ads", "transform")]
)
def test_a_worker_dies_in_the_middle(
    name: str,
    step: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.spark.cluster import cluster

    config: Any = request.getfixturevalue(name)
    if name == "ads":  # no lookup fits in a task
        monkeypatch.setattr(deal, "LOOKUPS_PART", 1 << 62)
        monkeypatch.setattr("pipeline.engines.spark.PART_BYTES", 2_000)
    flow.prepare(config)
    with cluster(tmp_path) as running:
        killed: list[str] = []

        def told(now: str, done: int, total: int | None) -> None:
            # Some of its buckets are finished, others under way.
            if now == step and done >= 1 and not killed:
                killed.append(now)
                running.kill(0)

        flow.prepare(running.on(config, tmp_path / "spark"), told)
        assert killed
        logs = [path.read_text() for path in tmp_path.glob("worker-*/*/*/stderr")]
    assert len(logs) == 2
    assert all("Finished task" in log for log in logs)
    same(tmp_path / "local", tmp_path / "spark")
