"""Lines of the Alibaba files, good, odd and broken, and what the exact reader says of each."""

from __future__ import annotations

from hypothesis import strategies as st

from pipeline.readers import alibaba_columns as columns
from pipeline.readers.alibaba_columns import Column, read_line
from pipeline.readers.parsed import NOT_UTF8
from tests.amazon_lines import Rows

GOOD = {
    columns.IMPRESSIONS: [b"581738,1494137644,1,430548_1007,1,0", b"7,1494137645,2,,0,1"],
    columns.ADS: [b"63133,6406,83237,1,95471,170.0", b"5,1,9161677205,2,NULL,0.01"],
    columns.PROFILES: [b"234,0,5,2,5,,3,0,3", b"523,5,2,2,2,1,3,1,NULL"],
    columns.BEHAVIORS: [b"558157,1493741625,pv,6250,91286", b"1,1493741626,cart,NULL,"],
}

# The same values as other programs write them.
SAVED_AGAIN = {
    columns.IMPRESSIONS: [
        b'"581738","1494137644","1","430548_1007","1","0"',
        b"7,1494137645,2,NaN,0,1",
    ],
    columns.ADS: [b"63133,6406.0,83237.0,1,95471.0,170", b'"5","1","9161677205","2",,"0.01"'],
    columns.PROFILES: [b"234.0,0,5.,2,5,nan,3.0,0.00,3", b'523,5,2,2,2,1,3,1,"\\N"'],
    columns.BEHAVIORS: [b'558157,1493741625.0,"pv",6250,91286.0', b'1,1493741626,cart,None,""'],
}
ODD = [
    *(b"", b"NULL", b"null", b"Null", b"NULLNULL", b"N", b"0", b"00", b"-0", b"1", b"-1", b"--1"),
    *(b"+1", b" 1", b"1 ", b"\t1", b"1.0", b"1.", b".5", b"-2.5", b"1e5", b"0x1f", b"1_0", b"inf"),
    *(b"nan", b'"1"', b'"', b"1\r", b"\r", b"\r\r", b"1\x00", b"\x001", b"#1", b"1;2", b"/", b":"),
    *(b"12345678", b"123456789", b"1234567890123456", b"12345678901234567", b"0" * 30 + b"7"),
    *(b"9" * 18, b"9" * 19, b"%d" % (2**63 - 1), b"%d" % 2**63, b"%d" % 2**64, b"9" * 20),
    *(b"-%d" % (2**63 - 1), b"-%d" % 2**63, b"0%d" % (2**63 - 1), b"9" * 5_000, b"1" * 400),
    *(b"99999999999", b"100000000000", b"1494137644000", b"-100000000000", b"1" * 310 + b".5"),
    *(b"pv", b"cart", b"fav", b"buy", b"PV", b" pv", b"pv ", b"\x00pv", b"pvpvpvpv", b"ppv"),
    *(b"\x00\x00\x00\x00\x00\x00pv", b"\x02\x00\x00\x00\x00\x00pv", b"pv" * 130, b"cart1", b"p"),
    *("é".encode(), "١".encode(), "１".encode(), b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf1"),
    *(b"0.1", b"170.0", b"99999999.99", b"0.30000000000000004", b"2", b"1,", b",", b"1.5.2", b"-"),
    *(b"4.00", b"4." + b"0" * 20 + b"1", b"-4.0", b"-0.0", b"0x1F", b"0X1f", b"1.5.0", b"1e-400"),
    *(b"1.e2", b".", b"1e", b"1e400", b"-inf", b"-nan", b"Infinity", b"1e+16", b"1E05", b"+4.0"),
    *(b"%d.0" % (2**53 + 1), b"%d.0" % (2**63 - 1), b"%d.0" % 2**63, b"4.0 ", b"4.\xff0", b"x"),
    *(b"NaN", b"NAN", b"None", b"\\N", b"NA", b"N/A", b"n/a", b"<NA>", b"NULL ", b"nan\r", b"\\n"),
    *(
        b'""',
        b'"NULL"',
        b'"4.0"',
        b' "1"',
        b'"1" ',
        b'"1"1',
        b'1"1',
        b'"1',
        b'1"',
        b'"pv"',
        b'"1,2"',
    ),
    *(b'"a""b"', b'"""', b'" 1 "', b"'1'", b"a b", b" a", b"a\t", b"\x0b1", b"1\x0c", b"\xc2\xa01"),
]


def header(layout: tuple[Column, ...]) -> bytes:
    return ",".join(column.header for column in layout).encode()


def one_by_one(lines: list[bytes], layout: tuple[Column, ...]) -> tuple[Rows, Rows]:
    """What the exact reader says of each line by itself: the rows, and (line, reason)."""
    rows: Rows = []
    refused: Rows = []
    for number, line in enumerate(lines):
        if not line.strip(b" \t\r"):
            continue
        try:
            found = read_line(line.decode(), layout)
        except UnicodeDecodeError:
            found = NOT_UTF8
        if isinstance(found, str):
            refused.append((number + 2, found))
        else:
            rows.append((number, *found))
    return rows, refused


# How other programs write each field.
RESAVED = (b"%s", b"%s.0", b'"%s"', b'"%s.0"', b" %s", b"%s\t", b"+%s", b"00%s")
_TOKENS = st.sampled_from(
    [*b',,,,,,""\r. \t-+01eExN\0\xff', *(b"1,", b'"1",', b"pv,", b"1.0,", b"0,1")]
)


@st.composite
def files(draw: st.DrawFn, layout: tuple[Column, ...]) -> list[bytes]:
    """Lines that are good, odd or broken."""
    resaved = draw(st.sampled_from(RESAVED))
    lines = []
    for _ in range(draw(st.integers(1, 8))):
        fields = draw(st.sampled_from(GOOD[layout])).split(b",")
        kind = draw(st.integers(0, 10))
        if kind < 6:  # most have just one thing wrong, or nothing
            for _ in range(draw(st.integers(0, 2))):
                at = draw(st.integers(0, len(fields) - 1))
                fields[at] = draw(st.sampled_from(ODD))
        elif kind == 6:
            fields = [resaved % field for field in fields]
        line = b",".join(fields)
        if kind == 7:
            extra = [b"", b" \t", b"\r", b",", line + b",", b"," + line, line[:-3], line + b"\r"]
            extra += [line + b"\r\r", line.replace(b",", b"", 1), b"x", b'"' + line + b'"']
            line = draw(st.sampled_from(extra))
        elif kind == 8:
            at = draw(st.integers(0, len(line)))
            byte = draw(st.integers(0, 255).filter(lambda b: b != 10))
            line = line[:at] + bytes([byte]) + line[at + draw(st.integers(0, 1)) :]
        elif kind == 9:
            tokens = draw(st.lists(_TOKENS, max_size=16))
            line = b"".join(bytes([t]) if isinstance(t, int) else t for t in tokens)
        lines.append(line)
    return lines
