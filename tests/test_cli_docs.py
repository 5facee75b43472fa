"""The command line explains itself, and the README shows every command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def commands(command: Any, name: str = "") -> dict[str, Any]:
    """Every command that does something, by its full name."""
    if not hasattr(command, "commands"):
        return {name: command}
    found: dict[str, Any] = {}
    for child, value in command.commands.items():
        found |= commands(value, f"{name} {child}".strip())
    return found


ROOT: Any = typer.main.get_command(app)
COMMANDS = commands(ROOT)


def flags(command: Any) -> set[str]:
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}


def test_the_commands_are_these() -> None:
    assert {
        "alibaba",
        "amazon",
        "train",
        "models",
        "evaluate",
        "predict",
        "inspect",
        "synthesize amazon",
        "synthesize alibaba",
    } <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_a_code_block_of_the_readme(name: str) -> None:
    blocks = "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
    assert re.search(rf"^tinprep {name}\b", blocks, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_examples_of_the_readme_use_options_that_exist(name: str) -> None:
    known = flags(COMMANDS[name])
    for line in re.findall(rf"^tinprep {name} .*$", README, re.MULTILINE):
        used = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", line.split(" #")[0]))
        assert used <= known, line


@pytest.mark.parametrize("name", ["alibaba", "amazon", "train"])
def test_option_tables_of_the_readme_name_options_that_exist(name: str) -> None:
    section = README.split(f"\n## {name.capitalize()}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`--[^|]*)\|", section, re.MULTILINE)
    named = {flag for cell in cells for flag in re.findall(r"--[a-z][a-z-]*", cell)}
    assert named
    assert named <= flags(COMMANDS[name])
