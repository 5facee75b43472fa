"""What a trained model is judged by.

Shape legend: N scored rows. Scores may be logits or probabilities except where said: only their
order matters. They are finite: `trainer.scoring` sees to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def gauc(user: Integers, label: Integers, score: Floats) -> float:
    """AUC per user, averaged with the users' impressions as weights.

    Users with only one class are skipped; a tie between a positive and a negative counts half.
    This is one of several definitions in the field (see DIN, KDD 2018, Eq. 7, for the weights).

    Args:
        user: user of each row, N.
        label: 1 positive, 0 negative, N.
        score: N.

    Returns:
        A number in 0..1, or NaN where no user has both classes.
    """
    order = np.lexsort((score, user))
    user, positive, score = user[order], label[order] > 0, score[order]
    n = len(user)
    if n == 0:
        return math.nan
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
    if not both.any():
        return math.nan
    won = rank_sum[both] - positives[both] * (positives[both] + 1) / 2
    per_user = won / (positives[both] * negatives[both])
    return float(np.average(per_user, weights=user_size[both]))


def auc(label: Integers, score: Floats) -> float:
    """Area under the ROC curve over all rows; NaN where one class is absent."""
    if len(np.unique(label)) < 2:
        return math.nan
    return float(roc_auc_score(label, score))


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


@dataclass(frozen=True)
class Metrics:
    """All metrics of one split; None where one does not apply to its rows.

    GAUC and AUC are of the logits, in which no two different scores round to one probability.
    """

    rows: int
    users: int
    gauc: float | None
    pair_accuracy: float | None
    auc: float | None
    logloss: float | None


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
