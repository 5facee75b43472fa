"""Each attention against an independent, slow, obvious version of itself."""

from __future__ import annotations

import math

import torch
from torch import nn

from tests.trainer.behaviours import CLOSE, LENGTHS, drawn, some
from trainer.models.attention import ActivationUnit, AtTarget, Bilinear, Last, ScaledDotProduct


def softmax(scores: list[float]) -> list[float]:
    total = sum(map(math.exp, scores))
    return [math.exp(s) / total for s in scores]


def check_attention(attention: nn.Module, score) -> None:
    """Compare with a softmax over the real behaviours of `score(x, t)`."""
    x, t, mask = some()
    found = attention(x, t, mask).detach()
    for b, n in enumerate(LENGTHS):
        expected = softmax([score(x[b, i], t[b]).item() for i in range(n)])
        torch.testing.assert_close(found[b, :n], torch.tensor(expected), **CLOSE)
        assert (found[b, n:] == 0).all()


def test_scaled_dot_product():
    check_attention(ScaledDotProduct(8), lambda x, t: x @ t / math.sqrt(8))


def test_bilinear():
    part = drawn(Bilinear(8))
    check_attention(part, lambda x, t: x @ part.form @ t)


def test_activation_unit():
    part = drawn(ActivationUnit(8))

    def score(x, t):
        h = torch.sigmoid(part.first(torch.cat([x, t, x - t, x * t])))
        return part.last(torch.sigmoid(part.second(h))) / math.sqrt(8)

    check_attention(part, score)


def test_last_is_the_newest_behaviour():
    x, t, mask = some()
    found = Last()(x, t, mask)
    assert found.argmax(1).tolist() == [2, 0, 4, 0]
    assert found.sum(1).tolist() == [1, 0, 1, 1]


def test_at_target_sees_nothing_where_only_the_target_is():
    state, t, _ = some()
    there = torch.tensor([[True], [False], [True], [True]])
    assert AtTarget()(state[:, :1], t, there).tolist() == [[1], [0], [1], [1]]
