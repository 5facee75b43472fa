"""The sound data sets that the tests of `verify` start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.alibaba_made import alibaba
from tests.conftest import amazon, finished
from tests.verify.made import ALL, impression_files, review_files


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sound data sets by name."""
    base = tmp_path_factory.mktemp("verify")
    raw, log = review_files(base / "raw"), impression_files(base / "log")
    outs = {name: base / name.replace(" ", "-") for name in ALL}
    shape = ("--bins", 4, "--max-len", 8, "--buckets", 2)
    finished(amazon(raw, outs["padded reviews"], *shape))
    finished(amazon(raw, outs["ragged reviews"], *shape, "--layout", "ragged", "--negatives", 3))
    few = ("--sessions", "3x4", "--bins", 5, "--max-len", 9, "--buckets", 2)
    finished(alibaba(log, outs["padded ads"], *few))
    finished(alibaba(log, outs["ragged ads"], *few, "--layout", "ragged"))
    return outs
