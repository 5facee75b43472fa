"""Adam over sparse gradients, exactly as Adam over dense ones.

Embedding tables get gradients in a few rows of many. Making those dense costs several times the
rest of a small step (a fresh zeroed table each time), and `SparseAdam` is another optimizer: it
leaves rows without a gradient alone, while Adam moves them on by their momentum. Here each table
keeps one dense gradient for good: the sparse one is added into it, fused dense Adam runs, and
only the rows that were touched are zeroed again.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class DenseAdam:
    """Adam with PyTorch's default betas and epsilon (A.1: learning rate 1e-3).

    Call `collect` after each backward pass, any number of times, then `step`.

    Args:
        parameters: what to train; gradients may be sparse or dense.
        lr: learning rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.adam = torch.optim.Adam(self.parameters, lr=lr, fused=True)
        self._dense: dict[nn.Parameter, Tensor] = {}
        self._touched: dict[nn.Parameter, list[Tensor]] = {}

    @torch.no_grad()
    def collect(self) -> None:
        """Add the sparse gradients of the last backward pass to the tables' dense ones."""
        for p in self.parameters:
            if p.grad is None or not p.grad.is_sparse:
                continue
            # Not coalesced: repeated rows add up here as well, without a sort.
            rows, values = p.grad._indices()[0], p.grad._values()
            if p not in self._dense:
                self._dense[p] = torch.zeros_like(p)
            self._dense[p].index_add_(0, rows, values)
            self._touched.setdefault(p, []).append(rows)
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter, and forget the gradients."""
        for p, dense in self._dense.items():
            p.grad = dense
        self.adam.step()
        for p in self.parameters:
            p.grad = None
        for p, touched in self._touched.items():
            # Filling row by row pays while few rows are touched.
            if sum(len(rows) for rows in touched) * 8 < len(p):
                for rows in touched:
                    self._dense[p].index_fill_(0, rows, 0.0)
            else:
                self._dense[p].zero_()
        self._touched.clear()
