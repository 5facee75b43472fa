"""What a manifest says that the trainer acts on. Nothing else in the trainer reads it there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from annotated_types import Ge, Le, MaxLen

from schemas.checked import STRICT, Misfit, build

if TYPE_CHECKING:
    from schemas.manifest import Manifest

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
        stored: column of the history -> what the shards call it, of those that they call otherwise.
    """

    training: Hyperparameters
    key: str | None
    group_field: str | None
    timezone: str
    time_unit: Unit
    sessions: tuple[int, int] | None
    stored: dict[str, str]

    def seconds(self, interval: float) -> float:
        """An interval of the data set in seconds."""
        from schemas.shards import UNITS  # not above, as in `facts_of`

        return interval / UNITS[self.time_unit]


def facts_of(made: Manifest, out: Path) -> Facts:
    """Read them.

    Args:
        made: the manifest.
        out: its folder, for messages.
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
    return Facts(
        training=training,
        key=_key(made),
        group_field=group if group in made.history.fields else None,
        timezone=made.timezone,
        time_unit=cast(Unit, made.time_unit),  # its manifest was held to these
        sessions=made.history.shape,
        stored=_stored(made),
    )


def _stored(made: Manifest) -> dict[str, str]:
    """Column of the only history -> what the shards call it, where its name is one of its own."""
    from schemas.bounds import HISTORY
    from schemas.shards import HISTORY_COLUMNS, session_prefix

    (called,) = made.histories
    own, before = made.history.fields, (session_prefix(HISTORY), session_prefix(called))
    if called == HISTORY:
        return {}
    found = {f"{HISTORY}_{n}": f"{called}_{n}" for n in ("length", *HISTORY_COLUMNS, *own)}
    if made.history.shape is not None:
        found |= {f"{before[0]}_{n}": f"{before[1]}_{n}" for n in ("length", *own)}
    return found


def _key(made: Manifest) -> str | None:
    """What tells one target from another: what is drawn, or else what has the most to look up."""
    if made.target.negatives is not None:
        return made.target.negatives.field

    def gives(key: str) -> int:
        """How many of the target's fields the key is or has."""
        return len({key, *made.lookups[key].fields} & {*made.fields})

    keys = [key for key in made.lookups if key != "user" and (key in made.fields or gives(key))]
    return max(keys, key=gives, default=made.fields[0] if len(made.fields) == 1 else None)
