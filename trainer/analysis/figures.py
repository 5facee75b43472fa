"""The paper's figures, as CSV, Markdown, PNG and SVG.

They need matplotlib (`pip install 'tinprep[plot]'`), which is loaded when one is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from schemas.errors import ContractError
from schemas.manifest import NAME
from schemas.plain import duration, printable
from schemas.shards import UNITS
from trainer.analysis.correlation import CorrelationMap, correlate
from trainer.analysis.plots import (
    cell,
    draw_intervals,
    draw_lines,
    draw_maps,
    require_matplotlib,
    scale_of,
)
from trainer.analysis.shard_sql import query
from trainer.analysis.tables import Table, for_terminal, markdown, put_csv, title_of
from trainer.data.shards import Shards
from trainer.files import filling, put_text, require_own

FIGURE = (".csv", ".md", ".png", ".svg")
"""The endings of a figure's files."""
BINS = ("bin", "more than", "up to", "behaviours", "share")
"""The columns of `bin_rows`."""


@dataclass(frozen=True)
class Shown:
    """Which cells of a correlation to show; see `correlate` for each.

    Attributes:
        category: the targets'; None for the one with most positives.
        by: `position` or `interval`.
        history: of a data set with several the one whose behaviours count.
    """

    category: str | None = None
    top: int = 5
    positions: int = 10
    by: str = "position"
    released: bool = False
    history: str | None = None


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
        to: folder for `<name>.csv`, `.md`, `.png`, `.svg` and `ctc.parquet`; made if absent.
        everything: whether to write `ctc.parquet`.
        memory_mb: as in `correlate`.
        threads: as in `correlate`.

    Raises:
        TinprepError: as `correlate`; UsageError where matplotlib is not installed, or where files
            of others are in the way.
    """
    require_matplotlib()
    folder = Path(to)
    every = folder / "ctc.parquet" if everything else None
    names = [folder / f"{name}{ending}" for ending in FIGURE]
    require_own([*names, *filter(None, [every])])
    with filling(folder):
        options = vars(shown or Shown())
        found = correlate(out, **options, everything=every, memory_mb=memory_mb, threads=threads)
        what = f"what a behaviour tells of the label, by {found.field} and {found.by}"
        title = f"{found.name}: {what}"
        write_maps([found], folder / name, [title])
    return found


def intervals_of(shards: Shards, memory_mb: int = 1024) -> dict[int, int]:
    """Behaviours of train by octave of whole seconds to their target; -1 is 0 seconds."""
    table = query(
        "correlation/intervals",
        shards,
        ("train",),
        "target_time, history_length, history_time",
        memory_mb=memory_mb,
        in_a_second=UNITS[shards.facts.time_unit],
    )
    return dict(zip(*(table[c].to_pylist() for c in ("octave", "behaviours")), strict=True))


def edges_of(shards: Shards) -> tuple[float, ...]:
    """The edges of the interval bins in seconds."""
    return tuple(map(shards.facts.seconds, shards.facts.history.bins.edges_s))


def bin_rows(shards: Shards) -> list[tuple[str, ...]]:
    """The interval bins as rows of `BINS`."""
    bins = shards.facts.history.bins
    edges = ["-", *map(duration, edges_of(shards)), "-"]
    total = max(1, sum(bins.train_counts))
    return [
        (str(k + 1), edges[k], edges[k + 1], f"{n:,}", f"{n / total:.1%}")
        for k, n in enumerate(bins.train_counts)
    ]


def fig4(out: Path | str, to: Path | str, *, name: str = "fig4") -> dict[int, int]:
    """Write the distribution of intervals in train, with the bins' edges (Fig. 4).

    Args:
        to: folder for `<name>.csv` (by octave), `.md` (by bin), `.png` and `.svg`.

    Returns:
        As `intervals_of`.

    Raises:
        TinprepError: as `fig1`; ContractError where shards and manifest count other behaviours.
    """
    require_matplotlib()
    folder, shards = Path(to), Shards(out)
    counts, bins = intervals_of(shards), shards.facts.history.bins
    total = sum(counts.values())
    if total != sum(bins.train_counts) or not total:
        raise ContractError(
            "The train shards hold another number of behaviours than the manifest's bins.",
            where=shards.out / NAME,
            expected=f"{sum(bins.train_counts):,} behaviours, more than 0",
            got=f"{total:,}",
            do="make the data set again",
        )
    rows = [
        (*((0, 0) if k < 0 else (2**k, 2 ** (k + 1) - 1)), n, f"{n / total:.6f}")
        for k, n in counts.items()
    ]
    with filling(folder):
        put_csv(folder / f"{name}.csv", ("from_s", "to_s", "behaviours", "share"), rows)
        put_text(folder / f"{name}.md", markdown(BINS, bin_rows(shards)))
        draw_intervals(counts, edges_of(shards), title_of(shards), folder / name)
    return counts


def draw_fig5(table: Table, to: Path) -> list[Path]:
    """Draw `paper_tables.fig5`, for each data set as `fig5-<data>` PNG and SVG in a folder.

    Returns:
        Their paths without the endings.
    """
    stems = []
    for data, group in groupby(table.rows, key=lambda row: row["data"]):
        rows: list[dict[str, Any]] = list(group)
        widths = sorted({row[row["varied"]] for row in rows})
        kept = max(row["representation"] for row in rows if row["varied"] == "attention")

        def points(varied: str, zero: bool = False) -> list[tuple[int, float, float]]:
            return [
                (widths.index(row[varied]), row["gauc"], row["gauc_sd"] or 0.0)  # noqa: B023
                for row in rows  # noqa: B023
                if row["varied"] == varied and (row[varied] == 0) == zero and row["gauc"]
            ]

        lines = {
            f"attention's width varied, representation's {kept}": points("attention"),
            f"representation's width varied, attention's {kept}": points("representation"),
            "no attention": points("attention", zero=True),
        }
        said = " (synthetic data)" if rows[0]["synthetic"] else ""
        title = f"{rows[0]['dataset']}{said}: DIN with two embedding spaces (Eq. 6)"
        labels = "width of the embeddings, all fields together", "GAUC on test (bar: sd over seeds)"
        ticks = ["0 (none)" if width == 0 else str(width) for width in widths]
        stems.append(to / f"fig5-{data}")
        with filling(to):
            draw_lines(lines, ticks, labels, title, stems[-1])
    return stems


def write_maps(
    maps: Sequence[CorrelationMap],
    stem: Path,
    titles: Sequence[str],
    raw: Sequence[CorrelationMap] | None = None,
) -> None:
    """Write maps of one unit as `stem`.csv, .md, .png and .svg.

    `raw` are the maps as measured, for the CSV and the tables; as they are drawn by default.
    """
    raw = maps if raw is None else raw
    names = ("map", "target_category", "category", "by", "place", "value", "unit", "share_of_range",
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
        head, lines = cells_of(m)
        lines[m.own][0] = f"**{lines[m.own][0]}**"
        texts.append(f"{title}\n\n{markdown(head, lines)}")
    put_csv(stem.with_suffix(".csv"), names, rows)
    put_text(stem.with_suffix(".md"), f"{_about(maps[0], ' (bold)')}\n\n" + "\n".join(texts))
    draw_maps(maps, titles, stem)


def cells_of(m: CorrelationMap) -> tuple[list[str], list[list[str]]]:
    """A map as the head and the rows of a table."""
    factor, unit = scale_of([m])
    values, against = m.values.tolist(), m.against().tolist()
    rows = [
        [name, *map(partial(cell, factor=factor), line, down)]
        for name, line, down in zip(m.rows, values, against, strict=True)
    ]
    return [f"{m.by}, {unit}", *map(str, m.places)], rows


def shown_map(m: CorrelationMap) -> Group:
    """A map for a terminal."""
    (what, *places), rows = cells_of(m)
    title = f"what a behaviour tells of the label, by {m.field} and {what}"
    table = for_terminal(title, (m.field, *places), rows)
    return Group(table, Text(printable(_about(m))))


def _about(m: CorrelationMap, own: str = "") -> str:
    """Which targets a map is of; `own` says how their category's row is shown."""
    about = f"{m.dataset}, {m.targets:,} targets of {m.category!r}{own}."
    if m.counts is not None:
        about += " ↓: such behaviours are rarer with positives than with negatives."
    return about


def _exact(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""
