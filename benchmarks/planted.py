"""Models where the truth is known: clicks made up by a stated law, and what can be had of it.

python benchmarks/planted.py --out runs/planted                     positions and intervals matter
python benchmarks/planted.py --out runs/planted --law position      positions alone
python benchmarks/planted.py --out runs/planted --law interval      intervals alone

It makes Alibaba's raw files with a stronger law than the default (see `LAW`), prepares them, takes
out the columns that the law does not read (ad, profile, price: the models only learn them by
heart), trains the models on what is left, and writes `ceilings.md`, `table1.*` and `table4.*` to
`<out>/<law>`. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from sklearn.linear_model import LogisticRegression

from pipeline.config import AlibabaConfig
from pipeline.flow import prepare
from pipeline.sources.synthetic_alibaba import AlibabaRecipe, synthesize_alibaba
from pipeline.sources.synthetic_alibaba_law import click_log_odds
from schemas import manifest
from schemas.manifest import FIRST_ID, ShardFile
from trainer.data import Shards
from trainer.experiments import table1, table4
from trainer.metrics import gauc
from trainer.report import LiveReport
from trainer.trials import Trials

# Stronger than the default, and with more clicks, so that a small log says enough to learn it all.
WINDOW = 20
LAW: dict[str, Any] = {
    "category_gain": 4.0,
    "brand_gain": 0.0,
    "position_decay": 0.15,
    "interval_decay": 1.0,
    "interval_scale_s": 4 * 3600.0,
    "click_rate": 0.2,
    "retarget": 0.8,
}
LAWS = {
    "both": LAW,
    "position": LAW | {"interval_decay": 0.0, "position_decay": 0.3},
    "interval": LAW | {"position_decay": 0.0},
}
MODELS = ("avg_product", "din", "tin_wo_tte", "tin_wo_ta", "tin_wo_tr", "tin")
# Most models are at their best after one epoch to two; TIN without its product needs five.
SETTINGS = {
    "optimizer": "adam",
    "lr": 3e-3,
    "batch_size": 256,
    "epochs": 5,
    "evaluations": 2,
    "patience": 3,
    "device": "cpu",
}


def make(folder: Path, law: str, scale: float) -> Path:
    """Raw files, shards, and the shards without what the law does not read."""
    raw, full, data = folder / "raw", folder / "full", folder / f"planted-{law}"
    if not (data / manifest.NAME).exists():
        synthesize_alibaba(raw, replace(AlibabaRecipe(scale=scale, window=WINDOW), **LAWS[law]))
        prepare(AlibabaConfig(raw=raw, out=full, max_len=WINDOW, sessions="none"))
        without_features(full, data)
    return data


def without_features(full: Path, data: Path) -> None:
    """Copy a data set with the columns of histories and targets alone."""
    made = manifest.load(full)
    shards = []
    for shard in made.shards:
        file = pq.ParquetFile(full / shard.path)
        names = [n for n in file.schema_arrow.names if n.startswith(("target_", "history_"))]
        to = data / shard.path
        to.parent.mkdir(parents=True, exist_ok=True)
        table = file.read(columns=["row", "user", "label", *names])
        pq.write_table(table, to, row_group_size=65_536, compression="zstd")
        shards.append(
            ShardFile(shard.path, shard.rows, hashlib.sha256(to.read_bytes()).hexdigest())
        )
    kept = {n: made.vocabulary[n] for n in ("user", *made.fields)}
    note = "Made by benchmarks/planted.py: ad, profile and price are left out."
    slim = replace(made, shards=shards, vocabulary=kept, numbers={}, notes=[*made.notes, note])
    (data / manifest.NAME).write_text(slim.to_json(), encoding="utf-8")


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
        history = {name: column.astype(np.int64) for name, column in rows.histories.items()}
        self.user, self.label = scalar["user"], scalar["label"]
        of = np.repeat(np.arange(len(rows)), rows.lengths)
        place = (of, history["history_position"] - 1)
        shape = (len(rows), shards.manifest.max_len)
        target = scalar["target_category"][of]
        self.same = np.zeros(shape, np.bool_)
        self.same[place] = (history["history_category"] == target) & (target >= FIRST_ID)
        self.interval = np.zeros(shape, np.int64)
        self.interval[place] = scalar["target_time"][of] - history["history_time"]
        self.bin = np.zeros(shape, np.int64)
        self.bin[place] = history["history_interval_bin"]

    def counted(self, by_position: bool, by_bin: bool, bins: int) -> NDArray[np.float64]:
        """Behaviours of the target's category, by position or interval bin or both or neither."""
        split = [self.same & (self.bin == b) for b in range(1, bins + 1)]
        cells = np.stack(split if by_bin else [self.same], axis=2).astype(np.float64)
        if not by_position:
            cells = cells.sum(1, keepdims=True)
        return cells.reshape(len(cells), -1)


def ceilings(folder: Path, data: Path) -> str:
    """GAUC on test of the law itself, and of logistic regressions on what an encoding can tell."""
    shards = Shards(data)
    train, test = Seen(shards, "train"), Seen(shards, "test")
    made = json.loads((folder / "raw" / "SYNTHETIC.json").read_text(encoding="utf-8"))
    none = np.zeros(test.same.shape, np.bool_)
    odds = click_log_odds(
        AlibabaRecipe(**made["recipe"]),
        made["parameters"]["base_log_odds"],
        test.interval,
        test.same,
        none,
    )
    lines = [("the law itself", gauc(test.user, test.label, odds))]
    for name, by in (
        ("matches counted (no encoding)", (False, False)),
        ("matches by position (tte-p)", (True, False)),
        ("matches by interval bin (tte-t)", (False, True)),
        ("matches by both (tte-pt)", (True, True)),
    ):
        seen = [split.counted(*by, shards.manifest.bins.count) for split in (train, test)]
        fitted = LogisticRegression(max_iter=500).fit(seen[0], train.label)
        lines.append((name, gauc(test.user, test.label, fitted.decision_function(seen[1]))))
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in lines)
    return (
        f"# What is possible on {data.name} (synthetic data)\n\n"
        f"| score | GAUC on test |\n| --- | ---: |\n{rows}\n\n"
        "match: a behaviour of the target's category. Each line but the first is a logistic "
        f"regression fitted on train. {len(test.user):,} rows of test, {test.label.sum():,} "
        f"clicks.\n\nThe law: {json.dumps(made['parameters'])}\n"
    )


def main() -> None:
    """Make, measure, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--law", choices=LAWS, default="both")
    parser.add_argument("--scale", type=float, default=0.01, help="of Alibaba's published size")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    folder: Path = options.out / options.law
    console = Console(stderr=True)
    data = make(folder, options.law, options.scale)
    text = ceilings(folder, data)
    (folder / "ceilings.md").write_text(text, encoding="utf-8")
    print(text, flush=True)
    with LiveReport(console) as report:
        trials = Trials(
            (data,),
            folder / "runs",
            options.seeds,
            SETTINGS | {"threads": options.threads},
            report.line,
            report,
        )
        models = options.models.split(",")
        for make_table in (partial(table1, trials, models), partial(table4, trials)):
            table = make_table()
            table.write(folder)
            print(table.markdown(), flush=True)


if __name__ == "__main__":
    main()
