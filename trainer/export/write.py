"""`tinprep export`: a run becomes a bundle, whose scores are measured beside those of the run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from schemas import bundle
from schemas.bundle import Bundle, Clock, Measured
from schemas.errors import ContractError, TinprepError, UsageError
from schemas.manifest import HOW, Manifest
from schemas.plain import meant
from schemas.replacing import UNFINISHED, require_folder, to_disk, unfinished_name
from schemas.scorer import required
from trainer.data.batches import PLACE
from trainer.data.shards import Shards
from trainer.export import graph
from trainer.export.precision import PRECISIONS, narrow, table_bytes
from trainer.export.scoring import Scorer, scores
from trainer.files import filling, require_no_data_set
from trainer.metrics import evaluate
from trainer.models.interest import InterestModel
from trainer.training.evaluation import alike, data_of
from trainer.training.runs import CONFIG, load, read_json
from trainer.training.scoring import logits

_ALSO = ("user", "label", PLACE)


def export(
    run: Path | str,
    out: Path | str,
    *,
    precision: str = "fp32",
    shape: str = "request",
    data: Path | str | None = None,
    force: bool = False,
    also: Callable[[Path, Bundle, Path], object] = lambda *_: None,
) -> Bundle:
    """Write the model of a run as a bundle, which appears when it is complete.

    Args:
        precision: of the vocabularies' embedding tables, `fp32`, `fp16` or `int8`.
        shape: what the graph scores: a `request`, one user's histories with any number of
            candidates, or `rows` with a history each.
        data: folder of the data set; the one that the run was trained on by default.
        also: writes what else the bundle is to hold: given its folder, what it says of itself and
            the folder of the data set.

    Returns:
        What the bundle says of itself; `measured` is of the test split, or of the last there is.

    Raises:
        UsageError: there is no such precision or shape, or the folder holds something else.
        InputError: there is no such run or data set, or it is damaged.
        ContractError: the data set does not mean what that of the training meant, or scores are no
            numbers.
        EnvironmentFault: the packages of the extra `export` are not installed.
    """
    out = Path(out)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        required(package)
    _require_one_of("--precision", precision, PRECISIONS)
    _require_one_of("--shape", shape, bundle.SHAPES)
    _require_free(out, force)
    model = load(run)
    config = read_json(Path(run) / CONFIG, dict[str, Any], do="train it again")
    shards = alike(model, Path(data) if data is not None else data_of(Path(run)))
    of_run, before = table_bytes(model), _of_run(model, shards)
    narrow(model, precision)
    inputs = graph.inputs_of(model, shape == "request", shards.facts.stored)
    with _whole(out) as folder:
        graph.write(model, folder / bundle.MODEL, inputs)
        for name in _kept(shards.manifest):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(shards.out / name, folder / name)
        made = Bundle(
            format=bundle.FORMAT,
            version=version("tinprep"),
            model=str(config.get("model")),
            encoding=str(config.get("encoding")),
            precision=precision,
            shape=shape,
            inputs=inputs,
            outputs=[*bundle.OUTPUTS],
            trained_on=asdict(model.inputs),
            data=_said(shards.manifest),
            clock=clock_of(shards),
            measured=Measured("", 0, None, None, None, None, 0.0, table_bytes(model), of_run),
        )
        measured = _measured(Scorer(made, folder / bundle.MODEL), shards, before)
        made = replace(made, measured=replace(made.measured, **measured))
        also(folder, made, shards.out)
        made = replace(made, files=bundle.files_of(folder))
        (folder / bundle.NAME).write_text(made.to_json(), encoding="utf-8")
    return made


def summary(out: Path, made: Bundle) -> list[str]:
    """What to say of a bundle that was written."""
    found, size = made.measured, sum(file.bytes for file in made.files)
    what = "requests of one user" if made.shape == "request" else "rows"
    return [
        f"{made.model} ({made.encoding}) for {what}: {out}, {size / 1e6:,.1f} MB",
        f"tables in {made.precision}: {found.table_bytes / 1e6:,.1f} MB, "
        f"{found.table_bytes / found.run_table_bytes:.2f} of the run's",
        f"{found.rows:,} rows of {found.split}: "
        f"GAUC {_figure(found.gauc)} (run: {_figure(found.run_gauc)}), "
        f"logloss {_figure(found.logloss)} (run: {_figure(found.run_logloss)}), "
        f"scores within {found.largest_change:.1g} of predict's",
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _require_one_of(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise UsageError(
            f"A bundle cannot be had by this {option}.",
            where=option,
            expected=f"one of {', '.join(known)}",
            got=given + meant(given, known),
        )


def _kept(made: Manifest) -> list[str]:
    """The files of a data set that go into a bundle."""
    known = ("lookups/", "events/unknown.")  # what has no id is looked up as well
    lookups = [file.path for file in made.tables if file.path.startswith(known)]
    return [*(f"vocabulary/{name}.parquet" for name in made.vocabulary), *lookups]


def _said(made: Manifest) -> Manifest:
    """What a data set says of itself, without its shards, and where and how they were made."""
    kept, config = _kept(made), {n: v for n, v in made.config.items() if n not in HOW}
    tables = [file for file in made.tables if file.path in kept]
    return replace(made, config=config, shards=[], tables=tables, steps=[])


def clock_of(shards: Shards) -> Clock:
    """The coarsest clock that shows every target's time."""
    columns = [shards.split(split, ("target_time",)) for split in shards.splits]
    times = np.concatenate([rows.scalars["target_time"] for rows in columns])
    step = int(np.gcd.reduce(times - times[0])) or 1
    return Clock(step, int(times[0]) % step)


