"""Adam and Adagrad over sparse gradients, exactly as over dense ones.

Embedding tables get gradients in a few rows of many. Making those dense costs several times the
rest of a small step (a fresh zeroed table each time).

Adam moves rows without a gradient too, by their momentum (PyTorch's `SparseAdam` does not, so it is
another optimizer): each table keeps one dense gradient for good, the sparse one is added into it,
fused dense Adam runs, and only the rows that were touched are zeroed again.

Adagrad leaves rows without a gradient where they are, and PyTorch's takes sparse gradients. It
sorts them to add up those of a row; here a table of places does. With a step's several backward
passes that sort took 22 to 44% of a step more (Alibaba's columns, batch 4,096, 2 cores).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.data.facts import Hyperparameters

_unchecked: Any = torch.sparse.check_sparse_tensor_invariants


class Optimizer(Protocol):
    """Call `collect` after each backward pass, any number of times, then `step`."""

    def collect(self) -> None:
        """Take in the sparse gradients of the last backward pass."""

    def step(self, clip: float | None = None) -> None:
        """Update every parameter, and forget the gradients.

        Args:
            clip: the gradient's largest Euclidean norm over all parameters; None for any.
        """

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if nothing had happened; between steps."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state of an optimizer of the same parameters."""


def optimizer_of(chosen: Hyperparameters, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Build the optimizer that was chosen, with its learning rate."""
    kinds: dict[str, type[DenseAdam] | type[RowAdagrad]] = {
        "adam": DenseAdam,
        "adagrad": RowAdagrad,
    }
    return kinds[chosen.optimizer](parameters, chosen.lr)


class DenseAdam:
    """Adam with PyTorch's default betas and epsilon (A.1: learning rate 1e-3).

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
    def step(self, clip: float | None = None) -> None:
        """Update every parameter, and forget the gradients; see `Optimizer`."""
        for p, dense in self._dense.items():
            p.grad = dense
        if clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, clip)
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

    def state(self) -> dict[str, Any]:
        """See `Optimizer`."""
        # A table that no gradient has reached yet has no dense gradient: then Adam skips it.
        return {
            "adam": self.adam.state_dict(),
            "dense": [p in self._dense for p in self.parameters],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `Optimizer`."""
        # The groups hold settings, which are not the checkpoint's to choose.
        groups = self.adam.state_dict()["param_groups"]
        self.adam.load_state_dict({"state": state["adam"]["state"], "param_groups": groups})
        for p, dense in zip(self.parameters, state["dense"], strict=True):
            shapes = {name: kept.shape for name, kept in self.adam.state.get(p, {}).items()}
            if shapes and shapes != {"step": (), "exp_avg": p.shape, "exp_avg_sq": p.shape}:
                raise ValueError("an optimizer's state of another shape than its weights")
            if dense:
                self._dense[p] = torch.zeros_like(p)


class RowAdagrad:
    """PyTorch's Adagrad, its accumulators from 0, over sparse gradients that are added up before.

    Args:
        parameters: what to train; gradients may be sparse or dense (A.1: learning rate 1e-2).
        lr: learning rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.adagrad = torch.optim.Adagrad(self.parameters, lr=lr)
        self._sparse: dict[nn.Parameter, list[tuple[Tensor, Tensor]]] = {}
        # For each row of a table, a place in the step's block; stale where a step did not write.
        self._place: dict[nn.Parameter, Tensor] = {}

    @property
    def squares(self) -> list[Tensor]:
        """The accumulators, by parameter."""
        return [self.adagrad.state[p]["sum"] for p in self.parameters]

    @torch.no_grad()
    def collect(self) -> None:
        """Keep the sparse gradients of the last backward pass."""
        for p in self.parameters:
            if p.grad is not None and p.grad.is_sparse:
                kept = self._sparse.setdefault(p, [])
                kept.append((p.grad._indices()[0], p.grad._values()))
                p.grad = None

    @torch.no_grad()
    def step(self, clip: float | None = None) -> None:
        """Update every parameter, and forget the gradients; see `Optimizer`."""
        for p in self._sparse:
            rows, gradient = self._block(p)
            p.grad = torch.sparse_coo_tensor(
                rows.unsqueeze(0), gradient, p.shape, is_coalesced=True, check_invariants=False
            )
        self._sparse.clear()
        if clip is not None:
            found = [p.grad for p in self.parameters if p.grad is not None]
            parts = [g._values() if g.is_sparse else g for g in found]
            norm = torch.stack([part.norm() for part in parts]).norm()
            for part in parts:
                part.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
        with _unchecked(False):  # each row is there once
            self.adagrad.step()
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, Any]:
        """See `Optimizer`."""
        return {"squares": self.squares}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Optimizer`."""
        for ours, theirs in zip(self.squares, state["squares"], strict=True):
            if ours.shape != theirs.shape:
                raise ValueError("an optimizer's state of another shape than its weights")
            ours.copy_(theirs)

    def _block(self, p: nn.Parameter) -> tuple[Tensor, Tensor]:
        """The rows that this step touched, each once, and the sum of each one's gradients."""
        parts = self._sparse[p]
        touched = torch.cat([rows for rows, _ in parts])
        if p not in self._place:
            self._place[p] = touched.new_zeros(len(p))
        place = self._place[p]
        # Of equal rows one write stays, whichever: it stands for them. No sort is needed.
        order = torch.arange(len(touched), device=touched.device)
        place[touched] = order
        first = place[touched] == order
        rows = touched[first]
        place[rows] = torch.arange(len(rows), device=rows.device)
        gradient = p.new_zeros(len(rows), *p.shape[1:])
        to = place[touched]
        start = 0
        for part, values in parts:
            gradient.index_add_(0, to[start : start + len(part)], values)
            start += len(part)
        return rows, gradient
