"""What the manifest tells people: counts, shares, what was refused, notes."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.description import USER, Description
from pipeline.description.split import ByTime, moment
from pipeline.engines.buckets import bucket_path, spilled_pieces
from pipeline.readers.raw_files import SYNTHETIC, names_of
from pipeline.steps import finish, numbers, refused
from pipeline.steps.deal import Dealt
from pipeline.steps.fit import Fitted
from pipeline.steps.known import Known
from pipeline.workspace import Run
from schemas import manifest
from schemas.manifest import Share
from schemas.shards import UNITS

TOUCHED_EVERYTHING = "touched every {}"
# Longer than any log that we know. From a time of 0, which is 1970, to a log of today it is more.
_LONG_S = 30 * 365 * 86_400
# Files that have no more may well be alike.
_BYTES_OF_A_HEADER = 256


def account(
    run: Run,
    d: Description,
    dealt: Dealt,
    fitted: Fitted,
    results: list[dict[str, Any]],
    known: Known | None,
) -> finish.Content:
    """What a data set holds; `results` are those of `finish.write_shards`."""
    no_history = sum(one["no_history"] for one in results)
    rejected = _write_rejected(run, d, [row for one in results for row in one["left_out"]])
    rejected |= {
        d.lookup(key).repeated: lines.repeated
        for key, lines in fitted.lines.items()
        if lines.repeated and d.lookup(key).table is None  # what happens twice is no fault
    }
    read = {d.target.file: dealt.seen.read}
    read |= {table.file: dealt.others[table.name].read for table in d.tables[1:]}
    own = {key: of for key, of in fitted.lines.items() if d.lookup(key).table is None}
    read |= {d.lookup(key).file: lines.read for key, lines in own.items()}
    synthetic = (d.target.path.parent / SYNTHETIC).exists()
    synthetic |= known is not None and known.made.synthetic
    shares = fitted.shares | _shares(
        d, dealt, fitted, Share(no_history, sum(one["targets"] for one in results))
    )
    published = [] if synthetic else d.published(read, fitted.words)
    return finish.Content(
        d=d,
        split=dealt.split,
        synthetic=synthetic,
        words=fitted.words,
        stored=fitted.stored,
        bins=fitted.bins,
        rejected=rejected,
        counts=_counts(d, dealt, no_history, fitted.shares) | _of_known(d, fitted, known),
        shares=shares,
        numbers=fitted.scales,
        notes=[
            *_notes(d, dealt, fitted),
            *_strange(run, d, dealt, fitted, shares),
            *_begin(d, dealt),
            *published,
        ],
        missing=_missing(d, dealt),
        first_rows=_first_rows(d, dealt),
        kept=_kept(run, d, dealt) if d.keeps else None,
        continues=None
        if known is None
        else manifest.Continues(
            known.made.config["key"],
            pc.sum(known.words[USER]["count"]).as_py() or 0,
            bool(d.target.asked),
        ),
    )


def _begin(d: Description, dealt: Dealt) -> list[str]:
    """With which row new files begin."""
    target, rows = d.target, dealt.seen.first_rows
    names = names_of(target.paths)[target.earlier :]
    told = [
        f"the first record of {name} is row {row:,}" for name, row in zip(names, rows, strict=True)
    ]
    if not d.continues:
        return []
    found = [f"Rows go on from the kept {target.name}: {', '.join(told)}."]
    if target.asked:
        asked = ", ".join(names[-target.asked :])
        found.append(f"Targets are those of {asked}, which stand in no history.")
    return found


def _of_known(d: Description, fitted: Fitted, known: Known | None) -> dict[str, int]:
    """What is counted of new events alone: users who had none, and events that came late."""
    if known is None:
        return {}
    late = {manifest.late(table.name): fitted.found.late[table.name] for table in d.tables}
    return {manifest.NEW_USERS: len(fitted.words[USER]) - len(known.words[USER])} | late


def _kept(run: Run, d: Description, dealt: Dealt) -> manifest.Kept:
    """What is kept of events, and the text of their description."""
    rows = {table.name: dealt.others.get(table.name, dealt.seen).rows for table in d.tables}
    for one in run.config.queries().values():  # it numbers its rows itself
        kind, _, name = one.name.partition(".")
        if kind == "tables" and name in rows:
            paths = sorted((run.config.out / "events").glob(f"{name}-*.parquet"))
            files = pl.scan_parquet(paths, glob=False)
            rows[name] = 1 + int(files.select(pl.max("row")).collect().item() or 0)
    description = run.config.keeps
    sha256 = None if description is None else hashlib.sha256(description.encode()).hexdigest()
    columns = {table.name: getattr(table.reader, "seen", {}) for table in d.tables}
    if d.continues is not None and (before := manifest.load(d.continues).kept) is not None:
        columns = before.columns
    return manifest.Kept(rows, dealt.since, sha256, columns)


def _missing(d: Description, dealt: Dealt) -> frozenset[str]:
    """Columns that an event has no value in; of tables but the targets', those that it may lack."""
    found = {name for name, of in dealt.counts.of.items() if of["value"].null_count()}
    return frozenset(found.union(*(table.fields for table in d.tables[1:])) - {USER})


