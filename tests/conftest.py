"""What the end-to-end tests share: the command line in this process, raw files, the real data."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import settings

from pipeline.cli.app import main
from tests.oracle import Review

# A busy machine is no failure.
# The same examples each time, as a check that fails at random says nothing of a change;
# `TINPREP_RANDOM=1` draws others.
settings.register_profile("tinprep", deadline=None, derandomize="TINPREP_RANDOM" not in os.environ)
settings.load_profile("tinprep")

SHARED = Path(os.environ.get("TINPREP_SHARED", Path(__file__).parents[2] / "shared"))
# Nothing listens there: a test that should not download must not be able to.
NO_NETWORK = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
NO_NETWORK |= {name.lower(): value for name, value in NO_NETWORK.items()}


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything it said, each run of white space one blank: lines may be wrapped."""
        return " ".join((self.out + self.err).split())

    @property
    def closed_up(self) -> str:
        """Everything it said without white space: to find a path that may be wrapped."""
        return "".join((self.out + self.err).split())


def tinprep(*args: object) -> Ended:
    """Run `tinprep ARGS` in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except Exception:  # a traceback is what nobody should see: let tests show it
            traceback.print_exc(file=err)
            code = -1
    return Ended(code, out.getvalue(), err.getvalue())


def amazon(raw: Path, out: Path, *flags: object, category: str = "Beauty") -> Ended:
    """Run `tinprep amazon` on a raw folder."""
    return tinprep("amazon", "--category", category, "--raw", raw, "--out", out, *flags)


def finished(ended: Ended) -> None:
    """Assert that a command went well."""
    assert ended.code == 0, f"exit code {ended.code}\n{ended.out}\n{ended.err}"


def refused(ended: Ended, code: int, *said: object) -> None:
    """Assert how a command was refused, that it says `said`, and that nobody sees a traceback."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    for text in said:
        assert "".join(str(text).split()) in ended.closed_up, f"{text!r} is not in\n{ended.err}"


def reviews_file(folder: Path, category: str = "Beauty") -> Path:
    """Where the reviews of `category` are."""
    return folder / f"reviews_{category}_5.json.gz"


def meta_file(folder: Path, category: str = "Beauty") -> Path:
    """Where the meta lines of `category` are."""
    return folder / f"meta_{category}.json.gz"


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a gzipped text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(f"{line}\n" for line in lines)


def zstd(data: bytes) -> bytes:
    """Some bytes as a zstd file."""
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


def write_raw(
    folder: Path,
    reviews: Sequence[Review | None],
    meta: Sequence[tuple[str, str | None]] | None,
) -> Path:
    """Write a raw folder; None is a line that is no JSON, or no meta file at all."""
    write_lines(
        reviews_file(folder),
        (
            "not JSON"
            if review is None
            else json.dumps(
                {
                    "reviewerID": review.user,
                    "asin": review.item,
                    "overall": 5.0,
                    "unixReviewTime": review.time,
                }
            )
            for review in reviews
        ),
    )
    if meta is not None:
        write_lines(
            meta_file(folder),
            (
                repr({"asin": item, "description": "'categories': [['no']]"})
                if category is None
                else repr({"asin": item, "categories": [["Not this"], ["Beauty", category]]})
                for item, category in meta
            ),
        )
    return folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of pytest's workers to ask fills for all; it stays as it is."""
    at = factory.getbasetemp()
    at = at.parent if "PYTEST_XDIST_WORKER" in os.environ else at
    folder, done = at / name, at / f"{name}.done"
    with (at / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterable[None]:
    """Tests download from nobody but their own server on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in NO_NETWORK.items():
            patch.setenv(name, value)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """A shell has what it runs in the background ignore Ctrl-C; tests send it all the same."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all tests of a module: what one of them leaves, the next may write over."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="session")
def beauty() -> Path:
    """The folder of the real Beauty files."""
    return real_data("amazon_beauty")


@pytest.fixture(scope="session")
def music() -> Path:
    """The folder of the real Musical Instruments reviews."""
    return real_data("amazon_musical_instruments")


@pytest.fixture(scope="session")
def kuairand() -> Path:
    """The folder of the real KuaiRand files, in the layout of the Taobao log."""
    return real_data("kuairand_tianchi")


@pytest.fixture(scope="session")
def beauty_out(beauty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set made of Beauty with ten bins; tests read it and leave it as it is."""

    def make(folder: Path) -> None:
        finished(amazon(beauty, folder / "out", "--bins", 10))

    return made_once(tmp_path_factory, "beauty", make) / "out"


@pytest.fixture(scope="session")
def bundle_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tests.serving_made` makes; tests read it and leave it as it is."""
    from tests.serving_made import make  # which the oldest libraries are not enough for

    return made_once(tmp_path_factory, "user=1 [serving]", make)  # neither a pattern nor a column


def real_data(name: str) -> Path:
    """The folder of real files of this name; without it the test is skipped."""
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the real data is not here: {folder} (see TINPREP_SHARED)")
    return folder
