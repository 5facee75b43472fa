"""A finished run at work: measure its weights on a split, score the rows of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyarrow.csv import CSVWriter

from schemas.errors import InputError, UsageError
from schemas.manifest import NAME
from trainer.atomic import atomically
from trainer.data import Shards
from trainer.inputs import require_alike
from trainer.metrics import Metrics
from trainer.models import InterestModel
from trainer.ranks import ALONE, Ranks
from trainer.runs import CONFIG, load, read_json
from trainer.scoring import logits, score_by_length
from trainer.settings import read_settings

_ROW_GROUP = 131_072
SCORES = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("user", pa.int32(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
# What writes the scores, by how the file's name ends.
_WRITERS = {".parquet": partial(pq.ParquetWriter, compression="zstd"), ".csv": CSVWriter}


@dataclass(frozen=True)
class Evaluation:
    """What the kept weights of a run reach on a split.

    Attributes:
        run: its folder.
        data: folder of the data set.
        split: which split.
        metrics: of all its rows.
        by_length: of the rows in each range of history length, e.g. of "5-9"; empty unless asked
            for.
    """

    run: Path
    data: Path
    split: str
    metrics: Metrics
    by_length: dict[str, Metrics]


def evaluate(
    run: Path | str,
    split: str = "test",
    by_length: bool = False,
    *,
    data: Path | str | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure the weights that a run kept.

    Args:
        run: folder of the run.
        split: `train`, `valid` or `test`.
        by_length: also measure the rows by ranges of history length (the paper's Table 3).
        data: folder of the data set; the one that the run was trained on by default.
        device: `cpu` or `cuda`.

    Raises:
        InputError: there is no such run or data set, or it is damaged.
        UsageError: the data set has no such split.
        ContractError: the data set does not mean what that of the training meant.
    """
    where = torch.device(device)
    model = load(run, where)
    out = Path(data) if data is not None else data_of(Path(run))
    shards = alike(model, out)
    metrics, parts = score_by_length(model, shards, split, device=where)
    return Evaluation(Path(run), out, split, metrics, parts if by_length else {})


def predict(
    run: Path | str,
    out_shards: Path | str,
    to: Path | str,
    *,
    splits: tuple[str, ...] | None = None,
    device: str = "cpu",
) -> int:
    """Write a score for every row of a data set to one file, put in place when complete.

    Its columns are `row`, `user`, `label` and `score`, the probability of a positive label. Rows
    come split by split, otherwise in no particular order.

    Args:
        run: folder of the run.
        out_shards: folder of the data set.
        to: the file, called *.parquet, or *.csv for text with a line of names first.
        splits: which splits; all by default.
        device: `cpu` or `cuda`.

    Returns:
        How many rows were written.

    Raises:
        InputError: there is no such run or data set, or it is damaged.
        UsageError: the data set has no such split, the file's folder does not exist, or its name
            ends otherwise.
        ContractError: the data set does not mean what that of the training meant.
    """
    where, to = torch.device(device), Path(to)
    writer = _WRITERS.get(to.suffix)
    if writer is None:
        raise UsageError(
            "Scores are written as Parquet or as CSV.",
            where=to,
            expected="a file called *.parquet or *.csv",
            got=to.suffix or "no suffix",
        )
    if not to.parent.is_dir():
        raise UsageError(
            "The scores cannot be written.",
            where=to,
            expected="a file in a folder that exists",
            got=f"no folder {to.parent}",
        )
    model = load(run, where)
    shards = alike(model, Path(out_shards))
    written = 0

    def write(path: Path) -> None:
        nonlocal written
        with writer(path, SCORES) as file:
            for table in _scores(model, shards, splits or shards.splits, where):
                file.write_table(table)
                written += len(table)

    atomically(to, write)
    return written


def _scores(
    model: InterestModel, shards: Shards, splits: tuple[str, ...], device: torch.device
) -> Iterator[pa.Table]:
    """The rows of the splits with their scores, as tables of a row group each."""
    held: list[pa.Table] = []
    count = 0
    for split in splits:
        for batch, scored in logits(model, shards, split, ("row", "user", "label"), device=device):
            values = (batch["row"], batch["user"], batch["label"], torch.sigmoid(scored))
            arrays = [
                pa.array(v.numpy()).cast(field.type)
                for v, field in zip(values, SCORES, strict=True)
            ]
            held.append(pa.table(arrays, schema=SCORES))
            count += len(scored)
            if count >= _ROW_GROUP:
                yield pa.concat_tables(held)
                held, count = [], 0
    if held:
        yield pa.concat_tables(held)


def data_of(run: Path) -> Path:
    """The data set that a run was trained on, where it was then.

    Raises:
        InputError: the run does not say, or it is there no longer.
    """
    path = run / CONFIG
    data = read_json(path, {"data": Any}, do="name the data set")["data"]
    if not isinstance(data, str) or not data.isprintable():
        raise InputError(
            "A run's config names no data set.",
            where=path,
            expected="the name of a folder",
            got=f"{data!a}"[:200],
            do="name the data set",
        )
    if not (Path(data) / NAME).exists():
        raise InputError(
            "The run's data set is not where it was.",
            where=path,
            expected=f"a data set in {data}",
            got="none",
            do="say where it is now: `--data DIR`, or `tinprep train DIR --run RUN --resume`",
        )
    return Path(data)


def settings_of(run: Path, ranks: Ranks = ALONE, *, data: bool = True) -> dict[str, Any]:
    """The settings of a run, as `TrainConfig` takes them, to go on with it; none where it has none.

    Args:
        run: its folder.
        ranks: who trains now.
        data: whether its data set is wanted, too.

    Raises:
        InputError: its config cannot be read, or its data set is not where it was.
        UsageError: its config has no settings, or other processes began it.
    """
    if not (run / CONFIG).exists():
        return {}
    found = read_settings(run / CONFIG, ranks) | {"run": run}
    return found | ({"data": data_of(run)} if data else {})


def alike(model: InterestModel, data: Path) -> Shards:
    """The data set, if its ids, bins, numbers and histories mean to the model what they did."""
    shards = Shards(data)
    require_alike(model.inputs, shards)
    return shards
