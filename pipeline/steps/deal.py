"""Deal: each table of events, parsed once, into buckets of users; and what is known by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import memory
from pipeline.config import Config
from pipeline.description import ASKED, IS_TARGET, USER, Description, Lookup, Table
from pipeline.description.split import Events, Split
from pipeline.engines.tally import Tally, Words
from pipeline.readers.line_count import estimate_lines, estimate_table
from pipeline.steps import lists, lookups, numbers, refused, shards, vocabulary
from pipeline.steps.core import Core, core
from pipeline.steps.known import Known
from pipeline.steps.missing import check_missing
from pipeline.steps.repeats import repeats_of
from pipeline.steps.spill import (
    MISSING,
    SpillPart,
    events,
    followed,
    fresh,
    held,
    kept,
    kinds_of_targets,
    spilled,
    spilled_others,
    spilled_wide,
    words_of,
)
from pipeline.steps.sql import arrow
from pipeline.steps.vocabulary import Encoder
from pipeline.workspace import Run
from schemas import tables
from schemas.bounds import MOST_BEHAVIOURS
from schemas.errors import InputError
from schemas.manifest import SPLITS, Share, out_of_scale, without

_NAMES_SHOWN = 5
# Of shards: neighbouring rows share most of their histories and of their padding, and shrink. Those
# of a few events among many share little.
_BYTES_A_ROW, _BYTES_A_CELL, _BYTES_A_SESSION_CELL, _BYTES_A_CELL_APART = 40, 0.8, 0.4, 2.5
# Of an event that is kept: 14 of Beauty's reviews, 11 of KuaiRand's two tables.
_BYTES_OF_A_KEPT_EVENT = 20
LOOKUPS_PART = 4
"""Of what a task of Spark may take, the part that lookups may which it holds as a whole."""
# Of a lookup's line, where no more than its key is held: the value, its id, and a place.
_KEY_BYTES = 24
# Of a number, or of what is passed through, as it is held or written.
_BYTES_A_VALUE = 8
# In the working set of a bucket: of a line of a history's table, where the history is not the
# first, and where it has a `where`, so events of its own; of a line of the targets' table, where
# its window is. Measured with 8 histories of 2 million events each, rounded up.
_BYTES_OF_A_HISTORY, _BYTES_OF_SOME, _BYTES_OF_A_WINDOW = 30, 60, 10


@dataclass(frozen=True)
class Seen:
    """What dealing a table out has found.

    Attributes:
        read: lines of the file that hold something.
        kept: events in the buckets.
        left_out: events of other kinds, times, or users than those wanted.
        unasked: those of them that the reader gave: of other users, or of earlier times.
        of_nobody: events of users that are none of the targets' table.
        first: the time of the first event kept; 0 where there is none.
        last: the time of the last one.
        no_line: by column, events refused as their value is not there where it is looked up.
        first_rows: the row of the first line of each file, but for those of kept events.
    """

    read: int
    kept: int
    left_out: int
    unasked: int
    of_nobody: int
    first: int
    last: int
    no_line: dict[str, int]
    first_rows: list[int]
    rows: int


class Counts(NamedTuple):
    """How often values occur in the targets' table.

    Attributes:
        of: column -> value and count.
        repeated: how many events repeat another one.
        contradicting: how many are of both labels.
        events: what else is known of those that may be targets.
        lacking: what events lack -> how many of them, of those that count.
        labels: how many of those that may be targets have the label 0, and 1; 0 where they have
            none.
        cut: how many events are left out as their users or values have too few.
        rows: how many events count, those that an earlier data set has kept as well. All else but
            `of` its other columns than users is of fresh events.
    """

    of: dict[str, pl.DataFrame]
    repeated: int
    contradicting: int
    events: Events
    lacking: dict[str, int]
    labels: tuple[int, int]
    cut: int
    rows: int


@dataclass(frozen=True)
class Dealt:
    """What is known once every table is dealt out.

    Attributes:
        lines: the lookups read by then, by key.
        counts: how often values occur in the targets' table.
        core: of the users and values that have events enough; None for all.
        others: of every other table, by name.
        since: the time from which on events of the other tables count.
        nobodies: of users whom the targets' table lacks: their values, and ids behind those of all
            others; None where events are not kept.
        shares: what joins have lost.
    """

    lines: dict[str, lookups.Lines]
    counts: Counts
    core: Core | None
    seen: Seen
    others: dict[str, Seen]
    split: Split
    since: int
    users: pa.Table
    nobodies: pa.Table | None
    shares: dict[str, Share]


def deal(run: Run, d: Description, known: Known | None) -> Dealt:
    """Read the lookups that have to be known by then, and deal every table out.

    New events follow what an earlier data set has fitted, if that is `known`.
    """
    target = d.target
    lines = {one.key: lookups.read(run, one, None) for one in d.lookups if one.early}
    sample = d.sample({key: of.rows for key, of in lines.items()})
    seen = _deal_targets(run, d, {key: of.first for key, of in lines.items()}, sample)
    counts, kept_core = _count(run, d, None), None
    if d.k_core:
        whole = counts
        if known is None:
            kept_core = core(run, target, d.k_core, whole.of[target.ids[0]].drop_nulls("value"))
        else:
            kept_core = known.core(target)
        counts = _count(run, d, kept_core)
        # What is left out repeats other events, too.
        counts = counts._replace(repeated=whole.repeated, contradicting=whole.contradicting)
    _require_labels(d, counts)
    split = d.split.fixed(counts.events)
    _require_train(d, split, counts)
    shares: dict[str, Share] = {}
    for one in d.lookups:
        if one.early:
            assert one.path is not None
            found = _not_there(one, lines[one.key], seen, counts)
            if one.all_lines:
                first = lines[one.key].first
                found |= lookups.lacking(one, first, first.height)
            shares |= check_missing(run.config, one.path, found, one.limits)
    users = wanted = vocabulary.vocabulary(counts.of[USER])
    if known is not None:
        users = known.users(wanted)
        has = pc.is_in(users["value"], wanted["value"].combine_chunks())
        wanted = users if target.every_user else users.filter(has)
    since, others = d.since(counts.events.first), {}
    for table in d.tables[1:]:
        dealt = others[table.name] = _deal_behaviours(run, d, table, wanted, sample, since)
        name = f"{table.name} of users without {target.name}"
        share = Share(dealt.of_nobody, dealt.of_nobody + dealt.kept)
        shares |= check_missing(run.config, table.path, {name: share})
    nobodies = None
    if d.keeps and others:
        files = [run.work / counts_file(table, USER) for table in d.tables[1:]]
        nobodies = vocabulary.vocabulary(
            pl.concat(pl.read_parquet(one, glob=False) for one in files)
        )
        ids = pc.add(nobodies["id"], pa.scalar(len(users), pa.int32()))
        nobodies = nobodies.set_column(1, nobodies.schema.field("id"), ids)
    kept = {target.name: seen.kept, **{name: of.kept for name, of in others.items()}}
    ordered = sum(
        kept[table.name] * (8 * (2 + len(table.ids)) + len(table.masks)) for table in d.tables
    )
    more = _BYTES_A_VALUE * len(target.more) + 4 * sum(target.lists.values())
    more += 8 * sum(one.table != target.name for one in d.histories.values())
    ordered += kept[target.name] * more
    output = output_bytes(d, sum(counts.labels) * d.rows_of_a_target)
    run.check_space(ordered + output + (kept_bytes(sum(kept.values())) if d.keeps else 0))
    return Dealt(lines, counts, kept_core, seen, others, split, since, users, nobodies, shares)


def _not_there(
    lookup: Lookup, lines: lookups.Lines, seen: Seen, counts: Counts
) -> dict[str, Share]:
    """Events of the targets' table whose value is not there where it is looked up."""
    if lookup.refuse is not None:
        n = seen.no_line[lookup.key]
        return {lookup.without: Share(n, n + seen.kept + seen.unasked)}
    of_key = counts.of[lookup.key]
    there = of_key["value"].is_in(lines.first[lookup.key].implode())
    events = int(of_key["count"].sum())
    return {lookup.without: Share(events - int(of_key.filter(there)["count"].sum()), events)}


