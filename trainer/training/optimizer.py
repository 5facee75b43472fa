"""Adam and Adagrad over sparse gradients, exactly as over dense ones.

Embedding tables get gradients in a few rows of many. Making those dense costs several times the
rest of a small step (a fresh zeroed table each time).

Adam moves rows without a gradient too, by their momentum (PyTorch's `SparseAdam` does not, so it is
another optimizer): each table keeps one dense gradient for good, the sparse one is added into it,
fused dense Adam runs, and only the rows that were touched are zeroed again.

Adagrad leaves rows without a gradient where they are, and PyTorch's takes sparse gradients. It
sorts them to add up those of a row; here a table of places does. With a step's several backward
passes that sort took 22 to 44% of a step more (Alibaba's columns, batch 4,096, 2 cores).

Tables in bfloat16 are trained by `trainer.training.rounded`, beside these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data.facts import Hyperparameters
from trainer.training.optimizer_base import Optimizer, RowSums
from trainer.training.rounded import RoundedAdagrad, RoundedAdam

_unchecked: Any = torch.sparse.check_sparse_tensor_invariants


def optimizer_of(
    chosen: Hyperparameters, parameters: Iterable[nn.Parameter], seed: int = 0, l2: float = 0.0
) -> Optimizer:
    """Build the optimizer that was chosen, with its learning rate.

    Args:
        seed: of the rounding of embedding tables in bfloat16.
        l2: a step's loss gets l2 / 2 times the square of each row that the step reads of a table,
            once however often it is read. The penalty is the mini-batch-aware one of DIN's paper
            (Zhou et al. 2018, 5.1), but for its division by how often a value occurs in train.
    """
    plain, rounded = _KINDS[chosen.optimizer]
    every = [p for p in parameters if p.requires_grad]
    tables = [p for p in every if p.dtype == torch.bfloat16]
    others = plain([p for p in every if p.dtype != torch.bfloat16], chosen.lr, l2)
    return _Both(others, rounded(tables, chosen.lr, seed, l2)) if tables else others


def bytes_of(optimizer: str, parameter: Tensor) -> int:
    """What a parameter takes with all that the optimizer keeps of it, a key of `OPTIMIZERS`."""
    numbers = {"adam": 3, "adagrad": 2}[optimizer]
    if optimizer == "adam" and parameter.dtype != torch.bfloat16:
        numbers += 1  # the dense gradient
    return numbers * parameter.numel() * parameter.element_size()


class DenseAdam(Optimizer):
    """Adam with PyTorch's default betas and epsilon (A.1: learning rate 1e-3)."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, l2: float = 0.0) -> None:
        self.parameters, self.l2 = [p for p in parameters if p.requires_grad], l2
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
    def gradient(self) -> list[Tensor]:
        """See `Optimizer`."""
        for p, touched in self._touched.items() if self.l2 else ():
            rows, dense = torch.cat(touched), self._dense[p]
            # A row that is there twice is written twice, and with the same numbers.
            dense[rows] = torch.add(dense[rows], p[rows], alpha=self.l2)
        for p, dense in self._dense.items():
            p.grad = dense
        return [p.grad for p in self.parameters if p.grad is not None]

    @torch.no_grad()
    def update(self) -> None:
        """See `Optimizer`."""
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


class RowAdagrad(Optimizer):
    """PyTorch's Adagrad, its accumulators from 0, over sparse gradients that are added up before.

    A.1: learning rate 1e-2.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, l2: float = 0.0) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.adagrad = torch.optim.Adagrad(self.parameters, lr=lr)
        self._rows = RowSums(l2)

    @property
    def squares(self) -> list[Tensor]:
        """The accumulators, by parameter."""
        return [self.adagrad.state[p]["sum"] for p in self.parameters]

    @torch.no_grad()
    def collect(self) -> None:
        """Keep the sparse gradients of the last backward pass."""
        self._rows.collect(self.parameters)

    @torch.no_grad()
    def gradient(self) -> list[Tensor]:
        """See `Optimizer`."""
        for p, (rows, gradient) in self._rows.sums().items():
            p.grad = torch.sparse_coo_tensor(
                rows.unsqueeze(0), gradient, p.shape, is_coalesced=True, check_invariants=False
            )
        found = [p.grad for p in self.parameters if p.grad is not None]
        return [g._values() if g.is_sparse else g for g in found]

    @torch.no_grad()
    def update(self) -> None:
        """See `Optimizer`."""
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


class _Both(Optimizer):
    """Two optimizers of one model's parameters, whose gradient is clipped as one."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts

    def collect(self) -> None:
        """See `Optimizer`."""
        for part in self.parts:
            part.collect()

    def gradient(self) -> list[Tensor]:
        """See `Optimizer`."""
        return [one for part in self.parts for one in part.gradient()]

    def update(self) -> None:
        """See `Optimizer`."""
        for part in self.parts:
            part.update()

    def state(self) -> dict[str, Any]:
        """See `Optimizer`."""
        return {"parts": [part.state() for part in self.parts]}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Optimizer`."""
        for part, of_part in zip(self.parts, state["parts"], strict=True):
            part.restore(of_part)


_KINDS: dict[str, tuple[type[DenseAdam | RowAdagrad], type[RoundedAdam | RoundedAdagrad]]] = {
    "adam": (DenseAdam, RoundedAdam),
    "adagrad": (RowAdagrad, RoundedAdagrad),
}
