"""Files of others in folders of data sets: no preparation changes or removes one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.flow import prepare
from pipeline.presets.amazon import AmazonConfig
from pipeline.record import RECORD, Record, as_line
from schemas import manifest
from schemas.errors import UsageError
from schemas.manifest import NAME
from tests.conftest import amazon, finished, refused, tinprep, write_raw
from tests.crash_command import Command
from tests.crash_harness import content, fault, kill_at_change
from tests.test_bad_input import GOOD, META, USAGE

FOLDERS = ("", *manifest.FOLDERS, ".work", ".work/behaviours")
NAMES = (
    *("part-00000.parquet", "part-00007.parquet", "items.parquet", "item.parquet", "photo.jpg"),
    *("reviews.parquet", "bucket-00000.arrow", "bucket-00009.arrow", "record", "key.json"),
    *("manifest.json", ".tmp-manifest.json", ".tinprep-00ff-0123456789abcdef.unfinished"),
)


def command(raw: Path) -> Command:
    """A preparation in an instant."""
    told = ("--category", "Beauty", "--raw", str(raw), "--buckets", "2", "--threads", "1")
    return Command("instant", ("amazon", *told))


def state_of(folder: Path) -> dict[str, object]:
    """All that is in a folder: bytes of files, ends of links, names of folders."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        held = path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        found[path.relative_to(folder).as_posix()] = held
    return found


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw"), GOOD, META)


