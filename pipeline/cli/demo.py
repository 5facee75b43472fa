"""The demo data sets: made-up raw files of a stated size, prepared with the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AMAZON_SCALE = 0.05
ALIBABA_SCALE = 0.01


def folders(name: str) -> tuple[Path, Path]:
    """Where the raw files and the data set of a demo go, `amazon` or `alibaba`."""
    return Path(f"data/raw/{name}-demo"), Path(f"data/{name}-demo")


def demo_data(told: Any) -> tuple[Path, Path]:
    """The two demo data sets, made where they are absent.

    Returns:
        Their folders, under `data/`.

    Raises:
        TinprepError: as `pipeline.flow.prepare`.
    """
    from pipeline.flow import prepare
    from pipeline.presets.alibaba import AlibabaConfig
    from pipeline.presets.amazon import AmazonConfig
    from pipeline.synthetic.alibaba import AlibabaRecipe, synthesize_alibaba
    from pipeline.synthetic.amazon import AmazonRecipe, synthesize_amazon
    from schemas.manifest import NAME

    raw, amazon = folders("amazon")
    if not (amazon / NAME).exists():
        recipe = AmazonRecipe(scale=AMAZON_SCALE, seed=0)
        synthesize_amazon(raw, recipe, category="Electronics", progress=told)
        prepare(AmazonConfig(out=amazon, raw=raw), told)
    raw, alibaba = folders("alibaba")
    if not (alibaba / NAME).exists():
        synthesize_alibaba(raw, AlibabaRecipe(scale=ALIBABA_SCALE, seed=0), progress=told)
        prepare(AlibabaConfig(out=alibaba, raw=raw), told)
    return amazon, alibaba
