"""`benchmarks/measure.py` stops what takes more than it may."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from measure import CommandError, Stopped, run

HOLD = "import time; held = bytearray(200 << 20); time.sleep(20)"


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"limit_mb": 100}, "beyond"),
        ({"limit_s": 0.6}, "not finished"),
    ],
)
def test_a_command_beyond_its_limit_is_killed(limit, told):
    with pytest.raises(Stopped, match=told):
        run([sys.executable, "-c", HOLD], **limit)


def test_a_command_that_fails_is_not_one_that_was_stopped():
    with pytest.raises(CommandError, match="exit code 3") as error:
        run([sys.executable, "-c", "raise SystemExit(3)"], limit_s=60, limit_mb=10_000)
    assert not isinstance(error.value, Stopped)
