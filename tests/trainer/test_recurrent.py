"""Each recurrent part against an independent, slow, obvious version of itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.trainer.behaviours import CLOSE, LENGTHS, drawn, some
from trainer.models.recurrence import Steps, gru, lstm
from trainer.models.recurrent import AUGRU, BiLSTM, GRUStates, NextBehaviour, ReleasedBiLSTM


def step_by_step(x, matrix, bias=None, scale=None, keeps=True):
    """The states of one row, by the equations that `gru` states."""
    states, h, (ur, uu, uc) = [], torch.zeros_like(x[0, : x.shape[1] // 3]), matrix.chunk(3)
    for i in range(len(x)):
        xr, xu, xc = x[i].chunk(3)
        r, u = torch.sigmoid(xr + ur @ h), torch.sigmoid(xu + uu @ h)
        u = u if scale is None else scale[i] * u
        c = torch.tanh(xc + (uc @ (r * h) if bias is None else r * (uc @ h + bias)))
        h = u * h + (1 - u) * c if keeps else (1 - u) * h + u * c
        states.append(h)
    return torch.stack(states)


def lstm_step_by_step(x, matrix):
    states, h = [], torch.zeros_like(x[0, : x.shape[1] // 4])
    cell = h
    for each in x:
        i, f, g, o = (each + matrix @ h).chunk(4)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(cell)
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("kind", ["torch", "tensorflow", "lstm"])
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_recurrences_are_their_equations_and_so_are_their_gradients(kind, keeps, scaled):
    _, _, mask = some()
    steps, width, gates = Steps.of(mask), 3, 4 if kind == "lstm" else 3
    torch.manual_seed(0)
    x, matrix, bias, scale = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((len(LENGTHS), 5, gates * width), (gates * width, width), width, (4, 5))
    )
    given = [x, matrix] + [bias] * (kind == "torch") + [scale] * (scaled and kind != "lstm")

    def of(row=None, bias=None, scale=None, keeps=keeps):
        if row is None and kind == "lstm":
            return steps.put(lstm(steps.take(x), matrix, steps))
        if row is None:
            a = None if scale is None else steps.take(scale.unsqueeze(2)).squeeze(1)
            how = {"bias_D": bias, "scale_N": a, "keeps": keeps}
            return steps.put(gru(steps.take(x), matrix, steps, **how))
        real = x[row, : LENGTHS[row]]
        if kind == "lstm":
            return lstm_step_by_step(real, matrix)
        return step_by_step(real, matrix, bias, None if scale is None else scale[row], keeps)

    options = {"bias": bias} if kind == "torch" else {}
    options |= {"scale": scale} if scaled else {}
    found = of(**options)
    assert (found[~mask] == 0).all()
    expected = torch.zeros_like(found)
    for row, n in enumerate(LENGTHS):
        if n:
            expected[row, :n] = of(row, **options)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(y.pow(3).sum(), given) for y in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    last = steps.final(steps.take(found.detach()))
    for row, n in enumerate(LENGTHS):
        torch.testing.assert_close(last[row], expected[row, n - 1] if n else torch.zeros_like(bias))


def test_augru_is_dien_s_equations_14_to_16():
    part = drawn(AUGRU(8))
    x, _, mask = some()
    weights = torch.rand(4, 5) * mask
    found = part(x, weights, mask)
    gates, bias = part.of_state.bias.split([16, 8])
    inputs = part.of_input(x) + nn.functional.pad(gates, (0, 8))
    for b, n in enumerate(LENGTHS):
        if n:
            how = (part.of_state.weight, bias, weights[b], False)
            expected = step_by_step(inputs[b, :n], *how)[-1]
            torch.testing.assert_close(found[b], expected, **CLOSE)
    assert (found[1] == 0).all()


def test_a_weight_of_0_among_others_leaves_augru_s_state_as_it_is():
    part = drawn(AUGRU(8))
    x, _, _ = some()
    weights = torch.tensor([[0.0, 0.7, 0.0, 0.2, 0.0]] * 4)
    full = torch.ones(4, 5, dtype=torch.bool)
    found, expected = (part(x[:, i], weights[:, i], full[:, i]) for i in (range(5), [1, 3]))
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (part(x, torch.zeros(4, 5), full) == 0).all()


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


def test_tensorflow_s_forget_gate_begins_at_1():
    for each in (ReleasedBiLSTM(8).onward, ReleasedBiLSTM(8).homeward):
        bias = each.bias_ih_l0 + each.bias_hh_l0
        assert bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16


def test_next_behaviour_term_by_term():
    x, _, mask = some()
    states = torch.randn(4, 5, 8)
    found = NextBehaviour()(states, x, mask, None)
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
