"""What no sound training does: numbers that are none, and a loss that is worse than any model's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

# Scores that are all 0, a chance of one half, cost log 2 nats a row. A mean of 20 times as much
# says that the model holds what is true for impossible, row after row. With the paper's settings no
# recipe's mean was above 1.4, first steps included; a learning rate of 10 and more passes 14.
_TIMES_GUESSING = 20


def loss_limit(weight: float) -> float:
    """The mean training loss, in nats a row, above which a training has diverged.

    Args:
        weight: the most that a row's loss is multiplied by.
    """
    return _TIMES_GUESSING * math.log(2) * max(1.0, weight)


def logloss_limit(weight: float) -> float:
    """The same of the plain cross-entropy on a split: a weight moves sound logits by its log."""
    return loss_limit(1.0) + math.log(max(1.0, weight))


def tensors(content: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in dictionaries, lists and tuples, each with its name, however they nest."""
    waiting, seen = [("", content)], set[int]()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{name}.{key}" if name else str(key), part) for key, part in parts]


def not_finite(content: Any) -> str | None:
    """The name of a tensor in `content` that holds a NaN or an infinity; None where none does."""
    for name, tensor in tensors(content):
        if tensor.is_floating_point() and tensor.numel():
            # The least and the greatest take no memory, and are NaN where anything is.
            extremes = torch.stack(torch.aminmax(tensor.detach()))
            if not bool(torch.isfinite(extremes).all()):
                return name
    return None