@pytest.fixture(scope="module")
def folders(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Output folders before a first run, killed at some changes of files, and finished."""
    at = tmp_path_factory.mktemp("folders")
    run = command(raw)
    made = {"new": at / "new", "whole": at / "whole"}
    made["new"].mkdir()
    prepare(AmazonConfig(out=made["whole"], raw=raw, category="Beauty", buckets=2, threads=1))
    for change in (11, 26, 50):
        made[f"killed {change}"] = at / f"killed-{change}"
        assert kill_at_change(run.line(made[f"killed {change}"], changes=change))
    made["replaced"] = at / "replaced"
    shutil.copytree(made["whole"], made["replaced"])
    assert kill_at_change(run.line(made["replaced"], "--force", changes=8))
    return made


PLANTED = st.tuples(
    st.sampled_from(("new", "killed 11", "killed 26", "killed 50", "replaced", "whole")),
    st.sampled_from(FOLDERS),
    st.one_of(st.sampled_from((*NAMES, *FOLDERS[1:-1])), st.text("aZ0.-_ é\n", min_size=1)),
    st.sampled_from(("file", "empty file", "folder", "full folder", "link", "link to a folder")),
    st.booleans(),
)


@given(planted=PLANTED)
@example(planted=("new", "", "train", "full folder", False))
@example(planted=("new", "", "train", "link to a folder", True))
@example(planted=("new", "", "behaviours", "empty folder", False))
@example(planted=("new", "", NAME, "file", True))
@example(planted=("whole", "train", "part-00007.parquet", "file", True))
@example(planted=("whole", "", ".DS_Store", "file", False))
@example(planted=("killed 50", ".work", "record.bak", "file", True))
@settings(max_examples=150)
def test_no_file_of_others_is_ever_changed_or_removed(
    raw: Path,
    folders: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    planted: tuple[str, str, str, str, bool],
) -> None:
    story, folder, name, kind, force = planted
    at = tmp_path_factory.mktemp("planted")
    out, elsewhere = at / "out", at / "elsewhere"
    (elsewhere / "part-00000.parquet").mkdir(parents=True)
    (elsewhere / "mine").write_text("mine")
    shutil.copytree(folders[story], out, symlinks=True)
    mine = out / folder / name
    record = Record.read(out) if (out / RECORD).is_file() else None
    ours = record is not None and f"{folder}/{name}".strip("/") in record.files
    if name in (".", "..") or mine.exists() or mine.is_symlink() or ours:
        return  # no other's, but ours
    mine.parent.mkdir(parents=True, exist_ok=True)
    if kind in ("file", "empty file"):
        mine.write_text("mine" if kind == "file" else "")
    elif kind.startswith("link"):
        mine.symlink_to(elsewhere / ("mine" if kind == "link" else ""))
    else:
        mine.mkdir()
        if kind == "full folder":
            (mine / "photo.jpg").write_text("mine")
    before = state_of(at)
    config = AmazonConfig(out=out, raw=raw, category="Beauty", buckets=2, threads=1, force=force)
    # An empty folder may be used; an empty record is one that was just begun.
    usable = mine.is_dir() and not mine.is_symlink() and not any(mine.iterdir())
    usable = usable and mine.relative_to(out).as_posix() in FOLDERS
    usable = usable or (kind == "empty file" and f"{folder}/{name}" == RECORD)
    done = story == "whole" and not force  # nothing is written
    try:
        prepare(config)
        assert usable or done
    except UsageError as error:
        assert not (usable or done)
        assert error.exit_code == USAGE
        assert str(out) in str(error)
        assert state_of(at) == before
    kept = state_of(at) == before if done or not usable else mine.is_dir()
    assert kept or f"{folder}/{name}" == RECORD
    shutil.rmtree(at)


@pytest.mark.parametrize(
    ("raw_at", "out_at"),
    [("d", "d"), ("d/train", "d"), ("d", "d/out"), ("link", "d"), ("d/raw/../train", "d")],
)
def test_raw_files_and_data_set_are_not_in_one_another(
    raw: Path, raw_at: str, out_at: str, tmp_path: Path
) -> None:
    at = tmp_path / "d" / ("train" if "train" in raw_at else "")
    shutil.copytree(raw, at)
    (tmp_path / "d" / "raw").mkdir()
    (tmp_path / "link").symlink_to(at)
    before = state_of(tmp_path)
    for flags in ((), ("--force",)):
        refused(amazon(tmp_path / raw_at, tmp_path / out_at, *flags), USAGE, "folders of their own")
    assert state_of(tmp_path) == before


def test_a_damaged_record_is_said(raw: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(folders["killed 50"], out)
    record = (out / RECORD).read_bytes()
    for damaged in (b"\0" * len(record), record.replace(b"file", b"fiel"), record[20:]):
        (out / RECORD).write_bytes(damaged)
        before = state_of(out)
        refused(amazon(raw, out), USAGE, f"{RECORD}, is damaged", "by hand", "give another --out")
        assert state_of(out) == before


def test_names_lead_to_no_file_outside(raw: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    for at, name in enumerate(("../mine", str(tmp_path / "mine"), "train/../../mine")):
        (tmp_path / "mine").write_text("mine")
        out = tmp_path / f"record-{at}"
        shutil.copytree(folders["killed 50"], out)
        with (out / RECORD).open("ab") as record:
            record.write(as_line("file", name, 4, 0, "x") + as_line("replaced", name))
        finished(amazon(raw, out, "--bins", 4))
        out = tmp_path / f"manifest-{at}"
        shutil.copytree(folders["whole"], out)
        held = json.loads((out / NAME).read_text())
        held["shards"].append({"path": name, "rows": 0, "sha256": ""})
        (out / NAME).write_text(json.dumps(held))
        finished(amazon(raw, out, "--force"))
        assert (tmp_path / "mine").read_text() == "mine"


def test_a_demo_is_not_made_where_it_may_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("amazon", "alibaba"):
        refused(tinprep(command, "--demo", "--out", "data"), USAGE, "folders of their own")
        (tmp_path / command / "train").mkdir(parents=True)
        (tmp_path / command / "train" / "photo.jpg").write_text("mine")
        refused(tinprep(command, "--demo", "--out", command), USAGE, "train/photo.jpg")
        shutil.rmtree(tmp_path / command)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("story", ["killed 11", "killed 26", "killed 50", "replaced"])
def test_without_files_of_others_the_same_folders_are_finished(
    story: str, raw: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folders[story], out)
    finished(tinprep(*command(raw).arguments, "--out", out))
    want, got = content(folders["whole"]), content(out)
    assert not fault(got, want)
