"""Every chart, drawn by matplotlib for a file or for a page, in the same colours and words.

A file is 1200 px wide as PNG, and an SVG of the same. In a page a chart is an `<svg>` narrow enough
for a phone; its colours are CSS variables, so one drawing serves light, dark and paper, and its
texts stay texts. Names from the data are never read as formulas. matplotlib is loaded when
something is drawn; nothing outlives a drawing: no pyplot.
"""

from __future__ import annotations

import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import product
from pathlib import Path
from textwrap import fill
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from schemas.plain import duration
from trainer.analysis.correlation import CorrelationMap
from trainer.files import put

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

_INK, _FAINT, _MARK = "#17202a", "#c9d1d9", "#b3261e"
_SERIES = (
    *("#1f77b4", "#c2570c", "#2c8a3d", "#8250c4"),
    *("#b3366b", "#0f8b8d", "#7a5c2e", "#5f6b76"),
)
COLOURS = {"ink": _INK, "line": _FAINT, "mark": _MARK} | {
    f"series-{i}": colour for i, colour in enumerate(_SERIES)
}
"""The colours on white, by their CSS variables; no colour map holds one of them."""
_VARIABLES = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
_COLOUR = re.compile("|".join(_VARIABLES))
# Red speaks against the target, blue for it; white is nothing.
_DIVERGING, _NOTHING = "RdBu", "#c8c8c8"
_AGAINST = "red, ↓: against the target"
# Each run of a style is told apart in grey, too.
_STYLES = [(colour, dash) for dash, colour in product(("-", "--", "-.", ":"), _SERIES)]
_TICKS_S = (60, 3_600, 86_400, 30 * 86_400, 31_557_600, 10 * 31_557_600)
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.hashsalt": "tinprep",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
}
# A phone shows about 350 CSS pixels: a unit of a page's drawing is one, and so is a point.
_WIDE, _POINTS = 350, 72
_PAGE = {
    "axes.facecolor": "none",
    "axes.labelsize": 10.5,
    "figure.facecolor": "none",
    "font.size": 10.5,
    "svg.fonttype": "none",
}
_LINK = re.compile(r"url\(#|^#")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_LONGEST = 44  # of a name on a page


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
def _styled(**more: Any) -> Iterator[None]:
    """Draw and save in our style.

    matplotlib's warnings of scripts that its font lacks are left out: an SVG's viewer has other
    fonts; in a PNG boxes stand for them.
    """
    with require_matplotlib().rc_context(_STYLE | more), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


@contextmanager
def _file(height: float, stem: Path) -> Iterator[Figure]:
    """An empty figure, `height` inches high, written as `stem`.png and .svg when it is drawn.

    The same drawing gives the same bytes: no date, no random ids.
    """
    with _styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10.0, height), dpi=120, layout="constrained")
        yield figure
        put(stem.with_suffix(".png"), lambda p: figure.savefig(p, format="png"))
        no_date = {"Date": None}
        put(stem.with_suffix(".svg"), lambda p: figure.savefig(p, format="svg", metadata=no_date))


@contextmanager
def _page(height: float) -> Iterator[Axes]:
    """The axes of an empty figure, `height` units high, for `_inline`."""
    with _styled(**_PAGE):
        from matplotlib.figure import Figure

        size = (_WIDE / _POINTS, height / _POINTS)
        yield Figure(figsize=size, layout="constrained").subplots()


