"""A finished run at work: measure its weights on a split, score the rows of a data set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pyarrow.csv import CSVWriter

from schemas import vocabulary
from schemas.errors import InputError, UsageError
from schemas.manifest import FIRST_ID, NAME
from schemas.plain import for_spreadsheet
from schemas.shards import KEPT_TYPES
from trainer.data.batches import PLACE
from trainer.data.inputs import digests_of, require_alike
from trainer.data.row_groups import open_shard, read_row_group
from trainer.data.shards import Shards
from trainer.files import atomically
from trainer.metrics import Metrics
from trainer.models.interest import TARGET, InterestModel
from trainer.training.config import DIGESTS, read_settings
from trainer.training.ranks import Ranks, device_of
from trainer.training.run_folder import require_free, require_run
from trainer.training.runs import CONFIG, load, read_json
from trainer.training.scoring import logits, score

_ROW_GROUP = 131_072
_SPLIT = pa.field("split", pa.string(), nullable=False)
_NUMBERS = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("label", pa.int8(), nullable=False),
    pa.field("score", pa.float32(), nullable=False),
]
# What writes the scores, by how the file's name ends.
_WRITERS = {".parquet": partial(pq.ParquetWriter, compression="zstd"), ".csv": CSVWriter}


@dataclass(frozen=True)
class Evaluation:
    """What the kept weights of a run reach on a split.

    Attributes:
        metrics: of all its rows.
        by_length: of the rows in each range of history length, e.g. of "5-9"; empty unless asked
            for.
    """

    run: Path
    data: Path
    split: str
    metrics: Metrics
    by_length: dict[str, Metrics]


@dataclass(frozen=True)
class Predicted:
    """What `predict` wrote.

    Attributes:
        empty: of each column of the target that has them, how many values are empty, as they have
            no id of their own in the data set.
    """

    rows: int
    empty: dict[str, int]


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
        split: `train`, `valid` or `test`.
        by_length: also measure the rows by ranges of history length (the paper's Table 3).
        data: folder of the data set; the one that the run was trained on by default.
        device: `cpu` or `cuda`.

    Raises:
        InputError: there is no such run or data set, or it is damaged.
        UsageError: the data set has no such split, or no labels, or there is no such device.
        ContractError: the data set does not mean what that of the training meant.
    """
    where = device_of(device)
    model = load(run, where)
    out = Path(data) if data is not None else data_of(Path(run))
    shards = alike(model, out)
    if not shards.manifest.target.labelled:
        raise UsageError(
            "The data set has no labels to measure by.",
            where=out,
            expected="targets with labels",
            got="targets of files without them",
            do="score it with `tinprep predict`; transform it again once labels are known",
        )
    metrics, parts = score(model, shards, split, device=where)
    return Evaluation(Path(run), out, split, metrics, parts if by_length else {})


def predict(
    run: Path | str,
    out_shards: Path | str,
    to: Path | str,
    *,
    splits: tuple[str, ...] | None = None,
    device: str = "cpu",
) -> Predicted:
    """Write a score for every row of a data set to one file, put in place when complete.

    Its columns are `split`, `row`, the user, the item or ad, and the target's other fields as in
    the raw files, nothing where a value is an unknown one; `label`, if targets have one; `score`,
    the probability of a positive label; at last what the data set's `keep` passes through, whose
    name begins with `keep_` where another column has it. Rows come split by split, otherwise in no
    particular order.
    Parquet's metadata have the data set's digests. In CSV a text that a spreadsheet would run as a
    formula has an apostrophe before it, see `schemas.plain`.

    Args:
        to: the file, called *.parquet, or *.csv for text with a line of names first.
        splits: which splits; all by default.
        device: `cpu` or `cuda`.

    Returns:
        How many rows were written, and how many values are empty.

    Raises:
        InputError: there is no such run or data set, or it is damaged.
        UsageError: the data set has no such split, there is no such device, the file's folder does
            not exist, or its name ends otherwise.
        ContractError: the data set does not mean what that of the training meant.
    """
    where, to = device_of(device), Path(to)
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
    require_free(to)
    model = load(run, where)
    shards = alike(model, Path(out_shards))
    words = _words(shards, to.suffix == ".csv")
    row, label, score = _NUMBERS
    values = [pa.field(_name(column), of.type) for column, of in words.items()]
    schema = pa.schema([_SPLIT, row, *values, label, score])
    taken = {*schema.names}
    for name, kind in shards.manifest.keep.items():
        field = pa.field(f"keep_{name}" if name in taken else name, KEPT_TYPES[kind])
        schema = schema.append(field)
    schema = schema.with_metadata({DIGESTS: json.dumps(digests_of(shards))})
    shown = schema
    if not shards.manifest.target.labelled:
        shown = schema.remove(schema.get_field_index("label"))
    written, empty = 0, Counter[str]()

    def write(path: Path) -> None:
        nonlocal written
        with writer(path, shown) as file:
            for split in dict.fromkeys(splits or shards.splits):
                kept = _Kept(shards, split, to.suffix == ".csv") if shards.manifest.keep else None
                for table in _scores(model, shards, split, where, words, schema, kept):
                    file.write_table(table.select(shown.names))
                    written += len(table)
                    empty.update({of.name: table[of.name].null_count for of in values})

    atomically(to, write)
    return Predicted(written, {name: count for name, count in empty.items() if count})


