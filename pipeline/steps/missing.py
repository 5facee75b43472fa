"""What a join lacks of the values that it looks up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.config import Config
from schemas.errors import InputError
from schemas.manifest import Share


def check_missing(
    config: Config, path: Path, losses: dict[str, Share], limits: Mapping[str, float] | None = None
) -> dict[str, Share]:
    """The losses of a join with a raw file, where they are no more than the settings allow.

    Some may have limits of their own, by their names.

    Raises:
        InputError: one is larger.
    """
    for what, share in losses.items():
        limit, name = config.max_missing, "--max-missing"
        if limits is not None and what in limits:
            limit, name = limits[what], "max_missing"
        if limit is not None and share.share > limit:
            raise InputError(
                f"Too much is missing: {what}.",
                where=path,
                expected=f"at most {limit:.3%} ({name})",
                got=str(share),
                do=f"look whether the raw files belong together, or allow more with {name}",
            )
    return losses
