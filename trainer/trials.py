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
from trainer.rows import LENGTH
from trainer.runs import CONFIG, METRICS, atomically, load, read_json
from trainer.scoring import by_length, logits
from trainer.significance import auc_by_user, gauc_of, mean_by_user

SCORES = "test_scores.parquet"
_SCORES = pl.Schema({"user": pl.Int64, "label": pl.Int8, "logit": pl.Float32, "length": pl.Int16})
_ORDER = tuple(_SCORES)
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
    """A model to be trained on a data set.

    Attributes:
        data: folder of the data set.
        model: a key of `RECIPES`.
        encoding: one of the recipe's.
        dim: width of each field's embedding; None for that of the trials' settings.
        attention_dim: the same in tables of the attention's own.
    """

    data: Path
    model: str
    encoding: str
    dim: int | None = None
    attention_dim: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the trials' settings."""
        given = {"dim": self.dim, "attention_dim": self.attention_dim}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def name(self) -> str:
        """Of the runs' folders, e.g. `beauty-tin-tte-p`."""
        parts = [self.data.resolve().name, self.model, self.encoding]
        return "-".join(parts + [f"{name}{value}" for name, value in self.settings.items()])


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

    def by_length(self) -> list[dict[str, Metrics]]:
        """The metrics of each range of history length, for each seed; see `scoring.by_length`."""
        scores = [pl.read_parquet(run / SCORES) for run in self.runs]
        return [by_length(*(s[name].to_numpy() for name in _ORDER)) for s in scores]


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
    it is, an interrupted one gone on with. Beside it is kept how it scored test, so that this too
    is done once.

    Attributes:
        data_sets: folders of the data sets; their names must differ.
        runs: folder of the runs.
        seeds: how many: 0, 1, ...
        settings: of `TrainConfig`, where not the data set's preset.
        told: is told, in a line, of each run.
        on_event: is told what happens in a training.
        used: the folders of the runs that were used so far; copies share it.
    """

    data_sets: tuple[Path, ...]
    runs: Path
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    told: Callable[[str], None] = lambda line: None
    on_event: OnEvent = lambda event: None
    used: set[Path] = field(default_factory=set, compare=False)

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
            choose(case.model, case.encoding, case.attention_dim)
        done, trials = 0, []
        for case in cases:
            runs, measured = [], []
            for seed in range(self.seeds):
                done += 1
                of = f"run {done} of {len(cases) * self.seeds}"
                runs.append(self._trained(case, seed, shards[case.data], of))
                measured.append(_metrics(runs[-1]))
            users = [
                users_of(_scores(run, m, shards[case.data]))
                for run, m in zip(runs, measured, strict=True)
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
        return self.runs / f"{case.name}-{seed}"

    def _trained(self, case: Case, seed: int, shards: Shards, of: str) -> Path:
        """The folder of a finished run: one that was there, or is now trained to its end."""
        run = self.folder(case, seed)
        config: TrainConfig = replace(
            self.config(case.data),
            run=run,
            model=case.model,
            encoding=case.encoding,
            seed=seed,
            **case.settings,
            resume=(run / CONFIG).exists(),
        )
        if (run / METRICS).exists():
            _require_same(run, resolve(config, shards))
            self.told(f"{of}: {run.name} is finished")
        else:
            self.told(f"{of}: {run.name}{' goes on' if config.resume else ''}")
            train(config, self.on_event)
        self.used.add(run)
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


def users_of(scores: pl.DataFrame) -> pl.DataFrame:
    """Each user's AUC, of a run's kept scores; see `significance.auc_by_user`."""
    user, label, logit, _ = (scores[name].to_numpy() for name in _ORDER)
    return auc_by_user(user, label, logit)


def _scores(run: Path, measured: Metrics, shards: Shards) -> pl.DataFrame:
    """How a finished run scores test: done once, and kept beside it."""
    path, gauc = run / SCORES, measured.gauc
    kept = _read(path)
    if kept is not None and _agree(gauc_of(users_of(kept)), gauc):
        return kept
    model, gauc_now = load(run), None
    if model.inputs == inputs_of(shards):
        parts = [
            (batch["user"], batch["label"], logit, batch[LENGTH])
            for batch, logit in logits(model, shards, "test", ("user", "label"))
        ]
        columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
        scores = pl.DataFrame(dict(zip(_ORDER, columns, strict=True))).cast(_SCORES)
        gauc_now = gauc_of(users_of(scores))
    if gauc_now is None or not _agree(gauc_now, gauc):
        raise ContractError(
            "A finished run is not of the data set that is there now.",
            where=run,
            expected=f"GAUC {gauc} on test",
            got="other ids, positions or bins" if gauc_now is None else f"GAUC {gauc_now}",
            do="remove the run's folder, and give the command again",
        )
    atomically(path, scores.write_parquet)
    return scores


def _read(path: Path) -> pl.DataFrame | None:
    """Kept scores; None where there are none that can be read."""
    try:
        found = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):
        return None
    return found if found.schema == _SCORES else None


def _agree(found: float, measured: float | None, within: float = 1e-4) -> bool:
    """Whether two GAUCs are one but for rounding, which differs between devices."""
    return bool(np.isnan(found)) if measured is None else abs(found - measured) < within
