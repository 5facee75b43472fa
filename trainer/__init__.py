"""Models trained on prepared data sets, and put to use.

>>> from pathlib import Path
>>> from trainer import Shards, TrainConfig, evaluate, load, predict, train
>>> train(TrainConfig(Path("data/amazon"), run=Path("runs/tin")))  # doctest: +SKIP
>>> evaluate("runs/tin").metrics.gauc                                   # doctest: +SKIP

What is named here is public. It is loaded when it is first asked for, as PyTorch takes a while.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.data.shards import Shards
    from trainer.training.config import TrainConfig
    from trainer.training.evaluation import evaluate, predict
    from trainer.training.runs import Result, load
    from trainer.training.train import train

__all__ = ["Result", "Shards", "TrainConfig", "evaluate", "load", "predict", "train"]

_WHERE = {
    "Shards": "data.shards",
    "TrainConfig": "training.config",
    "evaluate": "training.evaluation",
    "predict": "training.evaluation",
    "Result": "training.runs",
    "load": "training.runs",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
