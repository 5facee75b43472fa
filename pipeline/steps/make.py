"""The one order of the steps: deal, fit, transform, and the manifest, whatever the description."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline import memory
from pipeline.description import Description
from pipeline.steps import finish, order, spread, transform
from pipeline.steps.account import account
from pipeline.steps.deal import deal
from pipeline.steps.fit import fit
from pipeline.steps.known import Known
from pipeline.workspace import Run
from schemas.interrupts import FOR_EVER
from schemas.manifest import Manifest


def make(run: Run, d: Description) -> Manifest:
    """Make the data set of a description in the run's folder."""
    d, known = replace(d, keeps=run.config.keep_events), Known.of(d)
    dealt = deal(run, d, known)
    fitted = fit(run, d, dealt, known)
    memory.give_back(run.config.memory)
    with ThreadPoolExecutor(1, "vocabularies") as beside:
        writing = beside.submit(finish.write_vocabularies, run, fitted.words)
        looked_up, brought = spread.bring(
            run, d, fitted.looked_up, fitted.numbers, fitted.found.apart, "for-rows"
        )
        brought_numbers = {n for key in fitted.found.apart for n in d.lookup(key).numbers}
        rows = transform.Rows(
            d,
            dealt.split,
            looked_up,
            {name: of for name, of in fitted.numbers.items() if name not in brought_numbers},
            fitted.scales,
            fitted.stored,
            fitted.found.drawing,
            fitted.final,
            fitted.released,
        )
        keeps = d.tables if d.keeps else ()
        needs = [*order.kinds(d), *brought]
        results = finish.write_shards(
            run,
            rows.schema,
            dealt.seen.kept,
            rows,
            needs,
            d.splits,
            keeps,
            [*d.histories] if keeps else [],
        )
        writing.result(FOR_EVER)
        if keeps:
            core = None if dealt.core is None else dealt.core.values
            finish.write_state(run, fitted.pool, core, dealt.nobodies)
    if known is not None:
        known.check(run.paths, run.identity())
    return finish.finish(run, results, account(run, d, dealt, fitted, results, known))
