"""What a training tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainer.metrics import Metrics


@dataclass(frozen=True)
class Started:
    """Training begins: `rows` to train on per epoch, `parameters` counts numbers.

    `batch_size` rows are a step, `per_epoch` steps an epoch.

    `resumed` is the step after which an earlier run is gone on with, 0 where it had no checkpoint
    yet; None where nothing was to be resumed. `histories` are those that are read, of a data set
    with several. `notes` are what a person should know of that.
    `advice` is what to say of settings that do not suit the data.
    """

    dataset: str
    synthetic: bool
    model: str
    encoding: str
    device: str
    rows: int
    steps: int
    parameters: int
    batch_size: int
    per_epoch: int
    resumed: int | None = None
    notes: tuple[str, ...] = ()
    advice: str | None = None
    histories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """So far: `loss` is the mean since the last such event, the rate leaves evaluations out."""

    step: int
    steps: int
    epoch: int
    loss: float
    rows_per_second: float


@dataclass(frozen=True)
class Evaluated:
    """An evaluation on valid, and whether it is the best yet."""

    step: int
    metrics: Metrics
    best: bool


@dataclass(frozen=True)
class Stopped:
    """Training ends before its last step: so many evaluations in a row were no better."""

    step: int
    steps: int
    evaluations: int
    best_step: int
    best_gauc: float


@dataclass(frozen=True)
class Ended:
    """The training is over: `gauc` of the kept weights on test, where there is one."""

    gauc: float | None
    seconds: float


@dataclass(frozen=True)
class Found:
    """In place of all these: the run was finished before, and nothing is trained."""


Event = Started | Progress | Evaluated | Stopped | Ended | Found
OnEvent = Callable[[Event], None]
