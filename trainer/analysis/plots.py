"""Drawing by matplotlib, which is loaded here and only when something is drawn.

A figure is 1200 px wide as PNG, and an SVG of the same. Nothing outlives a drawing: no pyplot.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import UsageError
from schemas.plain import duration
from trainer.analysis.correlation import CorrelationMap
from trainer.files import put

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

_TICKS_S = (60, 3_600, 86_400, 30 * 86_400, 31_557_600, 10 * 31_557_600)
_DPI, _WIDE = 120, 10.0
# Even steps of lightness, so it also prints: light is little.
_COLOURS = "YlGnBu"
_NOTHING = "#c8c8c8"
# Green, blue and red, as in the paper's Figure 5; told apart in grey too.
_LINE_COLOURS = ("#2ca25f", "#08519c", "#de2d26")


def require_matplotlib() -> ModuleType:
    """Load matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError(
            "Figures need matplotlib.",
            expected="the package matplotlib",
            got="not installed",
            do="pip install 'tinprep[plot]'",
        ) from None
    return matplotlib


@contextmanager
def saving() -> Iterator[None]:
    """Save figures without matplotlib's warnings of scripts that its font lacks.

    An SVG's viewer has other fonts; in a PNG boxes stand for them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def scale_of(maps: Sequence[CorrelationMap]) -> tuple[float, str]:
    """What to multiply the maps' values by for short figures in cells, and the unit then."""
    unit = maps[0].unit
    if unit == "bits":  # of a label, so at most 1
        return 1e3, "10⁻³ bits"
    return 1.0, unit


def cell(value: float, against: bool = False, *, factor: float = 1.0) -> str:
    """A map's value as the text of a cell; an arrow where the behaviour speaks against."""
    if not math.isfinite(value):
        return "-"
    scaled = value * factor
    if scaled >= 1e6:
        return f"{scaled:.1e}"
    digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:.{digits}f}{'↓' if against else ''}"


