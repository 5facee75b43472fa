"""Files of others: whatever they are called, no command changes or removes one."""

from __future__ import annotations

from pathlib import Path

from schemas.alone import LOCK
from tests.conftest import amazon, finished, refused, write_raw
from tests.test_bad_input import GOOD, META, USAGE


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
