"""The runs that a report shows: read, held against the data set, and grouped over seeds."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas import manifest
from schemas.errors import ContractError, InputError, UsageError
from schemas.plain import printable
from schemas.shape import misfit
from trainer.data import Shards
from trainer.finished import require_same_data
from trainer.inputs import require_alike
from trainer.logs import LOG
from trainer.metrics import Metrics
from trainer.runs import METRICS, load, read_json
from trainer.settings import DIGESTS

MEASURES = ("gauc", "pair_accuracy", "auc", "logloss")
# What tells no models apart: names, places, and how fast it went.
_FREE = (
    DIGESTS, "data", "run", "seed", "force", "resume", "device", "threads", "memory_mb", "cells",
    "checkpoint_seconds",
)  # fmt: skip
# What a report uses of `metrics.json`, and of the config in it.
_RESULT: dict[str, Any] = {
    **dict.fromkeys(("dataset", "model", "encoding", "device"), str),
    **dict.fromkeys(("steps", "best_step"), int),
    **dict.fromkeys(("seconds", "rows_per_second"), float),
    "synthetic": bool,
    "metrics": dict[str, Metrics],
    "config": dict[str, Any],
    "versions": dict[str, Any],
}
_CONFIG: dict[str, Any] = {"data": str, "batch_size": int, "seed": int}
_MOST_SETTINGS = 1_000
_HIGHEST = 1e30  # more is drawn nowhere


@dataclass(frozen=True)
class Curve:
    """What a run's log holds, one number an evaluation.

    Attributes:
        epochs: passes over the train split so far.
        train_loss: mean cross-entropy since the evaluation before.
        valid_loss: logloss on valid.
        gauc: on valid.
    """

    epochs: list[float]
    train_loss: list[float]
    valid_loss: list[float]
    gauc: list[float]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run on the report's data set.

    Attributes:
        folder: where it is.
        result: its `metrics.json`.
        curve: of its log; empty lists where the data set has no valid split.
    """

    folder: Path
    result: dict[str, Any]
    curve: Curve

    @property
    def name(self) -> str:
        """Model and encoding."""
        encoding = self.result["encoding"]
        named = str(self.result["model"]) + (f" ({encoding})" if encoding != "none" else "")
        return printable(named)

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.result["config"]["seed"])


@dataclass(frozen=True)
class Line:
    """Runs that differ by their seed alone.

    Attributes:
        name: model and encoding, and what else tells it from another line of that name.
        runs: one or more, by seed.
    """

    name: str
    runs: tuple[FinishedRun, ...]

    def mean(self, split: str, measure: str) -> tuple[float, float | None] | None:
        """Mean, and standard deviation over seeds (None of one run); None where not measured."""
        found = [run.result["metrics"].get(split, {}).get(measure) for run in self.runs]
        values = [float(value) for value in found if value is not None]
        if len(values) < len(found):
            return None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def read_runs(folders: Sequence[Path], shards: Shards) -> list[FinishedRun]:
    """Read finished runs on a data set.

    Raises:
        UsageError: a run is given twice, is not finished, or is of another data set.
        InputError: there is no such run, or it is damaged.
    """
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise UsageError("This run is given twice.", where=folder, do="name it once")
        seen.add(folder.resolve())
    return [_read(folder, shards) for folder in folders]


def _read(folder: Path, shards: Shards) -> FinishedRun:
    path = folder / METRICS
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
        result = _result(path)
        made = shards.manifest
        synthetic = result["synthetic"]
        rows = {split: m["rows"] for split, m in result["metrics"].items()}
        data = Path(result["config"]["data"])
        log = _log(folder / LOG, result)
        curve = _curve(log, result["config"]["batch_size"], made.rows["train"])
        run = FinishedRun(folder, result, curve)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        raise InputError(
            "A file of this run cannot be read.",
            where=folder,
            expected=f"{METRICS} and {LOG} as tinprep writes them",
            got=f"{type(error).__name__}: {error}",
            do="train again",
        ) from error
    require_alike(load(folder).inputs, shards, users=True)
    require_same_data(folder, shards)
    mine = {split: made.rows[split] for split in ("valid", "test") if made.rows.get(split)}
    of_before = DIGESTS not in result["config"]
    if synthetic != made.synthetic or rows != mine or (of_before and _is_another(data, shards)):
        raise ContractError(
            "This run is of another data set.",
            where=folder,
            expected=_about(made.dataset, made.synthetic, mine),
            got=_about(f"{result['dataset']} in {data}", synthetic, rows),
            do="report on the data set it was trained on, or leave it out",
        )
    return run


