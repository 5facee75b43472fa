from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from schemas.errors import ContractError, EnvironmentFault, InputError, UsageError
from tests.trainer.conftest import write_alibaba
from trainer.correlation import PLACES, RELEASED_MISSING, UNKNOWN, correlate, pearson
from trainer.data import Shards
from trainer.learned_correlation import MEASURED, learned, learned_like, strength
from trainer.models import build, inputs_of
from trainer.recipes import RECIPES

DATABASE = duckdb.connect(config={"threads": 1})


def named(out: Path) -> Path:
    """Give a data set made for tests its vocabulary of categories: 'c2', 'c3', ..."""
    size = Shards(out).manifest.vocabulary["category"]
    ids = np.arange(2, size)
    (out / "vocabulary").mkdir()
    count = np.ones(len(ids), np.int64)
    values = [f"c{i}" for i in ids]
    table = pa.table({"value": values, "id": ids.astype(np.int32), "count": count})
    pq.write_table(table, out / "vocabulary" / "category.parquet")
    return out


def bits(n_11: float, n_10: float, n_01: float, n_00: float, missing: float = 0.0) -> float:
    """Mutual information of a 2 x 2 table by its definition."""
    joint = np.maximum(np.array([[n_11, n_10], [n_01, n_00]], float), missing)
    joint /= joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


def brute(rows, places, missing=0.0):
    """(target category, category, place) -> bits, by a look at every row.

    `rows` are (target category, label, [(category, place), ...]).
    """
    with_event: defaultdict[tuple, Counter] = defaultdict(Counter)
    totals: defaultdict[int, Counter] = defaultdict(Counter)
    for target, label, behaviours in rows:
        totals[target][label] += 1
        for category, place in set(behaviours):
            with_event[target, category, place][label] += 1
    pairs = {(t, c) for t, c, p in with_event if p <= places}
    return {
        (t, c, p): bits(n[1], n[0], totals[t][1] - n[1], totals[t][0] - n[0], missing)
        for t, c in pairs
        for p in range(1, places + 1)
        for n in [with_event[t, c, p]]
    }


def stored(out: Path, by: str, splits=("train",)):
    """The rows of a data set as `brute` takes them."""
    rows = []
    for split in splits:
        r = Shards(out).split(split)
        for i in range(len(r)):
            mine = slice(r.starts[i], r.starts[i] + r.lengths[i])
            cells = (r.histories["history_category"][mine], r.histories[PLACES[by]][mine])
            behaviours = list(zip(*(c.tolist() for c in cells), strict=True))
            rows.append(
                (int(r.scalars["target_category"][i]), int(r.scalars["label"][i]), behaviours)
            )
    return rows


def run_sql(rows, places, missing=0.0):
    """`ctc.sql` on rows as `brute` takes them."""
    # Padding that would change every figure if it were looked at.
    padded = [[*b, (3, 1)] for _, _, b in rows]
    table = pa.table(
        {
            "target_category": pa.array([t for t, _, _ in rows], pa.int32()),
            "label": pa.array([y for _, y, _ in rows], pa.int8()),
            "history_length": pa.array([len(b) for _, _, b in rows], pa.int16()),
            "history_category": pa.array([[c for c, _ in b] for b in padded], pa.list_(pa.int32())),
            "history_place": pa.array([[p for _, p in b] for b in padded], pa.list_(pa.uint8())),
        }
    )
    text = resources.files("sql").joinpath("correlation/ctc.sql").read_text(encoding="utf-8")
    with DATABASE.cursor() as con:
        con.register("rows", table)
        found = con.sql(
            text, params={"places": places, "missing": missing, "repeats": True}
        ).fetchall()
    return {row[:3]: row[-1] for row in found}


QUICK = settings(max_examples=40, deadline=None)
behaviour = st.tuples(st.integers(1, 4), st.integers(1, 5))
row = st.tuples(st.integers(2, 3), st.integers(0, 1), st.lists(behaviour, max_size=6))


