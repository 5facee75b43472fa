"""Each part of the transformers against an independent, slow, obvious version of itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trainer.behaviours import CLOSE, LENGTHS, drawn, some
from trainer.models.transformer import (
    Block,
    CausalTransformer,
    FullTransformer,
    SelfAttention,
    TargetTransformer,
)


@pytest.mark.parametrize(("heads", "causal"), [(1, True), (2, False), (4, True)])
def test_self_attention_is_torch_s(heads, causal):
    part = drawn(SelfAttention(8, heads, causal))
    theirs = nn.MultiheadAttention(8, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(part.inward.weight)
        theirs.in_proj_bias.copy_(part.inward.bias)
        theirs.out_proj.weight.copy_(part.outward.weight)
        theirs.out_proj.bias.copy_(part.outward.bias)
    x, _, mask = some()
    found = part(x, mask)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    for b, n in enumerate(LENGTHS):
        if n:
            one = x[b : b + 1, :n]
            hidden = None if later is None else later[:n, :n]
            expected, _ = theirs(one, one, one, attn_mask=hidden)
            torch.testing.assert_close(found[b, :n], expected[0], **CLOSE)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_one_place_of_a_block_is_that_of_all_and_so_are_its_gradients(heads):
    part = drawn(Block(8, heads, inner=2))
    x, _, mask = some()
    x.requires_grad_()
    rows, places = torch.tensor([0, 2, 3]), torch.tensor([2, 4, 0])
    found = part.one(x[rows, places], x[rows], mask[rows])
    expected = part(x, mask)[rows, places]
    torch.testing.assert_close(found, expected, **CLOSE)
    wanted = (x, *part.parameters())
    ours, theirs = (
        torch.autograd.grad(y.pow(2).sum(), wanted, retain_graph=True) for y in (found, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"inner": 4}, {}),  # BERT4Rec's and BST's order
        ({"inner": 1, "before": True, "causal": True}, {"norm_first": True}),  # SASRec's
        ({"inner": 4, "activation": nn.GELU}, {"activation": "gelu"}),
    ],
)
def test_a_block_is_torch_s_encoder_layer(options, theirs):
    part = drawn(Block(8, 2, **options))
    layer = nn.TransformerEncoderLayer(
        8, 2, 8 * options["inner"], dropout=0.0, batch_first=True, **theirs
    )
    ours = {
        "self_attn.in_proj_": part.attention.inward,
        "self_attn.out_proj.": part.attention.outward,
        "linear1.": part.alone[0],
        "linear2.": part.alone[2],
        "norm1.": part.norms[0],
        "norm2.": part.norms[1],
    }
    layer.load_state_dict(
        {name + kind: getattr(p, kind) for name, p in ours.items() for kind in ("weight", "bias")}
    )
    x, _, mask = some()
    found = part(x, mask)
    for b, n in enumerate(LENGTHS):
        if n:
            hidden = torch.ones(n, n, dtype=torch.bool).triu(1) if "causal" in options else None
            expected = layer(x[b : b + 1, :n], src_mask=hidden)[0]
            torch.testing.assert_close(found[b, :n], expected, **CLOSE)


def test_sasrec_s_states_see_nothing_that_comes_after_them():
    part = drawn(CausalTransformer(8))
    x, t, mask = some()
    found, there = part(x, t, mask)
    assert there.equal(mask)
    for b, n in enumerate(LENGTHS):
        for i in range(n):  # each as if it were the last
            state = x[b : b + 1, : i + 1]
            for block in part.blocks:
                state = block(state, torch.ones(1, i + 1, dtype=torch.bool))
            torch.testing.assert_close(found[b, i], part.norm(state)[0, -1], **CLOSE)
    full = torch.ones(4, 5, dtype=torch.bool)
    moved = x.clone()
    moved[:, 4] += 1.0
    everything = drawn(FullTransformer(8))
    assert not torch.allclose(
        everything(x, t, full)[0][:, :4], everything(moved, t, full)[0][:, :4], atol=1e-6
    )


def test_bst_s_state_is_the_target_s_among_the_behaviours():
    part = drawn(TargetTransformer(8))
    x, t, mask = some()
    state, there = part(x, t, mask)
    assert there.flatten().tolist() == [n > 0 for n in LENGTHS]
    for b, n in enumerate(LENGTHS):
        everything = torch.cat([t[b : b + 1], x[b, :n]])[None]
        expected = part.block(everything, torch.ones(1, n + 1, dtype=torch.bool))
        torch.testing.assert_close(state[b, 0], expected[0, 0], **CLOSE)
    moved = x.clone()
    moved[~mask] = 5.0
    torch.testing.assert_close(part(moved, t, mask)[0], state)
