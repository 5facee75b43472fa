"""How commands end: what they print where it can hardly be printed, and where it cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.replacing import UNFINISHED
from tests.conftest import amazon, finished, refused, tinprep, write_raw
from tests.test_bad_input import GOOD, INPUT, META, USAGE

TINPREP = [sys.executable, "-c", "from pipeline.start import run; run()"]
FAULT, INTERRUPTED = 5, 130
ODD = "a[/b] [red]c"


def ended(*args: str, close: int | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, with a descriptor closed."""
    return subprocess.run(
        [*TINPREP, *args],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=None if close is None else (lambda: os.close(close)),
        **more,
    )


def test_names_in_brackets_are_no_markup(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / ODD, GOOD, META), tmp_path / f"{ODD} out"
    finished(amazon(raw, out))
    finished(tinprep("inspect", out))
    sound = tinprep("verify", out)
    finished(sound)
    assert ODD in sound.said


@pytest.mark.parametrize("stream", [1, 2])
def test_a_closed_stream_is_no_fault(stream: int) -> None:
    done = ended("models", close=stream)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", [["--help"], ["models"]])
def test_a_full_disk_under_the_output_is_said(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*TINPREP, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == FAULT
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_terminal_of_few_letters_gets_all_the_text() -> None:
    plain = dict(os.environ, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    done = ended("inspect", "n\u00f6", env=plain)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "\\udcc3" in done.stderr


@pytest.mark.parametrize(
    ("number", "module"),
    [
        (signal.SIGINT, "pipeline.cli.look"),
        (signal.SIGTERM, "torch.nn"),
        (signal.SIGHUP, "matplotlib.figure"),  # when a part of what is asked for is written
    ],
)
def test_a_signal_while_libraries_are_loaded_is_said(
    number: signal.Signals, module: str, beauty_out: Path, tmp_path: Path
) -> None:
    begin = f"""
import os, signal, sys
signal.signal({number}, signal.SIG_DFL)  # whoever runs the tests may have it ignored, as nohup does
class Stop:
    def find_spec(self, name, *more):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), {number})
                for _ in range(9):
                    pass
            except BaseException:  # as a library may, that goes on without a part
                raise ImportError
sys.meta_path.insert(0, Stop())
sys.argv[1:] = ["correlate", {str(beauty_out)!r}, "--out", {str(tmp_path / "to")!r}]
from pipeline.start import run
run()
"""
    done = subprocess.run(
        [sys.executable, "-c", begin], capture_output=True, text=True, check=False
    )
    assert done.returncode == INTERRUPTED, done.stderr
    assert done.stderr.startswith("error: Interrupted.\n")
    assert done.stderr.count("\n") == 1 + (module != "pipeline.cli.look")
    assert not [path for path in tmp_path.rglob("*") if UNFINISHED.fullmatch(path.name)]


@pytest.mark.parametrize("module", ["fcntl", "resource"])
def test_a_system_without_what_is_needed_is_said(module: str) -> None:
    begin = f"import sys; sys.modules[{module!r}] = None; from pipeline.start import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", begin], capture_output=True, text=True, check=False
    )
    assert done.returncode == FAULT
    assert done.stderr.startswith("error: tinprep needs Linux or macOS")
    assert done.stderr.count("\n") == 1


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(amazon(write_raw(tmp_path / "raw", GOOD, META), out))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(tinprep("report", out, "--out", pipe), USAGE, pipe, "a device or the like")
    assert pipe.is_fifo()
    refused(tinprep("report", out, "--out", tmp_path), USAGE, tmp_path, "a folder")


@pytest.mark.parametrize("what", ["a file", "a link to"])
def test_what_stands_in_the_place_of_a_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out, here = tmp_path / "out", Path("here")
    finished(amazon(write_raw(tmp_path / "raw", GOOD, META), out))
    here.touch() if what == "a file" else here.symlink_to("nowhere")
    for words in (
        ["amazon", "--category", "Beauty", "--raw", "raw", "--out"],
        ["train", out, "--run"],
        ["correlate", out, "--out"],
        ["synthesize", "amazon", "--scale", 0.001, "--out"],
        ["synthesize", "alibaba", "--scale", 0.001, "--out"],
    ):
        for path in (here, here / "below"):
            refused(tinprep(*words, path), USAGE, "cannot be made", here, what)
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "out", "here"}


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (loop := tmp_path / "loop").symlink_to("loop")
    refused(tinprep("train", loop), 5, loop, "symbolic links")
    refused(tinprep("describe", loop), 3, loop, "a link to nothing")


