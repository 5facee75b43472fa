"""The paper's Tables 1, 3 and 4, on any data set.

Each function trains what is not there yet (see `trainer.trials`) and returns a table. The paper's
own values stand beside ours only where the data set is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import polars as pl

from trainer import paper
from trainer.baselines import BASELINES
from trainer.data import Shards
from trainer.models import RECIPES, choose
from trainer.provenance import DATA, SD, change, named, published, settings_of
from trainer.significance import auc_by_user, paired_p
from trainer.tables import Cell, Table
from trainer.trials import Case, Trial, Trials, mean_sd

# What has tables of the attention's own is of Figure 5.
MODELS = tuple(name for name, recipe in RECIPES.items() if not recipe.apart)
ENCODINGS = ("tte-p", "tte-t", "timestamp", "tte-pt")
_FIGURES = {
    "seeds": "seeds",
    "gauc": "GAUC",
    "gauc_sd": "sd",
    "change_pct": "change, %",
    "p": "p",
    "auc": "AUC",
    "auc_sd": "sd",
    "logloss": "logloss",
    "logloss_sd": "sd",
    "paper_gauc": "paper's GAUC",
    "paper_gauc_sd": "sd",
    "paper_logloss": "paper's logloss",
    "paper_logloss_sd": "sd",
}
_PUBLISHED = ("gauc", "gauc_sd", "logloss", "logloss_sd")
COLUMNS = {**DATA, "model": "model", "code": "code", "encoding": "encoding", **_FIGURES}
BY_LENGTH = {
    **DATA,
    "length": "history length",
    "rows": "rows",
    "seeds": "seeds",
    "tte_p": "TTE-P",
    "tte_p_sd": "sd",
    "coe": "COE",
    "coe_sd": "sd",
    "change_pct": "change, %",
    "paper_tte_p": "paper's TTE-P",
    "paper_coe": "paper's COE",
    "paper_change_pct": "paper's change, %",
}
_P = (
    "p: two-sided, of a paired test over users between each user's AUC, its mean over seeds, and "
    "the reference's. So p speaks of other users, sd of other seeds."
)


def table1(trials: Trials, models: Iterable[str] = MODELS, encoding: str | None = None) -> Table:
    """Every model on every data set, held against the best baseline (the paper's Table 1).

    The best baseline has the highest mean GAUC of all but TIN and its ablations; the two baselines
    that only count may be it.

    Args:
        trials: data sets, runs, seeds and settings.
        models: keys of `RECIPES`.
        encoding: takes the place of a target-aware encoding (`tte-...`) where a model has that by
            default; the others keep theirs.

    Raises:
        UsageError: no such model or encoding; and see `Trials.run`.
        InputError: see `Trials.run`.
        ContractError: see `Trials.run`.
    """
    chosen = [(model, _encoding(model, encoding)) for model in dict.fromkeys(models)]
    found = trials.run(Case(data, *one) for data in trials.data_sets for one in chosen)
    rows, notes = [], []
    for data in trials.data_sets:
        shards = trials.open(data)
        lines = [*_counted(shards), *(_Line.of(t) for t in found if t.case.data == data)]
        baselines = [line for line in lines if not line.model.startswith("tin")]
        best = max(baselines, key=lambda line: line.gauc or 0.0)
        theirs = paper.TABLE1.get(published(shards), {})
        rows += [x.row(shards, best, theirs.get(x.model)) for x in lines]
        notes.append(f"{settings_of(trials, shards)} Reference: {best.model}.")
    notes.append(
        "change: of GAUC against the reference, the best of all that is not TIN or an ablation of "
        f"it. {SD} {_P}"
    )
    notes.append(
        "popularity: how often the target is a positive of train. category_share: share of the "
        "behaviours that are of the target's category. Both only count, and give no probability."
    )
    return Table("table1", "Models (the paper's Table 1)", COLUMNS, rows, notes)


def table3(trials: Trials) -> Table:
    """GAUC of TIN by history length: TTE-P against COE (the paper's Table 3).

    Args:
        trials: data sets, runs, seeds and settings.

    Raises:
        UsageError: see `Trials.run`.
        InputError: see `Trials.run`.
        ContractError: see `Trials.run`.
    """
    pair = ("tte-p", "coe")
    found = trials.run(Case(data, "tin", name) for data in trials.data_sets for name in pair)
    rows: list[dict[str, Cell]] = []
    notes = []
    for data in trials.data_sets:
        shards = trials.open(data)
        ours, other = (t.by_length() for t in found if t.case.data == data)
        printed = paper.TABLE3 if published(shards) == paper.AMAZON else {}
        for name, measured in ours[0].items():
            (a, a_sd), (b, b_sd) = (mean_sd(m[name].gauc for m in x) for x in (ours, other))
            theirs = printed.get(name, {})
            paper_a, paper_b = (theirs.get(encoding) for encoding in pair)
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
        notes.append(settings_of(trials, shards))
    notes.append(f"GAUC of `tin` on test. change: from TTE-P to COE. {SD}")
    return Table("table3", "TTE-P and COE by history length (Table 3)", BY_LENGTH, rows, notes)


def table4(trials: Trials) -> Table:
    """TIN with each temporal encoding, held against TTE-P (the paper's Table 4).

    TTE-P and TTE-T together (`tte-pt`, the paper's production model) stand beside the paper's
    three.

    Args:
        trials: data sets, runs, seeds and settings.

    Raises:
        UsageError: see `Trials.run`.
        InputError: see `Trials.run`.
        ContractError: see `Trials.run`.
    """
    found = trials.run(Case(data, "tin", name) for data in trials.data_sets for name in ENCODINGS)
    rows, notes = [], []
    for data in trials.data_sets:
        shards = trials.open(data)
        lines = [_Line.of(t) for t in found if t.case.data == data]
        theirs = paper.TABLE4.get(published(shards), {})
        rows += [x.row(shards, lines[0], theirs.get(str(x.encoding))) for x in lines]
        notes.append(settings_of(trials, shards))
    notes.append(f"change: of GAUC against the reference, tte-p. {SD} {_P}")
    return Table("table4", "Temporal encodings of TIN (the paper's Table 4)", COLUMNS, rows, notes)


@dataclass(frozen=True)
class _Line:
    """What stands in a line of a table, before it is held against another.

    Attributes:
        model: a recipe or a baseline.
        code: the paper's three bits; None for a baseline that only counts.
        encoding: the temporal encoding; None likewise.
        seeds: how many runs; None likewise.
        figures: mean and standard deviation of GAUC, AUC and logloss.
        users: each user's AUC.
    """

    model: str
    code: str | None
    encoding: str | None
    seeds: int | None
    figures: dict[str, float | None]
    users: pl.DataFrame

    @classmethod
    def of(cls, trial: Trial) -> _Line:
        """The line of a model."""
        figures: dict[str, float | None] = {}
        for name in ("gauc", "auc", "logloss"):
            figures[name], figures[f"{name}_sd"] = trial.over_seeds(name)
        case = trial.case
        code = "".join("1" if bit else "0" for bit in RECIPES[case.model].code)
        return cls(case.model, code, case.encoding, len(trial.runs), figures, trial.users)

    @property
    def gauc(self) -> float | None:
        """The mean GAUC."""
        return self.figures["gauc"]

    def row(self, shards: Shards, best: _Line, printed: paper.Figures | None) -> dict[str, Cell]:
        """The line as a row of `_FIGURES`, held against `best` unless it is that."""
        other = self is not best
        theirs: dict[str, float | None] = asdict(printed) if printed else {}
        return {
            **named(shards),
            "model": self.model,
            "code": self.code,
            "encoding": self.encoding,
            "seeds": self.seeds,
            **self.figures,
            "change_pct": change(self.gauc, best.gauc) if other else None,
            "p": paired_p(self.users, best.users) if other else None,
            **{f"paper_{name}": theirs.get(name) for name in _PUBLISHED},
        }


def _counted(shards: Shards) -> list[_Line]:
    """The baselines that only count, on test."""
    lines = []
    for name, baseline in BASELINES.items():
        scored = baseline(shards, "test")
        m = scored.measure()
        figures = {"gauc": m.gauc, "gauc_sd": None, "auc": m.auc, "auc_sd": None}
        figures |= {"logloss": None, "logloss_sd": None}
        users = auc_by_user(scored.user, scored.label, scored.score)
        lines.append(_Line(name, None, None, None, figures, users))
    return lines


def _encoding(model: str, wanted: str | None) -> str:
    own = choose(model, None)[1]
    return choose(model, wanted)[1] if wanted and own.startswith("tte-") else own
