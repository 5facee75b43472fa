"""The report's correlation: what the data holds, and what the models learned of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer import page_figures as drawn
from trainer import page_html as html
from trainer.correlation import CorrelationMap, pearson
from trainer.data import Shards
from trainer.drawing import cell
from trainer.learned_correlation import MEASURED, learned_like
from trainer.page_runs import Line

_SHARE = "share of the map's own range, 0 to 1"


def correlation_section(truth: CorrelationMap, lines: Sequence[Line], shards: Shards) -> list[str]:
    """The CTC in bits, and beside it the learned maps of the lines' first runs.

    Args:
        truth: the CTC of one category of targets.
        lines: of runs on the data set.
        shards: the data set.

    Raises:
        TinprepError: as `learned_like`.
    """
    factor, high, unit = drawn.scale(truth)
    about = (
        f"How many bits a behaviour tells of the label, by its category and position, over the "
        f"{truth.targets:,} train targets of the category “{truth.category}” (Eq. 1 of the paper; "
        f"{100 * (truth.label_rate or 0):.0f}% of them positive). ↓: such behaviours are rarer "
        "with positives."
    )
    svg = drawn.heat_map(truth, high, "ctc", unit=f"mutual information, {unit}", factor=factor)
    shown = [
        html.figure("In the data: CTC", svg, more=_values(truth, factor, unit)),
    ]
    measured = [line for line in lines if line.runs[0].result["model"] in MEASURED.split(", ")]
    parts = [html.element("h2", "Correlation of behaviours with the label")]
    parts.append(html.element("p", about))
    if measured and np.isfinite(truth.values).any():
        share = truth.normalised()
        svg = drawn.heat_map(share, 1.0, "ctc-share", unit=_SHARE)
        title = "In the data, on the scale of the learned maps"
        shown.append(html.figure(title, svg, more=_values(share, 1.0, "share of range")))
        shown += [_learned(truth, line, f"learned-{i}", shards) for i, line in enumerate(measured)]
        parts.append(html.element(
            "p", "Learned maps show e^z |r| of the attention's logit z and the representation r "
            "(Eq. 4), of the line's first seed. All share one colour scale: each map is moved to "
            "0..1 over itself, as their units differ. Pearson is with the data's map, on the row "
            "of the target's own category.",
        ))  # fmt: skip
    without = [line.name for line in lines if line not in measured]
    if without:
        parts.append(html.element(
            "p", "No learned map, as their states are not behaviours: " + ", ".join(without) + ".",
        ))  # fmt: skip
    return [*parts, html.figures(shown)]


def _learned(truth: CorrelationMap, line: Line, name: str, shards: Shards) -> str:
    run = line.runs[0]
    found = learned_like(truth, run.folder, data=shards.out)
    agrees = pearson(truth, found)
    said = "not defined: the row is the same at all places" if agrees is None else f"{agrees:.3f}"
    share = found.normalised()
    svg = drawn.heat_map(share, 1.0, name, unit=_SHARE)
    title = f"Learned by {line.name}, seed {run.seed}"
    return html.figure(title, svg, f"Pearson {said}.", _values(found, 1.0, found.unit))


def _values(m: CorrelationMap, factor: float, unit: str) -> str:
    """The map as a table, for those who cannot see it."""
    against = m.against()
    rows = [
        (name, *(cell(v, bool(a), factor=factor) for v, a in zip(line, down, strict=True)))
        for name, line, down in zip(m.rows, m.values.tolist(), against, strict=True)
    ]
    head = ("behaviour's category", *map(str, m.places))
    return html.folded("Values as a table", html.table(head, rows, f"{unit}, by position"))
