"""The paper's tables, and the numbers of its Figure 5, on any data set.

Each function trains what is not there yet (see `trainer.analysis.trials`) and raises as
`Trials.run`. The paper's own values stand beside ours only where the data set is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from schemas.errors import UsageError
from trainer.analysis import paper
from trainer.analysis.correlation import CorrelationMap, correlate, pearson
from trainer.analysis.figures import Shown, write_maps
from trainer.analysis.learned_correlation import learned_like
from trainer.analysis.plots import require_matplotlib
from trainer.analysis.tables import SD, Cell, Table, change, columns, name_of, named
from trainer.analysis.trials import Case, Trial, Trials, mean_sd
from trainer.baselines import baselines_of
from trainer.data.shards import Shards
from trainer.files import filling
from trainer.metrics import auc_by_user, paired_p
from trainer.models.recipes import RECIPES, choose

# What has tables of the attention's own is of Figure 5.
MODELS = tuple(name for name, recipe in RECIPES.items() if not recipe.apart)
ENCODINGS = ("tte-p", "tte-t", "timestamp", "tte-pt")
# Of Table 2. DIN's attention is its scaled dot product there.
LEARNED = ("tin", "tin_wo_tte", "tin_wo_ta", "tin_wo_tr", "din_dot", "sasrec", "bst")
# The paper says "from 0 to 256", with 2 the least that is not 0; the ones between are ours.
WIDTHS = (2, 8, 32, 128, 256)
ATTENTION, REPRESENTATION = "attention", "representation"

_PUBLISHED = ("gauc", "gauc_sd", "logloss", "logloss_sd")
_FIGURES = "seeds gauc gauc_sd change_pct p auc auc_sd logloss logloss_sd"
COLUMNS = columns(
    f"model code encoding {_FIGURES} paper_gauc paper_gauc_sd paper_logloss paper_logloss_sd"
)
_LEARNED = columns("model encoding seeds pearson pearson_sd own_first places spread gauc gauc_sd")
_BY_LENGTH = columns(
    "length rows seeds tte_p tte_p_sd coe coe_sd change_pct paper_tte_p paper_coe paper_change_pct"
)
_BY_WIDTH = columns(
    "varied attention representation seeds gauc gauc_sd logloss logloss_sd paper_gauc"
)
_P = (
    "p: two-sided, of a paired test over users between each user's AUC, its mean over seeds, and "
    "the reference's. So p speaks of other users, sd of other seeds."
)


@dataclass(frozen=True)
class _Line:
    """A line of Table 1 or 4 before it is held against another: its cells, each user's AUC."""

    cells: dict[str, Cell]
    users: pl.DataFrame

    @classmethod
    def of(cls, trial: Trial) -> _Line:
        """The line of a model."""
        case = trial.case
        cells: dict[str, Cell] = {"model": case.model, "encoding": case.encoding}
        cells["code"] = RECIPES[case.model].code
        cells["seeds"] = len(trial.runs)
        return cls({**cells, **trial.over_seeds("gauc", "auc", "logloss")}, trial.users)

    @property
    def gauc(self) -> float | None:
        """The mean GAUC."""
        found = self.cells["gauc"]
        assert found is None or isinstance(found, float)
        return found

    def row(self, shards: Shards, best: _Line, printed: paper.Figures | None) -> dict[str, Cell]:
        """The line as a row of `COLUMNS`, held against `best` unless it is that."""
        row = dict.fromkeys(COLUMNS) | named(shards) | self.cells
        if self is not best:
            row |= {
                "change_pct": change(self.gauc, best.gauc),
                "p": paired_p(self.users, best.users),
            }
        theirs = asdict(printed) if printed else {}
        return row | {f"paper_{name}": theirs.get(name) for name in _PUBLISHED}


