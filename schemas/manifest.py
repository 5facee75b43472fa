"""`manifest.json`: what a data set holds, how it was made, and the checksum of every shard.

It is written last, so a folder with a manifest is a finished data set.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from schemas.errors import ContractError, InputError
from schemas.shape import decode, misfit
from schemas.shards import LAYOUTS, MOST_BEHAVIOURS, MOST_BINS

FORMAT = 1
NAME = "manifest.json"
SPLITS = ("train", "valid", "test")
PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_ID = 2
REPEATED_ITEM = "meta line of an item that had one"
REPEATED_AD = "ad_feature line of an ad that had one"
REPEATED_PROFILE = "user_profile line of a user that had one"
REPEATED = frozenset({REPEATED_ITEM, REPEATED_AD, REPEATED_PROFILE})
"""Lines that are counted as rejected and are in no table: what they say is known."""
WITHOUT_PROFILE = "impressions of users without a profile"
WITHOUT_META = "items without a meta line"
WITHOUT_CATEGORY = "items whose meta line has no category"
OF_NOBODY = "behaviours of users without impressions"
_OPTIONAL: dict[str, Callable[[], Any]] = {
    "counts": dict,
    "numbers": dict,
    "tables": list,
    "digests": dict,
    "shares": dict,
}
"""Keys that a manifest may lack, and what makes their empty value."""
_REFUSED = (
    "reviews",
    "meta",
    "targets",
    "raw_sample",
    "behavior_log",
    "ad_feature",
    "user_profile",
)
_UNLISTED = {
    f"{name}.parquet" for name in ("items", "ads", "profiles", *(f"rejected/{n}" for n in _REFUSED))
}
"""What a data set may have beside shards and vocabularies whose manifest does not list `tables`."""
_IDS = 1 << 31  # of 32 bits
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_OF_A_DATA_SET = re.compile(r"((train|valid|test|vocabulary|rejected)/)?[^/\\\0]+\.parquet")


@dataclass(frozen=True)
class InputFile:
    """A raw file as it was read."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Bins:
    """Equal-frequency bins of the interval from behaviour to target.

    `edges_s` holds `count - 1` intervals in seconds, non-decreasing; bin k is (edge k-1, edge k].
    `train_counts` holds how many behaviours stored in the train split, those of negatives' rows
    too, fall in bins 1..count.
    """

    count: int
    edges_s: list[int]
    train_counts: list[int]


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of the data set; `path` is relative to the manifest, with '/'."""

    path: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Step:
    """What a step took. `peak_rss_mb` is the process's peak so far, at the end of the step."""

    name: str
    seconds: float
    rows_in: int
    rows_out: int
    peak_rss_mb: int


@dataclass(frozen=True)
class Share:
    """So many of a whole."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.count / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.count:,} of {self.of:,} ({self.share:.1%})"


def repeated(table: str, dropped: bool) -> str:
    """What the share of a table's records is called that repeat another one."""
    return f"repeated {table}{', dropped' if dropped else ''}"


def in_history(split: str, label: int) -> str:
    """What the share of a split's rows is called whose target stands in their own history."""
    return f"{split} {('negatives', 'positives')[label]} in own history"


