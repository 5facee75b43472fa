"""A report: what a data set holds and what its runs came to, as one HTML file.

It needs nothing else to be read: no network, no script, no font. Figures are matplotlib's SVGs in
the page itself: they print, they are small (a page is a few hundred kB, where plotly's script alone
is 4.5 MB), and the extra `plot` has them already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import InputError, UsageError
from schemas.manifest import FIRST_ID, Manifest
from schemas.plain import printable
from trainer import page_figures as drawn
from trainer import page_html as html
from trainer.atomic import atomically
from trainer.correlation import correlate
from trainer.data import Shards
from trainer.drawing import duration, require_matplotlib
from trainer.owned import require_free
from trainer.page_correlation import correlation_section
from trainer.page_results import results_section
from trainer.page_runs import by_seed, read_runs
from trainer.rows import Index
from trainer.shard_sql import query

_TOP_CATEGORIES = 12
# Of the manifest's config: where things lie says nothing of the rows.
_PLACES = ("out", "raw", "key", "mirrors", "force", "threads", "buckets", "memory")


def write_report(
    out: Path | str,
    runs: Sequence[Path | str],
    to: Path | str,
    category: str | None = None,
    *,
    memory_mb: int = 1024,
) -> None:
    """Write a report on a data set and finished runs on it as one HTML file.

    Args:
        out: folder of the data set.
        runs: folders of the runs; none for the data alone.
        to: the file, put in place when it is complete.
        category: the target's category in the correlation; see `correlate`.
        memory_mb: what counting over the shards may take.

    Raises:
        UsageError: a run is not finished or of another data set, the file's folder does not
            exist, or matplotlib is not installed.
        InputError: there is no such data set or run, or it is damaged.
        ContractError: the data set breaks its contract.
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
    shards = Shards(out)
    made = shards.manifest
    lines = by_seed(read_runs([Path(run) for run in runs], shards))
    ctc = correlate(shards.out, category, memory_mb=memory_mb)
    title = f"{made.dataset}: data and models" if lines else f"{made.dataset}: data"
    parts = [html.element("h1", title)]
    if made.synthetic:
        parts.append(html.element(
            "p", "Synthetic data. This data set was made up by a program: no figure on this page "
            "says anything of real users.", class_="synthetic", role="note",
        ))  # fmt: skip
    parts += [*_data(shards, memory_mb), *correlation_section(ctc, lines, shards)]
    parts += [*results_section(lines), *_made(made)]
    text = html.page(title + (" (synthetic data)" if made.synthetic else ""), parts)
    atomically(to, lambda path: path.write_text(text, encoding="utf-8"))


def _data(shards: Shards, memory_mb: int) -> list[str]:
    """What the data set holds."""
    made = shards.manifest
    counts = [(split, f"{rows:,}") for split, rows in made.rows.items() if rows]
    known = {name: size - FIRST_ID for name, size in made.vocabulary.items()}
    shown = [name for name in ("user", "item", "ad", "category", "brand") if name in known]
    some = [(_plural(name), f"{known[name]:,}") for name in shown]
    tiles = [(f"{split} rows", rows) for split, rows in counts] + some
    return [
        html.element("h2", "The data"),
        html.element("p", "A row is a target with its label and the user's history before it."),
        html.tiles(tiles),
        html.figures(
            [
                _lengths(made),
                _intervals(shards, memory_mb),
                _popularity(shards, "item" if "item" in known else "ad"),
                _categories(shards),
            ]
        ),
    ]


def _plural(name: str) -> str:
    return "categories" if name == "category" else name + "s"


def _lengths(made: Manifest) -> str:
    counts = {split: rows for split, rows in made.history_lengths.items() if sum(rows)}
    means = ", ".join(
        f"{split} {np.average(np.arange(len(rows)), weights=rows):.1f}"
        for split, rows in counts.items()
    )
    caption = f"Mean: {means} behaviours. At most the latest {made.max_len} are kept."
    return html.figure("History lengths", drawn.lengths(counts, "lengths"), caption)


def _intervals(shards: Shards, memory_mb: int) -> str:
    columns = "target_time, history_length, history_time"
    found = query("correlation/intervals", shards, ("train",), columns, memory_mb=memory_mb)
    octaves = dict(zip(*(found[c].to_pylist() for c in ("octave", "behaviours")), strict=True))
    bins = shards.manifest.bins
    edges = ["-", *(duration(e) for e in bins.edges_s), "-"]
    total = max(1, sum(bins.train_counts))
    rows = [
        (str(k + 1), edges[k], edges[k + 1], f"{n:,}", f"{n / total:.1%}")
        for k, n in enumerate(bins.train_counts)
    ]
    caption = f"{total:,} behaviours of train; a bar is a doubling of the time."
    title = "Intervals from behaviour to target"
    if not octaves:
        return html.element("p", "No target of train has a behaviour before it.")
    head = ("bin", "more than", "up to", "behaviours", "share")
    more = html.table(head, rows, f"{bins.count} equal-frequency interval bins, of train")
    return html.figure(title, drawn.intervals(octaves, bins.edges_s, "intervals"), caption, more)


def _vocabulary(shards: Shards, field: str) -> tuple[list[str], Index]:
    """The values of a field as text, and how often each occurs."""
    path = shards.out / "vocabulary" / f"{field}.parquet"
    try:
        found = pq.read_table(path, columns=["value", "count"])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            "A vocabulary cannot be read.",
            where=path,
            expected="a Parquet file with the columns value and count",
            got=str(error).partition("\n")[0],
            do="make the data set again",
        ) from error
    names = [printable(str(v)) for v in found["value"].to_pylist()]
    return names, found["count"].to_numpy().astype(np.int64)


def _popularity(shards: Shards, field: str) -> str:
    _, counts = _vocabulary(shards, field)
    most = np.sort(counts)[::-1]
    tenth = most[: -(-len(most) // 10)].sum() / max(1, most.sum())
    caption = f"The most frequent tenth of the {_plural(field)} has {tenth:.0%} of the occurrences."
    return html.figure(
        f"Popularity of {_plural(field)}", drawn.popularity(counts, field, "popularity"), caption
    )


def _categories(shards: Shards) -> str:
    names, counts = _vocabulary(shards, "category")
    order = np.argsort(-counts, kind="stable")[:_TOP_CATEGORIES]
    total = max(1, int(counts.sum()))
    shares = [100 * float(counts[i]) / total for i in order]
    svg = drawn.bars(
        [names[i] for i in order], shares, [f"{share:.1f} %" for share in shares],
        "share of occurrences, %", "categories",
    )  # fmt: skip
    caption = f"The {len(order)} most frequent of {len(names):,} with a name."
    return html.figure("Top categories", svg, caption)


def _made(made: Manifest) -> list[str]:
    """How the data set was made."""
    config = [(k, _plain(v)) for k, v in made.config.items() if k not in _PLACES]
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
    said = "Made by tinprep report. This file needs no network."
    return [*parts, f"<footer>{html.element('span', said)}</footer>"]


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
