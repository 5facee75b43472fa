"""The checks of a block of rows: ids, times, positions, bins, sessions, negatives, lookups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.verify.blocks import SHORTEST_SESSION, Block, Values
from pipeline.verify.contract import Contract, History, Negatives
from pipeline.verify.tables import IdLists, Table
from schemas.arrays import Bools
from schemas.manifest import FIRST_ID, UNKNOWN_ID

_CLOSE = 1e-5  # a stored number is a float32: 24 bits


def check_block(block: Block, lookups: Sequence[Table], contract: Contract) -> None:
    """Check some rows; `lookups` are those that could be read."""
    for name, size in contract.made.vocabulary.items():
        columns = [contract.target(name), *([name] if name in contract.made.lists else [])]
        low = FIRST_ID if name in contract.known else UNKNOWN_ID
        for rule in contract.histories:
            columns += [rule.column(name), rule.session_column(name)] if name in rule.fields else []
        for column in columns:
            if column in block.columns:
                good = (block[column] >= low) & (block[column] < size)
                block.hold("id outside its vocabulary", column, good, f"{low} to {size - 1}")
    label, time = block["label"], block["target_time"]
    block.hold("label", "label", (label == 0) | (label == 1), "0 or 1")
    block.hold("row number", "row", block["row"] >= 0, "0 or more")
    good = (time >= 0) & (time <= contract.split.latest)
    block.hold("time", "target_time", good, f"0 to {contract.split.latest}")
    for name in contract.made.numbers:
        block.hold("number", name, np.isfinite(block[name]), "a finite number")
    if contract.made.weight:
        weight = block["weight"]
        good = (weight >= 0) & (weight < np.inf)
        block.hold("weight", "weight", good, "a finite number, 0 or more")
    for rule in contract.histories:
        _check_history(block, rule)
    if contract.least:
        held = np.sum([block[one.column("length")] for one in contract.histories], axis=0)
        name = contract.histories[0].column("length")
        block.hold("too few behaviours", name, held >= contract.least, f"{contract.least}", held)
    if contract.new is not None:
        _check_new(block, contract.new, contract)
    if contract.negatives is not None:
        _check_negatives(block, contract.negatives, contract)
    for table in lookups:
        _check_lookup(block, table, contract)


def _check_history(block: Block, rule: History) -> None:
    """Times, positions, sessions and interval bins of each behaviour."""
    name = rule.column("time")
    time, interval, offsets = block[name], block[rule.column("interval")], block.offsets[name]
    steps = np.diff(time)
    inside = np.ones(len(steps), np.bool_)  # whether a behaviour and the next are of one row
    ends = offsets[1:-1]
    inside[ends[(ends > 0) & (ends < len(time))] - 1] = False
    breaks = (steps > rule.session_gap) & inside
    if all(rule.session_column(one) in block.columns for one in ("length", *rule.fields)):
        _check_sessions(block, rule, np.append(breaks | ~inside, True)[: len(time)])
    least, most = rule.interval
    expected = f"{least} or more before the target"
    block.hold("future behaviour", name, interval >= least, expected)
    if most is not None:
        block.hold("old behaviour", name, interval <= most, f"{most} or less before the target")
    block.hold("time", name, time >= 0, "0 or later")
    ordered = np.append(True, (steps >= 0) | ~inside)[: len(time)]
    block.hold("time order", name, ordered, "not before the behaviour before it")
    newest = offsets[1:][np.diff(offsets) > 0] - 1
    for one, step in (("position", np.bool_(True)), ("session", breaks)):
        name, values = rule.column(one), block[rule.column(one)]
        good = np.append((values[:-1] - values[1:] == step) | ~inside, True)[: len(time)]
        good[newest] &= values[newest] == 1
        block.hold(f"history {one}", name, good, "1 at the newest, counted backwards")
    name, edges, (above, up_to) = rule.column("interval_bin"), rule.bins.edges_s, rule.bounds
    good = (interval > above[block[name]]) & (interval <= up_to[block[name]])
    block.hold("interval bin", name, good, lambda cell: 1 + np.searchsorted(edges, interval[cell]))


def _check_sessions(block: Block, rule: History, ends: Bools) -> None:
    """Hold DSIN's sessions against the stored history, as far back as that goes.

    A history of max_len behaviours may begin within a session: that one is known from its newest
    behaviours only, and older ones not at all. `ends`, (cells,): whether a session ends there.
    """
    assert rule.sessions is not None
    (most, longest), name = rule.sessions, rule.session_column("length")
    stored, first, offsets = block[name], block.offsets[name], block.offsets[rule.column("time")]
    full = np.diff(offsets) == rule.max_len
    last = np.flatnonzero(ends)
    size = np.diff(last, prepend=-1)
    row = np.searchsorted(offsets, last, side="right") - 1
    cut = (last - size < offsets[row]) & full[row]
    kept = size >= SHORTEST_SESSION
    row, last, size, cut = row[kept], last[kept], size[kept], cut[kept]
    count, held = np.bincount(row, minlength=len(block)), np.diff(first)
    wanted = np.minimum(count, most)
    good = (held == wanted) | ((held > wanted) & full)
    block.hold("sessions", "sessions", good, wanted, held)
    rank = np.cumsum(count)[row] - 1 - np.arange(len(row))  # 0 is a row's latest
    shown = (rank < most) & good[row]
    row, last, size, cut, rank = row[shown], last[shown], size[shown], cut[shown], rank[shown]
    at = first[row] + rank
    has, wanted = stored[at], np.minimum(size, longest)
    fine = (has == wanted) | ((has > wanted) & cut)
    same = np.minimum(has, wanted)
    of_session = np.cumsum(same)
    back = np.arange(same.sum()) - np.repeat(of_session, same)  # -1 is the newest
    ours, theirs = np.repeat(np.cumsum(stored)[at], same) + back, np.repeat(last + 1, same) + back
    for name in rule.fields:
        differ = block[rule.session_column(name)][ours] != block[rule.column(name)][theirs]
        fine[np.searchsorted(of_session, np.flatnonzero(differ), side="right")] = False
    good = np.bincount(row[~fine], minlength=len(block)) == 0
    block.hold("sessions", "sessions", good, "the history's latest, the latest first", "others")


def _check_new(block: Block, name: str, contract: Contract) -> None:
    """No target is of what stands in its own history, where that is of the targets' table."""
    each, target = contract.each, block[contract.target(name)]
    for history in [one for one in contract.histories if one.own and name in one.fields]:
        column = history.column(name)
        lengths = np.diff(block.offsets[column])
        positive = np.where(np.arange(len(block)) % each == 0, target, UNKNOWN_ID)
        same = block[column] == np.repeat(positive, lengths)
        good = ~same | (block[column] < FIRST_ID)
        block.hold("not new", column, good, f"no {name} that is the target's")