def _inline(axes: Axes, name: str, label: str) -> str:
    """A figure as an `<svg>` element for HTML; call it inside `_page`.

    `name` is of the figure in the page: its ids begin so. `label` says what it shows, for those who
    do not see it.
    """
    buffer = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    _figure(axes).savefig(buffer, format="svg", metadata=nothing)
    root = ET.fromstring(buffer.getvalue())  # noqa: S314  matplotlib has just written it
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key in ("href", "style", "clip-path"):
                linked = _LINK.sub(lambda found: found[0] + f"{name}-", value)
                element.set(key, _COLOUR.sub(lambda found: _VARIABLES[found[0]], linked))
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib.update({"role": "img", "aria-label": label})
    return ET.tostring(root, encoding="unicode")


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def short(name: str, longest: int = 24) -> str:
    """A name cut to fit."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


# ---- correlation maps


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
    across = 1 if len(maps) == 1 else 2
    down = math.ceil(len(maps) / across)
    panel = (0.95 if across == 1 else 0.8) + 0.42 * len(maps[0].rows)
    high = max(m.ends()[1] for m in maps) * scale_of(maps)[0] or 1.0
    with _file(1.3 + down * panel, stem) as figure:
        axes = figure.subplots(down, across, squeeze=False)
        for i, (m, title) in enumerate(zip(maps, titles, strict=True)):
            axis, size = axes.flat[i], 10 if across == 1 else 7.5
            image = _cells(axis, m, high, size=size * min(1.0, 10 / len(m.places)))
            axis.set_title(title, fontsize=11 if across == 1 else 10)
            axis.set_yticks(np.arange(len(m.rows)) + 0.5, [short(n) for n in m.rows], fontsize=9)
            axis.get_yticklabels()[m.own].set_fontweight("bold")
            axis.set_ylim(len(m.rows), 0)
            if i % across:
                axis.set_yticklabels([])
            else:
                axis.set_ylabel(f"behaviour's {m.field}")
        for spare in axes.flat[len(maps) :]:
            spare.set_visible(False)
        figure.supxlabel(_place_label(maps[0]), fontsize=10)
        _colour_bar(image, list(axes.flat), maps, high, fraction=0.03, pad=0.01)
        m = maps[0]
        about = f"{m.dataset}: {m.targets:,} targets of {m.field} {short(m.category)}"
        if m.counts is not None:
            about += "\n↓: such behaviours are rarer with positives than with negatives"
        figure.suptitle(about, fontsize=11)


def heat_map(m: CorrelationMap, name: str) -> str:
    """A correlation map for a page: a row of cells under the name of each behaviours' category."""
    high = m.ends()[1] * scale_of([m])[0] or 1.0
    with _page(58 + 46 * len(m.rows)) as axes:
        image = _cells(axes, m, high, size=9.5, height=0.54)
        for r, category in enumerate(m.rows):
            own = r == m.own
            text = short(category, _LONGEST) + (" (the target's own)" if own else "")
            axes.text(-0.5, r - 0.05, text, va="bottom", fontweight="bold" if own else "normal")
        axes.set_ylim(len(m.rows) - 0.4, -0.46)
        axes.set_yticks([])
        axes.set_xlabel(_place_label(m))
        how = {"orientation": "horizontal", "fraction": 0.05, "aspect": 45, "pad": 0.02}
        said = _colour_bar(image, [axes], [m], high, **how)
        label = f"Heat map of {m.name}: {said}, by the behaviour's {m.field} and position."
        return _inline(axes, name, f"{label} Its values are in the table below it.")


def _cells(
    axes: Axes, m: CorrelationMap, high: float, *, size: float, height: float = 1.0
) -> QuadMesh:
    """Draw a map's cells with their values, row r from r down to r + `height`.

    Args:
        high: the value of the darkest colour, in the unit of `scale_of`.
        size: of the figures in the cells, points.

    Returns:
        What a colour bar is made of.
    """
    colours = require_matplotlib().colormaps[_DIVERGING].with_extremes(bad=_NOTHING)
    (factor, _), against = scale_of([m]), m.against()
    signed = np.ma.masked_invalid(np.where(against, -m.values, m.values) * factor)
    ends = np.arange(len(m.places) + 1) - 0.5
    for r in range(len(m.rows)):
        image: QuadMesh = axes.pcolormesh(
            ends, [r, r + height], signed[r : r + 1], cmap=colours, vmin=-high, vmax=high,
            edgecolors=_FAINT, linewidth=0.8,
        )  # fmt: skip
        for p, colour in enumerate(colours(0.5 + 0.5 * signed[r] / high)):
            dark = np.power(colour[:3], 2.2) @ (0.2126, 0.7152, 0.0722) < 0.2  # its luminance
            text = cell(m.values[r, p], bool(against[r, p]), factor=factor)
            axes.text(p, r + height / 2, text, ha="center", va="center", fontsize=size,
                      color="white" if dark else "#10202c")  # fmt: skip
    axes.set_xticks(range(len(m.places)), _place_ticks(m))
    axes.tick_params(length=0)
    if m.by == "interval":
        axes.tick_params(axis="x", rotation=30)
    axes.spines[:].set_visible(False)
    return image


