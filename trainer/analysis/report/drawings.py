"""The report's figures: matplotlib's, as SVG for a page, narrow enough for a phone.

A drawing uses the colours named here. In the page they are CSS variables, so one drawing serves
light, dark and paper. Texts stay texts, and names from the data are never read as formulas.
A figure gives its `<svg>`; titles and captions are the page's. `name` is of the figure in the page:
its ids begin so.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.correlation import CorrelationMap
from trainer.analysis.plots import heat_map as draw_cells
from trainer.analysis.plots import interval_bars, place_label, require_matplotlib, saving, short
from trainer.analysis.report.runs import Line, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that no colour map holds, and what the page puts there.
_INK, _FAINT, _MARK = "#010203", "#010204", "#010205"
_SERIES = tuple(f"#01030{i}" for i in range(8))
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--line)", _MARK: "var(--mark)"}
_VARIABLES |= {colour: f"var(--series-{i})" for i, colour in enumerate(_SERIES)}
_COLOUR = re.compile("|".join(_VARIABLES))
_LINK = re.compile(r"url\(#|^#")
_XLINK = "{http://www.w3.org/1999/xlink}href"
# Units of a drawing: a phone shows about as many CSS pixels, so text sizes are pixels there.
_WIDE, _POINTS = 350, 72
_STYLE = {
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": _INK,
    "axes.labelsize": 10.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "figure.facecolor": "none",
    "font.size": 10.5,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "tinprep",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
}
_LONGEST = 44  # of a name
_DASHES = ("-", "--", "-.", ":")


@contextmanager
def _axes(height: float) -> Iterator[Axes]:
    """The axes of an empty figure, `height` units high, in the page's style."""
    matplotlib = require_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        size = (_WIDE / _POINTS, height / _POINTS)
        yield Figure(figsize=size, layout="constrained").subplots()


def _inline(axes: Axes, name: str, label: str) -> str:
    """A figure as an `<svg>` element for HTML; call it inside `_axes`.

    `label` says what it shows, for those who do not see it.
    """
    buffer, figure = StringIO(), _figure(axes)
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with saving():
        figure.savefig(buffer, format="svg", metadata=nothing)
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


def lengths(counts: Mapping[str, Sequence[int]]) -> str:
    """Share of rows by history length: a line a split, of its rows of length 0, 1, ..., L."""
    with _axes(210) as axes:
        for i, (split, rows) in enumerate(counts.items()):
            share = 100 * np.array(rows) / max(1, sum(rows))
            axes.step(np.arange(len(rows)), share, where="mid", color=_SERIES[i],
                      linestyle=_DASHES[i], label=split)  # fmt: skip
        axes.set_xlabel("history length, behaviours (the longest are cut)")
        axes.set_ylabel("share of rows, %")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.legend()
        label = "Line chart: share of rows by history length, for each split."
        return _inline(axes, "lengths", label)


def intervals(octaves: Mapping[int, int], edges_s: Sequence[float]) -> str:
    """Behaviours of train by octave of the interval (see `intervals_of`), and the bins' edges."""
    with _axes(240) as axes:
        edges = interval_bars(axes, octaves, edges_s, fill=_SERIES[0], mark=_MARK)
        axes.set_ylabel("share of behaviours, %")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        if edges:
            _legend_below(axes)
        label = "Bar chart: share of behaviours by the time to their target, with the bins' edges."
        return _inline(axes, "intervals", label)


