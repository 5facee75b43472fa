"""Amazon (5-core): what can be asked, how the raw files are had, and their description.

No library is loaded but for the description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le, Lt

from pipeline.config import Config
from pipeline.presets.described import Asked, of_files, source_of
from pipeline.readers.raw_files import RENAME, RawFile, missing, near, place
from schemas.errors import InputError, UsageError
from schemas.expected import AMAZON_COUNTS, AMAZON_FILES
from schemas.options import option, refuse

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from pipeline.description import Description
    from pipeline.description.toml import Source

MIRRORS = (
    "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/",
    "https://mcauleylab.ucsd.edu/public_datasets/data/amazon/categoryFiles/",
)
_KEYS_SHOWN = 20

# Memory that is held all along for each review: the released stream draws all at once.
_PARITY_BYTES_A_LINE = 220


@dataclass(frozen=True)
class AmazonConfig(Config):
    """What can be asked of Amazon 2014, of one 5-core category."""

    out: Path = option(Path("data/amazon"), "Folder of the data set.")
    category: str = option(
        "Electronics", "5-core category, as in the files' names; the paper's by default."
    )
    negatives: Annotated[int, Ge(1), Le(1_000)] = option(
        1, "Random negatives for each positive; the paper's A.1 takes 1."
    )
    seed: Annotated[int, Ge(0), Lt(1 << 63)] = option(
        1234, "Of negatives and hashed ties; as released."
    )
    split: Literal["tin", "din"] = option(
        "tin", "tin: train, valid, test; din: no valid, as DIN's scripts."
    )
    ties: Literal["file", "hash"] = option(
        "file", "Order within one day: the file's, as released, or a seeded hash."
    )
    meta: bool = option(True, "Without meta every category is unknown.", flag="--meta/--no-meta")
    parity: bool = option(
        False, "Rows as the released code makes them: its negatives, all L.", flag="--parity"
    )
    mirrors: tuple[str, ...] = option(
        (), "Address tried before the published ones; may be repeated.", flag="--mirror", last=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.category or any(c in self.category for c in "/\\\0"):
            refuse("category", "a name as in reviews_<Category>_5.json.gz", self.category)
        if self.raw is not None and self.mirrors:
            raise UsageError(
                "--raw and --mirror are two ways to have the raw files.",
                where="--mirror",
                expected="nothing to be downloaded with --raw",
                got=f"--raw {self.raw}",
                do="give one of them (--demo brings a --raw of its own)",
            )
        fixed = {
            "negatives": 1,
            "split": "tin",
            "ties": "file",
            "duplicates": "keep",
            "seed": AmazonConfig.seed,
            "max_len": AmazonConfig.max_len,
        }
        given = {name: getattr(self, name) for name in fixed}
        if self.parity and given != fixed:
            expected, got = (
                " ".join(f"--{name.replace('_', '-')} {value}" for name, value in what.items())
                for what in ({n: fixed[n] for n in fixed if n != "max_len"}, given)
            )
            raise UsageError(
                "--parity is what the released code makes, so it fixes other options.",
                where="--parity",
                expected=f"{expected}, and whole histories, so no --max-len",
                got=got,
            )

    def resolved(self) -> dict[str, Any]:
        """Every setting as it goes into the manifest; parity's layout is ragged."""
        config = replace(self, layout="ragged", parity=False) if self.parity else self
        return {**Config.resolved(config), "parity": self.parity}

    @property
    def raw_folder(self) -> Path:
        """Where the raw files are, or will be downloaded to."""
        return self.raw or Path("data/raw/amazon")

    @property
    def keeps(self) -> str | None:
        """As `Config.keeps`: the preset, with what is asked; None where the language lacks it."""
        if not self.keep_events or self.parity or not self.meta:
            return None
        from pipeline.description.toml import written

        keys = self._source.keys
        reviews, meta = (found.name for f in self.files if (found := place(f, self.raw_folder)))
        keys["tables"]["reviews"]["files"], keys["lookups"]["item"]["files"] = reviews, meta
        return written(keys)

    @property
    def _source(self) -> Source:
        """The preset of the language, with what is asked."""
        names = ("bins", "max_len", "layout", "negatives", "session_gap", "duplicates", "seed")
        source, _ = source_of("amazon-2014")
        source.keys["name"] = f"amazon-{self.category}"
        Asked(**{name: getattr(self, name) for name in names}).put_into(source.keys)
        source.keys["tables"]["reviews"]["order"] = self.ties
        source.keys["target"]["split"]["valid"] = self.split == "tin"
        return source

    @property
    def files(self) -> list[RawFile]:
        """The raw files, reviews first."""
        names = [f"reviews_{self.category}_5.json.gz"]
        if self.meta:
            names.append(f"meta_{self.category}.json.gz")
        return [RawFile(name, AMAZON_FILES.get(name)) for name in names]

    def obtain(self) -> list[Path]:
        """Paths of the raw files; what is missing is downloaded unless `raw` names the folder."""
        folder, wanted = self.raw_folder, self.files
        if self.raw is None:
            # Imported where it is wanted, as HTTP libraries are slow to load.
            from pipeline.readers.fetch import fetch

            offline = f"tinprep amazon --category {self.category} --raw {folder} --out {self.out}"
            return fetch(wanted, folder, (*self.mirrors, *MIRRORS), offline_command=offline)
        if not folder.is_dir():
            raise InputError(
                "The folder of raw files does not exist.",
                where=folder,
                expected="a folder with " + " and ".join(f.name for f in wanted),
                got="no such folder",
                do="give another --raw, or leave it out to download the files",
            )
        if absent := missing(wanted, folder):
            only_meta = absent == [f"meta_{self.category}.json.gz"]
            there = near(absent, folder)
            raise InputError(
                "A raw file is missing.",
                where=folder,
                expected=", ".join(absent) + " (or .json, .json.zst)",
                got="no such file" + there,
                do=(f"{RENAME}; else " if there else "")
                + "put it there, or leave --raw out to download what is missing"
                + (", or give --no-meta for unknown categories" if only_meta else ""),
            )
        return [path for file in wanted if (path := place(file, folder))]

    def absent(self) -> tuple[str, list[Path] | None]:
        """As `Config.absent`; where meta alone is missing, reviews tell enough."""
        folder, wanted = self.raw_folder, self.files
        if self.raw is not None:
            self.obtain()
        there = [place(file, folder) for file in wanted]
        if there[0] is None:
            sizes = [
                f"{f.published.bytes / 1e6:,.0f} MB" if f.published else "size unknown"
                for f in wanted
            ]
            told = [f"{f.name} ({size})" for f, size in zip(wanted, sizes, strict=True)]
            return f"would download to {folder}: {', '.join(told)}", None
        absent = missing(wanted, folder)
        return f"would download {', '.join(absent)}" if absent else "", [
            path for path in there if path
        ]

    def description(self, paths: list[Path]) -> Description:
        """As `Config.description`."""
        from pipeline.description.split import ByOrder
        from pipeline.steps.negatives import released_stream

        reviews, *meta = paths
        files = {
            ("tables", "reviews"): [reviews],
            ("lookups", "item"): meta or [self.raw_folder / f"meta_{self.category}.json.gz"],
        }
        found = of_files(self._source, files)
        (item,), split = found.lookups, found.split
        assert isinstance(split, ByOrder)
        hint = "--split din makes no valid, and wants 3 reviews of a user"
        found = replace(
            found,
            lookups=(item if meta else replace(item, path=None),),
            split=replace(split, hint=None if self.parity else hint),
            published=partial(_published, self.category, self.meta),
        )
        if not self.parity:
            return found
        assert found.negatives is not None
        return replace(
            found,
            layout="ragged",
            histories={n: replace(one, max_len=None) for n, one in found.histories.items()},
            negatives=replace(found.negatives, stream=released_stream),
            fixed_bytes_a_line=_PARITY_BYTES_A_LINE,
        )


