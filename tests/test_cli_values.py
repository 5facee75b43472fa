"""Whatever stands behind an option, a command ends with one message, never with a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import amounts as cli_amounts
from schemas.errors import UsageError
from tests.conftest import Ended, refused, tinprep
from tests.test_cli_docs import COMMANDS

# What each command needs besides, so that it ends soon.
REST: dict[str, list[str]] = {
    **{name: ["empty"] for name in ("inspect", "verify", "evaluate", "results")},
    "models": [],
    "doctor": [],
    "train": ["empty", "--run", "run"],
    "importance": ["empty"],
    "predict": ["empty", "empty", "--out", "scores.csv"],
    "correlate": ["empty", "--out", "out"],
    "reproduce": ["table1", "empty", "--out", "out"],
    "report": ["empty", "--out", "out.html"],
    **{name: ["--raw", "empty", "--out", "out", "--dry-run"] for name in ("amazon", "alibaba")},
    "describe": ["ratings.csv"],
    "transform": ["empty", "--events", "file", "--out", "out"],
    "export": ["empty", "--out", "out"],
    "serve": ["empty", "--events", "empty"],
    "score": ["empty", "--events", "empty", "--requests", "file", "--out", "scores.parquet"],
    "prepare": ["amazon-2014", "--raw", "empty", "--out", "out", "--dry-run"],
    **{name: ["--out", "file/out"] for name in ("synthesize amazon", "synthesize alibaba")},
}
NOT_EMPTY = ["", "\0"]
NO_NUMBER = [*NOT_EMPTY, "inf", "-inf", "nan", "1e400", "x", "١٢", " 1", "1_0", "0x1f", "1\x1b[31m"]
NO_NUMBER += ["1,5", "--", "1" * 5_000 + "x"]
NO_WHOLE = [*NO_NUMBER, "1e3", "1.5", "9" * 23, "9" * 5_000, "2GB", "1%"]
# By what the help calls a value: texts that are none of it.
REFUSED = {
    "INTEGER": NO_WHOLE,
    "NUMBER": [*NO_NUMBER, "9" * 5_000, "2GB", "1%"],
    "BYTES": [*NO_WHOLE[:-2], "2048", "0", "-1", "0GB", "-1GB", "GB", "infGB", "9" * 30 + "TB"],
    "SHARE": [*NO_WHOLE[:-4], "1", "1.0", "101%", "-1%", "%", "nan%", "2GB"],
    "WIDTHS": [*NO_NUMBER, "80,", "80;40", "1,1.5"],
    "TEXT": NOT_EMPTY,
    "PATH": NOT_EMPTY,
}
REFUSED["WIDTHS"].remove("1,5")
# These may mean something, or be refused later.
DOUBTFUL = ["-1", "0", "+1", "9" * 18, "\x1b]0;x\x07", "..", "é\u2028"]


def options(command: str) -> dict[str, str]:
    """The options of a command that take a value, and what the help calls it."""
    return {
        p.opts[0]: p.metavar
        for p in COMMANDS[command].params
        if p.param_type_name == "option" and not getattr(p, "is_flag", False)
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").touch()
    return tmp_path


def ended(command: str, *words: str) -> Ended:
    """Run a command that must end in one of our messages."""
    found = tinprep(*command.split(), *REST[command], *words)
    assert "Traceback" not in found.err, (words, found.err)
    assert found.err.count("error:") == 1, (words, found.err)
    return found


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_texts_that_are_no_value(here: Path, command: str) -> None:
    # Options of one kind share its reader: each is tried with some of the texts, in turn.
    for n, (option, kind) in enumerate(options(command).items()):
        for text in REFUSED[kind][n % 4 :: 4] if len(REFUSED[kind]) > 4 else REFUSED[kind]:
            refused(ended(command, option, text), 2, option)
    assert {path.name for path in here.iterdir()} == {"empty", "file"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_values_on_the_edge(here: Path, command: str) -> None:
    for n, option in enumerate(options(command)):
        for text in DOUBTFUL[n % 3 :: 3]:
            if (command.split()[0], option) != ("synthesize", "--out"):
                assert ended(command, option, text).code in (2, 3, 4, 5)


@pytest.mark.parametrize("command", ["train", "inspect", "predict", "report"])
def test_an_argument_that_is_empty(here: Path, command: str) -> None:
    words = ["" if word == "empty" else word for word in REST[command]]
    refused(tinprep(command, *words), 2, "is empty")


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (cli_amounts.as_bytes, "1.5g", 3 << 29),
        (cli_amounts.as_bytes, "1500MB", 1500 << 20),
        (cli_amounts.as_bytes, "2 GiB", 2 << 30),
        (cli_amounts.as_share, "0", 0),
        (cli_amounts.as_share, "100%", 1),
        (cli_amounts.as_share, ".5%", 0.005),
        (cli_amounts.as_share, "0.001", 0.001),
        (cli_amounts.widths, "200,80", (200, 80)),
        (cli_amounts.number, "1e-3", 0.001),
    ],
)
def test_amounts(read: Any, text: str, value: Any) -> None:
    assert read(text) == value


@given(
    st.sampled_from(list(cli_amounts._READERS)),
    st.one_of(st.text(max_size=8), st.text("0123456789.,+-eE%kmgtbiB \x00", max_size=8)),
)
def test_any_text_is_a_value_or_is_refused(kind: Any, text: str) -> None:
    try:
        value = cli_amounts._read("--this", kind, None, text)
    except UsageError as error:
        assert "--this" in str(error)
        return
    if kind is int:
        assert value == int(text)
    elif kind is cli_amounts.Bytes:
        assert 0 < value < 1 << 63
        assert text.rstrip("iIbB")[-1] in "kmgtKMGT"
    elif kind is cli_amounts.Share:
        assert 0 <= value <= 1
