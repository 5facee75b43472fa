"""What the project leans on: pinned versions, no network at import, no secret in a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import tinprep

ROOT = Path(__file__).parents[1]
PINNED = {
    canonicalize_name(name): pinned
    for name, pinned in (
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_[A-Za-z0-9]{36}|xox[abp]-[0-9]"
    r"|(?i:(?:password|passwd|secret|api_?key|token)\s*[=:]\s*['\"][^'\"{}$<> ]{8,}['\"])"
)


def needed(requirements: list[str], extras: set[str]) -> set[str]:
    """The names of what must be installed for some requirements, and for those in turn."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        marks = [{"extra": extra} for extra in (*wanted.extras, *extras, "")]
        if wanted.marker is not None and not any(wanted.marker.evaluate(m) for m in marks):
            continue
        if name in found:
            continue
        found.add(name)
        try:
            inner = requires(name) or []
        except PackageNotFoundError:  # another platform's, or not installed here
            continue
        waiting += [
            r
            for r in map(Requirement, inner)
            if r.marker is None
            or any(r.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras))
        ]
    return found


def test_every_package_that_is_installed_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    names = needed([*PROJECT["dependencies"], *extras["dev"]], set())
    assert len(names) > 40
    installed = set()
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        installed.add(name)
    # These come with every environment.
    assert installed - PINNED.keys() - {"pip", "setuptools"} == set()


def test_pinned_versions_satisfy_what_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras["dev"]):
        declared = Requirement(text)
        assert declared.specifier.contains(PINNED[canonicalize_name(declared.name)]), text


def test_nothing_connects_when_modules_are_imported() -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("pipeline", "schemas", "sql", "tinprep", "trainer")
        for path in (ROOT / package).rglob("*.py")
    )
    assert len(modules) > 80
    program = (
        "import importlib, sys\n"
        "def hook(event, args):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        "        sys.exit(f'{event} {args}')\n"
        "sys.addaudithook(hook)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "assert not {'scipy', 'sklearn'} & {*sys.modules}\n"  # only `dev` has them
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]


def test_version() -> None:
    ended = tinprep("--version")
    assert (ended.code, ended.out.strip()) == (0, f"tinprep {PROJECT['version']}")


@pytest.mark.parametrize(
    "text", ["AKIA" + "ABCDEFGHIJKLMNOP", 'api_key = "' + "0123456789abcdef" + '"']
)
def test_a_secret_is_known(text: str) -> None:
    assert SECRET.search(text)


def test_no_file_holds_a_secret() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git here")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
            assert not SECRET.search(text), name
