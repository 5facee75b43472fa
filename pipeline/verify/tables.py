"""Vocabularies, and the tables that say a row's other ids: items, ads, profiles, and rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.verify.blocks import Block
from pipeline.verify.contract import Contract
from pipeline.verify.files import is_there
from pipeline.verify.findings import UNREADABLE, Findings
from schemas import digests
from schemas.manifest import FIRST_ID, NAME, REPEATED, UNKNOWN_ID, Manifest
from schemas.vocabulary import VALUES

Int64s = npt.NDArray[np.int64]

_ABSENT = -1
_ID_AND_COUNT = [pa.int32(), pa.int64()]
# A stored price is a float32: 24 bits.
_CLOSE = 1e-5
_REFUSED_AT_ONCE = 65_536


@dataclass(frozen=True)
class Lookup:
    """A table that says what other columns of a row must hold.

    Attributes:
        file: its name.
        key: the id column that it is read by.
        ids: other column -> (vocabulary of the key,) its id by the key's.
        numbers: float column -> (vocabulary of the key,) its value by the key's id.
        known: (vocabulary of the key,) which have a row.
    """

    file: str
    key: str
    ids: dict[str, npt.NDArray[np.int32]]
    numbers: dict[str, npt.NDArray[np.float32]]
    known: npt.NDArray[np.bool_]


def check_sizes(out: Path, contract: Contract, findings: Findings) -> bool:
    """Whether each vocabulary holds as many values as it should.

    Where one does not, nothing else is checked: sizes that no file bears out may be beyond memory.
    """
    good = True
    for name, size in contract.made.vocabulary.items():
        where = f"vocabulary/{name}.parquet"
        held = None
        if is_there(out / where):
            try:
                held = pq.read_metadata(out / where).num_rows
            except UNREADABLE as error:
                findings.unreadable("unreadable file", where, error)
            else:
                if held != size - FIRST_ID:
                    findings.add("vocabulary", where, f"{size - FIRST_ID} values", held)
        good &= held == size - FIRST_ID
    return good


def read_parquet(path: Path, name: str, most: int, findings: Findings) -> pa.Table | None:
    """A table of at most so many rows, None where there is none, or it cannot be read."""
    if not is_there(path):  # of which `check_files` tells
        return None
    try:
        with pq.ParquetFile(path) as file:
            if (rows := file.metadata.num_rows) <= most:
                return file.read(use_threads=False)
            findings.add("table", name, f"at most {most} rows", rows)
    except UNREADABLE as error:
        findings.unreadable("unreadable file", name, error)
    return None


def check_vocabularies(out: Path, contract: Contract, findings: Findings) -> dict[str, Int64s]:
    """Hold each vocabulary to its contract.

    Returns:
        field -> (vocabulary,) how often each id occurs; of the vocabularies of the right types.
    """
    import pyarrow.compute as pc  # takes a while, which other threads need not wait for

    occurs, words = {}, {}
    for name, size in contract.made.vocabulary.items():
        where = f"vocabulary/{name}.parquet"
        table = read_parquet(out / where, where, size - FIRST_ID, findings)
        if table is None:
            continue
        kinds = table.schema.types
        fine = table.column_names == ["value", "id", "count"]
        if not fine or kinds[0] not in VALUES or kinds[1:] != _ID_AND_COUNT:
            shape = "value (int64 or text), id (int32), count (int64)"
            findings.add("vocabulary", where, shape, _columns(table.schema))
            continue
        if any(column.null_count for column in table.columns):
            findings.add("vocabulary", where, "no nulls", "nulls")
            continue
        ids, counts = table["id"].to_numpy(), table["count"].to_numpy()
        _first(findings, where, "id", ids == np.arange(FIRST_ID, len(ids) + FIRST_ID), ids)
        _first(findings, where, "count above 0", counts > 0, counts)
        values = table["value"].combine_chunks()
        if len(values) > 1:
            rises = pc.greater(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
            _first(findings, where, "value above the one before it", rises, values[1:])
        words[name] = table
        occurs[name] = np.concatenate([np.zeros(FIRST_ID, np.int64), counts])
    _check_digests(contract.made, words, findings)
    return occurs


def _check_digests(made: Manifest, words: dict[str, pa.Table], findings: Findings) -> None:
    """Hold the manifest's digests to what they are of, where that could be read."""
    found = digests.of_manifest(made) | digests.of_vocabularies(words)
    unread = {digests.VOCABULARY + name for name in made.vocabulary.keys() - words.keys()}
    for name in digests.differing(found, made.digests) if made.digests else ():  # none before
        if name not in unread:
            where = f"{NAME}: digests: {name}"
            findings.add("digest", where, found.get(name, "none"), made.digests.get(name, "none"))