def _colour_bar(
    image: QuadMesh, axes: list[Axes], maps: Sequence[CorrelationMap], high: float, **how: Any
) -> str:
    """Draw the scale of maps up to `high`, as far as they use it; give its label."""
    unit = scale_of(maps)[1]
    label = "share of each map's range" if unit == "share of range" else unit
    label = "mutual information, " + label if "bits" in unit else label
    signed = any(m.against().any() for m in maps)
    label += f" ({_AGAINST})" if signed else ""
    form = "{x:g}" if not signed else lambda value, _: f"{abs(value):g}"
    bar = _figure(axes[0]).colorbar(image, ax=axes, format=form, **how)
    if not signed:
        side = bar.ax.set_xlim if how.get("orientation") == "horizontal" else bar.ax.set_ylim
        side(0.0, high)
    bar.set_label(label, fontsize=9.5)
    bar.outline.set_visible(False)
    return label


def _place_label(m: CorrelationMap) -> str:
    """What a map's columns are."""
    if m.by == "position":
        return "target-relative position (1: the newest behaviour)"
    return "interval bin: time from behaviour to target"


def _place_ticks(m: CorrelationMap) -> list[str]:
    if m.by == "position":
        return [str(p) for p in m.places]
    upper = [f"to {duration(e)}" for e in m.edges_s]
    return [*upper, f"over {duration(m.edges_s[-1])}" if m.edges_s else "any"]


# ---- intervals


