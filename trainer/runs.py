"""The folder of a run.

```
RUN/config.json    the resolved config, written first
RUN/log.csv        one line an evaluation
RUN/best.pt        the weights that are kept, and what rebuilds the model around them
RUN/last.pt        what an interrupted run is resumed from; gone when it is finished
RUN/metrics.json   the result, written last: a folder with one is a finished run
```
"""

from __future__ import annotations

import csv
import json
import pickle
import platform
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from schemas.errors import InputError, UsageError
from schemas.shape import decode
from trainer.metrics import Metrics
from trainer.models import Inputs, InterestModel, build

CONFIG, LOG, BEST, METRICS = "config.json", "log.csv", "best.pt", "metrics.json"
LAST = "last.pt"
# What loading a file that is no checkpoint of ours, or a damaged one, ends in.
_UNREADABLE = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, OSError, LookupError, TypeError),
    *(ValueError, AttributeError, AssertionError, ArithmeticError, struct.error, ImportError),
)
# Settings that a run may be resumed without: they change no number.
_FREE = ("run", "force", "resume", "checkpoint_seconds")
_LOG_COLUMNS = ("step", "epoch", "train_loss", "gauc", "pair_accuracy", "auc", "logloss", "seconds")


@dataclass(frozen=True)
class Result:
    """What a finished training came to.

    Attributes:
        run: its folder.
        dataset: the manifest's name of the data set.
        synthetic: whether the data set is made up.
        model: the recipe.
        encoding: the temporal encoding.
        metrics: of the kept weights, for each of `valid` and `test` that the data set has.
        best_step: the step whose weights are kept; the last one where there is no valid.
        steps: steps done.
        seconds: of the whole training, evaluations included.
        rows_per_second: of training alone.
        device: `cpu` or `cuda`.
        threads: CPU threads.
    """

    run: Path
    dataset: str
    synthetic: bool
    model: str
    encoding: str
    metrics: dict[str, Metrics]
    best_step: int
    steps: int
    seconds: float
    rows_per_second: float
    device: str
    threads: int


