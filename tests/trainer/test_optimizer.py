from __future__ import annotations

import copy

import torch
from torch import nn

from trainer.optimizer import DenseAdam


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


def test_collected_gradients_add_up():
    sparse, dense = pair()
    ours = DenseAdam(sparse.parameters(), lr=0.01)
    theirs = torch.optim.Adam(dense.parameters(), lr=0.01)
    for _ in range(5):
        x = torch.randint(0, 40, (6, 4))
        for piece in x.split(2):
            sparse(piece).pow(2).sum().backward()
            ours.collect()
        ours.step()
        dense(x).pow(2).sum().backward()
        theirs.step()
        theirs.zero_grad()
    torch.testing.assert_close(sparse.state_dict(), dense.state_dict(), rtol=1e-5, atol=1e-6)
