"""TIN on somebody's own log whose law is known: a CSV file, its description, and what can be had.

python benchmarks/planted_log.py --out runs/planted-log

It makes `shown.csv`, an impression a line, and `shown.toml`, which describes it; prepares it as any
other log; trains TIN by several seeds; and writes `planted_log.md`: GAUC and AUC on test of what
only counts, of TIN, and of the law itself, which nothing can pass but by chance.

The law: a user is shown one thing after the other. With the chance `RETARGET` it is of the category
of one of the latest clicks, else of any; each item of the category is as likely. It is clicked with
the log odds `BASE` plus, for each of the latest clicks that is of its category, `GAIN[p]`, where
p = 1 is the newest. The newest clicks speak for a category and older ones against it: one is tired
of what one had. So how many of the clicks are of a category says little, popularity nothing, and
only who tells the places apart can know. No user is shown two things in one millisecond.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.cli.app import main as tinprep
from schemas.machine import usable_cores
from trainer.analysis.trials import Case, Trials
from trainer.baselines import baselines_of
from trainer.data.shards import Shards
from trainer.metrics import auc, gauc
from trainer.training.console import LiveReport

GAIN = (3.0, 2.5, 1.5, 0.5, -1.0, -1.5, -1.5, -0.5)
BASE, RETARGET = -1.2, 0.8
CATEGORIES, ITEMS_EACH, EACH = 30, 20, 60
HOUR = 3_600_000  # milliseconds, as all times here
START = 1_767_225_600_000  # 2026-01-01 in UTC

DESCRIPTION = """\
[tables.shown]
files = "shown.csv"
user = "user"
time = { column = "shown_at", unit = "ms" }
label = "clicked"
fields = { item = "item", category = "category" }
[target]
table = "shown"
split = { by = "time", valid = "2026-01-11", test = "2026-01-13", timezone = "UTC" }
[histories.history]
table = "shown"
where = "clicked = 1"
max_len = 20
[vocabulary]
from = "all"
[train]
batch_size = 256
epochs = 6
group_field = "category"
"""
# Small, as the law is: the same for every seed.
SETTINGS = {"dim": 16, "hidden": (32, 16), "device": "cpu", "threads": 1}


def draw(users: int, seed: int) -> pl.DataFrame:
    """The log, and what the law knew of each line: `odds`, the log odds of its click."""
    rng = np.random.default_rng(seed)
    gain, rows = np.array(GAIN), np.arange(users)
    clicks = np.full((users, len(gain)), -1)  # categories, the newest first
    time = START + rng.integers(0, 24 * HOUR, users)
    parts = []
    for _ in range(EACH):
        time = time + 1 + rng.exponential(6 * HOUR, users).astype(np.int64)
        known = (clicks >= 0).sum(1)
        place = (rng.random(users) * np.maximum(known, 1)).astype(np.int64)
        again = (rng.random(users) < RETARGET) & (known > 0)
        category = np.where(again, clicks[rows, place], rng.integers(0, CATEGORIES, users))
        odds = BASE + (clicks == category[:, None]) @ gain
        clicked = rng.random(users) < 1 / (1 + np.exp(-odds))
        item = category * ITEMS_EACH + rng.integers(0, ITEMS_EACH, users)
        parts.append(
            pl.DataFrame(
                {
                    "user": [f"u{n}" for n in rows],
                    "item": [f"i{n}" for n in item],
                    "category": [f"c{n}" for n in category],
                    "shown_at": time,
                    "clicked": clicked.astype(np.int8),
                    "odds": odds,
                }
            )
        )
        newer = np.concatenate([category[:, None], clicks[:, :-1]], axis=1)
        clicks = np.where(clicked[:, None], newer, clicks)
    return pl.concat(parts).sort("shown_at", "user")


def make(folder: Path, users: int, seed: int) -> tuple[Path, pl.DataFrame]:
    """The data set of a log, and the log: line n is `row` n."""
    log, data = draw(users, seed), folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    log.drop("odds").write_csv(folder / "shown.csv")
    (folder / "shown.toml").write_text(DESCRIPTION, encoding="utf-8")
    if tinprep(["prepare", str(folder / "shown.toml"), "--out", str(data)]):
        raise SystemExit("the log could not be prepared")
    return data, log


def measured(data: Path, log: pl.DataFrame, trials: Trials) -> str:
    """The table of scores on test, as Markdown."""
    shards = Shards(data)
    test = shards.split("test").scalars
    user, label = test["user"], test["label"]
    odds = log["odds"].to_numpy()[test["row"]]
    lines = []
    for name, baseline in baselines_of(shards).items():
        scores = baseline(shards, "test").score
        lines.append((name, f"{gauc(user, label, scores):.4f}", f"{auc(label, scores):.4f}"))
    for trial in trials.run([Case(data, "tin", "tte-p")]):
        found = trial.over_seeds("gauc", "auc")
        one, other = (f"{found[of]:.4f} ± {found[f'{of}_sd'] or 0.0:.4f}" for of in ("gauc", "auc"))
        lines.append((f"TIN, mean of {len(trial.runs)} seeds ± deviation", one, other))
    law = ("the law itself", f"{gauc(user, label, odds):.4f}", f"{auc(label, odds):.4f}")
    rows = "\n".join(f"| {name} | {one} | {other} |" for name, one, other in [*lines, law])
    train = shards.manifest.rows["train"]
    return (
        "# A planted log (synthetic data)\n\n"
        f"| score | GAUC | AUC |\n| --- | ---: | ---: |\n{rows}\n\n"
        f"On {len(label):,} rows of test, {label.mean():.0%} of them clicked; {train:,} rows of "
        f"train. GAIN {GAIN}, BASE {BASE}, RETARGET {RETARGET}.\n"
    )


def main() -> None:
    """Make, prepare, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the log")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="trainings at a time")
    options = parser.parse_args()
    folder: Path = options.out
    data, log = make(folder, options.users, options.seed)
    with LiveReport() as report:
        trials = Trials(
            (data,), folder / "runs", options.seeds, SETTINGS, report.line, report.watch,
            options.jobs,
        )  # fmt: skip
        text = measured(data, log, trials)
    (folder / "planted_log.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
