"""What models learned beside the truth, over seeds: the paper's Table 2 and Figures 1b-d and 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.atomic import filling
from trainer.correlation import CorrelationMap, pearson
from trainer.drawing import require_matplotlib
from trainer.figures import Shown, truth_of, write_maps
from trainer.learned_correlation import learned_like
from trainer.models import RECIPES
from trainer.provenance import DATA, SD, name_of, named, settings_of
from trainer.tables import Cell, Table
from trainer.trials import Case, Trial, Trials, mean_sd

# Those of the paper's Table 2. DIN's attention is its scaled dot product there.
MODELS = ("tin", "tin_wo_tte", "tin_wo_ta", "tin_wo_tr", "din_dot", "sasrec", "bst")
COLUMNS = {
    **DATA,
    "model": "model",
    "encoding": "encoding",
    "seeds": "seeds",
    "pearson": "Pearson",
    "pearson_sd": "sd",
    "own_first": "own category first at",
    "places": "of places",
    "spread": "largest / least",
    "gauc": "GAUC",
    "gauc_sd": "sd",
}


@dataclass(frozen=True)
class Learned:
    """What the runs of a model learned (a line of Table 2).

    Attributes:
        trial: the runs.
        map: the mean over seeds of what they learned.
        pearsons: of each seed with the CTC, on the row of the targets' own category; None where
            undefined.
    """

    trial: Trial
    map: CorrelationMap
    pearsons: tuple[float | None, ...]

    @property
    def own_first(self) -> int:
        """At how many places the targets' own category has the largest mean."""
        known = np.isfinite(self.map.values)
        first = np.where(known, self.map.values, -np.inf).argmax(0) == self.map.own
        return int((first & known[self.map.own]).sum())

    @property
    def spread(self) -> float | None:
        """The largest cell of the map over the least; None where that is 0, e.g. after min-max."""
        least, largest = self.map.ends()
        return float(largest / least) if least > 0 else None

    def row(self) -> dict[str, Cell]:
        """The line's own columns."""
        mean, sd = mean_sd(self.pearsons)
        gauc, gauc_sd = self.trial.over_seeds("gauc")
        return {
            "model": self.trial.case.model,
            "encoding": self.trial.case.encoding,
            "seeds": len(self.trial.runs),
            "pearson": mean,
            "pearson_sd": sd,
            "own_first": self.own_first,
            "places": len(self.map.places),
            "spread": self.spread,
            "gauc": gauc,
            "gauc_sd": gauc_sd,
        }


def learned_over_seeds(truth: CorrelationMap, trial: Trial, *, released: bool = False) -> Learned:
    """Measure what each seed's run learned in the cells of a map.

    Args:
        truth: the CTC of the data set.
        trial: the runs.
        released: as in `learned_like`.

    Raises:
        TinprepError: as `learned_like`.
    """
    maps = [learned_like(truth, r, data=trial.case.data, released=released) for r in trial.runs]
    mean = replace(maps[0], values=np.mean([m.values for m in maps], axis=0))
    return Learned(trial, mean, tuple(pearson(truth, m) for m in maps))


def table2(
    trials: Trials,
    to: Path,
    models: Sequence[str] = MODELS,
    shown: Shown | None = None,
) -> Table:
    """Measure what models learned: Table 2's Pearson, and for each data set the maps of Figure 3.

    Args:
        trials: data sets, runs, seeds and settings.
        to: folder for `fig3-<data>` as CSV, Markdown, PNG and SVG; made if absent.
        models: keys of `RECIPES` that Table 2 has a measure for; each with its default encoding.
        shown: which cells.

    Returns:
        The table, not yet written.

    Raises:
        TinprepError: as `correlate`, `learned_like` and `Trials.run`; UsageError where matplotlib
            is not installed.
    """
    require_matplotlib()
    shown = shown or Shown()
    with filling(to):
        truths = {data: truth_of(data, shown) for data in trials.data_sets}
        found = trials.run(
            Case(data, model, RECIPES[model].encodings[0])
            for data in trials.data_sets
            for model in models
            if model in RECIPES
        )
        rows: list[dict[str, Cell]] = []
        notes = []
        for data, truth in truths.items():
            shards = trials.open(data)
            lines = []
            for trial in (t for t in found if t.case.data == data):
                trials.told(f"what {trial.case.name} learned")
                lines.append(learned_over_seeds(truth, trial, released=shown.released))
            rows += [{**named(shards), **line.row()} for line in lines]
            titles = [truth.name, *(f"{line.map.name}: {_pearson(line)}" for line in lines)]
            maps = [truth, *(line.map for line in lines)]
            stem = to / f"fig3-{name_of(data)}"
            write_maps([m.normalised() for m in maps], stem, titles, raw=maps)
            notes.append(f"{settings_of(trials, shards)} Targets of {truth.category!r}.")
    notes.append(
        "Pearson: correlation of what was learned (Eq. 4) with the CTC (Eq. 1) on the row of the "
        "targets' own category, for each seed; `-`: what was learned is the same at all places. "
        "Own category first: at how many places it has the largest mean over seeds. Largest / "
        f"least: of the map's cells, so 1 is a map without any pattern. {SD}"
    )
    if shown.released:
        notes.append("As released: the category's part of the embeddings alone, min-max.")
    return Table("table2", "Learned correlation (the paper's Table 2)", COLUMNS, rows, notes)


def _pearson(line: Learned) -> str:
    mean, sd = mean_sd(line.pearsons)
    if mean is None:
        return "the same at all places"
    return f"Pearson {mean:.3f}" + ("" if sd is None else f" (sd {sd:.3f})")
