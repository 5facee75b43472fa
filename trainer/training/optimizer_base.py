"""What an optimizer is to a training, and what those share that move embedding tables by rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Optimizer(ABC):
    """Call `collect` after each backward pass, any number of times, then `step`."""

    @torch.no_grad()
    def step(self, clip: float | None = None) -> None:
        """Update every parameter, and forget the gradients.

        Args:
            clip: the gradient's largest Euclidean norm over all parameters; None for any.
        """
        parts = self.gradient()
        if clip is not None and parts:
            norm = torch.stack([part.norm() for part in parts]).norm()
            factor = (clip / (norm + 1e-6)).clamp(max=1.0)
            for part in parts:
                part.mul_(factor)
        self.update()

    @abstractmethod
    def collect(self) -> None:
        """Take in the sparse gradients of the last backward pass."""

    @abstractmethod
    def gradient(self) -> list[Tensor]:
        """The gradient of the step, each number of it once; `update` acts on what becomes of it."""

    @abstractmethod
    def update(self) -> None:
        """Move every parameter by the gradient, and forget it."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if nothing had happened; between steps."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state of an optimizer of the same parameters."""


class RowSums:
    """Sparse gradients, of any number of backward passes, added up row by row.

    Args:
        l2: strength of a penalty on the rows that have a gradient; see `optimizer_of`.
        ordered: whether rows come in their order, by a sort; else a number is kept for each row.
    """

    def __init__(self, l2: float = 0.0, ordered: bool = False) -> None:
        self.l2, self.ordered = l2, ordered
        self._sparse: dict[nn.Parameter, list[tuple[Tensor, Tensor]]] = {}
        # For each row of a table, a place in the step's block; stale where a step did not write.
        self._place: dict[nn.Parameter, Tensor] = {}

    def collect(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take in the sparse gradients of the last backward pass."""
        for p in parameters:
            if p.grad is not None and p.grad.is_sparse:
                kept = self._sparse.setdefault(p, [])
                kept.append((p.grad._indices()[0], p.grad._values()))
                p.grad = None

    def sums(self) -> dict[nn.Parameter, tuple[Tensor, Tensor]]:
        """Of each table that was touched the rows, each once, and their gradients; forget them."""
        found = {p: self._block(p, parts) for p, parts in self._sparse.items()}
        self._sparse.clear()
        return found

    def _block(self, p: nn.Parameter, parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        touched = torch.cat([rows for rows, _ in parts])
        rows, to = self._once(p, touched)
        like = parts[0][1]
        if self.l2:
            gradient = p.detach()[rows].to(like.dtype).mul_(self.l2)
        else:
            gradient = like.new_zeros(len(rows), *p.shape[1:])
        start = 0
        for part, values in parts:
            gradient.index_add_(0, to[start : start + len(part)], values)
            start += len(part)
        return rows, gradient

    def _once(self, p: nn.Parameter, touched: Tensor) -> tuple[Tensor, Tensor]:
        """Each row once, and for each of `touched` which of these it is."""
        if self.ordered:
            rows, to = touched.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            return rows, to
        if p not in self._place:
            self._place[p] = touched.new_zeros(len(p))
        place = self._place[p]
        # Of equal rows one write stays, whichever: it stands for them. No sort is needed.
        order = torch.arange(len(touched), device=touched.device)
        place[touched] = order
        rows = touched[place[touched] == order]
        place[rows] = torch.arange(len(rows), device=rows.device)
        return rows, place[touched]
