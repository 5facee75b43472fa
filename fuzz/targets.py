"""Every target by its name; a module is imported when one of its targets is wanted."""

from __future__ import annotations

from importlib import import_module

from fuzz.target import Target

MODULES = {
    "reviews": "fuzz.reviews",
    "meta": "fuzz.meta",
    "raw_sample": "fuzz.alibaba",
    "ad_feature": "fuzz.alibaba",
    "user_profile": "fuzz.alibaba",
    "behavior_log": "fuzz.alibaba",
    "gzip": "fuzz.gzip_stream",
    "manifest": "fuzz.manifest",
    "vocabulary": "fuzz.vocabulary",
    "shard": "fuzz.shard",
    "inspect": "fuzz.shard",
    "verify": "fuzz.shard",
    "run_config": "fuzz.run_folder",
    "checkpoint": "fuzz.run_folder",
}


def target(name: str) -> Target:
    """The target of a name."""
    targets: tuple[Target, ...] = import_module(MODULES[name]).TARGETS
    return next(found for found in targets if found.name == name)
