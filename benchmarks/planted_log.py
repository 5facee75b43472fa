"""TIN on somebody's own log whose law is known: a CSV file, its description, and what can be had.

python benchmarks/planted_log.py --out runs/planted-log
python benchmarks/planted_log.py --out runs/planted-kinds --kinds     views and carts

It makes `shown.csv`, an impression a line, and `shown.toml`, which describes it; prepares it as any
other log; trains TIN by several seeds; and writes `planted_log.md`: GAUC and AUC on test of what
only counts, of TIN, and of the law itself, which nothing can pass but by chance.

The law: a user is shown one thing after the other. With the chance `RETARGET` it is of the category
of one of the latest clicks, else of any; each item of the category is as likely. It is clicked with
the log odds `BASE` plus, for each of the latest clicks that is of its category, `GAIN[p]`, where
p = 1 is the newest. The newest clicks speak for a category and older ones against it: one is tired
of what one had. So how many of the clicks are of a category says little, popularity nothing, and
only who tells the places apart can know. No user is shown two things in one millisecond.

With `--kinds` a user views and carts things, whatever is clicked, and `events.csv` has both. The
log odds are `BASE_OF_KINDS`, plus `VIEW_GAIN[p]` for each of the latest views that is of the
category, plus `CART_GAIN`, by its interval, for each of the latest carts that is: what was carted
just now is bought already, what was carted days ago is used up. TIN is trained on both histories,
on either alone, and on one of views and carts together, where nothing tells them apart.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.cli.app import main as tinprep
from schemas.machine import usable_cores
from trainer.analysis.trials import Case, Trials, mean_sd
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
VIEW_GAIN = (2.5, 2.0, 1.0, 0.0, -1.0, -1.5, -1.5, -1.0)
CART_GAIN = {12.0: -2.5, 36.0: 0.0, math.inf: 2.5}  # up to so many hours
BASE_OF_KINDS = -1.0
VIEWS, CARTS = 1.0, 0.6  # the chance of an event between two impressions
KINDS = """\
[tables.shown]
files = "shown.csv"
user = "user"
time = { column = "shown_at", unit = "ms" }
label = "clicked"
fields = { item = "item", category = "category" }
[tables.events]
files = "events.csv"
user = "user"
time = { column = "at", unit = "ms" }
fields = { item = "item", category = "category" }
[target]
table = "shown"
split = { by = "time", valid = "2026-01-11", test = "2026-01-13", timezone = "UTC" }
[vocabulary]
from = "all"
[train]
lr = 3e-3
batch_size = 256
epochs = 6
group_field = "category"
"""
HISTORY = """\
[histories.{name}]
table = "events"
where = "{where}"
max_len = 16
"""
# Name of a history -> which events it holds.
APART = {"viewed": "kind = 'view'", "carted": "kind = 'cart'"}
# Small, as the law is: the same for every seed.
SETTINGS = {"dim": 16, "hidden": (32, 16), "device": "cpu", "threads": 1}


Added = tuple[dict[str, list[str]], Any]
More = Callable[[np.random.Generator], Callable[[int], Added]]


def draw(users: int, seed: int, more: More | None = None) -> pl.DataFrame:
    """The log, and what the law knew of each line: `odds`, the log odds of its click.

    `more` makes what adds to it, for each user at a time: further columns, and to the log odds.
    """
    rng = np.random.default_rng(seed)
    gain, rows = np.array(GAIN), np.arange(users)
    add = more(rng) if more is not None else lambda _: ({}, 0)
    clicks = np.full((users, len(gain)), -1)  # categories, the newest first
    time = START + rng.integers(0, 24 * HOUR, users)
    parts = []
    for _ in range(EACH):
        time = time + 1 + rng.exponential(6 * HOUR, users).astype(np.int64)
        known = (clicks >= 0).sum(1)
        place = (rng.random(users) * np.maximum(known, 1)).astype(np.int64)
        again = (rng.random(users) < RETARGET) & (known > 0)
        category = np.where(again, clicks[rows, place], rng.integers(0, CATEGORIES, users))
        columns, added = add(users)
        odds = BASE + (clicks == category[:, None]) @ gain + added
        clicked = rng.random(users) < 1 / (1 + np.exp(-odds))
        item = category * ITEMS_EACH + rng.integers(0, ITEMS_EACH, users)
        parts.append(
            pl.DataFrame(
                {
                    "user": [f"u{n}" for n in rows],
                    "item": [f"i{n}" for n in item],
                    "category": [f"c{n}" for n in category],
                    **columns,
                    "shown_at": time,
                    "clicked": clicked.astype(np.int8),
                    "odds": odds,
                }
            )
        )
        newer = np.concatenate([category[:, None], clicks[:, :-1]], axis=1)
        clicks = np.where(clicked[:, None], newer, clicks)
    return pl.concat(parts).sort("shown_at", "user")


def draw_kinds(users: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The log of what was shown, with `odds`, and that of views and carts."""
    rng = np.random.default_rng(seed)
    rows, most = np.arange(users), len(VIEW_GAIN)
    views, carts = np.full((users, most), -1), np.full((users, most), -1)  # the newest first
    carted_at = np.zeros((users, most))
    time = START + rng.integers(0, 24 * HOUR, users)
    shown, events = [], []

    def lines(who: np.ndarray, category: np.ndarray, at: str, **more: object) -> pl.DataFrame:
        item = category * ITEMS_EACH + rng.integers(0, ITEMS_EACH, len(who))
        columns = {
            "user": [f"u{n}" for n in who],
            "item": [f"i{n}" for n in item],
            "category": [f"c{n}" for n in category],
            at: time[who],
        }
        return pl.DataFrame(columns | more)

    for _ in range(EACH):
        for kind, held, chance in (("view", views, VIEWS), ("cart", carts, CARTS)):
            time = time + 1 + rng.exponential(2 * HOUR, users).astype(np.int64)
            who = rows[rng.random(users) < chance]
            category = rng.integers(0, CATEGORIES, len(who))
            held[who] = np.concatenate([category[:, None], held[who, :-1]], axis=1)
            if kind == "cart":
                carted_at[who] = np.concatenate([time[who, None], carted_at[who, :-1]], axis=1)
            events.append(lines(who, category, "at", kind=kind))
        time = time + 1 + rng.exponential(2 * HOUR, users).astype(np.int64)
        both = np.concatenate([views[:, :4], carts[:, :4]], axis=1)
        place = rng.integers(0, both.shape[1], users)
        again = (rng.random(users) < RETARGET) & (both[rows, place] >= 0)
        category = np.where(again, both[rows, place], rng.integers(0, CATEGORIES, users))
        hours = (time[:, None] - carted_at) / HOUR
        of_cart = np.array([*CART_GAIN.values()])[np.searchsorted([*CART_GAIN], hours)]
        odds = BASE_OF_KINDS + (views == category[:, None]) @ np.array(VIEW_GAIN)
        odds = odds + ((carts == category[:, None]) * of_cart).sum(1)
        clicked = (rng.random(users) < 1 / (1 + np.exp(-odds))).astype(np.int8)
        shown.append(lines(rows, category, "shown_at", clicked=clicked, odds=odds))
    return pl.concat(shown).sort("shown_at", "user"), pl.concat(events).sort("at", "user")


