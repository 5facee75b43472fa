"""The ordered steps from raw files to a finished data set: the only place that states the order.

Work lies in `OUT/.work` until the manifest is written. Each step leaves its result whole or not at
all, so the same command run again goes on from the last finished step, or bucket.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import buckets, intervals, negatives, shards, transform, vocabulary
from pipeline.config import AmazonConfig
from pipeline.engines.local import map_buckets
from pipeline.fetch import missing
from pipeline.lines import estimate_lines
from pipeline.sources import amazon
from pipeline.sources.amazon_parse import REJECTED
from pipeline.sources.synthetic import MARKER
from schemas import manifest, tables
from schemas.errors import EnvironmentFault, InputError, UsageError
from schemas.expected import AMAZON_COUNTS
from schemas.shards import shard_schema

WORK = ".work"
LOCK = ".lock"
_OURS = {manifest.NAME, WORK, LOCK, "vocabulary", "items.parquet", "rejected", *manifest.SPLITS}
_UNLIMITED = 32_767
# Measured on Electronics-like data, rounded up: for estimates only.
_LINES_A_SECOND = 150_000
_WORKING_BYTES_A_LINE = 250

Told = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Estimate:
    """What a preparation will take: rows at most, bytes on disk, seconds on two cores."""

    lines: int
    rows: int
    bytes: int
    seconds: float


@dataclass
class _Run:
    """One preparation under way."""

    config: AmazonConfig
    told: Told
    paths: list[Path] = field(default_factory=list)
    steps: list[manifest.Step] = field(default_factory=list)
    count: int = 1

    @property
    def work(self) -> Path:
        return self.config.out / WORK

    def spilled(self, bucket: int) -> Path:
        return self.work / "behaviours" / f"bucket-{bucket:05d}.arrow"

    def sequences(self, bucket: int) -> Path:
        return self.work / "sequences" / f"bucket-{bucket:05d}.arrow"

    @contextmanager
    def step(self, name: str) -> Iterator[list[int]]:
        begun = time.perf_counter()
        rows = [0, 0]
        self.told(name, 0, None)
        yield rows
        self.steps.append(
            manifest.Step(name, round(time.perf_counter() - begun, 3), rows[0], rows[1], peak_mb())
        )


def peak_mb() -> int:
    """The process's peak resident memory so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def estimate(config: AmazonConfig, reviews: Path) -> Estimate:
    """Expected rows, disk and time, from the head of the reviews file."""
    lines = estimate_lines(reviews)
    rows = lines * (1 + config.negatives)
    cell = 4 if config.layout == "padded" and not config.parity else 0
    return Estimate(
        lines,
        rows,
        rows * (cell * config.max_len + 120) + lines * 120,
        2 + lines / _LINES_A_SECOND * (1 + cell / 8),
    )


def raw_folder(config: AmazonConfig) -> Path:
    """Where the raw files are, or will be downloaded to."""
    return config.raw or Path("data/raw/amazon")


def plan(config: AmazonConfig) -> str:
    """What `--dry-run` says; nothing is downloaded or written."""
    folder = raw_folder(config)
    wanted = amazon.files(config)
    if config.raw is not None:
        amazon.obtain(config, folder)
    absent = missing(wanted, folder)
    if wanted[0].name in absent:
        sizes = [
            f"{f.published.bytes / 1e6:,.0f} MB" if f.published else "size unknown" for f in wanted
        ]
        told = ", ".join(f"{f.name} ({size})" for f, size in zip(wanted, sizes, strict=True))
        return f"would download to {folder}: {told}\nrows, disk and time follow from the files"
    found = estimate(config, folder / wanted[0].name)
    fetched = f"would download {', '.join(absent)}\n" if absent else ""
    return (
        f"{fetched}reviews   about {found.lines:,}\nrows      at most {found.rows:,}\n"
        f"disk      about {found.bytes / 1e6:,.0f} MB at the most, in {config.out}\n"
        f"time      about {found.seconds:.0f} s on two cores"
    )