class Run:
    """A run folder while it is written.

    Args:
        folder: where; made if absent.
        config: the resolved config, plain values only.
        force: replace the files of a finished run.
        resume: go on with an unfinished run, where there is one.

    Raises:
        UsageError: the folder holds a finished run, or cannot be one, or the run to resume had
            other settings.
        InputError: the config of the run to resume cannot be read.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], force: bool, resume: bool = False
    ) -> None:
        self.folder, self.config = folder, config
        if (folder / METRICS).exists() and not force:
            raise UsageError(
                "This folder holds the results of an earlier run.",
                where=folder,
                expected="a new folder",
                got=f"a folder with {METRICS}",
                do="choose another `--run`, or replace it with `--force`",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(
                "The run's folder cannot be made.",
                where=folder,
                expected="a folder, or nothing yet",
                got=str(error),
            ) from None
        if resume and (folder / CONFIG).exists():
            self._require_same_config()
            return
        for name in (METRICS, BEST, LAST, LOG):
            (folder / name).unlink(missing_ok=True)
        _write_json(folder / CONFIG, config)
        with (folder / LOG).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(_LOG_COLUMNS)

    def _require_same_config(self) -> None:
        path = self.folder / CONFIG
        try:
            before = decode(path.read_text(encoding="utf-8"))
            if not isinstance(before, dict):
                raise ValueError("no object")
        except (OSError, ValueError) as error:
            raise InputError(
                "The config of the run to resume cannot be read.",
                where=path,
                expected="the config that tinprep wrote",
                got=str(error)[:200],
                do="start again with `--force`",
            ) from None
        now = json.loads(json.dumps(self.config))
        names = [n for n in sorted({*now, *before} - {*_FREE}) if now.get(n) != before.get(n)]
        if names:
            raise UsageError(
                "The run to resume had other settings.",
                where=path,
                expected=", ".join(f"{name} {before.get(name)}" for name in names),
                got=", ".join(f"{name} {now.get(name)}" for name in names),
                do="resume with the settings it began with, or start again with `--force`",
            )

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Keep what the run can be resumed from, in place of what was kept so far."""
        atomically(self.folder / LAST, lambda path: torch.save(state, path))

    def last_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """What was kept by `checkpoint`; None where nothing was yet.

        Raises:
            InputError: it cannot be read.
        """
        if not (self.folder / LAST).exists():
            return None
        return _read(self.folder / LAST, device, ("at", "weights", "optimizer", "random"))

    def keep_log(self, step: int) -> None:
        """Drop the log's lines of steps after `step`: they will be made again."""
        path = self.folder / LOG
        lines: list[list[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                # A kill may have cut the last line short.
                whole = (x for x in list(csv.reader(file))[1:] if len(x) == len(_LOG_COLUMNS))
                lines = [line for line in whole if int(line[0]) <= step]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_LOG_COLUMNS, *lines])

    def log(self, step: int, epoch: int, loss: float, seconds: float, metrics: Metrics) -> None:
        """Append one evaluation to the log."""
        m = metrics
        row = (step, epoch, loss, m.gauc, m.pair_accuracy, m.auc, m.logloss, round(seconds, 3))
        with (self.folder / LOG).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(["" if value is None else value for value in row])

    def save(self, model: InterestModel, built: dict[str, Any]) -> None:
        """Keep the model's weights in place of those kept so far; `built` as `load` needs it."""
        content = {"built": built, "weights": model.state_dict()}
        atomically(self.folder / BEST, lambda path: torch.save(content, path))

    def finish(self, result: Result) -> None:
        """Write the result for machines to read."""
        summary = asdict(result) | {
            "run": str(result.run),
            "config": self.config,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("tinprep", "torch", "numpy", "pyarrow")},
            },
        }
        _write_json(self.folder / METRICS, summary)
        (self.folder / LAST).unlink(missing_ok=True)


def load(run: Path | str, device: torch.device | str = "cpu") -> InterestModel:
    """Rebuild the model of a run with the weights it kept, in evaluation mode.

    Raises:
        InputError: there is no checkpoint, or it cannot be read.
    """
    path = Path(run) / BEST
    content = _read(path, torch.device(device), ("built", "weights"))
    try:
        # First without memory: what the file says of sizes must be what its weights have.
        with torch.device("meta"):
            shapes = {n: p.shape for n, p in _rebuilt(content["built"]).state_dict().items()}
        if shapes != {name: weight.shape for name, weight in content["weights"].items()}:
            raise ValueError("weights of other shapes than the model's")
        model = _rebuilt(content["built"])
        model.load_state_dict(content["weights"])
    except (*_UNREADABLE, UsageError) as error:
        raise _unreadable(path, error) from error
    return model.to(device).eval()


def _rebuilt(built: dict[str, Any]) -> InterestModel:
    """The model that a checkpoint says it is of, with new weights."""
    return build(
        built["model"],
        built["encoding"],
        Inputs.from_plain(built["inputs"]),
        dim=built["dim"],
        hidden=tuple(built["hidden"]),
    )


def _read(path: Path, device: torch.device, keys: tuple[str, ...]) -> dict[str, Any]:
    """Load a dictionary that `torch.save` wrote, with tensors and plain values only."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        return {key: content[key] for key in keys}
    except FileNotFoundError:
        raise InputError(
            "There is no checkpoint here.",
            where=path,
            expected="the folder of a run",
            got="no such file",
            do="train first, e.g. `tinprep train DATA --run RUN`",
        ) from None
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        "The checkpoint cannot be read.",
        where=path,
        expected="a checkpoint that tinprep wrote",
        got=f"{str(error).partition(chr(10))[0]!a}"[:200],
        do="train again",
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `path` and put it in place in one step."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