def table1(trials: Trials, models: Iterable[str] = MODELS, encoding: str | None = None) -> Table:
    """Every model on every data set, held against the best baseline (the paper's Table 1).

    The best baseline has the highest mean GAUC of all but TIN and its ablations; the baselines
    that only count may be it.

    Args:
        models: keys of `RECIPES`.
        encoding: takes the place of a target-aware encoding (`tte-...`) where a model has that by
            default; the others keep theirs.
    """
    chosen = [(model, _encoding(model, encoding)) for model in dict.fromkeys(models)]
    found = trials.run(Case(data, *one) for data in trials.data_sets for one in chosen)
    rows, notes = [], []
    for data in trials.data_sets:
        shards = trials.open(data)
        lines = [*_counted(shards), *(_Line.of(t) for t in found if t.case.data == data)]
        baselines = [line for line in lines if not str(line.cells["model"]).startswith("tin")]
        best = max(baselines, key=lambda line: line.gauc or 0.0)
        theirs = paper.TABLE1.get(paper.published(shards.manifest), {})
        rows += [x.row(shards, best, theirs.get(str(x.cells["model"]))) for x in lines]
        notes.append(f"{trials.about(data)} Reference: {best.cells['model']}.")
    notes += [
        "change: of GAUC against the reference, the best of all that is not TIN or an ablation of "
        f"it. {SD} {_P}",
        "popularity: how often the target is a positive of train. category_share: share of the "
        "behaviours that are of the target's category, or whatever field the data set names for "
        "it; left out where it names none. Both only count, and give no probability.",
    ]
    return Table("table1", "Models (the paper's Table 1)", COLUMNS, rows, notes)


def _encoding(model: str, wanted: str | None) -> str:
    own = choose(model, None)[1]
    return choose(model, wanted)[1] if wanted and own.startswith("tte-") else own


def _counted(shards: Shards) -> list[_Line]:
    """The baselines that only count, on test."""
    lines = []
    for name, baseline in baselines_of(shards).items():
        scored = baseline(shards, "test")
        m = scored.measure()
        users = auc_by_user(scored.user, scored.label, scored.score)
        lines.append(_Line({"model": name, "gauc": m.gauc, "auc": m.auc}, users))
    return lines


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
    def title(self) -> str:
        """Of its map."""
        mean, sd = mean_sd(self.pearsons)
        if mean is None:
            return f"{self.map.name}: the same at all places"
        return f"{self.map.name}: Pearson {mean:.3f}" + ("" if sd is None else f" (sd {sd:.3f})")

    def row(self) -> dict[str, Cell]:
        """The line's own columns."""
        mean, sd = mean_sd(self.pearsons)
        least, largest = self.map.ends()
        return {
            "model": self.trial.case.model,
            "encoding": self.trial.case.encoding,
            "seeds": len(self.trial.runs),
            "pearson": mean,
            "pearson_sd": sd,
            "own_first": self.own_first,
            "places": len(self.map.places),
            "spread": float(largest / least) if least > 0 else None,  # 0 e.g. after min-max
            **self.trial.over_seeds("gauc"),
        }


def learned_over_seeds(truth: CorrelationMap, trial: Trial, *, released: bool = False) -> Learned:
    """Measure what each seed's run learned in the cells of a map; see `learned_like`."""
    maps = [learned_like(truth, r, data=trial.case.data, released=released) for r in trial.runs]
    mean = replace(maps[0], values=np.mean([m.values for m in maps], axis=0))
    return Learned(trial, mean, tuple(pearson(truth, m) for m in maps))


def table2(
    trials: Trials, to: Path, models: Sequence[str] = LEARNED, shown: Shown | None = None
) -> Table:
    """What models learned: Table 2's Pearson, and for each data set the maps of Figures 1 and 3.

    Args:
        to: folder for `fig3-<data>` as CSV, Markdown, PNG and SVG; made if absent.
        models: keys of `RECIPES` that Table 2 has a measure for; each with its default encoding.

    Returns:
        The table, not yet written.

    Raises:
        TinprepError: as `correlate` and `learned_like`; UsageError where matplotlib is not
            installed.
    """
    require_matplotlib()
    shown = shown or Shown()
    rows: list[dict[str, Cell]] = []
    notes = []
    with filling(to):
        truths = {data: correlate(data, **vars(shown)) for data in trials.data_sets}
        chosen = [(name, RECIPES[name].encodings[0]) for name in models if name in RECIPES]
        found = trials.run(Case(data, *one) for data in trials.data_sets for one in chosen)
        for data, truth in truths.items():
            shards, lines = trials.open(data), []
            for trial in (t for t in found if t.case.data == data):
                trials.say(f"what {trial.case.name} learned")
                lines.append(learned_over_seeds(truth, trial, released=shown.released))
            rows += [{**named(shards), **line.row()} for line in lines]
            maps = [truth, *(line.map for line in lines)]
            titles = [truth.name, *(line.title for line in lines)]
            stem = to / f"fig3-{name_of(data)}"
            write_maps([m.normalised() for m in maps], stem, titles, raw=maps)
            notes.append(f"{trials.about(data)} Targets of {truth.category!r}.")
    notes.append(
        "Pearson: correlation of what was learned (Eq. 4) with the CTC (Eq. 1) on the row of the "
        "targets' own category, for each seed; `-`: what was learned is the same at all places. "
        "Own category first: at how many places it has the largest mean over seeds. Largest / "
        f"least: of the map's cells, so 1 is a map without any pattern. {SD}"
    )
    if shown.released:
        notes.append("As released: the category's part of the embeddings alone, min-max.")
    return Table("table2", "Learned correlation (the paper's Table 2)", _LEARNED, rows, notes)


