"""Finished runs: each trained to its end once, with how it scored test kept beside it.

```
RUN/test_scores.parquet   user, label, logit and history length of each row of test; its metadata
                          says of which data set
```
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from schemas.digests import ROWS, differing, told
from schemas.errors import ContractError, UsageError
from trainer.atomic import atomically
from trainer.config import TrainConfig
from trainer.data import Shards
from trainer.events import OnEvent
from trainer.fit import resolve, train
from trainer.inputs import digests_of, require_alike
from trainer.metrics import Metrics
from trainer.rows import LENGTH
from trainer.runs import CONFIG, FREE, LAST, METRICS, ROUNDING, SCORES, load, read_json
from trainer.scoring import by_length, logits
from trainer.settings import DIGESTS, RANKS
from trainer.significance import auc_by_user, gauc_of

_SCORES = pl.Schema({"user": pl.Int64, "label": pl.Int8, "logit": pl.Float32, "length": pl.Int16})
_ORDER = tuple(_SCORES)
# Settings that leave a finished run's figures what they are, but for rounding.
_NEUTRAL = FREE | ROUNDING | {DIGESTS, RANKS, "force", "resume", "memory_mb"}
_REMOVE = "remove the run's folder, and give the command again"


def begun(run: Path) -> bool:
    """Whether there is a run to go on with."""
    return (run / CONFIG).exists()


def is_finished(config: TrainConfig, shards: Shards) -> bool:
    """Whether a run has been trained to its end.

    Raises:
        UsageError: it had other settings: its figures would stand in the wrong table.
        InputError: it cannot be read.
        ContractError: it is not of the data set.
    """
    if not (config.run / METRICS).exists():
        return False
    before, now = _summary(config.run)["config"], json.loads(json.dumps(resolve(config, shards)))
    names = [n for n in sorted({*before} & {*now} - _NEUTRAL) if before[n] != now[n]]
    if names:
        raise UsageError(
            "A finished run had other settings.",
            where=config.run,
            expected=", ".join(f"{name} {now[name]}" for name in names),
            got=", ".join(f"{name} {before[name]}" for name in names),
            do="name another `--runs`, or remove the run's folder to train it again",
        )
    require_same_data(config.run, shards)
    return True


def require_same_data(run: Path, shards: Shards) -> None:
    """Refuse a finished run whose figures are not of a data set.

    Its ids, bins and windows must mean the same. Where its rows are in other files (made anew with
    other buckets, say), the run's weights must measure on test what they did.

    Raises:
        InputError: the run or the data set is missing or damaged.
        ContractError: the run is of another data set.
    """
    before, now = _summary(run)["config"].get(DIGESTS), digests_of(shards)
    if not isinstance(before, dict):  # a run of before
        return
    wrong = differing(now, before)
    elsewhere = [name for name in wrong if name.startswith(ROWS)]
    if wrong != elsewhere or (wrong and f"{ROWS}test" not in wrong):
        raise _another(run, told(before, wrong), told(now, wrong))
    if wrong and "test" in shards.splits:
        _scored(run, shards)


def finish(config: TrainConfig, on_event: OnEvent) -> None:
    """Train a run to its end, going on with what there is of it, and score test.

    Raises:
        TinprepError: as `train`; a run that is not measured on test breaks a contract.
    """
    train(replace(config, resume=begun(config.run)), on_event)
    (config.run / LAST).unlink(missing_ok=True)  # no run of a table is trained further
    scores(config.run, Shards(config.data, memory_mb=config.memory_mb))


def measured(run: Path) -> Metrics:
    """What a finished run comes to on test.

    Raises:
        InputError: it cannot be read.
        ContractError: it was not measured on test.
    """
    found = _summary(run)["metrics"]
    if "test" not in found:
        raise ContractError(
            "The run was not measured on test.",
            where=run / METRICS,
            expected="metrics of test",
            got=", ".join(found) or "none",
            do=_REMOVE,
        )
    return Metrics(**found["test"])


def scores(run: Path, shards: Shards) -> pl.DataFrame:
    """How a finished run scores test, row by row: computed once, and kept beside it.

    Raises:
        InputError: the run or the data set is missing or damaged.
        ContractError: the run is not of the data set that is there now.
    """
    path, of = run / SCORES, json.dumps(digests_of(shards), sort_keys=True)
    kept = _read(path, of)
    if kept is not None and _agree(gauc_of(users_of(kept)), measured(run).gauc):
        return kept
    found = _scored(run, shards)
    atomically(path, lambda unfinished: found.write_parquet(unfinished, metadata={DIGESTS: of}))
    return found


def _scored(run: Path, shards: Shards) -> pl.DataFrame:
    """How a run's weights score test now, which must be how they were measured."""
    model, gauc = load(run), measured(run).gauc
    require_alike(model.inputs, shards, users=True)
    parts = [
        (batch["user"], batch["label"], logit, batch[LENGTH])
        for batch, logit in logits(model, shards, "test", ("user", "label"))
    ]
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    found = pl.DataFrame(dict(zip(_ORDER, columns, strict=True))).cast(_SCORES)
    now = gauc_of(users_of(found))
    if not _agree(now, gauc):
        raise _another(run, f"GAUC {gauc} on test", f"GAUC {now}")
    return found


def _another(run: Path, expected: str, got: str) -> ContractError:
    return ContractError(
        "A finished run is not of the data set that is there now.",
        where=run,
        expected=expected,
        got=got,
        do="use the data set that it was trained on, or train on this one in another folder",
    )


def users_of(kept: pl.DataFrame) -> pl.DataFrame:
    """Each user's AUC, of a run's kept scores; see `significance.auc_by_user`."""
    user, label, logit, _ = _columns(kept)
    return auc_by_user(user, label, logit)


def lengths_of(run: Path) -> dict[str, Metrics]:
    """The metrics of each range of history length, of a run's kept scores."""
    return by_length(*_columns(pl.read_parquet(run / SCORES)))


def _columns(kept: pl.DataFrame) -> list[np.ndarray]:
    return [kept[name].to_numpy() for name in _ORDER]


def _summary(run: Path) -> dict[str, Any]:
    kinds = {"config": dict[str, Any], "metrics": dict[str, Metrics]}
    return read_json(run / METRICS, kinds, do=_REMOVE)


def _read(path: Path, of: str) -> pl.DataFrame | None:
    """Kept scores; None where there are none yet of these digests.

    Raises:
        UsageError: something else stands there, or they are damaged.
    """
    if not path.exists():
        return None
    try:
        found, known = pl.read_parquet(path), pl.read_parquet_metadata(path).get(DIGESTS)
        got = "other columns"
    except (OSError, pl.exceptions.PolarsError) as error:
        found, got = pl.DataFrame(), str(error).partition("\n")[0][:200]
    if found.schema == _SCORES:
        return found if known == of else None
    raise UsageError(
        "What stands in the place of a run's scores of test is damaged, or another's.",
        where=path,
        expected=", ".join(_ORDER),
        got=got,
        do="move it away: it is computed anew",
    )


def _agree(found: float, said: float | None, within: float = 1e-4) -> bool:
    """Whether two GAUCs are one but for rounding, which differs between devices."""
    return bool(np.isnan(found)) if said is None else abs(found - said) < within
