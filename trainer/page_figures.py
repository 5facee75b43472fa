"""The report's figures, drawn narrow enough for a phone.

A figure gives its `<svg>`; titles and captions are the page's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainer.correlation import CorrelationMap
from trainer.drawing import cell, duration, require_matplotlib, scale_of
from trainer.page_runs import Line
from trainer.page_svg import FAINT, INK, MARK, SERIES, canvas, inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS_S = (60, 3_600, 86_400, 30 * 86_400, 31_557_600, 10 * 31_557_600)
_COLOURS, _NOTHING = "YlGnBu", "#c8c8c8"
_DARK_TEXT, _LIGHT_TEXT = "#10202c", "#ffffff"
_DASHES = ("-", "--", "-.", ":")


def short(name: str, longest: int = 44) -> str:
    """A name cut to fit."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def lengths(counts: Mapping[str, Sequence[int]], name: str) -> str:
    """Share of rows by history length, a line a split.

    Args:
        counts: split -> rows of length 0, 1, ..., L.
        name: of the figure.
    """
    with canvas(210) as figure:
        axes = figure.subplots()
        for i, (split, rows) in enumerate(counts.items()):
            share = 100 * np.array(rows) / max(1, sum(rows))
            axes.step(np.arange(len(rows)), share, where="mid", color=SERIES[i],
                      linestyle=_DASHES[i], label=split)  # fmt: skip
        axes.set_xlabel("history length, behaviours (the longest are cut)")
        axes.set_ylabel("share of rows, %")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.legend()
        return inline(figure, name, "Line chart: share of rows by history length, for each split.")


def intervals(octaves: Mapping[int, int], edges_s: Sequence[int], name: str) -> str:
    """Behaviours of train by octave of the interval, and the bins' edges.

    Args:
        octaves: behaviours by octave of seconds; -1 is 0 seconds.
        edges_s: the edges, seconds.
        name: of the figure.
    """
    total = sum(octaves.values())
    timed = [k for k in octaves if k >= 0]
    low, high = (min(timed), max(timed) + 1) if timed else (0, 1)
    # 0 seconds has a place of its own before the logarithmic axis.
    zero = low - 1.5
    with canvas(240) as figure:
        axes = figure.subplots()
        at = [k if k >= 0 else zero for k in octaves]
        shares = [100 * n / total for n in octaves.values()]
        axes.bar(at, shares, width=0.92, align="edge", color=SERIES[0])
        edges = sorted({math.log2(e) if e >= 1 else zero + 1.2 for e in edges_s})
        for i, x in enumerate(edges):
            axes.axvline(x, color=MARK, linewidth=1, linestyle="--",
                         label="edges of the bins" if not i else None)  # fmt: skip
        ticks = [(math.log2(s), duration(s)) for s in _TICKS_S if low <= math.log2(s) <= high]
        if -1 in octaves:
            ticks.insert(0, (zero + 0.5, "0 s"))
        axes.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
        axes.set_xlabel("time from behaviour to target (log scale)")
        axes.set_ylabel("share of behaviours, %")
        axes.set_ylim(0, max(shares) * 1.22)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        if edges:
            _legend_below(axes)
        label = "Bar chart: share of behaviours by the time to their target, with the bins' edges."
        return inline(figure, name, label)


def popularity(counts: NDArray[np.integer], what: str, name: str) -> str:
    """Occurrences by rank, both logarithmic.

    Args:
        counts: occurrences of each, in any order.
        what: what is counted, e.g. `item`.
        name: of the figure.
    """
    ordered = np.sort(counts)[::-1]
    ordered = ordered[ordered > 0]
    # A few hundred points draw the same line.
    rank = np.unique(np.geomspace(1, max(1, len(ordered)), 400).round().astype(np.int64))
    rank = rank[rank <= len(ordered)]
    require_matplotlib()
    from matplotlib.ticker import NullFormatter

    with canvas(210) as figure:
        axes = figure.subplots()
        axes.loglog(rank, ordered[rank - 1], color=SERIES[0], linewidth=2)
        for side in (axes.xaxis, axes.yaxis):
            # The usual labels, powers of ten, are formulas.
            side.set_major_formatter("{x:,.0f}")
            side.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"rank of the {what}, most frequent first (log scale)")
        axes.set_ylabel("occurrences (log scale)")
        axes.grid()
        label = f"Line chart: occurrences of each {what} by rank, both on logarithmic scales."
        return inline(figure, name, label)


def bars(
    names: Sequence[str],
    values: Sequence[float],
    texts: Sequence[str],
    axis: str,
    name: str,
    *,
    errors: Sequence[float] | None = None,
    low: float = 0.0,
    high: float | None = None,
) -> str:
    """Horizontal bars, each under its name.

    Args:
        names: one a bar.
        values: their lengths.
        texts: what stands at the end of each.
        axis: the axis' label, with its unit.
        name: of the figure.
        errors: half the length of each error bar; 0 for none.
        low: where the axis begins.
        high: where it ends; after the longest bar by default.
    """
    ends = [v + e for v, e in zip(values, errors or [0.0] * len(values), strict=True)]
    top = high if high is not None else max(ends, default=1.0) * 1.02 or 1.0
    with canvas(44 + 31 * len(names)) as figure:
        axes = figure.subplots()
        at = np.arange(len(names))
        axes.barh(at, np.array(values) - low, left=low, height=0.38, color=SERIES[0])
        for y, value, error in zip(at, values, errors or (), strict=False):
            if error:
                axes.errorbar(value, y, xerr=error, color=INK, capsize=3, linewidth=1.2)
        for y, text, said in zip(at, texts, names, strict=True):
            axes.text(low, y - 0.26, short(said), va="bottom")
            axes.text(top, y - 0.26, text, va="bottom", ha="right")
        axes.set_xlim(low, top)
        axes.set_ylim(len(names) - 0.6, -0.75)
        axes.set_yticks([])
        axes.set_xlabel(axis)
        axes.locator_params(axis="x", nbins=5)
        axes.spines["left"].set_visible(False)
        each = "; ".join(f"{n}: {t}" for n, t in zip(names, texts, strict=True))
        return inline(figure, name, f"Bar chart: {axis}. {each}.")