def make_kinds(folder: Path, users: int, seed: int) -> tuple[Path, Path, pl.DataFrame]:
    """The data sets of two histories and of one of both kinds, and the log of what was shown."""
    log, events = draw_kinds(users, seed)
    folder.mkdir(parents=True, exist_ok=True)
    log.drop("odds").write_csv(folder / "shown.csv")
    events.write_csv(folder / "events.csv")
    for name, histories in (("apart", APART), ("merged", {"history": "kind in ('view', 'cart')"})):
        said = [HISTORY.format(name=of, where=where) for of, where in histories.items()]
        (folder / f"{name}.toml").write_text(KINDS + "".join(said), encoding="utf-8")
        prepare(folder / f"{name}.toml", folder / name)
    return folder / "apart", folder / "merged", log


def prepare(description: Path, out: Path) -> None:
    """Make a data set, as anybody would."""
    if tinprep(["prepare", str(description), "--out", str(out)]):
        raise SystemExit("the log could not be prepared")


def measured_kinds(
    apart: Path, merged: Path, log: pl.DataFrame, trials: Callable[..., Trials]
) -> str:
    """The table of scores on test, as Markdown: each beside both histories, seed by seed."""
    variants = {
        "TIN, views and carts": (apart, None),
        "TIN, views alone": (apart, "viewed"),
        "TIN, carts alone": (apart, "carted"),
        "TIN, both in one history": (merged, None),
    }
    found = {
        name: trials(data, history).run([Case(data, "tin", "tte-pt")])[0]
        for name, (data, history) in variants.items()
    }
    best = next(iter(found.values()))
    lines = []
    for name, trial in found.items():
        cells = trial.over_seeds("gauc", "auc")
        pairs = zip(best.metrics, trial.metrics, strict=True)
        less, sd = mean_sd(m.gauc - of.gauc for m, of in pairs)
        behind = "-" if trial is best else f"{less:.4f} ± {sd or 0.0:.4f}"
        one, other = (f"{cells[of]:.4f} ± {cells[f'{of}_sd'] or 0.0:.4f}" for of in ("gauc", "auc"))
        lines.append(f"| {name} | {one} | {other} | {behind} |")
    shards = Shards(apart)
    test = shards.split("test").scalars
    user, label, odds = test["user"], test["label"], log["odds"].to_numpy()[test["row"]]
    lines.append(f"| the law itself | {gauc(user, label, odds):.4f} | {auc(label, odds):.4f} | |")
    return (
        "# Views and carts (synthetic data)\n\n"
        "| score | GAUC | AUC | GAUC behind both histories |\n| --- | ---: | ---: | ---: |\n"
        + "\n".join(lines)
        + f"\n\nMean of {len(best.runs)} seeds ± deviation; the last column is of the differences "
        f"seed by seed. {len(label):,} rows of test, {label.mean():.0%} of them clicked; "
        f"{shards.manifest.rows['train']:,} rows of train.\n"
    )


def make(folder: Path, users: int, seed: int) -> tuple[Path, pl.DataFrame]:
    """The data set of a log, and the log: line n is `row` n."""
    log, data = draw(users, seed), folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    log.drop("odds").write_csv(folder / "shown.csv")
    (folder / "shown.toml").write_text(DESCRIPTION, encoding="utf-8")
    prepare(folder / "shown.toml", data)
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
    parser.add_argument("--kinds", action="store_true", help="of views and carts")
    options = parser.parse_args()
    folder: Path = options.out

    def trials(data: Path, history: str | None = None) -> Trials:
        # Two laws at once are learned after a while in which no evaluation is better.
        of = {"history": history, "patience": 24} if options.kinds else {}
        return Trials(
            (data,), folder / "runs" / (history or ""), options.seeds,
            SETTINGS | of, report.line, report.watch, options.jobs,
        )  # fmt: skip

    with LiveReport() as report:
        if options.kinds:
            text = measured_kinds(*make_kinds(folder, options.users, options.seed), trials)
        else:
            data, log = make(folder, options.users, options.seed)
            text = measured(data, log, trials(data))
    (folder / "planted_log.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
