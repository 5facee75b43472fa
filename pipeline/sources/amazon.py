"""Amazon 2014 (5-core): its tables, and the order of its behaviours."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa

from pipeline.config import AmazonConfig
from pipeline.lines import Part
from pipeline.negatives import counter_hash
from pipeline.sources.amazon_parse import META, read_meta, read_reviews
from pipeline.sources.parsed import Parsed
from pipeline.vocabulary import arrow, query, vocabulary
from schemas import tables
from schemas.expected import AMAZON_COUNTS

FIELDS = ("item", "category")


def reviews(part: Part, config: AmazonConfig) -> Generator[Parsed]:
    """The reviews in blocks, with `tie`, what orders behaviours of one second."""
    with closing(read_reviews(part)) as stream:
        for parsed in stream:
            tie = pl.col("row")
            if config.ties == "hash":
                bits = counter_hash(config.seed, parsed.rows["row"].to_numpy())
                tie = pl.lit(pl.Series(bits.astype("int64")))
            yield replace(parsed, rows=parsed.rows.with_columns(tie.alias("tie")))


def categories(
    path: Path | None, items: pa.Table, done: Callable[[Parsed], None] = lambda parsed: None
) -> tuple[pl.DataFrame, int, int]:
    """Every reviewed item with its category, by id; how many meta lines repeat an item.

    Args:
        path: the meta file, None where there is none.
        items: the vocabulary of items.
        done: told what each block held.

    Returns:
        The items, the number of lines that repeat one, and how many items have a line.
    """
    found = [pl.DataFrame(schema=META)]
    if path is not None:
        with closing(read_meta(path, pl.Series(items["value"]))) as stream:
            for parsed in stream:
                found.append(parsed.rows)
                done(parsed)
    meta = tables.check(tables.Meta, pl.concat(found), path or "no meta file")
    joined = query("amazon/items", {"reviewed": items, "meta": arrow(meta)})
    known = meta["item"].n_unique()
    return pl.DataFrame(joined), meta.height - known, known


def category_vocabulary(by_item: pl.DataFrame, items: pa.Table) -> pa.Table:
    """The vocabulary of categories; counts are reviews of their items."""
    counts = pl.DataFrame(items).select("id", "count")
    counted = by_item.join(counts, on="id").select(pl.col("category").alias("value"), "count")
    return vocabulary(counted)


def notes(config: AmazonConfig, words: dict[str, pa.Table]) -> list[str]:
    """Where the counts of real files differ from the published ones."""
    known = AMAZON_COUNTS.get(config.category)
    if known is None or not config.meta:
        return []
    got = {name: len(table) for name, table in words.items()}
    want = {"user": known.users, "item": known.items, "category": known.categories}
    return [] if got == want else [f"Counts differ from the published {want}: {got}."]
