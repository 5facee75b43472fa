"""What a trained model is judged by.

Shape legend: N scored rows, U users with both classes. Scores may be logits or probabilities except
where said: only their order matters. They are finite: `trainer.training.scoring` sees to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import polars as pl
from annotated_types import Ge, Le
from numpy.typing import NDArray

from schemas.checked import STRICT, Count

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
_Share = Annotated[float, Ge(0), Le(1)]


def auc_by_user(user: NDArray[Any], label: Integers, score: Floats) -> pl.DataFrame:
    """AUC of each user who has both classes; a tie between a positive and a negative counts half.

    Args:
        user: user of each row, by id or by name, N.
        label: 1 positive, 0 negative, N.
        score: N.

    Returns:
        `user`, `rows` and `auc` of these users, by user.
    """
    order = np.lexsort((score, user))
    user, positive, score = user[order], label[order] > 0, score[order]
    n = len(user)
    if n == 0:
        return pl.DataFrame(schema={"user": pl.Int64, "rows": pl.Int64, "auc": pl.Float64})
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_tie = new_user | np.r_[True, score[1:] != score[:-1]]
    # The rank of a row within its user, from 1; tied rows share the mean of their ranks.
    tie_start = np.flatnonzero(new_tie)
    tie_size = np.diff(np.r_[tie_start, n])
    user_start = np.flatnonzero(new_user)
    user_size = np.diff(np.r_[user_start, n])
    mean_rank = np.repeat(tie_start + (tie_size + 1) / 2, tie_size)
    rank = mean_rank - np.repeat(user_start, user_size)
    positives = np.add.reduceat(positive.astype(np.int64), user_start)
    negatives = user_size - positives
    rank_sum = np.add.reduceat(np.where(positive, rank, 0.0), user_start)
    both = (positives > 0) & (negatives > 0)
    won = rank_sum[both] - positives[both] * (positives[both] + 1) / 2
    users = user[user_start][both]
    named = users.tolist() if users.dtype.kind in "OUS" else users.astype(np.int64)
    each = {"user": named, "rows": user_size[both]}
    return pl.DataFrame(each | {"auc": won / (positives[both] * negatives[both])})


def gauc_of(users: pl.DataFrame) -> float:
    """The GAUC of what `auc_by_user` returns; NaN where there is no user.

    The mean of the users' AUCs, weighted by their impressions. This is one of several definitions
    in the field (see DIN, KDD 2018, Eq. 7, for the weights).
    """
    if users.is_empty():
        return math.nan
    return float(np.average(users["auc"].to_numpy(), weights=users["rows"].to_numpy()))


def gauc(user: NDArray[Any], label: Integers, score: Floats) -> float:
    """The GAUC of scored rows, each array of N; see `auc_by_user` and `gauc_of`."""
    return gauc_of(auc_by_user(user, label, score))


def mean_by_user(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The mean over runs, e.g. seeds, of each user's AUC; the runs have scored the same rows."""
    return (
        pl.concat(parts).group_by("user").agg(pl.col("rows").first(), pl.mean("auc")).sort("user")
    )


def paired_difference(ours: pl.DataFrame, other: pl.DataFrame) -> tuple[float, float]:
    """How much the GAUC of ours is above the other's, and the standard error of that over users.

    The difference of the GAUCs is the mean of the users' own differences, weighted by their rows.
    Its standard error is sqrt(sum w^2 (d - mean)^2) / sum w. Both are 0 of fewer than two users.

    Args:
        ours: what `auc_by_user` returns, of U users.
        other: the same, of the same users.
    """
    both = ours.join(other, on="user", suffix="_other", validate="1:1")
    weight = both["rows"].to_numpy().astype(np.float64)
    difference = (both["auc"] - both["auc_other"]).to_numpy()
    if len(both) < 2:
        return 0.0, 0.0
    mean = float(np.average(difference, weights=weight))
    error = math.sqrt(float((weight**2 * (difference - mean) ** 2).sum())) / float(weight.sum())
    return mean, error


def paired_p(ours: pl.DataFrame, other: pl.DataFrame) -> float:
    """Two-sided p of "the two have the same GAUC", by the users' differences.

    Their mean is held against its standard error as a normal variable, so U should be in the dozens
    at least; see `paired_difference` for both and for the arguments.

    Returns:
        A number in 0..1: 1 where no user differs, or where there are fewer than two.
    """
    mean, error = paired_difference(ours, other)
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return math.erfc(abs(mean) / error / math.sqrt(2.0))


def auc(label: Integers, score: Floats) -> float:
    """Area under the ROC curve over all rows; NaN where one class is absent.

    It is the share of pairs of a positive and a negative in which the positive scores higher; a tie
    counts half.
    """
    positive = label > 0
    positives = int(positive.sum())
    pairs = positives * (len(label) - positives)
    if not pairs:
        return math.nan
    rank = pl.Series(score).rank("average").to_numpy()  # from 1; tied rows share their mean rank
    return float(rank[positive].sum() - positives * (positives + 1) / 2) / pairs


def logloss(label: Integers, logit: Floats) -> float:
    """Mean cross-entropy in nats of logits, whatever their size; NaN where there is no row."""
    if len(label) == 0:
        return math.nan
    wrong = np.where(label > 0, -1.0, 1.0) * logit.astype(np.float64)
    return float(np.logaddexp(0.0, wrong).mean())


def pair_accuracy(user: Integers, label: Integers, score: Floats) -> float | None:
    """Share of users whose positive scores strictly higher than their negative.

    What the released code prints as GAUC: each user has one positive and one negative there.

    Returns:
        A number in 0..1, or None where some user has not exactly one of each.
    """
    order = np.lexsort((label, user))
    user, label, score = user[order], label[order], score[order]
    if len(user) == 0 or len(user) % 2:
        return None
    pairs = (
        (user[0::2] == user[1::2]).all()
        and (user[2::2] != user[1:-1:2]).all()
        and (label[0::2] == 0).all()
        and (label[1::2] == 1).all()
    )
    return float((score[1::2] > score[0::2]).mean()) if pairs else None


MEASURES = {"gauc": "GAUC", "pair_accuracy": "pair accuracy", "auc": "AUC", "logloss": "logloss"}
"""What of `Metrics` logs, terminals and reports show, by name: what people call it."""


@dataclass(frozen=True)
class Metrics:
    """All metrics of one split; None where one does not apply to its rows.

    GAUC and AUC are of the logits, in which no two different scores round to one probability. A
    `metrics.json` may be older than a metric, so each has a default.
    """

    __pydantic_config__ = STRICT
    rows: Count
    users: Count
    gauc: _Share | None = None
    pair_accuracy: _Share | None = None
    auc: _Share | None = None
    logloss: Annotated[float, Ge(0)] | None = None


def evaluate(user: Integers, label: Integers, logit: Floats) -> Metrics:
    """Compute every metric of scored rows, each array of N; logits are finite."""
    return Metrics(
        rows=len(user),
        users=len(np.unique(user)),
        gauc=_number(gauc(user, label, logit)),
        pair_accuracy=pair_accuracy(user, label, logit),
        auc=_number(auc(label, logit)),
        logloss=_number(logloss(label, logit)),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
