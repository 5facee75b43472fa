"""The steps that every preparation ends with: write the shards, then the manifest."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.description import IS_TARGET, Description, Table
from pipeline.description.split import Split
from pipeline.readers.remote import RemotePath
from pipeline.readers.values import CANONICAL
from pipeline.record import WORK, atomic
from pipeline.steps import lookups, shards, spill
from pipeline.steps.ids_held import not_held
from pipeline.steps.rows import Block, Stored
from pipeline.steps.sql import arrow
from pipeline.workspace import Run, enter
from schemas import digests, manifest, tables
from schemas.errors import EnvironmentFault
from schemas.replacing import sha256, to_disk, unfinished

# There is a warning where one label has at least so many targets in their own history, by so much
# more of its rows than the other label, and by so many times. Twice is nothing odd: people click
# more often on what they looked at before.
_LEAST, _MORE, _TIMES = 5, 0.05, 4
# There is a warning where at most this part of a field's ids makes text of the others.
_FEW = 0.01

POOL, CORE = "events/negatives.parquet", "events/core.parquet"
"""Beside the events that are kept: what negatives are drawn from, and the values of the core."""


class Made(NamedTuple):
    """What comes of a bucket.

    Attributes:
        blocks: the rows of each split that has any.
        summary: what the bucket adds to the manifest.
        behaviours: history -> the events that its histories are cut from: user, time and ids, in
            order; empty where nothing is kept.
    """

    blocks: Mapping[str, Iterable[Block]]
    summary: dict[str, Any]
    behaviours: Mapping[str, pa.Table]


@dataclass(frozen=True)
class Content:
    """What a data set holds, for its manifest.

    Attributes:
        synthetic: whether its raw files are.
        stored: history -> how it is stored.
        bins: history -> its bins.
        rejected: reason -> rows refused.
        counts: what else is worth knowing, e.g. rows of users without a profile.
        shares: what is worth knowing as a part of a whole, e.g. repeated reviews.
        numbers: float column -> how it was standardised.
        notes: what a person should know.
        missing: columns that some event has no value in.
        first_rows: the row of the first line of each file of events.
    """

    d: Description
    split: Split
    synthetic: bool
    words: dict[str, pa.Table]
    stored: Mapping[str, Stored]
    bins: Mapping[str, manifest.Bins]
    rejected: dict[str, int]
    counts: dict[str, int]
    shares: dict[str, manifest.Share]
    numbers: dict[str, dict[str, Any]]
    notes: list[str]
    missing: frozenset[str]
    first_rows: dict[Path, int]
    kept: manifest.Kept | None
    continues: manifest.Continues | None


def write_shards(
    run: Run,
    schema: pa.Schema,
    rows_in: int,
    make: Callable[[Path, int, pa.Schema], Made],
    needs: Sequence[str],
    splits: Sequence[str],
    keeps: Sequence[Table] = (),
    histories: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Write each bucket's shards; a bucket that an earlier run finished is not made again.

    Args:
        rows_in: behaviours or impressions, of all buckets.
        make: from the folder of the buckets' files, a bucket's number and the schema, its rows; the
            summary has at least `lengths`, split -> rows by length, and `ids` of `ids_held`.
        needs: kinds of files that `make` reads.
        keeps: tables whose events are kept beside the shards.
        histories: whose behaviours are.

    Returns:
        Each bucket's summary, with `shards`, `events`, which are kept, and `in_history` and
        `no_id`, split -> as `Block` has them.
    """
    # Not the schema itself: pickled, it forgets that elements of lists are never null.
    columns = schema.serialize().to_pybytes()
    write = partial(_write, run.config.out, run.remote, columns, make, keeps)
    writer = run.record.writers[-1]
    work: Callable[[Path, int], dict[str, Any]] = partial(write, writer)
    if run.engine.resumes:
        work = partial(_kept, run, partial(write, None))
    if run.remote is not None:
        names = {_shard(name, k) for name in splits for k in range(run.count)}
        names |= {_events(table.name, k) for table in keeps for k in range(run.count)}
        names |= {_behaviours(name, k) for name in histories for k in range(run.count)}
        enter(run.remote, writer, names)
    with run.step("transform") as rows:
        results = run.each("transform", work, [*needs, *map(spill.kept, keeps)])
        for file in (file for r in results for file in (*r["shards"], *r["events"])):
            if name := file.pop("unfinished", None):
                _place(run, name, file["path"])
        rows[0] = rows_in
        rows[1] = sum(s["rows"] for r in results for s in r["shards"])
        return results