def _words(shards: Shards, csv: bool) -> dict[str, pa.Array]:
    """What tells a row: column of ids -> (vocabulary,) the raw value of each id, null for none."""
    found = {}
    target = (*shards.key_columns, *(TARGET + name for name in shards.manifest.fields))
    for column in ("user", *target):
        field = column.removeprefix(TARGET)
        values = vocabulary.read(shards.out / "vocabulary" / f"{field}.parquet")["value"]
        if csv and not pa.types.is_integer(values.type):
            safe = map(for_spreadsheet, values.to_pylist())
            values = pa.chunked_array([pa.array(safe, values.type)])
        none = pa.nulls(FIRST_ID, values.type)
        found[column] = pa.concat_arrays([none, *values.chunks])
    return found


def _name(column: str) -> str:
    """What a column of ids is called in predictions: as its field, if that is no other column."""
    field = column.removeprefix(TARGET)
    taken = {_SPLIT.name, "user", *(number.name for number in _NUMBERS)}
    return column if field in taken else field


def _scores(
    model: InterestModel,
    shards: Shards,
    split: str,
    device: torch.device,
    words: dict[str, pa.Array],
    schema: pa.Schema,
    kept: _Kept | None,
) -> Iterator[pa.Table]:
    """The rows of a split with their scores, as tables of a row group each."""
    columns = ("row", *words, "label", PLACE)
    held: list[tuple[torch.Tensor, ...]] = []
    count = 0
    for batch, scored in logits(model, shards, split, columns, device=device):
        held.append((*(batch[name] for name in columns), torch.sigmoid(scored)))
        count += len(scored)
        if count >= _ROW_GROUP:
            yield _table(split, held, words, schema, kept)
            held, count = [], 0
    if held:
        yield _table(split, held, words, schema, kept)


def _table(
    split: str,
    held: list[tuple[torch.Tensor, ...]],
    words: dict[str, pa.Array],
    schema: pa.Schema,
    kept: _Kept | None,
) -> pa.Table:
    """Scored rows of a split, with raw values for ids."""
    columns = (torch.cat(parts).numpy() for parts in zip(*held, strict=True))
    row, *ids, label, place, score = columns
    values = [words[name].take(pa.array(of)) for name, of in zip(words, ids, strict=True)]
    arrays = [pa.repeat(split, len(row)), row, *values, label, score]
    arrays += kept.at(place) if kept is not None else []
    return pa.table([pa.array(a).cast(f.type) for a, f in zip(arrays, schema, strict=True)], schema)


class _Kept:
    """The columns of a split's shards that are passed through, by a row's place in the split.

    Rows are scored nearly in their order, so just the row groups at hand are read.
    """

    def __init__(self, shards: Shards, split: str, csv: bool) -> None:
        self.names, self.csv = list(shards.manifest.keep), csv
        self.pieces: list[tuple[Path, int]] = []
        ends = [0]
        for path in shards.manifest.shard_paths(shards.out, split):
            about = open_shard(path).metadata
            for group in range(about.num_row_groups):
                self.pieces.append((path, group))
                ends.append(ends[-1] + about.row_group(group).num_rows)
        self.ends = np.array(ends)

    def at(self, place: NDArray[np.int64]) -> list[pa.Array]:
        """The columns' values of some rows."""
        first = int(np.searchsorted(self.ends, place.min(), side="right")) - 1
        last = int(np.searchsorted(self.ends, place.max(), side="right"))
        tables = [
            read_row_group(path, group, self.names) for path, group in self.pieces[first:last]
        ]
        found = pa.concat_tables(tables).take(pa.array(place - self.ends[first]))
        columns = [found[name].combine_chunks() for name in self.names]
        if self.csv:
            columns = [
                pa.array([v if v is None else for_spreadsheet(v) for v in c.to_pylist()], c.type)
                if pa.types.is_string(c.type)
                else c
                for c in columns
            ]
        return columns


def data_of(run: Path) -> Path:
    """The data set that a run was trained on, where it was then."""
    path = run / CONFIG
    data = read_json(path, dict[str, Any], do="name the data set").get("data")
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


def settings_of(run: Path, ranks: Ranks, *, data: bool) -> dict[str, Any]:
    """The settings of a run, as `TrainConfig` takes them, to go on with it; none where it has none.

    Raises:
        InputError: its data set is not where it was.
        UsageError: the folder is no run's, or other processes began it.
    """
    require_run(run)
    if not (run / CONFIG).exists():
        return {}
    found = read_settings(run / CONFIG, ranks.world) | {"run": run}
    return found | ({"data": data_of(run)} if data else {})


def alike(model: InterestModel, data: Path) -> Shards:
    """The data set, if its ids, bins, numbers and histories mean to the model what they did."""
    return require_alike(model.inputs, Shards(data))
