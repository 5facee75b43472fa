"""What one training is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.machine import usable_cores

_WHOLE = (1, 2**31 - 1)
WIDTHS = (1, 1 << 20)
_FLOATS = (1e-38, 3.4e38)  # of 32 bits
# The least and the most that a setting can be, where it is no None.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("epochs", "steps", "evaluations", "evaluate_every", "patience"), _WHOLE),
    **dict.fromkeys(("batch_size", "cells"), _WHOLE),
    **dict.fromkeys(("dim", "attention_dim"), WIDTHS),
    **dict.fromkeys(("lr", "clip"), _FLOATS),
    "threads": (1, 1024),
    "memory_mb": (1, 1 << 30),
    "checkpoint_seconds": (0, 1e9),
    "seed": (0, 2**63 - 1),
}
LAYERS = 100
# Two ways to say one thing: of each pair, one at most.
EITHER = (("epochs", "steps"), ("evaluations", "evaluate_every"))
# The loss weight that makes positives and negatives count alike.
BALANCED = "balanced"
# A.1's learning rate of each.
OPTIMIZERS = {"adam": 1e-3, "adagrad": 1e-2}
# History cells computed at a time on a GPU: some GB of activations at A.1's widths.
GPU_CELLS = 1 << 18


@dataclass(frozen=True)
class Schedule:
    """The settings that the paper chooses by data set.

    Attributes:
        optimizer: one of `OPTIMIZERS`.
        lr: learning rate.
        batch_size: rows per step.
        epochs: passes over the train split.
        hidden: the head's hidden layers.
    """

    optimizer: str
    lr: float
    batch_size: int
    epochs: int
    hidden: tuple[int, ...]

    def cells(self, device: str) -> int:
        """The most history cells to compute at a time: small steps and caches like small groups.

        Measured on 2 cores: 16 per row of a step, at least 512, at most 4,096. With Alibaba's wide
        features a group costs more whatever its size, so there 16,384 are faster; on Amazon's
        they are slower by a fifth. On a GPU each group costs the time to start its kernels.

        Args:
            device: `cpu` or `cuda`.
        """
        if device == "cuda":
            return GPU_CELLS
        most = 16_384 if self.optimizer == "adagrad" else 4_096
        return min(max(16 * self.batch_size, 512), max(4_096, min(4 * self.batch_size, most)))

    @property
    def threads(self) -> int:
        """CPU threads: a second one gains a small step little, and costs it much beside others."""
        return 1 if self.batch_size < 256 else usable_cores()


# A.1; batch and epochs as in the released code of TIN (Amazon) and DSIN (Alibaba), which A.1 keeps.
AMAZON = Schedule("adam", lr=1e-3, batch_size=32, epochs=4, hidden=(80, 40))
ALIBABA = Schedule("adagrad", lr=1e-2, batch_size=4096, epochs=1, hidden=(200, 80))


def preset(dataset: str) -> Schedule:
    """The paper's settings for a data set: `ALIBABA` where its name begins so, else `AMAZON`."""
    return ALIBABA if dataset.startswith("alibaba") else AMAZON


