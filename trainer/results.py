"""A folder of reproduced tables and figures as one page, and whether the page is still true.

```
DOCS/results.md             the page, a function of the folder beside it
DOCS/results/about.json     when, where, by what command and with what settings it was made
DOCS/results/*.csv, .png... what `trainer.reproduce` wrote
```
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from schemas.manifest import FORMAT
from schemas.replacing import sha256
from trainer import experiments, learned_table, widths
from trainer.atomic import atomically
from trainer.outputs import in_the_way, put_text, require_own
from trainer.provenance import name_of, title_of
from trainer.recipes import RECIPES, Recipe
from trainer.reproduce import Made
from trainer.runs import METRICS, read_json
from trainer.sizes import SETTINGS
from trainer.tables import Table, read_rows
from trainer.trials import Trials

ABOUT, PAGE, FOLDER = "about.json", "results.md", "results"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_BEGINS = "# Results\n\n- command: `"
COLUMNS = {
    "table1": experiments.COLUMNS,
    "table2": learned_table.COLUMNS,
    "table3": experiments.BY_LENGTH,
    "table4": experiments.COLUMNS,
    "fig5": widths.COLUMNS,
}


@dataclass(frozen=True)
class _Settings:
    """`settings` of `about.json`: a `sizes.Setting`."""

    about: str
    seeds: int
    training: dict[str, Any]
    models: list[str]
    widths: list[int]


@dataclass(frozen=True)
class _Data:
    """An entry of `data`."""

    name: str
    title: str
    train_rows: int


@dataclass(frozen=True)
class _Made:
    """An entry of `made`."""

    name: str
    title: str
    notes: list[str]
    table: bool
    figures: list[str]
    csv: list[str]


_ABOUT: dict[str, Any] = {
    **dict.fromkeys(("command", "date", "machine", "setting"), str),
    **dict.fromkeys(("runs", "format"), int),
    **dict.fromkeys(("sha256", "recipes"), dict[str, str]),
    "training_seconds": float,
    "data": list[_Data],
    "made": list[_Made],
    "settings": _Settings,
}


def describe(
    made: Sequence[Made], trials: Trials, *, setting: str, command: str, date: str, machine: str
) -> dict[str, Any]:
    """What the page says besides the tables and figures: the content of `about.json`.

    Args:
        made: what was made.
        trials: how.
        setting: a key of `SETTINGS`.
        command: that made it.
        date: when.
        machine: on what.
    """
    summaries = [json.loads((run / METRICS).read_text(encoding="utf-8")) for run in trials.used]
    return {
        "command": command,
        "date": date,
        "machine": machine,
        "setting": setting,
        "data": [_data(trials, data) for data in trials.data_sets],
        "runs": len(summaries),
        "training_seconds": round(sum(summary["seconds"] for summary in summaries)),
        "made": [
            {
                "name": m.name,
                "title": m.title,
                "notes": list(m.notes),
                "table": m.table is not None,
                "figures": [stem.name for stem in m.stems],
                "csv": [path.name for path in m.csvs],
            }
            for m in made
        ],
        **_of_code(setting),
    }


def require_free(docs: Path) -> None:
    """Refuse a folder in which `write` would meet files of others.

    Raises:
        UsageError: there are some.
    """
    _require_page(docs / PAGE)
    require_own([docs / FOLDER / ABOUT])


def write(about: dict[str, Any], docs: Path) -> Path:
    """Write `about.json`, with the checksums of the tables, and the page; returns its path.

    The date of an earlier writing stands where nothing else has changed since.
    """
    folder = docs / FOLDER
    names = [name for made in about["made"] for name in made["csv"]]
    about = about | {"sha256": {name: sha256(folder / name) for name in names}}
    about = json.loads(json.dumps(about))
    if (folder / ABOUT).exists():
        before = _read(docs)
        about = before if before | {"date": about["date"]} == about else about
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    put_text(folder / ABOUT, text)
    return render(docs)


def render(docs: Path) -> Path:
    """Write the page anew from its folder; returns its path.

    Raises:
        InputError: the folder, or something in it, is missing or damaged.
        UsageError: a page of others is in the way.
    """
    path = docs / PAGE
    _require_page(path)
    _write(path, page(docs))
    return path


def page(docs: Path) -> str:
    """The page's text: facts, then each table and figure.

    Raises:
        InputError: the folder, or something in it, is missing or damaged.
    """
    about = _read(docs)
    data = "; ".join(
        f"{d['name']}: {d['title']}, {d['train_rows']:,} train rows" for d in about["data"]
    )
    parts = [
        "\n".join(
            [
                f"{_BEGINS}{about['command']}`",
                f"- data: {data}",
                f"- setting `{about['setting']}`: {about['settings']['about']}",
                f"- {about['date']}, {about['machine']}; {about['runs']} runs, "
                f"{about['training_seconds'] / 60:.0f} minutes of training in all",
                f"- rendered from [{FOLDER}/]({FOLDER}/), which has every figure as SVG and every "
                "number as CSV",
            ]
        ),
    ]
    for made in about["made"]:
        parts.append(f"## {made['title']}")
        parts += [f"![{name}]({FOLDER}/{name}.png)" for name in made["figures"]]
        if made["table"]:
            parts.append(_table(made, docs / FOLDER).body(3).rstrip())
        else:
            parts += made["notes"]
    return "\n\n".join(parts) + "\n"


def excerpt(docs: Path) -> str:
    """What a README shows of the page, between `BEGIN` and `END`: GAUC of each model.

    Raises:
        InputError: as `page`, or the page has no Table 1.
    """
    about = _read(docs)
    rows = read_rows(docs / FOLDER / "table1.csv", COLUMNS["table1"])
    sets = list(dict.fromkeys(str(row["data"]) for row in rows))
    synthetic = {str(row["data"]): bool(row["synthetic"]) for row in rows}
    head = ["model", *(f"{d}{' (synthetic)' if synthetic[d] else ''}" for d in sets)]
    found = {(str(row["model"]), str(row["data"])): row for row in rows}
    lines = [head, ["---", *["---:"] * len(sets)]]
    for model in dict.fromkeys(model for model, _ in found):
        cells = []
        for data in sets:
            row = found.get((model, data), {})
            gauc, sd = row.get("gauc"), row.get("gauc_sd")
            spread = "" if sd is None else f" (sd {sd:.4f})"
            cells.append("-" if gauc is None else f"{gauc:.4f}{spread}")
        lines.append([f"`{model}`", *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"`{about['command']}`, {about['date']}, {about['machine']}; GAUC on test, setting "
        f"`{about['setting']}`. {about['settings']['about']}\n\n{table}\n\n"
        f"Every table and figure of the paper on this data: "
        f"[{docs.name}/{PAGE}]({docs.name}/{PAGE}).\n"
    )


def put_excerpt(docs: Path, readme: Path) -> None:
    """Put the excerpt between the marks of a README.

    Raises:
        InputError: the README has no such marks; and as `excerpt`.
    """
    before, _, after = _parted(readme)
    _write(readme, f"{before}{BEGIN}\n{excerpt(docs)}{END}{after}")


def stale(docs: Path, readme: Path | None = None) -> list[str]:
    """What of the page, its folder and a README is no longer true, a sentence each.

    Numbers are not measured again: what the page says must follow from its folder, the folder's
    tables must be those that were written with its pictures, and the format, recipes and settings
    that it was made with must be the code's.

    Raises:
        InputError: something is missing or damaged.
    """
    about, found = _read(docs), []
    folder = docs / FOLDER
    for name, now in _of_code(str(about["setting"])).items():
        then = about[name]
        if then != json.loads(json.dumps(now)):
            found.append(f"Its {name} differ from the code's: {_difference(then, now)}.")
    for name, digest in about["sha256"].items():
        if not (folder / name).exists() or sha256(folder / name) != digest:
            found.append(f"{folder / name} is not the table that was written with the page.")
    for made in about["made"]:
        missing = [
            folder / f"{name}{ending}"
            for name in made["figures"]
            for ending in (".png", ".svg")
            if not (folder / f"{name}{ending}").exists()
        ]
        found += [f"{path} is missing." for path in missing]
    if found:
        return found
    if not (docs / PAGE).exists() or (docs / PAGE).read_text(encoding="utf-8") != page(docs):
        found.append(f"{docs / PAGE} is not what {folder} gives.")
    if readme is not None and _parted(readme)[1] != f"\n{excerpt(docs)}":
        found.append(f"{readme} does not show what {folder} gives.")
    return found


def parts_of(recipe: Recipe) -> str:
    """A recipe's parts as text, where they are not the defaults."""
    plain = Recipe("")
    chosen = {
        f.name: getattr(recipe, f.name)
        for f in fields(Recipe)
        if f.name != "source" and getattr(recipe, f.name) != getattr(plain, f.name)
    }
    return "; ".join(f"{name} {_plain(value)}" for name, value in chosen.items())


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_plain, value))
    return str(getattr(value, "__name__", value))


