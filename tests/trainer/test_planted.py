"""What is planted is found again: raw files of a known law, shards, CTC."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.flow import prepare
from pipeline.presets.alibaba import AlibabaConfig
from pipeline.synthetic.alibaba import AlibabaRecipe, synthesize_alibaba
from trainer.analysis.correlation import correlate
from trainer.data.shards import Shards

WINDOW = 20
SCALE_S = 12 * 3600.0
# No runs of a category: what stands at one place then tells little of the others.
LAW: dict[str, Any] = {
    "scale": 0.001,
    "categories": 20,
    "category_exponent": 3.0,
    "category_gain": 4.0,
    "brand_gain": 0.0,
    "click_rate": 0.2,
    "retarget": 0.8,
    "new_run": 1.0,
    "window": WINDOW,
}


def made(folder: Path, **knobs: float) -> Path:
    """The shards of a law."""
    synthesize_alibaba(folder / "raw", AlibabaRecipe(**LAW, **knobs))
    out = folder / "data"
    prepare(AlibabaConfig(raw=folder / "raw", out=out, max_len=WINDOW, sessions="none"))
    return out


def signed(data: Path, by: str) -> np.ndarray[Any, Any]:
    """CTC of the targets' own category, below 0 where such a behaviour makes a click rarer."""
    found = correlate(data, by=by, threads=1)
    return np.where(found.against(), -found.values, found.values)[found.own]


def spearman(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_ctc_recovers_a_decay_by_position(tmp_path: Path) -> None:
    data = made(tmp_path, position_decay=0.2, interval_decay=0.0)
    bits, planted = signed(data, "position"), np.exp(-0.2 * np.arange(10))
    assert spearman(bits, planted) > 0.9
    assert np.corrcoef(bits, planted)[0, 1] > 0.9


def test_ctc_recovers_a_decay_by_interval(tmp_path: Path) -> None:
    data = made(tmp_path, position_decay=0.0, interval_decay=1.0, interval_scale_s=SCALE_S)
    rows = Shards(data).split("train")
    interval = (
        np.repeat(rows.scalars["target_time"], rows.lengths)
        - rows.histories["history"].columns["history_time"]
    )
    bins = rows.histories["history"].columns["history_interval_bin"]
    planted = np.array([np.exp(-interval[bins == b] / SCALE_S).mean() for b in range(1, 11)])
    bits = signed(data, "interval")
    assert spearman(bits, planted) > 0.9
    assert np.corrcoef(bits, planted)[0, 1] > 0.9
    # What the intervals tell is not told by the positions: no decay is seen where none is.
    by_position = signed(data, "position")
    assert by_position.max() - by_position.min() < 0.2 * (bits.max() - bits.min())


def test_only_who_tells_places_apart_knows_the_law_of_a_described_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "planted_log.py"
    shape = ["--users", "1000", "--seeds", "1", "--jobs", "1"]
    monkeypatch.setattr("sys.argv", [str(script), "--out", str(tmp_path), *shape])
    runpy.run_path(str(script), run_name="__main__")
    text = (tmp_path / "planted_log.md").read_text(encoding="utf-8")
    popularity, share, tin, law = map(float, re.findall(r"^\| [^|]* \| (0\.\d+)", text, re.M))
    assert abs(popularity - 0.5) < 0.05
    assert popularity < share < tin - 0.1
    assert tin < law
    assert (tmp_path / "shown.toml").is_file()
