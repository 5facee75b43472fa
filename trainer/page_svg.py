"""matplotlib's figures as SVG for a page: small, in the page's own colours and fonts.

A drawing uses the colours named here. In the page they are CSS variables, so one drawing serves
light, dark and paper. Texts stay texts, and names from the data are never read as formulas.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING

from trainer.drawing import require_matplotlib, saving

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Stand-ins that no colour map holds, and what the page puts there.
INK, FAINT, MARK = "#010203", "#010204", "#010205"
SERIES = tuple(f"#01030{i}" for i in range(8))
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)", MARK: "var(--mark)"}
_VARIABLES |= {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)}
_COLOUR = re.compile("|".join(_VARIABLES))
_LINK = re.compile(r"url\(#|^#")
_XLINK = "{http://www.w3.org/1999/xlink}href"
# Units of a drawing: a phone shows about as many CSS pixels, so text sizes are pixels there.
WIDE = 350
_POINTS = 72


@contextmanager
def canvas(height: float, *, width: float = WIDE) -> Iterator[Figure]:
    """An empty figure of `width` x `height` units, in the page's style."""
    matplotlib = require_matplotlib()
    from matplotlib.figure import Figure

    style = {
        "axes.edgecolor": FAINT,
        "axes.facecolor": "none",
        "axes.labelcolor": INK,
        "axes.labelsize": 10.5,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": INK,
        "figure.facecolor": "none",
        "font.size": 10.5,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "legend.labelcolor": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "tinprep",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.color": FAINT,
        "ytick.labelcolor": INK,
    }
    with matplotlib.rc_context(style):
        yield Figure(figsize=(width / _POINTS, height / _POINTS), layout="constrained")


def inline(figure: Figure, name: str, label: str) -> str:
    """A figure as an `<svg>` element for HTML; call it inside `canvas`.

    Args:
        figure: what is drawn.
        name: of the figure in the page: its ids begin so.
        label: what it shows, for those who do not see it.
    """
    buffer = StringIO()
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
