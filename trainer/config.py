"""What one training is asked to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import UsageError

_POSITIVE = ("epochs", "batch_size", "lr", "evaluations", "patience", "dim", "memory_mb")


@dataclass(frozen=True)
class TrainConfig:
    """One training.

    Attributes:
        data: folder of the data set.
        run: folder that the run is written to.
        model: a key of `trainer.models.RECIPES`.
        encoding: `tte-p`, `tte-t` or `none`; None for the recipe's default.
        epochs: passes over the train split.
        batch_size: rows per step (released code: 32 for Amazon).
        lr: Adam's learning rate (A.1: 1e-3).
        seed: of the initial weights and of the order of the rows.
        device: `cpu`, `cuda`, or `auto` for CUDA where there is one.
        threads: CPU threads; None for one where a step has few rows, whose tensors are too small to
            share out, and else for all cores.
        evaluations: evaluations on valid per epoch.
        patience: evaluations without a better valid GAUC after which training stops.
        dim: width of each field's embedding (A.1: 64).
        hidden: the head's hidden layers (A.1: 80-40 for Amazon, 200-80 for Alibaba).
        cells: the most history cells (rows x longest) computed at a time; changes time and
            memory, not the gradient. None for 16 per row of a step, within 512 to 4096.
        memory_mb: a split that needs more is streamed from its shards.
        force: replace an earlier run in the same folder.
    """

    data: Path
    run: Path
    model: str = "tin"
    encoding: str | None = None
    epochs: int = 4
    batch_size: int = 32
    lr: float = 1e-3
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    evaluations: int = 4
    patience: int = 4
    dim: int = 64
    hidden: tuple[int, ...] = (80, 40)
    cells: int | None = None
    memory_mb: int = 2048
    force: bool = False

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            self._require(name, getattr(self, name) > 0, "more than 0")
        self._require("threads", self.threads is None or self.threads > 0, "more than 0")
        self._require("cells", self.cells is None or self.cells > 0, "more than 0")
        self._require("hidden", all(width > 0 for width in self.hidden), "widths above 0")
        self._require("seed", self.seed >= 0, "0 or more")

    @property
    def group_cells(self) -> int:
        """The resolved `cells`: small steps and caches like small groups (measured)."""
        return self.cells or min(max(16 * self.batch_size, 512), 4096)

    @property
    def cpu_threads(self) -> int:
        """The resolved `threads`.

        A second thread gains a small step little, and costs it much beside a busy neighbour.
        """
        return self.threads or (1 if self.batch_size < 256 else os.cpu_count() or 1)

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UsageError(
                "A setting of the training is out of range.",
                where=f"--{name.replace('_', '-')}",
                expected=expected,
                got=str(getattr(self, name)),
            )
