"""What `logs.py` runs in each peer's Python: from a log to rows with histories of 50.

`PYTHON -P benchmarks/logs_peers.py PEER FOLDER` reads FOLDER's log (user, item, category, kind,
second) and prints a line of JSON: seconds from before its imports to its rows, how many those are,
the library's version. The rows of the users of FOLDER/sample.json, each a target's item and the
history's items, oldest first, go to FOLDER/PEER.json. A peer's ways are those of its own docs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MOST = 50
LOG, ATOMIC = "UserBehavior.parquet", "log/log.inter"
VALID = 1_511_539_200 + 7 * 86_400
Rows = Iterable[tuple[int, list[int]]]
"""Of each row the target's item and the items of its history."""
Made = tuple[int, str, Callable[[set[int]], Rows]]
"""How many rows, the library's version, and what gives the rows of some users."""


def pandas_groups(folder: Path) -> Made:
    """Each event but a user's first: a group a user, and slices of its list."""
    import pandas as pd

    log = pd.read_parquet(folder / LOG, columns=["user", "item", "second"])
    log = log.sort_values(["user", "second"], kind="stable")
    log["id"] = pd.factorize(log["item"])[0] + 1
    made = []
    for user, group in log.groupby("user"):
        items = group["id"].tolist()
        made += [(user, items[i], items[max(0, i - MOST) : i]) for i in range(1, len(items))]
    rows = pd.DataFrame(made, columns=["user", "item", "history"])
    value = dict(zip(log["id"], log["item"], strict=True))

    def of(users: set[int]) -> Rows:
        for row in rows[rows["user"].isin(users)].itertuples():
            yield value[row.item], [value[x] for x in row.history]

    return len(rows), f"pandas {pd.__version__}", of


def pandas_shift(folder: Path) -> Made:
    """The same by 50 shifts of a column within its groups, without a loop over rows."""
    import numpy as np
    import pandas as pd

    log = pd.read_parquet(folder / LOG, columns=["user", "item", "second"])
    log = log.sort_values(["user", "second"], kind="stable", ignore_index=True)
    log["id"] = pd.factorize(log["item"])[0].astype(np.int32) + 1
    groups = log.groupby("user")["id"]
    histories = np.zeros((len(log), MOST), np.int32)
    for back in range(1, MOST + 1):
        histories[:, MOST - back] = groups.shift(back, fill_value=0)
    kept = np.flatnonzero(groups.cumcount() > 0)
    histories = histories[kept]
    value = np.r_[0, pd.unique(log["item"])]

    def of(users: set[int]) -> Rows:
        chosen = np.flatnonzero(log["user"].isin(users).to_numpy()[kept])
        for at in chosen:
            history = histories[at]
            yield int(log["item"][kept[at]]), value[history[history > 0]].tolist()

    return len(kept), f"pandas {pd.__version__}", of


def pandas_purchases(folder: Path) -> Made:
    """What tinprep makes of purchases, by a group a user.

    Items, categories, intervals and their bins, a negative that the user never touched, ids of
    what is known before valid begins, and a split by time.
    """
    import numpy as np
    import pandas as pd

    log = pd.read_parquet(folder / LOG).sort_values(["user", "second"], kind="stable")
    known = log[log["second"] < VALID]
    ids = {}
    for name in ("item", "category"):
        values = np.sort(known[name].unique())
        places = np.minimum(np.searchsorted(values, log[name]), len(values) - 1)
        log[f"{name}_id"] = np.where(values[places] == log[name], places + 2, 1)
        ids[name] = values
    category = log.drop_duplicates("item").set_index("item")["category"].to_dict()
    pool, random = ids["item"], np.random.default_rng(0)
    made: list[tuple[Any, ...]] = []
    for user, group in log.groupby("user"):
        bought = np.flatnonzero(group["kind"].to_numpy() == "buy")
        if not len(bought):
            continue
        items, item_ids = group["item"].tolist(), group["item_id"].to_numpy()
        category_ids, seconds = group["category_id"].to_numpy(), group["second"].to_numpy()
        touched = set(items)
        ends = np.searchsorted(seconds, seconds[bought])  # strictly before the target
        for target, end in zip(bought, ends, strict=True):
            past, now = slice(max(0, end - MOST), end), seconds[target]
            history = (item_ids[past], category_ids[past], now - seconds[past])
            other = random.choice(pool)
            while other in touched:
                other = random.choice(pool)
            made.append((user, now, 1, items[target], category_ids[target], *history))
            made.append((user, now, 0, other, category[other], *history))
    columns = ["user", "second", "label", "item", "category", "items", "categories", "intervals"]
    rows = pd.DataFrame(made, columns=columns)
    train = rows["second"] < VALID
    edges = np.quantile(np.concatenate(rows["intervals"][train].to_list()), np.arange(1, 10) / 10)
    lengths = rows["items"].map(len)
    bins = np.searchsorted(edges, np.concatenate(rows["intervals"].to_list())).astype(np.uint8) + 1
    rows["bins"] = np.split(bins, np.cumsum(lengths)[:-1])
    rows["split"] = np.select([train, rows["second"] < VALID + 86_400], ["train", "valid"], "test")

    def of(users: set[int]) -> Rows:
        for row in rows[rows["user"].isin(users) & (rows["label"] == 1)].itertuples():
            yield row.item, [int(pool[x - 2]) if x > 1 else 0 for x in row.items]

    return len(rows), f"pandas {pd.__version__}", of


