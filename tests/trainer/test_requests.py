"""One history for many candidates: what is scored so is what rows of the same history are."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.behaviours import CLOSE, drawn
from trainer.models import attention, recipes, recurrent, transformer

WIDTH, LONGEST = 8, 5
ATTENTIONS = [
    attention.ScaledDotProduct,
    attention.Bilinear,
    attention.ActivationUnit,
    attention.Uniform,
    attention.TriangularMean,
    attention.Last,
    attention.AtTarget,
]
CONTEXTS = [
    recipes.NoContext,
    recipes.BesideTarget,
    recurrent.GRUStates,
    recurrent.ReleasedGRUs,
    recurrent.BiLSTM,
    transformer.CausalTransformer,
    transformer.FullTransformer,
    transformer.TargetTransformer,
]
POOLS = [attention.WeightedSum, recurrent.AUGRU, recurrent.ReleasedAUGRU]


@pytest.mark.parametrize("length", [0, 1, LONGEST])
@pytest.mark.parametrize("candidates", [1, 3])
def test_parts_read_one_history_for_all_candidates(candidates, length):
    x, t = torch.randn(1, LONGEST, WIDTH), torch.randn(candidates, WIDTH)
    mask = torch.arange(LONGEST)[None] < length
    for context in map(drawn, (build(WIDTH) for build in CONTEXTS)):
        states = context(x, t, mask)
        of_rows = context(x.repeat(candidates, 1, 1), t, mask.repeat(candidates, 1))
        for one, each in zip(states, of_rows, strict=True):
            torch.testing.assert_close(one.expand_as(each), each, **CLOSE)
        for weigh in map(drawn, (build(WIDTH) for build in ATTENTIONS)):
            weights = weigh(states[0], t, states[1])
            each = weigh(of_rows[0], t, of_rows[1])
            torch.testing.assert_close(weights.expand_as(each), each, **CLOSE)
            for pool in map(drawn, (build(WIDTH) for build in POOLS)):
                one = pool(states[0], weights, states[1])
                expected = pool(of_rows[0], each, of_rows[1])
                torch.testing.assert_close(one.expand_as(expected), expected, **CLOSE)
