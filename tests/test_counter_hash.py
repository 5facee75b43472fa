"""The random numbers are what the same arithmetic in Python's whole numbers gives: for ever."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.steps.negatives import counter_hash, mix

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(x: int) -> int:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def test_mix_gives_the_published_stream() -> None:
    # The first numbers of SplitMix64 from the states 0 and 1234567, as its implementations give.
    want = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    states = np.array([(k * GOLDEN) & MASK for k in (1, 2, 3)], np.uint64)
    assert mix(states).tolist() == want
    begun = np.array([(1234567 + k * GOLDEN) & MASK for k in (1, 2)], np.uint64)
    assert mix(begun).tolist() == [6457827717110365317, 3203168211198807973]


@given(
    seed=st.one_of(st.integers(0, 2**64 - 1), st.integers(-(2**70), 2**70)),
    keys=st.lists(st.integers(0, 2**63 - 1), max_size=3),
)
def test_counter_hash_mixes_one_key_after_the_other(seed: int, keys: list[int]) -> None:
    state = mixed((seed & MASK) + GOLDEN & MASK)
    for key in keys:
        state = mixed(state + GOLDEN + mixed(key + GOLDEN & MASK) & MASK)
    assert counter_hash(seed, *[np.array([key]) for key in keys]).tolist() == [state]


@pytest.mark.parametrize("seed", [-1, 2**64 - 1])
def test_a_seed_counts_by_its_lowest_64_bits(seed: int) -> None:
    assert counter_hash(seed, [1, 2]).tolist() == counter_hash(2**64 - 1, [1, 2]).tolist()
    assert counter_hash(seed + 2**64, [1]).tolist() == counter_hash(seed, [1]).tolist()


def test_a_key_that_is_one_number_is_no_cause_for_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = counter_hash(MASK, 2**63 - 1)
    assert alone.tolist() == counter_hash(MASK, [2**63 - 1]).tolist()
