from __future__ import annotations

import math

import pytest
import torch

from schemas.errors import UsageError
from trainer import parts
from trainer.data import Shards
from trainer.models import RECIPES, Inputs, build, choose, inputs_of

INPUTS = Inputs({"item": 50, "category": 9}, {}, (), max_len=20, bins=5)
EVERY = [(name, encoding) for name, r in RECIPES.items() for encoding in r.encodings]


def make(model="tin", encoding=None, inputs=INPUTS, scale=1.0):
    """A model whose weights are large enough for every part to matter."""
    torch.manual_seed(0)
    built = build(model, encoding, inputs, dim=4, hidden=(6, 5)).eval()
    with torch.no_grad():
        for p in built.parameters():
            p.copy_(torch.randn_like(p) * scale)
    return built


def make_batch(lengths, width=None, padding=0, seed=0):
    """A batch of random rows; the padding holds `padding`."""
    g = torch.Generator().manual_seed(seed)
    n = torch.tensor(lengths, dtype=torch.int32)
    width = width or max(1, *lengths)
    places = torch.arange(width)
    real = places < n[:, None]

    def history(high):
        ids = torch.randint(1, high, (len(lengths), 20), generator=g, dtype=torch.int32)
        return torch.where(real, ids[:, :width], padding)

    return {
        "history_length": n,
        "history_item": history(50),
        "history_category": history(9),
        "history_position": torch.where(real, n[:, None] - places, padding).int(),
        "history_interval_bin": history(6),
        "target_item": torch.randint(2, 50, (len(lengths),), generator=g, dtype=torch.int32),
        "target_category": torch.randint(2, 9, (len(lengths),), generator=g, dtype=torch.int32),
    }


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
    torch.testing.assert_close(m(batch), alone, rtol=1e-5, atol=1e-6)


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


def reversed_history(batch):
    """The same behaviours the other way round, positions staying where they are."""
    turned = dict(batch)
    for name in ("history_item", "history_category"):
        turned[name] = batch[name].flip(1)
    return turned


def test_order_matters_only_to_a_temporal_encoding():
    batch = make_batch([6, 6, 6])
    timeless, timed = make("tin_wo_tte", "none"), make("tin", "tte-p")
    turned = reversed_history(batch)
    torch.testing.assert_close(timeless(turned), timeless(batch), rtol=1e-5, atol=1e-6)
    assert ((timed(turned) - timed(batch)).abs() > 1e-3).all()


@pytest.mark.parametrize(
    ("encoding", "used", "unused"),
    [
        ("tte-p", "history_position", "history_interval_bin"),
        ("tte-t", "history_interval_bin", "history_position"),
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
    m = make(model, encoding)
    batch = make_batch([3, 6, 2])
    for name, size in INPUTS.fields.items():
        column = f"target_{name}"
        other = batch | {column: 2 + (batch[column] - 1) % (size - 2)}
        assert ((m(other) - m(batch)).abs() > 1e-4).all()


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
    weights = parts.Uniform()(torch.ones(2, 3, 4), torch.ones(2, 4), mask)
    assert weights.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


def test_the_product_may_follow_the_pool():
    x, t, a = torch.randn(3, 5, 4), torch.randn(3, 4), torch.rand(3, 5)
    pool, product = parts.WeightedSum(), parts.Product()
    first = pool(product(x, t.unsqueeze(1)), a)
    torch.testing.assert_close(product(pool(x, a), t), first)


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
    m = build("tin", None, Inputs({"item": 5000}, {}, (), 20, 5))
    assert 0 < m.fields.tables["item"].weight.abs().max() < 0.05


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(UsageError) as caught:
        choose("tinn", None)
    assert "tin_released" in str(caught.value)
    with pytest.raises(UsageError, match="cannot take"):
        choose("tin_wo_tte", "tte-p")
    with pytest.raises(UsageError) as caught:
        choose("tin", "none")
    assert "tte-p, tte-t" in str(caught.value)


@pytest.mark.parametrize("name", parts.ACTIVATIONS)
def test_activations(name):
    layer = parts.activation(name, 4)
    x = torch.linspace(-3, 3, 20).reshape(5, 4).requires_grad_()
    layer(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert layer.eval()(x).shape == x.shape
