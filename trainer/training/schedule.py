"""How long a training goes on and when it is measured, and how far it has come."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

# Optimizer steps, in all and of an epoch, below which a training learns next to nothing; twice as
# many are advised.
_FEW_STEPS, _FEW_AN_EPOCH = 200, 50
_ADVISED_EPOCHS, _LEAST_BATCH = 4, 32


@dataclass(frozen=True)
class Schedule:
    """The course of a training.

    Attributes:
        steps: steps in all.
        after: steps of an epoch after which valid is measured; empty where `every` says when.
        every: steps from one measurement to the next; 0 for none.
    """

    batch_size: int
    per_epoch: int
    steps: int
    after: frozenset[int]
    every: int

    @classmethod
    def of(cls, settled: dict[str, Any], rows: int, has_valid: bool) -> Schedule:
        """Make the schedule of a settled config (see `trainer.training.train.resolve`)."""
        per_epoch = math.ceil(rows / settled["batch_size"])
        steps = settled["steps"] or per_epoch * settled["epochs"]
        count, every = settled["evaluations"] or 0, settled["evaluate_every"] or 0
        # Evenly spaced, and always at the end of an epoch.
        after = frozenset(round(per_epoch * (i + 1) / count) for i in range(count))
        if not has_valid:
            after, every = frozenset(), 0
        return cls(settled["batch_size"], per_epoch, steps, after, every)

    def advice(self, rows: int) -> str | None:
        """What to say of a schedule of few steps; None of others. `rows` are those to train on."""
        batch = 1 << max(1, rows * _ADVISED_EPOCHS // (2 * _FEW_STEPS)).bit_length() - 1
        smaller = _LEAST_BATCH <= batch < self.batch_size
        if self.steps >= _FEW_STEPS and not (self.per_epoch < _FEW_AN_EPOCH and smaller):
            return None
        few = f"warning: these are {self.steps:,} optimizer steps, too few to learn much"
        if self.steps >= _FEW_STEPS:
            few = f"warning: an epoch has {self.per_epoch:,} optimizer steps, few to learn from"
        if not smaller:
            return f"{few}; more rows would suit, or more --epochs"
        how = f"--batch-size {batch} --epochs {_ADVISED_EPOCHS}"
        return f"{few}; for {rows:,} rows {how} would suit"

    def measures(self, step: int, in_epoch: int) -> bool:
        """Whether valid is measured after a step, which is the `in_epoch`-th of its epoch.

        The last step of all is measured in any case.
        """
        if not self.after and not self.every:
            return False
        due = step % self.every == 0 if self.every else in_epoch in self.after
        return due or step == self.steps


@dataclass
class Progressed:
    """How far a training is: with weights, optimizer and random state, all there is to resume.

    Attributes:
        epoch: the epoch that is being trained.
        in_epoch: its steps that are done.
        step: all steps that are done.
        loss: sum of the cross-entropies since the last evaluation.
        rows: rows since then.
        best_step: step of the best evaluation; 0 for none yet.
        best_gauc: its GAUC on valid.
        since_best: evaluations since then.
        rows_seen: rows trained on.
        seconds: time spent.
        evaluating_seconds: of that on evaluations.
    """

    epoch: int = 0
    in_epoch: int = 0
    step: int = 0
    loss: float = 0.0
    rows: int = 0
    best_step: int = 0
    best_gauc: float = -math.inf
    since_best: int = 0
    rows_seen: int = 0
    seconds: float = 0.0
    evaluating_seconds: float = 0.0

    @classmethod
    def from_plain(cls, values: dict[str, Any], per_epoch: int) -> Progressed:
        """Rebuild from `dataclasses.asdict`, as a checkpoint holds it.

        Raises:
            ValueError: no training has come so far.
        """
        begin = asdict(cls())
        at = cls(**{name: values[name] for name in begin})
        for name, first in begin.items():
            value = values[name]
            if type(value) is not type(first) or not (0 <= value < 1 << 63 or value == first):
                raise ValueError(f"{name} {value!a}"[:100])
        if at.step != at.epoch * per_epoch + at.in_epoch or not 0 <= at.in_epoch < per_epoch:
            raise ValueError(f"step {at.step}, {at.in_epoch} of epoch {at.epoch}")
        return at
