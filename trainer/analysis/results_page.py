"""A folder of reproduced tables and figures as one page, and whether the page is still true.

```
DOCS/results.md             the page, a function of the folder beside it
DOCS/results/about.json     when, where, by what command and with what settings it was made
DOCS/results/*.csv, .png... what `trainer.analysis.reproduce` wrote
```
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from schemas.checked import OPEN, STRICT, Count
from schemas.errors import InputError
from schemas.plain import from_spreadsheet
from schemas.replacing import sha256
from trainer.analysis.reproduce import SETTINGS, Made, Setting
from trainer.analysis.tables import markdown, name_of, title_of
from trainer.analysis.trials import Trials
from trainer.files import atomically, in_the_way, put_text, require_own
from trainer.models.recipes import RECIPES, Recipe
from trainer.training.runs import METRICS, Result, read_json

# Goes up when the page says other things of the same trainings.
FORMAT = 1

ABOUT, PAGE, FOLDER = "about.json", "results.md", "results"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_BEGINS = "# Results\n\n- command: `"


@dataclass(frozen=True)
class _Data:
    """A data set."""

    __pydantic_config__ = STRICT
    name: str
    title: str
    train_rows: Count


@dataclass(frozen=True)
class About:
    """The content of `about.json`: what the page says besides the tables and figures.

    Attributes:
        setting: a key of `SETTINGS`.
        training_seconds: of all of them.
        format: of the manifests.
        sha256: of the tables, by file.
    """

    __pydantic_config__ = OPEN
    command: str
    date: str
    machine: str
    setting: str
    data: list[_Data]
    runs: Count
    training_seconds: Count
    made: list[Made]
    format: int
    recipes: dict[str, str]
    settings: Setting
    sha256: dict[str, str] = field(default_factory=dict)


def describe(
    made: Sequence[Made], trials: Trials, *, setting: str, command: str, date: str, machine: str
) -> About:
    """What there is to say of what was made, how, and when; see `About`."""
    runs = [read_json(run / METRICS, Result, do="train it again") for run in trials.used]
    opened = {name_of(data): trials.open(data) for data in trials.data_sets}
    return About(
        command=command,
        date=date,
        machine=machine,
        setting=setting,
        data=[_Data(name, title_of(s), s.manifest.rows["train"]) for name, s in opened.items()],
        runs=len(runs),
        training_seconds=round(sum(run.seconds for run in runs)),
        made=list(made),
        format=FORMAT,
        recipes=_recipes(),
        settings=SETTINGS[setting],
    )


def require_free(docs: Path) -> None:
    """Refuse a folder in which `write` would meet files of others.

    Raises:
        UsageError: there are some.
    """
    _require_page(docs)
    require_own([docs / FOLDER / ABOUT])


def write(about: About, docs: Path) -> Path:
    """Write `about.json`, with the checksums of the tables, and the page; returns its path.

    The date of an earlier writing stands where nothing else has changed since.
    """
    folder = docs / FOLDER
    names = [name for made in about.made for name in made.csv]
    about = replace(about, sha256={name: sha256(folder / name) for name in names})
    if (folder / ABOUT).exists():
        before = _read(docs)
        about = before if replace(before, date=about.date) == about else about
    text = json.dumps(asdict(about), indent=1, ensure_ascii=False) + "\n"
    put_text(folder / ABOUT, text)
    return render(docs)


def render(docs: Path) -> Path:
    """Write the page anew from its folder; returns its path."""
    _require_page(docs)
    _write(docs / PAGE, page(docs))
    return docs / PAGE


def page(docs: Path) -> str:
    """The page's text: facts, then each table and figure."""
    about = _read(docs)
    data = "; ".join(f"{d.name}: {d.title}, {d.train_rows:,} train rows" for d in about.data)
    parts = [
        f"{_BEGINS}{about.command}`\n"
        f"- data: {data}\n"
        f"- setting `{about.setting}`: {about.settings.about}\n"
        f"- {about.date}, {about.machine}; {about.runs} runs, "
        f"{about.training_seconds / 60:.0f} minutes of training in all\n"
        f"- rendered from [{FOLDER}/]({FOLDER}/), which has every figure as SVG and every "
        "number as CSV"
    ]
    for made in about.made:
        parts.append(f"## {made.title}")
        parts += [f"![{name}]({FOLDER}/{name}.png)" for name in made.figures]
        if made.table:
            _, _, text = _text(docs / FOLDER / f"{made.name}.md").partition("\n\n")
            parts.append(re.sub("^## ", "### ", text, flags=re.MULTILINE).rstrip())
        else:
            parts += made.notes
    return "\n\n".join(parts) + "\n"