def read_lookups(out: Path, contract: Contract, findings: Findings) -> list[Lookup]:
    """The tables of the data set, held to their contract."""
    fields = list(contract.made.fields)
    lookups = []
    for file, key in contract.tables.items():
        name = f"{file}.parquet"
        least = [key] if file == "profiles" else list(dict.fromkeys([key, *fields]))
        most = contract.made.vocabulary[key] - FIRST_ID
        table = read_parquet(out / name, name, most, findings)
        if table is not None and (found := _lookup(name, key, least, table, contract, findings)):
            lookups.append(found)
    if len(lookups) == len(contract.tables) and not contract.leave_one_out:
        held = {column for table in lookups for column in (*table.ids, *table.numbers)}
        wanted = {*contract.features, *contract.made.numbers, *fields} - {"ad", *contract.own}
        for column in sorted(wanted - held):
            findings.add("table", "ads.parquet, profiles.parquet", f"{column} in one", "neither")
    return lookups


def _lookup(
    file: str, key: str, least: list[str], table: pa.Table, contract: Contract, findings: Findings
) -> Lookup | None:
    sizes = contract.made.vocabulary
    known = {
        **dict.fromkeys(sizes, pa.int32()),
        **dict.fromkeys(contract.made.numbers, pa.float64()),
    }
    kinds = dict(zip(table.column_names, table.schema.types, strict=True))
    fine = len(kinds) == table.num_columns and set(least) <= kinds.keys()
    fine = fine and all(kinds[n] == known.get(n) for n in kinds)
    if not fine or any(table[n].null_count for n in kinds if n in sizes):
        wanted = f"{', '.join(least)} and other fields: int32 ids, float64 numbers, ids never null"
        findings.add("table", file, wanted, _columns(table.schema))
        return None
    columns = {n: table[n].to_numpy() for n in kinds}
    good = True
    for name in kinds.keys() & sizes.keys():
        low = FIRST_ID if name == key else 1
        within = (columns[name] >= low) & (columns[name] < sizes[name])
        good &= _first(findings, file, f"{name} {low} to {sizes[name] - 1}", within, columns[name])
    ids = columns.pop(key)
    rises = np.diff(ids, prepend=ids[:1] - 1) > 0
    good &= _first(findings, file, f"{key} above the one before it", rises, ids)
    everybody = key != "user"
    if everybody and len(table) != sizes[key] - FIRST_ID:
        findings.add("table", file, f"a row for each of {sizes[key] - FIRST_ID} ids", len(table))
    if not good:
        return None
    # A user may have no profile; an item is known, and so is an ad that has an id.
    default = _ABSENT if everybody else UNKNOWN_ID
    numbers = {}
    for name in [n for n in columns if n in contract.made.numbers]:
        raw = np.full(sizes[key], np.nan)
        raw[ids] = columns.pop(name)
        numbers[name] = _standard(raw, contract.made.numbers[name])
    by_id = {}
    for name, column in columns.items():
        by_id[name] = np.full(sizes[key], default, np.int32)
        by_id[name][ids] = column
    known_ids = np.zeros(sizes[key], np.bool_)
    known_ids[ids] = True
    return Lookup(file, key, by_id, numbers, known_ids)


def _standard(raw: npt.NDArray[np.float64], how: dict[str, Any]) -> npt.NDArray[np.float32]:
    """The standardised logarithm; 0 where there is nothing above 0."""
    usable = raw > 0
    logs = np.log(raw, out=np.zeros(len(raw)), where=usable)
    with np.errstate(over="ignore"):  # statistics out of all proportion: no row will agree
        return np.where(usable, (logs - how["mean"]) / how["std"], 0.0).astype(np.float32)


