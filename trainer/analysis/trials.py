"""Several trainings of a model on a data set, one a seed: what the lines of a table are made of."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from schemas.errors import UsageError
from schemas.machine import usable_cores
from trainer.analysis import finished_runs
from trainer.analysis.side_by_side import side_by_side
from trainer.analysis.tables import name_of
from trainer.data.shards import Shards
from trainer.metrics import Metrics, mean_by_user
from trainer.models.recipes import choose
from trainer.training.config import TrainConfig, threads_of
from trainer.training.events import OnEvent
from trainer.training.runs import CONFIG


@dataclass(frozen=True)
class Case:
    """A model to be trained on a data set.

    Attributes:
        model: a key of `RECIPES`.
        dim: width of each field's embedding; None for that of the trials' settings.
        attention_dim: the same in tables of the attention's own.
        embeddings: table sets of a model of experts.
        mix: how its experts meet.
    """

    data: Path
    model: str
    encoding: str
    dim: int | None = None
    attention_dim: int | None = None
    embeddings: str | None = None
    mix: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the trials' settings."""
        given = {
            "dim": self.dim,
            "attention_dim": self.attention_dim,
            "embeddings": self.embeddings,
            "mix": self.mix,
        }
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
        runs: the folder of each seed's run.
        metrics: of each seed, on test.
        users: each user's AUC on test, its mean over the seeds; see `metrics.auc_by_user`.
    """

    case: Case
    runs: tuple[Path, ...]
    metrics: tuple[Metrics, ...]
    users: pl.DataFrame

    def over_seeds(self, *names: str) -> dict[str, float | None]:
        """Mean and standard deviation over seeds of metrics, `<name>` and `<name>_sd`."""
        found: dict[str, float | None] = {}
        for name in names:
            found[name], found[f"{name}_sd"] = mean_sd(getattr(m, name) for m in self.metrics)
        return found

    def by_length(self) -> list[dict[str, Metrics]]:
        """The metrics of each range of history length, for each seed; see `scoring.by_length`."""
        return [finished_runs.lengths_of(run) for run in self.runs]


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
        seeds: how many: 0, 1, ...
        settings: of `TrainConfig`, where not the data set's own.
        say: takes a line on each run, to be shown.
        watch: gives, for a run's name, what takes the events of its training.
        jobs: trainings at a time, each in a process of its own where it is more than one.
        used: the folders of the runs that were used so far; copies share it.
    """

    data_sets: tuple[Path, ...]
    runs: Path
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: None
    watch: Callable[[str], OnEvent] = lambda name: lambda event: None
    jobs: int = 1
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
        for name in ("seeds", "jobs"):
            if getattr(self, name) < 1:
                raise UsageError(
                    "There is nothing to train." if name == "seeds" else "Nobody would train.",
                    where=f"--{name}",
                    expected="1 or more",
                    got=str(getattr(self, name)),
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
            choose(case.model, case.encoding, case.attention_dim, embeddings=case.embeddings)
        wanted = [
            self._wanted(case, seed, shards[case.data])
            for case in cases
            for seed in range(self.seeds)
        ]
        self._finish(wanted, shards)
        trials = []
        for i, case in enumerate(cases):
            runs = tuple(config.run for config in wanted[i * self.seeds : (i + 1) * self.seeds])
            scored = [finished_runs.scores(run, shards[case.data]) for run in runs]
            users = mean_by_user([finished_runs.users_of(kept) for kept in scored])
            trials.append(Trial(case, runs, tuple(map(finished_runs.measured, runs)), users))
        return trials

    def open(self, data: Path) -> Shards:
        """Open a data set that has a test split."""
        memory_mb, history = self.settings.get("memory_mb", 2048), self.settings.get("history")
        shards = Shards(data, memory_mb=memory_mb, history=history)
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

    def about(self, data: Path) -> str:
        """What the runs on a data set were trained with, in a sentence."""
        config = self.config(data)
        chosen = config.hyperparameters(self.open(data).facts.training)
        seeds = "seed 0" if self.seeds == 1 else f"seeds 0 to {self.seeds - 1}"
        return (
            f"{name_of(data)}: {chosen.optimizer}, learning rate {chosen.lr:g}, batch "
            f"{chosen.batch_size:,}, epochs: at most {chosen.epochs}, {config.dim} numbers a "
            f"field, {seeds}; weights chosen on valid where there is one, figures of test."
        )

    def _wanted(self, case: Case, seed: int, shards: Shards) -> TrainConfig:
        config: TrainConfig = replace(
            self.config(case.data),
            run=self.folder(case, seed),
            model=case.model,
            encoding=case.encoding,
            seed=seed,
            **case.settings,
        )
        if self.jobs > 1 and config.threads is None:
            most = max(1, usable_cores() // self.jobs)
            threads = threads_of(config.hyperparameters(shards.facts.training))
            config = replace(config, threads=min(threads, most))
        return config

    def _finish(self, wanted: list[TrainConfig], shards: Mapping[Path, Shards]) -> None:
        of = [f"run {i} of {len(wanted)}: {c.run.name}" for i, c in enumerate(wanted, start=1)]
        left = []
        for i, config in enumerate(wanted):
            if finished_runs.is_finished(config, shards[config.data]):
                self.say(f"{of[i]} is finished")
            else:
                left.append(i)

        def begins(k: int) -> OnEvent:
            config = wanted[left[k]]
            self.say(f"{of[left[k]]}{' goes on' if (config.run / CONFIG).exists() else ''}")
            return self.watch(config.run.name)

        configs = [wanted[i] for i in left]
        jobs = min(self.jobs, len(configs))
        if jobs > 1:
            side_by_side(finished_runs.finish, configs, jobs, begins)
        else:
            for k, config in enumerate(configs):
                finished_runs.finish(config, begins(k))
        self.used.update(config.run for config in wanted)
