"""Every model that can be trained, in a line, for a terminal."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from schemas.bounds import HISTORY
from trainer.analysis import paper
from trainer.data.facts import DEFAULTS
from trainer.data.inputs import HistoryInputs, Inputs, inputs_of
from trainer.data.shards import Shards
from trainer.models.interest import build
from trainer.models.layers import Fields, OneTable
from trainer.models.recipes import RECIPES

# For who has no data set at hand.
_FIELDS = {"item": 63_003, "category": 803}
_ELECTRONICS = Inputs(_FIELDS, {}, (), {HISTORY: HistoryInputs((*_FIELDS,), max_len=50, bins=10)})
_ABOUT = (
    "code: temporal information, target-aware attention, target-aware representation (3.3)\n"
    "no tables: parameters besides the fields' embeddings\n"
    "encodings: the default first\n"
    "histories: all of a data set with several at once, or one, named by --history\n"
)


def models_table(data: Path | None, history: str | None = None) -> Group:
    """Every recipe with its parts, its number of parameters, and where it comes from.

    Args:
        data: folder of the data set whose sizes count; None for Electronics' published ones.
        history: of a data set with several the one that models read; None for all.
    """
    inputs, name, hidden = _ELECTRONICS, paper.AMAZON, DEFAULTS.hidden
    if data is not None:
        shards = Shards(data, history=history)
        inputs, name = inputs_of(shards), shards.manifest.dataset
        hidden = shards.facts.training.hidden
    table = Table(title=f"models, sized for {name}")
    table.add_column("model", no_wrap=True)
    table.add_column("code", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("no tables", justify="right", no_wrap=True)
    table.add_column("histories", no_wrap=True)
    table.add_column("encodings", overflow="fold")
    for model, recipe in RECIPES.items():
        reads, why = "all" if recipe.all_histories else "one", None
        if recipe.searches and inputs.group_field is None:
            why = "(the data set has no groups to search in)"
        elif not recipe.all_histories and len(inputs.histories) > 1:
            why = "(name one)"
        if why is not None:
            table.add_row(model, recipe.code, "-", "-", reads, why)
            continue
        with torch.device("meta"):  # sizes alone, no memory
            built = build(model, None, inputs, hidden=hidden)
        every = sum(p.numel() for p in built.parameters())
        tables = [m for m in built.modules() if isinstance(m, Fields | OneTable)]
        beside = every - sum(p.numel() for fields in tables for p in fields.parameters())
        sizes = (f"{every:,}", f"{beside:,}")
        table.add_row(model, recipe.code, *sizes, reads, " ".join(recipe.encodings))
    sources = [f"{model}: {recipe.source}" for model, recipe in RECIPES.items()]
    return Group(table, Text("\n".join([_ABOUT, *sources])))
