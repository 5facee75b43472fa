from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainer.training.optimizer import DenseAdam, RowAdagrad


class Small(nn.Module):
    def __init__(self, sparse: bool, ids: int = 40) -> None:
        super().__init__()
        self.table = nn.Embedding(ids, 3, sparse=sparse)
        self.out = nn.Linear(3, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(ids).sum(1)).squeeze(1)


def pair(ids: int = 40) -> tuple[Small, Small]:
    torch.manual_seed(0)
    sparse = Small(sparse=True, ids=ids)
    dense = Small(sparse=False, ids=ids)
    dense.load_state_dict(copy.deepcopy(sparse.state_dict()))
    return sparse, dense


def assert_same_training(ids: int, per_step: int) -> None:
    """Rows that a step leaves alone must move on by their momentum, as in dense Adam."""
    sparse, dense = pair(ids)
    ours = DenseAdam(sparse.parameters(), lr=0.01)
    theirs = torch.optim.Adam(dense.parameters(), lr=0.01)
    start = sparse.table.weight.detach().clone()
    for step in range(30):
        # The first step touches every row; later ones few, with repeats.
        ids_now = torch.arange(ids) if step == 0 else torch.randint(0, ids, (per_step,))
        x = ids_now.reshape(1, -1)
        for model in (sparse, dense):
            model(x).pow(2).sum().backward()
        ours.collect()
        ours.step()
        theirs.step()
        theirs.zero_grad()
    torch.testing.assert_close(sparse.state_dict(), dense.state_dict(), rtol=1e-5, atol=1e-6)
    assert (sparse.table.weight != start).all()


def test_is_dense_adam_with_few_rows_touched():
    assert_same_training(ids=400, per_step=4)


def test_is_dense_adam_with_many_rows_touched():
    assert_same_training(ids=10, per_step=30)


def test_differs_from_sparse_adam():
    # The reason for the class: SparseAdam stops at rows without a gradient.
    sparse, dense = pair()
    lazy = torch.optim.SparseAdam([sparse.table.weight], lr=0.01)
    theirs = torch.optim.Adam([dense.table.weight], lr=0.01)
    for x in (torch.tensor([[1, 2]]), torch.tensor([[3, 4]])):
        for model, optimizer in ((sparse, lazy), (dense, theirs)):
            model(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert not torch.allclose(sparse.table.weight[1], dense.table.weight[1], atol=1e-4)


BOTH = pytest.mark.parametrize(
    ("ours_is", "theirs_is"),
    [(DenseAdam, torch.optim.Adam), (RowAdagrad, torch.optim.Adagrad)],
)


@BOTH
@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=9), min_size=1, max_size=3),
        min_size=1,
        max_size=6,
    ),
    l2=st.sampled_from([0.0, 0.5]),
)
def test_trains_as_over_dense_gradients(ours_is, theirs_is, steps, l2):
    """Any rows, repeated or not, over any number of backward passes a step; with a penalty, too."""
    sparse, dense = pair(ids=12)
    ours = ours_is(sparse.parameters(), lr=0.1, l2=l2)
    theirs = theirs_is(dense.parameters(), lr=0.1)
    for groups in steps:
        for ids in groups:
            for model in (sparse, dense):
                model(torch.tensor([ids])).pow(2).sum().backward()
            ours.collect()
        ours.step()
        read = sorted({one for ids in groups for one in ids})
        (l2 / 2 * dense.table.weight[read].pow(2).sum()).backward()
        theirs.step()
        theirs.zero_grad()
    torch.testing.assert_close(sparse.state_dict(), dense.state_dict(), rtol=1e-4, atol=1e-6)


def test_adagrad_leaves_other_rows_alone_to_the_bit():
    sparse, _ = pair(ids=1000)
    before = sparse.table.weight.detach().clone()
    ours = RowAdagrad(sparse.parameters(), lr=0.1)
    for _ in range(3):
        sparse(torch.tensor([[5, 7, 7, 999]])).sum().backward()
        ours.collect()
        ours.step()
    moved = (sparse.table.weight != before).any(1)
    assert moved.nonzero().flatten().tolist() == [5, 7, 999]
    assert (ours.squares[0].sum(1) > 0).equal(moved)


@BOTH
def test_clipped_as_torch_clips(ours_is, theirs_is):
    sparse, dense = pair()
    ours, theirs = ours_is(sparse.parameters(), 0.1), theirs_is(dense.parameters(), lr=0.1)
    clipped = 0
    for step in range(6):
        x = torch.randint(0, 40, (5, 4))
        for model in (sparse, dense):
            (model(x).pow(2).sum() * 10.0 ** (step - 3)).backward()
        ours.collect()
        ours.step(clip=0.5)
        clipped += float(nn.utils.clip_grad_norm_(dense.parameters(), 0.5)) > 0.5
        theirs.step()
        theirs.zero_grad()
    assert 0 < clipped < 6
    torch.testing.assert_close(sparse.state_dict(), dense.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [DenseAdam, RowAdagrad])
def test_a_restored_optimizer_goes_on_as_the_first_would(kind):
    first, _ = pair()
    draws = [torch.randint(0, 40, (3, 4)) for _ in range(6)]

    def train(model, optimizer, batches):
        for x in batches:
            model(x).pow(2).sum().backward()
            optimizer.collect()
            optimizer.step()

    ours = kind(first.parameters(), 0.1)
    train(first, ours, draws[:3])
    second, state = copy.deepcopy(first), copy.deepcopy(ours.state())
    train(first, ours, draws[3:])
    again = kind(second.parameters(), 0.1)
    again.restore(state)
    train(second, again, draws[3:])
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