def excerpt(docs: Path, readme: Path) -> str:
    """What a README shows of the page, between `BEGIN` and `END`: GAUC of each model."""
    about = _read(docs)
    cells: dict[str, dict[str, str]] = {}
    heads: dict[str, str] = {}
    path = docs / FOLDER / "table1.csv"
    try:
        for row in csv.DictReader(_text(path).splitlines(), strict=True):
            data, model = from_spreadsheet(row["data"]), from_spreadsheet(row["model"])
            heads[data] = data + (" (synthetic)" if row["synthetic"] == "True" else "")
            spread = f" (sd {float(row['gauc_sd']):.4f})" if row["gauc_sd"] else ""
            gauc = f"{float(row['gauc']):.4f}{spread}" if row["gauc"] else "-"
            cells.setdefault(model, {})[data] = gauc
    except (KeyError, ValueError, AttributeError, csv.Error) as error:
        raise _unreadable(path, error) from None
    lines = [[f"`{m}`", *(found.get(d, "-") for d in heads)] for m, found in cells.items()]
    table = markdown(["model", *heads.values()], lines).rstrip()
    link = Path(os.path.relpath(docs.absolute() / PAGE, readme.absolute().parent)).as_posix()
    return (
        f"`{about.command}`, {about.date}, {about.machine}; GAUC on test, setting "
        f"`{about.setting}`. {about.settings.about}\n\n{table}\n\n"
        f"Every table and figure of the paper on this data: [{link}]({link}).\n"
    )


def put_excerpt(docs: Path, readme: Path) -> None:
    """Put the excerpt between the marks of a README.

    Raises:
        InputError: the README has no such marks; and as `excerpt`.
    """
    before, _, after = _parted(readme)
    _write(readme, f"{before}{BEGIN}\n{excerpt(docs, readme)}{END}{after}")


def stale(docs: Path, readme: Path | None = None) -> list[str]:
    """What of the page, its folder and a README is no longer true, a sentence each.

    Numbers are not measured again: what the page says must follow from its folder, the folder's
    tables must be those that were written with its pictures, and the format, recipes and settings
    that it was made with must be the code's.
    """
    about, found = _read(docs), []
    folder = docs / FOLDER
    if about.format != FORMAT:
        found.append(f"Its format differs from the code's: {about.format} and {FORMAT}.")
    known = SETTINGS.get(about.setting)
    for what, then, now in (
        ("recipes", about.recipes, _recipes()),
        ("settings", asdict(about.settings), asdict(known) if known else {}),
    ):
        if names := [name for name in {**then, **now} if then.get(name) != now.get(name)]:
            found.append(f"Its {what} differ from the code's: {', '.join(names)}.")
    for name, digest in about.sha256.items():
        if not (folder / name).exists() or sha256(folder / name) != digest:
            found.append(f"{folder / name} is not the table that was written with the page.")
    stems = [folder / name for made in about.made for name in made.figures]
    pictures = [stem.with_name(stem.name + end) for stem in stems for end in (".png", ".svg")]
    found += [f"{path} is missing." for path in pictures if not path.exists()]
    if found:
        return found
    if not (docs / PAGE).exists() or _text(docs / PAGE) != page(docs):
        found.append(f"{docs / PAGE} is not what {folder} gives.")
    if readme is not None and _parted(readme)[1] != f"\n{excerpt(docs, readme)}":
        found.append(f"{readme} does not show what {folder} gives.")
    return found


def _recipes() -> dict[str, str]:
    """Each recipe's parts as text, where they are not the defaults."""
    plain = Recipe("")
    names = [f.name for f in fields(Recipe) if f.name != "source"]

    def said(recipe: Recipe) -> str:
        chosen = {n: getattr(recipe, n) for n in names if getattr(recipe, n) != getattr(plain, n)}
        return "; ".join(f"{name} {_plain(value)}" for name, value in chosen.items())

    return {name: said(recipe) for name, recipe in RECIPES.items()}


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_plain, value))
    return str(getattr(value, "__name__", value))


def _require_page(docs: Path) -> None:
    """Refuse a file that begins otherwise than a page; one that was edited is made anew."""
    path = docs / PAGE
    if path.exists() and not path.read_bytes().startswith(_BEGINS.encode()):
        raise in_the_way([path])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        "A table cannot be read.",
        where=path,
        expected="a file that `tinprep reproduce` wrote",
        got=str(error),
        do="make it again",
    )


def _read(docs: Path) -> About:
    path = docs / FOLDER / ABOUT
    try:
        about = read_json(path, About, do="")
        for made in about.made:
            names = [*made.csv, *made.figures, made.name]
            if any(Path(name).name != name or not name.isprintable() for name in names):
                raise ValueError(f"a name that no file has among {names}")
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


def _write(path: Path, text: str) -> None:
    atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
