"""The runs that a report shows: read, held against the data set, and grouped over seeds."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.checked import OPEN, Count, build
from schemas.errors import ContractError, InputError, UsageError
from schemas.plain import printable
from trainer.analysis.finished_runs import NEUTRAL, require_same_data
from trainer.analysis.tables import said
from trainer.analysis.trials import mean_sd
from trainer.data.inputs import require_alike
from trainer.data.shards import Shards
from trainer.training.log import LOG, lines_of
from trainer.training.runs import METRICS, Result, load, read_json

Pair = tuple[float, float | None]
"""A mean, and its standard deviation over seeds: None of one run."""
_HIGHEST = 1e30  # more is drawn nowhere


@dataclass(frozen=True)
class _Config:
    """What a report needs of a run's settings."""

    __pydantic_config__ = OPEN
    batch_size: Count
    seed: Count


@dataclass(frozen=True)
class FinishedRun:
    """A finished run on the report's data set.

    Attributes:
        result: its `metrics.json`.
        curves: of its log, one number an evaluation, empty where there is no valid split: `epochs`,
            passes over train so far; `train_loss`, the mean cross-entropy since the evaluation
            before; `logloss` and `gauc` on valid.
    """

    folder: Path
    result: Result
    curves: dict[str, list[float]]

    @property
    def name(self) -> str:
        """Model and encoding."""
        encoding = self.result.encoding
        named = self.result.model + (f" ({encoding})" if encoding != "none" else "")
        return printable(named)

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.result.config["seed"])

    @property
    def settings(self) -> dict[str, Any]:
        """What it was asked to do, but for the seed and what changes no number."""
        kept = {k: v for k, v in self.result.config.items() if k not in NEUTRAL | {"seed"}}
        # The config may hold None for the recipe's own encoding.
        return kept | {"encoding": self.result.encoding}


@dataclass(frozen=True)
class Line:
    """Runs that differ by their seed alone.

    Attributes:
        name: model and encoding, and what else tells it from another line of that name.
        runs: one or more, by seed.
    """

    name: str
    runs: tuple[FinishedRun, ...]

    def mean(self, split: str, measure: str) -> Pair | None:
        """Of a metric on a split; None where a run has none."""
        metrics = [run.result.metrics.get(split) for run in self.runs]
        values = [getattr(m, measure, None) for m in metrics]
        mean, sd = mean_sd(values)
        return None if mean is None or None in values else (mean, sd)


def read_runs(folders: Sequence[Path], shards: Shards) -> list[FinishedRun]:
    """Read finished runs on a data set.

    Raises:
        UsageError: a run is given twice, or is not finished.
        InputError: there is no such run, or it is damaged.
        ContractError: a run is of another data set.
    """
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise UsageError("This run is given twice.", where=folder, do="name it once")
        seen.add(folder.resolve())
    return [_read(folder, shards) for folder in folders]


def _read(folder: Path, shards: Shards) -> FinishedRun:
    path, made = folder / METRICS, shards.manifest
    if not folder.is_dir():
        raise InputError(
            "There is no run here.", where=folder, expected="the folder of a run", got="no folder"
        )
    if not path.exists():
        raise UsageError(
            "This run is not finished.",
            where=folder,
            expected=f"a folder with {METRICS}, which is written last",
            got="none",
            do="finish it with `tinprep train ... --resume`, or leave it out",
        )
    try:
        result = read_json(path, Result, do="train again")
        config = build(_Config, result.config)
        curves = _curves(folder / LOG, result, config.batch_size / made.rows["train"])
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            "A file of this run cannot be read.",
            where=folder,
            expected=f"{METRICS} and {LOG} as tinprep writes them",
            got=f"{type(error).__name__}: {error}",
            do="train again",
        ) from error
    require_same_data(folder, require_alike(load(folder).inputs, shards, users=True))
    if result.synthetic != made.synthetic:
        said = {True: "synthetic data", False: "real data"}
        raise ContractError(
            "This run is of another data set.",
            where=folder,
            expected=said[made.synthetic],
            got=said[result.synthetic],
            do="report on the data set it was trained on, or leave it out",
        )
    return FinishedRun(folder, result, curves)


def _curves(path: Path, result: Result, epoch: float) -> dict[str, list[float]]:
    """A run's log; `epoch` is what a step is of one."""
    lines = lines_of(path)
    if "valid" in result.metrics:
        steps = [int(line["step"]) for line in lines]
        # The best evaluation and the last one, which is at the last step, have a line each.
        for name in ("best_step", "steps"):
            if (step := getattr(result, name)) not in steps:
                raise ValueError(f"{path.name} has no line of step {step}, its {name}")
    names = ("train_loss", "logloss", "gauc")
    curves = {name: [float(line[name]) for line in lines] for name in names}
    curves["epochs"] = [float(line["step"]) * epoch for line in lines]
    for value in (value for curve in curves.values() for value in curve):
        if not 0 <= value <= _HIGHEST:
            raise ValueError(f"{value} in {LOG}")
    return curves


def by_seed(runs: Sequence[FinishedRun]) -> list[Line]:
    """Group runs whose settings are the same but for the seed, in the order given."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    firsts = [group[0] for group in groups.values()]
    return [
        Line(_name(group[0], firsts), tuple(sorted(group, key=lambda run: run.seed)))
        for group in groups.values()
    ]


def _name(run: FinishedRun, others: Sequence[FinishedRun]) -> str:
    """The run's name, with the settings that tell it from others of the same name."""
    mine = run.settings
    same = [other.settings for other in others if other.name == run.name]
    differing = [key for key in mine if any(other.get(key) != mine[key] for other in same)]
    more = "".join(f", {key.replace('_', ' ')} {said(mine[key])}" for key in differing)
    return run.name + printable(more)
