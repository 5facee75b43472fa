"""A report: what a data set holds and what its runs came to, as one HTML file.

It needs nothing else to be read: no network, no script, no font. Figures are matplotlib's SVGs in
the page itself: they print, they are small (a page is a few hundred kB, where plotly's script alone
is 4.5 MB), and the extra `plot` has them already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from schemas import vocabulary
from schemas.errors import UsageError
from schemas.manifest import FIRST_ID, HOW, History, Manifest
from schemas.plain import printable
from trainer.analysis import plots
from trainer.analysis.correlation import CorrelationMap, correlate, pearson
from trainer.analysis.figures import BINS, bin_rows, cells_of, edges_of, intervals_of
from trainer.analysis.finished_runs import scores, users_of
from trainer.analysis.importance import importance_of
from trainer.analysis.learned_correlation import MEASURED, learned_like
from trainer.analysis.plots import require_matplotlib
from trainer.analysis.report import html
from trainer.analysis.report.runs import FinishedRun, Line, Pair, by_seed, read_runs
from trainer.analysis.tables import said
from trainer.data.batches import Index
from trainer.data.shards import Shards
from trainer.files import atomically
from trainer.metrics import MEASURES, mean_by_user, paired_p
from trainer.training.run_folder import require_free

_TOP = 12
_PARTS = 20  # of importance, drawn
_AS_IT_IS = "number as it is"
_FLAT = "not defined: the row is the same at all places"
_UNSURE = 0.05  # a p above it


def write_report(
    out: Path | str,
    runs: Sequence[Path | str],
    to: Path | str,
    category: str | None = None,
    *,
    history: str | None = None,
    memory_mb: int = 1024,
) -> None:
    """Write a report on a data set and finished runs on it as one HTML file.

    Args:
        runs: folders of the runs; none for the data alone.
        to: the file, put in place when it is complete.
        category: the target's category in the correlation; see `correlate`.
        history: of a data set with several the one that is shown; None for all.
        memory_mb: what counting over the shards may take.

    Raises:
        UsageError: a run is not finished, the file's folder does not exist, or matplotlib is not
            installed.
        InputError: there is no such data set or run, or it is damaged.
        ContractError: the data set breaks its contract, or a run is of another one.
        EnvironmentFault: memory or disk do not suffice.
    """
    require_matplotlib()
    to = Path(to)
    if not to.parent.is_dir() or to.is_dir():
        raise UsageError(
            "The report cannot be written.",
            where=to,
            expected="a file in a folder that exists",
            got="a folder" if to.is_dir() else f"no folder {to.parent}",
        )
    require_free(to)
    shards = Shards(out, history=history)
    made = shards.manifest

    def known(group: str | None) -> bool:
        return group is not None and made.vocabulary[group] > FIRST_ID

    groups = {name: known(one.facts.group_field) for name, one in _each(shards).items()}
    if category is not None and not any(groups.values()):
        raise UsageError(
            "The data set has no categories to show.",
            where="--category",
            expected="a `group_field`, one of the fields of both targets and behaviours, and its "
            "values",
            got="none",
            do="leave it out",
        )
    lines = by_seed(read_runs([Path(run) for run in runs], shards))
    title = f"{made.dataset}: data and models" if lines else f"{made.dataset}: data"
    parts = [html.element("h1", title)]
    if made.synthetic:
        parts.append(html.element(
            "p", "Synthetic data. This data set was made up by a program: no figure on this page "
            "says anything of real users.", class_="synthetic", role="note",
        ))  # fmt: skip
    if lines:
        parts += [*_results(lines, shards), *_importance(lines), *_curves(lines)]
    for name, one in _each(shards).items():
        if not groups[name]:
            left_out = f"Groups and the correlation{name and f' of {name}'} are left out: the data "
            left_out += "set names no field of both targets and behaviours as its group_field, or "
            left_out += "knows no value of it."
            parts.append(html.element("p", left_out))
        else:
            shown = name or history
            ctc = correlate(one.out, category, history=shown, memory_mb=memory_mb)
            read = [n for n in lines if n.runs[0].result.config.get("history") in (None, shown)]
            parts += _correlation(ctc, read, one.out, shown, name)
    parts += [*_data(shards, memory_mb), *(_settings(lines) if lines else ()), *_made(made)]
    text = html.page(title + (" (synthetic data)" if made.synthetic else ""), parts)
    atomically(to, lambda path: path.write_text(text, encoding="utf-8"))


def _each(shards: Shards) -> dict[str, Shards]:
    """The data set with each of several histories alone, by its name; as it is with one."""
    names = [*shards.facts.histories]
    if len(names) == 1:
        return {"": shards}
    return {name: Shards(shards.out, history=name) for name in names}


def _data(shards: Shards, memory_mb: int) -> list[str]:
    made, facts = shards.manifest, shards.facts
    counts = [(f"{split} rows", f"{rows:,}") for split, rows in made.rows.items() if rows]
    known = {name: size - FIRST_ID for name, size in made.vocabulary.items()}
    shown = dict.fromkeys(("user", facts.key or "user", *made.fields))
    some = [(_plural(name), f"{known[name]:,}") for name in shown if name in known]
    each = _each(shards).items()
    figures = [_lengths(one.facts.history, name) for name, one in each]
    figures.append(_popularity(shards, facts.key or made.fields[0]))
    if facts.group_field is not None:
        figures.append(_groups(shards, facts.group_field))
    # The tallest: two columns are even then.
    figures += [_intervals(one, memory_mb, name) for name, one in each]
    return [
        html.element("h2", "The data"),
        html.element("p", "A row is a target with its label and the user's history before it."),
        html.tiles(counts + some),
        html.figures(figures),
        *_beside(made),
    ]


def _beside(made: Manifest) -> list[str]:
    """The columns that rows have beside targets and histories; nothing where there are none."""
    rows = []
    for name, one in made.features.items():
        scale = made.numbers.get(name, {})
        values = str(scale.get("of", _AS_IT_IS))
        values += "" if values == _AS_IT_IS else ", standardised"
        if one.vocabulary is not None:
            values = f"{made.vocabulary[one.vocabulary] - FIRST_ID:,} values"
        kind = f"list, at most {one.max_len}" if one.max_len is not None else one.kind
        rows.append((name, kind, values))
    if made.weight:
        rows.append(("weight", "number", "of a row's loss in training"))
    rows += [(name, kind, "passed through") for name, kind in made.keep.items()]
    head = ("column", "kind", "what")
    return [html.table(head, rows, "Other columns of a row", texts=True)] if rows else []


def _plural(name: str) -> str:
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def _lengths(history: History, name: str) -> str:
    counts = {split: rows for split, rows in history.lengths.items() if sum(rows)}
    means = ", ".join(
        f"{split} {np.average(np.arange(len(rows)), weights=rows):.1f}"
        for split, rows in counts.items()
    )
    caption = f"Mean: {means} behaviours. At most the latest {history.max_len} are kept."
    return html.figure(_titled("History lengths", name), plots.lengths(counts), caption)


def _titled(title: str, name: str) -> str:
    return f"{title}: {printable(name)}" if name else title


def _intervals(shards: Shards, memory_mb: int, name: str) -> str:
    octaves, bins = intervals_of(shards, memory_mb), shards.facts.history.bins
    if not octaves:
        return html.element("p", "No target of train has a behaviour before it.")
    total = max(1, sum(bins.train_counts))
    caption = f"{total:,} behaviours of train; a bar is a doubling of the time."
    title = _titled("Intervals from behaviour to target", name)
    about = f"{bins.count} equal-frequency interval bins, of train"
    more = html.table(BINS, bin_rows(shards), about)
    return html.figure(title, plots.intervals(octaves, edges_of(shards)), caption, more)


def _vocabulary(shards: Shards, field: str) -> tuple[list[str], Index]:
    """The values of a field as text, and how often each occurs."""
    found = vocabulary.read(shards.out / "vocabulary" / f"{field}.parquet")
    names = [printable(str(v)) for v in found["value"].to_pylist()]
    return names, found["count"].to_numpy().astype(np.int64)


def _popularity(shards: Shards, field: str) -> str:
    _, counts = _vocabulary(shards, field)
    most = np.sort(counts)[::-1]
    tenth = most[: -(-len(most) // 10)].sum() / max(1, most.sum())
    caption = f"The most frequent tenth of the {_plural(field)} has {tenth:.0%} of the occurrences."
    return html.figure(f"Popularity of {_plural(field)}", plots.popularity(counts, field), caption)


def _groups(shards: Shards, field: str) -> str:
    names, counts = _vocabulary(shards, field)
    order = np.argsort(-counts, kind="stable")[:_TOP]
    total = max(1, int(counts.sum()))
    shares = [100 * float(counts[i]) / total for i in order]
    svg = plots.bars(
        [names[i] for i in order], shares, [f"{share:.1f} %" for share in shares],
        "share of occurrences, %", "categories",
    )  # fmt: skip
    caption = f"The {len(order)} most frequent of {len(names):,} with a name."
    return html.figure(f"Top {_plural(field)}", svg, caption)


def _correlation(
    truth: CorrelationMap, lines: Sequence[Line], out: Path, history: str | None, name: str
) -> list[str]:
    """The CTC in bits, and beside it the learned maps of the first runs of lines that read it.

    `name` is the history's where others are shown, too.
    """
    about = (
        f"How many bits a behaviour tells of the label, by its {truth.field} and position, over "
        f"the {truth.targets:,} train targets of {truth.field} “{truth.category}” (Eq. 1; "
        f"{100 * (truth.label_rate or 0):.0f}% of them positive). Blue speaks for the target; red, "
        "with ↓, against it: such behaviours are rarer with positives."
    )
    key = f"{name}-ctc" if name else "ctc"
    shown = [html.figure("In the data: CTC", plots.heat_map(truth, key), more=_values(truth))]
    measured = [line for line in lines if line.runs[0].result.model in MEASURED.split(", ")]
    parts = [html.element("h2", _titled("Correlation of behaviours with the label", name))]
    parts.append(html.element("p", about))
    if measured and np.isfinite(truth.values).any():
        share = truth.normalised()
        title, svg = (
            "In the data, on the scale of the learned maps",
            plots.heat_map(share, f"{key}-share"),
        )
        shown.append(html.figure(title, svg, more=_values(share)))
        keys = [f"{name}-learned-{i}" if name else f"learned-{i}" for i in range(len(measured))]
        shown += [
            _learned(truth, line, of, out, history) for of, line in zip(keys, measured, strict=True)
        ]
        parts.append(html.element(
            "p", "Learned maps show e^z |r|, where z is the attention's logit and r the "
            "representation (Eq. 4), of a model's first seed. Units differ, so each map is shown "
            "from its least value, 0, to its largest, 1. Pearson compares it with the data's map, "
            f"on the row of the target's own {truth.field}.",
        ))  # fmt: skip
    without = [line.name for line in lines if line not in measured]
    if without:
        parts.append(html.element(
            "p", "No learned map, which is of behaviours and the target alone: "
            + ", ".join(without) + ".",
        ))  # fmt: skip
    return [*parts, html.figures(shown)]


def _learned(truth: CorrelationMap, line: Line, key: str, out: Path, history: str | None) -> str:
    run = line.runs[0]
    found = learned_like(truth, run.folder, data=out, history=history)
    agrees = f"{r:.3f}" if (r := pearson(truth, found)) is not None else _FLAT
    svg = plots.heat_map(found.normalised(), key)
    title = f"Learned by {line.name}, seed {run.seed}"
    return html.figure(title, svg, f"Pearson {agrees}.", _values(found))


def _values(m: CorrelationMap) -> str:
    """The map as a table, for those who cannot see it."""
    (what, *places), rows = cells_of(m)
    return html.folded("Values as a table", html.table((m.field, *places), rows, f"by {what}"))


def _results(lines: Sequence[Line], shards: Shards) -> list[str]:
    """Which line leads, and what each reaches."""
    split = "test" if all(line.mean("test", "logloss") for line in lines) else "valid"
    rows = [
        (line.name, str(len(line.runs)),
         *(_with_spread(line.mean(split, measure)) for measure in MEASURES))
        for line in lines
    ]  # fmt: skip
    users = lines[0].runs[0].result.metrics[split]
    about = (
        f"On the {users.rows:,} rows of {split}, of {users.users:,} users. GAUC is the AUC "
        "of each user, weighted by impressions; 0.5 is chance. For logloss less is better."
    )
    if any(len(line.runs) > 1 for line in lines):
        about += " Where there are several seeds: mean ± standard deviation over them."
    shown = []
    for measure in ("gauc", "auc"):
        pairs = [pair for line in lines if (pair := line.mean(split, measure)) is not None]
        if len(pairs) == len(lines):
            what = MEASURES[measure]
            svg = _bars(lines, pairs, f"{what} on {split}", f"results-{measure}")
            note = "The axis begins at chance, 0.5, or below the lowest."
            shown.append(html.figure(f"{what}, {split}", svg, note))
    return [
        html.element("h2", "Results"),
        *_verdict(lines, split, shards),
        html.table(("model", "seeds", *MEASURES.values()), rows, f"On {split}"),
        html.element("p", about),
        html.figures(shown),
    ]


def _importance(lines: Sequence[Line]) -> list[str]:
    """What the parts of a row are worth to each line's first run for which that was measured."""
    shown = []
    for i, line in enumerate(lines):
        measured = ((run, found) for run in line.runs if (found := importance_of(run.folder)))
        if (first := next(measured, None)) is None:
            continue
        run, found = first
        parts = found.parts[:_PARTS]
        errors = [1.96 * part.error for part in parts]
        svg = plots.bars(
            [printable(part.name) for part in parts], [max(0.0, part.gauc) for part in parts],
            [f"{part.gauc:.4f}" for part in parts], f"GAUC falls by, on {found.measured}",
            f"importance-{i}", errors=errors,
            high=1.02 * max(part.gauc + error for part, error in zip(parts, errors, strict=True)),
        )  # fmt: skip
        rows = [
            (printable(part.name), part.kind, f"{part.gauc:.4f}", f"{part.error:.4f}",
             "< 0.0001" if part.p < 1e-4 else f"{part.p:.4f}")
            for part in found.parts
        ]  # fmt: skip
        head = ("part", "kind", "GAUC falls by", "±", "p")
        more = html.folded("All parts as a table", html.table(head, rows, "by importance"))
        caption = f"{len(parts)} of {len(found.parts)} parts, {found.draws} draws each."
        shown.append(html.figure(f"{line.name}, seed {run.seed}", svg, caption, more))
    if not shown:
        return []
    about = (
        "Each part was permuted among the rows: a bar is how much GAUC falls then, with a 95% "
        "interval over users. Parts that say the same stand in for one another."
    )
    return [
        html.element("h2", "What each part of a row is worth"),
        html.element("p", about),
        html.figures(shown),
    ]


