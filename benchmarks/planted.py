"""Models where the truth is known: clicks made up by a stated law, and what can be had of it.

python benchmarks/planted.py --out runs/planted                     positions and intervals matter
python benchmarks/planted.py --out runs/planted --law position      positions alone
python benchmarks/planted.py --out runs/planted --law interval      intervals alone
python benchmarks/planted.py --out runs/planted --rates             how the learning rate was chosen

It makes Alibaba's raw files with a stronger law than the default and few categories (see `LAWS`),
prepares them, takes out the columns that the law does not read (brand, ad, profile, price: the
models only learn them by heart), and trains on what is left. To `<out>/<law>` it writes
`ceilings.md` (what scores can reach), `decay.md` (what CTC shows of the planted decay), `table4.*`
(TIN with each encoding) and, of the law `both`, `planted.*`: every recipe held against TIN. All
models have the same settings. What is finished is not done again, and an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from planted_truth import ceilings, recovery
from rich.console import Console

from pipeline.flow import prepare
from pipeline.presets.alibaba import AlibabaConfig
from pipeline.synthetic.alibaba import AlibabaRecipe, synthesize_alibaba
from schemas import manifest
from schemas.machine import usable_cores
from schemas.manifest import DataFile
from trainer.analysis.paper_tables import MODELS, table4
from trainer.analysis.tables import Cell, Table
from trainer.analysis.trials import Case, Trial, Trials, mean_sd
from trainer.baselines import baselines_of
from trainer.metrics import auc_by_user, gauc_of, paired_p
from trainer.models.recipes import RECIPES, choose
from trainer.training.console import LiveReport

# Stronger than the default, with more clicks and few categories, so that a small log says enough
# to learn it all: 26 of the categories have ads, and each some 300 clicks to be learned from.
# Without runs of a category a behaviour tells little of its neighbours, so that CTC can tell them
# apart.
WINDOW = 20
_BOTH: dict[str, Any] = {
    "categories": 50,
    "new_run": 1.0,
    "category_gain": 4.0,
    "brand_gain": 0.0,
    "position_decay": 0.15,
    "interval_decay": 1.0,
    "interval_scale_s": 12 * 3600.0,
    "click_rate": 0.2,
    "retarget": 0.8,
}
LAWS = {
    "both": _BOTH,
    "position": _BOTH | {"position_decay": 0.2, "interval_decay": 0.0},
    "interval": _BOTH | {"position_decay": 0.0},
}
# The same for every model; `--rates` shows how the learning rate was chosen.
SETTINGS: dict[str, Any] = {
    "optimizer": "adam",
    "lr": 1e-2,
    "batch_size": 512,
    "epochs": 8,
    "evaluations": 1,
    "patience": 2,
    "dim": 16,
    "hidden": (64, 32),
    "device": "cpu",
    "threads": 1,
}
RATES = (1e-3, 3e-3, 1e-2)
PANEL = ("avg_product", "din", "tin_wo_tr", "tin")
# All that take a target-aware encoding take this one, so that none knows more than another.
ENCODING = "tte-p"


def make(folder: Path, law: str, scale: float) -> Path:
    """Raw files, shards, and the shards without what the law does not read."""
    raw, full, data = folder / "raw", folder / "full", folder / f"planted-{law}"
    if not (data / manifest.NAME).exists():
        synthesize_alibaba(raw, AlibabaRecipe(scale=scale, window=WINDOW, **LAWS[law]))
        prepare(AlibabaConfig(raw=raw, out=full, max_len=WINDOW, sessions="none"))
        without_features(full, data)
        shutil.rmtree(full)
    return data


def without_features(full: Path, data: Path) -> None:
    """Copy a data set with the categories and times of histories and targets alone."""
    made = manifest.load(full)
    shards = []
    for shard in made.shards:
        file = pq.ParquetFile(full / shard.path)
        columns = [n for n in file.schema_arrow.names if n.startswith(("target_", "history_"))]
        names = [n for n in columns if not n.endswith("_brand")]
        to = data / shard.path
        to.parent.mkdir(parents=True, exist_ok=True)
        table = file.read(columns=["row", "user", "label", *names])
        pq.write_table(table, to, row_group_size=65_536, compression="zstd")
        shards.append(DataFile(shard.path, shard.rows, hashlib.sha256(to.read_bytes()).hexdigest()))
    shutil.copytree(full / "vocabulary", data / "vocabulary", dirs_exist_ok=True)
    slim = replace(
        made,
        shards=shards,
        tables=[t for t in made.tables if t.path.startswith("vocabulary/")],
        fields=["category"],
        features={},
        histories={name: replace(one, fields=["category"]) for name, one in made.histories.items()},
        vocabulary={name: made.vocabulary[name] for name in ("user", "category")},
        numbers={},
        digests={},
        notes=[*made.notes, "Made by benchmarks/planted.py: brand, ad, profile, price left out."],
    )
    (data / manifest.NAME).write_text(slim.to_json(), encoding="utf-8")


def cases(data: Path, models: Iterable[str] = MODELS) -> list[Case]:
    """Recipes, and TIN and SIM with other encodings."""
    chosen = []
    for model in models:
        own = choose(model, None)[1]
        chosen.append(Case(data, model, ENCODING if own.startswith("tte-") else own))
    every = [Case(data, "tin", encoding) for encoding in RECIPES["tin"].encodings]
    more = [case for case in (Case(data, "sim", "tte-t"), *every) if case.model in models]
    return list(dict.fromkeys([*chosen, *more]))


def against_tin(trials: Trials) -> Table:
    """Every case's GAUC held against TIN's with `ENCODING`."""
    data = trials.data_sets[0]
    shards = trials.open(data)
    found = trials.run(cases(data))
    tin = next(t for t in found if (t.case.model, t.case.encoding) == ("tin", ENCODING))
    lowest = min(_gaucs(tin))
    named: dict[str, Cell] = {
        "data": data.name,
        "dataset": shards.manifest.dataset,
        "synthetic": shards.manifest.synthetic,
    }
    rows = []
    for name, baseline in baselines_of(shards).items():
        scored = baseline(shards, "test")
        users = auc_by_user(scored.user, scored.label, scored.score)
        gauc = gauc_of(users)
        rows.append(
            named
            | {"model": name, "gauc": gauc, "to_tin": gauc - _mean(tin), "seeds": lowest - gauc}
            | {"p": paired_p(users, tin.users)}
        )
    for trial in found:
        bits = RECIPES[trial.case.model].code
        mean, sd = mean_sd(_gaucs(trial))
        line: dict[str, Cell] = {"model": trial.case.model, "code": bits, "gauc": mean, "sd": sd}
        line["encoding"] = trial.case.encoding
        if trial is not tin:
            line["to_tin"] = _mean(trial) - _mean(tin)
            line["seeds"] = lowest - max(_gaucs(trial))
            line["p"] = paired_p(trial.users, tin.users)
        rows.append(named | line)
    rows.sort(key=lambda row: -float(row["gauc"] or 0.0))
    columns = {
        **{name: name for name in ("data", "dataset", "synthetic", "model", "code", "encoding")},
        "gauc": "GAUC",
        "sd": "sd",
        "to_tin": "to tin",
        "seeds": "between seeds",
        "p": "p",
    }
    notes = [
        f"GAUC on test, mean and sd of {trials.seeds} seeds, weights chosen on valid. to tin: the "
        f"difference to `tin` with `{ENCODING}`. between seeds: that model's lowest seed above "
        "this model's highest, so above 0 every seed of `tin` is better than every one of the "
        "model. p: two-sided, of a paired test over users. code: temporal information, "
        "target-aware attention, target-aware representation.",
        f"All with the same settings: {json.dumps(SETTINGS)}.",
    ]
    filled = [{name: row.get(name) for name in columns} for row in rows]
    return Table(
        "planted", "Every recipe against TIN, where the truth is known", columns, filled, notes
    )


def _gaucs(trial: Trial) -> list[float]:
    return [m.gauc for m in trial.metrics if m.gauc is not None]


def _mean(trial: Trial) -> float:
    return sum(_gaucs(trial)) / len(_gaucs(trial))


def rates(trials: Callable[[float], Trials]) -> Iterator[str]:
    """GAUC on valid of some models at several learning rates, as lines of Markdown."""
    yield f"| learning rate | {' | '.join(PANEL)} | mean |"
    yield "| ---: |" + " ---: |" * (len(PANEL) + 1)
    for rate in RATES:
        at = trials(rate)
        found = at.run(c for c in cases(at.data_sets[0], PANEL) if _plain(c))
        valid = {t.case.model: _on_valid(t) for t in found}
        values = [valid[model] for model in PANEL]
        shown = " | ".join(f"{v:.4f}" for v in [*values, sum(values) / len(values)])
        yield f"| {rate:g} | {shown} |"


def _plain(case: Case) -> bool:
    return case.encoding in ("none", ENCODING)


def _on_valid(trial: Trial) -> float:
    metrics = json.loads((trial.runs[0] / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    return float(metrics["valid"]["gauc"])


def main() -> None:
    """Make, measure, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--law", choices=LAWS, default="both")
    parser.add_argument("--scale", type=float, default=0.002, help="of Alibaba's published size")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", help="of the law `both`, only these: a part of the work")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="trainings at a time")
    parser.add_argument("--rate", type=float, default=SETTINGS["lr"], help="learning rate")
    parser.add_argument("--rates", action="store_true", help="only compare learning rates")
    options = parser.parse_args()
    folder: Path = options.out / options.law
    data = make(folder, options.law, options.scale)

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text, encoding="utf-8")
        print(text, flush=True)

    with LiveReport(Console(stderr=True)) as report:

        def trials(rate: float, seeds: int) -> Trials:
            runs = folder / f"runs-{rate:g}"
            return Trials(
                (data,),
                runs,
                seeds,
                SETTINGS | {"lr": rate},
                report.line,
                report.watch,
                options.jobs,
            )

        if options.rates:
            write("rates.md", "\n".join(rates(lambda rate: trials(rate, 1))) + "\n")
            return
        if options.models:
            wanted = cases(data, options.models.split(","))
            for trial in trials(options.rate, options.seeds).run(wanted):
                mean, sd = mean_sd(_gaucs(trial))
                print(f"{trial.case.name}: test GAUC {mean}, sd {sd}")
            return
        write("ceilings.md", ceilings(folder / "raw", data))
        write("decay.md", recovery(folder / "raw", data, folder))
        chosen = trials(options.rate, options.seeds)
        for make_table in (table4, against_tin)[: 2 if options.law == "both" else 1]:
            table = make_table(chosen)
            table.write(folder)
            print(table.markdown(), flush=True)


if __name__ == "__main__":
    main()
