"""Each recurrent part against an independent, slow, obvious version of itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.trainer.behaviours import CLOSE, LENGTHS, drawn, some
from trainer.recurrent import AUGRU, BiLSTM, GRUStates, NextBehaviour


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
