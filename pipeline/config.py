"""What one preparation is asked to do: every default with its source."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas.errors import UsageError
from schemas.machine import usable_cores
from schemas.manifest import SPLITS
from schemas.shards import LAYOUTS, MOST_BEHAVIOURS, MOST_BINS

SPLIT_RULES = ("tin", "din")
TIES = ("file", "hash")
DUPLICATES = ("keep", "drop")
BTAGS = ("buy", "cart", "fav", "pv")
# These change how the work is done, never a row.
_HOW = (
    *("raw", "out", "buckets", "threads", "memory", "force", "mirrors"),
    *("engine", "master", "spark_conf"),
)
# These say nothing of the data set; some may be secret.
_UNSAID = ("force", "mirrors", "engine", "master", "spark_conf")
ENGINES = ("local", "spark")

WITHOUT_VALID = ("train", "test")


def without_how(settings: dict[str, Any]) -> dict[str, Any]:
    """Of settings by name, those that change which rows there are, or their shape."""
    return {name: value for name, value in settings.items() if name not in _HOW}


@dataclass(frozen=True)
class Config:
    """What every preparation has to be told.

    Attributes:
        out: folder of the data set.
        raw: folder with the raw files; nothing is downloaded. None: download what is missing.
        bins: equal-frequency interval bins (paper 4.4: 10).
        max_len: behaviours kept of a history, the latest (50: as on Alibaba; ours for Amazon).
        layout: `padded` or `ragged` lists.
        session_gap: seconds without a behaviour that end a session.
        seed: of whatever is drawn.
        buckets: of users; None to choose by size and memory.
        threads: buckets worked on at once; None for the usable cores. On Spark a task has one
            core, and Spark decides how many run at once.
        memory: bytes to stay within.
        max_rejected: share of raw lines that may be refused.
        max_missing: share that a join may lack of what it looks up; None for any.
        duplicates: `keep` what a file holds more than once, or `drop` all but one.
        force: replace an earlier data set.
        engine: `local`, or `spark` for a cluster.
        master: Spark's address, e.g. spark://HOST:7077; None for what Spark's configuration says.
        spark_conf: settings of Spark, each NAME=VALUE.
    """

    out: Path
    raw: Path | None = None
    bins: int = 10
    max_len: int = 50
    layout: str = "padded"
    session_gap: int = 86_400
    seed: int = 1234
    buckets: int | None = None
    threads: int | None = None
    memory: int = 2 << 30
    max_rejected: float = 0.001
    max_missing: float | None = None
    duplicates: str = "keep"
    force: bool = False
    engine: str = "local"
    master: str | None = None
    spark_conf: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("bins", 1, MOST_BINS),
            ("max_len", 1, MOST_BEHAVIOURS),
            ("session_gap", 0, 1 << 40),
            ("seed", 0, (1 << 63) - 1),
            ("buckets", 1, 4_096),
            ("threads", 1, 1_024),
        ):
            _within(self, name, low, high)
        _among(self, "layout", LAYOUTS)
        _among(self, "duplicates", DUPLICATES)
        _among(self, "engine", ENGINES)
        if self.engine == "local" and (self.master or self.spark_conf):
            option = "master" if self.master else "spark_conf"
            _refuse(option, "not without --engine spark", getattr(self, option))
        for setting in self.spark_conf:
            if "=" not in setting:
                _refuse("spark_conf", "NAME=VALUE", setting)
        if not 0 <= self.max_rejected <= 1:
            _refuse("max_rejected", "0% to 100%", self.max_rejected)
        if self.max_missing is not None and not 0 <= self.max_missing <= 1:
            _refuse("max_missing", "0% to 100%", self.max_missing)

    @property
    def workers(self) -> int:
        """Buckets worked on at once."""
        return self.threads or usable_cores()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the settings make."""
        return SPLITS

    @property
    def drops(self) -> bool:
        """Whether all but one are left out of what a file holds more than once."""
        return self.duplicates == "drop"

    def resolved(self) -> dict[str, Any]:
        """Every setting as it goes into the manifest."""
        values = {k: v for k, v in asdict(self).items() if k not in _UNSAID}
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}

    def rows_depend_on(self) -> dict[str, Any]:
        """The settings that change which rows there are, or their shape."""
        return without_how(self.resolved())