def _require_labels(d: Description, counts: Counts) -> None:
    if d.strict and d.target.label and 0 in counts.labels:
        zeros, ones = counts.labels
        raise InputError(
            f"All {d.target.name} have the same label.",
            where=d.target.path,
            expected=f"{d.target.name} of both labels, 0 and 1",
            got=f"{zeros:,} of 0 and {ones:,} of 1",
            do="look at the column of the label, and at what a target is",
        )


def _require_train(d: Description, split: Split, counts: Counts) -> None:
    """Refuse events that no train row can be made of, or no row that holds what it must."""
    table, most = d.target, int(counts.of[USER]["count"].max())  # type: ignore[arg-type]
    split.require_train(counts.events)
    uncut = any(history.max_len is None for history in d.histories.values())
    if uncut and most - 1 > MOST_BEHAVIOURS:
        raise InputError(
            "A history is longer than can be stored, and none is to be cut.",
            where=table.path,
            expected=f"at most {MOST_BEHAVIOURS:,} behaviours before a target",
            got=f"{most - 1:,}",
            do="leave --parity out: --max-len then keeps the latest",
        )


def output_bytes(d: Description, rows: int) -> int:
    """What the shards take on disk, with room to spare."""
    row = float(_BYTES_A_ROW)
    cell = _BYTES_A_CELL_APART if IS_TARGET in d.target.masks else _BYTES_A_CELL
    for history in d.histories.values():
        most, length = history.sessions or (0, 0)
        row += cell * (history.max_len or 0) + _BYTES_A_SESSION_CELL * most * length
    row += _BYTES_A_CELL * sum(d.lists.values()) + _BYTES_A_VALUE * len((*d.numbers, *d.keep))
    return int(rows * row)