def draw_maps(maps: Sequence[CorrelationMap], titles: Sequence[str], stem: Path) -> None:
    """Draw maps of the same cells and one unit, on one colour scale, as `stem`.png and .svg."""
    require_matplotlib()
    from matplotlib.figure import Figure

    factor, unit = scale_of(maps)
    across = 1 if len(maps) == 1 else 2
    down = math.ceil(len(maps) / across)
    panel = (0.95 if across == 1 else 0.8) + 0.42 * len(maps[0].rows)
    figure = Figure(figsize=(_WIDE, 1.3 + down * panel), dpi=_DPI, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    high = max(m.ends()[1] for m in maps) * factor or 1.0
    for i, (m, title) in enumerate(zip(maps, titles, strict=True)):
        axis, size = axes.flat[i], 10 if across == 1 else 7.5
        image = heat_map(axis, m, factor, high, size=size * min(1.0, 10 / len(m.places)))
        axis.set_title(title, fontsize=11 if across == 1 else 10, loc="left")
        axis.set_yticks(np.arange(len(m.rows)) + 0.5, [short(n) for n in m.rows], fontsize=9)
        axis.get_yticklabels()[m.own].set_fontweight("bold")
        axis.set_ylim(len(m.rows), 0)
    for spare in axes.flat[len(maps) :]:
        spare.set_visible(False)
    for i, axis in enumerate(axes.flat[: len(maps)]):
        if i % across:
            axis.set_yticklabels([])
        else:
            axis.set_ylabel(f"behaviour's {m.field}")
    figure.supxlabel(place_label(maps[0]), fontsize=10)
    label = "share of each map's range" if unit == "share of range" else unit
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.set_label("mutual information, " + label if "bits" in unit else label)
    first = maps[0]
    about = f"{first.dataset}: {first.targets:,} targets of {first.field} {short(first.category)}"
    if first.counts is not None:
        about += "\n↓: such behaviours are rarer with positives than with negatives"
    figure.suptitle(about, fontsize=11)
    _save(figure, stem)


def heat_map(
    axes: Axes,
    m: CorrelationMap,
    factor: float,
    high: float,
    *,
    size: float,
    height: float = 1.0,
    line: str = "white",
) -> QuadMesh:
    """Draw a map's cells with their values, row r from r down to r + `height`.

    Args:
        axes: where.
        m: the map.
        factor: what its values are multiplied by.
        high: the value of the darkest colour, after that.
        size: of the figures in the cells, points.
        height: of a row.
        line: the colour between cells.

    Returns:
        What a colour bar is made of.
    """
    matplotlib = require_matplotlib()
    colours = matplotlib.colormaps[_COLOURS].with_extremes(bad=_NOTHING)
    values, against = np.ma.masked_invalid(m.values * factor), m.against()
    ends = np.arange(len(m.places) + 1) - 0.5
    for r in range(len(m.rows)):
        image: QuadMesh = axes.pcolormesh(
            ends, [r, r + height], values[r : r + 1], cmap=colours, vmin=0.0, vmax=high,
            edgecolors=line, linewidth=1,
        )  # fmt: skip
        for p, value in enumerate(m.values[r].tolist()):
            dark = math.isfinite(value) and value * factor > 0.55 * high
            text = cell(value, bool(against[r, p]), factor=factor)
            axes.text(p, r + height / 2, text, ha="center", va="center", fontsize=size,
                      color="white" if dark else "#10202c")  # fmt: skip
    axes.set_xticks(range(len(m.places)), _place_ticks(m))
    axes.tick_params(length=0)
    if m.by == "interval":
        axes.tick_params(axis="x", rotation=30)
    axes.spines[:].set_visible(False)
    return image


def place_label(m: CorrelationMap) -> str:
    """What a map's columns are."""
    if m.by == "position":
        return "target-relative position (1: the newest behaviour)"
    return "interval bin: time from behaviour to target"


def _place_ticks(m: CorrelationMap) -> list[str]:
    if m.by == "position":
        return [str(p) for p in m.places]
    upper = [f"to {duration(e)}" for e in m.edges_s]
    return [*upper, f"over {duration(m.edges_s[-1])}" if m.edges_s else "any"]


def short(name: str, longest: int = 24) -> str:
    """A name cut to fit."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def interval_bars(
    axes: Axes, counts: Mapping[int, int], edges_s: Sequence[float], *, fill: str, mark: str
) -> list[tuple[float, float]]:
    """Draw behaviours by octave of seconds, with the bins' edges; give each edge's place.

    -1 is 0 seconds, which has a place of its own. `fill` colours the bars, `mark` the edges.
    """
    total = sum(counts.values())
    timed = [k for k in counts if k >= 0]
    low, high = (min(timed), max(timed) + 1) if timed else (0, 1)
    zero = low - 1.5  # before the logarithmic axis
    shares = [100 * n / total for n in counts.values()]
    axes.bar([k if k >= 0 else zero for k in counts], shares, width=0.97, align="edge", color=fill)
    ticks = [(math.log2(s), duration(s)) for s in _TICKS_S if low <= math.log2(s) <= high]
    if -1 in counts:
        ticks.insert(0, (zero + 0.5, "0 s"))
    axes.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
    axes.set_ylim(0, max(shares) * 1.3)
    # An edge of 0 seconds lies behind the bar of 0 seconds.
    places = [math.log2(e) if e >= 1 else zero + 1.25 for e in edges_s]
    for i, x in enumerate(sorted(set(places))):
        axes.axvline(x, color=mark, linewidth=1, linestyle="--",
                     label=None if i else "edges of the bins")  # fmt: skip
    axes.set_xlabel("time from behaviour to target (log scale; a bar is an octave)")
    return sorted(set(zip(places, edges_s, strict=True)))


def draw_intervals(
    counts: dict[int, int], edges_s: Sequence[float], dataset: str, stem: Path
) -> None:
    """Draw behaviours by octave of seconds, with the bins' edges, as `stem`.png and .svg."""
    figure, axes = _plot()
    edges = interval_bars(axes, counts, edges_s, fill="#41b6c4", mark="#08306b")
    for x, edge in edges:
        # Upright, so that edges which stand close can still be read.
        axes.text(x, axes.get_ylim()[1] * 0.91, duration(edge), ha="center", va="center",
                  rotation=90, fontsize=9, color="#08306b",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    axes.set_ylabel("share of behaviours in train, %")
    bins = f"{len(edges_s) + 1} equal-frequency bins (dashed: their upper edges)"
    axes.set_title(
        f"{dataset}: {sum(counts.values()):,} behaviours, {bins}", fontsize=11, loc="left"
    )
    _save(figure, stem)


def draw_lines(
    lines: Mapping[str, Sequence[tuple[int, float, float]]],
    ticks: Sequence[str],
    labels: tuple[str, str],
    title: str,
    stem: Path,
) -> None:
    """Draw lines with error bars over evenly spaced ticks, as `stem`.png and .svg.

    Args:
        lines: name -> points: which tick, value, half the height of the error bar. A single point
            is a star.
        ticks: the text of each tick.
        labels: of the horizontal and the vertical axis.
        title: one line.
        stem: the files' path without its ending.
    """
    figure, axes = _plot()
    for (name, points), colour in zip(lines.items(), _LINE_COLOURS, strict=True):
        at, values, errors = zip(*points, strict=True) if points else ((), (), ())
        single = len(at) == 1
        axes.errorbar(
            at, values, yerr=errors, label=name, color=colour, linewidth=1.8, capsize=4,
            marker="*" if single else "o", markersize=14 if single else 7,
            linestyle="none" if single else "-",
        )  # fmt: skip
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlim(-0.4, len(ticks) - 0.6)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(axis="y", color="#e0e0e0")
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=11, loc="left")
    axes.legend(frameon=False, fontsize=10)
    _save(figure, stem)


def _plot() -> tuple[Figure, Axes]:
    """An empty plot."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDE, 5.0), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, stem: Path) -> None:
    """Write both files. The same drawing gives the same bytes: no date, no random ids."""
    matplotlib = require_matplotlib()
    with matplotlib.rc_context({"svg.hashsalt": "tinprep"}), saving():
        put(stem.with_suffix(".png"), lambda p: figure.savefig(p, format="png"))
        no_date = {"Date": None}
        put(stem.with_suffix(".svg"), lambda p: figure.savefig(p, format="svg", metadata=no_date))