@dataclass(frozen=True)
class TrainConfig:
    """One training.

    None for `optimizer`, `batch_size`, `epochs` or `hidden` takes the data set's preset. Each field
    is a flag of `tinprep train` and a key of its `--config` file; see `trainer.settings`.

    Attributes:
        data: folder of the data set.
        run: folder that the run is written to.
        model: a key of `trainer.recipes.RECIPES`.
        encoding: one of `trainer.encodings.ENCODINGS`; None for the recipe's default.
        epochs: passes over the train split.
        steps: in place of epochs: optimizer steps, over as many epochs as they take.
        batch_size: rows per step, over all processes.
        lr: learning rate; None for the optimizer's in A.1.
        optimizer: one of `OPTIMIZERS`.
        seed: of the initial weights and of the order of the rows.
        device: `cpu`, `cuda`, or `auto` for CUDA where there is one.
        threads: CPU threads; None for `Schedule.threads`.
        evaluations: evaluations on valid per epoch; 4 by default.
        evaluate_every: in place of those: steps between evaluations. The last step is evaluated
            in any case.
        patience: evaluations without a better valid GAUC after which training stops.
        dim: width of each field's embedding (A.1: 64).
        attention_dim: the same in tables of the attention's own (A.2); None for `dim`.
        hidden: the head's hidden layers.
        cells: the most history cells (rows x longest) computed at a time; changes time and
            memory, not the gradient. None for what `Schedule.cells` gives.
        memory_mb: a split that needs more is streamed from its shards.
        loss_weight: of a positive row in the cross-entropy, a negative row having 1; "balanced" for
            negatives by positives of the train split. With another weight than 1 the scores are
            no probabilities any more, and logloss suffers; order, so AUC and GAUC, need not.
        amp: compute the model in bfloat16 where PyTorch's autocast finds that safe. Weights,
            gradients, optimizer and all measuring stay in float32.
        compile: have `torch.compile` make kernels of the model.
        tensorboard: keep the log for TensorBoard as well.
        clip: the gradient's largest Euclidean norm; None for any, as in the paper.
        checkpoint_seconds: how long to train between checkpoints to resume from; they are also
            made at every evaluation.
        resume: go on with the run in the folder, whose data set and settings must be these but
            for what changes no number (`run`, `checkpoint_seconds`, `tensorboard`), or its last
            digits at most (`device`, `threads`, `cells`). There may be more `epochs`, `steps` or
            `patience`; where a finished run has as many, nothing is left to do.
        force: replace an earlier run in the same folder.
    """

    data: Path
    run: Path
    model: str = "tin"
    encoding: str | None = None
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    evaluations: int | None = None
    evaluate_every: int | None = None
    patience: int = 4
    dim: int = 64
    attention_dim: int | None = None
    hidden: tuple[int, ...] | None = None
    cells: int | None = None
    memory_mb: int = 2048
    loss_weight: float | str = 1.0
    amp: bool = False
    compile: bool = False
    tensorboard: bool = False
    clip: float | None = None
    checkpoint_seconds: float = 300.0
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            within = value is None or low <= value <= high
            self._require(name, within, f"{low} to {high}")
        hidden, (low, high) = self.hidden or (), WIDTHS
        within = len(hidden) <= LAYERS and all(low <= width <= high for width in hidden)
        self._require("hidden", within, f"at most {LAYERS} widths of {low} to {high}")
        self._require("resume", not (self.resume and self.force), "not together with --force")
        for one, other in EITHER:
            both = getattr(self, one) is not None and getattr(self, other) is not None
            self._require(other, not both, f"not together with --{one}")
        weight, (low, high) = self.loss_weight, _FLOATS
        fine = weight == BALANCED if isinstance(weight, str) else low <= weight <= high
        self._require("loss_weight", fine, f"balanced, or {low} to {high}")
        known = self.optimizer is None or self.optimizer in OPTIMIZERS
        self._require("optimizer", known, f"one of {', '.join(OPTIMIZERS)}")

    def schedule(self, dataset: str) -> Schedule:
        """The data set's preset with the settings that were given in place of its own."""
        given: dict[str, Any] = {
            f.name: getattr(self, f.name)
            for f in fields(Schedule)
            if getattr(self, f.name) is not None
        }
        chosen = replace(preset(dataset), **given)
        if self.lr is None:
            # Another optimizer than the preset's brings its own rate.
            chosen = replace(chosen, lr=OPTIMIZERS[chosen.optimizer])
        return chosen

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UsageError(
                "A setting of the training is out of range.",
                where=f"--{name.replace('_', '-')}",
                expected=expected,
                got=str(getattr(self, name))[:100],
            )
