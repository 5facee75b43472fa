"""Rows of a data set as requests: what was made for a row has to be made for its request again.

A bundle holds some of them, with their users' events, features and scores, so that it can be proved
wherever it is: its golden requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.serving import events, files
from pipeline.serving.features import Columns
from pipeline.serving.requests import USER, Features, Request
from pipeline.serving.scorer import Scorer, fitting
from schemas import manifest
from schemas.arrays import Int64s
from schemas.bundle import Bundle
from schemas.errors import ContractError
from schemas.manifest import Manifest
from schemas.shards import session_prefix

REQUESTS, EXPECTED = "golden/requests.jsonl", "golden/expected.parquet"
PAST = "golden/past-{}.parquet"

Row = dict[str, Any]
_MANY = 32  # golden requests, at least, where there are so many targets
_SHOWN = 200
_NOT_FEATURES = ("row", "user", "label", "weight")


class Asked(NamedTuple):
    """A target, and its negatives, as a request.

    Attributes:
        rows: where in their shard the candidates' rows are. A row whose negative is a rare value,
            drawn as unknown, is left out: no request can name it.
    """

    request: Request
    rows: list[int]


def _events(out: Path, made: Manifest, rows: Int64s) -> dict[int, Row]:
    """Row -> the kept event of the targets' table, with its raw values; of some rows."""
    table, some = made.target.table, pc.field("row").isin(pa.array(rows))
    files = [out / one.path for one in made.tables if one.path.startswith(f"events/{table}-")]
    found = (pq.read_table(file, partitioning=None, filters=some) for file in files)
    return {row["row"]: row for events in found for row in events.to_pylist()}


def requests_of(features: Features, shard: pa.Table, data: Path, each: int = 1) -> Iterator[Asked]:
    """The rows of a shard as requests, one a target.

    Of `each` targets one is asked for.
    """
    made, drawn = features.made, features.made.target.negatives
    row = shard["row"].to_numpy()
    begins = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
    # The manifest of a bundle, which `made` may be, names no events.
    raw = _events(data, manifest.load(data), row[begins[::each]])
    words = features.words[drawn.field].ids if drawn is not None else {}
    values = {id_: value for value, id_ in words.items()}
    columns = _own(made)
    for first, end in islice(pairwise([*begins.tolist(), len(row)]), 0, None, each):
        event = raw[int(row[first])]
        own = {name: event[name] for name in columns if name in event}
        candidates, rows = [own], [first]
        if drawn is not None:
            ids = shard[f"target_{drawn.field}"][first + 1 : end].to_pylist()
            looked_up = made.lookups[drawn.field].fields if drawn.field in made.lookups else ()
            # What an event says of its own value is not said of another one.
            others = {name: of for name, of in own.items() if name not in looked_up}
            rows += [first + 1 + k for k, id_ in enumerate(ids) if id_ in values]
            candidates += [others | {drawn.field: values[id_]} for id_ in ids if id_ in values]
        asked = Request(event["user"], event["time"], candidates)
        yield Asked(_in_order(features, asked, shard, first), rows)


def _own(made: Manifest) -> list[str]:
    """The columns of targets that their events say: of what is looked up in the table, others do.

    Where no description says it, all that are kept of an event are its own.
    """
    every = [*made.fields, *made.features]
    table = made.description.get("tables", {}).get(made.target.table)
    if table is None:
        return every
    parts = (table.get(part) or {} for part in ("fields", "features", "numbers", "lists"))
    own = {name for part in parts for name in part}
    return [name for name in every if name in own]


def _in_order(features: Features, request: Request, shard: pa.Table, first: int) -> Request:
    """The request with what came before it, where a history's window is by order.

    Of events of the request's own time some stand before the target and some behind it: that is
    found by what the row holds.
    """
    user, arrived = features.words[USER].of(request.user), {}
    for name, cut in features.cuts.items():
        if cut.rule.window != "order":
            continue
        past = features.pasts[name].of(user)
        low, high = (int(past.time.searchsorted(request.time, side)) for side in ("left", "right"))
        for count in range(low, high + 1):
            arrived[name] = count
            columns = cut(past, request.time, count)
            if not any(_differs(columns, features.made, shard, n, first, 0) for n in columns):
                break
    return Request(request.user, request.time, request.candidates, request.context, arrived)


def differing(columns: Columns, made: Manifest, shard: pa.Table, asked: Asked) -> list[str]:
    """The columns in which a request's features are not those of its rows."""
    names = [n for n in shard.column_names if n not in (*_NOT_FEATURES, *made.keep)]
    return [
        name
        for name in names
        if any(_differs(columns, made, shard, name, at, k) for k, at in enumerate(asked.rows))
    ]


