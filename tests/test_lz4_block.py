"""LZ4 blocks: just the bytes that were packed, or an error."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.lz4_block import unpacked, xxh32

RAW = pa.Codec("lz4_raw")
DATA = st.one_of(
    st.binary(min_size=1, max_size=200),
    st.builds(lambda part, times: part * times, st.binary(min_size=1), st.integers(1, 9_000)),
)


@settings(deadline=None)
@given(data=DATA, other=st.integers(-40, 40))
def test_just_the_bytes_that_were_packed(data: bytes, other: int) -> None:
    block = RAW.compress(data).to_pybytes()
    assert unpacked(block, len(data)).to_pybytes() == data
    assume(other != 0 and len(data) + other > 0)
    with pytest.raises(OSError, match=r"frameSize_wrong|too small"):
        unpacked(block, len(data) + other)


@pytest.mark.parametrize("size", [1, (1 << 22) - 1, 1 << 22])
def test_up_to_4_mib(size: int) -> None:
    data = bytes(size)
    assert unpacked(RAW.compress(data).to_pybytes(), size).to_pybytes() == data


def test_more_is_refused() -> None:
    size = (1 << 22) + 1
    with pytest.raises(OSError, match="LZ4"):
        unpacked(RAW.compress(bytes(size)).to_pybytes(), size)


def test_a_damaged_block() -> None:
    block = RAW.compress(bytes(1000)).to_pybytes()
    for damaged in (block[:-1], b"\xff" + block[1:], b""):
        with pytest.raises(OSError, match=r"LZ4|Lz4"):
            unpacked(damaged, 1000)


@pytest.mark.parametrize(
    ("data", "hashed"), [(b"", 0x02CC5D05), (b"a", 0x550D7456), (b"abc", 0x32D153FF)]
)
def test_xxh32(data: bytes, hashed: int) -> None:
    """Values that xxHash's own tools print."""
    assert xxh32(data) == hashed