def _first_rows(d: Description, dealt: Dealt) -> dict[Path, int]:
    """By file, the row of its first line in the table; of several tables in the first of them."""
    found: dict[Path, int] = {}
    for table in d.tables:
        seen = dealt.others.get(table.name, dealt.seen)
        for path, row in zip(table.paths[table.earlier :], seen.first_rows, strict=True):
            found.setdefault(path, row)
    return found


def _write_rejected(run: Run, d: Description, left_out: list[int]) -> dict[str, int]:
    """Write what was refused, a table each; returns how often each reason occurs."""
    of_lookups = {
        one.file: spilled_pieces(bucket_path(run.work / refused.kind(one.file), 0))
        for one in d.lookups
        if one.path is not None and one.table is None
    }
    of_tables = {
        t.file: run.engine.gather(refused.kind(t.file), partial(refused.place, names_of(t.paths)))
        for t in d.tables
    }
    targets = []
    if d.negatives is not None:
        reason = [TOUCHED_EVERYTHING.format(d.negatives.field)] * len(left_out)
        targets = [pa.table({"row": pa.array(sorted(left_out), pa.int64()), "reason": reason})]
    return finish.write_rejected(run.config.out, {**of_lookups, **of_tables, "targets": targets})


def _counts(
    d: Description, dealt: Dealt, no_history: int, shares: dict[str, Share]
) -> dict[str, int]:
    target, seen = d.target.name, dealt.seen
    found = {f"{target} read": seen.read}
    for name, of in dealt.others.items():
        found |= {
            f"{name} read": of.read,
            f"{name} kept": of.kept,
            manifest.left_out(name, bool(d.said)): of.left_out,
        }
    if seen.unasked or (dealt.others and not d.said):
        found[f"{target} of users outside the sample"] = seen.unasked
    if seen.left_out > seen.unasked:
        found[manifest.left_out(target, bool(d.said))] = seen.left_out - seen.unasked
    if (empty := _without_history(d)) is not None:
        found[empty] = no_history
    joins = [f"{name} of users without {target}" for name in dealt.others]
    joins += [one.without for one in d.lookups if one.all_lines and one.refuse is None]
    return found | {name: shares[name].count for name in joins}


def _without_history(d: Description) -> str | None:
    """What the share of targets is called that have nothing in any history."""
    tables = [one.table for one in d.histories.values() if one.by_time]
    return manifest.without_history(d.target.name, tables)


def _shares(d: Description, dealt: Dealt, fitted: Fitted, no_history: Share) -> dict[str, Share]:
    target, seen, counts = d.target, dealt.seen, dealt.counts
    ordered, shown = fitted.found, fitted.found.shown
    found = {manifest.repeated(target.name, d.target.drop): Share(counts.repeated, seen.kept)}
    if target.label:
        once = seen.kept - counts.repeated
        found[f"{target.name} both clicked and not"] = Share(counts.contradicting, once)
    for name, of in dealt.others.items():
        dropped = d.table(name).drop
        repeated = of.kept - ordered.kept[name] if dropped else ordered.repeated[name]
        found[manifest.repeated(name, dropped)] = Share(repeated, of.kept)
    if (empty := _without_history(d)) is not None:
        found[empty] = no_history
    if d.only_new:
        before = Share(shown.touched, shown.may)
        found[manifest.touched_before(target.name)] = before
    if d.k_core:
        once = seen.kept - (counts.repeated if d.target.drop else 0)
        found[manifest.outside_core(target.name)] = Share(counts.cut, once)
    if d.min_history:
        short = Share(shown.short, shown.long)
        found[manifest.short_history(target.name, d.min_history)] = short
    counted = seen.kept - (counts.repeated if d.target.drop else 0) - counts.cut
    found |= {name: Share(n, counted) for name, n in counts.lacking.items()}
    for key, lines in fitted.lines.items():
        lookup, first, keys = d.lookup(key), lines.first, lines.first.height
        if not lookup.all_lines:
            known = pl.Series(fitted.words[key]["value"])
            first = first.filter(pl.col(key).is_in(known.implode()))
            keys = first.height if lookup.timed else len(known)
        if lines.unlike:
            by = " and ".join(lookup.by)
            name = f"{lookup.lines} that differ from the first one of their {by}"
            found[name] = Share(lines.unlike, lines.kept)
        for name in lookup.numbers:
            scale, values = d.numbers[name], first[name].fill_null(np.nan).to_numpy()
            there = np.isfinite(values)
            lost, missing = there & ~numbers.usable(values, scale), np.count_nonzero(~there)
            found[lookup.lacks.format(name)] = Share(int(missing), keys)
            if scale != "standard":
                what = manifest.out_of_scale(lookup.lines, name, scale)
                found[what] = Share(int(np.count_nonzero(lost)), first.height)
        for name in lookup.lists:
            none = int((first[name].list.len() == 0).sum())
            found[lookup.lacks.format(name)] = Share(none, keys)
    return found


