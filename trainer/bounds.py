"""What no sound training does: numbers that are none, and a loss that is worse than any model's."""

from __future__ import annotations

import math
from typing import Any

import torch

# Scores that are all 0, a chance of one half, cost log 2 nats a row. A mean of 20 times as much
# says that the model holds what is true for impossible, row after row. With the paper's settings no
# recipe's mean was above 1.4, first steps included; a learning rate of 10 and more passes 14.
_TIMES_GUESSING = 20


def loss_limit(positive_weight: float) -> float:
    """The mean training loss, in nats a row, above which a training has diverged.

    Args:
        positive_weight: of a positive row in the loss; a negative one's is 1.
    """
    return _TIMES_GUESSING * math.log(2) * max(1.0, positive_weight)


def logloss_limit(positive_weight: float) -> float:
    """The same of the plain cross-entropy on a split: a weight moves sound logits by its log."""
    return loss_limit(1.0) + math.log(max(1.0, positive_weight))


def not_finite(content: Any, name: str = "") -> str | None:
    """The name of the first tensor that holds a NaN or an infinity; None where all are finite.

    Args:
        content: a tensor, or dictionaries, lists and tuples of such; anything else is passed over.
        name: of `content`.
    """
    if isinstance(content, torch.Tensor):
        if not content.is_floating_point() or not content.numel():
            return None
        # The least and the greatest take no memory, and are NaN where anything is.
        extremes = torch.stack(torch.aminmax(content.detach()))
        return None if bool(torch.isfinite(extremes).all()) else name
    parts: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        parts = list(content.items())
    elif isinstance(content, list | tuple):
        parts = list(enumerate(content))
    names = (not_finite(part, f"{name}.{key}" if name else str(key)) for key, part in parts)
    return next((found for found in names if found is not None), None)
