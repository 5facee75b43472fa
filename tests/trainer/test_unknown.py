"""The unknown id in training: which ids are taken for it, and that its vector is trained."""

from __future__ import annotations

import pytest
import torch

from trainer.data.batches import HISTORY, PLACE
from trainer.data.inputs import inputs_of
from trainer.data.shards import Shards
from trainer.training.config import TrainConfig
from trainer.training.runs import load
from trainer.training.train import train
from trainer.training.unknown import with_unknown


def batches(shards, rate, size=64, epoch=0):
    names = (*(f"target_{name}" for name in shards.manifest.fields), PLACE)
    names += tuple(HISTORY + name for name in shards.manifest.fields)
    plain = shards.grouped_batches("train", batch_size=size, cells=None, columns=names)
    return with_unknown(plain, inputs_of(shards), rate, 3, epoch)


def rows_of(found):
    """Place of a row -> its target's item, and its history's, without padding."""
    rows = {}
    for (batch,) in found:
        for n, place in enumerate(batch[PLACE].tolist()):
            length = int(batch["history_length"][n])
            history = batch["history_item"][n, :length].tolist()
            rows[place] = int(batch["target_item"][n]), history
            assert not batch["history_item"][n, length:].any()
    return rows


def test_what_is_unknown_depends_on_nothing_but_seed_epoch_row_and_value(make_dataset):
    shards = Shards(make_dataset())
    plain, found = rows_of(batches(shards, 0.0)), rows_of(batches(shards, 0.3))
    assert found == rows_of(batches(shards, 0.3, size=7))
    assert found != rows_of(batches(shards, 0.3, epoch=1))
    pairs = [
        [*zip([target, *history], [found[place][0], *found[place][1]], strict=True)]
        for place, (target, history) in plain.items()
    ]
    every = [pair for row in pairs for pair in row]
    assert all(after in (before, 1) for before, after in every)
    assert sum(after == 1 for _, after in every) / len(every) == pytest.approx(0.3, abs=0.05)
    # One value of a row is unknown wherever it stands, or nowhere.
    assert all(len(set(row)) == len({before for before, _ in row}) for row in pairs)


def test_the_unknown_vector_is_trained(make_dataset, tmp_path):
    data = make_dataset()
    vectors = []
    for rate in (0.0, 0.2):
        config = TrainConfig(data, tmp_path / f"{rate}", steps=2, unknown_rate=rate)
        train(config)
        item = load(tmp_path / f"{rate}", torch.device("cpu")).fields["item"].weight
        vectors.append(item[:2].detach())
    assert torch.equal(vectors[0][0], vectors[1][0])  # of the padding, which nothing reads
    assert not torch.equal(vectors[0][1], vectors[1][1])
