"""Models, batches and runs made by hand, for tests."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from trainer.data.inputs import HistoryInputs, Inputs, inputs_of
from trainer.data.shards import Batch, Shards
from trainer.models.interest import build
from trainer.models.recipes import RECIPES

ONE = HistoryInputs(("item", "category"), max_len=20, bins=5)
INPUTS = Inputs({"item": 50, "category": 9}, {}, (), {"history": ONE})
WITH_SESSIONS = replace(INPUTS, histories={"history": replace(ONE, sessions=(3, 4))})


def make(model="tin", encoding=None, inputs=INPUTS, scale=1.0, **how):
    """A model whose weights are large enough for every part to matter."""
    torch.manual_seed(0)
    built = build(model, encoding, inputs, dim=4, hidden=(6, 5), **how).eval()
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

    # A new session after every third behaviour, from the newest.
    session = torch.where(real, (n[:, None] - 1 - places) // 3 + 1, padding)
    count = torch.randint(0, 4, (len(lengths), 1), generator=g) * (n > 0)[:, None]
    held = torch.randint(1, 5, (len(lengths), 3), generator=g) * (torch.arange(3) < count)
    in_session = (torch.arange(4) < held[:, :, None]).flatten(1)
    return {
        "history_session": session.int(),
        "history_time": torch.where(real, 1_400_000_000 + 40_000_000 * places, padding * 10**8),
        "target_time": torch.full((len(lengths),), 1_500_000_000),
        "session_length": held.int(),
        **{
            f"session_{name}": torch.where(
                in_session, torch.randint(1, 9, in_session.shape, generator=g), padding
            ).int()
            for name in ("item", "category")
        },
        "history_length": n,
        "history_item": history(50),
        "history_category": history(9),
        "history_position": torch.where(real, n[:, None] - places, padding).int(),
        "history_interval_bin": history(6),
        "target_item": torch.randint(2, 50, (len(lengths),), generator=g, dtype=torch.int32),
        "target_category": torch.randint(2, 9, (len(lengths),), generator=g, dtype=torch.int32),
    }


def reversed_history(batch):
    """The same behaviours the other way round, positions and times staying where they are."""
    turned = dict(batch)
    for name in ("history_item", "history_category"):
        turned[name] = batch[name].flip(1)
    return turned


def of_one_category(lengths):
    """A batch in which all behaviours share the target's category, so that SIM finds them all."""
    batch = make_batch(lengths)
    return batch | {
        "history_category": torch.full_like(batch["history_category"], 4),
        "target_category": torch.full_like(batch["target_category"], 4),
    }


def rows_of(batches: list[Batch]) -> list[int]:
    return torch.cat([b["row"] for b in batches]).tolist()


def saved(out: Path, run: Path, model="tin", encoding=None, change=None) -> Path:
    """A run of random weights, as `tinprep train` leaves one."""
    torch.manual_seed(1)
    inputs, encoding = inputs_of(Shards(out)), encoding or RECIPES[model].encodings[0]
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
    config = {"data": str(out), "model": model, "encoding": encoding}
    (run / "config.json").write_text(json.dumps(config))
    return run
