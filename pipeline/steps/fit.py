"""Fit: vocabularies, lookups as ids, ordered buckets, and what is known of train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.description import USER, Description, Lookup, Negatives
from pipeline.description.split import TRAIN, Split
from pipeline.engines.buckets import bucket_path, load_columns
from pipeline.engines.tally import Tally
from pipeline.steps import deal, intervals, lookups, spread, vocabulary
from pipeline.steps.deal import Dealt
from pipeline.steps.drawing import Drawing, numbers_of
from pipeline.steps.known import Known
from pipeline.steps.measure import Measure, OrderAndMeasure, Shown
from pipeline.steps.missing import check_missing
from pipeline.steps.negatives import Pool
from pipeline.steps.numbers import fitted, fitted_by_place, scaled
from pipeline.steps.order import Order, kinds, ordered
from pipeline.steps.rows import Stored
from pipeline.steps.vocabulary import Encoder
from pipeline.workspace import Run
from schemas.arrays import Int32s, Int64s
from schemas.errors import InputError
from schemas.interrupts import FOR_EVER
from schemas.manifest import FIRST_ID, SPLITS, Bins, Share
from schemas.shards import UNITS


@dataclass(frozen=True)
class Fitted:
    """What is known of the whole data set.

    Attributes:
        final: column -> the id that each of its ids in the ordered events becomes in rows, where
            it is another one.
        lines: the lookups' rows, by key.
        looked_up: the lookups as ids, by key.
        numbers: column of numbers -> (places,) standardised.
        scales: column of numbers -> how it was standardised.
        bins: history -> its bins, with the train split's intervals counted.
        stored: history -> how it is stored.
        pool: value and weight of what negatives are drawn from; None for none.
        released: (raw rows,) the negative 0..values-1 of each event where a stream draws them.
        found: what ordering the buckets has found.
        strangers: table and field of behaviours none of whose values a target may have.
        blank: table and field of behaviours none of which has a value.
    """

    words: dict[str, pa.Table]
    final: dict[str, Int32s]
    lines: dict[str, lookups.Lines]
    looked_up: dict[str, lookups.Encoded]
    numbers: dict[str, npt.NDArray[np.float32]]
    scales: dict[str, dict[str, Any]]
    bins: dict[str, Bins]
    stored: dict[str, Stored]
    pool: pa.Table | None
    released: Int64s | None
    found: Ordered
    shares: dict[str, Share]
    strangers: list[tuple[str, str]]
    blank: list[tuple[str, str]]


def fit(run: Run, d: Description, dealt: Dealt, known: Known | None) -> Fitted:
    """Give values their ids, order the buckets, and count what train holds.

    Where an id depends on what rows of train hold, events have first ids of all values, which rows
    do not keep. So it is where ids, edges and scales are `known` of an earlier data set.
    """
    later = known is not None or _ids_come_later(d)
    counts, first, of_others = _first(run, d, dealt, 1 if later else d.min_count, known)
    lines, shares = dict(dealt.lines), dict(dealt.shares)
    late = [one for one in d.lookups if not one.all_lines]
    done = None if later else run
    looked_up = {
        one.key: lookups.encode(one, lines[one.key], first, first, done)
        for one in d.lookups
        if one.all_lines
    }
    # What train shows of numbers, and of what is timed, is counted by places, which have to be
    # known by then.
    early = [one for one in late if one.early]
    placed = [one for one in late if (one.numbers or one.timed) and not one.early]
    for one in early:
        keys = pl.Series(first[one.key]["value"])
        lines[one.key] = lookups.named(one, lines[one.key], keys)
    for one, of in zip(placed, _read_late(run, placed, first), strict=True):
        lines[one.key] = of
    for one in (*early, *placed):
        looked_up[one.key] = lookups.encode(one, lines[one.key], first, first)
    others = [one for one in late if one not in (*early, *placed)]
    # Neither needs the other, and neither keeps two cores busy by itself.
    with ThreadPoolExecutor(1, "lookups") as beside:
        reading = beside.submit(_read_late, run, others, first)
        found = _order(run, d, dealt, first, looked_up, known)
        lines |= {one.key: of for one, of in zip(others, reading.result(FOR_EVER), strict=True)}
    if known is None and not found.shown.targets[TRAIN]:
        _refuse_no_train(d)
    if known is not None and not sum(found.shown.targets):
        _refuse_no_target(d)
    if d.strict:
        _require_use(d, dealt.split, found.shown)
    words, final = dict(first), {}
    if later:
        words = (
            _words(d, first, counts, lines, found)
            if known is None
            else {**known.words, USER: first[USER]}
        )
        for name in (*d.columns, *d.target.lists):
            ids = Encoder(words[name]).of(pl.Series(first[name]["value"]))
            final[name] = np.append(np.arange(FIRST_ID, dtype=np.int32), ids)
    for one in [] if later else late:
        for name, counted in lookups.counts(one, lines[one.key].first, first[one.key]).items():
            words[name] = vocabulary.vocabulary(counted, d.min_count)
    for key, read in lines.items():
        one = d.lookup(key)
        if later or not one.all_lines:
            looked_up[key] = lookups.encode(one, read, first, words, run)
        if not one.all_lines and one.path is not None:
            there = read.first.filter(pl.col(key).is_in(pl.Series(words[key]["value"]).implode()))
            lost = lookups.lacking(one, there, len(words[key]))
            if key in found.shown.lacking and not one.early:
                targets = sum(found.shown.targets)
                lost[one.without] = Share(found.shown.lacking[key], targets)
            shares |= check_missing(run.config, one.path, lost, one.limits)
    numbers = {}
    moments = found.shown.moments
    scales = {name: fitted(moments[name], d.numbers[name]) for name in d.target.numbers}
    scales = scales if known is None else known.made.numbers
    for key, table in looked_up.items():
        for name, raw in table.raw_numbers.items():
            if name not in d.target.numbers:  # the event's own one wins
                scale = d.numbers[name]
                if known is None:
                    scales[name] = fitted_by_place(raw, found.places[key], scale)
                numbers[name] = scaled(raw, scale, scales[name])
    bins = {
        name: _bins(d, name, found.totals[name])
        if known is None
        else known.made.histories[name].bins
        for name in d.histories
    }
    longest = found.shown.longest
    if known is not None:
        longest = {name: one.max_len for name, one in known.made.histories.items()}
    stored = {
        name: Stored(
            np.array(bins[name].edges_s, np.int64),
            history.max_len or max(longest[name], 1),
            d.layout,
            history.session_gap,
            history.sessions,
        )
        for name, history in d.histories.items()
    }
    released = None
    if d.negatives is not None and d.negatives.stream is not None:
        released = _released(run, d, d.negatives, len(words[d.negatives.field]))
    return Fitted(
        {name: words[name] for name in (USER, *d.fields, *d.features, *d.lists)},
        final,
        lines,
        looked_up,
        numbers,
        scales,
        bins,
        stored,
        None if found.drawing is None else _values(found.drawing, first),
        released,
        found,
        shares,
        _strangers(d, dealt, of_others, lines),
        [
            of
            for of, counted in of_others.items()
            if counted.is_empty() and dealt.others[of[0]].kept
        ],
    )


def _strangers(
    d: Description,
    dealt: Dealt,
    of_others: Mapping[tuple[str, str], pl.DataFrame],
    lines: Mapping[str, lookups.Lines],
) -> list[tuple[str, str]]:
    """Table and field of behaviours none of whose values a target may have, by itself or a lookup.

    Not of targets that have no value at all, or behaviours.
    """
    found, of_targets = [], dealt.counts.of
    for (table, name), counted in of_others.items():
        may = [of_targets[name]["value"]] if name in d.target.ids else []
        for key, one in d.by_key.items():
            if name in one.ids:
                first = lines[key].first
                there = pl.col(key).is_in(of_targets[key]["value"].implode())
                may.append(first.filter(there)[name].unique())
        values = pl.concat(may).drop_nulls()
        if len(values) and len(counted) and not counted["value"].is_in(values.implode()).any():
            found.append((table, name))
    return found


def _bins(d: Description, name: str, counted: pl.DataFrame) -> Bins:
    bins = d.bins_of(name)
    edges = intervals.edges(counted, bins)
    counts = intervals.bin_counts(counted, edges)
    return Bins(bins, edges.tolist(), [n * d.rows_of_a_target for n in counts])


def _values(drawing: Drawing, words: Mapping[str, pa.Table]) -> pa.Table:
    """Value and weight of what negatives are drawn from; `words` are those of ordered events."""
    pool = drawing.pool
    values = words[drawing.rule.field]["value"].take(pa.array(pool.ids - FIRST_ID))
    return pa.table({"value": values, "weight": pool.weights})


def _ids_come_later(d: Description) -> bool:
    """Whether the ids of rows are others than those that events are ordered with.

    Those of rows may depend on what train holds, or on lines that are read meanwhile. Values that
    are too rare for an id order events, too, and make them new, repeated, or what may be drawn.
    """
    late = [n for one in d.lookups if not one.all_lines for n in (*one.ids, *one.lists)]
    return (
        d.vocabulary_from == "train"
        or d.min_count > 1
        or bool({*late} & {*d.columns, *d.target.lists})
    )


def _first(
    run: Run, d: Description, dealt: Dealt, min_count: int, known: Known | None
) -> tuple[dict[str, list[pl.DataFrame]], dict[str, pa.Table], dict[tuple[str, str], pl.DataFrame]]:
    """How often values occur in events, and in lookups of which every line counts; their ids.

    And how often those of each table and field of behaviours do.
    """
    with run.step("fit vocabulary") as rows:
        found: dict[str, list[pl.DataFrame]] = {}
        for name in (*d.target.ids, *d.target.lists):
            found.setdefault(name, []).append(dealt.counts.of[name])
        for one in [one for one in d.lookups if one.all_lines]:
            for name, counts in lookups.counts(one, dealt.lines[one.key].rows, None).items():
                found.setdefault(name, []).append(counts)
        of_others = {}
        for table in d.tables[1:]:
            for name in table.fields:
                counted = pl.read_parquet(run.work / deal.counts_file(table, name), glob=False)
                found.setdefault(name, []).append(counted)
                of_others[table.name, name] = counted
        if known is not None:
            for name, of in found.items():
                of.append(pl.DataFrame(known.words[name].select(["value", "count"])))
            if known.pool is not None and d.negatives is not None:
                drawn = pl.DataFrame(known.pool).rename({"weight": "count"})
                found[d.negatives.field].append(drawn)
        words = {
            name: vocabulary.vocabulary(pl.concat(of), min_count) for name, of in found.items()
        }
        rows[:] = (
            sum(len(one) for of in found.values() for one in of),
            sum(map(len, words.values())),
        )
        return found, {USER: dealt.users, **words}, of_others


def _words(
    d: Description,
    first: Mapping[str, pa.Table],
    counts: Mapping[str, list[pl.DataFrame]],
    lines: Mapping[str, lookups.Lines],
    found: Ordered,
) -> dict[str, pa.Table]:
    """The vocabularies of rows, where they are others than those of ordered events."""
    train, drawn = d.vocabulary_from == "train", d.negatives
    of = {name: [*counted] for name, counted in counts.items()}
    if train:
        of = {name: [_held(first[name], held)] for name, held in found.held.items()}
        if drawn is not None and drawn.pool == "all":
            of[drawn.field] = [pl.DataFrame(first[drawn.field].select(["value", "count"]))]
    keys = {name: vocabulary.vocabulary(pl.concat(counted)) for name, counted in of.items()}
    for key, read in lines.items():
        one = d.lookup(key)
        if one.all_lines and not train:
            continue  # they are in `counts`
        of_key = keys.get(key, first[key])
        there = pl.col(key).is_in(pl.Series(of_key["value"]).implode())
        some = read.rows.filter(there) if one.all_lines else read.first
        if key in found.lines:
            some = some.with_columns(count=pl.Series(found.lines[key][:-1]))
            if drawn is not None and drawn.field == key:
                # A negative may have what is known of it before any target of train.
                may = there & (pl.col("time") < found.shown.last)
                some = some.with_columns(pl.max_horizontal("count", may.cast(pl.Int64)))
            some = some.filter(pl.col("count") > 0)
        naming = [table for table in d.tables if key in table.ids]
        for name, counted in lookups.counts(one, some, of_key).items():
            if naming and all(name in (*table.ids, *table.lists) for table in naming):
                # Events say it themselves, and are counted: negatives alone look it up.
                own = pl.concat([frame["value"] for frame in of.get(name, [counted.clear()])])
                counted = counted.filter(~pl.col("value").is_in(own.implode()))
            if name != key:
                of.setdefault(name, []).append(counted)
    words = {n: vocabulary.vocabulary(pl.concat(c), d.min_count) for n, c in of.items()}
    return words | {USER: first[USER]}


def _held(words: pa.Table, counts: Int64s) -> pl.DataFrame:
    """Value and count of what occurs of a vocabulary; `counts` are (values,) by its ids."""
    frame = pl.DataFrame({"value": pl.Series(words["value"]), "count": counts})
    return frame.filter(pl.col("count") > 0)


def _read_late(run: Run, late: Sequence[Lookup], words: dict[str, pa.Table]) -> list[lookups.Lines]:
    """The rows of lookups of which only what events name counts."""
    found = []
    for one in late:
        keys = pl.Series(words[one.key]["value"])
        if one.table is not None:
            rows = pl.read_parquet(run.work / deal.lookup_file(one), glob=False)
            lines = lookups.of_table(one, rows, keys)
        else:
            lines = lookups.read(run, one, keys)
        if one.require is not None and one.path is not None:
            one.require(one.path, lines.read, lines.first, len(keys))
        found.append(lines)
    return found


@dataclass(frozen=True)
class Ordered:
    """What ordering and measuring the buckets has found.

    Attributes:
        drawing: of the negatives; None for none.
        apart: the keys of the lookups that no task holds as a whole; buckets have asked for them.
        totals: history -> the counted intervals of train.
        places: lookup's key -> (places,) the rows of train of each.
        held: column -> (values,) how many events have it that train holds.
        lines: timed lookup's key -> (places,) how many such events look it up there.
        kept: table but the targets' -> its events in order.
        repeated: table but the targets' -> how many of them are as another one.
        late: table -> how many are older than one that was there before.
        shown: what the targets of all buckets show.
    """

    drawing: Drawing | None
    apart: list[str]
    totals: dict[str, pl.DataFrame]
    places: dict[str, Int64s]
    held: dict[str, Int64s]
    lines: dict[str, Int64s]
    kept: dict[str, int]
    repeated: dict[str, int]
    late: dict[str, int]
    shown: Shown


def _order(
    run: Run,
    d: Description,
    dealt: Dealt,
    words: dict[str, pa.Table],
    looked_up: dict[str, lookups.Encoded],
    known: Known | None,
) -> Ordered:
    """Encode and order each bucket; count the intervals of train, and what train looks up."""
    name, drawn = "order and fit intervals", d.negatives
    names = (USER, *d.columns, *d.target.lists)
    ids = {column: words[column].select(["value", "id"]) for column in names}
    apart = deal.apart(run.config, d)
    for_order = spread.for_order(looked_up, d, apart)
    order = Order(d, dealt.split, run.count, ids, for_order, dealt.core, dealt.nobodies)
    # One count for all buckets: one each would grow with their number.
    tallies = Measure.tallies(d)
    into = [tally for of in tallies.values() for tally in of.values()]
    pool, drawing = None, None
    if drawn is not None and (
        known is not None or (drawn.pool, drawn.weight) == ("all", "uniform")
    ):
        of = words[drawn.field]
        pool = Pool.every(len(of)) if known is None else known.drawn(of)
        drawing = Drawing(d, drawn, pool, numbers_of(words[USER], drawn))
    measure = Measure(d, dealt.split, looked_up, drawing)
    makes = needs = kinds(d)
    with run.step(name) as rows:
        if not apart and (drawn is None or drawing is not None):
            both = OrderAndMeasure(order, measure)
            pairs = run.each(name, both, needs=order.needs, makes=makes, tallies=into)
            found, shown = [one for one, _ in pairs], [one for _, one in pairs]
        else:
            seen = Tally()
            late = [seen] if drawn is not None and drawing is None else []
            found = run.each(name, order, needs=order.needs, makes=makes, tallies=late)
            if drawn is not None and drawing is None:
                counts = lookups.dense(seen, len(words[drawn.field]) + FIRST_ID)[FIRST_ID:]
                weighted = drawn.weight == "popularity"
                pool = Pool.of(counts, weighted=weighted)
                drawing = Drawing(d, drawn, pool, numbers_of(words[USER], drawn))
            if apart:
                ask = spread.Ask(d, dealt.split, drawing, tuple(apart))
                run.each("ask lookups", ask, needs=makes, makes=[*map(spread.asked, apart)])
            held, brought = spread.bring(run, d, looked_up, {}, apart, "for-fit")
            needs = [*makes, *brought]
            measure = replace(measure, looked_up=held, drawing=drawing)
            shown = run.each("measure train", measure, needs=needs, tallies=into)
        totals = {h: intervals.counted(tally) for h, tally in tallies["gaps"].items()}
        if (a_second := UNITS[d.unit]) > 1 and known is None:
            seconds = {h: intervals.cells(counted, d.bins_of(h)) for h, counted in totals.items()}
            fine = [Tally() for _ in totals]
            run.each("measure edges", partial(measure.within, seconds), needs=needs, tallies=fine)
            totals = {
                h: intervals.refined(totals[h], intervals.counted(tally), a_second)
                for h, tally in zip(totals, fine, strict=True)
            }
        rows[:] = sum(one.events for one in found), sum(of.height for of in totals.values())
    return Ordered(
        drawing,
        apart,
        totals,
        {k: lookups.dense(t, looked_up[k].places) for k, t in tallies["places"].items()},
        {
            n: lookups.dense(t, len(words[n]) + FIRST_ID)[FIRST_ID:]
            for n, t in tallies["held"].items()
        },
        {k: lookups.dense(t, looked_up[k].places) for k, t in tallies["lines"].items()},
        {table.name: sum(one.kept[table.name] for one in found) for table in d.tables[1:]},
        {table.name: sum(one.repeated[table.name] for one in found) for table in d.tables[1:]},
        {table.name: sum(one.late[table.name] for one in found) for table in d.tables},
        Shown.merged(shown),
    )


def _require_use(d: Description, split: Split, shown: Shown) -> None:
    """Refuse a split without a target, and a history without a behaviour."""
    counts = dict(zip(SPLITS, shown.targets, strict=True))
    for name in split.names:
        if not counts[name]:
            raise InputError(
                f"There is no target in the split {name}.",
                where=d.target.path,
                expected=f"targets in {', '.join(split.names)}",
                got=", ".join(f"{counts[one]:,} in {one}" for one in split.names),
                do="look at the split, at what a target is, and at the filters",
            )
    for name, some in shown.some.items():
        if not some:
            table = d.table(d.histories[name].table)
            raise InputError(
                f"The history {name} is empty: none of the {table.name} stands before a target.",
                where=table.path,
                expected=f"{table.name} of users of {d.target.name}, before their targets",
                got=f"{sum(shown.targets):,} targets without any",
                do="look at the times and the users of both, and at what a behaviour is",
            )


def _refuse_no_target(d: Description) -> None:
    raise InputError(
        "None of the new events is a target.",
        where=d.target.path,
        expected=f"{d.target.name} that are what a target is",
        got=f"{d.target.name} none of which is",
        do="look at what a target is, and at the filters",
    )


def _refuse_no_train(d: Description) -> None:
    drawn, target = d.negatives, d.target
    if drawn is None:
        raise InputError(
            "There is nothing to train on.",
            where=target.path,
            expected=f"a user with {target.name} enough to make a row of train",
            got=f"{target.name} none of which is a target of train",
            do="look at what a target is, at the split, and at the filters",
        )
    raise InputError(
        "There is nothing to train on.",
        where=target.path,
        expected=f"a user with {target.name} enough and an {drawn.field} that he has none of",
        got=f"users who have touched every {drawn.field}, so that there is no negative to draw",
        do=f"give a log of more {drawn.field}s, or one of more {target.name} a user",
    )


def _released(run: Run, d: Description, drawn: Negatives, values: int) -> Int64s:
    """The negative of each raw row of a stream over all users in order, so all at once."""
    assert drawn.stream is not None
    with run.step("released negatives") as rows:
        work = partial(_columns, ordered(d.target))
        every = run.each("released negatives", work, needs=[ordered(d.target)])
        user = np.concatenate([one[USER] for one in every])
        order = np.argsort(user, kind="stable")
        item = np.concatenate([one[drawn.field] for one in every])[order] - FIRST_ID
        row = np.concatenate([one["row"] for one in every])[order]
        firsts = np.flatnonzero(np.diff(user[order], prepend=-1))
        seen = [history.tolist() for history in np.split(item, firsts[1:])]
        if any(len(set(history)) == values for history in seen):
            raise InputError(
                f"The released code never ends where a user has touched every {drawn.field}.",
                where=d.target.path,
                do="leave --parity out: such users then give no rows, and are counted",
            )
        drawn_of = np.zeros(int(row.max()) + 1, np.int64)
        drawn_of[row] = drawn.stream(seen, values)
        rows[:] = len(row), len(row)
        return drawn_of


def _columns(of: str, folder: Path, bucket: int) -> dict[str, npt.NDArray[Any]]:
    return load_columns(bucket_path(folder / of, bucket))
