"""Several trainings of a model on a data set, one a seed: what the lines of a table are made of."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from schemas.errors import ContractError, UsageError
from trainer.config import TrainConfig
from trainer.data import Shards
from trainer.events import OnEvent
from trainer.fit import resolve, train
from trainer.metrics import Metrics
from trainer.models import choose, inputs_of
from trainer.runs import CONFIG, METRICS, atomically, load, read_json
from trainer.scoring import logits
from trainer.significance import auc_by_user, gauc_of, mean_by_user, read_users

USERS = "test_users.parquet"
# Settings that leave a finished run's figures what they are, but for rounding.
_NEUTRAL = {
    "data",
    "run",
    "force",
    "resume",
    "checkpoint_seconds",
    "device",
    "threads",
    "cells",
    "memory_mb",
    "ranks",
    "tensorboard",
}


@dataclass(frozen=True)
class Case:
    """A model to be trained on a data set; `encoding` is one of the recipe's."""

    data: Path
    model: str
    encoding: str


@dataclass(frozen=True)
class Trial:
    """What a case comes to on test.

    Attributes:
        case: which case.
        runs: the folder of each seed's run.
        metrics: of each seed, on test.
        users: each user's AUC on test, its mean over the seeds; see `significance.auc_by_user`.
    """

    case: Case
    runs: tuple[Path, ...]
    metrics: tuple[Metrics, ...]
    users: pl.DataFrame

    def over_seeds(self, name: str) -> tuple[float | None, float | None]:
        """Mean and standard deviation over seeds of one of the metrics; see `mean_sd`."""
        return mean_sd([getattr(m, name) for m in self.metrics])


def mean_sd(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1) of what exists.

    None where nothing does; a single value has no standard deviation.
    """
    kept = [v for v in values if v is not None]
    mean = statistics.fmean(kept) if kept else None
    return mean, statistics.stdev(kept) if len(kept) > 1 else None


@dataclass(frozen=True)
class Trials:
    """Where and how the trainings of a table are done.

    Each is an ordinary run, in `<runs>/<data>-<model>-<encoding>-<seed>`: a finished one is used as
    it is, an interrupted one gone on with.

    Attributes:
        data_sets: folders of the data sets; their names must differ.
        runs: folder of the runs.
        seeds: how many: 0, 1, ...
        settings: of `TrainConfig`, where not the data set's preset.
        told: is told, in a line, of each run.
        on_event: is told what happens in a training.
    """

    data_sets: tuple[Path, ...]
    runs: Path
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    told: Callable[[str], None] = lambda line: None
    on_event: OnEvent = lambda event: None

    def __post_init__(self) -> None:
        names = [data.resolve().name for data in self.data_sets]
        if not names or len(set(names)) < len(names):
            raise UsageError(
                "The runs' folders would not tell the data sets apart.",
                where=self.runs,
                expected="data sets in folders of different names, at least one",
                got=", ".join(map(str, self.data_sets)) or "none",
            )
        if self.seeds < 1:
            raise UsageError(
                "There is nothing to train.",
                where="--seeds",
                expected="1 or more",
                got=str(self.seeds),
            )

    def run(self, cases: Iterable[Case]) -> list[Trial]:
        """Train what is not there yet, and measure each case on test.

        Raises:
            UsageError: no such model, encoding or test split, or a run that had other settings.
            InputError: a data set or a run is missing or damaged.
            ContractError: a run is not of the data set that is there now.
        """
        cases = list(dict.fromkeys(cases))
        shards = {data: self.open(data) for data in self.data_sets}
        for case in cases:
            choose(case.model, case.encoding)
        done, trials = 0, []
        for case in cases:
            runs, measured = [], []
            for seed in range(self.seeds):
                done += 1
                of = f"run {done} of {len(cases) * self.seeds}"
                runs.append(self._trained(case, seed, shards[case.data], of))
                measured.append(_metrics(runs[-1]))
            users = [
                _users(run, m, shards[case.data]) for run, m in zip(runs, measured, strict=True)
            ]
            trials.append(Trial(case, tuple(runs), tuple(measured), mean_by_user(users)))
        return trials

    def open(self, data: Path) -> Shards:
        """Open a data set that has a test split.

        Raises:
            UsageError: it has none.
            InputError: there is no data set.
        """
        shards = Shards(data, memory_mb=self.settings.get("memory_mb", 2048))
        if "test" not in shards.splits:
            raise UsageError(
                "The data set has no test split.",
                where=data,
                expected="rows to measure the models on",
                got=f"the splits {', '.join(shards.splits) or '(none)'}",
            )
        return shards

    def config(self, data: Path) -> TrainConfig:
        """The settings of the runs on a data set."""
        return TrainConfig(**self.settings, data=data, run=self.runs)

    def folder(self, case: Case, seed: int) -> Path:
        """The run's folder."""
        name = f"{case.data.resolve().name}-{case.model}-{case.encoding}-{seed}"
        return self.runs / name

    def _trained(self, case: Case, seed: int, shards: Shards, of: str) -> Path:
        """The folder of a finished run: one that was there, or is now trained to its end."""
        run = self.folder(case, seed)
        config = replace(
            self.config(case.data),
            run=run,
            model=case.model,
            encoding=case.encoding,
            seed=seed,
            resume=(run / CONFIG).exists(),
        )
        if (run / METRICS).exists():
            _require_same(run, resolve(config, shards))
            self.told(f"{of}: {run.name} is finished")
        else:
            self.told(f"{of}: {run.name}{' goes on' if config.resume else ''}")
            train(config, self.on_event)
        return run


