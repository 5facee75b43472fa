from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from schemas.errors import UsageError
from tests.trainer.batches import (
    INPUTS,
    WITH_SESSIONS,
    make,
    make_batch,
    of_one_category,
    reversed_history,
)
from trainer.data.inputs import inputs_of
from trainer.data.shards import Shards
from trainer.models import attention
from trainer.models import layers as parts
from trainer.models.interest import build
from trainer.models.recipes import RECIPES, choose

# 4.2.2: in a mean, what was when is lost, though there is a temporal encoding.
MEANS = {"tin_wo_ta", "bert4rec_released", "bst_released"}
EVERY = [(name, encoding) for name, r in RECIPES.items() for encoding in r.encodings]


@pytest.mark.parametrize(("model", "encoding"), EVERY)
def test_scores_do_not_depend_on_padding(model, encoding):
    m = make(model, encoding)
    lengths = [3, 0, 7, 1]
    expected = m(make_batch(lengths))
    for width, padding in ((7, 5), (15, 0), (20, 3)):
        found = m(make_batch(lengths, width, padding))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("model", "encoding"), EVERY)
def test_rows_do_not_depend_on_their_neighbours(model, encoding):
    m = make(model, encoding)
    batch = make_batch([3, 0, 7, 1])
    alone = torch.cat([m({k: v[i : i + 1] for k, v in batch.items()}) for i in range(4)])
    torch.testing.assert_close(m(batch), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model", "encoding"), EVERY)
def test_an_empty_history_is_no_interest_and_trains(model, encoding):
    m = make(model, encoding)
    batch = make_batch([0, 0], width=1, padding=4)
    u, _ = m.interest(batch)
    assert (u == 0).all()
    loss = m(batch).sum()
    assert torch.isfinite(loss)
    loss.backward()
    for p in m.parameters():
        grad = p.grad
        assert grad is None or torch.isfinite(grad.to_dense()).all()


@pytest.mark.parametrize("padding", [0, 3])
def test_stored_sessions_are_read_and_their_padding_is_not(padding):
    m = make("dsin", inputs=WITH_SESSIONS)
    assert {"session_item", "session_category", "session_length"} < set(m.columns)
    assert "history_item" not in m.columns
    batch = make_batch([3, 0, 7, 1])
    assert (batch["session_length"].sum(1) > 0).any()
    torch.testing.assert_close(m(make_batch([3, 0, 7, 1], padding=padding)), m(batch))
    moved = batch | {"session_item": batch["session_item"].roll(1, 1)}
    there = batch["session_length"].sum(1) > 0
    assert ((m(moved) - m(batch)).abs() > 1e-5).equal(there)


def test_equation_2_term_by_term():
    m = make()
    batch = make_batch([3, 7, 1])
    item, category = (m.fields.tables[n].weight.tolist() for n in ("item", "category"))
    p = m.encoding.table.weight.tolist()
    found, target = m.interest(batch)
    for b, n in enumerate([3, 7, 1]):

        def embed(prefix, at, origin):
            i, c = (int(batch[f"{prefix}_{name}"][at]) for name in ("item", "category"))
            return [a + x for a, x in zip(item[i] + category[c], p[origin], strict=True)]

        v = embed("target", b, 0)
        e = [embed("history", (b, i), n - i) for i in range(n)]
        z = [sum(a * c for a, c in zip(x, v, strict=True)) / math.sqrt(8) for x in e]
        weights = [math.exp(a) / sum(map(math.exp, z)) for a in z]
        u = [sum(w * x[d] * v[d] for w, x in zip(weights, e, strict=True)) for d in range(8)]
        torch.testing.assert_close(target[b], torch.tensor(v), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[b], torch.tensor(u), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("model", "encoding"), EVERY)
def test_order_matters_only_with_temporal_information(model, encoding):
    batch = of_one_category([6] * 20)
    m = make(model, encoding, scale=0.5)
    change = (m(reversed_history(batch)) - m(batch)).abs()
    if RECIPES[model].code[0] == "1" and model not in MEANS:
        assert (change > 1e-5).float().mean() > 0.7
    else:
        assert (change < 1e-5).all()


@pytest.mark.parametrize(("model", "encoding"), EVERY)
def test_two_behaviours_that_swap_their_intervals(model, encoding):
    batch = of_one_category([2] * 20)
    batch["history_interval_bin"] = torch.tensor([[5, 1]] * 20)
    m = make(model, encoding, scale=0.5)
    swapped = m(batch | {"history_interval_bin": torch.tensor([[1, 5]] * 20)})
    change = (swapped - m(batch)).abs()
    # The other encodings do not read the intervals.
    if encoding in ("tte-t", "tte-pt") and model not in MEANS:
        assert (change > 1e-5).float().mean() > 0.7
    else:
        assert (change < 1e-5).all()


@pytest.mark.parametrize(
    ("encoding", "used", "unused"),
    [
        ("tte-p", "history_position", "history_interval_bin"),
        ("tte-t", "history_interval_bin", "history_position"),
        ("tte-pt", "history_interval_bin", "history_time"),
        ("tte-pt", "history_position", "history_time"),
        ("coe", "history_position", "history_interval_bin"),
    ],
)
def test_an_encoding_reads_its_own_column(encoding, used, unused):
    m = make("tin", encoding)
    batch = make_batch([6, 6, 6])
    assert used in m.columns
    assert unused not in m.columns
    moved = batch | {used: batch[used].clamp(max=4) + 1}
    assert not torch.allclose(m(moved), m(batch), atol=1e-3)


@pytest.mark.parametrize(("model", "encoding"), EVERY)
def test_the_target_matters(model, encoding):
    m = make(model, encoding, scale=0.5)
    batch = make_batch([3, 6, 2] * 8)
    for name, size in INPUTS.fields.items():
        column = f"target_{name}"
        other = batch | {column: 2 + (batch[column] - 1) % (size - 2)}
        assert ((m(other) - m(batch)).abs() > 1e-5).float().mean() > 0.8


def test_target_attention_follows_the_target_and_uniform_does_not():
    batch = make_batch([6])
    other = batch | {"target_item": (batch["target_item"] + 1) % 50}

    def direction(m, b):
        u, t = m.interest(b)
        return u / t  # sum_i a_i x_i

    attentive, uniform = make("tin"), make("tin_wo_ta")
    assert not torch.allclose(direction(attentive, other), direction(attentive, batch), atol=1e-3)
    torch.testing.assert_close(
        direction(uniform, other), direction(uniform, batch), rtol=1e-3, atol=1e-4
    )


def test_uniform_attention_is_the_mean():
    mask = torch.tensor([[True, True, False], [False, False, False]])
    weights = attention.Uniform()(torch.ones(2, 3, 4), torch.ones(2, 4), mask)
    assert weights.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


def test_the_product_may_follow_the_pool():
    x, t, a = torch.randn(3, 5, 4), torch.randn(3, 4), torch.rand(3, 5)
    pool, product = attention.WeightedSum(), attention.Product()
    first = pool(product(x, t.unsqueeze(1)), a, a > 0)
    torch.testing.assert_close(product(pool(x, a, a > 0), t), first)


def test_sim_s_two_interests_are_of_the_category_and_of_the_latest_10():
    m, batch = make("sim"), make_batch([15, 4, 12])
    batch["history_category"] = torch.where(torch.arange(15) % 3 == 0, 5, 6).repeat(3, 1)
    batch["target_category"] = torch.full((3,), 5)
    found, t = m.interest(batch)
    ids = [{n: batch[of + n].flatten() for n in INPUTS.fields} for of in ("target_", "history_")]
    x = m.encoding(m.fields(*ids), batch)[3:].view(3, 15, -1)
    for b, n in enumerate([15, 4, 12]):
        for half, places in ((found[b, :8], range(0, n, 3)), (found[b, 8:], range(n)[-10:])):
            held = x[b, list(places)]
            expected = (held @ t[b] / math.sqrt(8)).softmax(0) @ held
            torch.testing.assert_close(half, expected, rtol=1e-4, atol=1e-5)


def test_released_norms_are_scale_and_shift_in_both_modes():
    norm = parts.ScaleShift(3)
    x = torch.randn(7, 3)
    reference = torch.nn.BatchNorm1d(3, eps=1e-3).eval()
    torch.testing.assert_close(norm.train()(x), reference(x))
    torch.testing.assert_close(norm.eval()(x), reference(x))


def test_released_adds_an_item_bias_and_the_product():
    m = make("tin_released")
    batch = make_batch([2, 5])
    before = m(batch)
    with torch.no_grad():
        m.bias.weight[batch["target_item"][0].long()] += 3
    change = m(batch) - before
    same = batch["target_item"] == batch["target_item"][0]
    torch.testing.assert_close(change, torch.where(same, 3.0, 0.0))
    assert m.mlp[0].in_features == 3 * 8
    assert make("tin").mlp[0].in_features == 2 * 8


def test_padding_ids_are_not_special_in_a_temporal_table():
    m = make("tin")
    batch = make_batch([4])
    before = m(batch)
    with torch.no_grad():
        m.encoding.table.weight[0] += 1  # the target's origin
    assert not torch.allclose(m(batch), before)


def test_other_features_reach_the_head(make_dataset):
    shards = Shards(make_dataset(extra=True))
    inputs = inputs_of(shards)
    assert inputs.others == {"pid": 4}
    assert inputs.numbers == ("price",)
    m = make(inputs=inputs)
    batch = next(shards.batches("train", batch_size=8, columns=m.columns))
    for name in ("pid", "price"):
        other = batch | {name: (batch[name] + 1) % 4}
        assert ((m(other) - m(batch)).abs() > 1e-5).all()


def test_initial_embeddings_are_small():
    torch.manual_seed(0)
    m = build("tin", None, replace(INPUTS, fields={"item": 5000, "category": 9}))
    assert 0 < m.fields.tables["item"].weight.abs().max() < 0.05


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(UsageError) as caught:
        choose("tinn", None)
    assert "tin_released" in str(caught.value)
    with pytest.raises(UsageError, match="cannot take"):
        choose("tin_wo_tte", "tte-p")
    with pytest.raises(UsageError) as caught:
        choose("tin", "none")
    assert "tte-p, tte-t, tte-pt, coe, timestamp" in str(caught.value)
    with pytest.raises(UsageError, match="heads"):
        build("bst", None, INPUTS, dim=3)


@pytest.mark.parametrize("name", parts.ACTIVATIONS)
def test_activations(name):
    layer = parts.activation(name, 4)
    x = torch.linspace(-3, 3, 20).reshape(5, 4).requires_grad_()
    layer(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert layer.eval()(x).shape == x.shape


def apart(attention_dim):
    torch.manual_seed(0)
    m = build("din_apart", None, INPUTS, dim=4, hidden=(6, 5), attention_dim=attention_dim).eval()
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn_like(p))
    return m


@pytest.mark.parametrize("attention_dim", [1, 3, 4, 9])
def test_equation_6_term_by_term(attention_dim):
    m, batch = apart(attention_dim), make_batch([3, 7, 1])
    found, target = m.interest(batch)

    def embed(tables, prefix, at):
        of = m.get_submodule(tables).tables
        return torch.cat([of[n].weight[int(batch[f"{prefix}_{n}"][at])] for n in of])

    for b, n in enumerate([3, 7, 1]):
        v = embed("attention_fields", "target", b)
        keys = [embed("attention_fields", "history", (b, i)) for i in range(n)]
        assert len(v) == 2 * attention_dim
        z = torch.stack([v @ e for e in keys]) / math.sqrt(2 * attention_dim)
        values = torch.stack([embed("fields", "history", (b, i)) for i in range(n)])
        torch.testing.assert_close(found[b], z.softmax(0) @ values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(target[b], embed("fields", "target", b))


def test_the_attentions_own_tables_are_its_alone():
    """Eq. 6: the weights see one space, the representation and the head the other."""
    m, batch = apart(3), make_batch([3, 7, 2])
    weights, _ = m.interest(batch)
    with torch.no_grad():
        m.fields.tables["item"].weight *= 2.0
        m.fields.tables["category"].weight *= 2.0
    doubled, _ = m.interest(batch)
    torch.testing.assert_close(doubled, 2 * weights)
    with torch.no_grad():
        for table in m.attention_fields.tables.values():
            table.weight.zero_()
    flat, _ = m.interest(batch)
    uniform = build("avg_product", None, INPUTS, dim=4, hidden=(6, 5)).eval()
    uniform.load_state_dict(
        {k: v for k, v in m.state_dict().items() if not k.startswith("attention_fields")}
    )
    torch.testing.assert_close(flat, uniform.interest(batch)[0])
    torch.testing.assert_close(m(batch), uniform(batch))


def test_a_width_of_attention_is_only_for_tables_of_its_own():
    for model in ("tin", "din_dot", "din"):
        with pytest.raises(UsageError, match="no embedding tables of its own"):
            build(model, None, INPUTS, attention_dim=8)
