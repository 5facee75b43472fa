"""Category-wise target-aware correlation (CTC): what a behaviour tells of the label, in bits.

A place is a target-relative position (1 is the newest behaviour) or an interval bin.

Legend: R categories of behaviours shown, P places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas import vocabulary
from schemas.errors import UsageError
from schemas.manifest import SPLITS, UNKNOWN_ID
from schemas.plain import printable
from trainer.analysis.shard_sql import query
from trainer.analysis.tables import title_of
from trainer.data.batches import HISTORY
from trainer.data.shards import Shards
from trainer.files import put

PLACES = {"position": f"{HISTORY}position", "interval": f"{HISTORY}interval_bin"}
UNKNOWN = "(unknown)"
# The released script's stand-in for a count of 0.
RELEASED_MISSING = 1e-5
# Relative differences up to this are rounding: float32 models fill the maps that are compared.
_CONSTANT = 1e-5

Cells = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class CorrelationMap:
    """Correlation with the label of behaviours of some categories, for targets of one category.

    Names are as they may be shown, see `schemas.plain`.

    Attributes:
        name: `CTC`, or the model.
        dataset: the manifest's name of the data set.
        category: the targets' category.
        rows: the behaviours' categories, R.
        ids: their ids, R.
        own: which row is the targets' category.
        by: a key of `PLACES`.
        places: P.
        values: R x P; NaN where there is nothing to measure.
        unit: of `values`.
        counts: targets with such a behaviour, R x P; None for what is learned.
        positives: the positive ones of them, R x P. Information has no sign: these tell whether
            the behaviour speaks for the target or against it.
        targets: how many targets of the category there are.
        label_rate: the share of positives among them.
        edges_s: the edges of the interval bins, seconds.
        field: whose values the categories are.
    """

    name: str
    dataset: str
    category: str
    rows: tuple[str, ...]
    ids: tuple[int, ...]
    own: int
    by: str
    places: tuple[int, ...]
    values: Cells
    unit: str
    counts: Counts | None
    positives: Counts | None
    targets: int
    label_rate: float | None
    edges_s: tuple[float, ...]
    field: str = "category"

    def against(self) -> NDArray[np.bool_]:
        """Where such a behaviour makes a positive label rarer, R x P; nowhere where unknown."""
        if self.counts is None or self.positives is None or self.label_rate is None:
            return np.zeros(self.values.shape, np.bool_)
        return self.positives < self.label_rate * self.counts

    def ends(self) -> tuple[float, float]:
        """The least and the largest value; 0 and 0 where there is none."""
        there = self.values[np.isfinite(self.values)]
        return (float(there.min()), float(there.max())) if there.size else (0.0, 0.0)

    def normalised(self) -> CorrelationMap:
        """The same map with its values moved to 0..1 (least to largest); 0 where all are equal."""
        low, high = self.ends()
        span = high - low
        flat = not span > _CONSTANT * abs(high)
        values = self.values - (self.values if flat else low)
        return replace(self, values=values / (1.0 if flat else span), unit="share of range")


def group_field(shards: Shards) -> str:
    """The field whose values are the categories.

    Raises:
        UsageError: the data set names none.
    """
    if shards.facts.group_field is None:
        raise UsageError(
            "The data set has no categories to correlate.",
            where=shards.out,
            expected="a `group_field`, one of the fields of both targets and behaviours",
            got=f"none among {', '.join(shards.manifest.fields)}",
            do="name one in the description, under [train], and prepare the data set again",
        )
    return shards.facts.group_field


def _names(shards: Shards, field: str) -> dict[int, str]:
    """A field's values by id, unknown included."""
    table = vocabulary.read(shards.out / "vocabulary" / f"{field}.parquet").to_pydict()
    named = {i: str(v) for i, v in zip(table["id"], table["value"], strict=True)}
    return {UNKNOWN_ID: UNKNOWN, **named}