def prepare_amazon(config: AmazonConfig, told: Told = lambda *_: None) -> manifest.Manifest:
    """Make the data set of `config`, or go on with an interrupted one, or find it done.

    Args:
        config: what to make.
        told: progress: step, done, total.

    Raises:
        UsageError: `out` holds something else, or was made with other settings.
        InputError: a raw file is missing or damaged, or too many of its lines are refused.
        EnvironmentFault: network, disk, or another run at work in `out`.
    """
    run = _Run(config, told)
    _check_out(config.out)
    with run.step("fetch") as rows:
        run.paths = amazon.obtain(config, raw_folder(config))
        rows[:] = len(run.paths), len(run.paths)
    with _alone(config.out):
        with run.step("checksum"):
            inputs = [
                manifest.InputFile(p.name, p.stat().st_size, shards.sha256(p)) for p in run.paths
            ]
        key = _key(config, inputs)
        if (config.out / manifest.NAME).exists():
            done = manifest.load(config.out)
            if not config.force and done.config.get("key") == key:
                shutil.rmtree(run.work, ignore_errors=True)
                return done
            if not config.force:
                raise UsageError(
                    "The folder holds a data set made with other settings or files.",
                    where=config.out,
                    do="give another --out, or --force to replace it",
                )
            _clear(config.out)
        _begin(run, key)
        made = _make(run, inputs, key)
        shutil.rmtree(run.work)
        return made


def _make(run: _Run, inputs: list[manifest.InputFile], key: str) -> manifest.Manifest:
    refused = [_partition(run)]
    words, by_item, more, repeated = _fit_vocabulary(run)
    refused.append(more)
    item_category = _item_categories(by_item, words["category"])
    edges, totals, longest = _fit_intervals(run, words, item_category)
    config = run.config
    parity = config.parity
    released = _released(run, len(by_item)) if parity else None
    max_len = max(longest, 1) if parity else config.max_len
    fitted = transform.Fitted({"category": item_category}, edges, max_len, released)
    layout = "ragged" if parity else config.layout
    rules = transform.Rules(config.split, config.negatives, config.seed, config.session_gap, layout)
    results = _transform(run, rules, fitted)
    written = [manifest.ShardFile(**s) for r in results for s in r["shards"]]
    written.sort(key=lambda s: (manifest.SPLITS.index(s.path.split("/")[0]), s.path))
    rows = dict.fromkeys(manifest.SPLITS, 0)
    for shard in written:
        rows[shard.path.split("/")[0]] += shard.rows
    lengths = {
        name: np.sum([r["lengths"][name] for r in results], axis=0).tolist()
        for name in manifest.SPLITS
    }
    rejected = _write_rejected(run, pl.concat(refused), [x for r in results for x in r["left_out"]])
    if repeated:
        rejected[amazon.REPEATED_ITEM] = repeated
    counts = [n * (1 + config.negatives) for n in intervals.bin_counts(totals, edges)]
    made = manifest.Manifest(
        format=manifest.FORMAT,
        dataset=f"amazon-{config.category}",
        synthetic=(run.paths[0].parent / MARKER).exists(),
        version=version("tinprep"),
        config={**config.resolved(), "key": key},
        inputs=inputs,
        rows=rows,
        fields=list(amazon.FIELDS),
        vocabulary={name: len(t) + manifest.FIRST_ID for name, t in words.items()},
        layout=layout,
        max_len=max_len,
        bins=manifest.Bins(config.bins, edges.tolist(), counts),
        history_lengths=lengths,
        rejected=rejected,
        notes=[],
        shards=written,
        steps=run.steps,
    )
    made.notes.extend(_notes(made, config))
    with shards.atomic(config.out / manifest.NAME) as temporary:
        temporary.write_text(made.to_json(), encoding="utf-8")
    return made


