"""Our side of `fuxictr.py`: trains one recipe for some steps, or only loads, and prints its rate.

The steps are those of `trainer.training.loop`: groups of similar length, the loss read at each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from feed import Feed, Plan

from trainer.data.batches import Batch
from trainer.data.inputs import inputs_of
from trainer.data.shards import Shards
from trainer.models.interest import build
from trainer.training.config import cells_of
from trainer.training.optimizer import optimizer_of
from trainer.training.train import gradients

BARE = "_bare"  # behind a recipe: without its auxiliary loss


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="one recipe's training rate")
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "model", help="a recipe, perhaps `_bare`; or `loader` for what `tin` reads, untrained"
    )
    for name in ("--batch-size", "--threads", "--warm", "--steps", "--repeats"):
        parser.add_argument(name, type=int, required=True)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    shards = Shards(flags.data)
    chosen = replace(shards.facts.training, batch_size=flags.batch_size)
    loading = flags.model == "loader"
    name = "tin" if loading else flags.model.removesuffix(BARE)
    model = build(name, None, inputs_of(shards), hidden=chosen.hidden)
    if flags.model.endswith(BARE):
        model.auxiliary = None
    optimizer = optimizer_of(chosen, model.parameters())
    epochs = count()

    def epoch() -> Iterator[list[Batch]]:
        return shards.grouped_batches(
            "train",
            batch_size=flags.batch_size,
            cells=cells_of(chosen, "cpu"),
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
