"""Behaviours of a batch as numbers, and parts with weights drawn for them, for tests."""

from __future__ import annotations

import torch
from torch import nn

LENGTHS = [3, 0, 5, 1]


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def some(width: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Behaviours with rubbish in the padding, targets, mask."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 5, width, generator=g)
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    return x, torch.randn(4, width, generator=g), mask


def drawn(part: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for p in part.parameters():
            p.copy_(torch.randn_like(p) * 0.4)
    return part