@QUICK
@given(st.lists(row, max_size=25), st.integers(1, 5), st.sampled_from([0.0, RELEASED_MISSING]))
def test_sql_equals_a_look_at_every_row(rows, places, missing):
    expected = brute(rows, places, missing)
    found = run_sql(rows, places, missing)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12)
        assert 0 <= found[key] <= 1


@QUICK
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_two_by_two_equals_scikit_learn(pairs):
    rows = [(2, int(y), [(9, 1)] if x else []) for x, y in pairs]
    nats = mutual_info_score([x for x, _ in pairs], [y for _, y in pairs])
    found = run_sql(rows, 1)
    # A behaviour that never occurs has no row, and 0 bits.
    assert found.get((2, 9, 1), 0.0) == pytest.approx(nats / math.log(2), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("layout", ["padded", "ragged"])
@pytest.mark.parametrize("by", PLACES)
def test_all_cells_of_amazon_in_both_layouts(make_dataset, tmp_path, layout, by):
    out = named(make_dataset(layout=layout, users=40, seed=3))
    to = tmp_path / "ctc.parquet"
    one = correlate(out, "c3", top=3, positions=4, by=by, threads=1)
    found = correlate(out, "c3", top=3, positions=4, by=by, everything=to, threads=1)
    expected = brute(stored(out, by), 4)
    cells = pq.read_table(to).to_pylist()
    assert {(c["target_category"], c["category"], c["place"]) for c in cells} == set(expected)
    for c in cells:
        key = (c["target_category"], c["category"], c["place"])
        assert c["bits"] == pytest.approx(expected[key], rel=1e-9, abs=1e-12)
    for r, id_ in enumerate(found.ids):
        row = [expected[3, id_, p] for p in found.places]
        assert found.values[r].tolist() == pytest.approx(row, rel=1e-9, abs=1e-12)
    assert np.array_equal(one.values, found.values)
    assert (one.ids, one.places) == (found.ids, found.places) == (one.ids, (1, 2, 3, 4))
    assert one.rows[one.own] == one.category == "c3"


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_alibaba_whose_histories_may_be_empty(make_alibaba, layout):
    out = named(make_alibaba(layout=layout))
    rows = stored(out, "position")
    assert any(not behaviours for _, _, behaviours in rows)
    found = correlate(out, "c4", top=9, positions=30, threads=1)
    assert found.places == tuple(range(1, 11))  # max_len is 10
    expected = brute(rows, 10)
    for r, id_ in enumerate(found.ids):
        row = [expected[4, id_, p] for p in found.places]
        assert found.values[r].tolist() == pytest.approx(row, rel=1e-9, abs=1e-12)
    assert found.targets == sum(t == 4 for t, _, _ in rows)
    assert UNKNOWN in found.rows


def test_as_released_counts_all_splits_and_moves_to_the_unit_range(make_dataset):
    out = named(make_dataset(users=30))
    rows = stored(out, "position", ("train", "valid", "test"))
    expected = brute(rows, 5, RELEASED_MISSING)
    found = correlate(out, "c2", top=4, positions=5, released=True, threads=1)
    raw = np.array([[expected[2, c, p] for p in found.places] for c in found.ids])
    moved = (raw - raw.min()) / (raw.max() - raw.min())
    np.testing.assert_allclose(found.values, moved, rtol=1e-9, atol=1e-12)
    assert found.targets == sum(t == 2 for t, _, _ in rows)
    assert not np.allclose(found.values, correlate(out, "c2", top=4, positions=5).values)


def test_the_rows_are_the_most_frequent_and_the_own_category_always_one(make_dataset):
    out = named(make_dataset(users=30))
    below = 0
    for id_ in (2, 3, 4, 5):
        whole = correlate(out, f"c{id_}", top=99, positions=6)
        sums = whole.counts.sum(1).tolist()
        assert sums == sorted(sums, reverse=True)
        for top in (1, 2, len(sums)):
            part = correlate(out, f"c{id_}", top=top, positions=6)
            others = [c for c in whole.ids if c != id_]
            assert set(part.ids) in ({*whole.ids[:top]}, {id_, *others[: top - 1]})
            assert len(part.ids) == top
            assert part.ids[part.own] == id_
            below += whole.own >= top
    assert below  # the own category was once brought in from below


def test_arrows_are_where_a_behaviour_makes_positives_rarer(make_dataset):
    found = correlate(named(make_dataset()), "c3", top=9, positions=3)
    seen = found.counts > 0
    rate = found.positives[seen] / found.counts[seen]
    assert np.array_equal(found.against()[seen], rate < found.label_rate)
    assert not found.against()[~seen].any()
    # A positive is of the newest behaviour's category: others there speak against it.
    assert not found.against()[found.own, 0]
    others = seen[:, 0] & (np.arange(len(found.ids)) != found.own)
    assert others.any()
    assert found.against()[others, 0].all()


def test_recovers_a_planted_decay():
    rng = np.random.default_rng(5)
    effect = np.array([1.6, 1.2, 0.9, 0.6, 0.3, 0.0])
    own = rng.random((30_000, 6)) < 0.3
    chance = 1 / (1 + np.exp(-(own - 0.3) @ effect))
    label = (rng.random(len(own)) < chance).astype(int)
    rows = [
        (2, y, [(2 if x else 3, p + 1) for p, x in enumerate(line)])
        for y, line in zip(label.tolist(), own.tolist(), strict=True)
    ]
    found = run_sql(rows, 6)
    measured = [found[2, 2, p] for p in range(1, 7)]
    assert measured == sorted(measured, reverse=True)
    assert measured[-1] < 1e-3 < measured[0] / 30
    # Small effects tell as their square.
    assert np.corrcoef(measured, effect**2)[0, 1] > 0.99


def test_beauty_shows_both_patterns_of_the_paper(beauty_out, tmp_path):
    """2.1: the target's own category tells most, and less the longer ago it was."""
    to = tmp_path / "ctc.parquet"
    correlate(beauty_out, everything=to, threads=1)
    cells = pl.read_parquet(to)
    largest = (
        cells.group_by("target_category")
        .agg(pl.col("targets").first())
        .sort("targets", "target_category", descending=[True, False])["target_category"]
        .head(20)
    )
    ranks, newest, oldest, slopes = [], [], [], []
    for target in largest:
        mine = cells.filter(pl.col("target_category") == target)
        own = mine.filter(pl.col("category") == target).sort("place")["bits"].to_numpy()
        sums = mine.group_by("category").agg(pl.col("bits").sum())["bits"].to_numpy()
        assert len(sums) > 180
        ranks.append(1 + int((sums > own.sum() + 1e-12).sum()))
        newest.append(own[0])
        oldest.append(own[-1])
        slopes.append(np.corrcoef(np.arange(10), own)[0, 1])
    assert max(ranks) <= 5
    assert ranks.count(1) >= 9
    assert all(a > b for a, b in zip(newest, oldest, strict=True))
    assert np.mean(newest) > 5 * np.mean(oldest)
    assert np.median(slopes) < -0.8


def test_little_memory_gives_the_same(make_dataset):
    out = named(make_dataset(users=200))
    small = correlate(out, "c3", memory_mb=48, threads=1)
    assert np.array_equal(small.values, correlate(out, "c3", threads=1).values)
    with pytest.raises(EnvironmentFault, match="do not suffice"):
        correlate(out, "c3", memory_mb=1, threads=1)


def test_without_a_name_the_category_with_most_positives(make_dataset):
    out = named(make_dataset())
    positives = Counter(t for t, y, _ in stored(out, "position") if y)
    most = max(positives.values())
    assert correlate(out).category in {f"c{t}" for t, n in positives.items() if n == most}


def test_what_cannot_be_measured_is_said(make_dataset, tmp_path):
    out = make_dataset()
    with pytest.raises(InputError, match="vocabulary is missing"):
        correlate(out)
    named(out)
    for options in ({"top": 0}, {"positions": 0}, {"by": "length"}):
        with pytest.raises(UsageError):
            correlate(out, **options)
    with pytest.raises(UsageError) as error:
        correlate(out, "c99")
    assert "'c2'" in str(error.value) or "'c3'" in str(error.value)
    made = json.loads((out / "manifest.json").read_text())
    made["fields"] = ["item"]
    (out / "manifest.json").write_text(json.dumps(made))
    with pytest.raises(UsageError, match="no categories"):
        correlate(out)


def test_a_damaged_or_missing_shard_is_said(make_dataset):
    out = named(make_dataset())
    last = sorted((out / "train").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        correlate(out)
    last.unlink()
    with pytest.raises(InputError):
        correlate(out)


# What a model learned.


def saved(out: Path, run: Path, model="tin", encoding=None, change=None) -> Path:
    """A run of random weights, as `tinprep train` leaves one."""
    torch.manual_seed(1)
    inputs = inputs_of(Shards(out))
    built = build(model, encoding, inputs, dim=4, hidden=(6,)).eval()
    with torch.no_grad():
        for p in built.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
        if change is not None:
            change(built)
    run.mkdir()
    facts = {"model": model, "encoding": encoding, "dim": 4, "hidden": [6]}
    content = {"built": facts | {"inputs": asdict(inputs)}, "weights": built.state_dict()}
    torch.save(content, run / "best.pt")
    encoding = encoding or RECIPES[model].encodings[0]
    config = {"data": str(out), "model": model, "encoding": encoding}
    (run / "config.json").write_text(json.dumps(config))
    return run


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
    out = named(write_alibaba(tmp_path_factory.mktemp("ads") / "data", users=15))
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
    out = named(make_dataset(users=40))

    def same_items(model):
        model.fields.tables["item"].weight[:] = 0.3

    run = saved(out, tmp_path / "run", "tin", change=same_items)
    truth, found = learned(run, "c3", top=4, positions=6)
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
    out = named(make_dataset(users=100, max_len=6))

    def decaying(model):
        for table in model.fields.tables.values():
            table.weight[:] = 0.5
        strength = torch.tensor([0.5, *(1.0 / p for p in range(1, 7))])
        model.encoding.table.weight[:] = strength.unsqueeze(1)

    truth, found = learned(saved(out, tmp_path / "tin", change=decaying), "c3", top=3, positions=6)
    own = found.values[found.own]
    assert (np.diff(own) < 0).all()
    assert pearson(truth, found) > 0.9
    turned = replace(found, values=-found.values)
    assert pearson(truth, turned) == pytest.approx(-pearson(truth, found))


@pytest.mark.parametrize(("encoding", "by"), [("tte-t", "position"), ("tte-p", "interval")])
def test_a_place_the_encoding_does_not_read_is_averaged_over(make_dataset, tmp_path, encoding, by):
    out = named(make_dataset(users=60))
    run = saved(out, tmp_path / "run", "tin", encoding)
    truth, found = learned(run, "c3", by=by)
    assert np.isfinite(found.values).all()
    again, other = learned_like(truth, run), learned_like(truth, run, seed=1)
    assert np.array_equal(again.values, found.values)
    assert not np.array_equal(other.values, found.values)
    np.testing.assert_allclose(other.values, found.values, rtol=0.2)


def test_places_without_a_behaviour_have_no_value(make_dataset, tmp_path):
    out = named(make_dataset(users=5, train_pairs=1, seed=2))
    run = saved(out, tmp_path / "run")
    positions = {p for _, _, b in stored(out, "position") for _, p in b}
    target = "c3"
    mine = {p for t, _, b in stored(out, "position") if t == 3 for _, p in b}
    assert mine, positions
    truth, found = learned(run, target, positions=12)
    empty = [p not in mine for p in found.places]
    assert np.isnan(found.values[:, empty]).all()
    assert np.isfinite(found.values[found.own][[p in mine for p in found.places]]).all() or (
        truth.counts[truth.own].sum() == 0
    )


def test_another_data_set_is_refused(make_dataset, tmp_path):
    out, other = named(make_dataset()), named(make_dataset(items=40))
    run = saved(out, tmp_path / "run")
    with pytest.raises(ContractError, match="not like the one"):
        learned(run, "c3", data=other)
