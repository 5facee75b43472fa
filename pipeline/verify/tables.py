"""The files of a data set, and what stands in its tables: vocabularies, lookups, lines refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.verify.blocks import Values
from pipeline.verify.contract import Contract, Lookup
from pipeline.verify.findings import Findings
from schemas import digests, vocabulary
from schemas.arrays import Int64s
from schemas.manifest import FIRST_ID, FOLDERS, NAME, REPEATED, UNKNOWN_ID
from schemas.replacing import sha256

# What reading a Parquet file ends in that is none, or is damaged.
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
_WORDS = "vocabulary/{}.parquet"
_KEPT = ("events/", "behaviours/")


class IdLists(NamedTuple):
    """Lists of ids, by row of a lookup, and an empty one behind them."""

    ids: Values  # (rows + 1, most of a list): 0 behind the values
    length: Values  # (rows + 1,)


class Table(NamedTuple):
    """A lookup as it was read; behind its rows there is one for what it lacks."""

    rule: Lookup
    columns: dict[str, Values]  # (rows + 1,) each: ids or scaled numbers
    lists: dict[str, IdLists]
    first: Int64s  # (vocabulary of the key + 1,) where the rows of each id begin
    time: Int64s | None  # (rows,) from when each holds; None for any time
    unknown: int  # rows whose first column is unknown, or no number

    @property
    def rows(self) -> int:
        """How many it has."""
        return int(self.first[-1])

    def row(self, key: Values, time: Values) -> Values:
        """The row that holds for each key at a time; the one behind all where there is none."""
        low, end = self.first[key], self.first[key + 1]
        if self.time is None:
            return np.where(low < end, low, self.rows)
        begin, high = low, end
        while (open_at := np.flatnonzero(low < high)).size:  # halves what is left of each
            middle = (low[open_at] + high[open_at]) // 2
            earlier = self.time[middle] < time[open_at]
            low, high = low.copy(), high.copy()
            low[open_at[earlier]] = middle[earlier] + 1
            high[open_at[~earlier]] = middle[~earlier]
        return np.where(low > begin, low - 1, self.rows)


def check_files(out: Path, contract: Contract, findings: Findings) -> None:
    """Find files that are not listed, and such as readers that glob would take in."""
    listed = {table.path for table in contract.made.tables}
    wanted = {_WORDS.format(name) for name in contract.made.vocabulary}
    wanted |= {lookup.file for lookup in contract.lookups}
    others = {path for path in listed if not path.startswith(("rejected/", *_KEPT))}
    for path in sorted(wanted ^ others):
        findings.add("manifest", f"{NAME}: tables", "just its vocabularies and lookups", path)
    there = [*out.glob("*.parquet"), *(path for name in FOLDERS for path in (out / name).glob("*"))]
    names = {path.relative_to(out).as_posix() for path in there}
    for path in sorted(names - wanted - listed - {shard.path for shard in contract.made.shards}):
        findings.add("stray file", path, "a file of the manifest", "another file")


@contextmanager
def reading(path: str, findings: Findings) -> Iterator[None]:
    """Note a file that is missing or cannot be read, and go on behind the block."""
    try:
        yield
    except FileNotFoundError:
        findings.add("missing file", path, "a file", "no such file")
    except UNREADABLE as error:
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        findings.add("unreadable file", path, "a Parquet file", got)


@contextmanager
def opened(
    out: Path, path: str, contract: Contract, findings: Findings
) -> Iterator[pq.ParquetFile]:
    """A Parquet file, held to its checksum and rows; raises `UNREADABLE`."""
    # To read a pipe would not end, and a folder may let nobody look.
    if not (out / path).is_file():
        raise FileNotFoundError
    listed = {one.path: one for one in (*contract.made.shards, *contract.made.tables)}.get(path)
    if listed is not None and (found := sha256(out / path)) != listed.sha256:
        findings.add("checksum", path, f"sha256 {listed.sha256}", found)
    with pq.ParquetFile(out / path) as file:
        if listed is not None and (rows := file.metadata.num_rows) != listed.rows:
            findings.add("rows of a file", path, listed.rows, rows)
        yield file


def bears_out(out: Path, contract: Contract) -> bool:
    """Whether vocabularies are as large as they should be; other sizes may be beyond memory."""
    with suppress(*UNREADABLE):
        sizes = {out / _WORDS.format(name): n for name, n in contract.made.vocabulary.items()}
        held = {one: pq.read_metadata(one).num_rows + FIRST_ID for one in sizes if one.is_file()}
        return held == sizes
    return False


def read_words(
    out: Path, name: str, contract: Contract, findings: Findings
) -> tuple[str, Int64s] | None:
    """A vocabulary's digest, and how often each id occurs; None for what is no vocabulary."""
    import pyarrow.compute as pc  # takes a while, which other threads need not wait for

    path, rows = _WORDS.format(name), contract.made.vocabulary[name] - FIRST_ID
    with reading(path, findings), opened(out, path, contract, findings) as file:
        if file.metadata.num_rows != rows:
            findings.add("vocabulary", path, f"{rows} values", file.metadata.num_rows)
            return None
        table = file.read(use_threads=False)
        if broken := vocabulary.breach(table):
            findings.add("vocabulary", path, vocabulary.CONTRACT, broken)
            return None
        values, counts = table["value"].combine_chunks(), table["count"].to_numpy()
        rises = np.append(True, pc.greater(values[1:], values[:-1]))[:rows]
        if name == "user" and contract.made.continues is not None:
            rises[:] = True  # those of new users follow all others
        where = f"{path}: row {{}}".format
        findings.each("vocabulary", rises, where, "a value above the one before it", values)
        findings.each("vocabulary", counts > 0, where, "a count above 0", counts)
        return digests.of_vocabulary(table), np.append(np.zeros(FIRST_ID, np.int64), counts)


