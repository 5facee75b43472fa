"""The values copied from the paper, against the changes that it prints of them."""

from __future__ import annotations

import pytest

from trainer.analysis import paper

# The paper prints each change against its first line: a check on how its values were copied.
CHANGES = {
    paper.AMAZON: {
        "avg_product": (-1.71, 0.92),
        "din_prime": (-2.14, 1.08),
        "din": (-4.18, 1.72),
        "gru4rec": (-2.89, 1.53),
        "sasrec": (-1.45, 0.62),
        "bert4rec": (-1.53, 0.66),
        "dien": (-2.06, 1.72),
        "dsin": (-3.71, 1.74),
        "bst": (-1.18, 0.65),
        "tin": (-5.54, 2.18),
        "tin_wo_tte": (-3.18, 1.17),
        "tin_wo_ta": (-3.06, 1.43),
        "tin_wo_tr": (-3.36, 1.55),
    },
    paper.ALIBABA: {
        "avg_product": (-0.46, 0.53),
        "din_prime": (-0.36, 0.36),
        "din": (-0.30, 0.64),
        "gru4rec": (0.15, 0.28),
        "sasrec": (-0.51, 0.28),
        "bert4rec": (-0.41, 0.36),
        "dien": (0.20, 0.56),
        "dsin": (-0.25, 0.53),
        "bst": (-0.51, 0.36),
        "tin": (-0.76, 1.15),
        "tin_wo_tte": (-0.30, 1.00),
        "tin_wo_ta": (-0.46, 0.33),
        "tin_wo_tr": (-0.20, 0.87),
    },
}


@pytest.mark.parametrize("dataset", CHANGES)
def test_the_papers_values_give_its_changes(dataset):
    lines = paper.TABLE1[dataset]
    assert set(lines) == {"avg_concat", *CHANGES[dataset]}
    first = lines["avg_concat"]
    for name, (logloss, gauc) in CHANGES[dataset].items():
        line = lines[name]
        assert 100 * (line.logloss / first.logloss - 1) == pytest.approx(logloss, abs=0.02)
        assert 100 * (line.gauc / first.gauc - 1) == pytest.approx(gauc, abs=0.02)
    assert paper.TABLE4[dataset]["tte-p"].gauc == lines["tin"].gauc
