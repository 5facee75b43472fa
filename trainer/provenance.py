"""What a table or figure says of where it comes from: its data, its settings, the paper's data."""

from __future__ import annotations

from pathlib import Path

from schemas.expected import ALIBABA_COUNTS, AMAZON_COUNTS
from schemas.manifest import FIRST_ID
from schemas.plain import printable
from trainer import paper
from trainer.data import Shards
from trainer.tables import Cell
from trainer.trials import Trials

# The columns that name a row's data set.
DATA = {"data": "data", "dataset": "dataset", "synthetic": "synthetic"}
SD = "sd: standard deviation over seeds."


def name_of(data: Path) -> str:
    """The data set's short name: that of its folder."""
    return printable(data.resolve().name)


def named(shards: Shards) -> dict[str, Cell]:
    """The values of `DATA`."""
    m = shards.manifest
    return {"data": name_of(shards.out), "dataset": printable(m.dataset), "synthetic": m.synthetic}


def title_of(shards: Shards) -> str:
    """The data set as a reader should see it; what is made up is said."""
    m = shards.manifest
    return printable(m.dataset) + (" (synthetic data)" if m.synthetic else "")


def published(shards: Shards) -> str:
    """The name under which the paper's values are kept; "" where the data is not the paper's."""
    m = shards.manifest
    if m.dataset == paper.ALIBABA:
        whole = m.counts.get("impressions read") == ALIBABA_COUNTS["raw_sample.csv"]
    else:
        known = AMAZON_COUNTS.get(m.dataset.removeprefix("amazon-"))
        whole = known is not None and m.vocabulary["item"] - FIRST_ID == known.items
    return m.dataset if whole and not m.synthetic else ""


def settings_of(trials: Trials, shards: Shards) -> str:
    """What the runs on a data set were trained with, in a sentence."""
    config = trials.config(shards.out)
    chosen = config.schedule(shards.manifest.dataset)
    seeds = "seed 0" if trials.seeds == 1 else f"seeds 0 to {trials.seeds - 1}"
    return (
        f"{name_of(shards.out)}: {chosen.optimizer}, learning rate {chosen.lr:g}, batch "
        f"{chosen.batch_size:,}, epochs: at most {chosen.epochs}, {config.dim} numbers a field, "
        f"{seeds}; weights chosen on valid where there is one, figures of test."
    )


def change(value: float | None, reference: float | None) -> float | None:
    """By how many percent a value is above its reference."""
    return None if value is None or not reference else 100.0 * (value / reference - 1.0)
