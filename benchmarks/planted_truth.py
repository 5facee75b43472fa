"""What a planted law leaves to be found: ceilings of scores, and the decay as CTC shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pipeline.synthetic.alibaba import AlibabaRecipe
from pipeline.synthetic.alibaba_law import click_log_odds, gain
from schemas.manifest import FIRST_ID
from trainer.analysis.correlation import correlate
from trainer.data.shards import Shards
from trainer.metrics import gauc

POSITIONS = 10  # shown by `tinprep correlate`, as in the paper's Figure 1

Floats = NDArray[np.float64]


class Seen:
    """A split as the law sees it, position 1 first: N rows, P positions.

    Attributes:
        user: N.
        label: N.
        same: whether the behaviour's category is the target's, N x P.
        interval: seconds, N x P.
        bin: interval bin, N x P; 0 where there is no behaviour.
    """

    def __init__(self, shards: Shards, split: str) -> None:
        rows = shards.split(split)
        scalar = {name: column.astype(np.int64) for name, column in rows.scalars.items()}
        history = {
            name: column.astype(np.int64)
            for name, column in rows.histories["history"].columns.items()
        }
        self.user, self.label = scalar["user"], scalar["label"]
        of = np.repeat(np.arange(len(rows)), rows.lengths)
        place = (of, history["history_position"] - 1)
        shape = (len(rows), shards.manifest.history.max_len)
        target = scalar["target_category"][of]
        self.same = np.zeros(shape, np.bool_)
        self.same[place] = (history["history_category"] == target) & (target >= FIRST_ID)
        self.interval = np.zeros(shape, np.int64)
        self.interval[place] = scalar["target_time"][of] - history["history_time"]
        self.bin = np.zeros(shape, np.int64)
        self.bin[place] = history["history_interval_bin"]

    def counted(self, by_position: bool, by_bin: bool, bins: int) -> Floats:
        """Behaviours of the target's category, by position or interval bin or both or neither."""
        split = [self.same & (self.bin == b) for b in range(1, bins + 1)]
        cells = np.stack(split if by_bin else [self.same], axis=2).astype(np.float64)
        if not by_position:
            cells = cells.sum(1, keepdims=True)
        return cells.reshape(len(cells), -1)

    def decay(self, recipe: AlibabaRecipe, by: str, places: tuple[int, ...]) -> Floats:
        """The planted decay at each place: its mean over the behaviours that the law counts there.

        Args:
            recipe: the law's knobs.
            by: `position` or `interval`, for interval bins.
            places: positions or bins.
        """
        position = np.broadcast_to(np.arange(1, self.same.shape[1] + 1), self.same.shape)
        of = position if by == "position" else self.bin
        every = gain(recipe, position, self.interval, self.same, np.zeros_like(self.same))
        means = [every[self.same & (of == place)].mean() for place in places]
        return np.array(means) / recipe.category_gain


def recipe_of(made: Path) -> tuple[AlibabaRecipe, float]:
    """The law that raw files were made by, and its base log odds, as SYNTHETIC.json states them."""
    marker = json.loads((made / "SYNTHETIC.json").read_text(encoding="utf-8"))
    return AlibabaRecipe(**marker["recipe"]), marker["parameters"]["base_log_odds"]


def ceilings(raw: Path, data: Path) -> str:
    """GAUC on test of the law itself, and of logistic regressions on what an encoding can tell."""
    shards, (recipe, base) = Shards(data), recipe_of(raw)
    train, test = Seen(shards, "train"), Seen(shards, "test")
    none = np.zeros(test.same.shape, np.bool_)
    odds = click_log_odds(recipe, base, test.interval, test.same, none)
    lines = [("the law itself", gauc(test.user, test.label, odds))]
    for name, by in (
        ("matches counted (no encoding)", (False, False)),
        ("matches by position (tte-p)", (True, False)),
        ("matches by interval bin (tte-t)", (False, True)),
        ("matches by both (tte-pt)", (True, True)),
    ):
        seen = [split.counted(*by, shards.manifest.history.bins.count) for split in (train, test)]
        fitted = LogisticRegression(max_iter=500).fit(seen[0], train.label)
        lines.append((name, gauc(test.user, test.label, fitted.decision_function(seen[1]))))
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in lines)
    return (
        f"# What is possible on {data.name} (synthetic data)\n\n"
        f"| score | GAUC on test |\n| --- | ---: |\n{rows}\n\n"
        "match: a behaviour of the target's category. Each line but the first is a logistic "
        f"regression fitted on train, which is told what a match is. {len(train.user):,} rows of "
        f"train, {len(test.user):,} of test, {test.label.sum():,} clicks.\n\n"
        f"The law: category_gain {recipe.category_gain:g}, position_decay "
        f"{recipe.position_decay:g}, interval_decay {recipe.interval_decay:g} each "
        f"{recipe.interval_scale_s:g} s, window {recipe.window}, base log odds {base:g}.\n"
    )


