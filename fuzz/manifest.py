"""`manifest.json`: what is read can be used, and leads to nothing outside its folder."""

from __future__ import annotations

import json

from fuzz.target import Target, folder, written
from pipeline.inspection import summary
from schemas.manifest import (
    FORMAT,
    SPLITS,
    Bins,
    DataFile,
    Feature,
    History,
    InputFile,
    Lookup,
    Manifest,
    Negatives,
    Step,
    load,
)
from schemas.manifest import Target as Of

GOOD = Manifest(
    format=FORMAT,
    dataset="amazon-Beauty",
    synthetic=False,
    version="0.1.0",
    config={"key": "k", "negatives": 1, "session_gap": 86_400, "sessions": "none"},
    inputs=[InputFile("reviews.json.gz", 5, "0" * 64)],
    rows={"train": 4, "valid": 2, "test": 2},
    events={"reviews": "reviews"},
    target=Of("reviews", {"by": "order", "valid": True}, Negatives("item", 1)),
    fields=["item", "category"],
    features={"price": Feature("number", None)},
    histories={
        "history": History(
            "reviews",
            ["item", "category"],
            3,
            "order",
            86_400,
            None,
            Bins(3, [0, 86_400], [1, 2, 3]),
            {name: [0, 2, 2, 0] for name in SPLITS},
        )
    },
    lookups={"item": Lookup(["category"], [], [], True, "without", "without {}")},
    vocabulary={"user": 9, "item": 9, "category": 4},
    known=["user", "item"],
    layout="padded",
    timezone="UTC",
    train={"group_field": "category"},
    rejected={"not JSON": 1},
    notes=["a note"],
    shards=[DataFile(f"{name}/part-00000.parquet", 2, "0" * 64) for name in SPLITS],
    steps=[Step("fetch", 0.5, 2, 2, 100)],
    counts={"impressions": 3},
    numbers={"price": {"mean": 0.5, "std": 2.0}},
    tables=[DataFile("lookups/item.parquet", 7, "0" * 64)],
)


def read(data: bytes) -> int:
    """Read a manifest, and do with it what its readers do."""
    out = written("set/manifest.json", data).parent
    made = load(out)
    again = load(written("again/manifest.json", made.to_json().encode()).parent)
    assert again == made
    assert isinstance(made.targets, int)
    summary(made, out)
    for split in SPLITS:
        for path in made.shard_paths(out, split):
            assert path.resolve().is_relative_to(folder().resolve() / "set")
            assert not path.exists()
    for name in (*made.fields, *made.vocabulary):
        assert "/" not in name
        assert not (out / "vocabulary" / f"{name}.parquet").exists()
    return 1


_TEXT = GOOD.to_json()

TARGETS = (
    Target(
        "manifest",
        seeds=(
            json.dumps(json.loads(_TEXT)).encode(),
            _TEXT.replace('"a note"', '"\\u00e9 \\n"').encode(),
            _TEXT.replace(
                '"key": "k"', '"timezone": "Asia/Shanghai", "x": [1, {"y": null}]'
            ).encode(),
        ),
        words=(
            *(b'"path": "', b"../", b"/etc/passwd", b"..\\\\", b"null", b"true", b"-1", b"1e999"),
            *(
                b"9223372036854775808",
                b"[[[[",
                b'{"a":',
                b"\\ud800",
                b"\\u0000",
                b"NaN",
                b"Infinity",
            ),
            *(b'"format": 1', b'"fields": []', b'"edges_s": []', b'"train_counts": []', b"0.5"),
            *(b'"rows": {}', b'"vocabulary": {}', b'"shards": []', b'"train/"', b'"."', b'""'),
        ),
        read=read,
    ),
)