def _shard(split: str, bucket: int) -> str:
    return f"{split}/part-{bucket:05d}.parquet"


def _events(table: str, bucket: int) -> str:
    return f"events/{table}-{bucket:05d}.parquet"


def _behaviours(history: str, bucket: int) -> str:
    return f"behaviours/{history}-{bucket:05d}.parquet"


def _kept(run: Run, write: Callable[[Path, int], dict[str, Any]], folder: Path, bucket: int) -> Any:
    """What comes of a bucket, once for all runs."""
    return run.once(f"transform {bucket}", partial(write, folder, bucket))


def _write(
    out: Path,
    remote: RemotePath | None,
    columns: bytes,
    make: Callable[[Path, int, pa.Schema], Made],
    keeps: Sequence[Table],
    writer: str | None,
    folder: Path,
    bucket: int,
) -> dict[str, Any]:
    """Write a bucket's shards below `out` or `remote`.

    An executor, which has a `writer`, leaves them below `out` as unfinished files.
    """
    schema = pa.ipc.read_schema(pa.py_buffer(columns))
    blocks, summary, behaviours = make(folder, bucket, schema)
    to = out if writer is None else folder / "out"
    in_history = {name: np.zeros((2, 2), np.int64) for name in blocks}
    unknown: dict[str, Any] = dict.fromkeys(blocks, 0)

    def of(split: str) -> Iterator[pa.Table]:
        for block in blocks[split]:
            in_history[split] += block.in_history
            unknown[split] = unknown[split] + block.unknown
            yield block.table

    written = [
        asdict(shards.write_shard(to / _shard(name, bucket), schema, of(name), to))
        for name in blocks
    ]
    summary["in_history"] = {name: counts.tolist() for name, counts in in_history.items()}
    summary["no_id"] = {name: np.asarray(counts).tolist() for name, counts in unknown.items()}
    events = [
        asdict(
            shards.write_shard(
                to / _events(table.name, bucket), *spill.events_kept(folder, bucket, table), to
            )
        )
        for table in keeps
    ]
    events += [
        asdict(shards.write_shard(to / _behaviours(name, bucket), of.schema, [of], to))
        for name, of in behaviours.items()
    ]
    result = {"shards": written, "events": events, **summary}
    if writer is None:
        return result
    for made in (*written, *events):
        if remote is not None:
            (remote / made["path"]).put(to / made["path"], writer)
            continue
        (out / WORK).mkdir(parents=True, exist_ok=True)
        file = unfinished(out / WORK, writer)
        shutil.copyfile(to / made["path"], file)
        to_disk(file)
        made["unfinished"] = file.name
    return result


def _place(run: Run, name: str, path: str) -> None:
    """Give a shard that an executor has written its name."""
    file = run.work / name
    if not file.exists():
        raise EnvironmentFault(
            "Shards were written where this machine cannot see them.",
            where=file,
            expected="a folder that all machines of the cluster share",
            got="no such file",
            do="give --out on a shared folder, or an address such as s3://bucket/folder",
        )
    run.record.place(file, run.config.out / path, sync=False)


def write_vocabularies(run: Run, words: dict[str, pa.Table]) -> None:
    """Write a file a field."""
    for name, table in words.items():
        path = run.config.out / "vocabulary" / f"{name}.parquet"
        text = not pa.types.is_integer(table.schema.field("value").type)
        model = tables.TextVocabulary if text else tables.NumberVocabulary
        tables.check(model, pl.DataFrame(table), path)
        shards.write_table(path, table)


def write_state(
    run: Run, pool: pa.Table | None, core: pl.Series | None, nobodies: pa.Table | None
) -> None:
    """Write what else has to be known of events that are kept.

    Args:
        pool: value and weight of what negatives are drawn from; None for none.
        core: the values of the k-core; None for none.
        nobodies: value and id of users whom the targets' table lacks; None for none.
    """
    if nobodies is not None:
        shards.write_table(run.config.out / manifest.NOBODIES, nobodies.select(["value", "id"]))
    if pool is not None:
        shards.write_table(run.config.out / POOL, pool)
    if core is not None:
        shards.write_table(run.config.out / CORE, arrow(core.alias("value").to_frame()))


