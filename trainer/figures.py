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

from schemas.errors import ContractError, UsageError
from schemas.manifest import NAME
from trainer.correlation import CorrelationMap, correlate, pearson
from trainer.data import Shards
from trainer.drawing import cell, draw_intervals, draw_maps, duration, require_matplotlib, scale_of
from trainer.evaluation import data_of
from trainer.learned_correlation import learned_like
from trainer.runs import atomically
from trainer.shard_sql import query


@dataclass(frozen=True)
class Learned:
    """A run's learned map beside the truth (a line of the paper's Table 2).

    Attributes:
        run: its folder.
        map: what it learned.
        pearson: with the CTC, on the row of the targets' own category; None where undefined.
    """

    run: Path
    map: CorrelationMap
    pearson: float | None


def fig1(
    out: Path | str,
    to: Path | str,
    category: str | None = None,
    *,
    top: int = 5,
    positions: int = 10,
    by: str = "position",
    released: bool = False,
    memory_mb: int = 1024,
    threads: int | None = None,
) -> CorrelationMap:
    """Write the CTC of one target category (Fig. 1a), and of all of them as `ctc.parquet`.

    Args:
        out: folder of the data set.
        to: folder for `fig1.csv`, `.md`, `.png`, `.svg` and `ctc.parquet`; made if absent.
        category: the targets' category; see `correlate` for this and the others.
        top: as in `correlate`.
        positions: as in `correlate`.
        by: as in `correlate`.
        released: as in `correlate`.
        memory_mb: as in `correlate`.
        threads: as in `correlate`.

    Raises:
        TinprepError: as `correlate`; UsageError where matplotlib is not installed.
    """
    require_matplotlib()
    folder = _folder(to)
    found = correlate(
        out,
        category,
        top=top,
        positions=positions,
        by=by,
        released=released,
        everything=folder / "ctc.parquet",
        memory_mb=memory_mb,
        threads=threads,
    )
    write_maps([found], folder / "fig1", [_title(found)])
    return found


def fig3(
    runs: Sequence[Path | str],
    to: Path | str,
    category: str | None = None,
    *,
    data: Path | str | None = None,
    top: int = 5,
    positions: int = 10,
    by: str = "position",
) -> list[Learned]:
    """Write the maps that runs learned beside the CTC (Figs. 1b-d and 3) and Table 2's Pearson.

    Every map is moved to 0..1 over itself, as their units differ, and all share one colour scale.

    Args:
        runs: folders of runs on one data set.
        to: folder for `fig3.csv`, `.md`, `.png`, `.svg`, `table2.csv` and `table2.md`.
        category: as in `correlate`, as are the others.
        data: folder of the data set; the one that the first run was trained on by default.
        top: as in `correlate`.
        positions: as in `correlate`.
        by: as in `correlate`.

    Raises:
        TinprepError: as `correlate` and `learned_like`; UsageError where matplotlib is not
            installed, or no run is given.
    """
    if not runs:
        raise UsageError("There is no run to measure.", expected="folders of finished runs")
    require_matplotlib()
    folder = _folder(to)
    out = Path(data) if data is not None else data_of(Path(runs[0]))
    truth = correlate(out, category, top=top, positions=positions, by=by)
    lines = []
    for run in runs:
        found = learned_like(truth, run, data=out)
        lines.append(Learned(Path(run), found, pearson(truth, found)))
    maps = [m.normalised() for m in (truth, *(line.map for line in lines))]
    titles = [truth.name, *(f"{line.map.name}: Pearson {_figure(line.pearson)}" for line in lines)]
    write_maps(maps, folder / "fig3", titles, raw=[truth, *(line.map for line in lines)])
    table = [(line.run.name, line.map.name, _figure(line.pearson)) for line in lines]
    head = ("run", "model", "pearson")
    _write_csv(folder / "table2.csv", head, table)
    note = (
        f"Pearson correlation of the learned map with the CTC on the row of {truth.category!r}, "
        f"the targets' own category; {truth.dataset}, by {truth.by}. `-`: the learned row is the "
        "same at all places, so there is no correlation.\n\n"
    )
    _write_text(folder / "table2.md", note + markdown(head, table))
    return lines


def fig4(
    out: Path | str, to: Path | str, *, memory_mb: int = 1024, threads: int | None = None
) -> dict[int, int]:
    """Write the distribution of intervals in train, with the bins' edges (Fig. 4).

    Args:
        out: folder of the data set.
        to: folder for `fig4.csv` (by octave), `.md` (by bin), `.png` and `.svg`.
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
    folder, shards = _folder(to), Shards(out)
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
    _write_csv(folder / "fig4.csv", ("from_s", "to_s", "behaviours", "share"), rows)
    edges = ["-", *(duration(e) for e in bins.edges_s), "-"]
    lines = [
        (k + 1, edges[k], edges[k + 1], f"{n:,}", f"{n / total:.1%}")
        for k, n in enumerate(bins.train_counts)
    ]
    head = ("bin", "more than", "up to", "behaviours", "share")
    _write_text(folder / "fig4.md", markdown(head, lines))
    name = shards.manifest.dataset + (" (synthetic data)" if shards.manifest.synthetic else "")
    draw_intervals(counts, bins.edges_s, name, folder / "fig4")
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
    _write_text(stem.with_suffix(".md"), about + "\n\n" + "\n".join(texts))
    draw_maps(maps, titles, stem)


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [[_escaped(x) for x in line] for line in (head, *rows)]
    rule = ["---", *(["---:"] * (len(head) - 1))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _escaped(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _title(m: CorrelationMap) -> str:
    return f"{m.name}: what a behaviour tells of the label, by category and {m.by}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _exact(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""


def _folder(to: Path | str) -> Path:
    folder = Path(to)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            "The folder for the figures cannot be made.",
            where=folder,
            expected="a folder, or nothing yet",
            got=str(error),
        ) from None
    return folder


def _write_text(path: Path, text: str) -> None:
    atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    def write(unfinished: Path) -> None:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([head, *rows])

    atomically(path, write)