def rechub(folder: Path) -> Made:
    """torch-rechub: `generate_seq_feature`, then `df_to_dict`, as before its `DataGenerator`."""
    from importlib.metadata import version

    import numpy as np
    import pandas as pd
    from torch_rechub.utils.data import df_to_dict, generate_seq_feature

    log = pd.read_parquet(folder / LOG, columns=["user", "item", "second"])
    users_of, items_of = np.sort(log["user"].unique()), np.sort(log["item"].unique())
    splits = generate_seq_feature(log, "user", "item", "second", max_len=MOST)
    made = [df_to_dict(split) for split in splits]

    def of(users: set[int]) -> Rows:
        for split in made:
            here = np.isin(users_of[split["user"] - 1], [*users]) & (split["label"] == 1)
            for at in np.flatnonzero(here):
                history = split["hist_item_id"][at]
                target = items_of[split["target_item_id"][at] - 1]
                yield int(target), items_of[history[history > 0] - 1].tolist()

    return sum(len(split["label"]) for split in made), f"torch-rechub {version('torch-rechub')}", of


def recbole(folder: Path) -> Made:
    """RecBole: an atomic file, `create_dataset`, and `build`, which augments and splits."""
    import recbole
    from recbole.config import Config
    from recbole.data import create_dataset

    sys.argv = sys.argv[:1]  # else it takes them for its own
    settings = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": MOST,
        "train_neg_sample_args": None,
        "use_gpu": False,
        "checkpoint_dir": str(folder),
    }
    dataset = create_dataset(Config(model="SASRec", dataset="log", config_dict=settings))
    splits = dataset.build()

    def of(users: set[int]) -> Rows:
        import numpy as np

        mine = [dataset.token2id("user_id", str(user)) for user in users]
        token = dataset.field2id_token["item_id"]
        for split in splits:
            made = split.inter_feat
            for at in np.flatnonzero(np.isin(made["user_id"].numpy(), mine)):
                history = made["item_id_list"][at][: made["item_length"][at]]
                yield int(token[made["item_id"][at]]), [int(x) for x in token[history.numpy()]]

    return sum(map(len, splits)), f"RecBole {recbole.__version__}", of


def _replay(read: Callable[[Path], Any], each: bool = False) -> Callable[[Path], Made]:
    """RePlay: a `SequenceTokenizer` gives a sequence a user, windows are cut as they are read.

    With `each` every row is read once.
    """

    def make(folder: Path) -> Made:
        from importlib.metadata import version

        import replay.data as rd
        from replay.data import nn as rn

        item, user, kind = rd.FeatureHint.ITEM_ID, rd.FeatureHint.QUERY_ID, rd.FeatureType
        columns = [
            rd.FeatureInfo("user", kind.CATEGORICAL, user),
            rd.FeatureInfo("item", kind.CATEGORICAL, item),
            rd.FeatureInfo("second", kind.NUMERICAL, rd.FeatureHint.TIMESTAMP),
        ]
        source = [rn.TensorFeatureSource(rd.FeatureSource.INTERACTIONS, "item")]
        tensor = rn.TensorFeatureInfo(
            "item", kind.CATEGORICAL, True, feature_sources=source, feature_hint=item
        )
        tokenizer = rn.SequenceTokenizer(rn.TensorSchema(tensor), allow_collect_to_master=True)
        schema = rd.FeatureSchema(columns)
        sequences = tokenizer.fit_transform(rd.Dataset(schema, interactions=read(folder)))
        rows = rn.TorchSequentialDataset(sequences, MOST + 1, sliding_window_step=1)
        for at in range(len(rows) if each else 0):
            rows[at]

        def of(users: set[int]) -> Rows:
            value = tokenizer.item_id_encoder.inverse_mapping["item"]
            of_user = tokenizer.query_id_encoder.mapping["user"]
            mine = {of_user[user] for user in users}
            for sequence, offset in rows._index2sequence_map:
                if sequences.get_query_id(sequence) in mine:
                    window = sequences.get_sequence(sequence, "item")[offset : offset + MOST + 1]
                    *history, target = (int(value[x]) for x in window)
                    yield target, history

        return len(rows), f"RePlay {version('replay-rec')}", of

    return make


