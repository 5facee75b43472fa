"""What a manifest says that the trainer acts on. Nothing else in the trainer reads it there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from annotated_types import Ge, Le, MaxLen

from schemas.bounds import HISTORY
from schemas.checked import STRICT, Misfit, build
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.manifest import History, Manifest

Unit = Literal["s", "ms", "us"]
Width = Annotated[int, Ge(1), Le(1 << 20)]
Widths = Annotated[tuple[Width, ...], MaxLen(100)]
# What the vocabularies' embedding tables are held in.
TableNumbers = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Hyperparameters:
    """The settings of a training that suit some data and not others.

    Attributes:
        optimizer: a key of `trainer.training.config.OPTIMIZERS`.
        hidden: widths of the head's hidden layers.
    """

    __pydantic_config__ = STRICT
    optimizer: str
    lr: float
    batch_size: int
    epochs: int
    hidden: Widths


# A.1 for reviews; batch and epochs as in TIN's released code. A data set may say otherwise.
DEFAULTS = Hyperparameters("adam", lr=1e-3, batch_size=32, epochs=4, hidden=(80, 40))


@dataclass(frozen=True)
class Facts:
    """What the trainer must know of a data set beside its columns.

    Attributes:
        training: the settings that a training has where none are given.
        key: the field or feature whose value is the target itself, e.g. the item or the ad; None
            where only all fields together tell targets apart.
        group_field: the field by which behaviours and targets are grouped, in the correlation and
            in the baseline that counts; None where the data set names none, or behaviours lack it.
        timezone: in which an hour, a weekday or a month is meant.
        time_unit: of times and intervals, a key of `schemas.shards.UNITS`.
        histories: those that are read, by what batches call them: `history` where it is one.
        called: its name, where the data set has others; None where all are read.
        stored: column of the history -> what the shards call it, of those that they call otherwise.
        unread: the columns of the other histories.
        out: the data set's folder, for messages.
    """

    training: Hyperparameters
    key: str | None
    group_field: str | None
    timezone: str
    time_unit: Unit
    histories: dict[str, History]
    called: str | None
    stored: dict[str, str]
    unread: frozenset[str]
    out: Path

    @property
    def history(self) -> History:
        """The one that is read; raises UsageError where several are, and one was to be named."""
        require_one(self.histories, f"--history, of {self.out}")
        return next(iter(self.histories.values()))

    def seconds(self, interval: float) -> float:
        """An interval of the data set in seconds."""
        from schemas.shards import UNITS  # not above, as in `facts_of`

        return interval / UNITS[self.time_unit]


def facts_of(made: Manifest, out: Path, history: str | None = None) -> Facts:
    """Read them.

    `history` is the one to read; None for all, in the order of their names.

    Raises:
        UsageError: there is no such history.
        ContractError: the manifest is not what it says.
    """
    # The command line asks this module for types alone, and is there sooner without Arrow.
    from schemas.manifest import NAME, require

    given = {f.name: made.train[f.name] for f in fields(Hyperparameters) if f.name in made.train}
    try:
        training = build(Hyperparameters, asdict(DEFAULTS) | given)
    except Misfit as error:
        require(out / NAME, False, f"train.{error.at}", error.expected, error.got)
        raise
    group = made.train.get("group_field")
    require(
        out / NAME, group is None or group in made.fields, "train.group_field", "a field", group
    )
    if history not in (None, *made.histories):
        raise UsageError(
            "The data set has no such history.",
            where=f"--history, of {out}",
            expected=f"one of {', '.join(made.histories)}",
            got=history,
        )
    names = sorted(made.histories) if history is None else [history]
    histories = {name: made.histories[name] for name in names}
    others = {name: one for name, one in made.histories.items() if name not in histories}
    stored: dict[str, str] = {}
    if len(names) == 1:
        stored = _stored(names[0], histories[names[0]])
        histories = {HISTORY: histories[names[0]]}
    return Facts(
        training=training,
        key=_key(made),
        group_field=group if any(group in one.fields for one in histories.values()) else None,
        timezone=made.timezone,
        time_unit=cast(Unit, made.time_unit),  # its manifest was held to these
        histories=histories,
        called=history if others else None,
        stored=stored,
        unread=frozenset(column for name, one in others.items() for column in _columns(name, one)),
        out=out,
    )


def require_one(
    histories: Collection[str], where: str = "--history", do: str | None = None
) -> None:
    """Refuse several histories where one is read.

    Raises:
        UsageError: they are several.
    """
    if len(histories) > 1:
        raise UsageError(
            "The data set has several histories, and one is read.",
            where=where,
            expected=f"one of {', '.join(histories)}",
            got="none",
            do=do,
        )


def _columns(called: str, history: History) -> list[str]:
    """What the shards call the columns of a history, and of its sessions."""
    return [*columns_of(called, history), *session_columns_of(called, history)]


def columns_of(called: str, history: History) -> list[str]:
    """The columns of a history, its length first."""
    from schemas.shards import HISTORY_COLUMNS

    return [f"{called}_{name}" for name in ("length", *HISTORY_COLUMNS, *history.fields)]


def session_columns_of(called: str, history: History) -> list[str]:
    """The columns of a history's sessions, their lengths first; none where it has none."""
    from schemas.shards import session_prefix

    names = ("length", *history.fields) if history.shape is not None else ()
    return [f"{session_prefix(called)}_{name}" for name in names]


def _stored(called: str, history: History) -> dict[str, str]:
    """Column of the history -> what the shards call it, where its name is one of its own."""
    if called == HISTORY:
        return {}
    return dict(zip(_columns(HISTORY, history), _columns(called, history), strict=True))


def _key(made: Manifest) -> str | None:
    """What tells one target from another: what is drawn, or else what has the most to look up."""
    if made.target.negatives is not None:
        return made.target.negatives.field

    def gives(key: str) -> int:
        """How many of the target's fields the key is or has."""
        return len({key, *made.lookups[key].fields} & {*made.fields})

    keys = [key for key in made.lookups if key != "user" and (key in made.fields or gives(key))]
    return max(keys, key=gives, default=made.fields[0] if len(made.fields) == 1 else None)
