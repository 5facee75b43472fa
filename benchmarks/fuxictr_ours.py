"""Our side of `fuxictr.py`: trains one recipe for some steps, or only loads, and prints its rate.

The steps are those of `trainer.training`: groups of similar length, the loss read at each step.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from feed import Feed, Plan

from trainer.config import preset
from trainer.data import Shards
from trainer.fit import gradients
from trainer.models import build, inputs_of
from trainer.optimizer import optimizer_of
from trainer.rows import Batch


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="one recipe's training rate")
    parser.add_argument("data", type=Path)
    parser.add_argument("model", help="a recipe, or `loader` for what `tin` reads, untrained")
    for name in ("--batch-size", "--threads", "--warm", "--steps", "--repeats"):
        parser.add_argument(name, type=int, required=True)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    shards = Shards(flags.data)
    schedule = replace(preset(shards.manifest.dataset), batch_size=flags.batch_size)
    loading = flags.model == "loader"
    name = "tin" if loading else flags.model
    model = build(name, None, inputs_of(shards), hidden=schedule.hidden)
    optimizer = optimizer_of(schedule, model.parameters())
    epochs = count()

    def epoch() -> Iterator[list[Batch]]:
        return shards.grouped_batches(
            "train",
            batch_size=flags.batch_size,
            cells=schedule.cells("cpu"),
            shuffle_seed=0,
            epoch=next(epochs),
            columns=(*model.columns, "label"),
        )

    def rows_of(groups: list[Batch]) -> int:
        return sum(len(group["label"]) for group in groups)

    feed = Feed(epoch, rows_of, Plan(flags.warm, flags.steps, flags.repeats))
    loss = 0.0
    for groups in feed:
        if loading:
            continue
        rows = rows_of(groups)
        for group in groups:
            loss += gradients(model, group, rows).item()
            optimizer.collect()
        optimizer.step()
    print(feed.told())


if __name__ == "__main__":
    main()
