"""Files cut into parts of whole lines: read part by part they are what they are read at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.spark_parts import count_range, whole_lines
from pipeline.readers.lines import Part, blocks

TEXTS = st.lists(st.sampled_from([b"", b"a", b"bb", b"\r", b"long line"]), max_size=30)


def read(part: Part | Path) -> list[tuple[int, bytes]]:
    """Every line with its number."""
    return [
        (block.first_line + k, line)
        for block in blocks(part, 8)
        for k, line in enumerate(block.data.split(b"\n")[:-1])
    ]


@pytest.mark.spark_free
@given(lines=TEXTS, ends=st.booleans(), step=st.integers(1, 20))
def test_every_line_is_in_one_part(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ends: bool, step: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.csv"
    path.write_bytes(b"\n".join(lines) + b"\n" * ends)
    size = path.stat().st_size
    ranges = [count_range(path, begin, begin + step) for begin in range(0, size, step)]
    parts = whole_lines(path, ranges)
    assert [line for part in parts for line in read(part)] == read(path)
    assert all(part.end is None or part.begin < part.end for part in parts)
    # A part is not much longer than its range: no line but the last leaves it.
    longest = max(map(len, lines), default=0) + 1
    assert all((part.end or size) - part.begin <= step + 2 * longest for part in parts)