def _verdict(lines: Sequence[Line], split: str, shards: Shards) -> list[str]:
    """Which line leads, by how much, and how sure that is."""

    def told(verdict: str, *more: str) -> list[str]:
        parts = [html.element("p", verdict, class_="verdict")]
        return [*parts, html.element("p", " ".join(more))] if more else parts

    known = [(pair, line) for line in lines if (pair := line.mean(split, "gauc")) is not None]
    if not known:
        return told(f"No user of {split} has a positive and a negative: there is no GAUC.")
    (first, best), *others = sorted(known, key=lambda one: -one[0][0])
    if not others:
        return told(f"{best.name} reaches GAUC {_with_spread(first)} on {split}; 0.5 is chance.")
    second, following = others[0]
    more = []
    if split == "test":
        users = _users(best, shards)
        p = paired_p(users, _users(following, shards))
        sure = "other users could turn the order round" if p > _UNSURE else "on other users, too"
        p_said = "p < 0.0001" if p < 1e-4 else f"p {p:.2g}"
        more.append(f"How sure: {sure} ({p_said}, of a paired test over {len(users):,} users).")
    aucs = [(pair, line) for line in lines if (pair := line.mean(split, "auc")) is not None]
    if len(aucs) == len(lines) and (highest := max(aucs, key=lambda one: one[0][0]))[1] is not best:
        more.append(f"AUC puts {highest[1].name} first ({_with_spread(highest[0])}).")
    if first[1] is None or second[1] is None:
        more.append("What other seeds would change is not known: train several of each.")
    return told(
        f"{best.name} leads: GAUC {_with_spread(first)} on {split}, {first[0] - second[0]:.4f} "
        f"above {following.name} ({_with_spread(second)}).",
        *more,
    )


