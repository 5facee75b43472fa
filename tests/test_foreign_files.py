"""Files of others: whatever they are called, no command changes or removes one."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.alone import LOCK
from tests.conftest import amazon, finished, refused, tinprep, write_raw
from tests.test_bad_input import GOOD, INPUT, META, USAGE

TRAIN = ("--dim", 2, "--hidden", 2, "--epochs", 1, "--threads", 1, "--device", "cpu")
UNFINISHED = ".tinprep-0123456789abcdef.unfinished"
BERT = b'{\n  "architectures": [\n    "BertModel"\n  ]\n}'


@dataclass(frozen=True)
class Writes:
    """A command that writes to a folder: its arguments, and names that it writes there."""

    arguments: tuple[object, ...]
    names: tuple[str, ...]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    finished(amazon(write_raw(folder / "raw", GOOD, META), folder / "out"))
    return folder / "out"


@pytest.fixture(scope="module")
def commands(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Writes]:
    apart = tmp_path_factory.mktemp("runs")
    table = ("reproduce", "table1", data, "--setting", "small", "--models", "din", "--seeds", 1)
    run = ("config.json", "log.csv", "best.pt", "last.pt", "metrics.json", "test_scores.parquet",
           "tensorboard/events.out.tfevents.1", "tensorboard", LOCK)  # fmt: skip
    return {
        "train": Writes(("train", data, *TRAIN, "--run"), run),
        "force": Writes(("train", data, *TRAIN, "--force", "--run"), run),
        "resume": Writes(("train", data, *TRAIN, "--resume", "--run"), run),
        "correlate": Writes(
            ("correlate", data, "--out"),
            ("fig1.csv", "fig1.md", "fig1.png", "fig1.svg", "ctc.parquet", ".tinprep.json"),
        ),
        "table": Writes(
            (*table, "--runs", apart, "--out"), ("table1.csv", "table1.md", ".tinprep.json")
        ),
        "runs": Writes(
            (*table, "--out", apart / "to", "--runs"), tuple(f"out-din-none-0/{n}" for n in run)
        ),
        "synthesize": Writes(
            ("synthesize", "amazon", "--scale", 0.001, "--category", "Beauty", "--out"),
            ("SYNTHETIC.json", "meta_Beauty.json.gz", "reviews_Beauty_5.json.gz"),
        ),
    }


@pytest.fixture(scope="module")
def made(commands: dict[str, Writes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each command makes."""
    folders = {name: tmp_path_factory.mktemp("made") / "to" for name in commands}
    folders |= dict.fromkeys(("force", "resume"), folders["train"])
    for name in commands.keys() - {"force", "resume"}:
        finished(tinprep(*commands[name].arguments, folders[name]))
    return folders


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(
    name=st.sampled_from(("train", "force", "resume", "correlate", "table", "runs", "synthesize")),
    over=st.booleans(),
    planted=st.lists(
        st.tuples(
            st.integers(0, 8) | st.sampled_from(("notes.txt", UNFINISHED, "sub/config.json")),
            st.binary(max_size=20)
            | st.sampled_from((BERT, b"{}", b"step,loss\n1,0.5\n", b"PK\3\4")),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
)
@example(name="train", over=False, planted=[(0, BERT, False), (1, b"step,loss\n", False)])
@example(name="force", over=True, planted=[(3, b"", False)])
@example(name="force", over=True, planted=[(6, b"brain.Event:2", False)])
@example(name="correlate", over=True, planted=[(2, b"\x89PNG", False)])
@settings(max_examples=40)
def test_what_others_wrote_stays(
    name: str,
    over: bool,
    planted: list[tuple[int | str, bytes, bool]],
    commands: dict[str, Writes],
    made: dict[str, Path],
) -> None:
    command = commands[name]
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "to"
        if over:
            shutil.copytree(made[name], to)
        theirs = {}
        for number, (which, content, by_link) in enumerate(planted):
            called = command.names[which % len(command.names)] if isinstance(which, int) else which
            path = to / called
            if path.is_dir() or path.parent.is_file():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            theirs.pop(path, None)
            path.unlink(missing_ok=True)
            at = path
            if by_link:
                at = Path(folder) / f"mine{number}"
                path.symlink_to(at)
            at.write_bytes(content)
            theirs[path] = content
        before = files(Path(folder))
        ended = tinprep(*command.arguments, to)
        assert ended.code in (0, USAGE, INPUT), ended.err
        assert "Traceback" not in ended.err
        after = files(Path(folder))
        assert {path: after.get(path) for path in theirs} == theirs
        if ended.code:
            assert {k: v for k, v in after.items() if k.name != LOCK or k in before} == before


def test_what_is_read_is_not_written_over(data: Path, made: dict[str, Path]) -> None:
    run = made["train"]
    before = files(data), files(run)
    for command in (("predict", run, data), ("report", data, run)):
        for to in (data / "manifest.csv", data / "train/part-00000.parquet", data / "page.csv"):
            refused(tinprep(*command, "--out", to), USAGE, "folder of a data set")
        refused(tinprep(*command, "--out", run / "test_scores.parquet"), USAGE, "own file")
    refused(tinprep("report", data, run, "--out", run / "best.pt"), USAGE, "own file")
    refused(tinprep("correlate", data, "--out", data), USAGE, "folder of a data set")
    refused(tinprep("train", data, *TRAIN, "--run", data / "train"), USAGE, "folder of a data set")
    assert before == (files(data), files(run))


def test_a_lock_of_others_is_left_as_it_is(tmp_path: Path) -> None:
    raw, out, mine = write_raw(tmp_path / "raw", GOOD, META), tmp_path / "out", tmp_path / "mine"
    mine.write_text("mine")
    out.mkdir()
    (out / LOCK).symlink_to(mine)
    refused(amazon(raw, out), USAGE, out / LOCK, "a link")
    assert mine.read_text() == "mine"
    (out / LOCK).unlink()
    mine.rename(out / LOCK)
    finished(amazon(raw, out))
    assert (out / LOCK).read_text() == "mine"