def write_rejected(out: Path, refused: Mapping[str, Iterable[pa.Table]]) -> dict[str, int]:
    """Write what was refused, a table each; returns how often each reason occurs.

    Args:
        refused: name -> rows refused, some at a time, with a column `reason`; of none there is no
            table.
    """
    folder = out / "rejected"
    reasons: Counter[str] = Counter()
    for name, pieces in refused.items():
        filled = filter(len, pieces)
        for first in filled:
            with (
                atomic(folder / f"{name}.parquet") as path,
                pq.ParquetWriter(path, first.schema, compression="zstd") as writer,
            ):
                for rows in chain([first], filled):
                    if "file" in rows.column_names:
                        tables.check(tables.Rejected, pl.DataFrame(rows), f"rejected/{name}")
                    writer.write_table(rows)
                    counts = rows["reason"].value_counts()
                    reasons.update({one["values"]: one["counts"] for one in counts.to_pylist()})
    return dict(sorted(reasons.items()))


def finish(run: Run, results: list[dict[str, Any]], content: Content) -> manifest.Manifest:
    """Write the manifest, which makes the data set one."""
    written = [manifest.DataFile(**s) for r in results for s in r["shards"]]
    written.sort(key=lambda s: (content.d.splits.index(s.path.split("/")[0]), s.path))
    rows = dict.fromkeys(content.d.splits, 0)
    for shard in written:
        rows[shard.path.split("/")[0]] += shard.rows
    d, config = content.d, run.config
    inputs, key = run.identity()
    run.check_raw()
    own = _in_history(results, d.splits)
    sizes = {name: len(t) + manifest.FIRST_ID for name, t in content.words.items()}
    histories = {name: _history(content, name, results) for name in d.histories}
    negatives = None
    if d.negatives is not None:
        drawn = d.negatives
        negatives = manifest.Negatives(
            drawn.field, drawn.each, drawn.exclude, drawn.pool, drawn.weight, d.min_count > 1
        )
    unknown = _unknown(results)
    made = manifest.Manifest(
        format=manifest.FORMAT,
        dataset=d.name,
        synthetic=content.synthetic,
        version=version("tinprep"),
        config={
            **config.resolved(),
            "out": str(run.remote or config.out),
            "key": key,
            **({manifest.KEEPS: manifest.KEPT} if config.keeps is not None else {}),
        },
        inputs=[
            one if one.query else replace(one, first_row=content.first_rows.get(path))
            for path, one in zip(run.paths, inputs, strict=True)
        ],
        rows=rows,
        events={table.name: table.file for table in d.tables},
        target=manifest.Target(
            d.target.name,
            content.split.told(),
            negatives,
            where=IS_TARGET in d.target.masks,
            only_new=d.target.ids[0] if d.only_new else None,
            k_core=d.k_core,
            min_history=d.min_history,
            labelled=d.labelled,
        ),
        fields=list(d.fields),
        features={
            **{name: manifest.Feature("id", name) for name in d.features},
            **{name: manifest.Feature("number", None) for name in d.numbers},
            **{name: manifest.Feature("list", name, most) for name, most in d.lists.items()},
        },
        histories=histories,
        lookups={
            one.key: manifest.Lookup(
                list(one.fields),
                list(one.features),
                list(one.numbers),
                every=one.refuse is not None or not (one.all_lines or one.timed),
                without=one.without,
                lacks=one.lacks,
                lists=list(one.lists),
                repeated=one.repeated,
                refuses=one.refuse is not None,
                timed=one.timed,
            )
            for one in d.lookups
        },
        vocabulary=sizes,
        vocabulary_from=d.vocabulary_from,
        known=[name for name in d.known if name not in content.missing],
        layout=d.layout,
        timezone=d.timezone,
        train=dict(d.train),
        description=dict(d.said),
        rejected=content.rejected,
        notes=[
            *_warnings(own, d, content.shares),
            *_of_one_label(results, d.fields, own, d.splits),
            *_splits_of_one_label(d, own),
            *_nothing_known(unknown),
            *_text_by_a_few(d, content.words),
            *_notes(content, rows, histories),
            *content.notes,
        ],
        shards=written,
        steps=run.steps,
        counts=content.counts,
        shares=content.shares
        | own
        | (not_held(results, {n: sizes[n] for n in d.fields}) if d.continues is None else {})
        | unknown,
        numbers=content.numbers,
        tables=[
            *_tables(run, content.words),
            *(manifest.DataFile(**one) for result in results for one in result["events"]),
        ],
        time_unit=d.unit,
        weight=d.target.weight,
        keep=d.keep,
        own={table.name: [*table.ids, *table.numbers, *table.lists] for table in d.tables},
        kept=content.kept,
        continues=content.continues,
    )
    means = digests.of_vocabularies(content.words) | digests.of_manifest(made)
    made = replace(made, digests=means)
    if config.keeps is not None:
        with atomic(config.out / manifest.KEPT) as temporary:
            temporary.write_text(config.keeps, encoding="utf-8")
    with atomic(config.out / manifest.NAME) as temporary:
        temporary.write_text(made.to_json(), encoding="utf-8")
    return made


