"""The ordered steps from an impression log and a behaviour log to a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import intervals, steps
from pipeline import transform_impressions as transform
from pipeline.buckets import ORDERED_IMPRESSIONS, SEQUENCES, bucket_path, spilled_pieces
from pipeline.config import AlibabaConfig
from pipeline.fit_impressions import encode_ads, fit_intervals, fit_vocabulary, load
from pipeline.ids_held import ids_held
from pipeline.line_count import estimate_lines
from pipeline.missing import check_missing
from pipeline.partition_behaviours import ordered_bytes, partition_behaviours, spilled_bytes
from pipeline.partition_impressions import (
    catalogue_bytes,
    check_ads,
    fit_users,
    output_bytes,
    parse_catalogue,
    partition_impressions,
)
from pipeline.refused import kind
from pipeline.rows import Stored
from pipeline.sources import alibaba, alibaba_files
from pipeline.sources.synthetic_folder import MARKER
from pipeline.workspace import Run
from schemas import manifest
from schemas.manifest import OF_NOBODY, WITHOUT_PROFILE, Share
from schemas.shards import shard_schema

# Measured, rounded up: for estimates only.
_BEHAVIOURS_A_SECOND = 2_200_000
_ROWS_A_SECOND = 300_000


def fixed_bytes(config: AlibabaConfig, paths: list[Path]) -> int:
    """The memory that is held all along."""
    return catalogue_bytes(paths)


def plan(config: AlibabaConfig) -> str:
    """What `--dry-run` says; nothing is written."""
    impressions, _, _, behaviours = (estimate_lines(p) for p in alibaba_files.obtain(config))
    work = spilled_bytes(behaviours) + ordered_bytes(behaviours)
    output = output_bytes(config, impressions)
    seconds = 2 + behaviours / _BEHAVIOURS_A_SECOND + impressions / _ROWS_A_SECOND
    return (
        f"impressions   about {impressions:,}\nbehaviours    about {behaviours:,}\n"
        f"rows          at most {impressions:,}\n"
        f"disk          about {(work + output) / 1e6:,.0f} MB at the most, of which "
        f"{output / 1e6:,.0f} MB stay, in {config.out}\n"
        f"time          about {seconds:.0f} s on two cores"
    )


def make(run: Run, config: AlibabaConfig) -> manifest.Manifest:
    """Partition, fit, transform, and write the manifest."""
    impressions_path = run.paths[0]
    parsed = parse_catalogue(run, config)
    sample = alibaba.sampled_users(parsed.profiles["user"], config.user_fraction)
    seen = partition_impressions(run, config, parsed.ads["ad"], sample)
    days = alibaba.days(config, seen.first, seen.last)
    alibaba.require_train(config, days, seen.first, seen.last, impressions_path)
    shares = check_ads(run, config, seen.no_ad, seen.kept + seen.left_out)
    shares |= check_missing(config, run.paths[1], alibaba.without(parsed.ads, alibaba.FIELDS))
    since = alibaba.since(config, seen.first)
    users, repeated, contradicting = fit_users(run, config.drops)
    no_profile = alibaba.without_profile(users, parsed.profiles["user"])
    impressions = seen.kept - (repeated if config.drops else 0)
    share = {WITHOUT_PROFILE: Share(no_profile, impressions)}
    shares |= check_missing(config, run.paths[2], share)
    behaviours = partition_behaviours(run, config, users, sample, since)
    nobodys = behaviours["no_impressions"]
    share = {OF_NOBODY: Share(nobodys, behaviours["kept"] + nobodys)}
    shares |= check_missing(config, run.paths[3], share)
    run.check_space(ordered_bytes(behaviours["kept"]) + output_bytes(config, seen.kept))
    words = fit_vocabulary(run, config, parsed, users)
    ads, profiles = encode_ads(run, words, parsed)
    fitted = fit_intervals(run, config, words, ads, days)
    price, how = alibaba.price_numbers(ads["price"].fill_null(np.nan).to_numpy(), fitted.shown)
    stored = Stored(
        intervals.edges(fitted.totals, config.bins),
        config.max_len,
        config.layout,
        config.session_gap,
        config.session_shape,
    )
    state = transform.Fitted(
        days,
        {name: ads[name].to_numpy() for name in alibaba.FIELDS},
        {**{name: ads[name].to_numpy() for name in alibaba.AD_FEATURES}, "price": price},
        profiles,
        stored,
    )
    schema = shard_schema(
        alibaba.FIELDS,
        stored.layout,
        stored.max_len,
        features=alibaba.FEATURES,
        numbers=("price",),
        sessions=stored.sessions,
    )
    rows = _Rows(state)
    needs = [SEQUENCES, ORDERED_IMPRESSIONS]
    results = steps.write_shards(run, schema, seen.kept, rows, needs)
    rejected = _write_rejected(run) | parsed.repeated
    synthetic = (impressions_path.parent / MARKER).exists()
    read = dict(
        zip(
            alibaba_files.NAMES,
            (
                seen.read,
                parsed.lines["ad_feature"],
                parsed.lines["user_profile"],
                behaviours["read"],
            ),
            strict=True,
        )
    )
    no_history = sum(r["no_history"] for r in results)
    counts = {
        "impressions read": seen.read,
        "behaviours read": behaviours["read"],
        "behaviours kept": behaviours["kept"],
        "behaviours of other kinds or times": behaviours["left_out"],
        OF_NOBODY: nobodys,
        "impressions of users outside the sample": seen.left_out,
        WITHOUT_PROFILE: no_profile,
        "impressions without behaviours": no_history,
    }
    shares |= {
        manifest.repeated("impressions", config.drops): Share(repeated, seen.kept),
        "impressions both clicked and not": Share(contradicting, seen.kept - repeated),
        manifest.repeated("behaviours", config.drops): Share(
            behaviours["kept"] - fitted.behaviours if config.drops else fitted.repeated,
            behaviours["kept"],
        ),
        "impressions without behaviours": Share(no_history, impressions),
        **alibaba.without(parsed.ads, ("price",)),
        "ads with a price of 0 or less": Share(int((ads["price"] <= 0).sum()), len(ads)),
    }
    notes = alibaba.bounds(config, days, since)
    if not behaviours["kept"]:
        notes.append("No behaviour counts, so every history is empty.")
    if not how["train_rows"]:
        notes.append(
            "No price of a train row is known: each is 0 there, a plain logarithm in other splits."
        )
    content = steps.Content(
        dataset="alibaba",
        synthetic=synthetic,
        fields=alibaba.FIELDS,
        words=words,
        stored=stored,
        totals=fitted.totals,
        each=1,
        rejected=rejected,
        notes=notes if synthetic else [*notes, *alibaba.notes(read)],
        counts=counts,
        shares=shares,
        numbers={"price": how},
    )
    return steps.finish(run, results, content)


@dataclass(frozen=True)
class _Rows:
    """The rows of a bucket's splits.

    Attributes:
        fitted: what is known of the whole data set.
    """

    fitted: transform.Fitted

    def __call__(self, folder: Path, bucket: int, schema: pa.Schema) -> steps.Made:
        """The blocks of each split, and the bucket's summary."""
        days, stored = self.fitted.days, self.fitted.stored
        behaviours, seen = load(folder, bucket)
        which = days.split(seen.time)
        targets = {name: of_ad[seen.ad_place] for name, of_ad in self.fitted.target.items()}
        blocks = {
            name: transform.split_rows(behaviours, seen, k, self.fitted, schema)
            for k, name in enumerate(manifest.SPLITS)
            if (which == k).any()
        }
        return blocks, {
            "lengths": transform.history_lengths(seen, days, stored.max_len),
            "ids": ids_held(which, targets, seen.windows, behaviours, stored.max_len),
            "no_history": int((seen.windows.end == seen.windows.start).sum()),
        }


def _write_rejected(run: Run) -> dict[str, int]:
    """Write the lines refused, a table for each file; returns how often each reason occurs."""
    refused = {
        name: spilled_pieces(bucket_path(run.work / kind(name), 0))
        for name in ("ad_feature", "user_profile")
    }
    for name in ("raw_sample", "behavior_log"):
        refused[name] = run.engine.gather(kind(name), "line")
    return steps.write_rejected(run.config.out, refused)