def check_digests(words: dict[str, Any], contract: Contract, findings: Findings) -> None:
    """Hold the manifest's digests to `read_words` of each field, and to its own other parts."""
    found = {digests.VOCABULARY + name: digest for name, (digest, _) in words.items()}
    found, told = found | digests.of_manifest(contract.made), contract.made.digests
    for name in digests.differing(found, told) if told else ():  # none before
        where = f"{NAME}: digests: {name}"
        findings.add("digest", where, found.get(name, "none"), told.get(name, "none"))


def read_lookup(out: Path, rule: Lookup, contract: Contract, findings: Findings) -> Table | None:
    """A lookup that keeps its contract; else None."""
    sizes, scales = contract.made.vocabulary, contract.made.numbers
    path, key, columns = rule.file, rule.key, rule.columns
    names, most = (key, *columns), sizes[key] - FIRST_ID
    least, fine, timed = most if rule.complete else 0, True, ("time",) * rule.timed
    with reading(path, findings), opened(out, path, contract, findings) as file:
        rows, schema = file.metadata.num_rows, file.schema_arrow
        found = sorted(f"{one.name}: {_type(one.type)}" for one in schema)
        kinds = dict.fromkeys(names, "int32") | dict.fromkeys(rule.lists, "list of int32")
        kinds |= dict.fromkeys(timed, "int64")
        kinds |= dict.fromkeys([name for name in columns if name in scales], "double")
        want = sorted(f"{name}: {kind}" for name, kind in kinds.items())
        if found != want or not least <= rows <= (rows if timed else most):
            expected = f"{least} to {most} rows of {', '.join(want)}"
            findings.add("table", path, expected, f"{rows} rows of {', '.join(found)}")
            return None
        table = file.read(use_threads=False)
        values_of = {name: table[name].to_numpy() for name in names}
        for name in [name for name in names if name not in scales]:
            low, values = FIRST_ID if name == key else UNKNOWN_ID, values_of[name]
            good = (values >= low) & (values < sizes[name])  # a null is NaN, so neither
            more, than = ("no less", 0) if timed else ("more", 1)
            good &= (np.diff(values, prepend=0) >= than) | (name != key)
            expected = f"{low} to {sizes[name] - 1}{f', {more} than before' * (name == key)}"
            where = f"{path}: row {{}}, {name}".format
            fine &= findings.each("table", good, where, expected, values)
        of_lists = {n: _read_list(table[n], n, rule, contract, findings) for n in rule.lists}
        ids, time = values_of.pop(key), None
        if timed:
            time = table["time"].to_numpy()
            rises = np.append(True, np.diff(time) >= 0)[: len(time)]
            good = (time >= 0) & (rises | (np.diff(ids, prepend=0) > 0))
            where, expected = f"{path}: row {{}}, time".format, "0 or more, no less than before"
            fine &= findings.each("table", good, where, expected, time)
        if not fine or None in of_lists.values():
            return None
        of_rows = {}
        for name, values in values_of.items():
            none, values = (
                (0, _scaled(values, scales[name])) if name in scales else (UNKNOWN_ID, values)
            )
            of_rows[name] = np.append(values, np.array(none, values.dtype))
        lists = {name: of for name, of in of_lists.items() if of}
        unknown = sum(
            (np.isnan(values_of[name]) if name in scales else values_of[name] == UNKNOWN_ID).sum()
            for name in columns[:1]
        )
        first = np.searchsorted(ids, np.arange(sizes[key] + 1))
        return Table(rule, of_rows, lists, first, time, int(unknown))


