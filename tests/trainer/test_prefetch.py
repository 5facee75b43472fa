from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from tests.trainer.batches import make_batch
from trainer.data.prefetch import AHEAD, ahead, on_device


def reading() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("batches")]


@pytest.mark.parametrize("count", [0, 1, AHEAD, 3 * AHEAD + 1])
def test_all_of_them_in_their_order(count: int) -> None:
    assert list(ahead(iter(range(count)), str)) == [str(n) for n in range(count)]
    assert not reading()


def test_the_next_ones_are_made_while_one_is_in_use_but_no_more() -> None:
    made: list[int] = []
    found = ahead(iter(range(100)), made.append)
    next(found)
    most = AHEAD + 1
    waited = time.monotonic() + 120
    while len(made) < most and time.monotonic() < waited:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(made) == most
    found.close()
    assert not reading()
    assert len(made) <= most + 1


@pytest.mark.parametrize("where", ["made", "ready"])
def test_what_goes_wrong_is_raised_where_its_element_would_have_come(where: str) -> None:
    def made() -> Iterator[int]:
        yield from range(6)
        raise ValueError("made")

    def ready(n: int) -> int:
        if where == "ready" and n == 4:
            raise ValueError("ready")
        return n

    found = ahead(made(), ready)
    good = 6 if where == "made" else 4
    assert [next(found) for _ in range(good)] == list(range(good))
    with pytest.raises(ValueError, match=where):
        next(found)
    assert not reading()


def test_on_the_cpu_batches_are_taken_as_they_are_made() -> None:
    batches = [[make_batch([2, 1])], [], [make_batch([0]), make_batch([3])]]
    asked = []

    def made() -> Iterator[list[dict[str, torch.Tensor]]]:
        for batch in batches:
            asked.append(batch)
            yield batch

    found = on_device(made(), torch.device("cpu"))
    for n, batch in enumerate(batches):
        assert next(found) is batch
        assert len(asked) == n + 1
