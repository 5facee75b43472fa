"""Wrong descriptions and wrong files: each gives one clear error, when it can, and leaves nothing.

What can be known from the description alone is told before a file is opened: those descriptions
are of files that do not exist.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from schemas.manifest import load
from tests.conftest import finished, refused, tinprep, zstd

USAGE, INPUT = 2, 3
DAY = 86_400
BEGIN = 1_600_041_600  # 2020-09-14 00:00 UTC
HEADER = "uid,what,cat,kind,ts,clicked,loss,part\n"
LINES = [
    f"u{u},i{(u + 2 * n) % 13},c{(u + 2 * n) % 3},{'buy' if n % 2 else 'pv'},"
    f"{BEGIN + n * DAY // 2},{n % 2},{n / 4},{('train', 'train', 'valid', 'test')[n // 2]}\n"
    for n in range(8)
    for u in range(6)
]
LOG = HEADER + "".join(LINES)
ITEMS = "id,group,size\n" + "".join(f"i{n},c{n % 3},{n + 1}\n" for n in range(13))

GOOD = """\
[tables.log]
files = "log.csv"
user = "uid"
time = { column = "ts", unit = "s" }
fields = { item = "what" }

[lookups.item]
files = "items.csv"
key = "id"
fields = { category = "group" }

[target]
table = "log"
split = { by = "time", valid = "2020-09-16", test = "2020-09-17", timezone = "UTC" }
negatives = { per_positive = 1 }