def correlate(
    out: Path | str,
    category: str | None = None,
    *,
    top: int = 5,
    positions: int = 10,
    by: str = "position",
    released: bool = False,
    history: str | None = None,
    everything: Path | None = None,
    memory_mb: int = 1024,
    threads: int | None = None,
) -> CorrelationMap:
    """Measure the category-wise target-aware correlation (CTC; paper, 2.1, Eq. 1).

    Over the train targets of one category, a cell is the mutual information between "at least one
    behaviour of category c stands at place p" and the label. A category at several positions is
    an event at each of them; several times in one interval bin, it is one event. A history too
    short for a position has no such event there, and counts. 0 log 0 is 0: a behaviour that never
    occurs has 0 bits.

    Args:
        category: the targets' category; None for the one with the most positive targets.
        top: how many categories of behaviours: those that stand at these places most often, the
            targets' own always among them. The paper does not say how its five were chosen.
        positions: the last position. Interval bins are shown all.
        by: `position` or `interval`.
        released: as in the released script: counts over all splits together, 1e-5 for a count of
            0, and values moved to 0..1 over the map.
        history: of a data set with several the one whose behaviours count.
        everything: also write the cells of all target categories to this Parquet file.
        memory_mb: what DuckDB may take before it goes to disk.
        threads: of DuckDB; None for all cores.

    Raises:
        UsageError: no such category, or no targets of it; an argument out of range.
        InputError: there is no such data set, or a shard is missing or damaged.
        EnvironmentFault: memory or disk do not suffice.
    """
    for option, got, holds, expected in (
        ("--top", top, top >= 1, "1 or more"),
        ("--positions", positions, positions >= 1, "1 or more"),
        ("--by", by, by in PLACES, f"one of {', '.join(PLACES)}"),
    ):
        if not holds:
            what = "The correlation cannot be measured like this."
            raise UsageError(what, where=option, expected=expected, got=str(got))
    shards = Shards(out, history=history)
    field = group_field(shards)
    names = _names(shards, field)
    if {*names} == {UNKNOWN_ID}:
        raise UsageError(
            "The data set has no categories to correlate.",
            where=shards.out,
            expected=f"values of {field}",
            got="unknown ones alone",
            do=f"look at what the data set's notes say of {field}, and prepare it again",
        )
    last = (
        min(positions, shards.facts.history.max_len)
        if by == "position"
        else shards.facts.history.bins.count
    )
    splits = tuple(s for s in SPLITS if s in shards.splits) if released else ("train",)
    shards.schema(splits[0])  # a data set without such a split is told here
    ask = partial(query, shards=shards, splits=splits, memory_mb=memory_mb, threads=threads)
    of_target = f"target_{field} as target_category, label"
    targets = ask("correlation/targets", columns=of_target).to_pylist()  # most positives first
    chosen = [t for t in targets if category in (None, names.get(t["target_category"]))][:1]
    if not chosen:
        known = (t["target_category"] for t in targets[:5])
        raise UsageError(
            f"There are no targets of this category in {' and '.join(splits)}.",
            where="--category",
            expected="e.g. " + ", ".join(repr(names.get(i, str(i))) for i in known),
            got=repr(category),
        )
    target = int(chosen[0]["target_category"])
    cells = partial(
        ask,
        "correlation/ctc",
        columns=f"{of_target}, history_length, "
        f"{HISTORY}{field} as history_category, {PLACES[by]} as history_place",
        places=last,
        missing=RELEASED_MISSING if released else 0.0,
        repeats=by != "position",  # a position never holds two behaviours of a history
    )
    if everything is None:
        table = cells(where=f"target_{field} = {target}")
    else:
        put(everything, lambda unfinished: cells(to=unfinished))
        table = pq.read_table(everything, filters=[("target_category", "=", target)])
    ids, counts, positives, values = _most_frequent(table, target, last, top)
    found = CorrelationMap(
        name="CTC",
        dataset=title_of(shards),
        category=printable(names.get(target, str(target))),
        rows=tuple(printable(names.get(i, str(i))) for i in ids),
        ids=tuple(ids),
        own=ids.index(target),
        by=by,
        places=tuple(range(1, last + 1)),
        values=values,
        unit="bits",
        counts=counts,
        positives=positives,
        targets=int(chosen[0]["targets"]),
        label_rate=int(chosen[0]["positives"]) / int(chosen[0]["targets"]),
        edges_s=tuple(map(shards.facts.seconds, shards.facts.history.bins.edges_s)),
        field=printable(field),
    )
    return replace(found.normalised(), name="CTC, as released") if released else found


def _most_frequent(
    table: pa.Table, target: int, places: int, top: int
) -> tuple[list[int], Counts, Counts, Cells]:
    """The `top` most frequent categories, the target's among them: ids, and R x P of each cell.

    Args:
        table: the cells of all categories, which come R x P in order.
        places: P.
        top: R at most.
    """
    ids = table["category"].to_numpy()[::places]
    names = ("present", "present_positives", "bits")
    found = [table[name].to_numpy().reshape(-1, places) for name in names]
    if target not in ids:
        # Own category is never a behaviour: zeros keep the row that others are compared with.
        ids = np.append(ids, target)
        found = [np.vstack([a, np.zeros((1, places), a.dtype)]) for a in found]
    order = np.lexsort((ids, -found[0].sum(1)))
    first = order[:top]
    if target not in ids[first]:
        first = np.append(first[: top - 1], order[ids[order] == target])
    counts, positives, values = (a[first] for a in found)
    return [int(i) for i in ids[first]], counts, positives, values


def pearson(truth: CorrelationMap, other: CorrelationMap) -> float | None:
    """Pearson correlation of two maps on the row of the targets' own category (paper, Figs. 1, 3).

    None where it is undefined: a row does not vary, or fewer than two places are in both.
    """
    a, b = truth.values[truth.own], other.values[other.own]
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 2 or any(np.ptp(x) <= _CONSTANT * np.abs(x).max() for x in (a, b)):
        return None
    # By powers of two, which change no digit: squares of what e^z gives may be too large.
    a, b = (np.ldexp(x, -np.frexp(np.abs(x).max())[1]) for x in (a, b))
    return float(np.corrcoef(a, b)[0, 1])
