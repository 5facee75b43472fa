"""Experts where the truth is known: clicks by crosses of features, and by when what was clicked.

python benchmarks/planted_mix.py --out runs/planted-mix              every expert, pairs, the mix
python benchmarks/planted_mix.py --out runs/planted-mix --without    and the mix without each
python benchmarks/planted_mix.py --out runs/kuairand --data data/kuairand      of real data
python benchmarks/planted_mix.py --out runs/planted-real --raw DIR     real rows, clicks by the law
python benchmarks/planted_mix.py --out runs/planted-demo --demo        the demo's, fewer of them

It makes a log as `planted_log.py` does, with features of each impression, and writes
`planted_mix.md`: GAUC on test of each expert alone, of each with as many table sets as the mix has
(TIN with as wide tables), of the best pair of experts, of `tin_mix`, and of the control. The mix
and the pair are there by their average and by a gate; the pair also with tables as wide as all of
the mix's are together.

The law: log odds = `BASE` + the sum of `GAIN[p]` over the latest clicks of the target's category at
position p + for each of `twos`, features x and y, `cross` * <a_x, b_y> + `third` * s_x s_y s_z of
`three`. The vectors a and b are drawn, and moved so that no value of x or y by itself says
anything; the signs s are drawn, as many of each. So no value of a feature tells anything alone: the
first term wants who tells places apart, the second crosses of two features, the third of three.
`NARROW` has one cross of two, in three features. `WIDE` (`--wide`) has three, in seven features.

With `--raw`, files in the Alibaba data's layout, or `--demo`, made-up ones, all is theirs but the
clicks: the histories are the users' page views. Each impression is there `TIMES` times, each time
with values of the law's features.

Pairs are trained by one seed, and the best on valid by all. Intervals are of the differences seed
by seed, by Student's t.
"""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import planted_log
import polars as pl
from planted_log import prepare, tinprep
from scipy.stats import t as student

from pipeline import description
from pipeline.description.toml import written
from trainer.analysis.tables import title_of
from trainer.analysis.trials import Case, Trial, Trials, mean_sd
from trainer.data.shards import Shards
from trainer.metrics import auc, gauc
from trainer.models.recipes import RECIPES
from trainer.training.console import LiveReport
from trainer.training.runs import METRICS, Result, read_json


@dataclass(frozen=True)
class Law:
    """What crosses of features add to the log odds.

    Attributes:
        sizes: how many values each feature has.
        twos: the crosses of two features.
        three: the cross of three.
        cross, third: the standard deviations of each cross of two and of that of three.
    """

    sizes: Mapping[str, int]
    twos: tuple[tuple[str, str], ...] = (("slot", "layout"),)
    three: tuple[str, str, str] = ("slot", "layout", "device")
    cross: float = 1.2
    third: float = 0.8


NARROW = Law({"slot": 40, "layout": 40, "device": 8})
WIDE = Law(
    {"slot": 100, "layout": 100, "device": 100, "page": 100, "style": 20, "tone": 20, "day": 8},
    (("slot", "layout"), ("device", "page"), ("slot", "page")),
    ("style", "tone", "day"),
    cross=0.7,
    third=1.0,
)
WIDTH = 3
# The law knows no ads: few rows a value would be learned by heart.
MIN_COUNT = 50
TIMES = 4  # each impression, clicked or not by a draw of its own
DEMO_SCALE = 0.0025  # a quarter of the demo's, some 66,000 impressions
EXPERTS = RECIPES["tin_mix"].experts
# As many table sets as the mix has, so as large tables.
MATCHED = "4"
SETTINGS = {
    "dim": 16,
    "hidden": (64, 32),
    "batch_size": 512,
    "lr": 1e-2,
    "epochs": 8,
    "evaluations": 2,
    "patience": 4,
    "device": "cpu",
    "threads": 1,
    "optimizer": "adam",
}
# Of a data set that is not planted.
REAL = SETTINGS | {"hidden": (80, 40), "batch_size": 256, "lr": 1e-3, "epochs": 2}


def description_of(law: Law) -> str:
    """The made-up log's description, as `planted_log` has it, with the law's features."""
    named = ", ".join(f'{name} = "{name}"' for name in law.sizes)
    fields = 'fields = { item = "item", category = "category" }\n'
    return planted_log.DESCRIPTION.replace(fields, f"{fields}features = {{ {named} }}\n")


def crossed(law: Law) -> Callable[[np.random.Generator], Callable[[int], planted_log.Added]]:
    """What draws the features, and what their crosses add to the log odds."""

    def begun(rng: np.random.Generator) -> Callable[[int], planted_log.Added]:
        tables = {}
        for two in law.twos:
            one, other = (rng.normal(size=(law.sizes[name], WIDTH)) for name in two)
            table = (one - one.mean(0)) @ (other - other.mean(0)).T
            tables[two] = table * (law.cross / table.std())
        signs = {n: rng.permutation(np.resize([1.0, -1.0], law.sizes[n])) for n in law.three}

        def add(rows: int) -> planted_log.Added:
            drawn = {name: rng.integers(0, size, rows) for name, size in law.sizes.items()}
            columns = {name: [f"{name[0]}{n}" for n in of] for name, of in drawn.items()}
            third = math.prod(sign[drawn[name]] for name, sign in signs.items())
            return columns, law.third * third + sum(
                table[drawn[one], drawn[other]] for (one, other), table in tables.items()
            )

        return add

    return begun


