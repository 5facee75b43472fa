"""Sessions as the trainer reads and pools them, by plain loops."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.batches import INPUTS, WITH_SESSIONS
from tests.trainer.behaviours import CLOSE, drawn
from trainer.sessions import SessionCells, SessionInterests


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.integers(1, 14), max_size=8),  # behaviours of each session, latest first
        min_size=1,
        max_size=4,
    ),
    padding=st.integers(0, 3),
)
def test_derived_sessions_are_the_latest_behaviours_of_the_latest_sessions(rows, padding):
    cells = SessionCells(INPUTS)
    width = max(1, *map(sum, rows)) + padding
    session = torch.full((len(rows), width), 1, dtype=torch.int32)
    expected, lengths = [], []
    for b, sizes in enumerate(rows):
        of_place = [s + 1 for s, n in enumerate(sizes) for _ in range(n)][::-1]
        session[b, : len(of_place)] = torch.tensor(of_place, dtype=torch.int32)
        row = []
        for s in range(5):
            places = [i for i, x in enumerate(of_place) if x == s + 1][-10:]
            row += places + [None] * (10 - len(places))
            lengths.append(len(places))
        expected.append(row)
    n = torch.tensor([sum(s) for s in rows], dtype=torch.int32)
    source, found = cells.derive(session, n)
    assert found.flatten().tolist() == lengths
    for row, places in zip(source.tolist(), expected, strict=True):
        assert [i for i, p in zip(row, places, strict=True) if p is not None] == [
            p for p in places if p is not None
        ]


def test_stored_sessions_are_taken_as_they_are():
    cells = SessionCells(WITH_SESSIONS)
    ids = torch.arange(24).view(2, 12)
    lengths = torch.tensor([[4, 1, 0], [0, 2, 0]])
    batch = {"session_item": ids, "session_length": lengths, "history_length": torch.ones(2)}
    found, length = cells(batch, ("session_item",))
    assert found["session_item"].tolist() == [0, 1, 2, 3, 4, 16, 17]
    assert length is lengths


def test_derived_sessions_are_taken_from_the_history():
    batch = {
        "history_item": torch.tensor([[5, 6, 7, 8], [9, 1, 1, 1]]),
        "history_session": torch.tensor([[2, 1, 1, 0], [1, 0, 0, 0]]),
        "history_length": torch.tensor([3, 1]),
    }
    found, length = SessionCells(INPUTS)(batch, ("history_item",))
    assert found["history_item"].tolist() == [6, 7, 5, 9]
    assert length.tolist() == [[2, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_a_session_interest_is_the_mean_of_its_own_behaviours():
    part = drawn(SessionInterests(8, (3, 4)))
    x = torch.randn(6, 8)
    lengths = torch.tensor([[4, 2, 0], [0, 0, 0]])
    found, mask = part(x, lengths)
    assert mask.tolist() == [[True, True, False], [False] * 3]
    assert (found[~mask] == 0).all()
    biased = x[4:] + part.of_session[1] + part.of_place[:2] + part.of_unit
    alone = part.block(biased[None], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found[0, 1], alone[0].mean(0), **CLOSE)
    swapped = x[[0, 1, 2, 3, 5, 4]]
    assert not torch.allclose(part(swapped, lengths)[0][0, 1], found[0, 1], atol=1e-3)