@dataclass(frozen=True)
class Recovered:
    """The planted decay beside the CTC of targets' categories with themselves, place by place.

    Attributes:
        category: the category with the most clicks, which `tinprep correlate` shows.
        targets: its targets on train.
        decay: planted, P.
        one: the CTC of that category, P; below 0 where such a behaviour makes a click rarer.
        every: the mean over all categories, weighted by their targets, P.
    """

    category: str
    targets: int
    decay: Floats
    one: Floats
    every: Floats

    def agreement(self, bits: Floats) -> str:
        """Spearman's and Pearson's correlation with the decay."""
        ranks = [np.argsort(np.argsort(values)) for values in (self.decay, bits)]
        spearman, pearson = np.corrcoef(*ranks)[0, 1], np.corrcoef(self.decay, bits)[0, 1]
        return f"Spearman {spearman:.3f}, Pearson {pearson:.3f}"


def recovered(raw: Path, data: Path, by: str, cells: Path) -> Recovered:
    """Hold the planted decay against what `tinprep correlate` measures with its defaults.

    Args:
        raw: folder of the raw files.
        data: folder of the data set.
        by: `position` or `interval`.
        cells: where the CTC of all pairs is written.
    """
    shards, (recipe, _) = Shards(data), recipe_of(raw)
    found = correlate(data, by=by, positions=POSITIONS, everything=cells)
    against = pl.col("present_positives") * pl.col("targets") < pl.col("present") * pl.col(
        "positives"
    )
    signed = pl.when(against).then(-pl.col("bits")).otherwise(pl.col("bits"))
    own = (
        pl.read_parquet(cells)
        .filter(pl.col("target_category") == pl.col("category"))
        .group_by("place")
        .agg((signed * pl.col("targets")).sum() / pl.col("targets").sum())
        .sort("place")
    )
    return Recovered(
        found.category,
        found.targets,
        Seen(shards, "train").decay(recipe, by, found.places),
        np.where(found.against(), -found.values, found.values)[found.own],
        own["bits"].to_numpy(),
    )


def recovery(raw: Path, data: Path, cells: Path) -> str:
    """Both of them, as Markdown; the CTC of all pairs goes to files in the folder `cells`."""
    parts = [f"# The planted decay, and CTC (synthetic data: {data.name})"]
    for by, place in (("position", "position"), ("interval", "interval bin")):
        found = recovered(raw, data, by, cells / f"ctc-by-{by}.parquet")
        lines = [
            f"| {i} | {decay:.3f} | {one:.5f} | {every:.5f} |"
            for i, (decay, one, every) in enumerate(
                zip(found.decay, found.one, found.every, strict=True), 1
            )
        ]
        parts.append(
            f"| {place} | planted decay | CTC of category {found.category}, bits "
            "| of all categories |\n| ---: | ---: | ---: | ---: |\n"
            + "\n".join(lines)
            + f"\n\nCategory {found.category} ({found.targets:,} targets): "
            f"{found.agreement(found.one)}. All categories: {found.agreement(found.every)}."
        )
    parts.append(
        "planted decay: its mean over the matches at the place. CTC: of a category with itself, "
        "on train, as `tinprep correlate` gives it, with a minus where such a behaviour makes a "
        "click rarer (information itself has no sign); shown for the category with the most "
        "clicks, and as the mean over all, weighted by their targets."
    )
    return "\n\n".join(parts) + "\n"
