"""What a data set holds, for people: read from its manifest and a few decoded rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.description.split import clock
from schemas import vocabulary
from schemas.checked import is_zone
from schemas.errors import ContractError, InputError
from schemas.manifest import FIRST_ID, NAME, PADDING_ID, UNKNOWN_ID, Manifest, load
from schemas.plain import duration, printable
from schemas.shards import UNITS

_SHOWN_BEHAVIOURS = 4


def summary(made: Manifest, out: Path, *, kept: bool = True) -> Group:
    """The tables that close a preparation and open an inspection; a sample's is not `kept`."""
    kind = f"{made.dataset} (synthetic data)" if made.synthetic else made.dataset
    what = Table(title=kind, show_header=False)
    what.add_column("what")
    what.add_column("figure", justify="right")
    for split, rows in made.rows.items():
        what.add_row(f"{split} rows", f"{rows:,}")
    for name, size in made.vocabulary.items():
        what.add_row(f"distinct {name}", f"{size - FIRST_ID:,}")
    for reason, count in made.rejected.items():
        what.add_row(f"refused: {reason}", f"{count:,}")
    for file in made.tables if kept else ():
        if file.path.startswith("rejected/"):
            what.add_row("what was refused", str(out / file.path))
    for name, count in made.counts.items():
        if name not in made.shares:
            what.add_row(name, f"{count:,}")
    for name, share in made.shares.items():
        if share.count:
            what.add_row(name, str(share))
    for name, one in made.histories.items():
        of = f"history {name}" if len(made.histories) > 1 else "histories"
        what.add_row(of, f"latest {one.max_len}, {made.layout}")
    if made.steps:
        what.add_row("seconds", f"{sum(s.seconds for s in made.steps):.1f}")
        what.add_row("peak memory", f"{max(s.peak_rss_mb for s in made.steps):,} MiB")
    what.add_row("where", str(out) if kept else "nowhere: a sample")
    some = [name for name, one in made.histories.items() if sum(one.bins.train_counts)]
    return Group(what, *(bins(made, name) for name in some), *(_told(note) for note in made.notes))


def _told(note: str) -> Text:
    warning = note.removeprefix("Warning: ")
    return Text(f"{'note' if warning == note else 'warning'}: {printable(warning)}")


def _of(made: Manifest, history: str) -> str:
    """Which history something is of, where there are several."""
    return f", {history}" * (len(made.histories) > 1)


def bins(made: Manifest, history: str) -> Table:
    """The interval bins of a history with their edges in human units, and their shares of train."""
    of = made.histories[history].bins
    title = "interval bins: time from behaviour to target, train split"
    table = Table(title=f"{title}{_of(made, history)}")
    table.add_column("bin", justify="right")
    table.add_column("more than", justify="right")
    table.add_column("up to", justify="right")
    table.add_column("behaviours", justify="right")
    table.add_column("share", justify="right")
    total, a_second = max(1, sum(of.train_counts)), UNITS[made.time_unit]
    edges = [None, *of.edges_s, None]
    for k, count in enumerate(of.train_counts):
        low, high = edges[k], edges[k + 1]
        table.add_row(
            str(k + 1),
            "-" if low is None else duration(low / a_second),
            "-" if high is None else duration(high / a_second),
            f"{count:,}",
            f"{count / total:.1%}",
        )
    return table


def inspect(out: Path, rows: int) -> Group:
    """Everything that `tinprep inspect` shows.

    Raises:
        InputError: there is no data set, or a file of it is missing or damaged.
        ContractError: its manifest, a vocabulary or a shard breaks the contract.
    """
    made = load(out)
    lengths = [_lengths(made, name) for name in made.histories]
    return Group(summary(made, out), *lengths, *_decoded(made, out, rows))


def sample(made: Manifest, out: Path, targets: int) -> list[RenderableType]:
    """What tells whether a description fits its data: targets in plain words, and the summary.

    Raises:
        ContractError: a file breaks the contract.
    """
    own = _decoded(made, out, targets * made.each)[:: made.each]
    return [*own, summary(made, out, kept=False)]


def _lengths(made: Manifest, history: str) -> Table:
    table = Table(title=f"history length, rows{_of(made, history)}")
    ranges = [(0, 0), (1, 4), (5, 9), (10, 14), (15, 19), (20, 49), (50, 1 << 15)]
    table.add_column("split")
    for low, high in ranges:
        table.add_column(f"{low}" if low == high else f"{low}+" if high > 50 else f"{low}-{high}")
    table.add_column("mean", justify="right")
    for split, counts in made.histories[history].lengths.items():
        n = np.asarray(counts)
        cells = [f"{int(n[low : high + 1].sum()):,}" for low, high in ranges]
        mean = float((n * np.arange(len(n))).sum() / max(1, n.sum()))
        table.add_row(split, *cells, f"{mean:.1f}")
    return table


def _decoded(made: Manifest, out: Path, count: int) -> list[Table]:
    zone = _zone(made, out)
    shown = [
        (split, row)
        for split in made.rows
        if count and (paths := made.shard_paths(out, split))
        for row in _first_rows(paths[0], made, count)
    ]
    # Vocabularies may be far larger than the rows shown: read only if there is one.
    others = [feature.vocabulary for feature in made.features.values() if feature.vocabulary]
    names = dict.fromkeys(("user", *made.fields, *others)) if shown else ()
    words = {name: _words(out, name) for name in names}
    return [_decoded_row(split, row, made, words, zone) for split, row in shown]


def _words(out: Path, name: str) -> pa.ChunkedArray:
    """The values of a field in the order of their ids, the first of which is `FIRST_ID`."""
    return vocabulary.read(out / "vocabulary" / f"{name}.parquet")["value"]


