"""The report's results: what each model reaches, how it got there, and its settings."""

from __future__ import annotations

from collections.abc import Sequence

from trainer import page_figures as drawn
from trainer import page_html as html
from trainer.page_runs import MEASURES, FinishedRun, Line, settings

_NAMES = dict(zip(MEASURES, ("GAUC", "pair accuracy", "AUC", "logloss"), strict=True))


def results_section(lines: Sequence[Line]) -> list[str]:
    """Results with bars and a table, training curves, settings; nothing where there is no run."""
    if not lines:
        return []
    split = "test" if all(line.mean("test", "logloss") for line in lines) else "valid"
    rows = [
        (line.name, str(len(line.runs)),
         *(drawn.with_spread(line.mean(split, measure)) for measure in MEASURES))
        for line in lines
    ]  # fmt: skip
    users = lines[0].runs[0].result["metrics"][split]
    several = any(len(line.runs) > 1 for line in lines)
    about = (
        f"On the {users['rows']:,} rows of {split}, of {users['users']:,} users. GAUC is the AUC "
        "of each user, weighted by impressions; 0.5 is chance. For logloss less is better."
    )
    if several:
        about += " Where there are several seeds: mean ± standard deviation over them."
    shown = []
    for measure in ("gauc", "auc"):
        if all(line.mean(split, measure) for line in lines):
            name = _NAMES[measure]
            svg = drawn.results(lines, split, measure, f"{name} on {split}", f"results-{measure}")
            note = "The axis begins at chance, 0.5, or below the lowest."
            shown.append(html.figure(f"{name}, {split}", svg, note))
    return [
        html.element("h2", "Results"),
        html.element("p", about),
        html.table(("model", "seeds", *_NAMES.values()), rows, f"On {split}"),
        html.figures(shown),
        *_curves(lines),
        *_settings(lines),
    ]


def _curves(lines: Sequence[Line]) -> list[str]:
    logged = [line for line in lines if any(run.curve.epochs for run in line.runs)]
    if not logged:
        return []
    each = (
        ("Cross-entropy in training", "train_loss", "cross-entropy of train, nats a row"),
        ("Logloss on valid", "valid_loss", "logloss on valid, nats a row"),
        ("GAUC on valid", "gauc", "GAUC on valid"),
    )
    return [
        html.element("h2", "Training"),
        html.element("p", "A dot is an evaluation, a stroke a seed."),
        html.figures(
            html.figure(title, drawn.curves(logged, measure, axis, f"curve-{measure}"))
            for title, measure, axis in each
        ),
    ]


def _settings(lines: Sequence[Line]) -> list[str]:
    keys = list(dict.fromkeys(key for line in lines for key in settings(line.runs[0])))
    rows = [
        (key.replace("_", " "), *(_plain(settings(line.runs[0]).get(key)) for line in lines))
        for key in keys
    ]
    rows += [(what, *(_said(line, what) for line in lines)) for what in _SAID]
    head = ("setting", *(line.name for line in lines))
    return [
        html.element("h2", "Settings of the runs"),
        html.table(head, rows, "As trained; the last lines are of each seed", texts=True),
    ]


_SAID = ("seed", "steps", "kept weights of step", "seconds", "rows/s", "device", "PyTorch")


def _said(line: Line, what: str) -> str:
    found = [_of(run)[what] for run in line.runs]
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def _of(run: FinishedRun) -> dict[str, str]:
    r = run.result
    values = (
        str(run.seed),
        f"{r['steps']:,}",
        f"{r['best_step']:,}",
        f"{r['seconds']:.0f}",
        f"{r['rows_per_second']:,.0f}",
        str(r["device"]),
        str(r["versions"]["torch"]),
    )
    return dict(zip(_SAID, values, strict=True))


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