def _polars(folder: Path) -> Any:
    import polars as pl

    return pl.read_parquet(folder / LOG, columns=["user", "item", "second"])


def _pandas(folder: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(folder / LOG, columns=["user", "item", "second"])


def _spark(folder: Path) -> Any:
    from replay.utils.session_handler import get_spark_session

    spark = get_spark_session(spark_memory=8, shuffle_partitions=8, core_count=2)
    return spark.read.parquet(str(folder / LOG)).select("user", "item", "second")


def sample(folder: Path) -> Made:
    """Choose users none of whose events share a second, and write the log as RecBole reads it."""
    import polars as pl

    log = pl.read_parquet(folder / LOG)
    (folder / ATOMIC).parent.mkdir(exist_ok=True)
    atomic = {"user": "user_id:token", "item": "item_id:token", "second": "timestamp:float"}
    log.select(pl.col(old).alias(new) for old, new in atomic.items()).write_csv(
        folder / ATOMIC, separator="\t"
    )
    alone = log.group_by("user").agg(pl.col("second").is_duplicated().any().alias("tie"), pl.len())
    chosen = alone.filter(~pl.col("tie") & (pl.col("len") > 2)).sort("user")["user"][:30].to_list()
    events = log.filter(pl.col("user").is_in(chosen)).sort("user", "second").to_dicts()
    every: dict[str, list[Any]] = {"every": [], "purchases": []}
    for user in chosen:
        mine = [event for event in events if event["user"] == user]
        for at, event in enumerate(mine):
            row = [event["item"], [other["item"] for other in mine[max(0, at - MOST) : at]]]
            every["every"] += [row] if at else []
            every["purchases"] += [row] if event["kind"] == "buy" else []
    (folder / "sample.json").write_text(json.dumps({"users": chosen, **every}))
    return len(log), "", lambda users: []


def tinprep(folder: Path) -> Made:
    """Read the rows of the data set in FOLDER/out, which `tinprep prepare` made."""
    import polars as pl

    value = dict(pl.read_parquet(folder / "out/vocabulary/item.parquet")["id", "value"].rows())
    user = dict(pl.read_parquet(folder / "out/vocabulary/user.parquet")["value", "id"].rows())
    rows = pl.scan_parquet(str(folder / "out/*/part-*.parquet"))
    drawn = json.loads((folder / "out/manifest.json").read_text())["target"]["negatives"]

    def of(users: set[int]) -> Rows:
        mine = rows.filter(pl.col("user").is_in([user[x] for x in users]))
        if drawn:
            mine = mine.filter(pl.col("label") == 1)
        found = mine.select("target_item", "history_item").collect()
        for target, history in found.rows():
            yield value.get(target, 0), [value.get(x, 0) for x in history]

    return rows.select(pl.len()).collect().item(), "", of


PEERS: dict[str, Callable[[Path], Made]] = {
    "pandas_groups": pandas_groups,
    "pandas_shift": pandas_shift,
    "pandas_purchases": pandas_purchases,
    "rechub": rechub,
    "recbole": recbole,
    "replay_polars": _replay(_polars),
    "replay_rows": _replay(_polars, each=True),
    "replay_pandas": _replay(_pandas),
    "replay_spark": _replay(_spark),
    "sample": sample,
    "tinprep": tinprep,
}


def main() -> None:
    """Make the rows, say so, and write those of the sample."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    begin = time.perf_counter()
    rows, version, of = PEERS[name](folder)
    told = {"seconds": time.perf_counter() - begin, "rows": rows, "version": version}
    if name != "sample":
        users = json.loads((folder / "sample.json").read_text())["users"]
        (folder / f"{name}.json").write_text(json.dumps([*of({*users})]))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
