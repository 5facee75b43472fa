"""The released code's baselines, row by row, by the formulas of that code."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from tests.trainer.batches import ONE, make, make_batch
from tests.trainer.behaviours import LENGTHS, drawn, some
from trainer.data.inputs import behaviours_of
from trainer.data.shards import Shards
from trainer.models.recipes import RECIPES
from trainer.models.recurrent import NextByNet, TensorFlowGRU
from trainer.training.loss import gradients

D = 8


def looking(x: torch.Tensor, *, ahead: bool = True) -> torch.Tensor:
    """The released self-attention: a softmax over the looking places, then the sum over them."""
    weight = (x @ x.T / math.sqrt(D)).softmax(0)
    return ((weight if ahead else weight.tril()) @ x).sum(0) / len(x)


def embedded(m, batch, prefix, b, places):
    tables = m.fields.tables
    ids = [batch[f"{prefix}_{name}"][b] for name in ("item", "category")]
    return torch.cat(
        [t.weight[i[places].long()] for t, i in zip(tables.values(), ids, strict=True)], -1
    )


def sessions_of(m, batch, b, x):
    """Each session's behaviours with its two vectors, latest session first."""
    found, (part, n) = [], (m.extractor, len(x))
    for s in range(5):
        held = [i for i in range(n) if batch["history_session"][b, i] == s + 1]
        if held:
            of_place = part.of_place[: len(held)].flip(0)
            found.append(looking(x[held] + part.of_session[s] + of_place))
    return torch.stack(found)


def gru(cell, x, stays=None):
    """TensorFlow's GRUCell; in DIEN's AUGRU u is multiplied by 1 - a, `stays`."""
    states, h = [], torch.zeros(D)
    (wr, wu, wc), (vr, vu, vc) = (p.weight.chunk(3) for p in (cell.of_input, cell.of_state))
    br, bu, bc = cell.of_input.bias.chunk(3)
    for i, each in enumerate(x):
        r = torch.sigmoid(wr @ each + vr @ h + br)
        u = torch.sigmoid(wu @ each + vu @ h + bu) * (1 if stays is None else stays[i])
        h = u * h + (1 - u) * torch.tanh(wc @ each + vc @ (r * h) + bc)
        states.append(h)
    return torch.stack(states)


def interest(name, m, batch, b, x, t):
    if name == "gru4rec_released":
        first, second = m.contexts[0].cells
        return gru(second, gru(first, x))[-1]
    if name == "dien_released":
        h = gru(m.contexts[0].cells[0], x)
        return gru(m.pools[0].cell, h, 1 - (h @ t / math.sqrt(D)).softmax(0))[-1]
    if name == "din_released":
        return m.attentions[0](x[None], t[None], torch.ones(1, len(x), dtype=torch.bool))[0] @ x
    if name == "dsin_released":
        z, lstm = sessions_of(m, batch, b, x), m.contexts[1]
        h = (lstm.onward(z.flip(0))[0].flip(0) + lstm.homeward(z)[0]) / 2
        return torch.cat([(each @ t / math.sqrt(D)).softmax(0) @ each for each in (z, h)])
    place = m.encoding.table.weight
    x = x + place[batch["history_position"][b, : len(x)].long()]
    if name == "bst_released":
        return looking(torch.cat([x, (t + place[0])[None]]))
    return looking(x, ahead=name != "sasrec_released")


@pytest.mark.parametrize(
    "name", [n for n in RECIPES if n.endswith("_released") and n != "tin_released"]
)
def test_the_released_code_row_by_row(name):
    m, lengths = make(name, scale=0.5), [3, 7, 1, 12]
    batch = make_batch(lengths)

    def normed(norm, x):
        return x * norm.scale / math.sqrt(1 + 1e-3) + norm.shift

    for b, n in enumerate(lengths):
        x = embedded(m, batch, "history", b, slice(0, n))
        t = embedded(m, batch, "target", b, ...)
        u = interest(name, m, batch, b, x, t)
        if RECIPES[name].dense:
            u = m.transform[1](normed(m.transform[0], u))
        seen = [u, t, u * t][: 2 if name in ("din_released", "gru4rec_released") else 3]
        logit = m.mlp(normed(m.norm, torch.cat(seen))) + m.bias.weight[batch["target_item"][b]]
        torch.testing.assert_close(m(batch)[b], logit[0], rtol=1e-4, atol=1e-5)
    assert set(m.columns) >= {"target_item", "history_item"}
    assert ONE.max_len >= max(lengths)


