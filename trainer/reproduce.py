"""The paper's tables and figures, each by its name: files for programs and for people.

```
TO/<table>.csv, .md           table1 to table4 and fig5: all data sets in one
TO/<figure>-<data>.csv, .md   fig1, fig3, fig4: one for each data set
TO/<figure>-<data>.png, .svg  fig1, fig3, fig4, fig5
```
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainer import experiments, widths
from trainer.drawing import require_matplotlib
from trainer.figures import FIGURE, Shown, fig1, fig4
from trainer.learned_table import table2
from trainer.outputs import require_own
from trainer.provenance import name_of, title_of
from trainer.tables import Table
from trainer.trials import Trials


@dataclass(frozen=True)
class Request:
    """What is to be made of which data.

    Attributes:
        trials: data sets, runs, seeds and settings.
        to: folder for the files.
        models: of Table 1.
        encoding: as in `experiments.table1`.
        learned: models of Table 2 and Figure 3.
        shown: the cells of Figures 1 and 3.
        widths: of Figure 5.
    """

    trials: Trials
    to: Path
    models: tuple[str, ...] = experiments.MODELS
    encoding: str | None = None
    learned: tuple[str, ...] | None = None
    shown: Shown = field(default_factory=Shown)
    widths: tuple[int, ...] = widths.WIDTHS


@dataclass(frozen=True)
class Made:
    """What was made under a name.

    Attributes:
        name: one of `NAMES`.
        title: one line.
        notes: what a reader must know.
        table: the table, where there is one.
        stems: files of the figures, without their endings.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    table: Table | None
    stems: tuple[Path, ...]

    @property
    def csvs(self) -> tuple[Path, ...]:
        """Every CSV file that it was read from or drawn from, by name alone."""
        own = [Path(f"{self.table.name}.csv")] if self.table else []
        drawn = [] if self.name == "fig5" else [Path(f"{stem.name}.csv") for stem in self.stems]
        return (*own, *drawn)


def _table1(r: Request) -> Made:
    return _tabled("table1", experiments.table1(r.trials, r.models, r.encoding), r)


def _table2(r: Request) -> Made:
    options = {} if r.learned is None else {"models": r.learned}
    made = table2(r.trials, r.to, shown=r.shown, **options)
    return _tabled("table2", made, r, _stems("fig3", r))


def _table3(r: Request) -> Made:
    return _tabled("table3", experiments.table3(r.trials), r)


def _table4(r: Request) -> Made:
    return _tabled("table4", experiments.table4(r.trials), r)


def _fig1(r: Request) -> Made:
    notes = []
    for data, stem in zip(r.trials.data_sets, _stems("fig1", r), strict=True):
        found = fig1(data, r.to, r.shown, name=stem.name, everything=False)
        notes.append(
            f"{name_of(data)}: {found.dataset}, {found.targets:,} targets of {found.category!r} "
            f"in train{', as released' if r.shown.released else ''}."
        )
    title = "Category-wise target-aware correlation (the paper's Figure 1a)"
    return Made("fig1", title, tuple(notes), None, _stems("fig1", r))


def _fig4(r: Request) -> Made:
    notes = []
    for data, stem in zip(r.trials.data_sets, _stems("fig4", r), strict=True):
        count = sum(fig4(data, r.to, name=stem.name).values())
        title = title_of(r.trials.open(data))
        notes.append(f"{name_of(data)}: {title}, {count:,} behaviours of train.")
    title = "Intervals from behaviour to target, and their bins (the paper's Figure 4)"
    return Made("fig4", title, tuple(notes), None, _stems("fig4", r))


def _fig5(r: Request) -> Made:
    require_matplotlib()
    table = widths.fig5(r.trials, r.widths)
    return _tabled("fig5", table, r, tuple(widths.draw_fig5(table, r.to)))


# In the order of `all`: first what needs no training. `fig3` is drawn of what `table2` measures.
_MAKERS: dict[str, Callable[[Request], Made]] = {
    "fig1": _fig1,
    "fig4": _fig4,
    "table1": _table1,
    "table2": _table2,
    "table3": _table3,
    "table4": _table4,
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
    amazon = tuple(
        data for data in every if request.trials.open(data).manifest.dataset.startswith("amazon")
    )
    made = []
    for one, maker in _MAKERS.items():
        data_sets = (amazon or every) if one in _AMAZON_ONLY else every
        request.trials.told(f"{one} of {', '.join(name_of(data) for data in data_sets)}")
        trials = replace(request.trials, data_sets=data_sets)
        made.append(maker(replace(request, trials=trials)))
    return made


def _stems(figure: str, request: Request) -> tuple[Path, ...]:
    return tuple(request.to / f"{figure}-{name_of(data)}" for data in request.trials.data_sets)


def _tabled(name: str, table: Table, request: Request, stems: tuple[Path, ...] = ()) -> Made:
    table.write(request.to)
    return Made(name, table.title, tuple(table.notes), table, stems)
