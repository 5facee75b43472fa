"""The Taobao display-ad log (tianchi 56): what can be asked, its raw files, its description.

No library is loaded but for the description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le

from pipeline.config import Config
from pipeline.presets.described import Asked, of_files, source_of
from pipeline.readers.raw_files import RENAME, find, near
from schemas.bounds import HISTORY, MOST_BEHAVIOURS
from schemas.checked import is_zone
from schemas.errors import EnvironmentFault, InputError
from schemas.expected import ALIBABA_COUNTS
from schemas.options import BYTES, COMMAS, option, refuse

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl
    import pyarrow as pa

    from pipeline.description import Description
    from pipeline.description.toml import Source

BTAGS = ("buy", "cart", "fav", "pv")
NAMES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv")
KAGGLE = "pavansanagapati/ad-displayclick-data-on-taobaocom"
HOME = "https://tianchi.aliyun.com/dataset/56"
# DSIN's sample of users: the seed in its released preprocessing.
_SAMPLE_SEED = 1024
# What each of `NAMES` is of.
_OWNERS = (
    ("tables", "impressions"),
    ("lookups", "ad"),
    ("lookups", "user"),
    ("tables", "behaviours"),
)


@dataclass(frozen=True)
class AlibabaConfig(Config):
    """What can be asked of the Taobao display-ad log (tianchi 56)."""

    out: Path = option(Path("data/alibaba"), "Folder of the data set.")
    raw: Path | None = option(
        None,
        "Folder with the four CSV files: text, gzip or zstd. Default: data/raw/alibaba, or "
        "kagglehub where it is installed.",
    )
    session_gap: int = option(1_800, "Seconds of silence that end a session, as in DSIN.")
    memory: int = option(
        6 << 30,
        "To stay within, on Spark: of a task; too little is refused.",
        written=BYTES,
        last=True,
    )
    split_at: Annotated[int, Ge(0), Le(1 << 40)] | None = option(
        None,
        "Train before this second, test from it on, no valid; DSIN's is 1494633600, which is 08:00 "
        "in Beijing.",
    )
    timezone: str = option("Asia/Shanghai", "Of the days; the log is Beijing's.")
    behaviors: tuple[str, ...] = option(
        ("pv",), "Kinds that count, of pv,cart,fav,buy; DSIN takes page views.", written=COMMAS
    )
    behaviors_since: str = option(
        "default",
        "From when behaviours count: unix seconds, all, or default: the start of the day three "
        "days before the first impression's, which takes in DSIN's fixed 1493769600.",
    )
    sessions: str = option(
        "5x10", "Sessions x behaviours for DSIN, as it takes them; none for none."
    )
    min_count: Annotated[int, Ge(1), Le(1 << 40)] = option(
        1, "Rarer values are unknown; 1 gives every value an id."
    )
    user_fraction: Annotated[float, Gt(0), Le(1)] = option(
        1.0, "Below 1: DSIN's sample of the profiles' users; it takes 0.25."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.behaviors or set(self.behaviors) - set(BTAGS):
            refuse("behaviors", f"some of {','.join(BTAGS)}", ",".join(self.behaviors))
        since = self.behaviors_since
        if since not in ("default", "all") and not re.fullmatch(r"[0-9]{1,12}", since):
            refuse("behaviors_since", "`default`, `all` or unix seconds", since)
        if self.sessions != "none" and not re.fullmatch(
            r"[1-9][0-9]{0,2}x[1-9][0-9]{0,2}", self.sessions
        ):
            refuse("sessions", "sessions x behaviours, e.g. 5x10, or none", self.sessions)
        most, length = self.session_shape or (1, 1)
        if most * length > MOST_BEHAVIOURS:
            refuse("sessions", f"at most {MOST_BEHAVIOURS} behaviours in all", self.sessions)
        if not is_zone(self.timezone):
            refuse("timezone", "a name such as Asia/Shanghai", self.timezone)

    @property
    def session_shape(self) -> tuple[int, int] | None:
        """(M, K) of `sessions`, None for no such columns."""
        if self.sessions == "none":
            return None
        most, length = self.sessions.split("x")
        return int(most), int(length)

    @property
    def keeps(self) -> str | None:
        """As `Config.keeps`: the preset, with what is asked for; None for a sample of users."""
        if not self.keep_events or self.user_fraction < 1:
            return None
        from pipeline.description.toml import written

        keys = self._source.keys
        for (kind, owner), name in zip(_OWNERS, NAMES, strict=True):
            there = find(name, self.raw_folder)
            keys[kind][owner]["files"] = there.name if there else name
        return written(keys)

    @property
    def _source(self) -> Source:
        """The preset of the language, with what is asked."""
        names = ("bins", "max_len", "layout", "session_gap", "duplicates", "min_count", "timezone")
        source, _ = source_of("alibaba-ads")
        keys = source.keys
        keys["name"] = "alibaba"
        Asked(**{name: getattr(self, name) for name in names}).put_into(keys)
        kinds = ", ".join(f"'{kind}'" for kind in sorted(set(self.behaviors)))
        keys["tables"]["behaviours"]["where"] = f"btag in ({kinds})"
        options = keys["tables"]["behaviours"]["reader"]["options"]
        options["timezone"] = self.timezone
        if self.behaviors_since != "default":
            every = self.behaviors_since == "all"
            options["since"] = 1 if every else max(1, int(self.behaviors_since))
        keys["lookups"]["user"]["reader"]["options"]["user_fraction"] = self.user_fraction
        keys["histories"][HISTORY]["sessions"] = self.session_shape and list(self.session_shape)
        if self.split_at is not None:
            split = {"by": "time", "test": self.split_at, "timezone": self.timezone}
            keys["target"]["split"] = split
        return source

    def resolved(self) -> dict[str, Any]:
        """Every setting as it goes into the manifest."""
        return {**super().resolved(), "behaviors": sorted(set(self.behaviors))}

    @property
    def raw_folder(self) -> Path:
        """Where the raw files are."""
        return self.raw or Path("data/raw/alibaba")

    def obtain(self) -> list[Path]:
        """Paths of the four raw files, each plain, gzipped or zstd, in the order of `NAMES`.

        Without `raw`, files in `data/raw/alibaba` are used, else they are had through kagglehub,
        where that is installed: the data set's home wants an account.
        """
        at = self.raw_folder
        found = [find(name, at) for name in NAMES]
        if self.raw is None and any(path is None for path in found) and (came := _kaggle()):
            at, found = came, [find(name, came) for name in NAMES]
        absent = [name for name, path in zip(NAMES, found, strict=True) if path is None]
        if not absent:
            return [path for path in found if path is not None]
        there = near(absent, at)
        given = "" if self.raw is None else f" --raw {self.raw}"
        raise InputError(
            "Raw files are missing." if at.is_dir() else "The folder of raw files does not exist.",
            where=at,
            expected=", ".join(NAMES) + " (or .csv.gz, .csv.zst)",
            got=f"no {', '.join(absent)}{there}",
            do=(f"{RENAME}; else " if there else "")
            + f"download data set 56 from {HOME} (it wants a free account), unpack the four files "
            f"into {at}, and run `tinprep alibaba{given} --out {self.out}`; or, with an account "
            "at Kaggle, `pip install 'tinprep[kaggle]'` and run it again without --raw",
        )

    def absent(self) -> tuple[str, list[Path] | None]:
        """As `Config.absent`: none may be."""
        return "", self.obtain()

    def description(self, paths: list[Path]) -> Description:
        """As `Config.description`."""
        files = {owner: [path] for owner, path in zip(_OWNERS, paths, strict=True)}
        return replace(of_files(self._source, files), published=_published)


def sampled_users(
    fraction: float, lookups: Mapping[str, pl.DataFrame]
) -> npt.NDArray[np.int64] | None:
    """The users that DSIN's sample of the profiles holds; None for all users, profile or not.

    DSIN samples the rows of user_profile with pandas and seed 1024, which is this call.

    Args:
        lookups: the profiles in the file's order, among others.
    """
    import numpy as np

    if fraction == 1:
        return None
    profiles = lookups["user"]["user"]
    chosen = np.random.RandomState(_SAMPLE_SEED).choice(
        len(profiles), size=round(fraction * len(profiles)), replace=False
    )
    return np.unique(profiles.to_numpy()[chosen])


def _published(read: Mapping[str, int], words: Mapping[str, pa.Table]) -> list[str]:
    """Where the line counts of real files differ from the published ones."""
    differ = [
        f"{file}.csv has {lines:,} lines, the published one {ALIBABA_COUNTS[f'{file}.csv']:,}"
        for file, lines in read.items()
        if lines != ALIBABA_COUNTS[f"{file}.csv"]
    ]
    return [f"Not the published files: {'; '.join(differ)}."] if differ else []


def _kaggle() -> Path | None:
    """The folder that kagglehub has the data set in; None where it is not installed."""
    try:
        import kagglehub
    except ImportError:
        return None
    try:
        return Path(kagglehub.dataset_download(KAGGLE))
    except Exception as error:  # whatever it is, it is not ours
        raise EnvironmentFault(
            "The data set could not be had through kagglehub.",
            where=KAGGLE,
            got=f"{type(error).__name__}: {str(error)[:300]}",
            do=f"see to the network and the account, or put {', '.join(NAMES)} into a folder "
            "and name it with --raw",
        ) from error
