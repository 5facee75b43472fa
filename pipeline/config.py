"""What one preparation is asked to do, whatever the data set: every default with its source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le

from schemas.bounds import MAX_LEN, MOST_BEHAVIOURS, MOST_BINS
from schemas.machine import usable_cores
from schemas.manifest import HOW
from schemas.options import BYTES, SHARE, check, option, refuse

if TYPE_CHECKING:
    from pipeline.description import Description
    from pipeline.readers.query import Query

# These say nothing of the data set; some may be secret.
_UNSAID = ("force", "mirrors", "engine", "master", "spark_conf")
_Share = Annotated[float, Ge(0), Le(1)]
_Threads = Annotated[int, Ge(1), Le(1_024)]
_THREADS = "Buckets worked on at once; of no use to Spark. Default: the usable cores."


def without_how(settings: dict[str, Any]) -> dict[str, Any]:
    """Of settings by name, those that change which rows there are, or their shape."""
    return {name: value for name, value in settings.items() if name not in HOW}


@dataclass(frozen=True)
class How:
    """How work on buckets is done; no row depends on it."""

    threads: _Threads | None = option(None, _THREADS, last=True)

    def __post_init__(self) -> None:
        check(self)

    @property
    def workers(self) -> int:
        """Buckets worked on at once."""
        return self.threads or usable_cores()


@dataclass(frozen=True)
class Config(ABC):
    """What every preparation has to be told. Each field is an option of its command."""

    out: Path = option(MISSING, "Folder of the data set.")
    raw: Path | None = option(
        None, "Folder with the raw files, nothing is downloaded. Default: download."
    )
    bins: Annotated[int, Ge(1), Le(MOST_BINS)] = option(
        10, "Equal-frequency bins of the interval; the paper's 4.4 takes 10."
    )
    max_len: Annotated[int, Ge(1), Le(MOST_BEHAVIOURS)] = option(
        MAX_LEN, "Behaviours kept of a history, the latest."
    )
    layout: Literal["padded", "ragged"] = option(
        "padded", "padded: dense for every reader; ragged: smaller and faster."
    )
    session_gap: Annotated[int, Ge(0), Le(1 << 40)] = option(
        86_400, "Seconds of silence that end a session; a day, where times are days."
    )
    duplicates: Literal["keep", "drop"] = option(
        "keep",
        "What a file holds more than once (same user, time and fields): keep, or drop all but one.",
    )
    max_rejected: _Share = option(
        0.001, "Share of raw lines that may be refused before it is an error.", written=SHARE
    )
    max_missing: _Share | None = option(
        None,
        "Share that a join may lack, e.g. of items without a meta line, before it is an error, as "
        "5%. Default: any.",
        written=SHARE,
    )
    buckets: Annotated[int, Ge(1), Le(4_096)] | None = option(
        None, "Of users; changes no row. Default: by size, --threads, --memory.", last=True
    )
    threads: _Threads | None = option(None, _THREADS, last=True)
    memory: int = option(
        2 << 30,
        "To stay within, on Spark: of a task; too little is refused.",
        written=BYTES,
        last=True,
    )
    keep_events: bool = option(
        False,
        "Keep all events beside the shards, so that `tinprep transform` can add new ones.",
        flag="--keep-events",
    )
    force: bool = option(
        False, "Replace an earlier data set in --out; it is removed first.", last=True
    )
    engine: Literal["local", "spark"] = option(
        "local", "local: this machine. spark: a cluster, with the extra `spark`.", last=True
    )
    master: str | None = option(
        None,
        "Of Spark, e.g. spark://HOST:7077, or local[2] to try it. Default: as Spark is configured.",
        last=True,
    )
    spark_conf: tuple[str, ...] = option(
        (), "A setting of Spark, NAME=VALUE; may be repeated.", last=True
    )

    def __post_init__(self) -> None:
        check(self)
        if self.engine == "local" and (self.master or self.spark_conf):
            option = "master" if self.master else "spark_conf"
            refuse(option, "not without --engine spark", getattr(self, option))
        for setting in self.spark_conf:
            if "=" not in setting:
                refuse("spark_conf", "NAME=VALUE", setting)

    @property
    @abstractmethod
    def raw_folder(self) -> Path:
        """Where the raw files are, or will be downloaded to."""

    @property
    def keeps(self) -> str | None:
        """The text of a description that the data set is to keep; None for none."""
        return None

    def apart(self, paths: Sequence[Path]) -> list[Path]:
        """What `out` may be neither in nor around.

        Args:
            paths: of `obtain`; none before they are known.
        """
        return [self.raw_folder, *(path.parent for path in paths)]

    @abstractmethod
    def obtain(self) -> list[Path]:
        """The raw files, in an order that `description` knows; downloaded where that is possible.

        Raises:
            InputError: one is missing, or there more than once.
            EnvironmentFault: a download failed.
        """

    def queries(self) -> dict[Path, Query]:
        """What is asked of databases, by the file in the work folder that each is to become."""
        return {}

    @abstractmethod
    def absent(self) -> tuple[str, list[Path] | None]:
        """What would be downloaded, for people; and the raw files, None where one is needed.

        Raises:
            InputError: as `obtain`, where nothing can be downloaded.
        """

    @abstractmethod
    def description(self, paths: list[Path]) -> Description:
        """What the data set is made from; libraries are loaded for it.

        Args:
            paths: of `obtain`, and those of `queries`.
        """

    def cure(self, do: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        """What is to be done about an error, of what its place says."""
        return do

    @property
    def workers(self) -> int:
        """Buckets worked on at once."""
        return How(self.threads).workers

    def resolved(self) -> dict[str, Any]:
        """Every setting as it goes into the manifest."""
        unsaid = _UNSAID if self.keep_events else (*_UNSAID, "keep_events")
        values = {k: v for k, v in asdict(self).items() if k not in unsaid}
        if self.keep_events:  # new events are read wherever the command is given
            values["raw"] = self.raw_folder.absolute()
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}

    def rows_depend_on(self) -> dict[str, Any]:
        """The settings that change which rows there are, or their shape."""
        return without_how(self.resolved())