def _history(content: Content, name: str, results: list[dict[str, Any]]) -> manifest.History:
    d, stored = content.d, content.stored[name]
    history = d.histories[name]
    return manifest.History(
        table=history.table,
        fields=list(d.carried(d.table(history.table))),
        max_len=stored.max_len,
        window=history.window,
        session_gap=stored.session_gap,
        sessions=None if stored.sessions is None else list(stored.sessions),
        bins=content.bins[name],
        lengths={
            split: np.sum([r["lengths"][name][split] for r in results], axis=0).tolist()
            for split in d.splits
        },
        where=history.where,
        within=history.within,
        delay=history.delay,
    )


def _tables(run: Run, words: dict[str, pa.Table]) -> list[manifest.DataFile]:
    """The files beside the shards, as they lie in the output folder."""
    out, written = run.config.out, sorted(run.record.files)
    unknown = lookups.UNKNOWN.partition("{")[0]
    names = [
        name
        for name in written
        if name.startswith(("lookups/", POOL, CORE, manifest.NOBODIES, unknown))
    ]
    names += [f"vocabulary/{name}.parquet" for name in sorted(words)]
    names += [name for name in written if name.startswith("rejected/")]
    return [
        manifest.DataFile(name, pq.read_metadata(out / name).num_rows, sha256(out / name))
        for name in names
    ]


def _unknown(results: Sequence[dict[str, Any]]) -> dict[str, manifest.Share]:
    """What has no id, where only what train holds has one."""
    found: dict[str, manifest.Share] = {}
    for name, (count, of) in (one for result in results for one in result["unknown"].items()):
        before = found.get(name, manifest.Share(0, 0))
        found[name] = manifest.Share(before.count + count, before.of + of)
    return found


def _in_history(
    results: Sequence[dict[str, Any]], splits: Sequence[str]
) -> dict[str, manifest.Share]:
    """Of the positives and negatives of each split, those whose target stands in their history."""
    found = {}
    for split in splits:
        for label, share in enumerate(_counted(results, "in_history", split, 2)):
            found[manifest.in_history(split, label)] = manifest.Share(*share)
    return found


def _warnings(
    shares: dict[str, manifest.Share], d: Description, counted: dict[str, manifest.Share]
) -> list[str]:
    """Where targets stand in their own history so unevenly that it tells the labels apart."""
    told = []
    for split in d.splits:
        negative, positive = (shares[manifest.in_history(split, label)] for label in range(2))
        low, high = sorted((negative, positive), key=lambda one: one.share)
        differ = high.share > low.share + _MORE and high.share > _TIMES * low.share
        if low.of and high.count >= _LEAST and differ:
            told.append(f"{split} {positive.share:.1%} and {negative.share:.1%}")
    if not told:
        return []
    helps: list[str] = []
    made = d.continues is None  # new events are made as their data set was
    if made and any(
        (n := counted.get(manifest.repeated(t.name, False))) and n.count for t in d.tables
    ):
        helps.append("Records stand twice in the raw file: --duplicates drop leaves them out.")
    if made and d.said and not d.only_new:
        helps.append("only_new = true in [target] leaves out what a user comes back to.")
    return [
        "Warning: many more targets of one label than of the other stand in their own history "
        f"(positives and negatives: {', '.join(told)}), so a model may tell the labels apart by "
        + " ".join(["this alone.", *helps])
    ]