def draw_intervals(
    counts: dict[int, int], edges_s: Sequence[float], dataset: str, stem: Path
) -> None:
    """Draw behaviours by octave of seconds, with the bins' edges, as `stem`.png and .svg."""
    with _file(5.0, stem) as figure:
        axes = figure.subplots()
        for x, edge in _interval_bars(axes, counts, edges_s):
            # Upright, so that edges which stand close can still be read.
            axes.text(x, axes.get_ylim()[1] * 0.91, duration(edge), ha="center", va="center",
                      rotation=90, fontsize=9, color=_MARK,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        bins = f"{len(edges_s) + 1} equal-frequency bins (dashed: their upper edges)"
        axes.set_title(f"{dataset}: {sum(counts.values()):,} behaviours, {bins}")


def intervals(octaves: Mapping[int, int], edges_s: Sequence[float]) -> str:
    """The same for a page."""
    with _page(240) as axes:
        if _interval_bars(axes, octaves, edges_s):
            _legend_below(axes)
        label = "Bar chart: share of behaviours by the time to their target, with the bins' edges."
        return _inline(axes, "intervals", label)


def _interval_bars(
    axes: Axes, counts: Mapping[int, int], edges_s: Sequence[float]
) -> list[tuple[float, float]]:
    """Draw behaviours by octave of seconds, with the bins' edges; give each edge's place.

    -1 is 0 seconds, which has a place of its own.
    """
    total = sum(counts.values())
    timed = [k for k in counts if k >= 0]
    low, high = (min(timed), max(timed) + 1) if timed else (0, 1)
    zero = low - 1.5  # before the logarithmic axis
    shares = [100 * n / total for n in counts.values()]
    at = [k if k >= 0 else zero for k in counts]
    axes.bar(at, shares, width=0.97, align="edge", color=_SERIES[0])
    ticks = [(math.log2(s), duration(s)) for s in _TICKS_S if low <= math.log2(s) <= high]
    if -1 in counts:
        ticks.insert(0, (zero + 0.5, "0 s"))
    axes.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
    axes.set_ylim(0, max(shares) * 1.3)
    # An edge of 0 seconds lies behind the bar of 0 seconds.
    places = [math.log2(e) if e >= 1 else zero + 1.25 for e in edges_s]
    for i, x in enumerate(sorted(set(places))):
        axes.axvline(x, color=_MARK, linewidth=1, linestyle="--",
                     label=None if i else "edges of the bins")  # fmt: skip
    axes.set_xlabel("time from behaviour to target (log scale; a bar is an octave)")
    axes.set_ylabel("share of behaviours in train, %")
    axes.grid(axis="y")
    return sorted(set(zip(places, edges_s, strict=True)))


# ---- lines and bars


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
        labels: of the horizontal and the vertical axis.
    """
    with _file(5.0, stem) as figure:
        axes = figure.subplots()
        for (name, points), colour in zip(lines.items(), _SERIES, strict=False):
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
        axes.grid(axis="y")
        axes.set_title(title)
        axes.legend()


def lengths(counts: Mapping[str, Sequence[int]]) -> str:
    """Share of rows by history length: a line a split, of its rows of length 0, 1, ..., L."""
    with _page(210) as axes:
        for (split, rows), i in zip(counts.items(), range(4), strict=False):
            share = 100 * np.array(rows) / max(1, sum(rows))
            axes.step(np.arange(len(rows)), share, where="mid", color=_SERIES[i],
                      linestyle=("-", "--", "-.", ":")[i], label=split)  # fmt: skip
        axes.set_xlabel("history length, behaviours (the longest are cut)")
        axes.set_ylabel("share of rows, %")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.legend()
        label = "Line chart: share of rows by history length, for each split."
        return _inline(axes, "lengths", label)


def popularity(counts: NDArray[np.integer], what: str) -> str:
    """Occurrences by rank, both logarithmic; `what` is what is counted, e.g. `item`."""
    ordered = np.sort(counts[counts > 0])[::-1]
    # A few hundred points draw the same line.
    rank = np.unique(np.geomspace(1, max(1, len(ordered)), 400).round().astype(np.int64))
    rank = rank[rank <= len(ordered)]
    with _page(210) as axes:
        from matplotlib.ticker import NullFormatter

        axes.loglog(rank, ordered[rank - 1], color=_SERIES[0], linewidth=2)
        for side in (axes.xaxis, axes.yaxis):
            # The usual labels, powers of ten, are formulas.
            side.set_major_formatter("{x:,.0f}")
            side.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"rank of the {what}, most frequent first (log scale)")
        axes.set_ylabel("occurrences (log scale)")
        axes.grid()
        label = f"Line chart: occurrences of each {what} by rank, both on logarithmic scales."
        return _inline(axes, "popularity", label)


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
        texts: what stands at the end of each.
        axis: the axis' label, with its unit.
        errors: half the length of each error bar; 0 for none.
        low: where the axis begins.
        high: where it ends; after the longest bar by default.
    """
    top = high if high is not None else max(values, default=1.0) * 1.02 or 1.0
    with _page(44 + 31 * len(names)) as axes:
        at = np.arange(len(names))
        axes.barh(at, np.array(values) - low, left=low, height=0.38, color=_SERIES[0])
        for y, value, error in zip(at, values, errors or (), strict=False):
            if error:
                axes.errorbar(value, y, xerr=error, color=_INK, capsize=3, linewidth=1.2)
        for y, text, said in zip(at, texts, names, strict=True):
            axes.text(low, y - 0.24, short(said, _LONGEST), va="bottom")
            axes.text(top, y - 0.24, text, va="bottom", ha="right")
        axes.set_xlim(low, top)
        axes.set_ylim(len(names) - 0.6, -0.75)
        axes.set_yticks([])
        axes.set_xlabel(axis)
        axes.locator_params(axis="x", nbins=5)
        axes.spines["left"].set_visible(False)
        each = "; ".join(f"{n}: {t}" for n, t in zip(names, texts, strict=True))
        return _inline(axes, name, f"Bar chart: {axis}. {each}.")


def curves(
    lines: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]], axis: str, name: str
) -> str:
    """Training curves: a colour a line of runs, a stroke a run, of its epochs and its values."""
    labels = [fill(line, _LONGEST) for line in lines]
    with _page(232 + 14 * "\n".join(labels).count("\n") + 14) as axes:
        for i, (label, runs) in enumerate(zip(labels, lines.values(), strict=True)):
            colour, dash = _STYLES[i % len(_STYLES)]
            for k, (epochs, values) in enumerate(runs):
                axes.plot(epochs, values, color=colour, linestyle=dash, linewidth=1.6, marker=".",
                          markersize=5, label=label if not k else None)  # fmt: skip
        axes.set_xlabel("epochs: passes over train")
        axes.set_ylabel(axis)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=6)
        axes.grid()
        _legend_below(axes)
        return _inline(axes, name, f"Line chart: {axis} in the course of each training.")


def _legend_below(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    _figure(axes).legend(handles, labels, loc="outside lower left", ncols=1)
