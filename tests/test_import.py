"""What is shown of Python runs: the examples of `tinprep`, and those of the README and `docs/`."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import tinprep
from tests.served import Server
from tests.test_cli_docs import PAGES, blocks

DESCRIBED = """
[tables.ratings]
files = "ratings.csv"
user = "user"
time = { column = "second", unit = "s" }
fields = { item = "item", category = "category" }

[lookups.item]
table = "ratings"
key = "item"
repeated = "first"
fields = { category = "category" }

[target]
table = "ratings"
split = { by = "order" }
negatives = { per_positive = 1, pool = "all" }

[histories.history]
table = "ratings"

[vocabulary]
from = "all"
"""


def test_what_is_shown_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    events = [(user, (5 * user + t * t) % 16, t) for user in range(40) for t in range(6)]
    lines = ["user,item,category,second", *(f"u{u},{i},{i % 4},{t}" for u, i, t in events)]
    Path("ratings.csv").write_text("\n".join(lines))
    Path("ratings.toml").write_text(DESCRIBED)
    Path("shown.csv").write_text("request,ad\nr1,7\nr2,8\nr3,7\n")
    Path("clicks.csv").write_text("request\nr2\n")
    assert doctest.testmod(tinprep).failed == 0
    for name, of in {
        "data/amazon-demo": "ratings",
        "data/log": "kept",
        "bundles/log": "tin",
    }.items():
        Path(name).symlink_to(of)
    shown = [block for page in PAGES for block in blocks(page, "python")]
    assert len(shown) >= 3
    with Server("bundles/log", "--events", "data/log", "--store", "store") as server:
        for block in shown:
            # The docs' files are MovieLens', with other names of columns.
            block = block.replace("movieId", "item").replace("8000", str(server.address[1]))
            exec(block, {})
    assert pl.read_parquet("shown.parquet")["clicked"].to_list() == [False, True, False]


@pytest.mark.parametrize(
    "setting",
    [
        *({"force": "no"}, {"keep_events": "false"}, {"threads": "2"}, {"memory": "2GB"}),
        *({"max_rejected": "5%"}, {"without": "item"}, {"split": ("day",)}, {"max_len": "3"}),
    ],
)
def test_a_setting_of_another_type_is_refused(setting: dict[str, Any], tmp_path: Path) -> None:
    """As the command line does: "no" is true in Python."""
    with pytest.raises(tinprep.TinprepError) as error:
        tinprep.prepare("amazon-2014", out=tmp_path / "out", raw=tmp_path, **setting)
    told = str(error.value)
    assert next(iter(setting)).replace("_", "-") in told.replace("_", "-")
    assert not (tmp_path / "out").exists()


def test_all_names_are_there() -> None:
    assert all(callable(getattr(tinprep, name)) for name in tinprep.__all__)
    with pytest.raises(AttributeError):
        tinprep.nothing  # noqa: B018
