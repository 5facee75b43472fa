"""Whether one model ranks the same users' targets better than another: a paired test over users.

Shape legend: N scored rows, U users with both classes.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from trainer.metrics import Floats, Integers

_COLUMNS = {"user": pl.Int64, "rows": pl.Int64, "auc": pl.Float64}


def auc_by_user(user: Integers, label: Integers, score: Floats) -> pl.DataFrame:
    """AUC of each user who has both classes, ties half.

    The mean of `auc` weighted by `rows` is `metrics.gauc`.

    Args:
        user: user of each row, N.
        label: 1 positive, 0 negative, N.
        score: N.

    Returns:
        `user`, `rows` and `auc` of U users, by user.
    """
    frame = pl.DataFrame({"user": user, "positive": label > 0, "score": score})
    rank = pl.col("score").rank("average").over("user")
    positives = pl.col("positive").sum().cast(pl.Float64)
    negatives = pl.len() - positives
    rank_sum = pl.col("rank").filter(pl.col("positive")).sum()
    return (
        frame.with_columns(rank.alias("rank"))
        .group_by("user")
        .agg(
            rows=pl.len(),
            auc=(rank_sum - positives * (positives + 1) / 2) / (positives * negatives),
        )
        .filter(pl.col("auc").is_finite())
        .select(pl.col(name).cast(kind) for name, kind in _COLUMNS.items())
        .sort("user")
    )


def gauc_of(users: pl.DataFrame) -> float:
    """The GAUC of what `auc_by_user` returns; NaN where there is no user."""
    if users.is_empty():
        return math.nan
    return float(np.average(users["auc"].to_numpy(), weights=users["rows"].to_numpy()))


def mean_by_user(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The mean over runs, e.g. seeds, of each user's AUC; the runs have scored the same rows."""
    return (
        pl.concat(parts).group_by("user").agg(pl.col("rows").first(), pl.mean("auc")).sort("user")
    )


def paired_p(ours: pl.DataFrame, other: pl.DataFrame) -> float:
    """Two-sided p of "the two have the same GAUC", by the users' differences.

    The difference of the GAUCs is the mean of the users' own differences weighted by their rows.
    It is held against its standard error over users, sqrt(sum w^2 (d - mean)^2) / sum w, as a
    normal variable, so U should be in the dozens at least.

    Args:
        ours: `user`, `rows` and `auc` of U users.
        other: those of the same users.

    Returns:
        A number in 0..1: 1 where no user differs, or where there are fewer than two.
    """
    both = ours.join(other, on="user", suffix="_other", validate="1:1")
    weight = both["rows"].to_numpy().astype(np.float64)
    difference = (both["auc"] - both["auc_other"]).to_numpy()
    if len(both) < 2:
        return 1.0
    mean = float(np.average(difference, weights=weight))
    error = math.sqrt(float((weight**2 * (difference - mean) ** 2).sum())) / float(weight.sum())
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return math.erfc(abs(mean) / error / math.sqrt(2.0))