def heat_map(m: CorrelationMap, high: float, name: str, *, unit: str, factor: float = 1.0) -> str:
    """A correlation map: a row of cells under the name of each behaviours' category.

    Args:
        m: the map.
        high: the value of the darkest colour, after `factor`.
        name: of the figure.
        unit: of the values, after `factor`.
        factor: what the values are multiplied by.
    """
    matplotlib = require_matplotlib()
    values, against = m.values * factor, m.against()
    with canvas(48 + 43 * len(m.rows)) as figure:
        axes = figure.subplots()
        colours = matplotlib.colormaps[_COLOURS].with_extremes(bad=_NOTHING)
        edges = np.arange(len(m.places) + 1) - 0.5
        for r, category in enumerate(m.rows):
            band = np.ma.masked_invalid(values[r : r + 1])
            drawn = axes.pcolormesh(edges, [r, r + 0.56], band, cmap=colours, vmin=0.0, vmax=high,
                                    edgecolors=FAINT, linewidth=0.6)  # fmt: skip
            own = r == m.own
            text = short(category) + (" (the target's own)" if own else "")
            weight = "bold" if own else "normal"
            axes.text(-0.5, r - 0.06, text, va="bottom", fontweight=weight)
            for p, value in enumerate(values[r].tolist()):
                colour = _LIGHT_TEXT if math.isfinite(value) and value > 0.5 * high else _DARK_TEXT
                axes.text(p, r + 0.28, cell(value, bool(against[r, p])), ha="center", va="center",
                          fontsize=9.5, color=colour)  # fmt: skip
        axes.set_ylim(len(m.rows) - 0.38, -0.48)
        axes.set_yticks([])
        axes.set_xticks(range(len(m.places)), [str(p) for p in m.places])
        axes.set_xlabel("target-relative position (1: the newest behaviour)")
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.05, aspect=45,
                              pad=0.02)  # fmt: skip
        bar.set_label(unit)
        bar.outline.set_visible(False)
        label = f"Heat map of {m.name}: {unit}, by the behaviour's category and position."
        return inline(figure, name, f"{label} Its values are in the table below it.")


def curves(lines: Sequence[Line], measure: str, axis: str, name: str) -> str:
    """Training curves: a colour a line of runs, a stroke a seed.

    Args:
        lines: whose runs have logs.
        measure: an attribute of `Curve`.
        axis: its name and unit.
        name: of the figure.
    """
    with canvas(232 + 14 * len(lines)) as figure:
        axes = figure.subplots()
        for i, line in enumerate(lines):
            colour, dash = SERIES[i % len(SERIES)], _DASHES[(i // len(SERIES)) % len(_DASHES)]
            for k, run in enumerate(line.runs):
                axes.plot(run.curve.epochs, getattr(run.curve, measure), color=colour,
                          linestyle=dash, linewidth=1.6, marker=".", markersize=5,
                          label=short(line.name) if not k else None)  # fmt: skip
        axes.set_xlabel("epochs: passes over train")
        axes.set_ylabel(axis)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=6)
        axes.grid()
        _legend_below(axes)
        return inline(figure, name, f"Line chart: {axis} in the course of each training.")


def _legend_below(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.figure
    figure.legend(handles, labels, loc="outside lower left", ncols=1)


def results(lines: Sequence[Line], split: str, measure: str, axis: str, name: str) -> str:
    """The lines' means of a measure as bars, with the standard deviation over seeds.

    Args:
        lines: all with that measure.
        split: whose rows.
        measure: one of `MEASURES`, of which 0.5 is chance.
        axis: its name.
        name: of the figure.
    """
    found = [line.mean(split, measure) for line in lines]
    pairs = [pair for pair in found if pair is not None]
    texts = [with_spread(pair) for pair in pairs]
    low = min(0.5, math.floor(10 * min(mean for mean, _ in pairs)) / 10)
    errors = [spread or 0.0 for _, spread in pairs]
    top = max(mean + (spread or 0.0) for mean, spread in pairs)
    return bars(
        [line.name for line in lines], [mean for mean, _ in pairs], texts, axis, name,
        errors=errors, low=low, high=low + ((top - low) * 1.05 or 0.1),
    )  # fmt: skip


def with_spread(pair: tuple[float, float | None] | None) -> str:
    """A mean with its standard deviation, where there is one."""
    if pair is None:
        return "-"
    mean, spread = pair
    return f"{mean:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def scale(m: CorrelationMap) -> tuple[float, float, str]:
    """Factor, darkest value and unit of a map of its own scale."""
    factor, unit = scale_of([m])
    high = m.ends()[1] * factor
    return factor, high or 1.0, unit
