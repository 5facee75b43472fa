"""Measure `train --unknown-rate` on targets that have no id: do their scores get better?

`python benchmarks/unknown.py beauty --raw DIR` takes Amazon's Beauty, whose last fifth is test:
many of its items are new there. `python benchmarks/unknown.py kuairand --raw DIR` takes KuaiRand in
the layout of the Taobao log, and leaves the impressions of a fifth of the ads out of train. Only
what train holds has an id. TIN is trained at each rate and seed, and test is scored. Of Beauty the
table says how often the positive's score is above its negative's, of KuaiRand AUC and logloss: of
targets without an id, and of the others; mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from zlib import crc32

import numpy as np
import polars as pl
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.presets.described import source_of
from tinprep import TrainConfig, predict, prepare, train

# Of each: its preset, the preset's split, and the column that may have no id.
SETS = {
    "beauty": ("amazon-2014", 'split = { by = "order" }', "item"),
    "kuairand": ("alibaba-ads", 'split = { by = "day", timezone = "Asia/Shanghai" }', "ad"),
}
CUTS = {"beauty": (1_388_102_400, 1_394_150_400), "kuairand": (1_651_805_468, 1_651_888_566)}
TRAINING = {
    "beauty": {"batch_size": 1024, "steps": 120},
    "kuairand": {"batch_size": 256, "epochs": 2, "optimizer": "adam"},
}


def made(name: str, raw: Path, folder: Path) -> Path:
    """The data set of which only what train holds has an id."""
    preset, split, _ = SETS[name]
    valid, test = CUTS[name]
    text = source_of(preset)[0].text
    for old, new in (
        (split, f'split = {{ by = "time", valid = {valid}, test = {test} }}'),
        ('from = "all"', 'from = "train"'),
        ('pool = "all"', 'pool = "train"'),
        ('category = "Electronics"', 'category = "Beauty"'),
    ):
        text = text.replace(old, new)
    (folder / "made.toml").write_text(text)
    if name == "kuairand":
        for file in raw.glob("*.csv"):
            (folder / file.name).symlink_to(file.resolve())
        shown = pl.read_csv(raw / "raw_sample.csv")
        ads = shown["adgroup_id"].unique()
        held = ads.filter(pl.Series([crc32(str(ad).encode()) % 5 == 0 for ad in ads]))
        early = pl.col("time_stamp") < valid
        (folder / "raw_sample.csv").unlink()
        left = shown.filter(~(early & pl.col("adgroup_id").is_in(held.implode())))
        left.write_csv(folder / "raw_sample.csv")
        raw = folder
    prepare(folder / "made.toml", raw=raw, out=folder / "out")
    return folder / "out"


def measured(scores: pl.DataFrame, key: str) -> dict[str, float]:
    """What the scores of test are worth, of targets without an id and of the others."""
    positive = pl.col("label") == 1
    found = {}
    if scores.filter(positive & pl.col(key).is_null()).height and key == "item":
        own = scores.filter(positive).select("row", "score", gone=pl.col(key).is_null())
        other = scores.filter(~positive).select("row", below="score")
        pairs = own.join(other, on="row").with_columns(right=pl.col("score") > pl.col("below"))
        for name, rows in (("unknown", pl.col("gone")), ("known", ~pl.col("gone"))):
            found[f"pair accuracy, {name}"] = float(pairs.filter(rows)["right"].mean())
        return found
    for name, rows in (("unknown", pl.col(key).is_null()), ("known", pl.col(key).is_not_null())):
        some = scores.filter(rows)
        found[f"AUC, {name}"] = float(roc_auc_score(some["label"], some["score"]))
        found[f"logloss, {name}"] = float(log_loss(some["label"], some["score"]))
    return found


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("set", choices=[*SETS])
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 0.05, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = made(asked.set, asked.raw, folder)
        for n, rate in enumerate(asked.rates):
            found = []
            for seed in range(asked.seeds):
                run, file = folder / f"run-{rate}-{seed}", folder / f"{rate}-{seed}.parquet"
                how = TRAINING[asked.set]
                train(TrainConfig(out, run, seed=seed, unknown_rate=rate, threads=1, **how))
                predict(run, out, file, splits=("test",))
                found.append(measured(pl.read_parquet(file), SETS[asked.set][2]))
            if not n:
                print(f"| rate | {' | '.join(found[0])} |")
                print("|---|" + "---|" * len(found[0]))
            cells = [[one[name] for one in found] for name in found[0]]
            told = [f"{np.mean(of):.4f} ± {np.std(of, ddof=1):.4f}" for of in cells]
            print(f"| {rate:g} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
