"""Tables in bfloat16: how they are rounded, moved, trained and given away."""

from __future__ import annotations

import copy
import statistics
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import EnvironmentFault, InputError
from tests.trainer.batches import INPUTS, make_batch
from tests.trainer.test_resume import config
from trainer.data.facts import DEFAULTS
from trainer.export.precision import PRECISIONS, narrow, table_bytes
from trainer.models.interest import build
from trainer.models.layers import Fields, OneTable, Table
from trainer.training import rounded
from trainer.training.evaluation import evaluate
from trainer.training.hashing import mixed
from trainer.training.optimizer import bytes_of, optimizer_of
from trainer.training.rounded import Dither, round_
from trainer.training.runs import load
from trainer.training.train import _require_memory, train

FINITE = st.floats(width=32, allow_nan=False, min_value=-(2.0**127), max_value=2.0**127)


@settings(max_examples=100, deadline=None)
@given(value=FINITE)
def test_the_mean_over_all_bits_is_the_number(value):
    wide = torch.full((1 << 16,), value)
    round_(wide, torch.arange(1 << 16, dtype=torch.int32))
    assert torch.equal(wide.bfloat16().float(), wide)  # bfloat16 holds each
    assert len(wide.unique()) <= 2
    assert float(wide.double().mean()) == float(torch.tensor(value).double())