def _of_one_label(
    results: Sequence[dict[str, Any]],
    fields: Sequence[str],
    own: dict[str, manifest.Share],
    splits: Sequence[str],
) -> list[str]:
    """Where targets that train does not know are all of one label, though there are many."""
    told = []
    for split in splits[1:]:
        of = [own[manifest.in_history(split, label)].of for label in range(2)]
        for name, counts in zip(
            fields, _counted(results, "no_id", split, len(fields)), strict=True
        ):
            few, many = sorted(range(2), key=lambda label: counts[label])
            # As many as this of the other label would be by chance, and none is.
            expected = counts[many] * of[few] / max(of[many], 1)
            if not counts[few] and expected >= _LEAST:
                labels = ("negatives", "positives")
                told.append(f"{split} {counts[many]:,} {labels[many]} by {name}, no {labels[few]}")
    if not told:
        return []
    return [
        "Warning: targets that are unknown, as train lacks their value, are all of one label: "
        f"{'; '.join(told)}. That alone tells the labels apart. filters.k_core leaves rare values "
        "out; or measure on those rows of `tinprep predict` that name a value."
    ]


def _splits_of_one_label(d: Description, own: dict[str, manifest.Share]) -> list[str]:
    """Where all targets of a split have one label."""
    told = []
    for split in d.splits if d.labelled and d.negatives is None else ():
        zeros, ones = (own[manifest.in_history(split, label)].of for label in range(2))
        if (zeros == 0) != (ones == 0):
            what = "nothing can be learned from" if split == d.splits[0] else "no AUC exists on"
            told.append(f"all {zeros + ones:,} of {split} are {int(ones > 0)}, so {what} them")
    return [f"Warning: labels: {'; '.join(told)}."] if told else []


def _nothing_known(unknown: dict[str, manifest.Share]) -> list[str]:
    """Where train knows none of the values that rows of a split have."""
    lost = [f"{what}, {one.of:,}" for what, one in unknown.items() if one.count == one.of > 0]
    if not lost:
        return []
    return [
        f"Warning: of these train knows none: {'; '.join(lost)}. Look at how files spell them, and "
        "whether a lookup has them."
    ]


def _text_by_a_few(d: Description, words: Mapping[str, pa.Table]) -> list[str]:
    """Where a few ids that are no whole numbers have made text of all the others."""
    told = []
    for name, table in words.items() if d.continues is None else ():
        whole = pa.types.is_integer(table.schema.field("value").type)
        if whole or name in d.said.get("types", {}):
            continue
        ids = pl.DataFrame(table).select("value", "count")
        odd = ids.filter(~pl.col("value").str.contains(CANONICAL))
        count, of = int(odd["count"].sum()), int(ids["count"].sum())
        if 0 < count <= _FEW * of:
            commonest = odd.sort("count", "value", descending=[True, False])["value"][0]
            told.append(f"{name} ({count:,} of {of:,}, such as {commonest!r})")
    if not told:
        return []
    return [
        f"Warning: ids are text because a few are no whole numbers: {'; '.join(told)}. As text, "
        '+7 is another id than 7. types = { NAME = "whole" } takes +7 for 7 and refuses what is no '
        'number; types = { NAME = "text" } says that they are right.'
    ]


def _counted(
    results: Sequence[dict[str, Any]], what: str, split: str, rows: int
) -> list[list[int]]:
    """(rows, 2) what all buckets have counted of a split: `in_history` or `no_id`."""
    counts = [one[what][split] for one in results if split in one[what]]
    found: list[list[int]] = np.sum([np.zeros((rows, 2), np.int64), *counts], axis=0).tolist()
    return found


def _notes(
    content: Content, rows: dict[str, int], histories: Mapping[str, manifest.History]
) -> list[str]:
    """What a person should know of any data set."""
    notes = []
    if content.synthetic:
        notes.append("The raw files are synthetic: no figure from them is one of real users.")
    notes += [f"There are no {name} rows." for name in content.split.names if not rows[name]]
    notes += [
        f"No {name} is known: each is the unknown one."
        for name, words in content.words.items()
        if not len(words)
    ]
    for called, history in histories.items():
        counts, of = history.bins.train_counts, f" of {called}" * (len(histories) > 1)
        if not any(counts):
            notes.append(
                f"No train row has a behaviour{of}, so the edges of the interval bins are all 0."
            )
            continue
        empty = [str(k + 1) for k, n in enumerate(counts) if n == 0]
        if empty:
            notes.append(
                f"Interval bins {', '.join(empty)} of {len(counts)}{of} are empty: single "
                "intervals are so common that neighbouring edges are equal."
            )
    return notes
