"""A description's TOML held to the language: what is wrong is told with its key, line and remedy.

Nothing of the data is read.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_json, to_jsonable_python

from pipeline.description.language import Spec
from schemas.checked import expected_by
from schemas.errors import ByDescription, UsageError

_AT_LINE = re.compile(r"\(at line (\d+)")
# Where the files are is no part of what rows are a function of.
_OF_FILES = ("files", "format", "connection")
_UNSAID = ("name", "parameters", "connections")
_GOT = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}


class Source:
    """The text of a description, and where its keys stand.

    Attributes:
        name: of the file, for people.
        keys: what it says, as plain values.
        options: by key the option that said it, where nobody wrote the text.
    """

    def __init__(
        self, name: str | Path, text: str, options: Mapping[str, str] | None = None
    ) -> None:
        """Read TOML.

        Raises:
            UsageError: it is not TOML.
        """
        self.name, self.text, self.options = name, text, options
        try:
            self.keys: dict[str, Any] = _plain(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            found = _AT_LINE.search(str(error))
            raise UsageError(
                "The description is not TOML.",
                where=name,
                line=int(found[1]) if found else None,
                got=str(error).replace("\n", " "),
                do="mend the line: text stands in quotes, a table is { key = value }",
            ) from None

    def refuse(
        self,
        at: Sequence[str | int],
        what: str,
        expected: str | None = None,
        got: str | None = None,
        do: str | None = None,
    ) -> NoReturn:
        """Refuse what stands at a key."""
        where, line = self.name, self.line(at)
        if self.options is not None:
            said = (self.options.get(str(key)) for key in reversed(at))
            where, line = next(filter(None, said), self.name), None
        how = None if do is None else ByDescription(do)
        raise UsageError(what, where=where, line=line, expected=expected, got=got, do=how)

    def line(self, at: Sequence[str | int]) -> int | None:
        """The 1-based line of a key, or of the nearest one that leads to it; None where none is."""
        wanted = tuple(key for key in at if isinstance(key, str))
        best: tuple[int, int] | None = None
        for number, found in _key_lines(self.text):
            same = _same(found, wanted)
            if same and (best is None or same > best[0]):
                best = same, number
        if best is None:
            return None
        same, number = best
        # Within an inline table, or a list of lines: the rest of the keys, one after the other.
        lines = self.text.splitlines()
        for key in wanted[same:]:
            pattern = re.compile(rf"(?<![\w.-])[\"']?{re.escape(key)}[\"']?\s*[=.]")
            for n in range(number, len(lines) + 1):
                if n > number and re.match(r"\s*\[", lines[n - 1]):
                    return number
                if pattern.search(lines[n - 1]):
                    number = n
                    break
            else:
                return number
        return number


def _same(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many keys the two begin with alike; 0 where neither goes on from the other."""
    same = min(len(one), len(other))
    return same if one[:same] == other[:same] else 0


