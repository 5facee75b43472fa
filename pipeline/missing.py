"""What a join lacks of the values that it looks up."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config
from schemas.errors import InputError
from schemas.manifest import Share


def check_missing(config: Config, path: Path, losses: dict[str, Share]) -> dict[str, Share]:
    """The losses of a join with a raw file, where they are no more than the settings allow.

    Raises:
        InputError: one is larger.
    """
    for what, share in losses.items():
        if config.max_missing is not None and share.share > config.max_missing:
            raise InputError(
                f"Too much is missing: {what}.",
                where=path,
                expected=f"at most {config.max_missing:.3%} (--max-missing)",
                got=str(share),
                do="look whether the raw files belong together, or allow more with --max-missing",
            )
    return losses
