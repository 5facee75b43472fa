"""What a manifest says that the trainer acts on. Nothing else in the trainer reads it there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from annotated_types import Ge, Le, MaxLen

from schemas.checked import STRICT, Misfit, build
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.manifest import History, Manifest

Unit = Literal["s", "ms", "us"]
Width = Annotated[int, Ge(1), Le(1 << 20)]
Widths = Annotated[tuple[Width, ...], MaxLen(100)]


@dataclass(frozen=True)
class Hyperparameters:
    """The settings of a training that suit some data and not others.

    Attributes:
        optimizer: a key of `trainer.training.config.OPTIMIZERS`.
        lr: learning rate.
        batch_size: rows per step.
        epochs: passes over the train split.
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
        sessions: (M, K) of the `session_` columns, M sessions of K behaviours; None without them.
        history: the one that is read.
        called: its name, where the data set has others; None where it is the only one.
        stored: column of the history -> what the shards call it, of those that they call otherwise.
        unread: the columns of the other histories.
    """

    training: Hyperparameters
    key: str | None
    group_field: str | None
    timezone: str
    time_unit: Unit
    sessions: tuple[int, int] | None
    history: History
    called: str | None
    stored: dict[str, str]
    unread: frozenset[str]

    def seconds(self, interval: float) -> float:
        """An interval of the data set in seconds."""
        from schemas.shards import UNITS  # not above, as in `facts_of`

        return interval / UNITS[self.time_unit]


def facts_of(made: Manifest, out: Path, history: str | None = None) -> Facts:
    """Read them.

    Args:
        made: the manifest.
        out: its folder, for messages.
        history: the one to read; None for the only one.

    Raises:
        UsageError: there is no such history, or there are several and none is named.
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
    called = _called(made, out, history)
    own = made.histories[called]
    others = {name: one for name, one in made.histories.items() if name != called}
    return Facts(
        training=training,
        key=_key(made),
        group_field=group if group in own.fields else None,
        timezone=made.timezone,
        time_unit=cast(Unit, made.time_unit),  # its manifest was held to these
        sessions=own.shape,
        history=own,
        called=called if others else None,
        stored=_stored(called, own),
        unread=frozenset(column for name, one in others.items() for column in _columns(name, one)),
    )


def _called(made: Manifest, out: Path, history: str | None) -> str:
    """The name of the history that is read."""
    named = [*made.histories]
    if history is None and len(named) == 1:
        return named[0]
    if history not in named:
        raise UsageError(
            "The data set has several histories, and one is read."
            if history is None
            else "The data set has no such history.",
            where=f"--history, of {out}",
            expected=f"one of {', '.join(named)}",
            got="none" if history is None else history,
        )
    return history


def _columns(called: str, history: History) -> list[str]:
    """What the shards call the columns of a history, and of its sessions."""
    from schemas.shards import HISTORY_COLUMNS, session_prefix

    found = [f"{called}_{n}" for n in ("length", *HISTORY_COLUMNS, *history.fields)]
    if history.shape is not None:
        found += [f"{session_prefix(called)}_{n}" for n in ("length", *history.fields)]
    return found


def _stored(called: str, history: History) -> dict[str, str]:
    """Column of the history -> what the shards call it, where its name is one of its own."""
    from schemas.bounds import HISTORY

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