def _of_code(setting: str) -> dict[str, Any]:
    """What a page depends on in the code, beside the code that renders it."""
    return {
        "format": FORMAT,
        "recipes": {name: parts_of(recipe) for name, recipe in RECIPES.items()},
        "settings": asdict(SETTINGS[setting]) if setting in SETTINGS else {},
    }


def _difference(then: object, now: object) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        names = [n for n in {**then, **now} if then.get(n) != json.loads(json.dumps(now)).get(n)]
        return ", ".join(names)
    return f"{then} and {now}"


def _data(trials: Trials, data: Path) -> dict[str, Any]:
    shards = trials.open(data)
    return {
        "name": name_of(data),
        "title": title_of(shards),
        "train_rows": shards.manifest.rows["train"],
    }


def _table(made: dict[str, Any], folder: Path) -> Table:
    name = made["name"]
    rows = read_rows(folder / f"{name}.csv", COLUMNS[name])
    return Table(name, made["title"], COLUMNS[name], rows, made["notes"])


def _read(docs: Path) -> dict[str, Any]:
    path = docs / FOLDER / ABOUT
    try:
        about = read_json(path, _ABOUT, do="")
        for made in about["made"]:
            names = [*made["csv"], *made["figures"], made["name"]]
            if any(Path(name).name != name or not name.isprintable() for name in names):
                raise ValueError(f"a name that no file has among {names}")
            if made["table"] and made["name"] not in COLUMNS:
                raise ValueError(f"no table is called {made['name']}")
    except (InputError, ValueError) as error:
        raise InputError(
            "There are no results here.",
            where=path,
            expected="what `tinprep reproduce all` wrote",
            got=(error.got if isinstance(error, InputError) else str(error)) or "",
            do=f"tinprep reproduce all --setting small --out {docs}",
        ) from None
    return about


def _parted(readme: Path) -> tuple[str, str, str]:
    """A README's text before the marks, between them, and after."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(
            "The README has no place for the results.",
            where=readme,
            expected=f"the lines {BEGIN} and {END}",
            got="not both",
        )
    return before, inside, after


def _require_page(path: Path) -> None:
    """Refuse a file that begins otherwise than a page; one that was edited is made anew."""
    if path.exists() and not path.read_bytes().startswith(_BEGINS.encode()):
        raise in_the_way([path])


def _write(path: Path, text: str) -> None:
    atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