def _partition(run: _Run) -> pl.DataFrame:
    """Parse the reviews into buckets of users; returns the lines refused."""
    marker = run.work / "partitioned.json"
    refused_path = run.work / "refused_reviews.parquet"
    path, limit = run.paths[0], run.config.max_rejected
    with run.step("partition") as rows:
        if marker.exists():
            run.count, rows[0], rows[1] = json.loads(marker.read_text())
            return pl.read_parquet(refused_path)
        about = estimate_lines(path)
        _check_space(run, estimate(run.config, path))
        share = run.config.memory / 2 / run.config.workers
        run.count = run.config.buckets or min(
            4096, max(8 if about > 100_000 else 2, -int(-about * _WORKING_BYTES_A_LINE // share))
        )
        refused = [pl.DataFrame(schema=REJECTED)]
        with buckets.Spill(run.work / "behaviours", run.count) as spill:
            for parsed in amazon.reviews(path, run.config):
                spill.append(parsed.rows)
                refused.append(parsed.rejected)
                rows[0] += parsed.rows.height + parsed.rejected.height
                rows[1] += parsed.rows.height
                run.told("partition", rows[0], max(about, rows[0]))
        found = pl.concat(refused)
        _check_rejected(path, found, rows[0], limit)
        if rows[1] == 0:
            raise InputError("The file holds no reviews.", where=path, expected="JSON lines")
        tables.check(tables.Rejected, found, path)
        shards.write_table(refused_path, vocabulary.arrow(found))
        shards.write_json(marker, [run.count, *rows])
        return found


def _fit_vocabulary(
    run: _Run,
) -> tuple[dict[str, pa.Table], pl.DataFrame, pl.DataFrame, int]:
    """Vocabularies; items with categories; meta lines refused; how many repeat an item."""

    def count(bucket: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        frame = pl.DataFrame(buckets.read_spilled(run.spilled(bucket)))
        tables.check(tables.Reviews, frame.drop("tie"), run.paths[0])
        return vocabulary.count_values(frame, "user"), vocabulary.count_values(frame, "item")

    with run.step("fit vocabulary") as rows:
        counts = map_buckets(count, range(run.count), run.config.workers)
        users = vocabulary.vocabulary(pl.concat(c[0] for c in counts))
        items = vocabulary.vocabulary(pl.concat(c[1] for c in counts))
        rows[0] = int(pl.Series(users["count"]).sum())
        rows[1] = len(users) + len(items)
    meta = run.paths[1] if run.config.meta else None
    with run.step("parse meta") as rows:
        read = 0

        def done(lines: int) -> None:
            nonlocal read
            read += lines
            run.told("parse meta", read, len(items))

        by_item, refused, repeated = amazon.categories(meta, items, done)
        if meta is not None:
            lines = max(estimate_lines(meta), refused.height)
            _check_rejected(meta, refused, lines, run.config.max_rejected)
        rows[:] = read, by_item.height
        words = {
            "user": users,
            "item": items,
            "category": amazon.category_vocabulary(by_item, items),
        }
        for name, table in words.items():
            shards.write_table(run.config.out / "vocabulary" / f"{name}.parquet", table)
    return words, by_item, refused, repeated


def _item_categories(by_item: pl.DataFrame, words: pa.Table) -> npt.NDArray[np.int32]:
    """(items + 2,) the category's id by item id; 1 where an item has none."""
    ids = by_item.join(
        pl.DataFrame(words).select(pl.col("value").alias("category"), pl.col("id").alias("of")),
        on="category",
        how="left",
    ).sort("id")
    categories = np.zeros(by_item.height + manifest.FIRST_ID, np.int32)
    categories[manifest.UNKNOWN_ID] = manifest.UNKNOWN_ID
    categories[ids["id"].to_numpy()] = ids["of"].fill_null(manifest.UNKNOWN_ID).to_numpy()
    return categories


def _fit_intervals(
    run: _Run, words: dict[str, pa.Table], item_category: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], pl.DataFrame, int]:
    """Encode and order each bucket; bin edges, the counts behind them, the longest history."""
    (run.work / "sequences").mkdir(exist_ok=True)
    users, items = (words[name].select(["value", "id"]) for name in ("user", "item"))
    max_len = _UNLIMITED if run.config.parity else run.config.max_len
    shards.write_table(
        run.config.out / "items.parquet",
        pa.table(
            {
                "item": pa.array(np.arange(2, len(item_category), dtype=np.int32)),
                "category": pa.array(item_category[2:]),
            }
        ),
    )

    def encode(bucket: int) -> tuple[pl.DataFrame, int, int]:
        path = run.sequences(bucket)
        if not path.exists():
            spilled = buckets.read_spilled(run.spilled(bucket))
            joined = vocabulary.query(
                "amazon/behaviours", {"reviews": spilled, "users": users, "items": items}
            )
            found = {name: joined[name].to_numpy() for name in joined.column_names}
            buckets.save_sequences(path, {**found, "category": item_category[found["item"]]})
        seq = buckets.load_sequences(path, amazon.FIELDS)
        longest = int(np.diff(seq.offsets).max(initial=1)) - 1
        return (
            transform.interval_counts(seq, run.config.split, max_len, len(items)),
            longest,
            len(seq.row),
        )

    with run.step("order and fit intervals") as rows:
        progress = _Counter(run, "order and fit intervals")
        fitted = map_buckets(encode, range(run.count), run.config.workers, progress)
        totals = intervals.merge([f[0] for f in fitted])
        rows[:] = sum(f[2] for f in fitted), totals.height
    return intervals.edges(totals, run.config.bins), totals, max(f[1] for f in fitted)


def _released(run: _Run, items: int) -> npt.NDArray[np.int64]:
    """Parity's negative of each raw row: one stream over all users in order, so all at once."""
    with run.step("released negatives") as rows:
        every = [buckets.load_sequences(run.sequences(k), ("item",)) for k in range(run.count)]
        user = np.concatenate([s.user for s in every])
        order = np.argsort(user, kind="stable")
        item = np.concatenate([s.fields["item"] for s in every])[order] - manifest.FIRST_ID
        row = np.concatenate([s.row for s in every])[order]
        firsts = np.flatnonzero(np.diff(user[order], prepend=-1))
        seen = [h.tolist() for h in np.split(item, firsts[1:])]
        if any(len(set(h)) == items for h in seen):
            raise InputError(
                "The released code never ends where a user has touched every item.",
                where=run.paths[0],
                do="leave --parity out: such users then give no rows, and are counted",
            )
        drawn = np.zeros(int(row.max()) + 1, np.int64)
        drawn[row] = negatives.released_stream(seen, items)
        rows[:] = len(row), len(row)
        return drawn


def _transform(run: _Run, rules: transform.Rules, fitted: transform.Fitted) -> list[dict[str, Any]]:
    """Write each bucket's shards; a bucket that an earlier run finished is not made again."""
    out = run.config.out
    schema = shard_schema(amazon.FIELDS, rules.layout, fitted.max_len)

    def write(bucket: int) -> dict[str, Any]:
        marker = run.work / "done" / f"{bucket:05d}.json"
        if marker.exists():
            found: dict[str, Any] = json.loads(marker.read_text())
            return found
        seq = buckets.load_sequences(run.sequences(bucket), amazon.FIELDS)
        chosen = transform.prepare(seq, rules, fitted)
        written = []
        for which, name in enumerate(manifest.SPLITS):
            if not (chosen.targets.split == which).any():
                continue
            blocks = transform.split_rows(seq, chosen, which, rules, fitted, schema)
            path = out / name / f"part-{bucket:05d}.parquet"
            written.append(asdict(shards.write_shard(path, schema, blocks, out)))
        result = {
            "shards": written,
            "lengths": transform.history_lengths(chosen, rules, fitted.max_len),
            "left_out": chosen.left_out.tolist(),
        }
        shards.write_json(marker, result)
        return result

    with run.step("transform") as rows:
        results = map_buckets(
            write, range(run.count), run.config.workers, _Counter(run, "transform")
        )
        rows[0] = run.steps[-1].rows_in
        rows[1] = sum(s["rows"] for r in results for s in r["shards"])
        return results


class _Counter:
    """Tells how many buckets of a step are done."""

    def __init__(self, run: _Run, name: str) -> None:
        self.tell, self.total, self.done = partial(run.told, name), run.count, 0

    def __call__(self) -> None:
        self.done += 1
        self.tell(self.done, self.total)


def _write_rejected(run: _Run, lines: pl.DataFrame, rows: list[int]) -> dict[str, int]:
    """Write what was refused, a table each; returns how often each reason occurs."""
    folder = run.config.out / "rejected"
    shutil.rmtree(folder, ignore_errors=True)
    for path, name in zip(run.paths, ("reviews", "meta"), strict=False):
        part = lines.filter(pl.col("file") == path.name)
        if part.height:
            shards.write_table(folder / f"{name}.parquet", vocabulary.arrow(part))
    reasons = {str(r): int(n) for r, n in lines.group_by("reason").len().sort("reason").rows()}
    if rows:
        reason = [transform.TOUCHED_EVERY_ITEM] * len(rows)
        shards.write_table(
            folder / "targets.parquet", pa.table({"row": sorted(rows), "reason": reason})
        )
        reasons[transform.TOUCHED_EVERY_ITEM] = len(rows)
    return reasons


def _notes(made: manifest.Manifest, config: AmazonConfig) -> list[str]:
    """What a person should know of this data set."""
    notes = []
    if made.synthetic:
        notes.append("The raw files are synthetic: no figure from them is one of real users.")
    empty = [str(k + 1) for k, n in enumerate(made.bins.train_counts) if n == 0]
    if empty:
        notes.append(
            f"Interval bins {', '.join(empty)} of {made.bins.count} are empty: single intervals "
            "are so common that neighbouring edges are equal."
        )
    known = AMAZON_COUNTS.get(config.category)
    if known is not None and not made.synthetic and config.meta:
        got = {k: made.vocabulary[k] - manifest.FIRST_ID for k in ("user", "item", "category")}
        want = {"user": known.users, "item": known.items, "category": known.categories}
        if got != want:
            notes.append(f"Counts differ from the published {want}: {got}.")
    return notes


def _check_rejected(path: Path, refused: pl.DataFrame, lines: int, limit: float) -> None:
    if refused.height <= limit * lines:
        return
    reasons = refused.group_by("reason").len().sort("len", descending=True).rows()
    first = refused.row(0, named=True)
    raise InputError(
        f"Too many lines cannot be used, first: {first['reason']}.",
        where=path,
        line=first["line"],
        expected=f"at most {limit:.3%} of {lines:,} lines refused (--max-rejected)",
        got=f"{refused.height:,}: "
        + ", ".join(f"{reason} {n:,}" for reason, n in reasons)
        + f"; line {first['line']} begins {first['text'][:80]!r}",
        do="mend the file, or allow more with --max-rejected",
    )


def _check_space(run: _Run, needed: Estimate) -> None:
    free = shutil.disk_usage(run.config.out).free
    if free < needed.bytes:
        raise EnvironmentFault(
            "There is too little free space on the disk.",
            where=run.config.out,
            expected=f"about {needed.bytes / 1e9:,.1f} GB",
            got=f"{free / 1e9:,.1f} GB free",
            do="free some, give --out on another disk, or --layout ragged, which is smaller",
        )


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError("--out is not a folder.", where=out, do="give the name of a folder")
    strange = sorted(p.name for p in out.iterdir() if p.name not in _OURS) if out.exists() else []
    if strange:
        raise UsageError(
            "The output folder holds something else.",
            where=out,
            expected="a new or empty folder, or a data set of tinprep",
            got=", ".join(strange[:5]),
            do="give another --out",
        )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder's lock; a second run is told."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFault(
                "Another run is at work in this folder.", where=out, do="wait for it to end"
            ) from None
        yield


def _key(config: AmazonConfig, inputs: list[manifest.InputFile]) -> str:
    """What the rows are a function of: settings, the files' content, the version."""
    text = json.dumps(
        [config.rows_depend_on(), [asdict(i) for i in inputs], manifest.FORMAT, version("tinprep")],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _begin(run: _Run, key: str) -> None:
    """Go on with the work of an interrupted run of the same key and buckets, else start anew."""
    note = run.work / "key.json"
    wanted = [key, run.config.buckets]
    found = json.loads(note.read_text()) if note.exists() else None
    if run.config.force or found != wanted:
        _clear(run.config.out)
        run.work.mkdir()
        shards.write_json(note, wanted)


def _clear(out: Path) -> None:
    """Remove an earlier data set; the manifest first, so that no half counts as whole."""
    (out / manifest.NAME).unlink(missing_ok=True)
    for name in sorted(_OURS - {manifest.NAME, LOCK}):
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
