"""The paper's figures of correlation and intervals, as CSV, Markdown, PNG and SVG.

Figures need matplotlib (`pip install 'tinprep[plot]'`), which is loaded when one is drawn.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from schemas.errors import ContractError
from schemas.manifest import NAME
from schemas.plain import for_markdown, for_spreadsheet
from trainer.atomic import filling
from trainer.correlation import CorrelationMap, correlate
from trainer.data import Shards
from trainer.drawing import cell, draw_intervals, draw_maps, duration, require_matplotlib, scale_of
from trainer.outputs import put, put_text, require_own
from trainer.provenance import title_of
from trainer.shard_sql import query

# The endings of a figure's files.
FIGURE = (".csv", ".md", ".png", ".svg")


@dataclass(frozen=True)
class Shown:
    """Which cells of a correlation to show; see `correlate` for each.

    Attributes:
        category: the targets'; None for the one with most positives.
        top: categories of behaviours.
        positions: the last position.
        by: `position` or `interval`.
        released: as in the released script.
    """

    category: str | None = None
    top: int = 5
    positions: int = 10
    by: str = "position"
    released: bool = False


def truth_of(
    data: Path | str,
    shown: Shown,
    *,
    everything: Path | None = None,
    memory_mb: int = 1024,
    threads: int | None = None,
) -> CorrelationMap:
    """The CTC of these cells; see `correlate`."""
    return correlate(
        data,
        shown.category,
        top=shown.top,
        positions=shown.positions,
        by=shown.by,
        released=shown.released,
        everything=everything,
        memory_mb=memory_mb,
        threads=threads,
    )


def fig1(
    out: Path | str,
    to: Path | str,
    shown: Shown | None = None,
    *,
    name: str = "fig1",
    everything: bool = True,
    memory_mb: int = 1024,
    threads: int | None = None,
) -> CorrelationMap:
    """Write the CTC of one target category (Fig. 1a), and of all of them as `ctc.parquet`.

    Args:
        out: folder of the data set.
        to: folder for `<name>.csv`, `.md`, `.png`, `.svg` and `ctc.parquet`; made if absent.
        shown: which cells.
        name: of the files.
        everything: whether to write `ctc.parquet`.
        memory_mb: as in `correlate`.
        threads: as in `correlate`.

    Raises:
        TinprepError: as `correlate`; UsageError where matplotlib is not installed, or where files
            of others are in the way.
    """
    require_matplotlib()
    folder = Path(to)
    names = [f"{name}{ending}" for ending in FIGURE] + ["ctc.parquet"] * everything
    require_own(folder / one for one in names)
    with filling(folder):
        found = truth_of(
            out,
            shown or Shown(),
            everything=folder / "ctc.parquet" if everything else None,
            memory_mb=memory_mb,
            threads=threads,
        )
        write_maps([found], folder / name, [_title(found)])
    return found


def fig4(
    out: Path | str,
    to: Path | str,
    *,
    name: str = "fig4",
    memory_mb: int = 1024,
    threads: int | None = None,
) -> dict[int, int]:
    """Write the distribution of intervals in train, with the bins' edges (Fig. 4).

    Args:
        out: folder of the data set.
        to: folder for `<name>.csv` (by octave), `.md` (by bin), `.png` and `.svg`.
        name: of the files.
        memory_mb: what DuckDB may take before it goes to disk.
        threads: of DuckDB; None for all cores.

    Returns:
        Behaviours by octave of seconds; -1 is 0 seconds.

    Raises:
        InputError: there is no such data set, or a shard is missing or damaged.
        ContractError: shards and manifest count other behaviours, or none.
        UsageError: matplotlib is not installed.
    """
    require_matplotlib()
    folder, shards = Path(to), Shards(out)
    columns = "target_time, history_length, history_time"
    table = query(
        "correlation/intervals", shards, ("train",), columns, memory_mb=memory_mb, threads=threads
    ).to_pydict()
    counts = dict(zip(table["octave"], table["behaviours"], strict=True))
    bins = shards.manifest.bins
    total = sum(counts.values())
    if total != sum(bins.train_counts) or not total:
        raise ContractError(
            "The train shards hold another number of behaviours than the manifest's bins.",
            where=shards.out / NAME,
            expected=f"{sum(bins.train_counts):,} behaviours, more than 0",
            got=f"{total:,}",
            do="make the data set again",
        )
    bounds = [(0, 0) if k < 0 else (2**k, 2 ** (k + 1) - 1) for k in counts]
    rows = [
        (a, b, n, f"{n / total:.6f}") for (a, b), n in zip(bounds, counts.values(), strict=True)
    ]
    edges = ["-", *(duration(e) for e in bins.edges_s), "-"]
    lines = [
        (k + 1, edges[k], edges[k + 1], f"{n:,}", f"{n / total:.1%}")
        for k, n in enumerate(bins.train_counts)
    ]
    head = ("bin", "more than", "up to", "behaviours", "share")
    with filling(folder):
        _write_csv(folder / f"{name}.csv", ("from_s", "to_s", "behaviours", "share"), rows)
        put_text(folder / f"{name}.md", markdown(head, lines))
        draw_intervals(counts, bins.edges_s, title_of(shards), folder / name)
    return counts


def write_maps(
    maps: Sequence[CorrelationMap],
    stem: Path,
    titles: Sequence[str],
    raw: Sequence[CorrelationMap] | None = None,
) -> None:
    """Write maps as `stem`.csv, .md, .png and .svg.

    Args:
        maps: as drawn, all of one unit, which share one colour scale.
        stem: the files' path without its ending.
        titles: one a map.
        raw: the maps as measured, for the CSV and the tables; `maps` by default.
    """
    raw = maps if raw is None else raw
    head = ("map", "target_category", "category", "by", "place", "value", "unit", "share_of_range",
            "targets", "present", "present_positives")  # fmt: skip
    rows, texts = [], []
    for title, m in zip(titles, raw, strict=True):
        share = m.normalised().values
        for r, category in enumerate(m.rows):
            for p, place in enumerate(m.places):
                counts = ["" if a is None else int(a[r, p]) for a in (m.counts, m.positives)]
                rows.append(
                    (m.name, m.category, category, m.by, place, _exact(m.values[r, p]), m.unit,
                     _exact(share[r, p]), m.targets, *counts)
                )  # fmt: skip
        factor, unit = scale_of([m])
        against = m.against()
        lines = [
            (
                f"**{name}**" if r == m.own else name,
                *map(partial(cell, factor=factor), m.values[r], against[r]),
            )
            for r, name in enumerate(m.rows)
        ]
        table = markdown((f"{m.by}, {unit}", *map(str, m.places)), lines)
        texts.append(f"{title}\n\n{table}")
    _write_csv(stem.with_suffix(".csv"), head, rows)
    about = f"{maps[0].dataset}, {maps[0].targets:,} targets of {maps[0].category!r} (bold)."
    if maps[0].counts is not None:
        about += " ↓: such behaviours are rarer with positives than with negatives."
    put_text(stem.with_suffix(".md"), about + "\n\n" + "\n".join(texts))
    draw_maps(maps, titles, stem)


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [[for_markdown(str(x)) for x in line] for line in (head, *rows)]
    rule = ["---", *(["---:"] * (len(head) - 1))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _title(m: CorrelationMap) -> str:
    return f"{m.name}: what a behaviour tells of the label, by category and {m.by}"


def _exact(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    def write(unfinished: Path) -> None:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [for_spreadsheet(x) if isinstance(x, str) else x for x in line]
                for line in (head, *rows)
            )

    put(path, write)