[histories.history]
table = "log"
max_len = 5
"""
LABELS = GOOD.replace("negatives = { per_positive = 1 }\n", "").replace(
    'fields = { item = "what" }\n', 'fields = { item = "what" }\nlabel = "clicked"\n', 1
)


def swap(old: str, new: str, text: str = GOOD) -> str:
    """A text in which one part is another."""
    assert old in text, old
    return text.replace(old, new, 1)


@dataclass(frozen=True)
class Wrong:
    """A description that cannot be, and what has to be said of it."""

    description: str
    said: tuple[str, ...]


NO_LOOKUP = swap(
    '[lookups.item]\nfiles = "items.csv"\nkey = "id"\nfields = { category = "group" }\n', ""
).replace('fields = { item = "what" }', 'fields = { item = "what", category = "cat" }')

DESCRIPTIONS: dict[str, Wrong] = {
    "no TOML": Wrong(swap("[target]", "[target"), ("not TOML", ":12")),
    "an unknown key, with the nearest name": Wrong(
        swap("max_len", "max_length"), ("histories.history", "max_length", "max_len")
    ),
    "a field that is the user": Wrong(
        swap('{ item = "what" }', '{ item = "uid" }'), ("A field is the user", "uid", "made.toml:5")
    ),
    "an unknown key of a table": Wrong(
        swap('user = "uid"', 'usr = "uid"'), ("tables.log", "usr", "user")
    ),
    "no split": Wrong(
        swap(
            'split = { by = "time", valid = "2020-09-16", test = "2020-09-17", timezone = "UTC" }',
            "",
        ),
        ("split",),
    ),
    "days of no zone": Wrong(
        swap(
            'by = "time", valid = "2020-09-16", test = "2020-09-17", timezone = "UTC"', 'by = "day"'
        ),
        ("timezone",),
    ),
    "dates of no zone": Wrong(swap(', timezone = "UTC"', ""), ("timezone",)),
    "no such zone": Wrong(swap('"UTC"', '"Mars/Base"'), ("Mars/Base",)),
    "test before valid": Wrong(swap('"2020-09-17"', '"2020-09-15"'), ("valid", "test")),
    "negatives without a lookup for another field": Wrong(
        NO_LOOKUP.replace("per_positive = 1", 'per_positive = 1, field = "item"'),
        ("category", "lookup", "[lookups.item]"),
    ),
    "negatives of one field or the other": Wrong(NO_LOOKUP, ("item", "category", "field")),
    "negatives of events with labels": Wrong(
        swap('fields = { item = "what" }\n', 'fields = { item = "what" }\nlabel = "clicked"\n'),
        ("negatives", "label"),
    ),
    "a feature named as a field": Wrong(
        swap(
            'fields = { item = "what" }\n',
            'fields = { item = "what" }\nfeatures = { item = "cat" }\n',
        ),
        ("item",),
    ),
    "a reserved name": Wrong(
        swap(
            'fields = { item = "what" }\n',
            'fields = { item = "what" }\nfeatures = { label = "cat" }\n',
        ),
        ("label", "reserved"),
    ),
    "a name that no column can have": Wrong(
        swap('fields = { item = "what" }', 'fields = { "it/em" = "what" }'), ("it/em",)
    ),
    "a column that a history makes": Wrong(
        swap(
            'fields = { item = "what" }\n',
            'fields = { item = "what" }\nfeatures = { history_item = "cat" }\n',
        ),
        ("history_item",),
    ),
    "a target of no table": Wrong(
        swap('[target]\ntable = "log"', '[target]\ntable = "logs"'),
        ("made.toml:13", "logs", "did you mean `log`"),
    ),
    "a history of no table": Wrong(
        swap('[histories.history]\ntable = "log"', '[histories.history]\ntable = "views"'),
        ("made.toml:18", "views"),
    ),
    "a lookup of no field": Wrong(
        swap("[lookups.item]", "[lookups.film]"), ("made.toml:7", "film", "item")
    ),
    "a lookup of no file": Wrong(swap('files = "items.csv"\n', ""), ("made.toml:7", "files")),
    "a window by order over another table": Wrong(
        swap(
            '[histories.history]\ntable = "log"',
            '[histories.history]\ntable = "views"\nwindow = "order"',
        ).replace(
            "[lookups.item]",
            '[tables.views]\nfiles = "views.csv"\nuser = "uid"\n'
            'time = { column = "ts", unit = "s" }\nfields = { item = "what" }\n[lookups.item]',
        ),
        ("window", "order", "views"),
    ),
    "SQL that cannot be read": Wrong(
        swap('user = "uid"', 'user = "uid"\nwhere = "kind = = 1"'), ("where", "kind = = 1")
    ),
    "no SQL, of a lookup": Wrong(
        swap('key = "id"', 'key = "id"\nwhere = "size = = 1"'), (":10", "size = = 1")
    ),
    "a lookup's own where of a table": Wrong(
        swap('files = "items.csv"\nkey = "id"', 'table = "log"\nkey = "what"\nwhere = "cat > 1"'),
        (":10", "where in [tables.log]"),
    ),
    "SQL that reads elsewhere": Wrong(
        swap(
            'user = "uid"',
            """user = "uid"\nwhere = "what in (select x from read_csv('/etc/passwd'))\"""",
        ),
        ("where",),
    ),
    "row numbers of a file": Wrong(
        swap('user = "uid"', 'user = "uid"\nrow = "id"'), ("made.toml:4", "row", "queries")
    ),
    "an address for a variable": Wrong(
        f'connections.x.url_env = "postgresql://u:sesame@host/x"\n{GOOD}',
        ("made.toml:1", "environment variable"),
    ),
    "a query and a format": Wrong(
        'connections.x.url_env = "X"\n'
        + swap('files = "items.csv"', 'connection = "x"\nquery = "..."\nformat = "csv"'),
        ("format", "connection", "files"),
    ),
    "the first of rows without an order": Wrong(
        'connections.x.url_env = "X"\n'
        + swap('files = "items.csv"', 'connection = "x"\nquery = "..."\nrepeated = "first"'),
        ("repeated", "order", "equal"),
    ),
    "a history that ends before it begins": Wrong(
        swap("max_len = 5", 'max_len = 5\nwithin = "1h"\ndelay = "61m"'), ("within", "61m", "1h")
    ),
    "text for a number": Wrong(swap("max_len = 5", 'max_len = "5"'), ("max_len", "number")),
    "a length of nothing": Wrong(swap("max_len = 5", "max_len = 0"), ("max_len", "1")),
    "more bins than there can be": Wrong(f"bins = 300\n{GOOD}", ("bins", "255")),
    "a span of time in no unit": Wrong(
        swap("max_len = 5", 'max_len = 5\nsession_gap = "half an hour"'),
        ("made.toml:20", "half an hour"),
    ),
    "a choice that there is not": Wrong(
        swap("per_positive = 1", 'per_positive = 1, exclude = "always"'),
        ("exclude", "always", "ever"),
    ),
    "a parameter without a value": Wrong(
        swap('"log.csv"', '"log-{year}.csv"'), ("made.toml:2", "year", "parameter")
    ),
    "a table that nobody asks for": Wrong(
        swap(
            "[lookups.item]",
            '[tables.views]\nfiles = "views.csv"\nuser = "uid"\n'
            'time = { column = "ts", unit = "s" }\nfields = { item = "what" }\n[lookups.item]',
        ),
        ("views",),
    ),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_wrong_description_is_told_before_a_file_is_opened(name: str, tmp_path: Path) -> None:
    wrong = DESCRIPTIONS[name]
    path = tmp_path / "made.toml"
    path.write_text(wrong.description)
    ended = tinprep("prepare", path, "--out", tmp_path / "out")
    refused(ended, USAGE, path, *wrong.said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made.toml"]


Files = dict[str, bytes]


@dataclass(frozen=True)
class Bad:
    """Files that cannot be made a data set of, and what has to be said of them.

    Attributes:
        said: what the error says, besides the name of the file.
        files: in place of the good ones; None for no such file.
        description: of them.
        file: that the error is of.
        code: exit code.
    """

    said: tuple[str, ...]
    files: dict[str, str | bytes | None] = field(default_factory=dict)
    description: str = GOOD
    file: str = "log.csv"
    code: int = INPUT


def line_of(text: str, number: int, new: str) -> str:
    """A text in which one line, counted from 1, is another."""
    lines = text.splitlines(keepends=True)
    lines[number - 1] = new
    return "".join(lines)


def parquet(**columns: pa.Array) -> bytes:
    """A Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def of_decimals(column: str) -> bytes:
    """The log as Parquet, one column in decimals wider than Polars has."""
    table = pa.csv.read_csv(pa.BufferReader(LOG.encode()))
    wide = pa.array([Decimal(n) for n in range(len(table))], pa.decimal256(50, 2))
    return parquet(**{n: wide if n == column else table[n] for n in table.column_names})


def of_floats(column: str) -> bytes:
    """The log as Parquet, one column in floats that hold no more than 24 bits of a whole number."""
    table = pa.csv.read_csv(pa.BufferReader(LOG.encode()))
    return parquet(
        **{
            n: table[n].cast(pa.float32(), safe=False) if n == column else table[n]
            for n in table.column_names
        }
    )


def zipped(text: str) -> bytes:
    """A zip archive of one file."""
    import io

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("log.csv", text)
    return data.getvalue()


def column(n: int, value: Callable[[int, str], str], text: str = LOG) -> str:
    """A log in which one column is another: of the line's number and the value."""
    head, *lines = text.splitlines()
    rows = [line.split(",") for line in lines]
    for at, row in enumerate(rows):
        row[n] = value(at, row[n])
    return "\n".join([head, *map(",".join, rows)]) + "\n"


def iso(at: int, value: str) -> str:
    """A time as text, of no zone."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(value), UTC).strftime("%Y-%m-%d %H:%M:%S")


BY_COLUMN = swap(
    'by = "time", valid = "2020-09-16", test = "2020-09-17", timezone = "UTC"',
    'by = "column", column = "part"',
)
AT = swap('key = "id"\n', 'key = "id"\ntime = { column = "from", unit = "s" }\n')
TIMED = column(2, lambda _, size: f"{size},{BEGIN}", ITEMS).replace("size", "size,from")
WEIGHED = swap('fields = { item = "what" }\n', 'fields = { item = "what" }\nweight = "loss"\n')

FILES: dict[str, Bad] = {
    "no file": Bad(("no such file",), {"log.csv": None}),
    "no file, but one of nearly its name": Bad(("Log.csv",), {"log.csv": None, "Log.csv": LOG}),
    "no file of a lookup": Bad(("no such file",), {"items.csv": None}, file="items.csv"),
    "no file that a glob names": Bad(
        ("log-*.csv",), description=swap('"log.csv"', '"log-*.csv"'), file=""
    ),
    "nothing in the file": Bad(("empty",), {"log.csv": ""}),
    "a header alone": Bad(("0 lines",), {"log.csv": HEADER}),
    "no such column": Bad(("what", "wat"), {"log.csv": swap("what", "wat", LOG)}),
    "no such column of where": Bad(
        ("stars > 1", "not there", "made.toml:4"),
        description=swap('user = "uid"', 'user = "uid"\nwhere = "stars > 1"'),
        file="",
        code=USAGE,
    ),
    "no header": Bad(("uid", "csv = { columns ="), {"log.csv": "".join(LINES)}),
    "a column twice": Bad(("what", "twice"), {"log.csv": swap("cat,", "what,", LOG)}),
    "another header in the second file": Bad(
        ("what",),
        {"log.csv": None, "log-1.csv": LOG, "log-2.csv": swap("what,cat", "wat,cat", LOG)},
        swap('"log.csv"', '["log-1.csv", "log-2.csv"]'),
        "log-2.csv",
    ),
    "milliseconds as seconds": Bad(
        ('unit = "ms"', "another unit"),
        {"log.csv": column(4, lambda n, v: v + "000")},
        file="made.toml:4",
        code=USAGE,
    ),
    "dates as digits": Bad(
        ("dates written as digits", "ts = 202009"),
        {"log.csv": column(4, lambda n, _: f"202009{n % 30 + 1:02}")},
        file="made.toml:4",
        code=USAGE,
    ),
    "lists in brackets that are cut": Bad(
        ("in brackets", "leave `separator` out"),
        {"log.csv": column(2, lambda _, v: f"\"['{v}', 'c']\"")},
        swap(
            "[target]",
            "[tables.log.lists.tag]\ncolumn = 'cat'\nmax_len = 2\nseparator = ','\n[target]",
        ),
        "made.toml:12",
        code=USAGE,
    ),
    "milliseconds as seconds, but for the first": Bad(
        ("milliseconds in ts", 'unit = "ms"'),
        {"log.csv": LOG + LOG[len(HEADER) :] * 300 + "u1,i1,c1,buy,1600041600000,0,1,test\n" * 99},
    ),
    "seconds as milliseconds": Bad(
        ('unit = "s"', "another unit"),
        description=swap('unit = "s"', 'unit = "ms"'),
        file="made.toml:4",
        code=USAGE,
    ),
    "one line in ten has no time": Bad(
        ("lines", "refused"), {"log.csv": column(4, lambda n, v: "" if n % 10 == 0 else v)}
    ),
    "times of no zone": Bad(
        ("timezone",),
        {"log.csv": column(4, iso)},
        swap('{ column = "ts", unit = "s" }', '{ column = "ts" }'),
        "made.toml:4",
        USAGE,
    ),
    "seconds of 32-bit floats": Bad(
        ("32 bits", "ts", "all their digits"),
        {"log.csv": None, "log.parquet": of_floats("ts")},
        swap("log.csv", "log.parquet"),
        "log.parquet",
    ),
    "seconds with half of their digits": Bad(
        ("digits may be lost in ts", "all their digits"),
        {"log.csv": column(4, lambda n, v: f"{int(v):.4e}")},
    ),
    "seconds with a fraction": Bad(
        ("finer", "floor("), {"log.csv": column(4, lambda n, v: f"{v}.5")}
    ),
    "lines of an old Mac": Bad(("newlines", "tr "), {"log.csv": LOG.replace("\n", "\r")}),
    "text for a time": Bad(("whole number", "ts"), {"log.csv": column(4, lambda n, v: "soon")}),
    "a label that is always 0": Bad(
        ("label", "0"), {"log.csv": column(5, lambda n, v: "0")}, LABELS, ""
    ),
    "a label of 5": Bad(
        ("label", "0 or 1"), {"log.csv": column(5, lambda n, v: "5" if n % 2 else "0")}, LABELS
    ),
    "a label in words": Bad(
        ("label", "= 'yes'"),
        {"log.csv": column(5, lambda n, v: "yes" if v == "1" else "no")},
        LABELS,
    ),
    "a weight that is no number": Bad(
        ("loss",), {"log.csv": column(6, lambda n, v: "nan")}, WEIGHED
    ),
    "a weight below 0": Bad(("loss",), {"log.csv": column(6, lambda n, v: "-1")}, WEIGHED),
    "nothing to train on": Bad(
        ("train",), description=swap('"2020-09-16"', '"2020-09-01"'), file=""
    ),
    "nothing to test on": Bad(("test",), description=swap('"2020-09-17"', '"2020-10-17"'), file=""),
    "a split of another name": Bad(
        ("dev", "train, valid or test"),
        {"log.csv": LOG.replace(",valid\n", ",dev\n")},
        BY_COLUMN,
    ),
    "a split without valid, that is in no line": Bad(
        ("test",), {"log.csv": LOG.replace(",test\n", ",train\n")}, BY_COLUMN, ""
    ),
    "a key twice in a lookup": Bad(
        ("i3", "repeated", "first"), {"items.csv": ITEMS + "i3,c1,2\n"}, file="items.csv"
    ),
    "a key twice with other values": Bad(
        ("i3",),
        {"items.csv": ITEMS + "i3,c1,2\n"},
        swap('key = "id"', 'key = "id"\nrepeated = "equal"'),
        "items.csv",
    ),
    "a lookup of other ids": Bad(
        ("item",),
        {"items.csv": ITEMS.replace("i", "x")},
        swap('key = "id"', 'key = "id"\nmax_missing = 0.5'),
        "",
    ),
    "a key and time twice in a lookup": Bad(
        ("i3", "repeated", "item and time", "first"),
        {"items.csv": TIMED + "i3,c1,2,1600041600.0\n"},
        AT,
        "items.csv",
    ),
    "a lookup's time that is none": Bad(
        ("whole number", "from"), {"items.csv": TIMED.replace(str(BEGIN), "soon")}, AT, "items.csv"
    ),
    "no time of a lookup's line": Bad(
        ("missing value", "from"),
        {"items.csv": TIMED.replace(str(BEGIN), "")},
        AT,
        "items.csv",
    ),
    "a lookup's times in another unit": Bad(
        ("another unit", 'unit = "ms"'),
        {"items.csv": TIMED.replace(str(BEGIN), f"{BEGIN}000")},
        AT,
        "made.toml:10",
        USAGE,
    ),
    "a lookup's times without a unit": Bad(
        ("need a unit",),
        {"items.csv": TIMED},
        swap(', unit = "s" }\nfields = { cat', " }\nfields = { cat", AT),
        "made.toml:10",
        USAGE,
    ),
    "some of a lookup's times without a zone": Bad(
        ("timezone",),
        {"items.csv": TIMED.replace(str(BEGIN), "2020-09-14T00:00:00Z") + "i3,c1,2,2020-09-15\n"},
        swap(', unit = "s" }\nfields = { cat', " }\nfields = { cat", AT),
        "made.toml:10",
        USAGE,
    ),
    "no line of a lookup before most targets": Bad(
        ("without an earlier line in lookups.item", "at most 50.000%"),
        {"items.csv": TIMED.replace(str(BEGIN), str(BEGIN + 9 * DAY))},
        swap('key = "id"', 'key = "id"\nmax_missing = 0.5', AT),
        "items.csv",
    ),
    "ids of another type than they are said to be": Bad(
        ("whole number", "what"), description='types = { item = "whole" }\n' + GOOD
    ),
    "no event before a target": Bad(
        ("history",),
        description=swap("max_len = 5", "max_len = 5\nwhere = \"kind = 'cart'\""),
        file="",
    ),
    "no event that where leaves": Bad(
        ("where",),
        description=swap('user = "uid"', 'user = "uid"\nwhere = "kind = \'cart\'"'),
        file="",
    ),
    "no event that is a target": Bad(
        ("target", "where"),
        description=swap(
            '[target]\ntable = "log"', '[target]\ntable = "log"\nwhere = "kind = \'cart\'"'
        ),
        file="",
    ),
    "a gzip that is cut short": Bad(
        ("cut short",),
        {"log.csv": None, "log.csv.gz": gzip.compress(LOG.encode())[:-300]},
        swap("log.csv", "log.csv.gz"),
        "log.csv.gz",
    ),
    "a zstd that is cut short": Bad(
        ("cut short",),
        {"log.csv": None, "log.csv.zst": zstd(LOG.encode())[:-100]},
        swap("log.csv", "log.csv.zst"),
        "log.csv.zst",
    ),
    "a zip": Bad(
        ("zip", "unpack"),
        {"log.csv": None, "log.zip": zipped(LOG)},
        swap("log.csv", "log.zip"),
        "log.zip",
        USAGE,
    ),
    "a file that is there packed, too": Bad(
        ("log.csv, log.csv.gz", "twice"),
        {"log.csv.gz": gzip.compress(LOG.encode())},
        swap("log.csv", "log.*"),
        "raw",
    ),
    "a zip called .csv": Bad(("zip", "unpack"), {"log.csv": zipped(LOG)}),
    "a web page": Bad(("web page",), {"log.csv": "<!DOCTYPE html><html>404</html>\n"}),
    "lines that are no JSON": Bad(
        ("JSON",),
        {"log.csv": None, "log.jsonl": LOG},
        swap("log.csv", "log.jsonl"),
        "log.jsonl",
    ),
    "a Parquet file that is none": Bad(
        ("Parquet",),
        {"log.csv": None, "log.parquet": LOG},
        swap("log.csv", "log.parquet"),
        "log.parquet",
    ),
    "a column of a type that is not read": Bad(
        ("what (decimal256(50, 2))",),
        {"log.csv": None, "log.parquet": of_decimals("what")},
        swap("log.csv", "log.parquet"),
        "log.parquet",
    ),
    "text that is not UTF-8": Bad(
        ("UTF-8", "latin-1"), {"log.csv": column(0, lambda n, v: v + "é").encode("latin-1")}
    ),
    "a delimiter that is another": Bad(
        ("uid;what", 'csv = { delimiter = ";" }'), {"log.csv": LOG.replace(",", ";")}
    ),
    "another delimiter, and no header": Bad(
        ('csv = { delimiter = "\\t" }',),
        {"log.csv": LOG.replace(",", "\t")},
        swap(
            "[lookups.item]",
            f"[tables.log.csv]\ncolumns = {[*HEADER.strip().split(',')]}\n[lookups.item]",
        ),
    ),
}


def write(folder: Path, description: str, files: dict[str, str | bytes | None]) -> Path:
    """Write a description and its files; where it is."""
    good: dict[str, str | bytes | None] = {"log.csv": LOG, "items.csv": ITEMS}
    for name, data in (good | files).items():
        if data is not None:
            (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    path = folder / "made.toml"
    path.write_text(description)
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_told_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    bad = FILES[name]
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    path = write(raw, bad.description, bad.files)
    there = sorted(p.name for p in raw.iterdir())
    ended = tinprep("prepare", path, "--out", out)
    refused(ended, bad.code, bad.file, *bad.said)
    assert "\x1b" not in ended.err
    assert sorted(p.name for p in raw.iterdir()) == there
    assert not out.exists(), [*out.rglob("*")]


def rows(folder: Path, description: str, files: dict[str, str | bytes | None]) -> list[object]:
    """The rows that are made of some files."""
    from tests.description_oracle import made_rows

    (folder / "raw").mkdir(parents=True)
    path = write(folder / "raw", description, files)
    finished(tinprep("prepare", path, "--out", folder / "out"))
    assert load(folder / "out").rejected == {}
    return made_rows(folder / "out")


BOM = b"\xef\xbb\xbf"
SAME: dict[str, tuple[str, dict[str, str | bytes | None]]] = {
    "plain, called .gz": (swap("log.csv", "log.csv.gz"), {"log.csv": None, "log.csv.gz": LOG}),
    "gzip, called .csv": (GOOD, {"log.csv": gzip.compress(LOG.encode())}),
    "zstd, called .gz": (
        swap("log.csv", "log.csv.gz"),
        {"log.csv": None, "log.csv.gz": zstd(LOG.encode())},
    ),
    "zstd as pzstd writes it, which begins with a frame of no text": (
        GOOD,
        {"log.csv": b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstd(LOG.encode())},
    ),
    "a mark of the bytes' order": (GOOD, {"log.csv": BOM + LOG.encode()}),
    "lines as Windows ends them": (GOOD, {"log.csv": LOG.replace("\n", "\r\n")}),
    "no newline at the end": (GOOD, {"log.csv": LOG[:-1]}),
    "empty lines at the end": (GOOD, {"log.csv": LOG + "\n\n"}),
    "whole numbers as floats": (GOOD, {"log.csv": column(4, lambda n, v: v + ".0")}),
    "whole numbers in quotes": (GOOD, {"log.csv": column(4, lambda n, v: f'"{v}"')}),
    "whole numbers among blanks": (GOOD, {"log.csv": column(4, lambda n, v: f" {v} ")}),
    "a line within quotes": (
        GOOD,
        {"log.csv": column(2, lambda n, v: f'"{v}\nmore, of ""it"""')},
    ),
    "other columns": (GOOD, {"log.csv": column(2, lambda n, v: "\x1b[31m")}),
    "a second file with its columns the other way round, and one more": (
        swap('"log.csv"', '["log-1.csv", "log-2.csv"]'),
        {
            "log.csv": None,
            "log-1.csv": HEADER + "".join(LINES[:9]),
            "log-2.csv": "".join(
                ",".join(["more", *line.strip().split(",")[::-1]]) + "\n"
                for line in [HEADER, *LINES[9:]]
            ),
        },
    ),
    "no header": (
        swap(
            "[lookups.item]",
            '[tables.log.csv]\ncolumns = ["uid", "what", "cat", "kind", "ts", "clicked", "loss", '
            '"part"]\n[lookups.item]',
        ),
        {"log.csv": "".join(LINES)},
    ),
    "tabs": (
        swap("log.csv", "log.tsv"),
        {"log.csv": None, "log.tsv": LOG.replace(",", "\t")},
    ),
    "semicolons": (
        swap("[lookups.item]", '[tables.log.csv]\ndelimiter = ";"\n[lookups.item]'),
        {"log.csv": LOG.replace(",", ";")},
    ),
    "Latin-1": (
        swap("[lookups.item]", '[tables.log.csv]\nencoding = "latin-1"\n[lookups.item]'),
        {"log.csv": column(2, lambda n, v: "é").encode("latin-1")},
    ),
    "a file that is empty after the first": (
        swap('"log.csv"', '["log.csv", "none.csv"]'),
        {"none.csv": HEADER},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_the_same_is_read_as_the_same(name: str, tmp_path: Path) -> None:
    assert rows(tmp_path / "odd", *SAME[name]) == rows(tmp_path / "usual", GOOD, {})