def _notes(d: Description, dealt: Dealt, fitted: Fitted) -> list[str]:
    notes = []
    if not d.labelled:
        notes.append(
            "The new targets' files have no labels: `predict` scores them, `evaluate` cannot."
        )
    split, zone = dealt.split, ZoneInfo(d.timezone)
    if isinstance(split, ByTime):
        valid, test, since = (
            moment(at, zone, d.unit) for at in (split.valid, split.test, dealt.since)
        )
        begin = f"Valid begins at {valid}, test" if split.valid < split.test else "Test begins"
        names = "".join(f"; {name} count from {since} on" for name in dealt.others if dealt.since)
        notes.append(f"{begin} at {test}{names}; {d.timezone}.")
    none = [n for n, of in dealt.others.items() if not (of.kept or d.table(n).earlier)]
    if none:
        empty = [name for name, one in d.histories.items() if one.table in none]
        what = (
            f"the history {' and '.join(empty)} is"
            if len(empty) == 1
            else f"{' and '.join(empty)} are"
        )
        what = "every history is" if len(empty) == len(d.histories) else what
        notes.append(f"None of the {' and '.join(none)} counts, so {what} empty.")
        if strangers := sum(dealt.others[name].of_nobody for name in none):
            notes[-1] += (
                f" {strangers:,} are of users without {d.target.name}: look at the columns of "
                "users, and at how they are spelt."
            )
    notes += [
        f"No {name} of a train row is known: each is 0 there, a plain "
        f"{how['of'].split()[-1]} in other splits."
        for name, how in fitted.scales.items()
        if not how.get("train_rows", 1)
    ]
    return notes


def _lost(d: Description, dealt: Dealt, fitted: Fitted, shares: dict[str, Share]) -> list[str]:
    """What is nowhere to be found, of lookups and of behaviours."""

    def all_of(what: str) -> int:
        share = shares.get(what, Share(0, 0))
        return share.of if share.count == share.of else 0

    found = []
    for one in d.lookups:
        if most := all_of(one.without):
            found.append(
                f"{one.without}: all {most:,}, so what is looked up by {one.key} is unknown. Look "
                "at how both files spell it, and whether they belong together."
            )
            continue
        lacks = {name: one.lacks.format(name) for name in one.fields if len(fitted.words[name])}
        found += [f"{what}: all {most:,}." for what in lacks.values() if (most := all_of(what))]
    return found + [
        f"{manifest.without(table, column)}: all {dealt.others[table].kept:,}."
        for table, column in fitted.blank
        if d.continues is None
    ]


def _strange(
    run: Run, d: Description, dealt: Dealt, fitted: Fitted, shares: dict[str, Share]
) -> list[str]:
    """What a log is seldom meant to be: of a file that is given twice, or of broken times."""
    alike: dict[str, list[str]] = {}
    for one in run.identity().inputs:
        if one.bytes > _BYTES_OF_A_HEADER:
            alike.setdefault(one.sha256, []).append(one.file)
    found = [
        f"Warning: {' and '.join(names)} hold the same bytes, so what they say counts {len(names)} "
        "times."
        for names in alike.values()
        if len(names) > 1
    ]
    without = shares.get(_without_history(d) or "", Share(0, 0))
    some = any(of.kept for of in dealt.others.values())  # else it is told already
    if some and d.continues is None and without.count == without.of > 0:
        found.append(
            f"Warning: nothing stands before any of the {d.target.name}, so every history is "
            "empty. Look at the times and the users of both."
        )
    found += [
        f"Warning: no {name} of the {table} is one that a target may have, so no behaviour is like "
        "its target. Look at how both spell it."
        for table, name in fitted.strangers
        if d.continues is None
    ]
    found += [f"Warning: {one}" for one in _lost(d, dealt, fitted, shares)]
    for table in d.tables:
        of, zone = dealt.others.get(table.name, dealt.seen), ZoneInfo(d.timezone)
        repeated = shares[manifest.repeated(table.name, table.drop)]
        if repeated.count and 2 * repeated.count >= repeated.of and not table.drop:
            do = '`--duplicates drop` (`duplicates = "drop"`) keeps one of each.'
            if d.continues is not None:  # new events are made as their data set was
                do = "Leave those out."
            found.append(
                f"Warning: half of the {table.name} or more repeat another one. Were files given "
                f"twice? {do}"
            )
        if of.kept and of.last - of.first > _LONG_S * UNITS[d.unit]:
            first, last = moment(of.first, zone, d.unit), moment(of.last, zone, d.unit)
            found.append(
                f"Warning: times of {table.name} go from {first} to {last}. If some are 0, or of "
                "another unit, leave those events out."
            )
    return found