@given(value=FINITE, bits=st.integers(0, (1 << 16) - 1))
@settings(max_examples=100, deadline=None)
def test_what_bfloat16_holds_stays(value, bits):
    held = torch.tensor([value]).bfloat16().float()
    infinite = [torch.inf, -torch.inf]
    # As bits, for as a number it may become another NaN.
    nan = torch.tensor([0x7FFFFFFF, -1, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    wide = torch.cat([held, torch.tensor(infinite), nan])
    round_(wide, torch.full((6,), bits, dtype=torch.int32))
    assert wide[:3].tolist() == [held.item(), *infinite]
    assert wide[3:].bfloat16().isnan().all()


def test_bits_are_even_and_those_of_two_places_have_nothing_in_common():
    steps = 1500
    of = Dither(mixed(torch.tensor(5)), kept=2, width=3, device=torch.device("cpu"))
    drawn = [of.bits(of.step(s, 9), 0, torch.Size((2, 9, 3))) for s in range(steps)]
    bits = torch.stack(drawn).flatten(1).double()
    assert bits.min() >= 0 and bits.max() < 1 << 16
    # In standard errors: 54 means, 1,431 pairs.
    error = ((1 << 32) / 12 / steps) ** 0.5
    assert ((bits.mean(0) - (1 << 15)).abs() / error).max() < 4.5
    together = torch.corrcoef(bits.T) - torch.eye(54)
    assert together.abs().max() * steps**0.5 < 4.5
    # So the mean of what a number is rounded to comes to it as fast as means do.
    wide = torch.randn(54).repeat(steps, 1)
    exact, ulp = wide[0].double(), 2.0 ** (wide[0].abs().log2().floor() - 7)
    round_(wide, bits.int())
    assert ((wide.double().mean(0) - exact).abs() / ulp * 2 * steps**0.5).max() < 4.5


def slow_mixed(number):
    """SplitMix64 of Python's integers, with shifts that keep the sign."""

    def signed(n):
        n &= (1 << 64) - 1
        return n - (1 << 64) if n >> 63 else n

    number = signed(number + 0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = signed((number ^ (number >> shift)) * factor)
    return number ^ (number >> 31)


@cache
def slow_order():
    return np.array(sorted(range(1 << 16), key=slow_mixed))


def slow_bits(seed, table, step, kept, shape):
    """kept x rows x width."""
    rows, width = shape
    per = max(1, (1 << 16) // width)
    key = slow_mixed(slow_mixed(slow_mixed(seed + 0x2D0BF16) + table) + step)
    blocks = -(-rows // per)
    row, column = np.indices(shape)
    x = slow_order()[((row % per) * width + column) % (1 << 16)]
    found = []
    for lane in range(kept):
        a, b = (
            np.array([slow_mixed(key + (2 * lane + n) * blocks + i) >> 32 for i in range(blocks)])
            for n in (0, 1)
        )
        at = row // per
        found.append(((a[at] * x + b[at]) & 0xFFFFFFFF) >> 16)
    return np.stack(found)


def slow_rounded(values, bits):
    """As bfloat16's bits: numbers as float32's, the upper half, one more by chance."""
    found = values.astype(np.float32).view(np.uint32).astype(np.int64)
    return (found + bits) >> 16


def slow_step(kind, kept, gradient, touched, steps, lr):
    """A step in double precision of what is kept in bfloat16, over the dense gradient."""
    weight, *more = (one.detach().double().numpy().copy() for one in kept)
    if kind == "adam":
        mean = 0.9 * more[0] + 0.1 * gradient
        square = 0.999 * more[1] + 0.001 * gradient**2
        high = (square / (1 - 0.999**steps)) ** 0.5 + 1e-8
        return np.stack([weight - lr * mean / (1 - 0.9**steps) / high, mean, square])
    total = more[0] + gradient**2
    weight[touched] -= lr * gradient[touched] / (total[touched] ** 0.5 + 1e-10)
    return np.stack([weight, total])


def as_bits(tensors):
    return np.stack([t.detach().view(torch.int16).numpy().astype(np.uint16) for t in tensors])


@pytest.mark.parametrize(("together", "l2"), [(1, 0.0), (2, 0.25)])
@pytest.mark.parametrize("shape", [(30, 4), (5, 30_000), (2, 70_000)])
@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_a_step_is_the_slow_step(kind, shape, together, l2, monkeypatch):
    """Rows that are touched or not, repeated or not, over any number of backward passes a step."""
    monkeypatch.setitem(rounded._BLOCKS, "cpu", together)
    torch.manual_seed(3)
    tables = torch.nn.ModuleList([Table(3, 2, numbers="bfloat16"), Table(*shape, None, "bfloat16")])
    other = torch.nn.Parameter(torch.ones(3))
    table, lr, seed = tables[1], 0.01, 7
    chosen = replace(DEFAULTS, optimizer=kind, lr=lr)
    ours = optimizer_of(chosen, [*tables.parameters(), other], seed, l2)
    kept = [table.weight]
    for step, clip in enumerate([None, None, 1e-3, None, None], start=1):
        gradient, found = np.zeros(shape), set()
        before = [one.detach().clone() for one in kept]
        for _ in range(0 if step == 4 else step % 2 + 1):  # in the fourth, no row
            ids = torch.randint(0, shape[0], (2, 3), dtype=torch.int32)
            of_rows = torch.randn(2, 3, shape[1]) * 0.03
            ((table(ids) * of_rows).sum() + (other * of_rows[0, 0, :3]).sum()).backward()
            np.add.at(gradient, ids.numpy(), of_rows.double().numpy())
            found |= set(ids.flatten().tolist())
            ours.collect()
        touched = sorted(found)
        gradient[touched] += l2 * before[0].double().numpy()[touched]
        if clip is not None:
            norm = (gradient**2).sum() + float((other.grad.double() ** 2).sum())
            gradient *= clip / (norm**0.5 + 1e-6)
        ours.step(clip)
        if len(kept) == 1:
            kept += ours.parts[1].moments[table.weight]
            before += [torch.zeros_like(before[0])] * (len(kept) - 1)
        wanted = slow_step(kind, before, gradient, touched, step, lr)
        if kind == "adam":
            bits = slow_bits(seed, 1, step, 3, shape)
        else:  # places are those among the rows that are touched
            bits = np.zeros((2, *shape), np.int64)
            if touched:
                bits[:, touched] = slow_bits(seed, 1, step, 2, (len(touched), shape[1]))
        wanted, is_ = slow_rounded(wanted, bits), as_bits(kept)
        # Theirs is of double precision, so where a number nearly is the next one it may be that.
        # Where the penalty nearly cancels a gradient, more digits differ.
        assert (np.abs(is_ - wanted) > 1).mean() <= (1e-4 if l2 else 0)
        assert (is_ != wanted).mean() < 2e-3
        assert (is_[0] != as_bits(before)[0]).any() == (kind == "adam" or bool(touched))
    assert ours.parts[1].steps == {table.weight: 5}  # none of the table without a gradient
    held = sum(one.nbytes for one in kept)
    assert held == bytes_of(kind, table.weight)
    assert held * 2 <= bytes_of(kind, table.weight.float())


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_a_restored_optimizer_goes_on_as_the_first_would(kind):
    first = torch.nn.Sequential(Table(40, 3, numbers="bfloat16"), torch.nn.Linear(3, 1))
    draws = [torch.randint(0, 40, (3, 4)) for _ in range(8)]

    def rounding(table, seed=1):
        return optimizer_of(replace(DEFAULTS, optimizer=kind, lr=0.1), table.parameters(), seed)

    def move(table, optimizer, batches):
        for x in batches:
            table(x).pow(2).sum().backward()
            optimizer.collect()
            optimizer.step()

    ours = rounding(first)
    move(first, ours, draws[:4])
    second, third, state = copy.deepcopy(first), copy.deepcopy(first), copy.deepcopy(ours.state())
    move(first, ours, draws[4:])
    for table, seed in ((second, 1), (third, 2)):
        again = rounding(table, seed)
        again.restore(copy.deepcopy(state))
        move(table, again, draws[4:])
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, third[0].weight)  # another seed rounds otherwise
    state["parts"][1]["moments"][0][0] = state["parts"][1]["moments"][0][0].float()
    with pytest.raises(ValueError, match="another kind"):
        rounding(first).restore(state)


@pytest.mark.parametrize("model", ["tin_released", "din_apart", "tin_mix"])
def test_only_the_vocabularies_tables_are_narrow_and_begin_where_wide_ones_do(model):
    built = {}
    for tables in ("float32", "bfloat16"):
        torch.manual_seed(0)
        built[tables] = build(model, None, INPUTS, dim=8, hidden=(6,), tables=tables)
    wide, narrowed = (m.state_dict() for m in built.values())
    of = [m for m in built["bfloat16"].modules() if isinstance(m, Fields | OneTable)]
    owned = {id(p) for m in of for p in m.parameters()}
    for name, p in built["bfloat16"].named_parameters():
        assert (p.dtype == torch.bfloat16) == (id(p) in owned)
        torch.testing.assert_close(narrowed[name].float(), wide[name], rtol=2**-8, atol=0)
        assert torch.equal(narrowed[name], wide[name].to(p.dtype))
    batch = make_batch([0, 1, 5, 20])
    plain = built["bfloat16"](batch)
    assert plain.dtype == torch.float32
    for precision in PRECISIONS:
        given = copy.deepcopy(built["bfloat16"])
        narrow(given, precision)
        torch.testing.assert_close(given(batch), plain, rtol=0, atol=1e-3 * (precision != "fp32"))
    of_run = copy.deepcopy(built["bfloat16"])
    before = table_bytes(of_run)
    narrow(of_run, "fp32")
    assert table_bytes(of_run) == table_bytes(built["float32"]) > before


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 0.01), ("adagrad", 0.05)])
def test_trains_as_well_as_float32(make_dataset, tmp_path, optimizer, lr):
    data, found = make_dataset(users=100), {}
    for tables in ("float32", "bfloat16"):
        for seed in range(3):
            run = tmp_path / f"{tables}-{seed}"
            how = {"optimizer": optimizer, "lr": lr, "seed": seed, "tables": tables}
            cfg = config(data, run, model="tin", epochs=1, checkpoint_seconds=1e9, **how)
            result = train(cfg)
            found.setdefault(tables, []).append(result.metrics["test"].gauc)
            if seed == 0:
                assert vars(evaluate(run).metrics) == vars(result.metrics["test"])
    means, spreads = (
        [of(one) for one in found.values()] for of in (statistics.mean, statistics.stdev)
    )
    assert abs(means[0] - means[1]) <= max(spreads)
    # Weights of one type are no model of the other.
    path = tmp_path / "bfloat16-0" / "best.pt"
    assert load(path.parent).fields["item"].weight.dtype == torch.bfloat16
    content = torch.load(path, weights_only=True)
    content["built"]["tables"] = "float32"
    torch.save(content, path)
    with pytest.raises(InputError, match="other shapes or types"):
        load(path.parent)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_what_no_memory_holds_is_refused_with_what_is_not_done_yet(kind):
    table = torch.nn.Parameter(torch.empty((1 << 34, 64), dtype=kind, device="meta"))
    with pytest.raises(EnvironmentFault, match="does not fit") as error:
        _require_memory([table], "adam", torch.device("cpu"))
    assert ("--tables bfloat16" in error.value.do) == (kind == torch.float32)