def _zone(made: Manifest, out: Path) -> ZoneInfo:
    if not is_zone(made.timezone):
        raise ContractError(
            "The manifest names no timezone.",
            where=out / NAME,
            expected="a name such as Asia/Shanghai",
            got=f"{made.timezone!a}"[:100],
        )
    return ZoneInfo(made.timezone)


def _first_rows(path: Path, made: Manifest, count: int) -> list[dict[str, Any]]:
    """The first rows of a shard, of the columns that are shown."""
    shown = ["row", "user", "label", "target_time"]
    for called in made.histories:
        shown += [f"{called}_length", *_behaviours(made, called)]
    shown += [f"target_{name}" for name in made.fields]
    shown += [*made.features, *(f"{name}_length" for name in made.lists), *made.keep]
    shown += ["weight"] if made.weight else []
    try:
        with pq.ParquetFile(path) as file:
            first = next(file.iter_batches(batch_size=count, columns=shown), None)
            # What was read may have fewer columns than a damaged file's schema names.
            there = file.schema_arrow.names if first is None else first.schema.names
            lacking = sorted({*shown} - {*there})
        rows = [] if first is None else first.slice(0, count).to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(
            "A shard cannot be read.",
            where=path,
            expected="a Parquet file",
            got=" ".join(str(error).split())[:200],
            do="`tinprep verify` says more; make the data set again",
        ) from error
    if lacking or not all(_is_readable(row, made) for row in rows):
        raise ContractError(
            "A shard breaks its contract.",
            where=path,
            expected=", ".join(shown),
            got=f"no {', '.join(lacking)}" if lacking else "values of other types",
            do="`tinprep verify` says more; make the data set again",
        )
    return rows


def _behaviours(made: Manifest, history: str) -> list[str]:
    """The columns of a history that are shown, which are lists."""
    names = ("time", "position", "interval_bin", *made.histories[history].fields)
    return [f"{history}_{name}" for name in names]


def _is_readable(row: dict[str, Any], made: Manifest) -> bool:
    """Whether a row has numbers, and lists that are as long as it says."""
    numbers = [name for name, one in made.features.items() if one.kind == "number"]
    kinds = dict.fromkeys([*numbers, "weight"], float) | dict.fromkeys(made.keep, object)
    lists: dict[str, str] = {name: f"{name}_length" for name in made.lists}
    for history in made.histories:
        lists |= dict.fromkeys(_behaviours(made, history), f"{history}_length")
    plain = all(isinstance(row[name], kinds.get(name, int)) for name in row if name not in lists)
    return plain and all(
        isinstance(row[name], list)
        and len(row[name]) >= row[length]
        and all(isinstance(value, int) for value in row[name][: row[length]])
        for name, length in lists.items()
    )


def _decoded_row(
    split: str,
    row: dict[str, Any],
    made: Manifest,
    words: dict[str, pa.ChunkedArray],
    zone: ZoneInfo,
) -> Table:
    """A row in plain words: the target, then the newest behaviours of each history."""
    fields = made.fields

    def word(name: str, id_: int) -> str:
        if id_ in (PADDING_ID, UNKNOWN_ID):
            return "(padding)" if id_ == PADDING_ID else "(unknown)"
        known = FIRST_ID <= id_ < FIRST_ID + len(words[name])
        return str(words[name][id_ - FIRST_ID].as_py()) if known else f"(no {name}: {id_})"

    def moment(time: int) -> str:
        try:
            return clock(time, zone, made.time_unit)
        except (ValueError, OverflowError, OSError):
            return f"(no time: {time})"

    table = Table(
        title=f"{split}: row {row['row']:,}, user {word('user', row['user'])}, "
        f"label {row['label']}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("position", *fields, f"time ({zone.key})", "before", "bin"):
        table.add_column(name, overflow="fold")
    target = [word(name, row[f"target_{name}"]) for name in fields]
    table.add_row("target", *target, moment(row["target_time"]), "", "")
    for called, history in made.histories.items():
        length = row[f"{called}_length"]
        if len(made.histories) > 1:
            table.add_section()
            table.add_row(f"{called}: {length or 'none'}")
        for i in reversed(range(max(0, length - _SHOWN_BEHAVIOURS), length)):
            time = row[f"{called}_time"][i]
            own = {n: word(n, row[f"{called}_{n}"][i]) for n in fields if n in history.fields}
            table.add_row(
                str(row[f"{called}_position"][i]),
                *(own.get(n, "") for n in fields),
                moment(time),
                duration((row["target_time"] - time) / UNITS[made.time_unit]),
                str(row[f"{called}_interval_bin"][i]),
            )
        if length > _SHOWN_BEHAVIOURS:
            table.add_row(f"and {length - _SHOWN_BEHAVIOURS} older")
    if others := _others(row, made, word):
        table.caption, table.caption_justify = Text(printable(others)), "left"
    return table


def _others(row: dict[str, Any], made: Manifest, word: Callable[[str, int], str]) -> str:
    """What a row has besides its target and its histories, for people."""
    told = [f"weight {row['weight']:g}"] if made.weight else []
    for name, feature in made.features.items():
        if feature.vocabulary is None:
            told.append(f"{name} {row[name]:.4g}")
        elif feature.max_len is None:
            told.append(f"{name} {word(feature.vocabulary, row[name])}")
        else:
            ids = row[name][: row[f"{name}_length"]]
            values = ", ".join(word(feature.vocabulary, one) for one in ids)
            told.append(f"{name} [{values}]")
    told += [f"{name} {row[name]}" for name in made.keep]
    return "; ".join(told)
