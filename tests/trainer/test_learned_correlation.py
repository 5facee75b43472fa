"""What a model learned of behaviours and targets, against its formulas by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.errors import ContractError, UsageError
from tests.trainer.batches import saved
from tests.trainer.conftest import write_alibaba
from tests.trainer.ctc_by_hand import stored
from trainer.analysis.correlation import correlate, pearson
from trainer.analysis.learned_correlation import MEASURED, learned_like, strength
from trainer.data.inputs import inputs_of
from trainer.data.shards import Shards
from trainer.models.interest import build
from trainer.models.recipes import RECIPES


def embedded(model, batch):
    """Behaviours e, target v, and their places' vectors p, p_0, each N x D, by hand."""
    of = model.fields.tables
    e = torch.cat([of[f].weight[batch[f"history_{f}"][:, 0].long()] for f in of], 1)
    v = torch.cat([of[f].weight[batch[f"target_{f}"].long()] for f in of], 1)
    return e, v


def places_of(model, batch, encoding):
    table = model.encoding.table.weight
    position, length = batch["history_position"][:, 0].long(), batch["history_length"].long()
    if encoding == "coe":
        return table[length + 1 - position], table[length + 1]
    return table[position], table[torch.zeros_like(position)]


# Table 2: encoding, attention, whether the behaviour is multiplied with the target.
TABLE_2 = {
    "tin": ("tte-p", True, True),
    "tin_wo_tte": ("none", True, True),
    "tin_wo_ta": ("tte-p", False, True),
    "tin_wo_tr": ("tte-p", True, False),
    "din_dot": ("none", True, True),
    "sasrec": ("coe", False, True),
    "bst": ("coe", True, False),
}


@pytest.mark.parametrize("name", TABLE_2)
def test_strength_is_table_2(planted, name):
    encoding, attends, multiplies = TABLE_2[name]
    model = build(name, None, inputs_of(Shards(planted)), dim=4, hidden=(6,)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p))
    g = torch.Generator().manual_seed(0)

    def ids(high):
        return torch.randint(2, high, (50,), generator=g, dtype=torch.int32)

    position = ids(9)
    batch = {
        "history_item": ids(30)[:, None],
        "history_category": ids(8)[:, None],
        "target_item": ids(30),
        "target_category": ids(8),
        "history_position": position[:, None],
        "history_length": position + ids(4),
    }
    e, v = embedded(model, batch)
    if encoding != "none":
        of_e, of_v = places_of(model, batch, encoding)
        e = e + of_e
        v = v if name == "sasrec" else v + of_v
    z = (e * v).sum(1) / math.sqrt(8) if attends else torch.zeros(50)
    r = e * v if multiplies else e
    expected = (z.double().exp() * r.double().norm(dim=1)).detach()
    torch.testing.assert_close(strength(model, batch), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def ads(tmp_path_factory):
    """A small data set of impressions, and the CTC of one category."""
    out = write_alibaba(tmp_path_factory.mktemp("ads") / "data", users=15)
    return out, correlate(out, "c3", top=3, positions=4)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_measured_or_refused(ads, tmp_path, name):
    out, truth = ads
    run = saved(out, tmp_path / "run", name)
    if name not in MEASURED.split(", "):
        with pytest.raises(UsageError, match="no learned correlation"):
            learned_like(truth, run)
        return
    found = learned_like(truth, run)
    assert np.isfinite(found.values).all()
    assert found.name.startswith(name)
    varies = np.ptp(found.values[found.own]) > 1e-4 * found.values[found.own].mean()
    assert varies == (RECIPES[name].encodings[0] != "none")
    assert (pearson(truth, found) is not None) == varies
    if name == "sim":
        assert not np.delete(found.values, found.own, axis=0).any()


def test_learned_cells_are_exact_where_there_is_one_item_a_category(make_dataset, tmp_path):
    out = make_dataset(users=40)

    def same_items(model):
        model.fields.tables["item"].weight[:] = 0.3

    run = saved(out, tmp_path / "run", "tin", change=same_items)
    truth = correlate(out, "c3", top=4, positions=6)
    found = learned_like(truth, run)
    weights = torch.load(run / "best.pt", weights_only=True)["weights"]
    category, place = weights["fields.tables.category.weight"], weights["encoding.table.weight"]
    half = torch.full((4,), 0.3)
    for r, id_ in enumerate(found.ids):
        for c, p in enumerate(found.places):
            x = torch.cat([half, category[id_]]) + place[p]
            t = torch.cat([half, category[3]]) + place[0]
            expected = math.exp(float(x @ t) / math.sqrt(8)) * float((x * t).norm())
            assert found.values[r, c] == pytest.approx(expected, rel=1e-4)
    assert found.ids == truth.ids


def test_the_learned_decay_agrees_with_the_truth(make_dataset, tmp_path):
    out = make_dataset(users=100, max_len=6)

    def decaying(model):
        for table in model.fields.tables.values():
            table.weight[:] = 0.5
        strength = torch.tensor([0.5, *(1.0 / p for p in range(1, 7))])
        model.encoding.table.weight[:] = strength.unsqueeze(1)

    truth = correlate(out, "c3", top=3, positions=6)
    found = learned_like(truth, saved(out, tmp_path / "tin", change=decaying))
    own = found.values[found.own]
    assert (np.diff(own) < 0).all()
    assert pearson(truth, found) > 0.9
    turned = replace(found, values=-found.values)
    assert pearson(truth, turned) == pytest.approx(-pearson(truth, found))


@pytest.mark.parametrize(("encoding", "by"), [("tte-t", "position"), ("tte-p", "interval")])
def test_a_place_the_encoding_does_not_read_is_averaged_over(make_dataset, tmp_path, encoding, by):
    out = make_dataset(users=60)
    run = saved(out, tmp_path / "run", "tin", encoding)
    truth = correlate(out, "c3", by=by)
    found = learned_like(truth, run)
    assert np.isfinite(found.values).all()
    again, other = learned_like(truth, run), learned_like(truth, run, seed=1)
    assert np.array_equal(again.values, found.values)
    assert not np.array_equal(other.values, found.values)
    np.testing.assert_allclose(other.values, found.values, rtol=0.2)


def test_places_without_a_behaviour_have_no_value(make_dataset, tmp_path):
    out = make_dataset(users=5, train_pairs=1, seed=2)
    run = saved(out, tmp_path / "run")
    positions = {p for _, _, b in stored(out, "position") for _, p in b}
    target = "c3"
    mine = {p for t, _, b in stored(out, "position") if t == 3 for _, p in b}
    assert mine, positions
    truth = correlate(out, target, positions=12)
    found = learned_like(truth, run)
    empty = [p not in mine for p in found.places]
    assert np.isnan(found.values[:, empty]).all()
    assert np.isfinite(found.values[found.own][[p in mine for p in found.places]]).all() or (
        truth.counts[truth.own].sum() == 0
    )


def test_another_data_set_is_refused(make_dataset, tmp_path):
    out, other = make_dataset(), make_dataset(items=40)
    run = saved(out, tmp_path / "run")
    with pytest.raises(ContractError, match="not like the one"):
        learned_like(correlate(out, "c3"), run, data=other)
