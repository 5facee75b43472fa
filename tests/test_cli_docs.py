"""The command line explains itself, and the README and `docs/` say what is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.description.checks import spec_of
from pipeline.description.toml import Source
from tests.docs_pages import ROOT, commands, flags, pages

COMMANDS = commands()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_LINES = 250  # of the README


def blocks(path: Path, language: str = "") -> list[str]:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for of, block in found if of == language]


def examples(path: Path) -> Iterator[list[str]]:
    """The words of each command in a block or in a text."""
    text = path.read_text(encoding="utf-8")
    lines = [line for one in blocks(path) for line in one.replace("\\\n", " ").splitlines()]
    lines += [" ".join(one.split()) for one in re.findall(r"(?<!`)`(tinprep [^`]+)`", text)]
    for line in lines:
        if "tinprep " in line and "[OPTIONS]" not in line and (words := shlex.split(line, True)):
            yield from ([words[words.index("tinprep") + 1 :]] if "tinprep" in words else [])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_examples_are_of_commands_and_options_that_exist(path: Path) -> None:
    for words in examples(path):
        name = max((n for n in COMMANDS if words[: len(n.split())] == n.split()), default="")
        assert name or words[0].startswith("--"), words
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= (flags(COMMANDS[name]) if name else {"--version", "--help"}), words


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = link.partition("#")
        if ":" in file:
            continue
        to = path.parent / file if file else path
        assert to.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", to.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads}


def test_generated_pages_are_fresh() -> None:
    stale = [path.name for path, text in pages().items() if path.read_text("utf-8") != text]
    assert not stale, "run `make docs-pages`"


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "toml")], ids=lambda p: p.name)
def test_descriptions_that_are_shown_are_of_the_language(path: Path) -> None:
    for text in blocks(path, "toml"):
        spec_of(Source("shown.toml", text))


def test_the_readme_stays_short_and_leads_to_every_page() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    site = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f'= "{page.name}"' in site, page
        if page.name != "index.md":
            assert f"(docs/{page.name}" in text, page
            assert f"({page.name})" in index, page
