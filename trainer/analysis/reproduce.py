"""The paper's tables and figures, each by its name: files for programs and for people.

```
TO/<table>.csv, .md           table1 to table4 and fig5: all data sets in one
TO/<figure>-<data>.csv, .md   fig1, fig3, fig4: one for each data set
TO/<figure>-<data>.png, .svg  fig1, fig3, fig4, fig5
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from schemas.checked import STRICT
from trainer.analysis import paper
from trainer.analysis.figures import FIGURE, Shown, draw_fig5, fig1, fig4
from trainer.analysis.paper_tables import (
    LEARNED,
    MODELS,
    WIDTHS,
    fig5,
    table1,
    table2,
    table3,
    table4,
)
from trainer.analysis.plots import require_matplotlib
from trainer.analysis.tables import Table, name_of, title_of
from trainer.analysis.trials import Trials
from trainer.files import require_own


@dataclass(frozen=True)
class Setting:
    """How large a reproduction is: what holds where an option does not say otherwise.

    Attributes:
        about: in a sentence.
        seeds: runs of each line.
        training: settings of `TrainConfig`, in place of the data set's own.
        models: of Table 1.
        widths: of Figure 5.
    """

    __pydantic_config__ = STRICT
    about: str
    seeds: int
    training: dict[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = MODELS
    widths: tuple[int, ...] = WIDTHS


SETTINGS = {
    "paper": Setting("A.1: the data set's optimizer, batch and epochs, 5 seeds.", seeds=5),
    "small": Setting(
        "To see the whole path work, on the demo data: narrow embeddings, "
        "one epoch, 3 seeds. Shows that the whole path works, not what the models are worth.",
        seeds=3,
        models=tuple(paper.TABLE1[paper.AMAZON]),
        training={
            "optimizer": "adam",
            "lr": 3e-3,
            "batch_size": 256,
            "epochs": 1,
            "dim": 16,
            "evaluations": 2,
            "patience": 2,
        },
        widths=(2, 8, 32, 64),
    ),
}


@dataclass(frozen=True)
class Request:
    """What is to be made of which data.

    Attributes:
        trials: data sets, runs, seeds and settings.
        models: of Table 1.
        encoding: as in `table1`.
        learned: models of Table 2 and Figure 3.
        shown: the cells of Figures 1 and 3.
        widths: of Figure 5.
        show: takes each table as it is made.
    """

    trials: Trials
    to: Path
    models: tuple[str, ...] = MODELS
    encoding: str | None = None
    learned: tuple[str, ...] = LEARNED
    shown: Shown = field(default_factory=Shown)
    widths: tuple[int, ...] = WIDTHS
    show: Callable[[Table], None] = lambda table: None


@dataclass(frozen=True)
class Made:
    """What was made under a name.

    Attributes:
        name: one of `NAMES`.
        notes: what a reader must know.
        table: whether there is a table: `<name>.csv` and `<name>.md`.
        figures: the names of the figures' files, without their endings.
        csv: every CSV file that it was read from or drawn from.
    """

    __pydantic_config__ = STRICT
    name: str
    title: str
    notes: list[str]
    table: bool
    figures: list[str]
    csv: list[str]


def _fig1(r: Request) -> Made:
    notes, stems = [], _stems("fig1", r)
    for data, stem in zip(r.trials.data_sets, stems, strict=True):
        found = fig1(data, r.to, r.shown, name=stem.name, everything=False)
        notes.append(
            f"{name_of(data)}: {found.dataset}, {found.targets:,} targets of {found.category!r} "
            f"in train{', as released' if r.shown.released else ''}."
        )
    title = "Category-wise target-aware correlation (the paper's Figure 1a)"
    return _drawn("fig1", title, notes, stems)


def _fig4(r: Request) -> Made:
    notes, stems = [], _stems("fig4", r)
    for data, stem in zip(r.trials.data_sets, stems, strict=True):
        count = sum(fig4(data, r.to, name=stem.name).values())
        title = title_of(r.trials.open(data))
        notes.append(f"{name_of(data)}: {title}, {count:,} behaviours of train.")
    title = "Intervals from behaviour to target, and their bins (the paper's Figure 4)"
    return _drawn("fig4", title, notes, stems)


def _fig5(r: Request) -> Made:
    require_matplotlib()
    table = fig5(r.trials, r.widths)
    names = [stem.name for stem in draw_fig5(table, r.to)]
    return replace(_tabled(table, r), figures=names)  # drawn from the table


def _tabled(table: Table, r: Request, stems: Sequence[Path] = ()) -> Made:
    table.write(r.to)
    r.show(table)
    made = _drawn(table.name, table.title, table.notes, stems)
    return replace(made, table=True, csv=[f"{table.name}.csv", *made.csv])


def _drawn(name: str, title: str, notes: list[str], stems: Sequence[Path]) -> Made:
    figures = [stem.name for stem in stems]
    return Made(name, title, notes, False, figures, [f"{figure}.csv" for figure in figures])


def _stems(figure: str, r: Request) -> list[Path]:
    return [r.to / f"{figure}-{name_of(data)}" for data in r.trials.data_sets]


# In the order of `all`: first what needs no training. `fig3` is drawn of what `table2` measures.
_MAKERS: dict[str, Callable[[Request], Made]] = {
    "fig1": _fig1,
    "fig4": _fig4,
    "table1": lambda r: _tabled(table1(r.trials, r.models, r.encoding), r),
    "table2": lambda r: _tabled(table2(r.trials, r.to, r.learned, r.shown), r, _stems("fig3", r)),
    "table3": lambda r: _tabled(table3(r.trials), r),
    "table4": lambda r: _tabled(table4(r.trials), r),
    "fig5": _fig5,
}
NAMES = ("table1", "table2", "table3", "table4", "fig1", "fig3", "fig4", "fig5")
# What the paper has of Amazon alone.
_AMAZON_ONLY = ("fig1", "table2", "table3", "fig5")


def reproduce(name: str, request: Request) -> list[Made]:
    """Make a table or figure of the paper, or `all` of them, from runs that are trained once.

    `all` makes what the paper has of Amazon alone (Figures 1, 3 and 5, Tables 2 and 3) of Amazon's
    data sets alone, where there are any.

    Args:
        name: one of `NAMES`, or `all`.
        request: of which data, with what settings, where to.

    Raises:
        UsageError: files of others are in the way.
        TinprepError: as the functions that make each.
    """
    both = ("table2", "fig3")
    wanted = NAMES if name == "all" else both if name in both else (name,)
    # Before any training.
    require_own(
        path
        for path in request.to.glob("*")
        if path.suffix in FIGURE and re.split("[-.]", path.name)[0] in wanted
    )
    if name != "all":
        return [_MAKERS["table2" if name == "fig3" else name](request)]
    every = request.trials.data_sets
    amazon = [d for d in every if paper.is_of_amazon(request.trials.open(d).manifest)]
    made = []
    for one, maker in _MAKERS.items():
        data_sets = tuple(amazon or every) if one in _AMAZON_ONLY else every
        request.trials.say(f"{one} of {', '.join(map(name_of, data_sets))}")
        trials = replace(request.trials, data_sets=data_sets)
        made.append(maker(replace(request, trials=trials)))
    return made
