"""Lookups that no task holds as a whole: the rows are those of lookups held as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from pipeline.description import Description
from pipeline.steps import deal
from pipeline.verify import verify
from tests.alibaba_made import alibaba
from tests.conftest import finished, tinprep
from tests.description_made import Made, descriptions
from tests.spark.test_spark import skewed
from tests.test_object_store import ad_log, of_files
from tests.test_queries import content, same

# More of them, for hours: TINPREP_EXAMPLES=5000.
EXAMPLES = int(os.environ.get("TINPREP_EXAMPLES", "8"))
SPREAD: list[int] = []


def every(_: object, d: Description) -> list[str]:
    """Every lookup that may be spread, as a cluster would where none fits."""
    config = type("Config", (), {"engine": "spark", "memory": 0})
    found = WHOLE(config, d)  # type: ignore[arg-type]
    SPREAD.append(len(found))
    return found


WHOLE = deal.apart


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    SPREAD.clear()
    monkeypatch.setattr(deal, "apart", every)
    return monkeypatch


def test_made_up_descriptions(
    spread: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(
        max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(made=descriptions())
    def held(made: Made) -> None:
        folder = tmp_path_factory.mktemp("made")
        path = made.write(folder / "files")
        flags = ("--max-rejected", "100%", "--buckets", "3")
        with spread.context() as patch:
            patch.setattr(deal, "apart", WHOLE)
            ended = tinprep("prepare", path, "--out", folder / "whole", *flags)
        again = tinprep("prepare", path, "--out", folder / "spread", *flags)
        assert ended.code == again.code, again.err
        if not ended.code:
            same(folder / "spread", folder / "whole")

    held()
    assert sum(SPREAD) > EXAMPLES


def test_the_ad_log(spread: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ad_log(tmp_path / "raw")
    path = of_files(tmp_path / "raw")
    finished(tinprep("prepare", path, "--keep-events", "--out", tmp_path / "spread"))
    assert max(SPREAD) == 2
    spread.undo()
    finished(tinprep("prepare", path, "--keep-events", "--out", tmp_path / "whole"))
    same(tmp_path / "spread", tmp_path / "whole")
    assert verify(tmp_path / "spread").findings == ()


def test_lines_of_which_every_one_counts(spread: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    finished(alibaba(raw, tmp_path / "spread"))
    assert max(SPREAD) == 2
    spread.undo()
    finished(alibaba(raw, tmp_path / "whole"))
    assert content(tmp_path / "spread")
    same(tmp_path / "spread", tmp_path / "whole")
