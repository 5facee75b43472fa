"""JSON and plain values held to the types of a dataclass, so that nothing behind meets another.

pydantic checks, strictly: "1" is no number, NaN neither. It is loaded at the first check, since the
command line is there sooner without it. Bounds stand in the fields' types, as `Annotated`.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from annotated_types import Ge, Gt, Le, Lt

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")

STRICT: ConfigDict = {"strict": True, "allow_inf_nan": False, "extra": "forbid"}
"""`__pydantic_config__` of a dataclass that has just its keys, and of those within it."""
OPEN: ConfigDict = {"strict": True, "allow_inf_nan": False, "extra": "ignore"}
"""Of one to which a later version may have added keys."""
Whole = Annotated[int, Ge(-(1 << 63)), Lt(1 << 63)]
Count = Annotated[int, Ge(0), Lt(1 << 63)]
# What a value has to be, by pydantic's type of error, and by its words.
_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
}
_WORDS = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
    "Unexpected keyword argument": "no such key",
}
_BOUNDS = {Gt: "above", Ge: "at least", Le: "at most", Lt: "below"}
_NAMES = {bool: "true or false", list: "a list", dict: "an object", NoneType: "null"}


class Misfit(ValueError):
    """A value is of another type, or out of bounds.

    Args:
        at: where in the whole, e.g. `bins.edges_s[3]`.
        expected: for people.
        got: likewise, short and printable.
    """

    def __init__(self, at: str, expected: str, got: str) -> None:
        self.at, self.expected, self.got = at, expected, got
        super().__init__(f"{at}: expected {expected}, got {got}")


def decode(text: str | bytes) -> Any:
    """The value of a JSON text; NaN and infinity are none.

    Raises:
        ValueError: the text is not JSON, nests too deeply, has a number of thousands of digits, or
            text that UTF-8 cannot hold.
    """
    from pydantic_core import from_json

    return from_json(text, allow_inf_nan=False)


def build(kind: type[T], value: Any) -> T:
    """What a plain value says, as JSON would hold it: a list may become a tuple, text a path.

    Raises:
        Misfit: the first place where it is another.
    """
    from pydantic_core import to_json

    return _held(
        kind, _adapter(cast(Any, kind)).validate_json, to_json(value, inf_nan_mode="constants")
    )


def hold(kind: type[T], value: Any) -> T:
    """A value of Python, held to a type; raises as `build`."""
    return _held(kind, _adapter(cast(Any, kind)).validate_python, value)


def is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_zone(name: str) -> bool:
    """Whether it names a timezone, such as Asia/Shanghai."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _held(kind: type[T], validate: Any, value: Any) -> T:
    from pydantic import ValidationError

    try:
        found: T = validate(value)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_context=False)
        # Of a type of several kinds, what each of them expects.
        same = [e for e in others if e["input"] is first["input"]]
        expected = " or ".join(dict.fromkeys(map(expected_by, (first, *same))))
        if not first["loc"] and first["type"].startswith(("greater_than", "less_than")):
            expected = _bounds(kind)
        at = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        missing = first["type"] == "missing"
        got = "nothing" if missing else _told(first["input"])
        raise Misfit(at.lstrip("."), "a value" if missing else expected, got) from None
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    own = hasattr(kind, "__pydantic_config__")
    return TypeAdapter(kind) if own else TypeAdapter(kind, config=STRICT)


def _bounds(kind: Any) -> str:
    """The bounds of a type, or of a part of it."""
    said = {
        type(one): one for of in (kind, *get_args(kind)) for one in getattr(of, "__metadata__", ())
    }
    told = ((word, of.__name__.lower(), said.get(of)) for of, word in _BOUNDS.items())
    return ", ".join(f"{word} {getattr(one, name)}" for word, name, one in told if one is not None)


def expected_by(error: ErrorDetails) -> str:
    """What pydantic says that a value has to be, in our words."""
    told = re.sub("^(Input|Value) should be |^(List|String) should have ", "", error["msg"])
    for theirs, ours in _WORDS.items():
        told = told.replace(theirs, ours)
    return _KINDS.get(error["type"], told.partition(" after validation")[0])


def _told(value: Any) -> str:
    """A value, short and printable."""
    text = _NAMES.get(type(value)) if not isinstance(value, bool) else str(value).lower()
    return (text or ascii(value))[:100]
