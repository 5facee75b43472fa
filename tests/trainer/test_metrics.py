from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import log_loss, roc_auc_score

from trainer.metrics import auc, evaluate, gauc, mean_by_user, pair_accuracy, paired_p

scored = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=60
)


def slow_gauc(rows: list[tuple[int, int, int]]) -> float:
    total, weight = 0.0, 0
    for user in {u for u, _, _ in rows}:
        positives = [s for u, y, s in rows if u == user and y]
        negatives = [s for u, y, s in rows if u == user and not y]
        if positives and negatives:
            won = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
            size = len(positives) + len(negatives)
            total += size * won / (len(positives) * len(negatives))
            weight += size
    return total / weight if weight else math.nan


@given(scored)
def test_gauc_is_its_definition(rows):
    user, label, score = (np.array(x) for x in zip(*rows, strict=True))
    assert gauc(user, label, score.astype(np.float32)) == pytest.approx(
        slow_gauc(rows), abs=1e-12, nan_ok=True
    )


@given(scored)
def test_gauc_of_one_user_is_auc(rows):
    _, label, score = (np.array(x) for x in zip(*rows, strict=True))
    expected = roc_auc_score(label, score) if len(set(label)) == 2 else math.nan
    assert gauc(np.zeros(len(label), int), label, score) == pytest.approx(expected, nan_ok=True)
    assert auc(label, score) == pytest.approx(expected, nan_ok=True)


def test_users_weigh_by_impressions_and_one_class_is_skipped():
    user = np.array([1, 1, 2, 2, 2, 2, 3, 3])
    label = np.array([1, 0, 1, 0, 0, 0, 1, 1])
    score = np.array([0.9, 0.1, 0.0, 0.5, 0.6, 0.7, 0.1, 0.2])
    assert gauc(user, label, score) == pytest.approx((2 * 1.0 + 4 * 0.0) / 6)


def test_pair_accuracy_counts_strictly_higher_and_ties_do_not_win():
    user = np.array([7, 3, 3, 7, 5, 5])
    label = np.array([0, 1, 0, 1, 1, 0])
    score = np.array([0.2, 0.9, 0.1, 0.1, 0.5, 0.5])
    assert pair_accuracy(user, label, score) == pytest.approx(1 / 3)
    assert gauc(user, label, score) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("user", "label"),
    [
        ([1, 1, 2], [1, 0, 1]),
        ([1, 1, 2, 2], [1, 1, 0, 1]),
        ([1, 1, 1, 1], [1, 0, 1, 0]),
        ([1, 2, 2, 2], [0, 1, 0, 1]),
        ([], []),
    ],
)
def test_pair_accuracy_needs_one_of_each(user, label):
    score = np.zeros(len(user))
    assert pair_accuracy(np.array(user), np.array(label), score) is None


def test_evaluate_takes_logits():
    rng = np.random.default_rng(0)
    user, label = rng.integers(0, 9, 200), rng.integers(0, 2, 200)
    logit = rng.normal(size=200).astype(np.float32) * 3
    m = evaluate(user, label, logit)
    p = 1 / (1 + np.exp(-logit.astype(float)))
    assert (m.rows, m.users) == (200, 9)
    assert m.logloss == pytest.approx(log_loss(label, p))
    assert m.auc == pytest.approx(roc_auc_score(label, logit))
    assert m.pair_accuracy is None


def test_metrics_that_do_not_exist_are_none():
    m = evaluate(np.array([1, 2]), np.array([1, 1]), np.array([900.0, -900.0]))
    assert (m.gauc, m.auc, m.pair_accuracy) == (None, None, None)
    assert m.logloss == 450  # of the second row alone, and not cut


def users(aucs, rows=None):
    n = len(aucs)
    return pl.DataFrame({"user": range(n), "rows": [2] * n if rows is None else rows, "auc": aucs})


def test_equal_weights_give_the_paired_z_test():
    rng = np.random.default_rng(0)
    a, b = rng.random(300), rng.random(300) - 0.03
    d = a - b
    z = d.mean() / (d.std() / np.sqrt(300))
    p = paired_p(users(a), users(b))
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.1)
    assert paired_p(users(b), users(a)) == pytest.approx(p)


def test_users_of_more_rows_weigh_more():
    # Half of the users gain what the other half loses: nothing, unless one half weighs more.
    a, b, heavy = [0.6, 0.4] * 50, [0.5] * 100, [20, 1] * 50
    assert paired_p(users(a), users(b)) == pytest.approx(1.0)
    assert paired_p(users(a, heavy), users(b, heavy)) < 0.001


def test_no_difference_is_p_of_one_and_a_constant_one_is_none():
    a = users([0.2, 0.7, 1.0])
    assert paired_p(a, a) == 1.0
    assert paired_p(users([0.5, 0.5]), users([0.25, 0.25])) == 0.0
    assert paired_p(users([0.5]), users([0.25])) == 1.0


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(1)
    rows = rng.integers(2, 20, 200)
    drawn = []
    for _ in range(300):
        truth = rng.random(200)
        a, b = (truth + rng.normal(0, 0.1, 200) for _ in range(2))
        drawn.append(paired_p(users(a, rows), users(b, rows)))
    assert stats.kstest(drawn, "uniform").pvalue > 0.01


def test_mean_by_user_is_over_runs():
    found = mean_by_user([users([0.0, 1.0]), users([0.5, 0.5])])
    assert found["auc"].to_list() == [0.25, 0.75]
    assert found["rows"].to_list() == [2, 2]
