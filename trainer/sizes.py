"""How large a reproduction is: the paper's own settings, or small ones that show it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.experiments import MODELS
from trainer.paper import AMAZON, TABLE1
from trainer.widths import WIDTHS


@dataclass(frozen=True)
class Setting:
    """What `tinprep reproduce` takes where an option does not say otherwise.

    Attributes:
        about: in a sentence.
        seeds: runs of each line.
        training: settings of `TrainConfig`, in place of the data set's preset.
        models: of Table 1.
        widths: of Figure 5.
    """

    about: str
    seeds: int
    training: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = MODELS
    widths: tuple[int, ...] = WIDTHS


SETTINGS = {
    "paper": Setting("A.1: the data set's optimizer, batch and epochs, 5 seeds.", seeds=5),
    "small": Setting(
        "To see the whole path work, on the demo data: narrow embeddings, "
        "one epoch, 3 seeds. Shows that the whole path works, not what the models are worth.",
        seeds=3,
        models=tuple(TABLE1[AMAZON]),
        training={
            "optimizer": "adam",
            "lr": 3e-3,
            "batch_size": 256,
            "epochs": 1,
            "dim": 16,
            "evaluations": 2,
            "patience": 2,
        },
        widths=(2, 8, 32, 64),
    ),
}
