"""A small seeded version of `make fuzz`, and every input that once broke a reader."""

from __future__ import annotations

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.run_folder import harmful_checkpoint
from fuzz.target import Target, executes_nothing, folder, written
from fuzz.targets import MODULES, target
from schemas.errors import ContractError, InputError, TinprepError
from trainer.training.evaluation import data_of
from trainer.training.runs import load

RUNS = int(os.environ.get("TINPREP_FUZZ_RUNS", "25"))


@st.composite
def damaged(draw: st.DrawFn, of: Target) -> bytes:
    """A seed with a few bytes changed, left out, repeated, or replaced by words of the format."""
    data = bytearray(draw(st.sampled_from(of.seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == 1:
            data[at:at] = draw(st.sampled_from(of.words))
        elif kind == 2:
            del data[at : at + draw(st.integers(1, 12))]
        elif kind == 3:
            word = draw(st.sampled_from(of.words))
            data[at : at + len(word)] = word
        else:
            source = draw(st.integers(0, len(data)))
            data[at:at] = data[source : source + draw(st.integers(1, 40))]
    return bytes(data)


@pytest.mark.parametrize("name", MODULES)
def test_whatever_the_bytes(name: str) -> None:
    found = target(name)

    @settings(
        max_examples=RUNS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=damaged(found))
    def hold(data: bytes) -> None:
        found.check(data)

    hold()


@pytest.mark.parametrize("name", MODULES)
def test_seeds_are_read_without_an_error(name: str) -> None:
    found = target(name)
    for seed in found.seeds:
        assert found.read(seed) > 0


# The footer names a list whose elements have no column: it is in the schema, and cannot be read.
LIST = b"history_time\x15\x02\x15\x06L<\x00\x00\x005\x04\x18\x04list\x15\x02\x00"
LEAFLESS = target("inspect").seeds[1].replace(LIST + b"\x15", LIST + b"\x1a")
# The same of a list whose own name is no UTF-8, with no Arrow schema beside it to say otherwise.
NAMELESS = (
    target("shard")
    .seeds[0]
    .replace(
        LIST.replace(b"time", b"category") + b"\x15", LIST.replace(b"time", b"\x9b" * 8) + b"\x1a"
    )
    .replace(b"ARROW:", b"arrow:")
)
# Each of these once ended in something else than one of our errors.
BROKE = [
    ("manifest", b"[" * 100_000),
    ("manifest", b'{"format": ' + b"1" * 5_000 + b"}"),
    ("manifest", b'{"format": true}'),
    ("manifest", target("manifest").seeds[0].replace(b"a note", b"\\ud800")),
    ("inspect", LEAFLESS),
    ("shard", NAMELESS),
    ("run_config", b"[" * 100_000),
    ("run_config", b'{"data": "a\\u0000b"}'),
    ("run_config", b'{"data": "a", "seed": ' + b"9" * 5_000 + b"}"),
    ("run_config", b"\xff\xfe"),
    ("reviews", b'{"a":' * 100_000),
    ("meta", b"[" * 100_000),
    ("meta", b"-" * 100_000 + b"1"),
]


@pytest.mark.parametrize(("name", "data"), BROKE)
def test_what_once_broke_a_reader(name: str, data: bytes) -> None:
    assert data not in target(name).seeds
    target(name).check(data)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"rows": {"train": 4', '"rows": {"train": "4"', "rows.train"),
        ('"count": 3', '"count": true', "bins.count"),
        ('"count": 3', '"count": 7', "cannot be: histories.history.bins"),
        ('"notes": ["a note"]', '"notes": [5]', r"notes\[0\]"),
        ('"seconds": 0.5', '"seconds": 1e999', r"steps\[0\].seconds"),
        ('"bytes": 5', '"bytes": 9223372036854775808', r"inputs\[0\].bytes"),
        ('"std": 2.0', '"std": NaN', "cannot be read"),
        ('["item", "category"]', '["item", "../../etc"]', "name that no file can have"),
        ('"user": 9', '"../user": 9', "name that no file can have"),
        ("train/part-00000.parquet", "", "leaves the data set"),
        ("train/part-00000.parquet", "train/../../x", "leaves the data set"),
        ("train/part-00000.parquet", "/etc/passwd", "leaves the data set"),
        ("train/part-00000.parquet", "train\\\\..\\\\x", "leaves the data set"),
        ("train/part-00000.parquet", "train/\\u0007", "leaves the data set"),
        ("lookups/item.parquet", "../items.parquet", "leaves the data set"),
        ('"rows": 7', '"rows": "7"', r"tables\[0\].rows"),
        ("train/part-00000.parquet", "train/\\ud800", "cannot be read"),
        ("train/part-00000.parquet", "train/" + "x" * 300, "leads nowhere|leaves"),
    ],
)
def test_a_manifest_of_another_shape_is_said(before: str, after: str, said: str) -> None:
    from schemas.manifest import load as load_manifest

    text = target("manifest").seeds[0].decode()
    assert before in text
    path = written("shape/manifest.json", text.replace(before, after).encode())
    try:
        made = load_manifest(path.parent)
    except ContractError as error:
        assert re.search(said, str(error))
    else:
        assert "x" * 300 in made.shards[0].path  # a system may allow names that long


def test_a_link_among_the_shards_cannot_lead_out(tmp_path: Path) -> None:
    from schemas.manifest import load as load_manifest

    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "part-00000.parquet").write_bytes(b"")
    (out / "manifest.json").write_bytes(target("manifest").seeds[0])
    load_manifest(out)
    (out / "train").symlink_to(elsewhere)
    with pytest.raises(ContractError, match="leaves the data set"):
        load_manifest(out)
    (out / "train").unlink()
    (out / "train").symlink_to(out / "train")
    with pytest.raises(ContractError, match=r"leads nowhere|leaves"):
        load_manifest(out)
    (out / "train").unlink()
    # The data set itself may be reached by a link.
    (tmp_path / "link").symlink_to(out)
    assert load_manifest(tmp_path / "link").dataset == "amazon-Beauty"


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    harm = folder() / "harm"
    harm.unlink(missing_ok=True)
    (tmp_path / "best.pt").write_bytes(harmful_checkpoint())
    with pytest.raises(InputError, match="more than tensors and plain values"):
        load(tmp_path)
    assert not harm.exists()


def test_a_checkpoint_that_claims_a_giant_model_takes_no_memory(tmp_path: Path) -> None:
    import io

    import torch

    content = torch.load(io.BytesIO(target("checkpoint").seeds[0]), weights_only=True)
    for change in ({"dim": 1 << 40}, {"hidden": [1 << 30, 1 << 30]}, {"hidden": ["a"]}):
        torch.save({**content, "built": {**content["built"], **change}}, tmp_path / "best.pt")
        with pytest.raises(InputError, match="cannot be read"):
            load(tmp_path)
    del content["built"]["inputs"]["fields"]
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


def test_the_watch_sees_what_is_executed() -> None:
    with pytest.raises(AssertionError, match="exec"), executes_nothing():
        exec("1")
    torch = find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    with executes_nothing():
        exec(compile("1", torch.origin, "exec"))  # as an import of a part of itself
    with pytest.raises(AssertionError, match="exec"), executes_nothing():
        exec(compile("1", "elsewhere.py", "exec"))
    with executes_nothing():
        compile("1", "x", "eval")


def test_a_target_that_breaks_is_told() -> None:
    def read(data: bytes) -> int:
        if data == b"ours":
            raise InputError("refused")
        if data == b"bad":
            raise KeyError("not ours")
        return 3

    broken = Target("x", (b"seed",), (), read)
    assert broken.check(b"seed") == 3
    assert broken.check(b"ours") == 1
    with pytest.raises(KeyError):
        broken.check(b"bad")


def test_the_data_set_of_a_run(tmp_path: Path) -> None:
    data = tmp_path / "a b"
    data.mkdir()
    (data / "manifest.json").touch()
    (tmp_path / "config.json").write_text(json.dumps({"data": str(data)}))
    assert data_of(tmp_path) == data
    for text in ("{}", "[]", '{"data": 5}', '{"data": "a\\nb"}', "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(TinprepError, match=r"config.* (cannot be read|names no data set)"):
            data_of(tmp_path)
