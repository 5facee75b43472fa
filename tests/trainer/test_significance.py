from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trainer.metrics import gauc
from trainer.significance import auc_by_user, gauc_of, mean_by_user, paired_p

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40
)


@settings(deadline=None)
@given(ROWS)
def test_the_users_average_is_gauc_and_each_is_its_pairs(rows):
    user, label, score = (np.array(column) for column in zip(*rows, strict=True))
    users = auc_by_user(user, label, score.astype(float))
    expected = gauc(user, label, score.astype(float))
    assert gauc_of(users) == pytest.approx(expected, nan_ok=True)
    for line in users.iter_rows(named=True):
        own = [(y, s) for u, y, s in rows if u == line["user"]]
        pairs = [(p, n) for a, p in own if a for b, n in own if not b]
        won = np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])
        assert (line["rows"], line["auc"]) == (len(own), pytest.approx(won))


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
