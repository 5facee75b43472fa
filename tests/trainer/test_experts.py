"""Experts, and models of them, against an independent, slow version: loops over rows and pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from schemas.errors import UsageError
from tests.trainer.batches import INPUTS, make, make_batch
from tests.trainer.test_export import FEATURES, TWO, features, with_two
from trainer.data.inputs import inputs_of
from trainer.data.shards import Shards
from trainer.models.experts import DCNv2, GwPFM, Shape, sets_of
from trainer.models.interest import build
from trainer.models.recipes import RECIPES
from trainer.training.config import TrainConfig
from trainer.training.runs import load
from trainer.training.train import train

EXPERTS = [name for name, recipe in RECIPES.items() if recipe.experts]
# What is known of the target is a part, and groups, of its own.
KNOWN = replace(TWO, of_target=("place", "price"))


def slow(m, batch, b, roles, mix=None):
    """A row's logit by loops: fields from the tables, one expert after another."""
    inputs, dim = m.inputs, m.dim

    def vectors(vocabulary, ids):
        of = inputs.shared.get(vocabulary, vocabulary)
        return [m.tables.table.weight[m.tables.begins[of] + int(i)] for i in ids]

    def mean(found):
        return sum(found, torch.zeros(m.tables.width)) / max(1, len(found))

    targets = [*inputs.of_behaviours, *(n for n in inputs.fields if n not in inputs.of_behaviours)]
    fields = {n: vectors(n, [batch[f"target_{n}"][b]])[0] for n in targets}
    side, group = dict.fromkeys(fields, 0), {n: n for n in fields}
    for n in inputs.others:
        fields[n] = vectors(n, [batch[n][b]])[0]
    for n in inputs.lists:
        fields[n] = mean(vectors(n, batch[n][b, : int(batch[f"{n}_length"][b])]))
    for k, n in enumerate(inputs.numbers):
        fields[n] = batch[n][b] * m.of_numbers[k]
    for n in (*inputs.others, *inputs.lists, *inputs.numbers):
        side[n] = int(n not in inputs.of_target)
        group[n] = f"features of {side[n]}"
    behaviours = {}
    for called, one in inputs.histories.items():
        length = int(batch[f"{called}_length"][b])
        for n in one.fields:
            behaviours[called, n] = vectors(n, batch[f"{called}_{n}"][b, :length])
            fields[called, n] = mean(behaviours[called, n])
            side[called, n], group[called, n] = 1, called
    names, order = [*fields], [*dict.fromkeys(group.values())]

    def of(name, at):
        return fields[name][at * dim : (at + 1) * dim]

    def gwpfm(expert, across, within):
        total = sum(w * of(n, within) for w, n in zip(expert.linear, names, strict=True))
        for one, other in combinations(names, 2):
            at = within if side[one] == side[other] else across
            g, h = sorted((order.index(group[one]), order.index(group[other])))
            total = total + expert.weight[h * (h + 1) // 2 + g] * of(one, at) * of(other, at)
        return total

    def flat(*sets):
        return torch.cat([of(n, at) for at in sets for n in names])

    def ipnn(expert, at):
        products = [of(i, at) @ of(j, at) for i, j in combinations(names, 2)]
        return torch.cat([flat(at), torch.stack(products)])

    def dcn_v2(expert, at):
        x = first = flat(at)
        for layer in expert.layers:
            x = first * layer(x) + x
        return x

    def tin(expert, at):
        seen = []
        for (called, one), reader in zip(
            inputs.histories.items(), m.interests[str(at)], strict=True
        ):
            position, interval = (
                reader.encoding.one.table.weight,
                reader.encoding.other.table.weight,
            )
            t = torch.cat([of(n, at) for n in one.fields]) + position[0] + interval[0]
            x = []
            for i in range(int(batch[f"{called}_length"][b])):
                e = [behaviours[called, n][i][at * dim : (at + 1) * dim] for n in one.fields]
                at_p, at_t = (
                    int(batch[f"{called}_{c}"][b, i]) for c in ("position", "interval_bin")
                )
                x.append(torch.cat(e) + position[at_p] + interval[at_t])
            z = [torch.exp(e @ t / math.sqrt(len(t))) for e in x]
            seen.append(sum((a / sum(z) * e * t for a, e in zip(z, x, strict=True)), 0 * t))
        return torch.cat([*seen, *(of(n, at) for n in inputs.of_behaviours)])

    def flat_dnn(expert, *sets):
        return flat(*sets)

    by = {"gwpfm": gwpfm, "ipnn": ipnn, "dcn_v2": dcn_v2, "flat_dnn": flat_dnn, "tin": tin}
    made = [
        out(by[role](expert, *reads)[None])[0]
        for role, expert, reads, out in zip(roles, m.experts, m.reads, m.outs, strict=True)
    ]
    weights = [1 / len(made)] * len(made)
    if mix == "gate":
        weights = (m.gate.weight @ flat(0) + m.gate.bias).softmax(0)
    return m.mlp(sum(w * each for w, each in zip(weights, made, strict=True))[None])[0, 0]


WAYS = [
    *((name, inputs, {}) for name in EXPERTS for inputs in (INPUTS, KNOWN)),
    ("tin_mix", FEATURES, {"embeddings": "shared"}),
    ("tin_mix", KNOWN, {"embeddings": "apart"}),
    ("tin_mix", KNOWN, {"embeddings": "2", "mix": "gate"}),
    ("tin_mix", KNOWN, {"embeddings": "7"}),
    ("gwpfm", KNOWN, {"embeddings": "2"}),
]


@pytest.mark.parametrize(("name", "inputs", "how"), WAYS)
def test_a_model_of_experts_equals_loops_over_rows_and_pairs(name, inputs, how):
    lengths = [3, 0, 7, 1]
    batch = with_two(lengths, [2, 4, 0, 6], padding=5) | features(4)
    m = made(name, inputs, **how)
    roles = [role for role, _ in sets_of(RECIPES[name].experts, how.get("embeddings"))]
    if RECIPES[name].flat:
        roles = ["flat_dnn"] * len(roles)
    expected = torch.stack([slow(m, batch, b, roles, how.get("mix")) for b in range(4)])
    torch.testing.assert_close(m(batch), expected, rtol=1e-5, atol=1e-5)
    of_rows, parameters = torch.tensor([1.0, -2.0, 0.5, 3.0]), [*m.parameters()]
    found, wanted = (
        torch.autograd.grad(each @ of_rows, parameters, allow_unused=True)
        for each in (m(batch), expected)
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one.to_dense(), other, rtol=1e-4, atol=1e-4)


def made(name, inputs, **how):
    torch.manual_seed(0)
    m = build(name, None, inputs, dim=4, hidden=(6, 5), **how).eval()
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn_like(p) * 0.4)
    return m