def draw(users: int, seed: int, law: Law = NARROW) -> pl.DataFrame:
    """As `planted_log.draw`, with the law's features."""
    return planted_log.draw(users, seed, crossed(law))


def plant(raw: Path | None, folder: Path, seed: int, law: Law) -> tuple[Path, pl.DataFrame]:
    """Files in Alibaba's layout with clicks by the law, prepared, and each line's log odds.

    Without `raw` the files are such as the demo's.
    """
    first, data = folder / "as-it-is", folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    if raw is None:
        raw = folder / "demo"
        of_demo = ["--scale", str(DEMO_SCALE), "--out", str(raw)]
        if not raw.exists() and tinprep(["synthesize", "alibaba", *of_demo]):
            raise SystemExit("the demo's files could not be made")
    if not (first / "manifest.json").exists() and tinprep(
        ["alibaba", "--split-by-day", "--raw", str(raw), "--out", str(first)]
    ):
        raise SystemExit("the files could not be prepared")
    rows = pl.concat(
        [pl.read_parquet(first / split / "*.parquet") for split in ("train", "valid", "test")]
    )
    category = rows["history_category"].to_numpy(), rows["target_category"].to_numpy()
    position = rows["history_position"].to_numpy()
    gain = np.array([0.0, *planted_log.GAIN])
    near = (position < len(gain)) & (category[0] == category[1][:, None])
    log = pl.read_csv(raw / "raw_sample.csv").drop("nonclk", "clk")
    by_time = np.zeros(len(log))
    by_time[rows["row"].to_numpy()] = gain[np.where(near, position, 0)].sum(1)
    rng = np.random.default_rng(seed)
    add, parts = crossed(law)(rng), []
    for _ in range(TIMES):
        columns, added = add(len(log))
        odds = planted_log.BASE + by_time + added
        clicked = (rng.random(len(log)) < 1 / (1 + np.exp(-odds))).astype(np.int8)
        parts.append(log.hstack(pl.DataFrame({**columns, "clk": clicked, "odds": odds})))
    log = pl.concat(parts)
    if not (data / "manifest.json").exists():
        log.drop("odds").write_csv(folder / "shown.csv")
        (folder / "shown.toml").write_text(
            described(raw, folder / "shown.csv", law), encoding="utf-8"
        )
        prepare(folder / "shown.toml", data)
    return data, log


def described(raw: Path, shown: Path, law: Law) -> str:
    """The preset for such files as a description of one's own, with the law's features."""
    preset = Path(description.__file__).parent / "presets" / "alibaba-ads.toml"
    said = tomllib.loads(preset.read_text(encoding="utf-8"))
    for one in (*said["tables"].values(), *said["lookups"].values()):
        del one["reader"]
        one["files"] = str((raw / one["files"]).absolute())
    said["tables"]["impressions"]["files"] = str(shown.absolute())
    said["tables"]["impressions"]["features"] |= {name: name for name in law.sizes}
    said["vocabulary"]["min_count"] = MIN_COUNT
    return written(said)


def make(folder: Path, users: int, seed: int, law: Law) -> tuple[Path, pl.DataFrame]:
    """The data set of a log, and the log: line n is `row` n."""
    log, data = draw(users, seed, law), folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    if not (data / "manifest.json").exists():
        log.drop("odds").write_csv(folder / "shown.csv")
        (folder / "shown.toml").write_text(description_of(law), encoding="utf-8")
        prepare(folder / "shown.toml", data)
    return data, log


def case(data: Path, model: str, embeddings: str | None = None) -> Case:
    """A model by its own default encoding; TIN by that of the mix."""
    encoding = "tte-pt" if model == "tin" else RECIPES[model].encodings[0]
    return Case(data, model, encoding, embeddings=embeddings)


def pairs() -> list[str]:
    """Two experts at a time, as recipes."""
    names = []
    for two in combinations(EXPERTS, 2):
        of = RECIPES["tin_mix" if "tin" in two else "tin_mix_wo_tin"]
        names.append("pair_" + "_".join(two))
        RECIPES[names[-1]] = replace(of, source="a pair", experts=two)
    return names


PAIRS = pairs()  # processes that train need them, too


def valid(run: Path) -> float:
    """The GAUC that a run's weights were chosen by."""
    found = read_json(run / METRICS, Result, do="train again").metrics["valid"].gauc
    return found or 0.0


def parameters(trial: Trial) -> int:
    """How many numbers a trial's model learns."""
    from trainer.training.runs import load

    return sum(p.numel() for p in load(trial.runs[0]).parameters())