def require_categories(path: Path, lines: int, first: pl.DataFrame, items: int) -> None:
    """Refuse a meta file without lines, or one in which no reviewed item has a category.

    Raises:
        InputError: it is one.
    """
    from pipeline.readers.amazon_parse import meta_keys

    if not lines or (first.is_empty() and not meta_keys(path)):  # it may hold empty lines
        raise InputError(
            "The file holds no items.",
            where=path,
            expected="a line an item",
            got=f"{lines:,} lines without one",
            do="download it again, or give --no-meta",
        )
    if first.height and first["category"].null_count() == first.height:
        keys = ", ".join(meta_keys(path)[:_KEYS_SHOWN])
        raise InputError(
            "No item has a category.",
            where=path,
            expected="lines with `categories`, as in the 2014 release, or `category`, as in that "
            "of 2018",
            got=f"{first.height:,} reviewed items without any; the keys of the first line are "
            f"{keys}",
            do="give another meta file, or --no-meta for unknown categories",
        )


def _published(
    category: str, meta: bool, read: Mapping[str, int], words: Mapping[str, pa.Table]
) -> list[str]:
    """Where the counts of real files differ from the published ones."""
    known = AMAZON_COUNTS.get(category)
    if known is None or not meta:
        return []
    got = {name: len(table) for name, table in words.items()}
    want = {"user": known.users, "item": known.items, "category": known.categories}
    return [] if got == want else [f"Counts differ from the published {want}: {got}."]