def _check_negatives(block: Block, rule: Negatives, contract: Contract) -> None:
    """Each positive is followed by its negatives, which share all but the target with it."""
    histories = contract.histories
    each, column = 1 + rule.of_each, f"target_{rule.field}"
    nth, ids = np.arange(len(block)) % each, block[column]
    drawn, expected = nth > 0, f"1, then {rule.of_each} times 0"
    block.hold("order of labels", "label", block["label"] == ~drawn, expected)
    what = "negative unlike its positive"
    shared = ["row", "user", "target_time", *(h.column("length") for h in histories)]
    looked_up = [one for one in contract.lookups if one.key == rule.field]
    its_own = {n for one in looked_up for n in (*one.columns, *one.lists)} | {rule.field}
    shared += [contract.target(name) for name in contract.own if name not in its_own]
    shared += [*contract.made.keep, *(["weight"] if contract.made.weight else [])]
    for name in dict.fromkeys(shared):
        if name in contract.made.lists:
            _check_shared_list(block, name, drawn)
            continue
        before = np.append(block[name][:1], block[name][:-1])
        same = (block[name] == before) | ((block[name] != block[name]) & (before != before))
        block.hold(what, name, ~drawn | same.astype(np.bool_), before)
    unknown = ids < FIRST_ID  # two of them need not be one
    good = ~drawn | unknown | (ids != ids[np.arange(len(block)) - nth])
    block.hold("negative", column, good, f"another {rule.field} than its positive's")
    if not rule.rare:
        block.hold("negative", column, ~drawn | ~unknown, f"a {rule.field} with an id")
    for history in histories:  # what is done to another table makes nothing touched
        length, name = np.diff(block.offsets[history.column("time")]), history.column(rule.field)
        if (history.own or not rule.ever) and name in block.columns:
            good = block[name] != np.repeat(np.where(drawn & ~unknown, ids, -1), length)
            block.hold("negative", name, good, f"no {rule.field} that is a negative of its row")
        follows = drawn & (length == np.append(0, length[:-1]))
        at = np.flatnonzero(np.repeat(follows, length))
        back = at - np.repeat(length[follows], length[follows])
        for name in map(history.column, (*history.fields, "time")):
            if not np.array_equal(block[name][at], block[name][back]):
                good = np.ones(len(block[name]), np.bool_)
                good[at] = block[name][at] == block[name][back]
                block.hold(what, name, good, "as in its positive's history")


