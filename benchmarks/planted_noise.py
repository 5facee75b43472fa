"""Feature selection where the truth is known: a planted law, 100 noise features, 20 histories.

python benchmarks/planted_noise.py --out runs/planted-noise

It makes the log of `planted_mix.py`, with `FEATURES` features and `HISTORIES` histories more that
are drawn by chance; trains `tin_mix` on all; selects feature sets by its gates; prepares the
description that comes of it; and trains on what is left, with the same seeds. To `planted_noise.md`
it writes what was dropped, what selecting cost, and how GAUC on test changes, seed by seed.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

import numpy as np
import planted_mix
import polars as pl
from planted_log import CATEGORIES, EACH, HOUR, ITEMS_EACH, START, prepare
from planted_mix import SETTINGS, Law, case, interval, parameters

from pipeline.description.toml import without, written
from trainer.analysis.importance import importance
from trainer.analysis.selection import select
from trainer.analysis.trials import Trial, Trials
from trainer.training.console import LiveReport
from trainer.training.runs import METRICS, Result, read_json

FEATURES, HISTORIES, VALUES = 100, 20, 20
# Narrower than in `planted_mix`, as there are 147 fields.
NARROW = SETTINGS | {"dim": 8, "hidden": (32, 16), "batch_size": 128, "epochs": 4}
# Fewer values than there, so that a smaller log says enough.
FEW = Law({"slot": 8, "layout": 8, "device": 4})
LAW = {*FEW.sizes, "history"}


def make(folder: Path, users: int, seed: int) -> Path:
    """The description of the log with its noise, beside its files."""
    rng = np.random.default_rng(seed + 1)
    log = planted_mix.draw(users, seed, FEW).drop("odds")
    noise = {
        f"noise{n}": pl.Series(rng.integers(0, VALUES, len(log))).map_elements(
            lambda value: f"v{value}", return_dtype=pl.String
        )
        for n in range(FEATURES)
    }
    folder.mkdir(parents=True, exist_ok=True)
    log.with_columns(**noise).write_csv(folder / "shown.csv")
    rows = users * HISTORIES * 12
    category = rng.integers(0, CATEGORIES, rows)
    item = category * ITEMS_EACH + rng.integers(0, ITEMS_EACH, rows)
    pl.DataFrame(
        {
            "user": [f"u{n}" for n in rng.integers(0, users, rows)],
            "item": [f"i{n}" for n in item],
            "category": [f"c{n}" for n in category],
            "at": START + rng.integers(0, EACH * 6 * HOUR, rows),
            "kind": rng.integers(0, HISTORIES, rows),
        }
    ).sort("at", "user").write_csv(folder / "events.csv")
    said = tomllib.loads(planted_mix.description_of(FEW))
    said["tables"]["shown"]["features"] |= {name: name for name in noise}
    said["tables"]["events"] = {
        "files": "events.csv",
        "user": "user",
        "time": {"column": "at", "unit": "ms"},
        "fields": {"item": "item", "category": "category"},
    }
    for n in range(HISTORIES):
        one = {"table": "events", "where": f"kind = {n}", "max_len": 10}
        said["histories"][f"noise_history{n}"] = one
    (folder / "full.toml").write_text(written(said), encoding="utf-8")
    return folder / "full.toml"


def table(folder: Path, trials: dict[str, Trial], lines: list[str]) -> str:
    """What came of it, as Markdown."""
    rows = []
    for name, trial in trials.items():
        cells = trial.over_seeds("gauc", "auc")
        one, other = (f"{cells[k]:.4f} ± {cells[f'{k}_sd'] or 0.0:.4f}" for k in ("gauc", "auc"))
        results = [read_json(run / METRICS, Result, do="train again") for run in trial.runs]
        speed = sum(one.rows_per_second for one in results) / len(results)
        rows.append(f"| {name} | {parameters(trial):,} | {one} | {other} | {speed:,.0f} |")
    full, slim = trials.values()
    pairs = zip(slim.metrics, full.metrics, strict=True)
    change = interval([one.gauc - other.gauc for one, other in pairs])
    return (
        "# Selection among noise (synthetic data)\n\n"
        "| tin_mix on | parameters | GAUC | AUC | rows/s |\n| --- | ---: | ---: | ---: | ---: |\n"
        + "\n".join(rows)
        + f"\n\nGAUC changes by {change}, of {len(full.runs)} seeds, with the 95% interval. "
        + " ".join(lines)
        + "\n"
    )


def main() -> None:
    """Make, prepare, train, select, prepare, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the log")
    parser.add_argument("--sparsity", type=float, default=1e-3)
    parser.add_argument("--draws", type=int, default=2, help="of importance; 0 for none")
    options = parser.parse_args()
    folder: Path = options.out
    said, trials = make(folder, options.users, options.seed), {}
    with LiveReport() as report:

        def trained(name: str, description: Path) -> Trial:
            if not (folder / name / "manifest.json").exists():
                prepare(description, folder / name)
            of = Trials(
                (folder / name,), folder / "runs", options.seeds, NARROW, report.line,
                report.watch,
            )  # fmt: skip
            return of.run([case(folder / name, "tin_mix")])[0]

        trials["all"] = trained("full", said)
        run, lines = trials["all"].runs[0], []
        if options.draws:
            parts = importance(run, draws=options.draws).parts
            sure = [part.name for part in parts if part.p < 0.05 and part.kind != "field"]
            lines.append(f"Importance, {options.draws} draws: {', '.join(sure)} matter (p < 0.05).")
        found = select(run, options.sparsity)
        gone = {kind: found.dropped(kind) for kind in ("feature", "history")}
        left = [one.name for one in found.sets if one.kept]
        lines.append(
            f"Selection (sparsity {found.sparsity:g}, {found.steps:,} steps over {found.rows:,} "
            f"rows, {found.seconds:.0f} s) dropped {len(gone['feature'])} features and "
            f"{len(gone['history'])} histories, and kept {', '.join(left)}; the law reads "
            f"{', '.join(sorted(LAW))}."
        )
        keys = without(tomllib.loads(said.read_text()), gone["feature"], gone["history"])
        (folder / "slim.toml").write_text(written(keys), encoding="utf-8")
        trials["what was kept"] = trained("slim", folder / "slim.toml")
    text = table(folder, trials, lines)
    (folder / "planted_noise.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
