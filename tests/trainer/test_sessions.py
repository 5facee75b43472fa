"""Sessions as the trainer reads and pools them, by plain loops."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.batches import ONE, WITH_SESSIONS
from tests.trainer.behaviours import CLOSE, drawn
from trainer.models.sessions import SessionCells, SessionInterests


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
    cells = SessionCells(ONE)
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
    cells = SessionCells(WITH_SESSIONS.histories["history"])
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
    found, length = SessionCells(ONE)(batch, ("history_item",))
    assert found["history_item"].tolist() == [6, 7, 5, 9]
    assert length.tolist() == [[2, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_a_session_interest_is_the_mean_of_its_own_behaviours():
    part = drawn(SessionInterests(8, (3, 4)))
    lengths = torch.tensor([[4, 2, 0], [0, 0, 0], [1, 2, 4], [3, 0, 0]])
    x = torch.randn(int(lengths.sum()), 8, requires_grad=True)
    found, mask = part(x, lengths)
    assert torch.equal(mask, lengths > 0)
    expected, at = torch.zeros_like(found), 0
    for b, row in enumerate(lengths.tolist()):
        for s, n in enumerate(row):
            biased = x[at : at + n] + part.of_session[s] + part.of_place[:n] + part.of_unit
            at += n
            if n:
                alone = part.block(biased[None], torch.ones(1, n, dtype=torch.bool))
                expected[b, s] = alone[0].mean(0)
    torch.testing.assert_close(found, expected, **CLOSE)
    wanted = (x, *part.parameters())
    ours, theirs = (torch.autograd.grad(y.pow(2).sum(), wanted) for y in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