def _key_lines(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The keys that begin a line, in full: of [tables] and of `key =`."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        header = stripped.startswith("[")
        key = stripped.partition("#")[0].strip() if header else stripped.partition("=")[0].strip()
        if not key or (not header and "=" not in stripped):
            continue
        try:
            found = _path(tomllib.loads(key if header else f"{key} = 0"))
        except tomllib.TOMLDecodeError:  # a line of a longer value
            continue
        if header:
            table = found
        yield number, found if header else (*table, *found)


def _path(nested: Any) -> tuple[str, ...]:
    found: list[str] = []
    while nested and isinstance(nested, dict | list):
        if isinstance(nested, list):
            nested = nested[0]
            continue
        ((key, nested),) = nested.items()
        found.append(key)
    return tuple(found)


def _plain(value: Any) -> Any:
    """A value of TOML as JSON has it: dates and times are text."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, date | datetime | time) else value


def read(source: Source) -> Spec:
    """Hold a description to the language.

    Raises:
        UsageError: a key is unknown, missing, or has a value of another kind.
    """
    try:
        return _adapter().validate_json(
            to_json(source.keys, inf_nan_mode="constants", fallback=repr)
        )
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A key that nobody knows is told first: often another one is missing for it.
        errors.sort(key=lambda one: one["type"] != "unexpected_keyword_argument")
        _refuse(source, errors[0], errors)


def _refuse(source: Source, error: ErrorDetails, errors: Sequence[ErrorDetails]) -> NoReturn:
    at, table, node = _at(source.keys, error["loc"])
    shown = _shown(at)
    kind = error["type"]
    if kind == "unexpected_keyword_argument":
        known = list(table.get("properties", ()))
        near = get_close_matches(str(at[-1]), known, 1, 0.6)
        source.refuse(
            at,
            f"The description has an unknown key: {shown}.",
            expected=", ".join(known),
            got=str(at[-1]),
            do=f"did you mean `{near[0]}`?" if near else "leave it out",
        )
    if kind == "missing":
        name = str(error["loc"][-1])
        told = table.get("properties", {}).get(name, {}).get("description", "")
        source.refuse(
            at[:-1],
            f"The description lacks a key: {shown}.",
            expected=f"{name}: {told}" if told else name,
            got="no such key",
        )
    same = [e for e in errors if _at(source.keys, e["loc"])[0] == at]
    expected = " or ".join(dict.fromkeys(map(_expected, same)))
    value = error["input"]
    got = _got(value)
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        expected = "`by`: " + " or ".join(f'"{one}"' for one in node["discriminator"]["mapping"])
        got = f"by: {value['by']}" if "by" in value else "no `by`"
    elif kind == "dataclass_type":
        names = node.get("required", ())
        expected = f"a table: {{ {', '.join(f'{name} = ...' for name in names)} }}"
    source.refuse(at, f"The description has a value that cannot be: {shown}.", expected, got)


def _expected(error: ErrorDetails) -> str:
    return "a table, { key = value }" if error["type"] == "dict_type" else expected_by(error)


def _got(value: Any) -> str:
    if isinstance(value, dict):
        return "a table with " + (", ".join(map(str, value)) or "nothing")
    name = _GOT.get(type(value), "another value")
    return f"{name}: {json.dumps(value, ensure_ascii=False)}"[:200]


def _shown(at: Sequence[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in at).lstrip(".")


def _at(
    keys: Any, loc: Sequence[str | int]
) -> tuple[tuple[str | int, ...], dict[str, Any], dict[str, Any]]:
    """The keys that lead to the place of an error; the schemas of the table it is in, and of it.

    pydantic names, between the keys, which of several kinds it tried.
    """
    at: list[str | int] = []
    schema = json_schema()
    node, table = schema, schema
    for n, key in enumerate(loc):
        last = n == len(loc) - 1
        if isinstance(keys, dict) and (key in keys or (last and key in node.get("properties", ()))):
            table = node
            found = node.get("properties", {}).get(key, node.get("additionalProperties"))
            node = found if isinstance(found, dict) else {}
            keys = keys.get(key)
            at.append(key)
        elif isinstance(keys, list) and isinstance(key, int):
            keys = keys[key] if key < len(keys) else None
            node = node.get("items", {})
            at.append(key)
        elif "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][key]}
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        for one in node.get("anyOf", ()):
            if "$ref" in one:
                node = schema["$defs"][one["$ref"].rpartition("/")[2]]
    return tuple(at), table, node


@cache
def _adapter() -> TypeAdapter[Spec]:
    return TypeAdapter(Spec)


@cache
def json_schema() -> dict[str, Any]:
    """The JSON Schema of the language, for editors."""
    made = _adapter().json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_titles(made),
        "title": "A description of a data set for tinprep",
    }


def _without_titles(node: Any) -> Any:
    """A schema without what pydantic calls each key, and with each text on one line."""
    if isinstance(node, dict):
        found = {
            key: _without_titles(one)
            for key, one in node.items()
            if key != "title" or not isinstance(one, str)
        }
        if isinstance(found.get("description"), str):
            found["description"] = " ".join(found["description"].split())
        return found
    return [_without_titles(one) for one in node] if isinstance(node, list) else node


def canonical(spec: Spec) -> dict[str, Any]:
    """What a description says, every default included, without its name and where files are."""
    found: dict[str, Any] = to_jsonable_python(spec, by_alias=True)
    for one in (*found["tables"].values(), *found["lookups"].values()):
        for name in _OF_FILES:
            one.pop(name, None)
    return {key: value for key, value in found.items() if key not in _UNSAID}


def digest(said: Mapping[str, Any]) -> str:
    """What a canonical description is known by."""
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def written(keys: Mapping[str, Any]) -> str:
    """A description as TOML, from plain values; what is in the tables' tables stands on a line.

    None stands nowhere.
    """
    lines: list[str] = []
    for name, value in keys.items():
        if not isinstance(value, Mapping) and value is not None:
            lines.append(f"{_name(name)} = {_value(value)}")
    for name, value in keys.items():
        if not isinstance(value, Mapping):
            continue
        inner = name in ("tables", "lookups", "histories", "connections")
        of = {f"{name}.{_name(key)}": one for key, one in value.items()} if inner else {name: value}
        for title, table in of.items():
            told = [f"{_name(k)} = {_value(v)}" for k, v in table.items() if v is not None]
            lines += ["", f"[{title}]", *told]
    return "\n".join(lines).lstrip("\n") + "\n"


def without(
    keys: Mapping[str, Any], features: Collection[str], histories: Collection[str]
) -> dict[str, Any]:
    """A description's plain values without some features and histories.

    A lookup that gives nothing else goes with them, and so does a table that nothing reads then. A
    feature that a lookup is of stays with what it gives.
    """

    def kept(table: Mapping[str, Any], stay: Collection[str] = ()) -> dict[str, Any]:
        """A table of events or a lookup, without empty tables of columns."""
        gone = {*features} - {*stay}
        of = {
            kind: {name: v for name, v in table[kind].items() if name not in gone}
            for kind in ("features", "numbers", "lists")
            if kind in table
        }
        return {kind: value for kind, value in {**table, **of}.items() if value != {}}

    gives = {"fields", "features", "numbers", "lists"}
    lookups = {
        name: slim
        for name, one in keys.get("lookups", {}).items()
        if (slim := kept(one)).keys() & gives or not one.keys() & gives
    }
    found = {**keys, "lookups": lookups}
    found["histories"] = {n: one for n, one in keys["histories"].items() if n not in histories}
    named = (found["target"], *found["histories"].values(), *lookups.values())
    read = {one.get("table") for one in named}
    found["tables"] = {n: kept(one, lookups) for n, one in keys["tables"].items() if n in read}
    types, gone = keys.get("types", {}), {*features} - {*lookups}
    found["types"] = {name: value for name, value in types.items() if name not in gone}
    return {name: value for name, value in found.items() if value != {}}


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_name(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    # A text of JSON is one of TOML, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