def test_tensorflow_s_gru_begins_with_gates_open():
    cell = TensorFlowGRU(D)
    assert cell.of_input.bias.tolist() == [1.0] * 2 * D + [0.0] * D
    for weight in (cell.of_input.weight, cell.of_state.weight):
        for part, (fan_in, fan_out) in ((weight[: 2 * D], (2, 2)), (weight[2 * D :], (2, 1))):
            limit = math.sqrt(6 / (D * (fan_in + fan_out)))
            assert 0.8 * limit < part.abs().max() <= limit


def test_the_released_auxiliary_loss_cell_by_cell():
    part, (x, _, mask) = drawn(NextByNet(D)), some(D)
    states, others, drawn_so_far = torch.randn(4, 5, D), [], []

    def draw(row, place):
        assert mask[row, place].all()
        others.append(torch.randn(len(row), D))
        return others[0]

    def p(h, e):
        both = torch.cat([h, e]) * part.norm.scale / math.sqrt(1 + 1e-3) + part.norm.shift
        return torch.sigmoid(part.rest(part.first(both)))[0]

    found = part(states, x, mask, draw)
    for b, n in enumerate(LENGTHS):
        total = torch.zeros(())
        for i in range(1, n):
            e = others[0][len(drawn_so_far)]
            drawn_so_far.append(e)
            h = states[b, i - 1]
            total = total - torch.log(p(h, x[b, i])) - torch.log(1 - p(h, e))
        torch.testing.assert_close(found[b], total, rtol=1e-4, atol=1e-5)


def test_the_released_auxiliary_loss_is_a_mean_over_the_batch_s_padding():
    """Whatever groups a batch is computed in, its loss is over B (T - 1) cells."""
    batch = make_batch([3, 9, 2]) | {"label": torch.tensor([1.0, 0.0, 1.0])}
    m = make("dien_released", scale=0.3)
    m.behaviours = torch.tensor([[7, 3]])  # one behaviour: nothing is left to chance
    gradients(m, batch, 3)
    whole = [p.grad.to_dense().clone() for p in m.parameters()]
    m.zero_grad()
    for rows in ([0, 2], [1]):
        gradients(m, {k: v[rows] for k, v in batch.items()}, 3, longest=9)
    for p, expected in zip(m.parameters(), whole, strict=True):
        torch.testing.assert_close(p.grad.to_dense(), expected, rtol=1e-4, atol=1e-6)
    logits, sums = m.with_auxiliary(batch)
    cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["label"])
    m.zero_grad()
    (cross + sums.sum() / (3 * 8)).backward()
    for p, expected in zip(m.parameters(), whole, strict=True):
        torch.testing.assert_close(p.grad.to_dense(), expected, rtol=1e-4, atol=1e-6)


def test_the_items_are_the_targets_of_train_each_once(planted):
    shards = Shards(planted)
    columns = [f"target_{name}" for name in shards.manifest.fields]
    every = {
        target
        for batch in shards.batches("train", batch_size=64)
        for target in zip(*(batch[c].tolist() for c in columns), strict=True)
    }
    found = [tuple(row) for row in behaviours_of(shards).tolist()]
    assert found == sorted(every)


def test_the_released_negatives_are_drawn_from_all_items_and_stay():
    m, batch = make("dien_released"), make_batch([18] * 200)
    m.behaviours = torch.stack([torch.arange(40), torch.arange(40) % 9], 1)
    row, place = torch.ones(200, 18).nonzero(as_tuple=True)
    drawn = m._draw(batch, row, place)
    with torch.no_grad():
        every = m.fields({"item": m.behaviours[:, 0], "category": m.behaviours[:, 1]})
    which = torch.cdist(drawn, every).argmin(1)
    torch.testing.assert_close(drawn, every[which])
    counts = which.bincount(minlength=40)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 0.001
    some_of_them = torch.arange(7, 3600, 13)
    again = m._draw(batch, row[some_of_them], place[some_of_them])
    torch.testing.assert_close(again, drawn[some_of_them])
