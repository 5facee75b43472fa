"""Gradients added up over ranks: threads stand for the processes here."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field

import pytest
import torch

from tests.trainer.batches import INPUTS, make_batch
from trainer.data.facts import DEFAULTS
from trainer.models.interest import build
from trainer.training.loss import gradients
from trainer.training.optimizer import optimizer_of
from trainer.training.ranks import Ranks
from trainer.training.reduction import GradientSum


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks that are threads of one process: the same sums, without `torchrun`."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    shelf: dict[int, torch.Tensor] = field(default_factory=dict)

    def gather(self, values):
        self.shelf[self.rank] = values.clone()
        self.barrier.wait(120)
        found = torch.stack([self.shelf[r] for r in range(self.world)])
        self.barrier.wait(120)
        return found

    def add(self, values):
        values.copy_(self.gather(values).sum(0))


def cut(batch, rows):
    return {name: column[rows] for name, column in batch.items()}


@pytest.mark.parametrize(
    "shares",
    [
        [[0, 1, 2], [3, 4]],
        [[0, 1, 2, 3, 4], []],  # a rank without rows
        [[4], [], [0, 1, 2, 3]],
    ],
)
@pytest.mark.parametrize(
    ("model", "tables"),
    [
        ("tin", "float32"),
        ("tin_released", "float32"),
        ("din", "bfloat16"),
        ("dsin", "float32"),
    ],
)
def test_parts_have_the_gradient_of_the_whole(model, tables, shares):
    torch.manual_seed(0)
    whole = build(model, None, INPUTS, dim=8, hidden=(6,), tables=tables)
    optimizer_of(DEFAULTS, whole.parameters())  # then gradients are in float32
    batch = make_batch([3, 0, 7, 1, 4]) | {"label": torch.tensor([1.0, 0, 1, 0, 0])}
    loss = gradients(whole, batch, 5)
    barrier, shelf = threading.Barrier(len(shares)), {}
    models = [copy.deepcopy(whole) for _ in shares]
    for each in models:
        each.zero_grad()
        optimizer_of(DEFAULTS, each.parameters())
    found = {}

    def part(rank):
        mine = models[rank]
        total = torch.zeros(())
        # In two groups, and as if batches had 8 rows: this one is an epoch's last.
        for rows in (shares[rank][:1], shares[rank][1:]):
            if rows:
                total = total + gradients(mine, cut(batch, rows), 8)
        ranks = Threads(rank, len(shares), barrier=barrier, shelf=shelf)
        found[rank] = GradientSum(mine, ranks)(len(shares[rank]), total, 8)

    threads = [threading.Thread(target=part, args=(r,)) for r in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank, mine in enumerate(models):
        rows, total = found[rank]
        assert rows == 5
        torch.testing.assert_close(total, loss)
        for (name, p), q, r in zip(
            whole.named_parameters(), mine.parameters(), models[0].parameters(), strict=True
        ):
            assert (p.grad is None) == (q.grad is None), name
            if p.grad is not None:
                assert p.grad.is_sparse == q.grad.is_sparse
                assert p.grad.dtype == q.grad.dtype == torch.float32
                ours, theirs = q.grad.to_dense(), p.grad.to_dense()
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)
                assert torch.equal(ours, r.grad.to_dense())
