"""Synthetic Taobao display-ad log in the raw layout of tianchi data set 56.

Four files as the real ones are, `raw_sample.csv`, `ad_feature.csv`, `user_profile.csv` and
`behavior_log.csv`, of the real size at scale 1, and beside them `SYNTHETIC.json`, whose presence
says that the folder's data is made up, and how.

Clicks follow a planted semantic-temporal correlation: see `alibaba_law`. The recipe is in
`alibaba_recipe`, ads and users in `alibaba_market`, what users do in `alibaba_draw`. The files'
bytes are a pure function of the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from pipeline.parallel import map_stream
from pipeline.synthetic.alibaba_draw import Block, draw_block
from pipeline.synthetic.alibaba_law import LAW, click_log_odds, click_probability, fit_base
from pipeline.synthetic.alibaba_market import Market, People, draw_profiles
from pipeline.synthetic.alibaba_recipe import KINDS, AlibabaRecipe, AlibabaSizes, stream
from pipeline.synthetic.folder import MARKER, check_sizes, other_data, read_marker, writing
from pipeline.synthetic.law import Progress
from schemas.replacing import require_folder

__all__ = [
    "FILES",
    "MARKER",
    "AlibabaRecipe",
    "AlibabaSizes",
    "click_log_odds",
    "synthesize_alibaba",
]

FILES = ("ad_feature.csv", "user_profile.csv", "raw_sample.csv", "behavior_log.csv")
# Counts changes of the output: data of another generation is not the same data.
GENERATION = 1
_BLOCK_ROWS = 3_000_000
_WORKERS = 2
# The base log odds are fitted to the first blocks with this many impressions in all.
_FIT_IMPRESSIONS = 400_000
_PIDS = pl.Series(["430539_1007", "430548_1007"], dtype=pl.Categorical)
_BTAGS = pl.Series(list(KINDS), dtype=pl.Categorical)


def synthesize_alibaba(
    out: Path, recipe: AlibabaRecipe | None = None, progress: Progress | None = None
) -> None:
    """Write the synthetic ads, profiles, impressions and behaviours to the folder `out`.

    All files are written under temporary names and renamed at the end, the marker first, so that
    synthetic data never lies under a final name without it. The same call again does nothing when
    its files are complete; another recipe replaces what an earlier one made.

    Args:
        out: the folder, made when absent; nothing in it that tinprep did not make up is replaced.
        recipe: size, seed and law; by default the real log's size.
        progress: called with what is being made (`ads`, `profiles`, `behaviours`), the rows made,
            and how many there will be.

    Raises:
        UsageError: `out` holds other data, or is a file.
        EnvironmentFault: the disk refused.
    """
    recipe = recipe or AlibabaRecipe()
    require_folder("The folder of the synthetic data", out)
    if _complete(out, recipe):
        return
    with writing(out, (MARKER, *FILES)) as partial:
        marker = {**_identity(recipe), **_write_all(partial, recipe, progress)}
        marker["files"] = {name: partial[name].stat().st_size for name in FILES}
        partial[MARKER].write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
        # No marker may ever describe another recipe's files, so those go first.
        for name in FILES:
            (out / name).unlink(missing_ok=True)


def _identity(recipe: AlibabaRecipe) -> dict[str, Any]:
    """Say what makes two sets of files the same data."""
    return {
        "synthetic": True,
        "made_by": "tinprep",
        "dataset": "alibaba",
        "generation": GENERATION,
        "recipe": asdict(recipe),
    }


def _complete(out: Path, recipe: AlibabaRecipe) -> bool:
    """Tell whether `out` holds just this data already; refuse a folder with data not made here."""
    marker = out / MARKER
    files = [path for name in FILES for path in (out / name, out / f"{name}.gz") if path.exists()]
    found = read_marker(marker, files)
    if found is None:
        return False
    said, sizes = found
    same = {key: said.get(key) for key in _identity(recipe)}
    if same["dataset"] != "alibaba":
        raise other_data(marker, "synthetic data of the same kind", f"that of {same['dataset']}")
    check_sizes(files, sizes)
    return same == _identity(recipe) and len(files) == len(FILES)


@dataclass
class _Tally:
    """What has been written so far."""

    impressions: int = 0
    clicks: int = 0
    known: int = 0
    behaviours: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    first_impression: int = 2**62
    last_impression: int = 0

    def add(self, block: Block, clicked: int) -> None:
        """Count the lines of a block."""
        self.impressions += len(block.ad)
        self.clicks += clicked
        self.known += int(block.known.sum())
        for kind, count in zip(KINDS, np.bincount(block.kind, minlength=4).tolist(), strict=True):
            self.behaviours[kind] += count
        if len(block.ad):
            self.first_impression = min(self.first_impression, int(block.impression_time.min()))
            self.last_impression = max(self.last_impression, int(block.impression_time.max()))


def _write_all(
    partial: dict[str, Path], recipe: AlibabaRecipe, progress: Progress | None
) -> dict[str, Any]:
    sizes = AlibabaSizes.of(recipe.scale)
    market, people = Market.open(recipe), People.gather(recipe)
    order = stream(recipe, "order of ads").permutation(sizes.ads)
    profiles = draw_profiles(recipe, people)
    for what, name, table in (
        ("ads", FILES[0], market.ads[order]),
        ("profiles", FILES[1], profiles),
    ):
        with partial[name].open("wb") as file:
            _append(file, table, header=True)
        if progress is not None:
            progress(what, len(table), len(table))

    bounds = people.blocks(_BLOCK_ROWS)
    base = _base_log_odds(recipe, market, people)
    ad_ids = market.ads["adgroup_id"].to_numpy()
    tally, done = _Tally(), 0
    with partial[FILES[2]].open("wb") as shown, partial[FILES[3]].open("wb") as behaved:
        for block in _blocks(recipe, market, people, len(bounds) - 1):
            clicked = block.luck < click_probability(base + block.gains)
            impressions = _impressions(block, ad_ids, clicked)
            _append(shown, impressions, header=done == 0)
            _append(behaved, _behaviours(block), header=done == 0)
            tally.add(block, int(clicked.sum()))
            done += len(block.user)
            if progress is not None:
                progress("behaviours", done, sizes.behaviours)
    return {
        "note": "Made up by tinprep in the layout of the Taobao display-ad log (tianchi data set "
        "56); no real person, ad or click is in it, and results on it say nothing about the real "
        "data.",
        "counts": {
            "impressions": tally.impressions,
            "clicks": tally.clicks,
            "users": sizes.users,
            "users_without_behaviours": sizes.silent,
            "users_without_impressions": sizes.bystanders,
            "profiles": sizes.profiles,
            "ads": sizes.ads,
            "behaviours": sum(tally.behaviours.values()),
            **{f"behaviours_{kind}": count for kind, count in tally.behaviours.items()},
        },
        "first_impression": tally.first_impression,
        "last_impression": tally.last_impression,
        "share_of_impressions_with_the_category_in_the_window": round(
            tally.known / tally.impressions, 6
        ),
        "law": LAW,
        "parameters": {
            "base_log_odds": base,
            **{
                name: value
                for name, value in asdict(recipe).items()
                if name not in ("scale", "seed", "categories", "new_run", "duplicates")
            },
        },
    }


def _base_log_odds(recipe: AlibabaRecipe, market: Market, people: People) -> float:
    """Fit the law's base to the first blocks, whose users are a random sample of all."""
    bounds = people.blocks(_BLOCK_ROWS)
    shown = np.cumsum(people.impressions)[bounds[1:] - 1]
    enough = 1 + int(np.searchsorted(shown, min(_FIT_IMPRESSIONS, int(shown[-1]))))
    gains = [block.gains for block in _blocks(recipe, market, people, enough)]
    return fit_base(np.concatenate(gains), recipe.click_rate)


