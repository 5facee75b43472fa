"""LZ4 blocks unpacked, with the certainty that they hold just so many bytes.

Arrow's `lz4_raw` codec takes the size for granted: where a block holds less, the rest of the result
is what the memory held before. LZ4's frame format names the size of its content, and its decoder
checks it: so a block is unpacked as a frame of this one block (LZ4 Frame Format, version 1.6).
"""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

_MAGIC = b"\x04\x22\x4d\x18"
# Version 1, blocks that do not need each other, a size of the content; blocks of up to 4 MiB.
_DESCRIPTOR = b"\x68\x70"
_END = bytes(4)
_PRIME = (2654435761, 2246822519, 3266489917, 668265263, 374761393)
_32_BITS = 0xFFFFFFFF


def unpacked(block: bytes, size: int) -> pa.Buffer:
    """The `size` bytes that a block of LZ4 holds.

    Raises:
        OSError: it holds fewer or more, or is damaged, or holds more than 4 MiB.
    """
    frame = _header(size) + len(block).to_bytes(4, "little") + block + _END
    return pa.Codec("lz4").decompress(frame, size)


@lru_cache(maxsize=64)
def _header(size: int) -> bytes:
    descriptor = _DESCRIPTOR + size.to_bytes(8, "little")
    return _MAGIC + descriptor + bytes([xxh32(descriptor) >> 8 & 0xFF])


def xxh32(data: bytes) -> int:
    """The 32-bit xxHash, with seed 0, of fewer than 16 bytes."""
    words = len(data) // 4 * 4
    state = _PRIME[4] + len(data)
    for at in range(0, words, 4):
        word = int.from_bytes(data[at : at + 4], "little")
        state = _rotated(state + word * _PRIME[2], 17) * _PRIME[3]
    for byte in data[words:]:
        state = _rotated(state + byte * _PRIME[4], 11) * _PRIME[0]
    for shift, prime in ((15, _PRIME[1]), (13, _PRIME[2]), (16, 1)):
        state &= _32_BITS
        state = (state ^ state >> shift) * prime
    return state


def _rotated(state: int, by: int) -> int:
    state &= _32_BITS
    return state << by | state >> 32 - by