def table_sets(trial: Trial) -> int:
    """How many table sets a trial's model reads."""
    from trainer.models.mix import MixModel
    from trainer.training.runs import load

    model = load(trial.runs[0])
    assert isinstance(model, MixModel)
    return model.sets


def interval(differences: Sequence[float]) -> str:
    """A mean and its 95% interval over seeds."""
    mean, sd = mean_sd(differences)
    if sd is None:
        return f"{mean:.4f}"
    half = float(student.ppf(0.975, len(differences) - 1)) * sd / math.sqrt(len(differences))
    return f"{mean:.4f} ± {half:.4f}"


def table(data: Path, log: pl.DataFrame | None, trials: Trials, left_out: Sequence[str]) -> str:
    """The table of scores on test, as Markdown; also without each expert that is `left_out`."""
    once = replace(trials, seeds=1)
    tried = once.run([case(data, name) for name in PAIRS])
    pair = max(tried, key=lambda trial: valid(trial.runs[0]))
    best, [of_all] = pair.case.model, once.run([case(data, "tin_mix")])
    # Tables as wide as all of the mix's are together.
    as_wide = trials.settings["dim"] * table_sets(of_all) // table_sets(pair)
    cases = [case(data, "tin_mix"), case(data, best), replace(case(data, best), dim=as_wide)]
    cases += [case(data, name) for name in EXPERTS]
    cases += [case(data, name, MATCHED) for name in EXPERTS if name != "tin"]
    wide = trials.settings["dim"] * int(MATCHED)
    cases += [replace(case(data, "tin"), dim=wide)]
    cases += [case(data, f"tin_mix_wo_{name}") for name in left_out]
    cases += [case(data, "tin_mix_flat")]
    cases += [replace(case(data, name), mix="gate") for name in ("tin_mix", best)]
    found = trials.run(cases)
    mix, lines = found[0], []
    for trial in found:
        cells = trial.over_seeds("gauc", "auc")
        less = [m.gauc - of.gauc for m, of in zip(mix.metrics, trial.metrics, strict=True)]
        name = " ".join([trial.case.model, *(f"{k} {v}" for k, v in trial.case.settings.items())])
        gauc_cell, auc_cell = (
            f"{cells[k]:.4f} ± {cells[f'{k}_sd'] or 0.0:.4f}" for k in ("gauc", "auc")
        )
        behind = "-" if trial is mix else interval(less)
        lines.append(f"| {name} | {parameters(trial):,} | {gauc_cell} | {auc_cell} | {behind} |")
    shards = Shards(data)
    test = shards.split("test").scalars
    user, label = test["user"], test["label"]
    if log is not None:
        odds = log["odds"].to_numpy()[test["row"]]
        of_law = f"{gauc(user, label, odds):.4f} | {auc(label, odds):.4f}"
        lines.append(f"| the law itself | | {of_law} | |")
    tried_cells = ", ".join(
        f"{trial.case.model.removeprefix('pair_')} {valid(trial.runs[0]):.4f}" for trial in tried
    )
    return (
        f"# Experts on {title_of(shards)}{' (synthetic data)' if log is not None else ''}\n\n"
        "| model | parameters | GAUC | AUC | GAUC behind tin_mix |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        + "\n".join(lines)
        + f"\n\nMean of {len(mix.runs)} seeds ± deviation; the last column is of the differences "
        f"seed by seed, with 95% intervals. {len(label):,} rows of test, {label.mean():.0%} of "
        f"them clicked; {shards.manifest.rows['train']:,} rows of train. Pairs by GAUC on valid, "
        f"one seed: {tried_cells}.\n"
    )


def main() -> None:
    """Make, prepare, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the log")
    parser.add_argument("--l2", type=float, default=0.0, help="of trainings on such rows")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--without", action="store_true", help="the mix without each expert, too")
    parser.add_argument("--data", type=Path, help="a prepared data set, in place of the log")
    parser.add_argument("--raw", type=Path, help="Alibaba's files, whose clicks are drawn anew")
    parser.add_argument("--demo", action="store_true", help="the same of made-up files")
    parser.add_argument("--wide", action="store_true", help="the law of seven features")
    options = parser.parse_args()
    law = WIDE if options.wide else NARROW
    settings, data, log = REAL, options.data, None
    if data is None:
        settings = SETTINGS
        if options.raw or options.demo:
            settings = SETTINGS | {"lr": 3e-3, "l2": options.l2}
            if options.wide:  # its parts are learned one after the other, each all at once
                settings |= {"epochs": 10, "patience": 8}
            data, log = plant(options.raw, options.out, options.seed, law)
        else:
            data, log = make(options.out, options.users, options.seed, law)
    with LiveReport() as report:
        runs = options.out / "runs"
        trials = Trials(
            (data,), runs, options.seeds, settings, report.line, report.watch, options.jobs
        )
        text = table(data, log, trials, EXPERTS if options.without else ())
    (options.out / "planted_mix.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
