"""Raw behaviour logs in, model-ready Parquet shards out, and a trainer for TIN, from Python.

A CSV file of events, `ratings.csv`, and a description of it, `ratings.toml`, become a data set:

>>> from tinprep import Request, Scorer, Shards, TrainConfig
>>> from tinprep import evaluate, export, load, predict, prepare, train, verify
>>> made = prepare("ratings.toml", out="data/ratings")
>>> made.rows
{'train': 240, 'valid': 80, 'test': 80}
>>> verify("data/ratings").sound
True

Its shards are read in batches of tensors; histories come cut to the batch's longest:

>>> for batch in Shards("data/ratings").batches("train", batch_size=240, shuffle_seed=0, epoch=0):
...     print(tuple(batch["history_item"].shape), batch["label"].mean().item())
(240, 3) 0.5

A model is trained, measured and put to use:

>>> result = train(TrainConfig("data/ratings", run="runs/tin", epochs=1))
>>> evaluate("runs/tin", split="test").metrics.gauc == result.metrics["test"].gauc
True
>>> predict("runs/tin", "data/ratings", "scores.parquet").rows  # user, item, label, score
400
>>> load("runs/tin").eval().training
False
>>> export("runs/tin", "bundles/tin").measured.split  # a graph, and all that it needs
'test'

A bundle scores requests, by the events that a data set has kept (`keep_events=True`):

>>> made = prepare("ratings.toml", out="data/kept", keep_events=True)
>>> scorer = Scorer.of("bundles/tin", "data/kept")
>>> scorer(Request(user="u3", time=9, candidates=[{"item": 1}, {"item": 2}])).shape
(2,)
>>> verify("bundles/tin").sound  # each file, and the golden requests that it may have
True

Settings are those of the command line, described in `docs/cli.md`. What is wrong ends in a
`TinprepError` that says what, where, what was expected, what was there, and what to do. What is
named here is public. It is loaded when it is first asked for, as PyTorch takes a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.presets.alibaba import AlibabaConfig
    from pipeline.presets.amazon import AmazonConfig
    from pipeline.serving.requests import Request
    from pipeline.serving.scorer import Scorer
    from pipeline.verify import Report
    from schemas.bundle import Bundle
    from schemas.errors import TinprepError
    from schemas.manifest import Manifest
    from trainer.data.shards import Shards
    from trainer.training.config import TrainConfig
    from trainer.training.evaluation import evaluate, predict
    from trainer.training.runs import load
    from trainer.training.train import train

__all__ = [
    "AlibabaConfig",
    "AmazonConfig",
    "Request",
    "Scorer",
    "Shards",
    "TinprepError",
    "TrainConfig",
    "evaluate",
    "export",
    "load",
    "predict",
    "prepare",
    "train",
    "transform",
    "verify",
]

_WHERE = {
    "AlibabaConfig": "pipeline.presets.alibaba",
    "AmazonConfig": "pipeline.presets.amazon",
    "Request": "pipeline.serving.requests",
    "Scorer": "pipeline.serving.scorer",
    "Shards": "trainer.data.shards",
    "TinprepError": "schemas.errors",
    "TrainConfig": "trainer.training.config",
    "evaluate": "trainer.training.evaluation",
    "load": "trainer.training.runs",
    "predict": "trainer.training.evaluation",
    "train": "trainer.training.train",
}


def prepare(
    what: Config | Path | str,
    *,
    out: Path | str | None = None,
    raw: Path | str | None = None,
    told: Callable[[str, int, int | None], None] = lambda *_: None,
    **settings: Any,
) -> Manifest:
    """Make a data set, or go on with an interrupted one, or find it done.

    Args:
        what: a description's file, a preset's name, or a configuration, e.g. an `AmazonConfig`.
        out: folder of the data set; None for `data/NAME`, or the configuration's.
        raw: folder of the raw files; None for what the description or the configuration says.
        told: progress: step, done, of how many.
        settings: options of `tinprep prepare`, or of the configuration, in place of what it says,
            e.g. `bins=5`, `force=True`; `parameters` is a dictionary.

    Returns:
        The manifest: rows of each split, histories, counts.

    Raises:
        TypeError: there is no such setting.
        UsageError: the description or a setting cannot be what it is, or `out` holds something
            else.
        InputError: a raw file is missing or damaged, or too many of its lines are refused.
        EnvironmentFault: network, disk, or another run at work in `out`.
    """
    from pipeline import flow
    from pipeline.config import Config
    from pipeline.presets.described import Asked, described
    from pipeline.readers.remote import located

    given = {"out": out, "raw": raw}
    if isinstance(what, Config):
        given = {name: getattr(what, name) if to is None else to for name, to in given.items()}
    folders: dict[str, Any] = {
        name: located(Path(to)) for name, to in given.items() if to is not None
    }
    if isinstance(what, Config):
        return flow.prepare(replace(what, **folders, **settings), told)
    names = {field.name for field in fields(Asked)}
    asked = Asked(**{name: value for name, value in settings.items() if name in names})
    how = {name: value for name, value in settings.items() if name not in names}
    return flow.prepare(described(str(what), asked, **folders, **how), told)


def transform(
    data: Path | str,
    events: Path | str | Sequence[Path | str] = (),
    *,
    out: Path | str,
    targets: Path | str | Sequence[Path | str] = (),
    raw: Path | str | None = None,
    told: Callable[[str, int, int | None], None] = lambda *_: None,
    **settings: Any,
) -> Manifest:
    """Make shards of new events with what an earlier data set has fitted.

    Args:
        data: folder of the data set, made with `keep_events=True`.
        events: files of new events; of several tables each as `TABLE=FILE`.
        out: folder of the new data set, whose only split is `new`.
        targets: files of new targets. Then new events are behaviours alone, and targets are none.
        raw: folder of the lookups' files; None for where they were.
        told: progress: step, done, of how many.
        settings: options of `tinprep transform`, e.g. `keep_events=True`.

    Returns:
        The manifest: rows, new users, unknown values.

    Raises:
        TypeError: there is no such setting.
        UsageError: `data` does not keep its events, a table is not named, or `out` holds something
            else.
        InputError: a file is missing or damaged, or no new event is a target.
        ContractError: what `data` holds is not what its manifest says.
    """
    from pipeline import flow
    from pipeline.presets.transformed import transformed
    from pipeline.readers.remote import located

    files, asked = (
        [str(one) for one in ([given] if isinstance(given, Path | str) else given)]
        for given in (events, targets)
    )
    at = raw if raw is None else located(Path(raw))
    config = transformed(Path(data), files, asked, out=located(Path(out)), raw=at, **settings)
    return flow.prepare(config, told)


def export(
    run: Path | str,
    out: Path | str,
    *,
    precision: str = "fp32",
    shape: str = "request",
    data: Path | str | None = None,
    force: bool = False,
) -> Bundle:
    """Write the model of a run as a bundle, with golden requests where events are kept.

    Args, what is returned and errors are those of `trainer.export.write.export`.
    """
    from pipeline.serving import golden
    from trainer.export import write

    return write.export(
        run, out, precision=precision, shape=shape, data=data, force=force, also=golden.write
    )


def verify(
    out: Path | str,
    told: Callable[[str, int, int | None], None] = lambda *_: None,
    threads: int | None = None,
) -> Report:
    """Check every file of a data set, and every value in it; or a bundle, by its golden requests.

    Args:
        told: progress: step, done, of how many.
        threads: shards checked at once; None for the usable cores.

    Returns:
        What was found. Of a bundle, which is sound where there is no error, `shards` are its files,
        and `rows` its golden requests.

    Raises:
        InputError: there is neither in `out`.
        ContractError: a bundle is not what was written, or does not come out as it did.
    """
    from pipeline import verify as of_data

    folder = Path(out)
    if not (folder / "bundle.json").exists():
        return of_data.verify(folder, told, threads)
    from pipeline.serving import golden
    from schemas import bundle

    begun, found = perf_counter(), bundle.load(folder)
    requests = golden.check(folder, found)
    return of_data.Report((), {}, len(found.files), requests, perf_counter() - begun)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
