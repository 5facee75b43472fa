"""Each part against an independent, slow, obvious version of itself."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from schemas.errors import ContractError
from tests.trainer.batches import INPUTS, WITH_SESSIONS
from trainer.attention import ActivationUnit, AtTarget, Bilinear, Last, ScaledDotProduct
from trainer.encodings import ENCODINGS, Chronological, Timestamp
from trainer.recurrent import AUGRU, BiLSTM, GRUStates, NextBehaviour
from trainer.sessions import SessionCells, SessionInterests
from trainer.transformer import (
    Block,
    CausalTransformer,
    FullTransformer,
    SelfAttention,
    TargetTransformer,
)

LENGTHS = [3, 0, 5, 1]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def some(width: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Behaviours with rubbish in the padding, targets, mask."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 5, width, generator=g)
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    return x, torch.randn(4, width, generator=g), mask


def drawn(part: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for p in part.parameters():
            p.copy_(torch.randn_like(p) * 0.4)
    return part


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


def augru_step_by_step(part, x, a):
    """DIEN, Eqs. 14 to 16, one number of one gate after another."""
    h = torch.zeros(8)
    (wr, wu, wn), (vr, vu, vn) = (m.weight.chunk(3) for m in (part.of_input, part.of_state))
    (br, bu, bn), (cr, cu, cn) = (m.bias.chunk(3) for m in (part.of_input, part.of_state))
    for i in range(len(x)):
        r = torch.sigmoid(wr @ x[i] + br + vr @ h + cr)
        u = a[i] * torch.sigmoid(wu @ x[i] + bu + vu @ h + cu)
        n = torch.tanh(wn @ x[i] + bn + r * (vn @ h + cn))
        h = (1 - u) * h + u * n
    return h


def test_augru_is_its_equations_and_so_are_its_gradients():
    part = drawn(AUGRU(8))
    x, _, mask = some()
    x.requires_grad_()
    raw = torch.rand(4, 5).requires_grad_()
    weights = raw * mask
    found = part(x, weights)
    expected = torch.stack(
        [augru_step_by_step(part, x[b, :n], weights[b, :n]) for b, n in enumerate(LENGTHS)]
    )
    torch.testing.assert_close(found, expected, **CLOSE)
    wanted = (x, raw, *part.parameters())
    ours, theirs = (
        torch.autograd.grad(y.pow(2).sum(), wanted, retain_graph=True) for y in (found, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_augru_with_full_weights_is_torch_s_gru_with_its_update_turned():
    part, gru = drawn(AUGRU(8)), nn.GRU(8, 8, batch_first=True)
    x, _, _ = some()
    sign = torch.ones(24).index_fill_(0, torch.arange(8, 16), -1.0)
    with torch.no_grad():
        for name, layer in (("ih", part.of_input), ("hh", part.of_state)):
            getattr(gru, f"weight_{name}_l0").copy_(layer.weight * sign[:, None])
            getattr(gru, f"bias_{name}_l0").copy_(layer.bias * sign)
    expected = gru(x)[1][0]
    torch.testing.assert_close(part(x, torch.ones(4, 5)), expected, **CLOSE)


def test_a_weight_of_0_among_others_leaves_augru_s_state_as_it_is():
    part = drawn(AUGRU(8))
    x, _, _ = some()
    weights = torch.tensor([[0.0, 0.7, 0.0, 0.2, 0.0]] * 4)
    torch.testing.assert_close(part(x, weights), part(x[:, [1, 3]], weights[:, [1, 3]]), **CLOSE)
    assert (part(x, torch.zeros(4, 5)) == 0).all()


def test_gru_states_are_torch_s_and_0_in_the_padding():
    part = drawn(GRUStates(8))
    x, t, mask = some()
    found, _ = part(x, t, mask)
    expected, _ = part.gru(x)
    torch.testing.assert_close(found[mask], expected[mask], **CLOSE)
    assert (found[0, 3:] == 0).all()


def test_gru_states_ignore_what_follows():
    part = drawn(GRUStates(8))
    x, t, mask = some()
    states, _ = part(x, t, mask)
    later = x.clone()
    later[:, 3:] = 9.0
    changed, _ = part(later, t, mask)
    torch.testing.assert_close(changed[:, :3], states[:, :3])
    assert not torch.allclose(changed[:, 3:], states[:, 3:])


def test_bi_lstm_is_torch_s_over_packed_sequences():
    part, both = BiLSTM(8), nn.LSTM(8, 8, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for lstm, suffix in ((part.onward, ""), (part.homeward, "_reverse")):
            for name, p in lstm.named_parameters():
                getattr(both, name + suffix).copy_(p)
    x, t, mask = some()
    found, _ = part(x, t, mask)
    rows = [b for b, n in enumerate(LENGTHS) if n]
    oldest_first = [x[b, : LENGTHS[b]].flip(0) for b in rows]
    packed = pack_padded_sequence(
        nn.utils.rnn.pad_sequence(oldest_first, batch_first=True),
        torch.tensor([LENGTHS[b] for b in rows]),
        batch_first=True,
        enforce_sorted=False,
    )
    expected, _ = pad_packed_sequence(both(packed)[0], batch_first=True)
    for b, out in zip(rows, expected, strict=True):
        n = LENGTHS[b]
        mean = (out[:n, :8] + out[:n, 8:]) / 2
        torch.testing.assert_close(found[b, :n], mean.flip(0), **CLOSE)


def test_next_behaviour_term_by_term():
    x, _, mask = some()
    states = torch.randn(4, 5, 8)
    found = NextBehaviour()(states, x, mask)
    cells = [(b, i) for b, n in enumerate(LENGTHS) for i in range(n)]
    shift = len(cells) // 2
    for b, n in enumerate(LENGTHS):
        total = 0.0
        for i in range(1, n):
            other = cells[cells.index((b, i)) - shift]
            h = states[b, i - 1]
            total -= math.log(torch.sigmoid(h @ x[b, i]))
            if other[0] != b:
                total -= math.log(1 - torch.sigmoid(h @ x[other]))
        assert float(found[b]) == pytest.approx(total / max(1, n - 1), rel=1e-4)


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


@pytest.mark.parametrize(("heads", "before"), [(1, True), (2, False), (4, True)])
def test_one_place_of_a_block_is_that_of_all_and_so_are_its_gradients(heads, before):
    part = drawn(Block(8, heads, before=before, inner=2))
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


def test_sasrec_s_state_is_the_last_behaviour_s_and_its_first_block_hides_the_future():
    part = drawn(CausalTransformer(8))
    x, t, mask = some()
    found, there = part(x, t, mask)
    assert there.flatten().tolist() == [n > 0 for n in LENGTHS]
    for b, n in enumerate(LENGTHS):
        if n:
            state = x[b : b + 1, :n]
            for block in part.blocks:
                state = block(state, torch.ones(1, n, dtype=torch.bool))
            torch.testing.assert_close(found[b, 0], part.norm(state)[0, -1], **CLOSE)
    for block, hides in ((part.blocks[0], True), (drawn(FullTransformer(8)).blocks[0], False)):
        full = torch.ones(4, 5, dtype=torch.bool)
        moved = x.clone()
        moved[:, 4] += 1.0
        before, after = block(x, full), block(moved, full)
        assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6) == hides


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


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.integers(1, 14), max_size=8),  # behaviours of each session, latest first
        min_size=1,
        max_size=4,
    ),
    padding=st.integers(0, 3),
)
def test_derived_sessions_are_the_latest_behaviours_of_the_latest_sessions(rows, padding):
    cells = SessionCells(INPUTS)
    width = max(1, *map(sum, rows)) + padding
    session = torch.full((len(rows), width), 1, dtype=torch.int32)
    expected, lengths = [], []
    for b, sizes in enumerate(rows):
        of_place = [s + 1 for s, n in enumerate(sizes) for _ in range(n)][::-1]
        session[b, : len(of_place)] = torch.tensor(of_place, dtype=torch.int32)
        row = []
        for s in range(5):
            places = [i for i, x in enumerate(of_place) if x == s + 1][-10:]
            row += places + [None] * (10 - len(places))
            lengths.append(len(places))
        expected.append(row)
    n = torch.tensor([sum(s) for s in rows], dtype=torch.int32)
    source, found = cells.derive(session, n)
    assert found.flatten().tolist() == lengths
    for row, places in zip(source.tolist(), expected, strict=True):
        assert [i for i, p in zip(row, places, strict=True) if p is not None] == [
            p for p in places if p is not None
        ]


def test_stored_sessions_are_taken_as_they_are():
    cells = SessionCells(WITH_SESSIONS)
    ids = torch.arange(24).view(2, 12)
    lengths = torch.tensor([[4, 1, 0], [0, 2, 0]])
    batch = {"session_item": ids, "session_length": lengths, "history_length": torch.ones(2)}
    found, length = cells(batch, ("session_item",))
    assert found["session_item"].tolist() == [0, 1, 2, 3, 4, 16, 17]
    assert length is lengths


def test_derived_sessions_are_taken_from_the_history():
    batch = {
        "history_item": torch.tensor([[5, 6, 7, 8], [9, 1, 1, 1]]),
        "history_session": torch.tensor([[2, 1, 1, 0], [1, 0, 0, 0]]),
        "history_length": torch.tensor([3, 1]),
    }
    found, length = SessionCells(INPUTS)(batch, ("history_item",))
    assert found["history_item"].tolist() == [6, 7, 5, 9]
    assert length.tolist() == [[2, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_a_session_interest_is_the_mean_of_its_own_behaviours():
    part = drawn(SessionInterests(8, (3, 4)))
    x = torch.randn(6, 8)
    lengths = torch.tensor([[4, 2, 0], [0, 0, 0]])
    found, mask = part(x, lengths)
    assert mask.tolist() == [[True, True, False], [False] * 3]
    assert (found[~mask] == 0).all()
    biased = x[4:] + part.of_session[1] + part.of_place[:2] + part.of_unit
    alone = part.block(biased[None], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found[0, 1], alone[0].mean(0), **CLOSE)
    swapped = x[[0, 1, 2, 3, 5, 4]]
    assert not torch.allclose(part(swapped, lengths)[0][0, 1], found[0, 1], atol=1e-3)


@settings(max_examples=200, deadline=None)
@given(
    time=st.integers(700_000_000, 2_000_000_000),
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York"]),
)
def test_calendar_is_the_standard_library_s(time, zone):
    hour, weekday, month = ENCODERS[zone].calendar(torch.tensor([time]))
    expected = datetime.fromtimestamp(time, UTC).astimezone(ZoneInfo(zone))
    assert (int(hour), int(weekday), int(month)) == (
        expected.hour,
        expected.weekday(),
        expected.month,
    )


ENCODERS = {
    zone: Timestamp(zone, 4)
    for zone in ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York")
}


def test_calendar_at_the_edges_of_days_years_and_summer_time():
    moments = [
        datetime(y, m, d, h, 59, 59, tzinfo=UTC)
        for y, m, d in ((2000, 2, 29), (2016, 2, 29), (2017, 12, 31), (2018, 1, 1), (2022, 3, 27))
        for h in (0, 1, 22, 23)
    ]
    times = torch.tensor([int(m.timestamp()) for m in moments])
    for zone, encoder in ENCODERS.items():
        local = [m.astimezone(ZoneInfo(zone)) for m in moments]
        found = np.stack([x.numpy() for x in encoder.calendar(times)], 1).tolist()
        assert found == [[x.hour, x.weekday(), x.month] for x in local]


def test_a_time_zone_that_is_none():
    with pytest.raises(ContractError, match="time zone"):
        Timestamp("Nowhere/At_All", 4)


def test_chronological_order_counts_from_the_oldest_and_the_target_comes_last():
    part = Chronological(20, 4)
    batch = {
        "history_length": torch.tensor([3, 1], dtype=torch.int32),
        "history_position": torch.tensor([[3, 2, 1], [1, 0, 0]], dtype=torch.int32),
    }
    found = part.places(batch)
    expected = part.table.weight[[4, 2, 1, 2, 3, 1]]
    assert torch.equal(found[:6], expected)  # two targets, three behaviours, one


def test_both_is_the_sum_and_a_target_may_go_without():
    torch.manual_seed(0)
    both = ENCODINGS["tte-pt"](INPUTS, 8, True)
    batch = {
        "history_length": torch.tensor([2], dtype=torch.int32),
        "history_position": torch.tensor([[2, 1]], dtype=torch.int32),
        "history_interval_bin": torch.tensor([[5, 3]], dtype=torch.int32),
    }
    e = torch.zeros(3, 8)
    expected = both.one.table.weight[[0, 2, 1]] + both.other.table.weight[[0, 5, 3]]
    assert torch.equal(both(e, batch), expected)
    both.encode_target = False
    assert torch.equal(both(e, batch)[0], torch.zeros(8))
    assert torch.equal(both(e, batch)[1:], expected[1:])