def _blocks(recipe: AlibabaRecipe, market: Market, people: People, count: int) -> Iterator[Block]:
    """Draw the first `count` blocks, in order; few are held at once."""
    draw = partial(draw_block, recipe, market, people, people.blocks(_BLOCK_ROWS))
    return map_stream(draw, iter(range(count)), _WORKERS)


def _impressions(
    block: Block, ad_ids: np.ndarray[Any, Any], clicked: np.ndarray[Any, Any]
) -> pl.DataFrame:
    # The place on the page tells nothing of the click: it is a bit of the ad's number and the time.
    place = ((block.ad ^ block.impression_time) & 1).astype(np.uint8)
    click = clicked.astype(np.int8)
    return pl.DataFrame(
        {
            "user": block.impression_user,
            "time_stamp": block.impression_time,
            "adgroup_id": ad_ids[block.ad],
            "pid": _PIDS.gather(place),
            "nonclk": 1 - click,
            "clk": click,
        }
    )


def _behaviours(block: Block) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": block.user,
            "time_stamp": block.time,
            "btag": _BTAGS.gather(block.kind),
            "cate": block.category,
            "brand": block.brand,
        }
    )


def _append(file: IO[bytes], table: pl.DataFrame, *, header: bool) -> None:
    """Write rows as CSV; missing values become NULL for an ad, nothing for a profile."""
    missing = "NULL" if "adgroup_id" in table.columns else ""
    table.write_csv(
        file, include_header=header, quote_style="never", null_value=missing, float_scientific=False
    )