@pytest.mark.parametrize("below", [".", "train"])
def test_no_run_is_put_into_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    out = tmp_path / "out"
    finished(amazon(write_raw(tmp_path / "raw", GOOD, META), out))
    before = sorted(out.rglob("*"))
    monkeypatch.chdir(out / below)
    refused(tinprep("train", out, "--epochs", 1), USAGE, out / "manifest.json")
    refused(tinprep("train", ".", "--epochs", 1), INPUT if below != "." else USAGE)
    assert sorted(out.rglob("*")) == before
    monkeypatch.chdir(out)
    finished(tinprep("train", ".", "--epochs", 1, "--run", tmp_path / "run"))
    monkeypatch.chdir(tmp_path / "run")
    finished(tinprep("train", "../out", "--epochs", 1))
    assert Path("runs/out-tin-0/metrics.json").exists()


def test_a_file_where_a_folder_belongs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for command in ("inspect", "verify", "train"):
        refused(tinprep(command, file), INPUT, file, "the folder of a finished data set")
    raw = write_raw(tmp_path / "raw", GOOD, META)
    for out in (file, file / "x"):
        refused(amazon(raw, out), USAGE, file, "a folder")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("correlate missing", INPUT),
        *((f"reproduce {name} missing", INPUT) for name in ("fig1", "fig3", "fig4", "fig5", "all")),
        ("predict missing missing", USAGE),
        ("train missing", INPUT),
        ("amazon --raw missing", INPUT),
        ("alibaba --raw missing", INPUT),
        ("amazon --demo --bins 0", USAGE),
        ("alibaba --demo --bins 0", USAGE),
        ("synthesize amazon --scale -1", USAGE),
        ("synthesize amazon --category a/b", USAGE),
        ("synthesize alibaba --seed -1", USAGE),
    ],
)
def test_what_cannot_begin_leaves_nothing(
    command: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    to = "--run" if command.startswith("train") else "--out"
    refused(tinprep(*command.split(), to, "some/where.parquet"), code)
    assert not list(tmp_path.iterdir())


def test_a_damaged_shard_leaves_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(amazon(write_raw(tmp_path / "raw", GOOD, META), out))
    shard = next((out / "train").iterdir())
    content = shard.read_bytes()
    third = len(content) // 3
    shard.write_bytes(content[:third] + bytes(third) + content[2 * third :])
    for command in (("correlate",), ("reproduce", "fig4")):
        refused(tinprep(*command, out, "--out", tmp_path / "a/b"), INPUT, "shard cannot be read")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_a_preparation_that_is_there_is_told_from_another(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw", GOOD, META), tmp_path / "out"
    finished(amazon(raw, out))
    assert "nothing to do" in amazon(raw, out).err
    refused(amazon(raw, out, "--bins", 3), USAGE, "expected: bins 3 got: bins 10 do:")
    write_raw(raw, GOOD[:-1], META)
    refused(amazon(raw, out), USAGE, "expected: reviews_Beauty_5.json.gz", "got: reviews_Beauty")


def test_what_a_terminal_shows_is_no_markdown(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(amazon(write_raw(tmp_path / "raw", GOOD, META), out))
    ended = tinprep("correlate", out, "--out", tmp_path / "figures")
    finished(ended)
    assert not {"|", "*"} & {*ended.out}
    assert "Red" in ended.out
    assert "| **Red** |" in (tmp_path / "figures/fig1.md").read_text()


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    out = os.fsdecode(bytes(tmp_path / "out") + b"\xff")
    refused(amazon(write_raw(tmp_path / "raw", GOOD, META), Path(out)), USAGE, "\\udcff")


def test_a_ctrl_c_that_polars_panics_of_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    import polars as pl
    import typer

    from pipeline.cli.errors import told_errors

    for text, kind in (
        ("type: KeyboardInterrupt", typer.Exit),
        ("a fault", BaseException),
    ):
        panic = pl.exceptions.PanicException(text)
        with pytest.raises(kind) as left, told_errors():
            raise panic
        assert (left.value is panic) == (kind is BaseException)
    assert capsys.readouterr().err.count("error: Interrupted.") == 1


def test_a_ctrl_c_that_is_told_is_not_told_again() -> None:
    script = """
import contextlib, signal, time, typer
from pipeline.cli.errors import told_errors
from schemas import interrupts

class Asked:
    def __del__(self):  # what is raised here is raised again a moment later
        signal.raise_signal(signal.SIGINT)

interrupts.watch()
with contextlib.suppress(typer.Exit), told_errors():
    Asked()
    raise RuntimeError("a library was stopped")
time.sleep(0.2)
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stderr.count("error: Interrupted.") == 1
    assert ended.stdout == "ended\n"


@pytest.mark.parametrize(
    ("command", "kilobytes"), [("train", 200_000), ("amazon", 400_000), ("inspect", 1_000_000)]
)
def test_too_few_addresses_are_told_in_a_line(command: str, kilobytes: int, tmp_path: Path) -> None:
    script = f'ulimit -v {kilobytes}; exec "$0" -c "from pipeline.start import run; run()" "$@"'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable, command, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 5
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