def _differs(
    columns: Columns, made: Manifest, shard: pa.Table, name: str, row: int, candidate: int
) -> bool:
    """Whether a column of a request is another than that of a row."""
    kind, want = shard.schema.field(name).type, shard[name][row].as_py()
    values = columns[name]
    of_history = any(name.startswith(f"{of}_") for of in (*made.histories, *_sessions(made)))
    if not of_history or name in made.features:
        values = values[candidate]
    if not isinstance(want, list):
        return bool(np.ravel(values)[0] != np.array(want, values.dtype))
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    found: list[Any] = np.ravel(values).tolist()
    if size is None:
        length = columns.get(f"{name}_length") if name in made.features else None
        return found[: None if length is None else int(length[candidate])] != want
    for prefix, (_, most) in _sessions(made).items():
        if name.startswith(f"{prefix}_") and name != f"{prefix}_length":
            found = _spread(found, columns[f"{prefix}_length"].tolist(), most)
    return found + [0] * (size - len(found)) != want


def _sessions(made: Manifest) -> dict[str, tuple[int, int]]:
    """What the columns of sessions begin with, and their shape."""
    return {session_prefix(name): one.shape for name, one in made.histories.items() if one.shape}


def _spread(values: list[Any], lengths: Sequence[int], most: int) -> list[Any]:
    """Sessions, one after the other, each with cells for `most` behaviours."""
    ends = np.cumsum([0, *lengths]).tolist()
    each = [values[a:b] for a, b in pairwise(ends)]
    return [*chain(*([*some, *[0] * (most - len(some))] for some in each))]


def write(folder: Path, of: Bundle, data: Path) -> int:
    """Write a bundle's golden requests; returns how many: none of a data set without its events.

    Raises:
        ContractError: a row's request has other features than the row.
    """
    made = manifest.load(data)
    if made.kept is None or of.shape != "request" or not made.shards:
        return 0
    pasts = events.read(data, made)
    scorer = Scorer(of, folder, pasts)
    last = made.shards[-1]
    shard = pq.read_table(data / last.path, partitioning=None).combine_chunks()
    targets = len(np.unique(shard["row"].to_numpy()))
    (folder / REQUESTS).parent.mkdir()
    rows: list[Row] = []
    users: dict[int, None] = {}
    with (folder / REQUESTS).open("w", encoding="utf-8") as file:
        for asked in requests_of(scorer.features, shard, data, max(1, targets // _MANY)):
            columns = scorer.features(asked.request)
            if wrong := differing(columns, made, shard, asked):
                raise ContractError(
                    "The features of a request are not those of its row.",
                    where=data / last.path,
                    expected=f"row {asked.rows[0]} as it is stored",
                    got=f"another {', '.join(wrong)}",
                    do="this is a fault of tinprep: please report it",
                )
            file.write(files.written(asked.request))
            rows.append(_told(columns) | {"score": scorer.score(columns).tolist()})
            users[scorer.features.words[USER].of(asked.request.user)] = None
    pq.write_table(pa.Table.from_pylist(rows), folder / EXPECTED, compression="zstd")
    for name, table in events.of_users(pasts, sorted(users)).items():
        pq.write_table(table, folder / PAST.format(name), compression="zstd")
    return len(rows)


def check(folder: Path, of: Bundle) -> int:
    """Hold a bundle to its golden requests; returns how many there are.

    Raises:
        ContractError: a feature differs, or a score by more than its rounding; or the bundle's
            files do not fit together.
    """
    if not (folder / EXPECTED).exists():
        return 0
    with fitting(folder):
        return _checked(folder, of)


def _checked(folder: Path, of: Bundle) -> int:
    tables = {name: pq.read_table(folder / PAST.format(name)) for name in of.data.histories}
    scorer = Scorer(of, folder, events.of_tables(tables))
    expected = pq.read_table(folder / EXPECTED).to_pylist()
    asked = files.requests(folder / REQUESTS, of.data.time_unit)
    for want, (line, request) in zip(expected, asked, strict=True):
        columns = scorer.features(request)
        got = _told(columns)
        scores, wanted = scorer.score(columns), want.pop("score")
        wrong = [name for name in want if got[name] != want[name]]
        if wrong or not np.allclose(scores, wanted, rtol=0, atol=files.ROUNDING):
            name = wrong[0] if wrong else "score"
            raise ContractError(
                "A golden request does not come out as it did.",
                where=folder / REQUESTS,
                line=line,
                expected=f"{name} {want[name] if wrong else wanted}"[:_SHOWN],
                got=str(got[name] if wrong else scores.tolist())[:_SHOWN],
                do="do not use the bundle here: export it again, with this version",
            )
    return len(expected)


def _told(columns: Columns) -> Row:
    """A request's features as lists."""
    return {name: np.ravel(values).tolist() for name, values in columns.items()}
