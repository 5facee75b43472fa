"""Posted events against the same events in files: histories are those that `transform` makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from pipeline.serving.arrivals import Arrivals, Arrived, Event
from pipeline.serving.events import nobodies, read
from pipeline.serving.live import Live, Stored
from pipeline.serving.requests import USER, Features, Known, Words
from schemas import manifest
from schemas.errors import UsageError
from tests.conftest import tinprep
from tests.description_made import Log, Made, descriptions
from tests.description_oracle import Oracle, files_of
from tests.test_new_events import EXAMPLES, prepare, split

Rows = dict[Any, list[tuple[int, ...]]]


def posted(name: str, log: Log) -> list[Event]:
    """The lines of a log as events."""
    return [
        Event(f"{name}-{k}", {n: row.get(n) for n in log.columns}, name)
        for k, row in enumerate(log.rows)
    ]


def grown(out: Path, events: list[Event]) -> dict[str, Rows]:
    """History -> user -> the behaviours, once some events came behind those of a data set."""
    made = manifest.load(out)
    pasts = read(out, made)
    features = Features(out, made, pasts)
    arrivals = Arrivals(out, made, features)
    live = Live(made, out, features.words[USER], nobodies(out, made), pasts)
    assert made.kept is not None
    rows = dict(made.kept.rows)
    known = [one for one in events if one.table in arrivals.tables]
    for event, found in zip(known, arrivals(known), strict=True):
        row = rows[str(event.table)]
        rows[str(event.table)] = row + 1
        if isinstance(found, Arrived):
            live.add(Stored(live.sequence + 1, row, found))
    users = {id_: value for value, id_ in (features.words[USER].ids | live.newcomers).items()}
    return {
        n: {u: rows_of(one.of(id_)) for id_, u in users.items()} for n, one in live.pasts.items()
    }


def news(out: Path, row: dict[str, Any]) -> bool:
    """Whether an event is of something that may be in the lookups' files, and not in a bundle's."""
    made = manifest.load(out)
    for key, column in (("item", "what"), (USER, "uid")):
        if key in made.lookups and row.get(column) is not None:
            known = Known.of(out, made, key)
            words = Words(out / f"vocabulary/{key}.parquet")
            id_ = words.of(row[column])
            if known.begins[id_] == known.begins[id_ + 1] and row[column] not in known.places:
                return True
    return False


def rows_of(past: Any) -> list[tuple[int, ...]]:
    return [*zip(past.time.tolist(), *(of.tolist() for of in past.fields.values()), strict=True)]


@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(made=descriptions(), late=st.sets(st.integers(0, 60), min_size=1, max_size=12))
def test_posted_events_make_the_histories_that_files_make(
    made: Made, late: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("made")
    first, second, _, _ = split(made, late, set())
    path = first.write(folder / "a")
    assume(not Oracle(path, folder / "a").wrong)
    assume(prepare(path, folder / "out").code == 0)
    for log in second.logs.values():
        log.rows[:] = [row for row in log.rows if not news(folder / "out", row)]
    second.write(folder / "b")
    files, events = [], []
    for name, table in second.description["tables"].items():
        if not second.logs[f"tables.{name}"].rows:
            continue
        events += posted(name, second.logs[f"tables.{name}"])
        for file in files_of(table["files"], folder / "b"):
            files += ["--events", f"{name}={file}"]
    how = ("--max-rejected", "100%", "--keep-events", "--out", folder / "new")
    assume(tinprep("transform", folder / "out", *files, *how).code == 0)
    try:
        found = grown(folder / "out", events)
    except UsageError:
        return
    new = manifest.load(folder / "new")
    users = {id_: value for value, id_ in Words(folder / "new/vocabulary/user.parquet").ids.items()}
    for name, of in read(folder / "new", new).items():
        for id_, user in users.items():
            assert found[name].get(user, []) == rows_of(of.of(id_)), (name, user)