def _type(kind: pa.DataType) -> str:
    """A column's type, for people; what a list's elements are called does not matter."""
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)


def _read_list(
    column: pa.ChunkedArray, name: str, rule: Lookup, contract: Contract, findings: Findings
) -> IdLists | None:
    """A column of lists by row; None where it breaks its contract."""
    array, most, size = column.combine_chunks(), rule.lists[name], contract.made.vocabulary[name]
    where = f"{rule.file}: row {{}}, {name}".format
    offsets = array.offsets.to_numpy()
    length = np.diff(offsets)
    known = array.is_valid().to_numpy(zero_copy_only=False)
    good = known & (length <= most)
    fine = findings.each("table", good, where, f"a list of {most} ids at the most", length)
    values = array.flatten().to_numpy(zero_copy_only=False)  # a null is NaN
    if fine:
        row = np.repeat(np.arange(len(array)), length)
        inside = (values >= UNKNOWN_ID) & (values < size)
        fine = findings.each(
            "table", inside, lambda at: where(row[at]), f"{UNKNOWN_ID} to {size - 1}", values
        )
    if not fine:
        return None
    length = np.append(length, 0)
    ids = np.zeros((len(length), most), np.int32)
    ids[np.arange(most) < length[:, None]] = values
    return IdLists(ids, length)


def _scaled(raw: Values, how: dict[str, Any]) -> Values:
    """The numbers of rows; 0 where there is none that can be scaled."""
    most = float(np.finfo(np.float32).max)
    if how.get("of") == "natural logarithm":
        usable = (raw > 0) & (raw < np.inf)
        raw = np.log(raw, out=np.zeros(len(raw)), where=usable)
    else:
        usable = np.abs(raw) <= most if how.get("of") == "number as it is" else np.isfinite(raw)
    with np.errstate(over="ignore", invalid="ignore"):
        # Statistics out of all proportion: no row will agree.
        found = np.where(usable, (raw - how["mean"]) / how["std"], 0.0)
        return np.clip(found, -most, most).astype(np.float32)


def check_events(out: Path, contract: Contract, findings: Findings) -> None:
    """Events that are kept beside the shards are those of the manifest, and in their order."""
    for path in [one.path for one in contract.made.tables if one.path.startswith(_KEPT)]:
        order = ["user", "time", "row"] if path.startswith(_KEPT[0]) else ["user", "time"]
        with reading(path, findings), opened(out, path, contract, findings) as file:
            if "-" not in path:  # what goes with them, in no order
                continue
            if missing := [name for name in order if name not in file.schema_arrow.names]:
                findings.add("events", path, f"a column {missing[0]}", file.schema_arrow.names)
                continue
            for k in range(file.num_row_groups):
                rows = file.read_row_group(k, order, use_threads=False)
                if not rows.equals(rows.sort_by([(name, "ascending") for name in order])):
                    where = f"{path}: row group {k}"
                    findings.add("events", where, f"in the order of {', '.join(order)}", "another")


def check_rejected(out: Path, contract: Contract, findings: Findings) -> dict[str, int]:
    """Hold the tables of refused lines to the manifest's counts; how many lines each has."""
    reasons: Counter[str] = Counter()
    refused = {}
    names = {f"rejected/{path.name}" for path in (out / "rejected").glob("*.parquet")}
    names |= {one.path for one in contract.made.tables if one.path.startswith("rejected/")}
    for path in sorted(names):
        with reading(path, findings), opened(out, path, contract, findings) as file:
            refused[path.removesuffix(".parquet")] = file.metadata.num_rows
            for batch in file.iter_batches(columns=["reason"], use_threads=False):
                reasons.update(str(reason) for one in batch.columns for reason in one.to_pylist())
    repeated = REPEATED.union(one.repeated for one in contract.made.lookups.values())
    for reason in sorted({*reasons, *contract.made.rejected} - repeated):
        if (listed := contract.made.rejected.get(reason, 0)) != reasons[reason]:
            findings.add("rejected", f"{NAME}: rejected, {reason}", reasons[reason], listed)
    return refused