def _check_shared_list(block: Block, name: str, drawn: Bools) -> None:
    """Negatives have the list of their positive."""
    offsets = block.offsets[name]
    length = np.diff(offsets)
    good = ~drawn | (length == np.append(length[:1], length[:-1]))
    block.hold("negative unlike its positive", f"{name}_length", good, "as its positive's")
    cells = np.flatnonzero(np.repeat(drawn & good, length))
    back = cells - np.repeat(length, length)[cells]
    same = np.ones(len(block[name]), np.bool_)
    same[cells] = block[name][cells] == block[name][back]
    block.hold("negative unlike its positive", name, same, "as in its positive's list")


def _check_lookup(block: Block, table: Table, contract: Contract) -> None:
    """Hold the rows' other columns, and those of their behaviours, to a table."""
    columns = [contract.target, *(history.column for history in contract.histories)]
    for column in [column for column in columns if column(table.rule.key) in block.columns]:
        key = block[column(table.rule.key)]
        # Of an unknown key nothing is known, and one that is too large is found elsewhere.
        asked = (key >= FIRST_ID) & (key < len(table.first) - 1)
        history = next((h for h in contract.histories if h.column == column), None)
        time = block["target_time" if history is None else history.column("time")]
        at = table.row(np.where(asked, key, 0), time)
        own, each = contract.own if history is None else history.carries, contract.each
        if history is None and contract.negatives is not None:
            # What an event has itself it has, but its negatives are of another value of the key.
            drawn = np.arange(len(block)) % each > 0
            drawn &= np.bool_(table.rule.key == contract.negatives.field)
        else:
            drawn = np.zeros(len(key), np.bool_)
        if history is None:
            for name, of in table.lists.items():
                _check_list(block, table, name, of, at, asked & (drawn | (name not in own)))
        for name in [name for name in table.columns if column(name) in block.columns]:
            found, want = block[column(name)], table.columns[name][at]
            if name in contract.made.numbers:
                good = np.isclose(found, want, rtol=_CLOSE, atol=_CLOSE)
            else:
                good = found == want
            others = ~asked | (~drawn & (name in own))
            block.hold(f"{table.rule.file} disagrees", column(name), good | others, want)


def _check_list(
    block: Block, table: Table, name: str, of: IdLists, at: Values, asked: Bools
) -> None:
    """Hold a list of the rows that are `asked` for to a table, whose rows they look up `at`."""
    what, offsets = f"{table.rule.file} disagrees", block.offsets[name]
    length = np.diff(offsets)
    good = ~asked | (length == of.length[at])
    block.hold(what, f"{name}_length", good, of.length[at])
    row = np.repeat(np.arange(len(block)), length)
    nth = np.arange(len(row)) - offsets[row]
    want = of.ids[at[row], nth]
    block.hold(what, name, (block[name] == want) | ~(asked & good)[row], want)