def _summary(run: Path) -> dict[str, Any]:
    do = "remove the run's folder, and give the command again"
    return read_json(run / METRICS, ("config", "metrics"), do=do)


def _metrics(run: Path) -> Metrics:
    found = _summary(run)["metrics"]
    if "test" not in found:
        raise ContractError(
            "The run was not measured on test.",
            where=run / METRICS,
            expected="metrics of test",
            got=", ".join(found) or "none",
            do="remove the run's folder, and give the command again",
        )
    return Metrics(**found["test"])


def _require_same(run: Path, wanted: dict[str, Any]) -> None:
    """Refuse a finished run of other settings: its figures would stand in the wrong table."""
    before, now = _summary(run)["config"], json.loads(json.dumps(wanted))
    names = [n for n in sorted({*before} & {*now} - _NEUTRAL) if before[n] != now[n]]
    if names:
        raise UsageError(
            "A finished run had other settings.",
            where=run,
            expected=", ".join(f"{name} {now[name]}" for name in names),
            got=", ".join(f"{name} {before[name]}" for name in names),
            do="name another `--runs`, or remove the run's folder to train it again",
        )


def _users(run: Path, measured: Metrics, shards: Shards) -> pl.DataFrame:
    """Each user's AUC on test, scored once and kept beside the run."""
    path, gauc = run / USERS, measured.gauc
    kept = read_users(path)
    if kept is not None and _agree(gauc_of(kept), gauc):
        return kept
    model, gauc_now = load(run), None
    if model.inputs == inputs_of(shards):
        scored = [
            (batch["user"], batch["label"], logit)
            for batch, logit in logits(model, shards, "test", ("user", "label"))
        ]
        user, label, score = (torch.cat(column).numpy() for column in zip(*scored, strict=True))
        users = auc_by_user(user, label.astype(np.int8), score)
        gauc_now = gauc_of(users)
    if gauc_now is None or not _agree(gauc_now, gauc):
        raise ContractError(
            "A finished run is not of the data set that is there now.",
            where=run,
            expected=f"GAUC {gauc} on test",
            got="other ids, positions or bins" if gauc_now is None else f"GAUC {gauc_now}",
            do="remove the run's folder, and give the command again",
        )
    atomically(path, users.write_parquet)
    return users


def _agree(found: float, measured: float | None, within: float = 1e-4) -> bool:
    """Whether two GAUCs are one but for rounding, which differs between devices."""
    return bool(np.isnan(found)) if measured is None else abs(found - measured) < within