def table3(trials: Trials) -> Table:
    """GAUC of TIN by history length: TTE-P against COE (the paper's Table 3)."""
    pair = ("tte-p", "coe")
    found = trials.run(Case(data, "tin", name) for data in trials.data_sets for name in pair)
    rows: list[dict[str, Cell]] = []
    for data in trials.data_sets:
        shards = trials.open(data)
        ours, other = (t.by_length() for t in found if t.case.data == data)
        printed = paper.TABLE3 if paper.published(shards.manifest) == paper.AMAZON else {}
        for name, measured in ours[0].items():
            (a, a_sd), (b, b_sd) = (mean_sd(m[name].gauc for m in x) for x in (ours, other))
            paper_a, paper_b = (printed.get(name, {}).get(encoding) for encoding in pair)
            rows.append(
                {
                    **named(shards),
                    "length": name,
                    "rows": measured.rows,
                    "seeds": trials.seeds,
                    "tte_p": a,
                    "tte_p_sd": a_sd,
                    "coe": b,
                    "coe_sd": b_sd,
                    "change_pct": change(b, a),
                    "paper_tte_p": paper_a,
                    "paper_coe": paper_b,
                    "paper_change_pct": change(paper_b, paper_a),
                }
            )
    notes = [trials.about(data) for data in trials.data_sets]
    notes.append(f"GAUC of `tin` on test. change: from TTE-P to COE. {SD}")
    return Table("table3", "TTE-P and COE by history length (Table 3)", _BY_LENGTH, rows, notes)


def table4(trials: Trials) -> Table:
    """TIN with each temporal encoding, held against TTE-P (the paper's Table 4).

    TTE-P and TTE-T together (`tte-pt`, the paper's production model) stand beside the paper's
    three.
    """
    found = trials.run(Case(data, "tin", name) for data in trials.data_sets for name in ENCODINGS)
    rows = []
    for data in trials.data_sets:
        shards = trials.open(data)
        lines = [_Line.of(t) for t in found if t.case.data == data]
        theirs = paper.TABLE4.get(paper.published(shards.manifest), {})
        rows += [x.row(shards, lines[0], theirs.get(str(x.cells["encoding"]))) for x in lines]
    notes = [trials.about(data) for data in trials.data_sets]
    notes.append(f"change: of GAUC against the reference, tte-p. {SD} {_P}")
    return Table("table4", "Temporal encodings of TIN (the paper's Table 4)", COLUMNS, rows, notes)


def fig5(trials: Trials, widths: Sequence[int] = WIDTHS) -> Table:
    """DIN with tables of the attention's own: one space's width varied, the other's kept (Fig. 5).

    A width is of all fields together; the kept one is that of the trials' settings (the paper's
    128). Attention of width 0 is none: the behaviours' mean (`avg_product`).

    Args:
        widths: of the space that is varied; multiples of the number of fields.

    Raises:
        UsageError: a width cannot be shared by the fields.
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
        shards = trials.open(case.data)
        printed = paper.FIG5 if paper.published(shards.manifest) == paper.AMAZON else {}
        rows.append(
            {
                **named(shards),
                "varied": varied,
                "attention": attention,
                "representation": representation,
                "seeds": trials.seeds,
                **found[case].over_seeds("gauc", "logloss"),
                "paper_gauc": printed.get((attention, representation)),
            }
        )
    notes = [trials.about(data) for data in trials.data_sets]
    notes.append(
        f"`din_apart` (Eq. 6); attention of width 0 is none, `avg_product`. Widths are of all "
        f"fields together. {SD}"
    )
    title = "Widths of attention and representation (Figure 5)"
    return Table("fig5", title, _BY_WIDTH, rows, notes)