def _split(shards: Shards) -> str:
    return shards.splits[-1]  # test, if there is one


def _of_run(model: InterestModel, shards: Shards) -> NDArray[np.float32]:
    found = [(batch[PLACE], logit) for batch, logit in logits(model, shards, _split(shards), _ALSO)]
    place, logit = (torch.cat(column).numpy() for column in zip(*found, strict=True))
    return logit[np.argsort(place)]


def _measured(scorer: Scorer, shards: Shards, before: NDArray[np.float32]) -> dict[str, Any]:
    """What the bundle's scores are worth beside those of the run."""
    split = _split(shards)
    parts = [
        (batch["user"].numpy(), batch["label"].numpy().astype(np.int8), *found)
        for batch, found in scores(scorer, shards, split, _ALSO)
    ]
    user, label, logit, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not np.isfinite(logit).all():
        raise ContractError(
            "The bundle's scores are no numbers.",
            where=f"{shards.out}, split {split}",
            expected="finite scores",
            got="NaN or infinity",
            do="choose another `--precision`",
        )
    now, then = evaluate(user, label, logit), evaluate(user, label, before)
    of_run = torch.sigmoid(torch.from_numpy(before)).numpy()
    return {
        "split": split,
        "rows": now.rows,
        "gauc": now.gauc,
        "logloss": now.logloss,
        "run_gauc": then.gauc,
        "run_logloss": then.logloss,
        "largest_change": float(np.abs(score - of_run).max()),
    }


def _require_free(out: Path, force: bool) -> None:
    """Refuse a folder that holds anything but a bundle, or a bundle that is not to be replaced."""
    require_no_data_set(out / bundle.NAME)
    require_folder("The bundle's folder", out)
    if not out.exists() or not any(out.iterdir()):
        return
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    try:
        own = {bundle.NAME, *(file.path for file in bundle.load(out).files)}
    except TinprepError:
        own = set()
    if not own or found - own:
        raise UsageError(
            "The bundle's folder holds files that tinprep did not write, or that were changed.",
            where=out,
            expected="a new folder, or one of a bundle",
            got=", ".join(sorted(found - own)[:5]) or "folders",
            do="choose another `--out`, or move them away",
        )
    if not force:
        raise UsageError(
            "This folder holds a bundle.",
            where=out,
            expected="a new folder",
            got=f"a folder with {bundle.NAME}",
            do="choose another `--out`, or replace it with `--force`",
        )


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A new folder that becomes `out`, if the block ends without an error.

    What killed exports to the same name have left is removed.
    """
    out = out.absolute()
    writer = hashlib.sha256(os.fsencode(out.name)).hexdigest()[:16]
    with filling(out.parent):
        folder, old = (out.parent / unfinished_name(writer) for _ in range(2))
        _remove_unfinished(out.parent, writer)
        folder.mkdir()
        with _locked(folder):
            try:
                yield folder
                for path in folder.rglob("*"):
                    if path.is_file():
                        to_disk(path)
                if out.exists():
                    out.rename(old)
                try:
                    folder.rename(out)
                except OSError:
                    old.rename(out)
                    raise
                shutil.rmtree(old, ignore_errors=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(parent: Path, writer: str) -> None:
    """Remove the folders of a writer that nobody is at work in any more."""
    for path in parent.iterdir():
        found = UNFINISHED.fullmatch(path.name)
        if found and found[1] == writer and path.is_dir() and not path.is_symlink():
            with _locked(path) as ours:
                if ours:
                    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock, which ends with its process; whether nobody else holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