@dataclass(frozen=True)
class AmazonConfig(Config):
    """Amazon 2014, one 5-core category.

    A session ends after a day, as Amazon's times are days; none is published.

    Attributes:
        category: name of the category, as in the files' names (paper A.1: Electronics).
        negatives: random negatives for each positive (paper A.1, released code: 1).
        split: `tin` (train, valid, test) or `din` (no valid).
        ties: order of behaviours of one second: the `file`'s, or a seeded `hash`.
        meta: whether there is a meta file; without it every category is unknown.
        parity: the released preprocessing's negatives and whole histories.
        mirrors: addresses tried before the published ones; none with `raw`.
    """

    category: str = "Electronics"
    negatives: int = 1
    split: str = "tin"
    ties: str = "file"
    meta: bool = True
    parity: bool = False
    mirrors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "negatives", 1, 1_000)
        _among(self, "split", SPLIT_RULES)
        _among(self, "ties", TIES)
        if not self.category or any(c in self.category for c in "/\\\0"):
            _refuse("category", "a name as in reviews_<Category>_5.json.gz", self.category)
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

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the settings make."""
        return SPLITS if self.split == "tin" else WITHOUT_VALID

    @property
    def least_reviews(self) -> int:
        """Reviews that a user needs for a train row: the first is no target, each split has one."""
        return 1 + len(self.splits)

    def resolved(self) -> dict[str, Any]:
        """Every setting as it goes into the manifest; parity's layout is ragged."""
        config = replace(self, layout="ragged", parity=False) if self.parity else self
        return {**Config.resolved(config), "parity": self.parity}


@dataclass(frozen=True)
class AlibabaConfig(Config):
    """The Taobao display-ad log (tianchi 56).

    Attributes:
        split_at: impressions before this second are train, the others test; None: by day, the
            last day test, the one before it valid.
        timezone: of the days (the log's: Beijing's).
        behaviors: which kinds of behaviour count (DSIN: page views).
        behaviors_since: `default`, from the start of the day three days before the first
            impression's (which takes in DSIN's fixed 1493769600); `all`; or a second.
        sessions: `MxK`, DSIN's sessions and behaviours of each (its released code: 5x10), or
            `none` for no such columns.
        min_count: occurrences that a value needs to get an id of its own.
        user_fraction: share of the profiles' users, chosen as DSIN does; 1 for everybody.
    """

    session_gap: int = 1_800
    memory: int = 6 << 30
    split_at: int | None = None
    timezone: str = "Asia/Shanghai"
    behaviors: tuple[str, ...] = ("pv",)
    behaviors_since: str = "default"
    sessions: str = "5x10"
    min_count: int = 1
    user_fraction: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "min_count", 1, 1 << 40)
        _within(self, "split_at", 0, 1 << 40)
        if not 0 < self.user_fraction <= 1:
            _refuse("user_fraction", "more than 0, at most 1", self.user_fraction)
        if not self.behaviors or set(self.behaviors) - set(BTAGS):
            _refuse("behaviors", f"some of {','.join(BTAGS)}", ",".join(self.behaviors))
        since = self.behaviors_since
        if since not in ("default", "all") and not re.fullmatch(r"[0-9]{1,12}", since):
            _refuse("behaviors_since", "`default`, `all` or unix seconds", since)
        if self.sessions != "none" and not re.fullmatch(
            r"[1-9][0-9]{0,2}x[1-9][0-9]{0,2}", self.sessions
        ):
            _refuse("sessions", "sessions x behaviours, e.g. 5x10, or none", self.sessions)
        most, length = self.session_shape or (1, 1)
        if most * length > MOST_BEHAVIOURS:
            _refuse("sessions", f"at most {MOST_BEHAVIOURS} behaviours in all", self.sessions)
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            _refuse("timezone", "a name such as Asia/Shanghai", self.timezone)

    @property
    def session_shape(self) -> tuple[int, int] | None:
        """(M, K) of `sessions`, None for no such columns."""
        if self.sessions == "none":
            return None
        most, length = self.sessions.split("x")
        return int(most), int(length)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the settings make."""
        return SPLITS if self.split_at is None else WITHOUT_VALID

    def resolved(self) -> dict[str, Any]:
        """Every setting as it goes into the manifest."""
        return {**super().resolved(), "behaviors": sorted(set(self.behaviors))}


def _within(config: Config, name: str, low: int, high: int) -> None:
    value = getattr(config, name)
    if value is not None and not low <= value <= high:
        _refuse(name, f"{low} to {high}", value)


def _among(config: Config, name: str, choices: tuple[str, ...]) -> None:
    if getattr(config, name) not in choices:
        _refuse(name, " or ".join(choices), getattr(config, name))


def _refuse(name: str, expected: str, got: object) -> None:
    option = "--" + name.replace("_", "-")
    raise UsageError(
        f"{option} cannot have this value.", where=option, expected=expected, got=str(got)
    )
