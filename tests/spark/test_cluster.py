"""A real cluster, of which a worker is killed in the middle: the rows are the right ones.

These take minutes, so `make test` leaves them out; `make cluster-test` runs them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline import flow
from pipeline.presets.alibaba import AlibabaConfig
from pipeline.presets.amazon import AmazonConfig
from pipeline.synthetic.alibaba import AlibabaRecipe, synthesize_alibaba
from pipeline.synthetic.amazon import AmazonRecipe, synthesize_amazon
from tests.spark.same import same

pytestmark = pytest.mark.skipif(
    "TINPREP_CLUSTER" not in os.environ, reason="takes minutes: `make cluster-test` runs it"
)


@pytest.fixture
def amazon(tmp_path: Path) -> AmazonConfig:
    synthesize_amazon(tmp_path / "raw", AmazonRecipe(scale=0.01))
    return AmazonConfig(out=tmp_path / "local", raw=tmp_path / "raw")


@pytest.fixture
def alibaba(tmp_path: Path) -> AlibabaConfig:
    synthesize_alibaba(tmp_path / "raw", AlibabaRecipe(scale=0.002))
    return AlibabaConfig(out=tmp_path / "local", raw=tmp_path / "raw")


@pytest.mark.parametrize(
    ("name", "step"), [("amazon", "order and fit intervals"), ("alibaba", "transform")]
)
def test_a_worker_dies_in_the_middle(
    name: str, step: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from tests.spark.cluster import cluster

    config: AlibabaConfig = request.getfixturevalue(name)
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