def kept_bytes(events: int) -> int:
    """What events take on disk that are kept, as they are and as behaviours, with room to spare."""
    return events * _BYTES_OF_A_KEPT_EVENT


def choose_buckets(run: Run, d: Description) -> int:
    """How many buckets of users, so that each fits in memory."""
    lines = {table.name: estimate_table(table.paths) for table in d.tables}
    working = sum(lines[table.name] * table.bytes_a_line for table in d.tables)
    for n, one in enumerate(d.histories.values()):
        # A table's own figure is with one history of all its events.
        more = _BYTES_OF_A_HISTORY * (n > 0) + _BYTES_OF_SOME * one.where
        working += lines[one.table] * more + lines[d.target.name] * _BYTES_OF_A_WINDOW * (n > 0)
    config = run.config
    fixed = fixed_bytes(d, apart(config, d))
    share = memory.bucket_bytes(config.memory, fixed, config.workers)
    # Four for each thread, so that none waits long for the last one.
    least = 4 * config.workers if sum(lines.values()) > 100_000 else 2
    least = max(least, run.engine.least_buckets)
    return config.buckets or min(4096, max(least, -int(-working // share)))


def fixed_bytes(d: Description, apart: Sequence[str] = ()) -> int:
    """The memory that is held all along: lookups, vocabularies, and what grows with them.

    Of the lookups `apart` no task holds more than the keys.
    """
    held = estimate_table(d.target.paths) * d.fixed_bytes_a_line
    for one in d.lookups:
        if one.path is not None and one.bytes_a_line:
            each = _KEY_BYTES if one.key in apart else one.bytes_a_line
            held += estimate_lines(one.path) * each
    return held


def apart(config: Config, d: Description) -> list[str]:
    """The keys of the lookups of which a task of Spark holds no more than its bucket asks for.

    They are the largest, so that the others fit in a part of `--memory`; none of those of which
    events want both what stands at a place and what stands at an id, or which a stream of negatives
    is looked up in.
    """
    if config.engine == "local":
        return []
    may = {
        one.key: _bytes_held(one)
        for one in d.lookups
        if not (one.has_place and any(one.key in table.fields for table in d.tables))
    }
    if d.negatives is not None and d.negatives.stream is not None:
        may.pop(d.negatives.field, None)
    held, found = sum(map(_bytes_held, d.lookups)), list[str]()
    for key in sorted(may, key=lambda key: -may[key]):
        if held <= config.memory // LOOKUPS_PART:
            break
        held -= may[key]
        found.append(key)
    return found


def _bytes_held(one: Lookup) -> int:
    """What a task holds of a lookup that it holds as a whole."""
    if one.path is None:
        return 0
    cells = sum(4 * most + 2 for most in one.lists.values())
    of_line = _KEY_BYTES + 8 * len(one.ids) + 16 * len(one.numbers) + cells
    return estimate_lines(one.path) * max(one.bytes_a_line, of_line)


def _deal_targets(
    run: Run,
    d: Description,
    known: Mapping[str, pl.DataFrame],
    sample: npt.NDArray[np.int64] | None,
) -> Seen:
    """Parse the targets' table into buckets of users; `known` are the lookups read already."""
    table = d.target

    def once() -> dict[str, Any]:
        tables.warm_up()
        run.count = choose_buckets(run, d)
        refusing = [one for one in d.lookups if one.refuse is not None]
        keys = {
            one.key: known[one.key].select(one.by).filter(pl.col(one.key).is_first_distinct())
            for one in refusing
        }
        seen = _deal(run, d, table, keys, None, sample, None)
        if not seen.kept:
            outside = f", of which {seen.left_out:,} are not of the users or kinds wanted"
            raise InputError(
                f"The file holds no {table.name} that can be used.",
                where=table.path,
                expected=table.expected,
                got=f"{seen.read:,} lines{outside if seen.left_out else ''}",
            )
        return {"buckets": run.count, **asdict(seen)}

    name = f"deal {table.name}"
    with run.step(name) as rows:
        found = dict(run.once(name, once))
        run.count = found.pop("buckets")
        seen = Seen(**found)
        rows[:] = seen.read, seen.kept
        return seen


def _deal_behaviours(
    run: Run,
    d: Description,
    table: Table,
    users: pa.Table,
    sample: npt.NDArray[np.int64] | None,
    since: int,
) -> Seen:
    """Parse another table into the buckets of its users.

    Every event that counts is in the vocabularies; only those of users of the targets' table are
    in a bucket.
    """

    def once() -> dict[str, Any]:
        return asdict(_deal(run, d, table, {}, users, sample, since))

    name = f"deal {table.name}"
    with run.step(name) as rows:
        seen = Seen(**run.once(name, once))
        rows[:] = seen.read, seen.kept
        return seen


def _deal(
    run: Run,
    d: Description,
    table: Table,
    known: Mapping[str, pl.DataFrame],
    users: pa.Table | None,
    sample: npt.NDArray[np.int64] | None,
    since: int | None,
) -> Seen:
    spills = 2 if d.keeps else 1
    run.check_space(estimate_table(table.paths) * table.disk_bytes_a_line * spills)
    deal = SpillPart(
        table,
        run.count,
        run.engine.threads,
        {key: (values, d.lookup(key).refuse or "") for key, values in known.items()},
        None if users is None else Encoder(users, 0),
        None if sample is None else pl.Series(sample),
        since,
        d.unit,
        tuple(one for one in d.lookups if one.table == table.name),
        d.keeps,
    )
    kinds = [refused.kind(table.file), *([kept(table)] if deal.keeps else [])]
    if users is None:
        kinds += kinds_of_targets(table)
    else:
        kinds += [spilled(table), spilled_wide(table)]
        kinds += [spilled_others(table)] if d.keeps else []
    found: dict[str, int] = {}
    times: list[int] = []
    summary = refused.Summary()
    counts: dict[str, Words] = {}
    looked_up = {one.key: lookups.Distinct(one) for one in deal.lookups}
    rows = [0] * len(table.paths)
    for part in run.deal(f"deal {table.name}", table.paths, table.reader, deal, kinds):
        summary.merge(part.refused)
        times += part.times
        for file, n in part.files.items():
            rows[file] += n
        for name, n in part.found.items():
            found[name] = found.get(name, 0) + n
        for name, more in part.counts.items():
            counts.setdefault(name, words_of(table, name)).merge(more)
        for key, of_part in part.looked_up.items():
            looked_up[key].merge(of_part)
    no_line = {key: summary.reasons.get(reason, 0) for key, (_, reason) in deal.allowed.items()}
    for key, n in no_line.items():
        one = d.looked_up(key)
        assert one is not None
        assert one.path is not None
        # They count as refused, too: the join is the better word for it.
        share = Share(n, n + found["kept"] + found["unasked"])
        check_missing(run.config, one.path, {one.without: share}, one.limits)
    summary.check(table.paths, found["read"], run.config.max_rejected)
    for name, tally in counts.items():
        shards.write_table(run.work / counts_file(table, name), arrow(tally.counts()))
    for key, distinct in looked_up.items():
        shards.write_table(run.work / lookup_file(d.lookup(key)), arrow(distinct.rows()))
    ends = (min(times), max(times)) if times else (0, 0)
    *first_rows, end = accumulate(rows[table.earlier :], initial=table.first_row)
    return Seen(
        **found, first=ends[0], last=ends[1], no_line=no_line, first_rows=first_rows, rows=end
    )


def counts_file(table: Table, name: str) -> str:
    """The file in the work folder with how often the values of a column of `table` occur."""
    return f"{table.name}-{name}.parquet"


def lookup_file(lookup: Lookup) -> str:
    """The file in the work folder with the rows of a lookup of a table, as `Distinct` has them."""
    return f"{lookup.table}-lookup-{lookup.key}.parquet"


def _count(run: Run, d: Description, of_core: Core | None) -> Counts:
    with run.step("count values") as told:
        table = d.target
        work = partial(_count_bucket, table, of_core)
        words = {name: words_of(table, name) for name in (*table.ids, *table.lists)}
        tallies = list(words.values())
        found = run.each("count values", work, needs=[spilled(table)], tallies=tallies)
        of = {USER: pl.concat(one.of[USER] for one in found)}
        told[0] = rows = sum(one.rows for one in found)
        for name, tally in words.items():
            of[name] = tally.counts()
            none = rows - int(of[name]["count"].sum())
            if name in table.ids and none:
                without = pl.DataFrame({"value": None, "count": none}, of[name].schema)
                of[name] = pl.concat([of[name], without])
        told[1] = sum(map(len, of.values()))
        each = [one.events for one in found]
        spans = [(one.first, one.last) for one in each if one.first <= one.last]
        if not spans:
            raise InputError(
                f"None of the {table.name} can be a target.",
                where=table.path,
                expected=f"{table.name} that are what a target is",
                got=f"{told[0]:,} {table.name}, of which none is",
                do="look at the condition of the target",
            )
        events = Events(
            table.name,
            table.path,
            min(first for first, _ in spans),
            max(last for _, last in spans),
            sum(one.users for one in each),
            max(one.most for one in each),
            tuple(map(sum, zip(*(one.of_column for one in each), strict=True))),
            d.unit,
        )
        repeated = sum(one.repeated for one in found)
        lacking = {name: sum(one.lacking[name] for one in found) for name in found[0].lacking}
        zeros, ones = (sum(one.labels[k] for one in found) for k in range(2))
        return Counts(
            of,
            repeated,
            sum(one.contradicting for one in found),
            events,
            lacking,
            (zeros, ones),
            sum(one.cut for one in found),
            rows,
        )


def _count_bucket(
    table: Table, of_core: Core | None, folder: Path, bucket: int, *tallies: Words
) -> Counts:
    found, repeats = followed(table, events(folder, bucket, table)), repeats_of(table)
    repeated, both = repeats.count(found)
    every = repeats.kept(found, table.drop)
    frame = every if of_core is None else of_core.kept(every)
    new = fresh(table, frame)
    cut = fresh(table, every).height - new.height
    if table.first_row:
        before = repeats.count(found.filter(pl.col("row") < table.first_row))
        repeated, both = repeated - before[0], both - before[1]
        if table.drop:
            repeated = fresh(table, found).height - fresh(table, every).height
    of_reader = table.reader.columns
    of_frame = {name: held(of_reader[name]) for name in frame.columns if name in of_reader}
    model = tables.events(table.name, of_frame, table.ids)
    first = 1 + table.header if len(table.paths) == 1 else None
    tables.check(model, frame.select(tables.columns(model)), table.path, first)
    of = {USER: vocabulary.count_values(new, USER)}
    for name, tally in zip((*table.ids, *table.lists), tallies, strict=True):
        if name in table.ids and isinstance(tally, Tally):
            tally.add(frame[name].fill_null(MISSING).to_numpy())
        else:
            count = lists.count_values if name in table.lists else vocabulary.count_values
            tally.merge(count(frame, name).drop_nulls("value"))
    lacking = _lacking(table, new)
    told = _events(table, new, of)
    may = _may(table, new)
    ones = int(may["label"].sum()) if table.label else 0
    labels = may.height - ones, ones
    return Counts(of, repeated, both, told, lacking, labels, cut, frame.height)


def _may(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """Those of some events that may be targets."""
    masks = [pl.col(name) for name in (IS_TARGET, ASKED) if name in table.masks]
    return frame.filter(*masks) if masks else frame


def _lacking(table: Table, frame: pl.DataFrame) -> dict[str, int]:
    """How many events of the targets' table lack a number that can be scaled, or any value."""
    found = {}
    for name, scale in table.numbers.items():
        values = frame[name].fill_null(np.nan).to_numpy()
        there = np.isfinite(values)
        lost = ~numbers.usable(values, scale)
        found[without(table.name, name)] = int(np.count_nonzero(~there))
        if scale != "standard":
            found[out_of_scale(table.name, name, scale)] = int(np.count_nonzero(lost & there))
    for name in table.lists:
        found[without(table.name, name)] = int((frame[name].list.len() == 0).sum())
    return found


def _events(table: Table, frame: pl.DataFrame, of: Mapping[str, pl.DataFrame]) -> Events:
    """What is known of a bucket's events; the last is before the first where none is a target."""
    users = of[USER]
    may = _may(table, frame)
    most = int(users["count"].max() or 0)  # type: ignore[arg-type]
    if IS_TARGET in table.masks:
        also = vocabulary.count_values(may, USER).rename({"count": "may"})
        least = pl.min_horizontal("count", pl.col("may").fill_null(0) + 1)
        most = int(users.join(also, on="value", how="left").select(least.max()).item() or 0)
    time = may["time"].to_numpy()
    first, last = (int(time.min()), int(time.max())) if len(time) else (0, -1)
    named = dict(frame["split"].drop_nulls().value_counts().rows()) if table.split else {}
    if others := named.keys() - set(SPLITS):
        raise InputError(
            "The column of the split names another one.",
            where=table.path,
            expected=", ".join(SPLITS),
            got=", ".join(sorted(others)[:_NAMES_SHOWN]),
        )
    of_column = tuple(named.get(name, 0) for name in SPLITS)
    return Events(table.name, table.path, first, last, users.height, most, of_column)