def popularity(counts: NDArray[np.integer], what: str) -> str:
    """Occurrences by rank, both logarithmic; `what` is what is counted, e.g. `item`."""
    ordered = np.sort(counts[counts > 0])[::-1]
    # A few hundred points draw the same line.
    rank = np.unique(np.geomspace(1, max(1, len(ordered)), 400).round().astype(np.int64))
    rank = rank[rank <= len(ordered)]
    with _axes(210) as axes:
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
        names: one a bar.
        values: their lengths.
        texts: what stands at the end of each.
        axis: the axis' label, with its unit.
        name: of the figure.
        errors: half the length of each error bar; 0 for none.
        low: where the axis begins.
        high: where it ends; after the longest bar by default.
    """
    top = high if high is not None else max(values, default=1.0) * 1.02 or 1.0
    with _axes(44 + 31 * len(names)) as axes:
        at = np.arange(len(names))
        axes.barh(at, np.array(values) - low, left=low, height=0.38, color=_SERIES[0])
        for y, value, error in zip(at, values, errors or (), strict=False):
            if error:
                axes.errorbar(value, y, xerr=error, color=_INK, capsize=3, linewidth=1.2)
        for y, text, said in zip(at, texts, names, strict=True):
            axes.text(low, y - 0.26, short(said, _LONGEST), va="bottom")
            axes.text(top, y - 0.26, text, va="bottom", ha="right")
        axes.set_xlim(low, top)
        axes.set_ylim(len(names) - 0.6, -0.75)
        axes.set_yticks([])
        axes.set_xlabel(axis)
        axes.locator_params(axis="x", nbins=5)
        axes.spines["left"].set_visible(False)
        each = "; ".join(f"{n}: {t}" for n, t in zip(names, texts, strict=True))
        return _inline(axes, name, f"Bar chart: {axis}. {each}.")


def results(names: Sequence[str], pairs: Sequence[Pair], axis: str, name: str) -> str:
    """Means of a measure, of which 0.5 is chance, as bars with the deviation over seeds."""
    values, errors = [mean for mean, _ in pairs], [spread or 0.0 for _, spread in pairs]
    low = min(0.5, math.floor(10 * min(values)) / 10)
    top = max(value + error for value, error in zip(values, errors, strict=True))
    return bars(
        names, values, [with_spread(pair) for pair in pairs], axis, name,
        errors=errors, low=low, high=low + ((top - low) * 1.05 or 0.1),
    )  # fmt: skip


def with_spread(pair: Pair | None) -> str:
    """A mean with its standard deviation, where there is one."""
    if pair is None:
        return "-"
    mean, spread = pair
    return f"{mean:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def heat_map(m: CorrelationMap, high: float, name: str, *, unit: str, factor: float = 1.0) -> str:
    """A correlation map: a row of cells under the name of each behaviours' category.

    Its values are multiplied by `factor`; after that they have the unit, and the darkest colour
    is `high`.
    """
    with _axes(48 + 43 * len(m.rows)) as axes:
        drawn = draw_cells(axes, m, factor, high, size=9.5, height=0.56, line=_FAINT)
        for r, category in enumerate(m.rows):
            own = r == m.own
            text = short(category, _LONGEST) + (" (the target's own)" if own else "")
            axes.text(-0.5, r - 0.06, text, va="bottom", fontweight="bold" if own else "normal")
        axes.set_ylim(len(m.rows) - 0.38, -0.48)
        axes.set_yticks([])
        axes.set_xlabel(place_label(m))
        bar = _figure(axes).colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.05,
                                     aspect=45, pad=0.02)  # fmt: skip
        bar.set_label(unit)
        bar.outline.set_visible(False)
        label = f"Heat map of {m.name}: {unit}, by the behaviour's {m.field} and position."
        return _inline(axes, name, f"{label} Its values are in the table below it.")


def curves(lines: Sequence[Line], measure: str, axis: str, name: str) -> str:
    """Training curves, of one of the runs' `curves`: a colour a line of runs, a stroke a seed."""
    with _axes(232 + 14 * len(lines)) as axes:
        for i, line in enumerate(lines):
            colour, dash = _SERIES[i % len(_SERIES)], _DASHES[(i // len(_SERIES)) % len(_DASHES)]
            for k, run in enumerate(line.runs):
                axes.plot(run.curves["epochs"], run.curves[measure], color=colour,
                          linestyle=dash, linewidth=1.6, marker=".", markersize=5,
                          label=short(line.name, _LONGEST) if not k else None)  # fmt: skip
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


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure
