"""The note beside a download on its way: whatever is there, the download begins anew or goes on."""

from __future__ import annotations

from fuzz.target import Target, written
from pipeline.download import Part


def read(data: bytes) -> int:
    """Read where the bytes of a part come from."""
    path = written("x.gz.part.json", data)
    origin = Part("x.gz", path.with_name("x.gz.part")).origin
    if origin is not None:
        assert isinstance(origin.url, str)
        assert isinstance(origin.validator, str | None)
        assert isinstance(origin.total, int | None)
    return 1


TARGETS = (
    Target(
        "part",
        seeds=(
            b'{"url": "http://127.0.0.1/x.gz", "validator": "\\"abc\\"", "total": 500}',
            b'{"url": "https://a/b", "validator": null, "total": null}',
        ),
        words=(
            b'"url": ',
            b'"validator": ',
            b'"total": ',
            b"null",
            b"[[[[",
            b"\\ud800",
            b"NaN",
            b"1e5",
        ),
        read=read,
    ),
)
