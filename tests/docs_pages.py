"""The generated pages of `docs/`: `python -m tests.docs_pages` writes them (`make docs-pages`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from pipeline.cli.app import app
from pipeline.description.toml import json_schema
from pipeline.readers.conditions import FUNCTIONS

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"
_DEFAULT = re.compile(r"(.*?)\.? ?Default: (.+?)\.?", re.DOTALL)
_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}


def commands(command: Any = None, name: str = "") -> dict[str, Any]:
    """Every command that does something, by its full name."""
    command = command or typer.main.get_command(app)
    if not hasattr(command, "commands"):
        return {name: command}
    found: dict[str, Any] = {}
    for child, value in command.commands.items():
        found |= commands(value, f"{name} {child}".strip())
    return found


def flags(command: Any) -> set[str]:
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}


def cli_page() -> str:
    """`docs/cli.md`: every command, with the default and the help of each option."""
    found = commands()
    parts = [
        "# Command line",
        "Made from the program's own `--help` by `make docs-pages`. Options stand after the "
        "command, in any order. An empty default means that the option is off or not given.",
        "\n".join(
            f"- [`tinprep {name}`](#tinprep-{name.replace(' ', '-')}): "
            f"{_cell(one.help.partition(chr(10))[0])}"
            for name, one in found.items()
        ),
    ]
    for name, one in found.items():
        arguments = [p for p in one.params if not _is_option(p)]
        options = sorted(
            filter(_is_option, one.params), key=lambda p: p.rich_help_panel is not None
        )
        usage = " ".join(
            ["tinprep", name, *map(_argument, arguments), *["[OPTIONS]"] * bool(options)]
        )
        parts += [f"## tinprep {name}", f"```\n{usage}\n```"]
        parts += [_indented(part) for part in one.help.split("\n\n")]
        if arguments:
            rows = [(f"`{p.name.upper()}`", *_told(p)) for p in arguments]
            parts.append(_table("argument", rows))
        if options:
            parts.append(_table("option", [(_flags(p), *_told(p)) for p in options]))
    return "\n\n".join(parts) + "\n"


def _is_option(parameter: Any) -> bool:
    return str(parameter.opts[0]).startswith("-")


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _flags(parameter: Any) -> str:
    names = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
    return f"{names} {parameter.metavar}" if parameter.metavar else names


def _told(parameter: Any) -> tuple[str, str]:
    """The default of a parameter, and what it is for."""
    text, default = " ".join(parameter.help.split()), parameter.default
    if parameter.required:
        return "required", text
    if isinstance(parameter.show_default, str):
        return f"`{parameter.show_default}`", text
    if default is None and (said := _DEFAULT.fullmatch(text)):
        return said[2], f"{said[1]}." if said[1] else ""
    if isinstance(default, bool):
        shown = (parameter.opts if default else parameter.secondary_opts or [""])[0]
        return (f"`{shown}`" if shown else ""), text
    return ("" if default is None else f"`{default}`"), text


def _indented(paragraph: str) -> str:
    """A paragraph of help; one that is a command is shown as one."""
    if paragraph.startswith("torchrun"):
        return f"```\n{paragraph}\n```"
    return " ".join(paragraph.split())


def keys_part() -> str:
    """The tables of `docs/description.md`: every key of the language."""
    schema = json_schema()
    nodes, places = {"": schema} | schema["$defs"], _places(schema)
    order = ["", *(name for name in places if name)]
    parts = []
    for name in order:
        node = nodes[name]
        where = "Top level" if not name else ", ".join(f"`{at}`" for at in places[name])
        needed = node.get("required", [])
        rows = [
            (
                f"`{key}`",
                _kind(one),
                *_key(one, key in needed),
            )
            for key, one in node["properties"].items()
        ]
        parts += [f"### {where}", _cell(node["description"]), _table("key", rows, "value")]
    parts += ["### Functions of SQL", ", ".join(f"`{name}`" for name in sorted(FUNCTIONS))]
    return "\n\n".join(parts) + "\n"


def _places(schema: dict[str, Any]) -> dict[str, list[str]]:
    """Where each table of keys stands in TOML, in the order of the language."""
    found: dict[str, list[str]] = {"": [""]}
    waiting = [""]
    for name in waiting:
        node = schema if not name else schema["$defs"][name]
        for key, one in node["properties"].items():
            for ref, many in _references(one):
                at = f"{found[name][0]}.{key}".lstrip(".") + (".NAME" if many else "")
                if "by" in (of := schema["$defs"][ref]["properties"]):
                    at += f' = {{ by = "{of["by"]["const"]}" }}'
                if ref not in found:
                    waiting.append(ref)
                if at not in found.setdefault(ref, []):
                    found[ref].append(at)
    return found


def _references(node: Any) -> Iterator[tuple[str, bool]]:
    """(name, whether by names of one's own) of the tables that a key may hold."""
    if "$ref" in node:
        yield node["$ref"].rpartition("/")[2], False
    for kind in ("anyOf", "oneOf"):
        for one in node.get(kind, []):
            yield from _references(one)
    if isinstance(node.get("additionalProperties"), dict):
        for name, _ in _references(node["additionalProperties"]):
            yield name, True


def _kind(node: dict[str, Any]) -> str:
    """What may stand there, in words."""
    if "enum" in node or "const" in node:
        return ", ".join(f'`"{one}"`' for one in node.get("enum", [node.get("const")]))
    if alternatives := node.get("anyOf", node.get("oneOf")):
        kinds = dict.fromkeys(_kind(one) for one in alternatives if one.get("type") != "null")
        return " or ".join(kinds)
    if "$ref" in node:
        return "table"
    if node["type"] == "object":
        return f"table: name = {_kind(node['additionalProperties'])}"
    if node["type"] == "array":
        within = node.get("items") or node["prefixItems"][0]
        return f"list: {_kind(within)}"
    return _WORDS[node["type"]]


def _key(node: dict[str, Any], needed: bool) -> tuple[str, str]:
    """The default of a key, and what it is for."""
    text = " ".join(node["description"].split())
    if needed:
        return "required", text
    default = node.get("default")
    if default in (None, [], {}) and (said := _DEFAULT.fullmatch(text)):
        return said[2], f"{said[1]}." if said[1] else ""
    if default in (None, [], {}) or isinstance(default, dict):
        return "", text
    return f"`{json.dumps(default)}`", text


def _table(what: str, rows: list[tuple[str, ...]], *more: str) -> str:
    heads = (what, *more, "default", "meaning")
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text


def pages() -> dict[Path, str]:
    """The pages as they are to be."""
    described = ROOT / "docs" / "description.md"
    before, _, rest = described.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        ROOT / "docs" / "cli.md": cli_page(),
        described: f"{before}{BEGIN}\n{keys_part()}{END}{after}",
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
