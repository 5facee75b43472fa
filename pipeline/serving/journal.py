"""The log of a server: each event and each request, in the order that they came, and the scores.

A JSON object a line, in ASCII, so that nothing of a request is more than text to what reads it. A
log begins with the events that are held. So with the data set it tells what each user had done by
each request, and every score can be made again: `tinprep verify BUNDLE --log LOG --events DATA`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline.serving import events, files
from pipeline.serving.arrivals import Arrived
from pipeline.serving.live import Live, Stored
from pipeline.serving.requests import USER, Words
from pipeline.serving.scorer import Scorer, newcomers, require_alike
from schemas import bundle, manifest
from schemas.checked import Misfit, build, is_finite
from schemas.errors import ContractError

BEGUN, BASE, EVENT = "begun", "base", "event"
_SHOWN = 200
_Event = tuple[int, int, int | str, int, dict[str, list[int]], str]
_MOST = 1 << 20  # bytes that are held back, at most


class Journal:
    """A log that is written behind the answers, and never stops them.

    Lines that the disk does not take are lost, and counted.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lost = path, 0
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._size = 0
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def begin(self, sequence: int, base: str) -> None:
        """What is held follows, of all that came behind a data set up to here."""
        self.write({BEGUN: sequence, BASE: base})

    def event(self, stored: Stored) -> None:
        """An event is in its histories."""
        of = stored.event
        self.write({EVENT: [stored.sequence, stored.row, of.user, of.time, of.ids, of.own]})

    def write(self, line: dict[str, Any]) -> None:
        """A line; a number of JSON that is too long for others is written as Python does."""
        try:
            text = self._encode(line)
        except (OverflowError, ValueError, msgspec.MsgspecError):
            text = json.dumps(line).encode()
        if not text.isascii() or b"\x7f" in text:
            text = json.dumps(msgspec.json.decode(text)).encode().replace(b"\x7f", b"\\u007f")
        self._lines.append(text + b"\n")
        self._size += len(text)
        if self._size > _MOST:
            self.flush()

    def flush(self) -> None:
        """Hand over what is held back."""
        if not self._lines:
            return
        lines, data = len(self._lines), b"".join(self._lines)
        self._lines, self._size = [], 0
        try:
            written = os.write(self._file, data)
        except OSError:
            self.lost += lines
            return
        if written < len(data):  # the disk is full: what is cut is no line
            self.lost += data.count(b"\n", written) + 1

    def again(self) -> None:
        """Go on in a new file of the same name, as the old one was moved."""
        self.flush()
        try:
            found = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError:  # the old file goes on
            return
        os.close(self._file)
        self._file = found

    def close(self) -> None:
        """Hand over all, and close the file."""
        self.flush()
        os.close(self._file)


def replayed(log: Path, folder: Path, data: Path) -> int:
    """Hold a log to what its requests come to now; returns how many there are.

    Raises:
        InputError: the log cannot be read.
        ContractError: a score is another one; or the data set is another.
        UsageError: the data set keeps no events.
    """
    lines, count = files.objects(log), 0
    live, scorer = None, None
    for number, raw in lines:
        if BEGUN in raw or scorer is None:
            live, scorer = _at_work(folder, data, BEGUN in raw)
        if BEGUN in raw:
            if raw.get(BASE) != (base := events.digest(manifest.load(data))):
                raise ContractError(
                    "From here on the log is of another data set.",
                    where=log,
                    line=number,
                    expected=f"behaviours of sha256 {raw.get(BASE)!a}"[:_SHOWN],
                    got=base,
                    do="give that one; where there are several, a part of the log for each",
                )
            continue
        if EVENT in raw and live is not None:
            live.add(_stored(log, number, raw[EVENT]))
            continue
        wanted = raw.pop("scores", None)
        raw.pop("sequence", None)
        request = files.read_request(log, number, raw, scorer.bundle.data.time_unit)
        got = scorer.score(files.features(scorer, log, number, request))
        if (
            not isinstance(wanted, list)
            or len(wanted) != len(got)
            or not all(map(is_finite, wanted))
        ):
            expected = "scores, one a candidate, as `--log` has them"
            raise files.misfit(log, number, expected, str(wanted))
        if not np.allclose(got, wanted, rtol=0, atol=files.ROUNDING):
            raise ContractError(
                "A logged request does not come out as it did.",
                where=log,
                line=number,
                expected=str(wanted)[:_SHOWN],
                got=str(got.tolist())[:_SHOWN],
                do="replay it with the bundle and the events that it was scored with",
            )
        count += 1
    return count


def _at_work(folder: Path, data: Path, served: bool) -> tuple[Live | None, Scorer]:
    """What scores requests, and of a server what users do."""
    if not served:
        return None, Scorer.of(folder, data)
    found, made = bundle.load(folder), manifest.load(data)
    require_alike(found, made, data)
    users = Words(folder / f"vocabulary/{USER}.parquet")
    live = Live(made, data, users, newcomers(data, made, users), events.read(data, made))
    return live, Scorer(found, folder, live.pasts, 1, live.newcomers)


def _stored(log: Path, number: int, raw: Any) -> Stored:
    try:
        kind: Any = _Event
        sequence, row, user, time, ids, own = build(kind, raw)
    except Misfit as error:
        raise files.misfit(log, number, f"{error.at}: {error.expected}", error.got) from None
    of = {name: tuple(some) for name, some in ids.items()}
    return Stored(sequence, row, Arrived(user, time, of, own))