def test_gwpfm_of_one_embedding_and_a_group_a_field_is_fwfm():
    torch.manual_seed(0)
    part = GwPFM(Shape(tuple(range(5)), (0, 0, 1, 1, 1), 2, 3))
    torch.nn.init.normal_(part.weight)
    e = torch.randn(7, 5, 3)
    expected = (part.linear * e).sum((1, 2))
    for i, j in combinations(range(5), 2):
        expected = expected + part.weight[j * (j + 1) // 2 + i] * (e[:, i] * e[:, j]).sum(1)
    torch.testing.assert_close(part(None, e, e).sum(1), expected, rtol=1e-5, atol=1e-5)


def test_a_wide_row_is_crossed_by_thin_matrices():
    part = DCNv2(Shape(tuple(range(3)), (0, 1, 1), 1, 400))
    assert [p.shape for p in part.layers[0].parameters()] == [(256, 1200), (1200, 256), (1200,)]
    full = DCNv2(Shape(tuple(range(3)), (0, 1, 1), 1, 40))
    thin = DCNv2(Shape(tuple(range(3)), (0, 1, 1), 1, 40), rank=7)
    for whole, (first, second) in zip(full.layers, thin.layers, strict=True):
        whole.weight.data, whole.bias.data = second.weight @ first.weight, second.bias
    e = torch.randn(5, 3, 40)
    torch.testing.assert_close(thin(None, e), full(None, e))


def test_which_expert_reads_which_table_set():
    five = RECIPES["tin_mix"].experts
    assert five == ("gwpfm", "ipnn", "dcn_v2", "flat_dnn", "tin")
    at = {how: [k for _, k in sets_of(five, how)] for how in (None, "shared", "apart", "2", "7")}
    assert at[None] == [0, 1, 2, 0, 0]  # 4.6: TIN shares with GwPFM and the flat DNN
    assert at["shared"] == [0] * 5
    assert at["apart"] == [0, 1, 2, 3, 4]
    assert at["2"] == [0, 1, 0, 1, 0]
    assert at["7"] == [0, 1, 2, 3, 4, 5, 6]
    assert [name for name, _ in sets_of(five, "7")][5:] == ["gwpfm", "ipnn"]
    assert sets_of(("ipnn",), None) == [("ipnn", 0)]


def test_the_control_has_as_many_parameters():
    for inputs in (INPUTS, KNOWN):
        mix, control = (
            sum(p.numel() for p in build(name, None, inputs, dim=16, hidden=(32, 16)).parameters())
            for name in ("tin_mix", "tin_mix_flat")
        )
        assert control == pytest.approx(mix, rel=0.02)


def test_the_target_s_part_is_what_is_looked_up_by_it(make_alibaba):
    inputs = inputs_of(Shards(make_alibaba()))
    assert {*inputs.of_target} == {"ad", "campaign", "customer", "price"}


def test_settings_of_experts_are_kept_by_a_run_and_refused_elsewhere(planted, tmp_path):
    small = {"dim": 4, "hidden": (6,), "steps": 2, "batch_size": 16, "device": "cpu"}
    how = {"model": "tin_mix", "embeddings": "apart", "mix": "gate"}
    train(TrainConfig(planted, tmp_path / "run", **small, **how))
    m = load(tmp_path / "run")
    assert (m.sets, m.gate is None) == (6, False)
    for wrong, said in (
        ({"model": "tin", "embeddings": "shared"}, "no experts"),
        ({"model": "gwpfm", "mix": "gate"}, "no experts"),
        ({"model": "gwpfm", "embeddings": "0"}, "from 1 to 99"),
    ):
        with pytest.raises(UsageError, match=said):
            train(TrainConfig(planted, tmp_path / "other", **small, **wrong))
    assert not (tmp_path / "other").exists()
    with torch.no_grad():
        batch = make_batch([2, 0])
        assert make("tin_mix")(batch).isfinite().all()
