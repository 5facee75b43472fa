"""Finished runs: each trained to its end once, with how it scored test kept beside it.

```
RUN/test_scores.parquet   user, label, logit and history length of each row of test; its metadata
                          says of which data set
```
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from schemas.digests import ROWS, differing, in_short
from schemas.errors import ContractError, UsageError
from trainer.data.inputs import digests_of, require_alike
from trainer.data.shards import Shards
from trainer.files import atomically
from trainer.metrics import Metrics, auc_by_user, gauc_of
from trainer.training.config import DIGESTS, NOTHING, ORDER, RANKS, ROUNDING, TrainConfig, moving
from trainer.training.events import OnEvent
from trainer.training.runs import CONFIG, LAST, METRICS, SCORES, Result, load, read_json
from trainer.training.scoring import by_length, logits
from trainer.training.train import resolve, train

_SCORES = pl.Schema({"user": pl.Int64, "label": pl.Int8, "logit": pl.Float32, "length": pl.Int16})
NEUTRAL = moving(NOTHING, ROUNDING, ORDER) | {DIGESTS, RANKS}
"""Settings that leave a run's figures what they are, or move them as another seed does."""
_REMOVE = "remove the run's folder, and give the command again"


def is_finished(config: TrainConfig, shards: Shards) -> bool:
    """Whether a run has been trained to its end.

    Raises:
        UsageError: it had other settings: its figures would stand in the wrong table.
        InputError: it cannot be read.
        ContractError: it is not of the data set.
    """
    if not (config.run / METRICS).exists():
        return False
    before, now = _result(config.run).config, json.loads(json.dumps(resolve(config, shards)))
    names = [n for n in sorted({*before} & {*now} - NEUTRAL) if before[n] != now[n]]
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
    before, now = _result(run).config.get(DIGESTS) or {}, digests_of(shards)
    wrong = differing(now, before)
    elsewhere = [name for name in wrong if name.startswith(ROWS)]
    if wrong != elsewhere or (wrong and f"{ROWS}test" not in wrong):
        raise _another(run, in_short(before, wrong), in_short(now, wrong))
    if wrong and "test" in shards.splits:
        _scored(run, shards)


def finish(config: TrainConfig, on_event: OnEvent) -> None:
    """Train a run to its end, going on with what there is of it, and score test."""
    train(replace(config, resume=(config.run / CONFIG).exists()), on_event)
    (config.run / LAST).unlink(missing_ok=True)  # no run of a table is trained further
    shards = Shards(config.data, memory_mb=config.memory_mb, history=config.history)
    scores(config.run, shards)


def measured(run: Path) -> Metrics:
    """What a finished run comes to on test."""
    found = _result(run).metrics
    if "test" not in found:
        raise ContractError(
            "The run was not measured on test.",
            where=run / METRICS,
            expected="metrics of test",
            got=", ".join(found) or "none",
            do=_REMOVE,
        )
    return found["test"]


def scores(run: Path, shards: Shards, *, keep: bool = True) -> pl.DataFrame:
    """How a finished run scores test, row by row: computed once, and kept beside it.

    Args:
        keep: whether what is not kept yet may be.

    Raises:
        InputError: the run or the data set is missing or damaged.
        UsageError: what stands in the place of the kept scores is damaged, or another's.
        ContractError: the run is not of the data set that is there now.
    """
    path, of = run / SCORES, json.dumps(digests_of(shards), sort_keys=True)
    if path.exists():
        kept, known = _kept(path)
        if known == of and _agree(gauc_of(users_of(kept)), measured(run).gauc):
            return kept
    found = _scored(run, shards)
    if keep:
        write = partial(found.write_parquet, metadata={DIGESTS: of})
        atomically(path, write)
    return found


def _kept(path: Path) -> tuple[pl.DataFrame, str | None]:
    """Kept scores, and the digests of their data set."""
    try:
        found, got = pl.read_parquet(path, glob=False), "other columns"
        if found.schema == _SCORES:
            return found, pl.read_parquet_metadata(path).get(DIGESTS)
    except (OSError, pl.exceptions.PolarsError) as error:
        got = str(error).partition("\n")[0][:200]
    raise UsageError(
        "What stands in the place of a run's scores of test is damaged, or another's.",
        where=path,
        expected=", ".join(_SCORES),
        got=got,
        do="move it away: it is computed anew",
    )


def _scored(run: Path, shards: Shards) -> pl.DataFrame:
    """How a run's weights score test now, which must be how they were measured."""
    model, gauc = load(run), measured(run).gauc
    shards = require_alike(model.inputs, shards, users=True)
    parts = [
        (batch["user"], batch["label"], logit, shards.behaviours(batch))
        for batch, logit in logits(model, shards, "test", ("user", "label"))
    ]
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    found = pl.DataFrame(dict(zip(_SCORES, columns, strict=True))).cast(_SCORES)
    now = gauc_of(users_of(found))
    if not _agree(now, gauc):
        raise _another(run, f"GAUC {gauc} on test", f"GAUC {now}")
    return found


def users_of(kept: pl.DataFrame) -> pl.DataFrame:
    """Each user's AUC, of a run's kept scores; see `metrics.auc_by_user`."""
    user, label, logit, _ = _columns(kept)
    return auc_by_user(user, label, logit)


def lengths_of(run: Path) -> dict[str, Metrics]:
    """The metrics of each range of history length, of a run's kept scores."""
    return by_length(*_columns(pl.read_parquet(run / SCORES, glob=False)))


def _columns(kept: pl.DataFrame) -> list[np.ndarray]:
    return [kept[name].to_numpy() for name in _SCORES]


def _result(run: Path) -> Result:
    return read_json(run / METRICS, Result, do=_REMOVE)


def _agree(found: float, said: float | None) -> bool:
    """Whether two GAUCs are one but for rounding, which differs between devices."""
    return math.isnan(found) if said is None else abs(found - said) < 1e-4


def _another(run: Path, expected: str, got: str) -> ContractError:
    return ContractError(
        "A finished run is not of the data set that is there now.",
        where=run,
        expected=expected,
        got=got,
        do="use the data set that it was trained on, or train on this one in another folder",
    )