def _about(name: str, synthetic: bool, rows: dict[str, int]) -> str:
    about = [
        name,
        *["synthetic"] * synthetic,
        *(f"{n:,} {split} rows" for split, n in rows.items()),
    ]
    return ", ".join(about)


def _result(path: Path) -> dict[str, Any]:
    """The content of a run's `metrics.json`, as far as a report uses it.

    Raises:
        InputError: it cannot be read.
        ValueError: it holds settings or figures that no run has.
    """
    result = read_json(path, _RESULT, do="train again")
    config = result["config"]
    wrong = [misfit(config.get(key), kind, key) for key, kind in _CONFIG.items()]
    wrong.append(misfit(result["versions"].get("torch"), str, "versions.torch"))
    if found := next(filter(None, wrong), None):
        raise ValueError("{}: expected {}, got {}".format(*found))
    if len(config) > _MOST_SETTINGS:
        raise ValueError(f"{len(config):,} settings")
    for split, measured in result["metrics"].items():
        for name, value in measured.items():
            high = 1.0 if name in ("gauc", "pair_accuracy", "auc") else _HIGHEST
            if value is not None and not 0 <= value <= high:
                raise ValueError(f"{name} {value} of {split}")
    return result


def _number(text: str) -> float:
    """A number of a log.

    Raises:
        ValueError: it is none, or none that a run can have.
    """
    if not 0 <= (value := float(text)) <= _HIGHEST:
        raise ValueError(f"{value} in {LOG}")
    return value


def _is_another(data: Path, shards: Shards) -> bool:
    """Whether the run's own data set is still there, and is not this one nor the same rows."""
    if not (data / manifest.NAME).exists() or data.resolve() == shards.out.resolve():
        return False
    return manifest.load(data).shards != shards.manifest.shards


def _log(path: Path, result: dict[str, Any]) -> list[dict[str, str]]:
    """The lines of a run's log; a ValueError where it has lost some."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    steps = [int(line["step"]) for line in lines]
    if steps != sorted({*steps}):
        raise ValueError(f"the steps in {path.name} do not rise")
    if "valid" in result["metrics"]:
        # The best evaluation and the last one, which is at the last step, have a line each.
        for name in ("best_step", "steps"):
            if result[name] not in steps:
                raise ValueError(f"{path.name} has no line of step {result[name]}, its {name}")
    return lines


def _curve(lines: list[dict[str, str]], batch: int, rows: int) -> Curve:
    return Curve(
        [_number(line["step"]) * batch / rows for line in lines],
        *([_number(line[name]) for line in lines] for name in ("train_loss", "logloss", "gauc")),
    )


def by_seed(runs: Sequence[FinishedRun]) -> list[Line]:
    """Group runs whose settings are the same but for the seed, in the order given."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(settings(run), sort_keys=True), []).append(run)
    chosen = [sorted(group, key=lambda run: run.seed) for group in groups.values()]
    names = [group[0].name for group in chosen]
    return [
        Line(_name(group[0], [g[0] for g in chosen]) if names.count(name) > 1 else name,
             tuple(group))
        for name, group in zip(names, chosen, strict=True)
    ]  # fmt: skip


def settings(run: FinishedRun) -> dict[str, Any]:
    """What a run was asked to do, but for the seed and what changes no number."""
    config = run.result["config"]
    asked = {key: value for key, value in config.items() if key not in _FREE}
    # The config may hold None for the recipe's own encoding.
    return asked | {"encoding": run.result["encoding"]}


def _name(run: FinishedRun, others: Sequence[FinishedRun]) -> str:
    """The run's name with the settings that tell it from others of the same name."""
    mine = settings(run)
    same = [settings(other) for other in others if other.name == run.name]
    differing = [k for k in mine if any(other.get(k) != mine[k] for other in same)]
    told = "".join(f", {key.replace('_', ' ')} {mine[key]}" for key in differing)
    return run.name + printable(told)
