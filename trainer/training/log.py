"""The log of a run, a line an evaluation: `log.csv`, and the same for TensorBoard."""

from __future__ import annotations

import csv
import math
import os
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import InputError, UsageError
from trainer.files import atomically
from trainer.metrics import MEASURES, Metrics

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG, TENSORBOARD = "log.csv", "tensorboard"
_COLUMNS = ("step", "epoch", "train_loss", *MEASURES, "seconds")
_SCALARS = {"train_loss": "train/loss", **{name: f"valid/{name}" for name in MEASURES}}

_EVENTS = "events.out.tfevents.*"


class Log:
    """The log while it is written.

    TensorBoard's files are made from the lines of `log.csv`, so that both always hold the same
    steps, each once, however often the run was interrupted.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self.path, self.events = folder / LOG, folder / TENSORBOARD
        self.writer: SummaryWriter | None = None
        self.tensorboard = tensorboard
        self.began = 0.0
        if tensorboard and find_spec("tensorboard") is None:
            raise UsageError(
                "TensorBoard is not installed.",
                where="--tensorboard",
                expected="the Python package tensorboard",
                got="none",
                do="pip install 'tinprep[tensorboard]', or train without it: log.csv has the same",
            )

    def begin(self, until: int) -> None:
        """Keep the lines up to a step and drop those after it: they will be made again."""
        lines = self._lines(until) if self.path.exists() else []
        atomically(self.path, partial(_write, lines))
        for path in filter(_is_ours, self.events.glob(_EVENTS)):
            path.unlink()
        with suppress(OSError):  # it is not there, or holds something
            self.events.rmdir()
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.began = time.time() - max((float(x["seconds"]) for x in lines), default=0.0)
            self.writer = SummaryWriter(str(self.events))
            for line in lines:
                self._show(line)

    def add(self, step: int, epoch: int, loss: float, seconds: float, metrics: Metrics) -> None:
        """Append one evaluation."""
        found = (getattr(metrics, name) for name in MEASURES)
        row = (step, epoch, loss, *found, round(seconds, 3))
        line = {k: "" if v is None else str(v) for k, v in zip(_COLUMNS, row, strict=True)}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, _COLUMNS).writerow(line)
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint that counts on it
        self._show(line)

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self.writer is not None:
            self.writer.close()

    def _lines(self, until: int) -> list[dict[str, str]]:
        try:
            return [line for line in lines_of(self.path) if int(line["step"]) <= until]
        except (ValueError, csv.Error) as error:
            raise InputError(
                "A run's log cannot be read.",
                where=self.path,
                expected="the file that tinprep wrote",
                got=str(error),
                do="start again with `--force`",
            ) from None

    def _show(self, line: dict[str, str]) -> None:
        if self.writer is None:
            return
        for name, tag in _SCALARS.items():
            if line[name]:
                self.writer.add_scalar(
                    tag, float(line[name]), int(line["step"]), self.began + float(line["seconds"])
                )
        self.writer.flush()


def lines_of(path: Path) -> list[dict[str, str]]:
    """The lines of a run's log, by column; an unfinished last one is none.

    A kill may have cut it short. Then it is made again, as no checkpoint came after it. A metric
    that a log is older than is empty.

    Raises:
        ValueError, csv.Error: no run wrote it, or it was changed since.
    """
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    head, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines() or [""], strict=True)
    lacking = {name for name in MEASURES if name not in head}
    if head != [name for name in _COLUMNS if name not in lacking]:
        raise ValueError(f"the columns {', '.join(head)!a}"[:200])
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head) or not all(math.isfinite(float(x or 0)) for x in row):
            raise ValueError(f"line {number}: {','.join(row)!a}"[:200])
    steps = [int(row[0]) for row in rows]
    if steps != sorted({*steps}):
        raise ValueError("steps that do not rise")
    return [dict.fromkeys(lacking, "") | dict(zip(head, row, strict=True)) for row in rows]


def _write(lines: list[dict[str, str]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(lines)


def _is_ours(events: Path) -> bool:
    """Whether a file for TensorBoard holds what `Log` writes, and not another program's."""
    if not events.is_file():
        return False
    with events.open("rb") as file:
        head = file.read(1 << 12)
    # GAUC and pair accuracy do not exist on every data set.
    return all(_SCALARS[name].encode() in head for name in ("train_loss", "auc", "logloss"))
