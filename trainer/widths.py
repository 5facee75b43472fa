"""How wide attention and representation must be: the paper's A.2 and Figure 5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from schemas.errors import UsageError
from trainer import paper
from trainer.atomic import filling
from trainer.drawing import Line, draw_lines
from trainer.provenance import DATA, SD, named, published, settings_of
from trainer.tables import Cell, Table
from trainer.trials import Case, Trials

# The paper says "from 0 to 256", with 2 the least that is not 0; the ones between are ours.
WIDTHS = (2, 8, 32, 128, 256)
ATTENTION, REPRESENTATION = "attention", "representation"
COLUMNS = {
    **DATA,
    "varied": "varied",
    "attention": "attention's width",
    "representation": "representation's width",
    "seeds": "seeds",
    "gauc": "GAUC",
    "gauc_sd": "sd",
    "logloss": "logloss",
    "logloss_sd": "sd",
    "paper_gauc": "paper's GAUC",
}


def fig5(trials: Trials, widths: Sequence[int] = WIDTHS) -> Table:
    """DIN with tables of the attention's own: one space's width varied, the other's kept (Fig. 5).

    A width is of all fields together; the kept one is that of the trials' settings (the paper's
    128). Attention of width 0 is none: the behaviours' mean (`avg_product`).

    Args:
        trials: data sets, runs, seeds and settings.
        widths: of the space that is varied; multiples of the number of fields.

    Raises:
        UsageError: a width cannot be shared by the fields; and see `Trials.run`.
        InputError: see `Trials.run`.
        ContractError: see `Trials.run`.
    """
    lines = []
    for data in trials.data_sets:
        fields = len(trials.open(data).manifest.fields)
        kept = trials.config(data).dim * fields
        steps = sorted({*widths, kept})
        for width in steps:
            if width < fields or width % fields:
                raise UsageError(
                    "The fields cannot share this width.",
                    where="the widths of Figure 5",
                    expected=f"multiples of {fields}, the fields of {data}",
                    got=str(width),
                )
        pairs = [(ATTENTION, width, kept) for width in (0, *steps)]
        pairs += [(REPRESENTATION, kept, width) for width in steps]
        for varied, attention, representation in pairs:
            # No width of its own where it is the settings': the run may serve other tables too.
            dim = None if representation == kept else representation // fields
            if attention:
                case = Case(data, "din_apart", "none", dim, attention // fields)
            else:
                case = Case(data, "avg_product", "none", dim)
            lines.append((case, varied, attention, representation))
    found = {trial.case: trial for trial in trials.run(case for case, *_ in lines)}
    rows: list[dict[str, Cell]] = []
    for case, varied, attention, representation in lines:
        trial, shards = found[case], trials.open(case.data)
        printed = paper.FIG5 if published(shards) == paper.AMAZON else {}
        gauc, gauc_sd = trial.over_seeds("gauc")
        logloss, logloss_sd = trial.over_seeds("logloss")
        rows.append(
            {
                **named(shards),
                "varied": varied,
                "attention": attention,
                "representation": representation,
                "seeds": trials.seeds,
                "gauc": gauc,
                "gauc_sd": gauc_sd,
                "logloss": logloss,
                "logloss_sd": logloss_sd,
                "paper_gauc": printed.get((attention, representation)),
            }
        )
    notes = [settings_of(trials, trials.open(data)) for data in trials.data_sets]
    notes.append(
        f"`din_apart` (Eq. 6); attention of width 0 is none, `avg_product`. Widths are of all "
        f"fields together. {SD}"
    )
    return Table("fig5", "Widths of attention and representation (Figure 5)", COLUMNS, rows, notes)


def draw_fig5(table: Table, to: Path) -> list[Path]:
    """Draw `fig5`, for each data set as `fig5-<data>` PNG and SVG.

    Args:
        table: what `fig5` gave, or the same read back.
        to: folder for the pictures; made if absent.

    Returns:
        Their paths without the endings.

    Raises:
        UsageError: matplotlib is not installed, or the folder cannot be made.
    """
    stems = []
    for data in dict.fromkeys(str(row["data"]) for row in table.rows):
        rows = [row for row in table.rows if row["data"] == data]
        widths = sorted({int(row[str(row["varied"])] or 0) for row in rows})
        ticks = ["0 (none)" if width == 0 else str(width) for width in widths]
        kept = max(int(row["representation"] or 0) for row in rows if row["varied"] == ATTENTION)
        said = " (synthetic data)" if rows[0]["synthetic"] else ""
        lines = [
            _line(f"attention's width varied, representation's {kept}", ATTENTION, rows, widths),
            _line(
                f"representation's width varied, attention's {kept}", REPRESENTATION, rows, widths
            ),
        ]
        none = [row for row in rows if row["attention"] == 0]
        lines.append(_line("no attention", ATTENTION, none, widths, "*"))
        labels = (
            "width of the embeddings, all fields together",
            "GAUC on test (bar: sd over seeds)",
        )
        title = f"{rows[0]['dataset']}{said}: DIN with two embedding spaces (Eq. 6)"
        stems.append(to / f"fig5-{data}")
        with filling(to):
            draw_lines(lines, ticks, labels, title, stems[-1])
    return stems


def _line(
    name: str, varied: str, rows: list[dict[str, Cell]], widths: list[int], marker: str = "o"
) -> Line:
    """The rows of one varied width, without that of no attention unless it is the marker."""
    mine = [
        row
        for row in rows
        if row["varied"] == varied and row["gauc"] is not None and (row[varied] or marker == "*")
    ]
    return Line(
        name,
        tuple(widths.index(int(row[varied] or 0)) for row in mine),
        tuple(float(row["gauc"] or 0.0) for row in mine),
        tuple(None if row["gauc_sd"] is None else float(row["gauc_sd"]) for row in mine),
        marker,
    )
