"""Drawing by matplotlib, which is loaded here and only when something is drawn.

A figure is 1200 px wide as PNG, and an SVG of the same. Nothing outlives a drawing: no pyplot.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import UsageError
from trainer.correlation import CorrelationMap
from trainer.outputs import put

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_UNITS = (("y", 31_557_600), ("d", 86_400), ("h", 3_600), ("min", 60))
_TICKS_S = (1, 60, 3_600, 86_400, 7 * 86_400, 30 * 86_400, 31_557_600, 10 * 31_557_600)
_DPI, _WIDE = 120, 10.0
# Even steps of lightness, so it also prints: light is little.
_COLOURS = "YlGnBu"
_NOTHING = "#d9d9d9"
_LONGEST_NAME = 24
# Green, blue and red, as in the paper's Figure 5; told apart in grey too.
_LINE_COLOURS = ("#2ca25f", "#08519c", "#de2d26")


def require_matplotlib() -> ModuleType:
    """Load matplotlib.

    Raises:
        UsageError: it is not installed.
    """
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


def duration(seconds: float) -> str:
    """Seconds in the largest unit that holds one, e.g. 950400 as '11 d'."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


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
    """Draw maps of one unit, on one colour scale, as `stem`.png and `stem`.svg.

    Args:
        maps: one or more, of the same cells.
        titles: one a map.
        stem: the files' path without its ending.
    """
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
        image = _heat_map(axes.flat[i], m, title, factor, high, small=across > 1)
    for spare in axes.flat[len(maps) :]:
        spare.set_visible(False)
    for i, axis in enumerate(axes.flat[: len(maps)]):
        if i % across:
            axis.set_yticklabels([])
        else:
            axis.set_ylabel("behaviour's category")
    figure.supxlabel(_place_label(maps[0]), fontsize=10)
    label = "share of each map's range" if unit == "share of range" else unit
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.set_label("mutual information, " + label if "bits" in unit else label)
    first = maps[0]
    about = f"{first.dataset}: {first.targets:,} targets of category {_short(first.category)}"
    if first.counts is not None:
        about += "\n↓: such behaviours are rarer with positives than with negatives"
    figure.suptitle(about, fontsize=11)
    _save(figure, stem)


