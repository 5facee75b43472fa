"""`--engine spark` makes what the local engine makes, and fails as it does."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.engines.spark_parts import cut
from pipeline.steps import deal
from pipeline.synthetic.amazon import AmazonRecipe, synthesize_amazon
from pipeline.verify import verify
from tests import object_store
from tests.alibaba_made import RawLog, alibaba
from tests.conftest import SHARED, amazon, finished, refused, tinprep
from tests.crash_command import described
from tests.golden_sets import BUCKETS, GOLDEN, differences
from tests.spark.same import same
from tests.test_alibaba_resume import interrupted
from tests.test_description_oracle import MOVIELENS
from tests.test_object_store import ad_log, of_files
from tests.test_several_files import DESCRIPTION

SPARK = ("--engine", "spark", "--master", "local[2]", "--spark-conf", "spark.ui.enabled=false")
SECOND = 1_494_000_000
DAY = 86_400


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are cut, too."""
    monkeypatch.setattr("pipeline.engines.spark.cut", partial(cut, part_bytes=20_000))


# Both engines write by the same steps: a layout's two sets would differ in nothing of Spark's.
@pytest.mark.parametrize("name", ["beauty", "beauty --parity", "kuairand --layout ragged"])
def test_content_is_the_local_engines(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engines.spark.cut", partial(cut, part_bytes=200_000))
    out = GOLDEN[name].make(tmp_path, *BUCKETS, *SPARK)
    assert not differences(out, name)
    assert verify(out).findings == ()


def test_synthetic_reviews_unpacked_and_with_lines_that_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    synthesize_amazon(raw, AmazonRecipe(scale=0.002))
    packed = raw / "reviews_Electronics_5.json.gz"
    lines = gzip.decompress(packed.read_bytes()).splitlines(keepends=True)
    lines[::700] = [b"{no json\n"] * len(lines[::700])
    packed.write_bytes(gzip.compress(b"".join(lines)))
    flags = ("--max-rejected", "1%", "--negatives", 3)
    finished(amazon(raw, tmp_path / "local", *flags, category="Electronics"))
    finished(amazon(raw, tmp_path / "spark", *flags, *SPARK, category="Electronics"))
    same(tmp_path / "local", tmp_path / "spark")


def skewed() -> RawLog:
    """Of 60 users one does a tenth of everything; some ids are large, some lines are no rows."""
    draw = random.Random(7)
    users = [5_000_000_000 + n if n % 20 == 1 else n for n in range(60)]
    impressions = [
        (draw.choice(users), SECOND + draw.randrange(8 * DAY), draw.randrange(20), "p", n % 2)
        for n in range(2_000)
    ]
    ads = [(a, a % 5, a // 2, a // 3, a % 7 or None, str(a / 4)) for a in range(20)]
    profiles = [(u, *(draw.randrange(4) for _ in range(8))) for u in users if u % 9]
    who = [users[0] if draw.random() < 0.1 else draw.choice(users) for _ in range(12_000)]
    behaviours = [
        (user, SECOND + draw.randrange(8 * DAY), draw.choice(["pv", "cart"]), n % 5, n * n)
        for n, user in enumerate(who)
    ]
    return RawLog(impressions, ads, profiles, behaviours)


def test_a_user_with_a_tenth_of_everything(tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    with (raw / "behavior_log.csv").open("ab") as file:
        file.write(b"no,line,of,this,log\n")
    flags = ("--max-rejected", "1%")
    finished(alibaba(raw, tmp_path / "local", *flags))
    finished(alibaba(raw, tmp_path / "spark", *flags, *SPARK))
    same(tmp_path / "local", tmp_path / "spark")


def test_too_many_refused_lines_are_said_with_their_line(tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    path = raw / "behavior_log.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[7_000:7_500] = [b"nothing\n"] * 500
    path.write_bytes(b"".join(lines))
    for flags in ((), SPARK):
        out = tmp_path / f"out{len(flags)}"
        refused(alibaba(raw, out, *flags), 3, f"{path}:7001", "500")
        assert not (out / "manifest.json").exists()


def test_an_unfinished_data_set_of_the_other_engine_is_made_anew(tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    out = tmp_path / "out"
    finished(alibaba(raw, tmp_path / "whole"))
    interrupted(raw, out, after=16)
    assert (out / ".work" / "behaviours").exists()
    finished(alibaba(raw, out, *SPARK))
    same(tmp_path / "whole", out)
    finished(alibaba(raw, out))  # it is found done


def test_an_address_without_a_cluster_ends_in_an_error(tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    master = ("--engine", "spark", "--master", "nonsense")
    refused(alibaba(raw, tmp_path / "out", *master), 5, "Spark gave up")


@pytest.mark.spark_free
def test_nothing_of_spark_is_imported_unasked(tmp_path: Path) -> None:
    raw = skewed().write(tmp_path / "raw")
    program = (
        "import sys; from pipeline.cli.app import main;"
        f"main(['alibaba', '--raw', {str(raw)!r}, '--out', {str(tmp_path / 'out')!r}]);"
        "assert not {'pyspark', 'py4j'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.spark_free
def test_options_of_spark_are_not_for_the_local_engine(tmp_path: Path) -> None:
    for option in (("--master", "local[2]"), ("--spark-conf", "a=b")):
        refused(tinprep("amazon", "--raw", tmp_path, *option), 2, option[0], "--engine spark")


def own(tmp_path: Path, files: str, *more: Any) -> Path:
    """A data set of a log of one's own."""
    out = tmp_path / f"out-{files}-{len(more)}"
    (tmp_path / "own.toml").write_text(DESCRIPTION.replace("FILES", files))
    finished(tinprep("prepare", tmp_path / "own.toml", "--out", out, "--max-rejected", "5%", *more))
    return out


def test_logs_of_ones_own_of_several_files(tmp_path: Path) -> None:
    lines = [f"u{n % 40},{n * 7 % 300},{1_000_000 + n // 9}" for n in range(6_000)]
    lines[4_500] = "u1,2,never"
    (tmp_path / "csv").mkdir()
    (tmp_path / "parquet").mkdir()
    for k, (begin, end) in enumerate(((0, 2_000), (2_000, 4_000), (4_000, 6_000))):
        some = lines[begin:end]
        if k == 1:
            some[7] = '"u\n7",5,1000003'  # a record of two lines: the file is not cut
        text = "user,item,time\n" + "\n".join(some) + "\n"
        (tmp_path / "csv" / f"{k}.csv").write_text(text)
        frame = pl.DataFrame(
            [line.split(",") for line in lines[begin:end]], ["user", "item", "time"], orient="row"
        ).with_columns(pl.col("time").replace("never", None).cast(pl.Int64))
        frame.write_parquet(tmp_path / "parquet" / f"{k}.parquet", row_group_size=700)
    for files in ("csv", "parquet"):
        same(own(tmp_path, files), own(tmp_path, files, *SPARK))


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lookup fits in a task, nor in one part."""
    monkeypatch.setattr(deal, "LOOKUPS_PART", 1 << 62)
    monkeypatch.setattr("pipeline.engines.spark.PART_BYTES", 50_000)


@pytest.mark.parametrize("name", ["made", "movielens apart", "taobao_userbehavior"])
def test_descriptions(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With lookups, filters, several tables and histories, and negatives of every kind."""
    (raw := tmp_path / "raw").mkdir()
    if name.endswith("apart"):
        request.getfixturevalue("apart")
    if name == "made":
        args = described(raw).arguments
    else:
        movielens = name.startswith("movielens")
        raw = SHARED / "data" / ("movielens_latest_small" if movielens else name)
        if not raw.is_dir():
            pytest.skip(f"the real data is not here: {raw} (see TINPREP_SHARED)")
        (tmp_path / "own.toml").write_text(MOVIELENS)
        own = str(tmp_path / "own.toml") if movielens else "taobao-userbehavior-kinds"
        args = ("prepare", own, "--raw", str(raw))
    finished(tinprep(*args, "--out", tmp_path / "local"))
    finished(tinprep(*args, "--out", tmp_path / "spark", *SPARK))
    same(tmp_path / "local", tmp_path / "spark")


@pytest.mark.usefixtures("apart")
def test_the_ad_log_from_a_store_to_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a timed lookup that no task holds."""
    monkeypatch.setattr("pipeline.engines.spark.PART_BYTES", 1_000)
    raw, files = tmp_path / "raw", tmp_path / "files.toml"
    ad_log(raw)
    files.write_text(of_files(raw).read_text())
    with object_store.store() as store:
        store.put_folder(raw, "raw/")
        store.use(monkeypatch)
        finished(tinprep("prepare", files, "--raw", raw, "--out", tmp_path / "local"))
        at = f"s3://{object_store.BUCKET}"
        # Java may be here already, with another environment.
        keys = [f"spark.executorEnv.{name}={value}" for name, value in store.keys.items()]
        flags = [*SPARK, *(word for key in keys for word in ("--spark-conf", key))]
        finished(tinprep("prepare", files, "--raw", f"{at}/raw", "--out", f"{at}/out", *flags))
        store.get_folder("out/", tmp_path / "spark")
    same(tmp_path / "local", tmp_path / "spark")
