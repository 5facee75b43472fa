"""What each part of a row is worth to a trained model: how much worse it ranks with it permuted.

A part is a feature, a field of the target, or a whole history. Permuted, each row has the part of
another row of the split, drawn by chance, and everything else of its own. What a part says beside
the others is then lost, and how often each value occurs is kept (Breiman 2001; Fisher et al. 2019).
Parts that say the same stand in for one another: permuted one by one they seem worth little.

Legend: N rows of the split, U users with both classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
from annotated_types import Ge, Le
from rich.table import Table

from schemas.checked import OPEN, Count
from schemas.errors import UsageError
from schemas.plain import printable
from trainer.data.batches import Index, Rows
from trainer.data.facts import columns_of, session_columns_of
from trainer.data.shards import Shards
from trainer.files import atomically
from trainer.metrics import (
    auc_by_user,
    evaluate,
    gauc_of,
    mean_by_user,
    paired_difference,
    paired_p,
)
from trainer.models.base import TARGET, InterestModel
from trainer.training.evaluation import alike, data_of
from trainer.training.ranks import device_of
from trainer.training.runs import IMPORTANCE, load, read_json
from trainer.training.scoring import logits_of

Kind = Literal["feature", "field", "history"]
KINDS: tuple[Kind, ...] = ("feature", "field", "history")
_P = Annotated[float, Ge(0), Le(1)]
_ABOUT = (
    "each part permuted among the rows; ±: standard error over users; p: of no change, paired over "
    "users, held against all parts (Holm)"
)


@dataclass(frozen=True)
class Part:
    """What permuting one part of the rows does.

    Attributes:
        kind: `feature`, `field` or `history`.
        name: which.
        gauc: how much GAUC falls, the mean over draws.
        error: its standard error over users.
        draws: of the mean over draws, its standard error over draws; 0 of one draw.
        p: two-sided, of "GAUC does not change", paired over users, times how many parts there are
            that did as well or worse (Holm): a small one is small beside all that was measured.
        auc: how much AUC falls.
        logloss: how much logloss rises, nats.
    """

    kind: Kind
    name: str
    gauc: float
    error: float
    draws: float
    p: _P
    auc: float
    logloss: float


@dataclass(frozen=True)
class Importance:
    """What was measured of a run.

    Attributes:
        measured: on which split.
        rows: its rows.
        users: those with both classes.
        gauc: of the rows as they are.
        parts: the most important first.
    """

    __pydantic_config__ = OPEN
    measured: str
    rows: Count
    users: Count
    draws: Count
    seed: Count
    gauc: float
    parts: list[Part]


def importance(
    run: Path | str,
    by: str | None = None,
    *,
    split: str = "valid",
    draws: int = 5,
    seed: int = 0,
    data: Path | str | None = None,
    device: str = "cpu",
    told: Callable[[int, int], object] = lambda done, of: None,
) -> Importance:
    """Measure what the parts of a row are worth to a run's kept weights, and keep it in the run.

    The split is held in memory. Every part is permuted by the same draws.

    Args:
        run: folder of the run; `importance.json` is written there.
        by: which kind of parts, one of `KINDS`; None for all.
        draws: permutations of each part.
        data: folder of the data set; the one that the run was trained on by default.
        device: `cpu` or `cuda`.
        told: is told how many of how many parts are done.

    Raises:
        InputError: there is no such run or data set, or it is damaged.
        UsageError: no such kind or split, the model reads no such part, or no user of the split has
            both classes.
        ContractError: the data set does not mean what that of the training meant.
    """
    where, folder = device_of(device), Path(run)
    _require(by is None or by in KINDS, "--by", ", ".join(KINDS), str(by))
    _require(draws > 0, "--draws", "1 or more", str(draws))
    model = load(folder, where).eval()
    shards = alike(model, Path(data) if data is not None else data_of(folder))
    kinds = KINDS if by is None else tuple(kind for kind in KINDS if kind == by)
    parts = [(kind, name, of) for kind in kinds for name, of in _parts(model, shards, kind).items()]
    _require(bool(parts), "--by", "a kind of parts that the model reads", str(by))
    rows = shards.split(split, (*model.columns, "user", "label"))
    user, label = (rows.scalars[name].astype(np.int64) for name in ("user", "label"))

    def measured(of: Rows) -> tuple[float, float, pl.DataFrame]:
        score = logits_of(model, of, where)
        found = evaluate(user, label, score)
        assert found.logloss is not None
        return found.auc or 0.5, found.logloss, auc_by_user(user, label, score)

    auc, logloss, base = measured(rows)
    _require(not base.is_empty(), "--split", "a split with users of both classes", split)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(rows)) for _ in range(draws)]
    found: list[Part] = []
    for done, (kind, name, of) in enumerate(parts):
        told(done, len(parts))
        each = [measured(_permuted(rows, of, order)) for order in orders]
        by_user = mean_by_user([one for *_, one in each])
        falls = [gauc_of(base) - gauc_of(one) for *_, one in each]
        gauc, error = paired_difference(base, by_user)
        found.append(
            Part(
                kind=kind,
                name=name,
                gauc=gauc,
                error=error,
                draws=float(np.std(falls, ddof=1) / np.sqrt(draws)) if draws > 1 else 0.0,
                p=paired_p(base, by_user),
                auc=auc - float(np.mean([one for one, *_ in each])),
                logloss=float(np.mean([one for _, one, _ in each])) - logloss,
            )
        )
    result = Importance(
        split, len(rows), len(base), draws, seed, gauc_of(base),
        sorted(_held(found), key=lambda part: -part.gauc),
    )  # fmt: skip
    text = json.dumps(asdict(result), indent=1) + "\n"
    atomically(folder / IMPORTANCE, lambda path: path.write_text(text, encoding="utf-8"))
    return result


def importance_table(run: Path, found: Importance) -> Table:
    """What was measured, for a terminal."""
    about = f"{run} on {found.rows:,} rows of {found.measured}: GAUC {found.gauc:.4f}"
    table = Table(title=f"{about}, {found.draws} draws a part", caption=_ABOUT)
    table.add_column("part", no_wrap=True)
    table.add_column("kind")
    for name in ("GAUC falls by", "p", "AUC", "logloss rises"):
        table.add_column(name, justify="right", no_wrap=not name.endswith("s"))
    for part in found.parts:
        p = "< 0.0001" if part.p < 1e-4 else f"{part.p:.4f}"
        falls = f"{part.gauc:.4f} ± {part.error:.4f}"
        more = (f"{part.auc:.4f}", f"{part.logloss:.4f}")
        table.add_row(printable(part.name), part.kind, falls, p, *more)
    return table


def importance_of(run: Path) -> Importance | None:
    """What was measured of a run before; None where nothing was.

    Raises:
        InputError: the file cannot be read.
    """
    if not (run / IMPORTANCE).exists():
        return None
    return read_json(run / IMPORTANCE, Importance, do="measure it again")


def _parts(model: InterestModel, shards: Shards, kind: Kind) -> dict[str, frozenset[str]]:
    """The parts of a kind, by name: the columns of each that batches have, as the model reads."""
    inputs, read = model.inputs, {*model.columns}
    if kind == "field":
        return {n: frozenset([TARGET + n]) for n in inputs.fields if TARGET + n in read}
    if kind == "feature":
        of_lists = {name: frozenset([name, f"{name}_length"]) for name in inputs.lists}
        one = {name: frozenset([name]) for name in (*inputs.others, *inputs.numbers)}
        return {name: of for name, of in (one | of_lists).items() if of <= read}
    histories = {called: shards.facts.histories[called] for called in inputs.histories}
    names = [*histories]
    if len(shards.facts.histories) == 1:  # batches have a name of their own for it
        names = [shards.facts.called or next(iter(shards.manifest.histories))]
    return {
        name: frozenset((*columns_of(called, made), *session_columns_of(called, made)))
        for name, (called, made) in zip(names, histories.items(), strict=True)
    }


def _permuted(rows: Rows, columns: frozenset[str], order: Index) -> Rows:
    """The rows, some columns of which are those of others."""
    return Rows(
        {n: a[order] if n in columns else a for n, a in rows.scalars.items()},
        {n: a[order] if n in columns else a for n, a in rows.matrices.items()},
        {
            called: runs.take(order) if f"{called}_length" in columns else runs
            for called, runs in rows.histories.items()
        },
    )


def _held(parts: list[Part]) -> Iterable[Part]:
    """The parts with each p held against all (Holm 1979)."""
    largest = 0.0
    for place, part in enumerate(sorted(parts, key=lambda one: one.p)):
        largest = max(largest, min(1.0, part.p * (len(parts) - place)))
        yield replace(part, p=largest)


def _require(fine: bool, where: str, expected: str, got: str) -> None:
    if not fine:
        what = "The importance of a row's parts cannot be measured so."
        raise UsageError(what, where=where, expected=expected, got=got)
