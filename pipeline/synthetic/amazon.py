"""Synthetic Amazon data in the raw 2014 layout, with a planted semantic-temporal correlation.

Two files as the real ones are, `reviews_<Category>_5.json.gz` (JSON lines by asin) and
`meta_<Category>.json.gz` (Python-literal lines), of the real size at scale 1, and beside them
`SYNTHETIC.json`, whose presence says that the folder's data is made up, and how.

The planted law is in `law`, the recipe in `recipe`, the items and their popularity in `shelf`, the
lines in `lines`, their words in `text`. What the files unpack to is a pure function of the recipe
and the category's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib

from pipeline.synthetic.folder import MARKER, check_sizes, other_data, read_marker, writing
from pipeline.synthetic.law import LAW, Draw, Progress, draw_reviews
from pipeline.synthetic.lines import Lines
from pipeline.synthetic.recipe import AmazonRecipe, AmazonSizes
from schemas.errors import UsageError
from schemas.replacing import require_folder

__all__ = ["MARKER", "AmazonRecipe", "AmazonSizes", "draw_reviews", "synthesize_amazon"]

# Counts changes of the output: data of another generation is not the same data.
GENERATION = 1
_GZIP = 31  # zlib's number for a gzip header; it holds neither a name nor a time


def synthesize_amazon(
    out: Path,
    recipe: AmazonRecipe,
    *,
    category: str = "Electronics",
    progress: Progress | None = None,
) -> None:
    """Write the synthetic reviews and meta of `category` to the folder `out`.

    All files are written under temporary names and renamed at the end, the marker first, so that
    synthetic data never lies under a final name without it. The same call again does nothing when
    its files are complete.

    Args:
        out: the folder, made when absent; nothing in it that this call did not make is replaced.
        category: names the files and the root of the category paths.
        progress: called with what is being made (`draw`, `reviews`, `meta`), the rows made, and
            how many there will be.

    Raises:
        UsageError: the category cannot name a file, or `out` holds other data.
        EnvironmentFault: the disk refused.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,99}", category):
        raise UsageError(
            "The category cannot name a file.",
            where="category",
            expected="letters, digits and underscores, e.g. Musical_Instruments",
            got=category,
        )
    require_folder("The folder of the synthetic data", out)
    finals = {kind: out / name for kind, name in _file_names(category).items()}
    if _complete(out, recipe, category, finals):
        return
    with writing(out, [path.name for path in finals.values()]) as files:
        partial = {kind: files[path.name] for kind, path in finals.items()}
        draw = draw_reviews(recipe, category, progress)
        lines = Lines(recipe, category, draw)
        _write(partial["reviews"], lines.reviews(), "reviews", len(draw.item), progress)
        _write(partial["meta"], lines.meta(), "meta", lines.sizes.meta_lines, progress)
        sizes = {finals[kind].name: partial[kind].stat().st_size for kind in ("reviews", "meta")}
        marker = {**_identity(recipe, category), **_description(recipe, draw), "files": sizes}
        partial["marker"].write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def _file_names(category: str) -> dict[str, str]:
    return {
        "marker": MARKER,
        "reviews": f"reviews_{category}_5.json.gz",
        "meta": f"meta_{category}.json.gz",
    }


def _identity(recipe: AmazonRecipe, category: str) -> dict[str, Any]:
    """Say what makes two sets of files the same data."""
    return {
        "synthetic": True,
        "made_by": "tinprep",
        "dataset": "amazon",
        "generation": GENERATION,
        "category": category,
        "recipe": asdict(recipe),
    }


def _description(recipe: AmazonRecipe, draw: Draw) -> dict[str, Any]:
    targets = len(draw.item) - len(draw.first) + 1
    return {
        "note": "Made up by tinprep in the layout of the Amazon 2014 reviews; no real person, "
        "item or review is in it, and results on it say nothing about the real data.",
        "counts": asdict(AmazonSizes.of(recipe.scale)),
        "longest_user": int(np.diff(draw.first).max()),
        "fewest_reviews_of_an_item": int(np.bincount(draw.item).min()),
        "share_of_targets_that_repeat_a_category": round(
            int((draw.copied > 0).sum()) / max(targets, 1), 6
        ),
        "law": LAW,
    }


def _complete(out: Path, recipe: AmazonRecipe, category: str, finals: dict[str, Path]) -> bool:
    """Tell whether `out` holds just this data already; refuse a folder that holds any other."""
    marker = finals["marker"]
    files = sorted([*out.glob("reviews_*.json.gz"), *out.glob("meta_*.json.gz")])
    found = read_marker(marker, files)
    if found is None:
        return False
    said, sizes = found
    same = {key: said.get(key) for key in _identity(recipe, category)}
    if same != _identity(recipe, category):
        differs = next(k for k, v in _identity(recipe, category).items() if same[k] != v)
        raise other_data(
            marker, "the same recipe and category", f"another {differs}: {same[differs]}"
        )
    check_sizes(files, sizes)
    return finals["reviews"].exists() and finals["meta"].exists()


def _write(
    path: Path, blocks: Iterator[list[str]], what: str, total: int, progress: Progress | None
) -> None:
    """Compress blocks of lines into a file and report each block."""
    done = 0
    zipper = isal_zlib.compressobj(level=1, wbits=_GZIP)
    with path.open("wb") as file:
        for block in blocks:
            file.write(zipper.compress("".join(block).encode("ascii")))
            done += len(block)
            if progress is not None:
                progress(what, done, total)
        file.write(zipper.flush())