def _users(line: Line, shards: Shards) -> pl.DataFrame:
    """Each user's AUC on test, its mean over the line's seeds."""
    found = [users_of(scores(run.folder, shards, keep=False)) for run in line.runs]
    return mean_by_user(found)


def _with_spread(pair: Pair | None) -> str:
    """A mean with its standard deviation, where there is one."""
    if pair is None:
        return "-"
    mean, spread = pair
    return f"{mean:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def _bars(lines: Sequence[Line], pairs: Sequence[Pair], axis: str, name: str) -> str:
    """Means of a measure, of which 0.5 is chance, as bars with the deviation over seeds."""
    values, errors = [mean for mean, _ in pairs], [spread or 0.0 for _, spread in pairs]
    low = min(0.5, math.floor(10 * min(values)) / 10)
    top = max(value + error for value, error in zip(values, errors, strict=True))
    return plots.bars(
        [line.name for line in lines], values, [_with_spread(pair) for pair in pairs], axis, name,
        errors=errors, low=low, high=low + ((top - low) * 1.05 or 0.1),
    )  # fmt: skip


def _curves(lines: Sequence[Line]) -> list[str]:
    logged = [line for line in lines if any(run.curves["epochs"] for run in line.runs)]
    if not logged:
        return []
    each = (
        ("Cross-entropy in training", "train_loss", "cross-entropy of train, nats a row"),
        ("Logloss on valid", "logloss", "logloss on valid, nats a row"),
        ("GAUC on valid", "gauc", "GAUC on valid"),
    )
    return [
        html.element("h2", "Training"),
        html.element("p", "A dot is an evaluation, a stroke a seed."),
        html.figures(
            html.figure(title, plots.curves(_runs(logged, measure), axis, f"curve-{measure}"))
            for title, measure, axis in each
        ),
    ]


