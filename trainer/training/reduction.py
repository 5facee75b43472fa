"""The gradients of a step, added up over ranks."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.models.layers import Table
from trainer.training.ranks import Ranks


class GradientSum:
    """Adds up the gradients of a model over ranks, so that each has those of the whole batch.

    Embedding tables have gradients in few rows of many, and only these are sent: as many numbers
    as the step touched, each row once a rank. Everything else is sent whole, in one piece. Every
    rank adds in the same order, so that the models stay the same to the last bit.
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self.ranks = ranks
        tables = {m.weight for m in model.modules() if isinstance(m, Table)}
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.tables = [p for p in parameters if p in tables]
        self.others = [p for p in parameters if p not in tables]

    @torch.no_grad()
    def __call__(self, rows: int, total: Tensor, batch_size: int) -> tuple[int, Tensor]:
        """Put the whole batch's gradients in place of this rank's.

        Args:
            rows: this rank's rows of the batch; 0 for none, and then no gradient is needed.
            batch_size: what the gradients of this rank's losses were divided by.

        Returns:
            The rows of the whole batch, and the sum of their losses.
        """
        device = total.device
        # A parameter that had no gradient on any rank must have none afterwards.
        there = [float(p.grad is not None) for p in self.others]
        head = torch.tensor([float(rows), *there], device=device)
        bodies = [(torch.zeros_like(p) if p.grad is None else p.grad) for p in self.others]
        flat = torch.cat([total.reshape(1), head, *(body.flatten() for body in bodies)])
        self.ranks.add(flat)
        whole, *there = flat[1 : 1 + len(head)].tolist()
        scale = batch_size / whole
        sizes = [p.numel() for p in self.others]
        pieces = torch.split(flat[1 + len(head) :].mul_(scale), sizes)
        for p, piece, count in zip(self.others, pieces, there, strict=True):
            p.grad = piece.view_as(p) if count else None
        self._add_tables(scale, device)
        return int(whole), flat[0]

    def _add_tables(self, scale: float, device: torch.device) -> None:
        found = [None if p.grad is None else p.grad.coalesce() for p in self.tables]
        counts = torch.tensor([0 if g is None else g._nnz() for g in found], device=device)
        counts = self.ranks.gather(counts)
        per_rank = counts.cpu()
        widths = torch.tensor([p[0].numel() for p in self.tables])
        rows = self._exchange(
            [g.indices()[0] for g in found if g is not None],
            int(per_rank.sum(1).max()),
            torch.long,
            device,
        )
        values = self._exchange(
            [g.values().flatten() for g in found if g is not None],
            int((per_rank * widths).sum(1).max()),
            torch.float32,
            device,
        )
        row_ends, value_ends = per_rank.cumsum(1), (per_rank * widths).cumsum(1)
        for i, p in enumerate(self.tables):
            if not per_rank[:, i].any():
                p.grad = None
                continue
            parts = []
            for r in range(self.ranks.world):
                (lo, hi), (start, stop) = (
                    list(pairwise([0, *ends[r].tolist()]))[i] for ends in (row_ends, value_ends)
                )
                parts.append((rows[r, lo:hi], values[r, start:stop].view(-1, *p.shape[1:])))
            index = torch.cat([part for part, _ in parts]).unsqueeze(0)
            gradient = torch.cat([part for _, part in parts]).mul_(scale)
            # Coalesced, each row is there once: adding it in needs no order among ranks.
            p.grad = torch.sparse_coo_tensor(
                index, gradient, p.shape, check_invariants=False
            ).coalesce()

    def _exchange(
        self, parts: list[Tensor], longest: int, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """This rank's parts in one piece, beside those of the others: ranks x longest."""
        mine = torch.zeros(longest, dtype=dtype, device=device)
        if parts:
            joined = torch.cat(parts)
            mine[: len(joined)] = joined
        return self.ranks.gather(mine)