def _heat_map(
    axes: Axes, m: CorrelationMap, title: str, factor: float, high: float, *, small: bool
) -> AxesImage:
    matplotlib = require_matplotlib()
    colours = matplotlib.colormaps[_COLOURS].with_extremes(bad=_NOTHING)
    image = axes.imshow(m.values * factor, cmap=colours, vmin=0.0, vmax=high, aspect="auto")
    size = (7.5 if small else 10) * min(1.0, 10 / len(m.places))
    against = m.against()
    for r, row in enumerate(m.values.tolist()):
        for p, value in enumerate(row):
            colour = "white" if value * factor > 0.55 * high else "#1a1a1a"
            text = cell(value, bool(against[r, p]), factor=factor)
            axes.text(p, r, text, ha="center", va="center", fontsize=size, color=colour)
    axes.set_title(title, fontsize=10 if small else 11, loc="left")
    axes.set_yticks(range(len(m.rows)), [_short(name) for name in m.rows], fontsize=9)
    axes.get_yticklabels()[m.own].set_fontweight("bold")
    labels = _place_ticks(m)
    axes.set_xticks(range(len(m.places)), labels, fontsize=9)
    if m.by == "interval":
        axes.tick_params(axis="x", rotation=30)
    axes.set_xticks(np.arange(len(m.places) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(m.rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return image


def _place_label(m: CorrelationMap) -> str:
    if m.by == "position":
        return "target-relative position (1 = newest behaviour)"
    return "interval bin: time from behaviour to target"


def _place_ticks(m: CorrelationMap) -> list[str]:
    if m.by == "position":
        return [str(p) for p in m.places]
    upper = [f"to {duration(e)}" for e in m.edges_s]
    return [*upper, f"over {duration(m.edges_s[-1])}" if m.edges_s else "any"]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def draw_intervals(
    counts: dict[int, int], edges_s: Sequence[int], dataset: str, stem: Path
) -> None:
    """Draw behaviours by octave of seconds, with the bins' edges, as `stem`.png and `stem`.svg.

    Args:
        counts: behaviours by octave; -1 is 0 seconds.
        edges_s: the bins' edges, seconds.
        dataset: its name.
        stem: the files' path without its ending.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDE, 5.0), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    total = sum(counts.values())
    timed = [k for k in counts if k >= 0]
    low, high = (min(timed), max(timed) + 1) if timed else (0, 1)
    zero = low - 1.5
    # Bars of octaves stand on a logarithmic axis; 0 seconds has a place of its own before it.
    at = [zero if k < 0 else k for k in counts]
    shares = [100 * n / total for n in counts.values()]
    axes.bar(at, shares, width=1.0, align="edge", color="#41b6c4", edgecolor="white")
    ticks = [(math.log2(s), duration(s)) for s in _TICKS_S if low <= math.log2(s) <= high]
    if -1 in counts:
        ticks.insert(0, (zero + 0.5, "0 s"))
    axes.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
    left = zero if -1 in counts else low
    axes.set_xlim(left - 0.25, high + 0.25)
    top = max(shares)
    axes.set_ylim(0, top * 1.3)
    # An edge of 0 seconds lies behind the bar of 0 seconds.
    places = [math.log2(e) if e >= 1 else zero + 1.25 for e in edges_s]
    for x in sorted(set(places)):
        axes.axvline(x, color="#08306b", linewidth=1, linestyle="--")
    for x, edge in sorted(set(zip(places, edges_s, strict=True))):
        # Upright, so that edges which stand close can still be read.
        axes.text(x, top * 1.18, duration(edge), ha="center", va="center", rotation=90,
                  fontsize=9, color="#08306b",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    axes.set_xlabel("interval: time from behaviour to target (logarithmic; a bar is an octave)")
    axes.set_ylabel("share of behaviours in train, %")
    bins = f"{len(edges_s) + 1} equal-frequency bins (dashed: their upper edges)"
    axes.set_title(f"{dataset}: {total:,} behaviours, {bins}", fontsize=11, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, stem)


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Attributes:
        name: in the legend.
        at: which of the plot's ticks each point stands at.
        values: of the points.
        errors: half the height of each error bar; None for none.
        marker: matplotlib's; "*" for a single point.
    """

    name: str
    at: tuple[int, ...]
    values: tuple[float, ...]
    errors: tuple[float | None, ...]
    marker: str = "o"


def draw_lines(
    lines: Sequence[Line], ticks: Sequence[str], labels: tuple[str, str], title: str, stem: Path
) -> None:
    """Draw lines with error bars over evenly spaced ticks, as `stem`.png and `stem`.svg.

    Args:
        lines: what to draw.
        ticks: the text of each tick on the horizontal axis.
        labels: of the horizontal and the vertical axis.
        title: one line.
        stem: the files' path without its ending.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDE, 5.0), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for line, colour in zip(lines, _LINE_COLOURS, strict=False):
        single = len(line.at) == 1
        axes.errorbar(
            line.at,
            line.values,
            yerr=[error or 0.0 for error in line.errors],
            label=line.name,
            color=colour,
            marker=line.marker,
            markersize=14 if single else 7,
            linestyle="none" if single else "-",
            linewidth=1.8,
            capsize=4,
        )
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlim(-0.4, len(ticks) - 0.6)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(axis="y", color="#e0e0e0")
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=11, loc="left")
    axes.legend(frameon=False, fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, stem)


def _save(figure: Figure, stem: Path) -> None:
    """Write both files. The same drawing gives the same bytes: no date, no random ids."""
    matplotlib = require_matplotlib()
    with matplotlib.rc_context({"svg.hashsalt": "tinprep"}), saving():
        put(stem.with_suffix(".png"), lambda p: figure.savefig(p, format="png"))
        no_date = {"Date": None}
        put(stem.with_suffix(".svg"), lambda p: figure.savefig(p, format="svg", metadata=no_date))