def _runs(lines: Sequence[Line], measure: str) -> dict[str, list[tuple[list[float], list[float]]]]:
    return {
        line.name: [(r.curves["epochs"], r.curves[measure]) for r in line.runs] for line in lines
    }


def _settings(lines: Sequence[Line]) -> list[str]:
    """What the runs were asked to do: what is the same for all, and what tells them apart."""
    settings = [line.runs[0].settings for line in lines]
    keys = dict.fromkeys(key for chosen in settings for key in chosen)
    rows = [(k.replace("_", " "), *(said(chosen.get(k)) for chosen in settings)) for k in keys]
    found = [[_took(run) for run in line.runs] for line in lines]
    rows += [
        (what, *(_one_or_each([took[what] for took in line]) for line in found))
        for what in found[0][0]
    ]
    same = [row[:2] for row in rows if len(set(row[1:])) == 1]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    parts = [html.element("h2", "Settings of the runs")]
    if differing:
        head = ("setting", *(line.name for line in lines))
        about = "Where they differ; several values are of the seeds, in their order"
        parts.append(html.table(head, differing, about, texts=True))
    about = "The same for all" if differing else "As trained"
    return [*parts, html.table(("setting", "value"), same, about, texts=True)]


def _took(run: FinishedRun) -> dict[str, str]:
    r = run.result
    return {
        "seed": str(run.seed),
        "steps": f"{r.steps:,}",
        "kept weights of step": f"{r.best_step:,}",
        "seconds": f"{r.seconds:.0f}",
        "rows/s": f"{r.rows_per_second:,.0f}",
        "device": r.device,
        "threads": str(r.threads),
        "PyTorch": r.versions.get("torch", "-"),
    }


def _one_or_each(texts: Sequence[str]) -> str:
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


def _made(made: Manifest) -> list[str]:
    config = [(k, said(v)) for k, v in made.config.items() if k not in (*HOW, "key")]
    parts = [
        html.element("h2", "How the data was made"),
        *(html.element("p", note) for note in made.notes),
        html.table(("setting", "value"), config, f"tinprep {made.version}", texts=True),
        html.table(
            ("raw file", "bytes", "sha256"),
            [(f.file, f"{f.bytes:,}", f.sha256) for f in made.inputs],
            "Raw files", texts=True,
        ),
    ]  # fmt: skip
    counted = {**made.rejected, **made.counts}
    if counted:
        rows = [(name, f"{n:,}") for name, n in counted.items()]
        parts.append(html.table(("what", "count"), rows, "Counted on the way"))
    about = "Made by tinprep report. This file needs no network."
    return [*parts, f"<footer>{html.element('span', about)}</footer>"]
