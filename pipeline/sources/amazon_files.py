"""Amazon 2014 (5-core): its raw files, and how they are had. No library is loaded for it."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import AmazonConfig
from pipeline.raw_files import RawFile, in_other_case, missing
from schemas.errors import InputError
from schemas.expected import AMAZON_FILES


def raw_folder(config: AmazonConfig) -> Path:
    """Where the raw files are, or will be downloaded to."""
    return config.raw or Path("data/raw/amazon")


def files(config: AmazonConfig) -> list[RawFile]:
    """The raw files, reviews first."""
    names = [f"reviews_{config.category}_5.json.gz"]
    if config.meta:
        names.append(f"meta_{config.category}.json.gz")
    return [RawFile(name, AMAZON_FILES.get(name)) for name in names]


def obtain(config: AmazonConfig) -> list[Path]:
    """Paths of the raw files; what is missing is downloaded unless `--raw` names the folder.

    Raises:
        InputError: `--raw` lacks a file.
        EnvironmentFault: a download failed.
    """
    folder = raw_folder(config)
    wanted = files(config)
    offline = f"tinprep amazon --category {config.category} --raw {folder} --out {config.out}"
    if config.raw is None:
        # Imported where it is wanted, as HTTP libraries are slow to load.
        from pipeline.fetch import AMAZON_MIRRORS, fetch

        return fetch(wanted, folder, (*config.mirrors, *AMAZON_MIRRORS), offline_command=offline)
    if not folder.is_dir():
        raise InputError(
            "The folder of raw files does not exist.",
            where=folder,
            expected="a folder with " + " and ".join(f.name for f in wanted),
            got="no such folder",
            do="give another --raw, or leave it out to download the files",
        )
    if absent := missing(wanted, folder):
        only_meta = absent == [f"meta_{config.category}.json.gz"]
        do = "put it there, or leave --raw out to download what is missing"
        raise InputError(
            "A raw file is missing.",
            where=folder,
            expected=", ".join(absent),
            got="no such file" + in_other_case(absent, folder),
            do=do + (", or give --no-meta for unknown categories" if only_meta else ""),
        )
    return [folder / f.name for f in wanted]