def check_lookups(block: Block, contract: Contract, lookups: list[Lookup]) -> None:
    """Hold the rows' other columns, and those of their behaviours, to the tables."""
    fields = contract.made.fields
    for table in lookups:
        size = contract.made.vocabulary[table.key]
        column = f"target_{table.key}" if table.key in fields else table.key
        keys = block.scalars[column]
        # Of an unknown ad nothing is known, and an id outside its vocabulary is found elsewhere.
        asked = (keys >= FIRST_ID) & (keys < size)
        safe = np.where(asked, keys, 0)
        for name, ids in table.ids.items():
            want = ids[safe]
            column = f"target_{name}" if name in fields else name
            block.rows_are(
                (block.scalars[column] == want) | ~asked,
                f"{table.file} disagrees",
                column,
                lambda row, want=want, keys=keys, key=table.key: (
                    f"{want[row]}, of {key} {keys[row]}"
                ),  # type: ignore[misc]
            )
        for name, numbers in table.numbers.items():
            want_number = numbers[safe]
            close = np.isclose(block.scalars[name], want_number, rtol=_CLOSE, atol=_CLOSE)
            block.rows_are(
                close | ~asked,
                f"{table.file} disagrees",
                name,
                lambda row, want=want_number: str(want[row]),  # type: ignore[misc]
            )
        if table.key not in fields:
            continue
        cells = block.history[table.key]
        if len(cells) and (cells.min() < FIRST_ID or cells.max() >= size):
            asked = (cells >= FIRST_ID) & (cells < size)
            block.cells_are(
                asked, "id outside its vocabulary", table.key, f"{FIRST_ID} to {size - 1}"
            )
            cells = np.where(asked, cells, 0)
        for name in table.ids.keys() & set(fields):
            found, want = block.history[name], table.ids[name][cells]
            good = (found == want) | (want == _ABSENT)
            block.cells_are(
                good,
                f"{table.file} disagrees",
                name,
                lambda cell, want=want: str(want[cell]),  # type: ignore[misc]
            )


def check_rejected(out: Path, contract: Contract, findings: Findings) -> Counter[str]:
    """Hold the tables of refused lines to the manifest's counts; how many lines each has."""
    reasons: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for path in sorted((out / "rejected").glob("*.parquet")):
        name = f"rejected/{path.name}"
        if not is_there(path):
            continue
        try:
            with pq.ParquetFile(path) as file:
                lines, schema = file.metadata.num_rows, file.schema_arrow
                kinds = [field.type for field in schema if field.name == "reason"]
                if not lines or kinds not in ([pa.string()], [pa.large_string()]):
                    got = f"{lines} lines of {_columns(schema)}"
                    findings.add("rejected", name, "lines with a reason in text", got)
                    continue
                for batch in file.iter_batches(_REFUSED_AT_ONCE, use_threads=False):
                    reasons.update(batch.column("reason").to_pylist())
        except UNREADABLE as error:
            findings.unreadable("unreadable file", name, error)
            continue
        refused[path.stem] = lines
    told = contract.made.rejected
    for reason in sorted({*reasons, *told} - REPEATED):
        held, listed = reasons[reason], told.get(reason, 0)
        if listed != held:
            findings.add("rejected", f"{NAME}: rejected", f"{reason}: {held}", listed)
    return refused


def _columns(schema: pa.Schema) -> str:
    """The columns of a table, for people."""
    return "; ".join(map(str, schema)) or "no columns"


def _first(
    findings: Findings, where: str, expected: str, good: npt.NDArray[np.bool_], values: Any
) -> bool:
    """Note the first row that is not as it should be; whether all are."""
    if good.all():
        return True
    row = int(np.argmin(good))
    what = "vocabulary" if where.startswith("vocabulary") else "table"
    got = values[row].as_py() if isinstance(values, pa.Array) else values[row]
    findings.add(what, f"{where}: row {row}", expected, got, int((~good).sum()))
    return False
