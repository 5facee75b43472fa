"""The Taobao display-ad log (tianchi 56): its raw files, and how they are had."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import AlibabaConfig
from pipeline.raw_files import in_other_case
from schemas.errors import EnvironmentFault, InputError

NAMES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv")
KAGGLE = "pavansanagapati/ad-displayclick-data-on-taobaocom"
HOME = "https://tianchi.aliyun.com/dataset/56"


def raw_folder(config: AlibabaConfig) -> Path:
    """Where the raw files are."""
    return config.raw or Path("data/raw/alibaba")


def obtain(config: AlibabaConfig) -> list[Path]:
    """Paths of the four raw files, plain or gzipped, in the order of `NAMES`.

    Without `--raw`, files in `data/raw/alibaba` are used, else they are had through kagglehub,
    where that is installed: the data set's home wants an account.

    Raises:
        InputError: files are missing, and cannot be had; or one is there plain and gzipped.
        EnvironmentFault: a download failed.
    """
    at = raw_folder(config)
    found = _found(at)
    if config.raw is None and any(path is None for path in found) and (came := _kaggle()):
        at, found = came, _found(came)
    absent = [name for name, path in zip(NAMES, found, strict=True) if path is None]
    if not absent:
        return [path for path in found if path is not None]
    names = [*absent, *(f"{name}.gz" for name in absent)]
    given = "" if config.raw is None else f" --raw {config.raw}"
    raise InputError(
        "Raw files are missing." if at.is_dir() else "The folder of raw files does not exist.",
        where=at,
        expected=", ".join(NAMES) + " (each may be gzipped: .csv.gz)",
        got=f"no {', '.join(absent)}{in_other_case(names, at)}",
        do=f"download data set 56 from {HOME} (it wants a free account), unpack the four files "
        f"into {at}, and run `tinprep alibaba{given} --out {config.out}`; or, with an account "
        "at Kaggle, `pip install 'tinprep[kaggle]'` and run it again without --raw",
    )


def _found(at: Path) -> list[Path | None]:
    found: list[Path | None] = []
    for name in NAMES:
        there = [path for path in (at / name, at / f"{name}.gz") if path.is_file()]
        if len(there) > 1:
            raise InputError(
                "A raw file is there twice.",
                where=at,
                expected=f"{name} or {name}.gz",
                got="both",
                do="move away the one that is not meant",
            )
        found += there or [None]
    return found


def _kaggle() -> Path | None:
    """The folder that kagglehub has the data set in; None where it is not installed."""
    try:
        import kagglehub
    except ImportError:
        return None
    try:
        return Path(kagglehub.dataset_download(KAGGLE))
    except Exception as error:  # whatever it is, it is not ours
        raise EnvironmentFault(
            "The data set could not be had through kagglehub.",
            where=KAGGLE,
            got=f"{type(error).__name__}: {str(error)[:300]}",
            do=f"see to the network and the account, or put {', '.join(NAMES)} into a folder "
            "and name it with --raw",
        ) from error