def not_in_train(split: str, field: str) -> str:
    """What the share of a split's distinct target ids is called that no train row holds."""
    return f"{split} {field} ids not in train"


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`; see the module's text.

    `counts` holds what else is worth knowing, e.g. rows of users without a profile; `shares` the
    same as parts of a whole, e.g. how many reviews repeat another one; `numbers` says of each float
    column how it was standardised; `tables` lists the files beside the shards: vocabularies, items
    or ads and profiles, what was refused; `digests` say what ids, bins, numbers and histories mean,
    see `schemas.digests`. They are empty where there is nothing to say, or where an older version
    did not say it.
    """

    format: int
    dataset: str
    synthetic: bool
    version: str
    config: dict[str, Any]
    inputs: list[InputFile]
    rows: dict[str, int]
    fields: list[str]
    vocabulary: dict[str, int]
    layout: str
    max_len: int
    bins: Bins
    history_lengths: dict[str, list[int]]
    rejected: dict[str, int]
    notes: list[str]
    shards: list[DataFile]
    steps: list[Step] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: list[DataFile] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest as the text of its file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @property
    def targets(self) -> int:
        """Rows over all splits."""
        return sum(self.rows.values())

    def shard_paths(self, out: Path, split: str) -> list[Path]:
        """The shard files of one split, in order."""
        return [out / s.path for s in self.shards if PurePosixPath(s.path).parts[0] == split]


def load(out: Path) -> Manifest:
    """Read the manifest of the data set in the folder `out`.

    Raises:
        InputError: there is no finished data set, or its manifest is no readable file.
        ContractError: the manifest is not one, or is of another format.
    """
    path = out / NAME
    try:
        raw = decode(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        above = out.absolute().parent
        within = out.name in SPLITS and (above / NAME).exists()
        raise InputError(
            "There is no data set here.",
            where=path,
            expected="a finished data set (its manifest is written last)",
            got="a split of one" if within else "no such file",
            do=f"give {above}, and perhaps `--split {out.name}`"
            if within
            else "make one, e.g. `tinprep amazon --out DIR`, or run the interrupted command again",
        ) from None
    except OSError as error:
        raise InputError(
            "The manifest cannot be read.",
            where=path,
            expected="a file",
            got=str(error.strerror),
            do="give the folder of a finished data set",
        ) from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise ContractError(
            "The manifest cannot be read.", where=path, expected="JSON", got=str(error)
        ) from None
    return parse(raw, path)


def named(text: bytes) -> set[str] | None:
    """The files that a manifest of tinprep names, of whatever format; None for anything else.

    Args:
        text: what the file called `manifest.json` holds: other programs have one, too.
    """
    try:
        raw = decode(text.decode())
    except ValueError:
        return None
    if not _is_ours(raw):
        return None
    listed = [one for value in raw.values() if isinstance(value, list) for one in value]
    names = {str(one["path"]) for one in listed if isinstance(one, dict) and "path" in one}
    if "tables" not in raw:
        names |= {f"vocabulary/{name}.parquet" for name in raw["vocabulary"]} | _UNLISTED
    return {name for name in names if _OF_A_DATA_SET.fullmatch(name)} | {NAME}


def _is_ours(raw: object) -> bool:
    """Whether decoded JSON has the keys of every format's manifest."""
    wanted = {"dataset": str, "version": str, "config": dict, "vocabulary": dict, "shards": list}
    return isinstance(raw, dict) and all(isinstance(raw.get(k), of) for k, of in wanted.items())


def _other_format(made: dict[str, Any], path: Path) -> ContractError:
    """What to do about a manifest that this version cannot read."""
    got = made.get("format", "none")
    if isinstance(got, int) and got > FORMAT:
        what = "The data set was made by a newer tinprep."
        do = f"install tinprep {made.get('version', '')} or newer to read it".replace("  ", " ")
    else:
        what = "The data set was made by an older tinprep."
        source, _, category = made["dataset"].partition("-")
        named = f"{source} --category {category}" if category else source
        do = (
            f"make it again with the options it was made with, and --force: "
            f"`tinprep {named} --out {path.parent} --force`"
        )
    return ContractError(what, where=path, expected=f"format {FORMAT}", got=f"format {got}", do=do)


def parse(raw: object, path: Path) -> Manifest:
    """Check and build a manifest from decoded JSON; `path` is for messages."""
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        if isinstance(raw, dict) and _is_ours(raw):
            raise _other_format(raw, path)
        raise ContractError(
            "This is no manifest of tinprep's.",
            where=path,
            expected="what tinprep writes last of a data set",
            got="something else of this name",
            do="give the folder of a data set",
        )
    wanted = [f.name for f in fields(Manifest)]
    missing = [name for name in wanted if name not in raw and name not in _OPTIONAL]
    if missing:
        raise ContractError(
            "The manifest lacks keys.", where=path, expected=", ".join(missing), got="absent"
        )
    held = {name: raw[name] if name in raw else _OPTIONAL[name]() for name in wanted}
    if found := misfit(held, Manifest):
        at, expected, got = found
        raise ContractError(
            f"The manifest has an entry of another shape, at {at.lstrip('.')}.",
            where=path,
            expected=expected,
            got=got,
        )
    manifest = Manifest(
        **{
            **held,
            "inputs": [InputFile(**x) for x in held["inputs"]],
            "bins": Bins(**held["bins"]),
            "shards": [DataFile(**x) for x in held["shards"]],
            "steps": [Step(**x) for x in held["steps"]],
            "tables": [DataFile(**x) for x in held["tables"]],
            "shares": {name: Share(**x) for name, x in held["shares"].items()},
        }
    )
    bins = manifest.bins
    if (len(bins.edges_s), len(bins.train_counts)) != (bins.count - 1, bins.count):
        raise ContractError(
            "The manifest's bins do not agree.",
            where=path,
            expected=f"bins.count - 1 edges_s and bins.count train_counts, {bins.count} bins",
            got=f"{len(bins.edges_s)} edges_s and {len(bins.train_counts)} train_counts",
        )
    _check_sizes(manifest, path)
    _check_names(manifest, path)
    return manifest


def require(path: Path, holds: bool, key: str, expected: str, got: object) -> None:
    """Hold a key of the manifest to what it can be; `path` is for the message.

    Raises:
        ContractError: it does not hold.
    """
    if not holds:
        raise ContractError(
            f"The manifest declares what cannot be: {key}.",
            where=path,
            expected=expected,
            got=str(got)[:100],
            do="make the data set again",
        )


def _check_sizes(made: Manifest, path: Path) -> None:
    """Hold what a manifest declares to what shards can hold, before anybody loops over it.

    Raises:
        ContractError: it is out of bounds.
    """
    want = partial(require, path)
    want(made.layout in LAYOUTS, "layout", " or ".join(LAYOUTS), ascii(made.layout))
    for key, found, most in (
        ("max_len", made.max_len, MOST_BEHAVIOURS),
        ("bins.count", made.bins.count, MOST_BINS),
    ):
        want(1 <= found <= most, key, f"1 to {most:,}", found)
    for name, size in made.vocabulary.items():
        want(0 <= size <= _IDS, f"vocabulary.{name}", f"at most {_IDS:,}", size)
    for split, rows in made.history_lengths.items():
        holds = len(rows) == made.max_len + 1 and min(rows) >= 0
        expected = f"rows of each length from 0 to max_len, {made.max_len}"
        want(holds, f"history_lengths.{split}", expected, f"{len(rows):,} numbers")
    counted = {"rows": made.rows, "counts": made.counts, "rejected": made.rejected}
    counted |= {"bins": {"train_counts": min(made.bins.train_counts)}}
    counted |= {
        key: {file.path: file.rows for file in files}
        for key, files in (("shards", made.shards), ("tables", made.tables))
    }
    for key, numbers in counted.items():
        for name, number in numbers.items():
            want(number >= 0, f"{key}.{name}"[:200], "0 or more", number)


def _check_names(manifest: Manifest, path: Path) -> None:
    """Refuse names that, as those of files, could lead out of the data set's folder.

    Raises:
        ContractError: there is one.
    """
    for name in (*manifest.fields, *manifest.vocabulary):
        if not _PLAIN_NAME.fullmatch(name):
            raise ContractError(
                "A field has a name that no file can have.",
                where=path,
                expected="letters, digits and underscores",
                got=f"{name!a}"[:100],
            )
    files = (*manifest.shards, *manifest.tables)
    twice = [name for name, times in Counter(file.path for file in files).items() if times > 1]
    if twice:
        raise ContractError(
            "The manifest lists a file twice.",
            where=path,
            expected="each file once",
            got=f"{twice[0]!a}"[:200],
        )
    folder = path.parent.resolve()
    for file in files:
        pure = PurePosixPath(file.path)
        stays = bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts
        stays = stays and file.path.isprintable() and "\\" not in file.path
        # Links count as what they lead to.
        if not (stays and _resolved(folder / pure, path).is_relative_to(folder)):
            raise ContractError(
                "A file's path leaves the data set.",
                where=path,
                expected="a path below the manifest's folder, also where links lead",
                got=f"{file.path!a}"[:200],
            )


def _resolved(file: Path, path: Path) -> Path:
    """Where `file` lies once its links are followed.

    Raises:
        ContractError: it cannot be told.
    """
    try:
        return file.resolve()
    except (OSError, RuntimeError) as error:  # a name that is too long; links in a circle
        raise ContractError(
            "A file's path leads nowhere.", where=path, expected="a file", got=str(error)[:200]
        ) from None
