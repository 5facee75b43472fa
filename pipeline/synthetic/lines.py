"""Renders drawn reviews as the lines of the two raw files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from pipeline.synthetic import text as synthetic_text
from pipeline.synthetic.law import Draw
from pipeline.synthetic.recipe import AmazonRecipe, AmazonSizes, stream
from pipeline.synthetic.shelf import log_logistic
from schemas.arrays import Floats, Int64s

Word = TypeVar("Word")

DAY_S = 86_400
_EPOCH = dt.date(1970, 1, 1)
_CHUNK = 20_000
_RATINGS = np.array([0.05, 0.10, 0.18, 0.38, 1.0])  # cumulative shares of 1 to 5 stars
_HELPFUL = ("[0, 0]",) * 12 + ("[1, 1]", "[0, 1]", "[2, 2]", "[1, 2]", "[13, 14]", "[48, 51]")
_META_KEYS = tuple(
    f"'{key}': "
    for key in (
        "asin", "imUrl", "description", "categories", "title", "price", "salesRank", "related",
        "brand",
    )
)  # fmt: skip
_META_KEY_ORDERS = (
    (0, 4, 5, 1, 7, 6, 8, 2, 3),
    (0, 2, 4, 5, 6, 1, 7, 3, 8),
    (0, 1, 2, 3, 4, 5, 6, 7, 8),
    (3, 0, 4, 5, 1, 7, 2, 6, 8),
    (0, 7, 4, 6, 5, 1, 8, 3, 2),
)


class Lines:
    """Renders a draw as blocks of lines of the two files."""

    def __init__(self, recipe: AmazonRecipe, category: str, draw: Draw) -> None:
        self.recipe, self.category, self.draw = recipe, category, draw
        self.root = category.replace("_", " ")
        self.sizes = AmazonSizes.of(recipe.scale)
        self.asin = synthetic_text.asins(self.sizes.meta_lines, self._stream("asins"))
        # The reviewed items are a random part of the meta file, in its order.
        shuffled = self._stream("reviewed").permutation(self.sizes.meta_lines)
        self.reviewed: Int64s = np.sort(shuffled[: self.sizes.items])

    def _stream(self, purpose: str) -> np.random.Generator:
        return stream(self.recipe, self.category, purpose)

    def reviews(self) -> Iterator[list[str]]:
        """Review lines by asin; the order within an asin says nothing."""
        users = self.sizes.users
        prose = synthetic_text.Prose.write(self._stream("prose"))
        headlines = synthetic_text.summaries(self._stream("summaries"))
        names = synthetic_text.reviewer_names(self._stream("names"))
        ids = synthetic_text.reviewer_ids(users, self._stream("reviewers"))
        pick = self._stream("faces")
        face = pick.integers(0, len(names), users)
        owner = np.repeat(pick.permutation(users), np.diff(self.draw.first))
        order = np.lexsort((owner, self.draw.item))
        time_tail = [_time_tail(day) for day in range(int(self.draw.day.max()) + 1)]
        asin_of = [self.asin[k] for k in self.reviewed.tolist()]
        fragment_of = [names[k] for k in face.tolist()]
        for begin in range(0, len(order), _CHUNK):
            rows = order[begin : begin + _CHUNK]
            u = pick.random((5, len(rows)))
            length = np.clip(290 * log_logistic(u[0], 0.62), 20, 8000)
            yield [
                f'{{"reviewerID": "{ids[who]}", "asin": "{asin_of[what]}", {fragment_of[who]}'
                f'"helpful": {helpful}, "reviewText": "{prose.text[part]}", '
                f'"overall": {stars}.0, "summary": "{headline}", {time_tail[day]}'
                for who, what, day, part, helpful, stars, headline in zip(
                    owner[rows].tolist(),
                    self.draw.item[rows].tolist(),
                    self.draw.day[rows].tolist(),
                    prose.slices(length, u[1]),
                    _pick(_HELPFUL, u[2]),
                    (np.searchsorted(_RATINGS, u[3], "right") + 1).tolist(),
                    _pick(headlines, u[4]),
                    strict=True,
                )
            ]

    def meta(self) -> Iterator[list[str]]:
        """Meta lines by asin; every reviewed item has its category, some others have none."""
        total, categories = self.sizes.meta_lines, self.sizes.categories
        blurbs = synthetic_text.descriptions(self._stream("descriptions"))
        titles = synthetic_text.titles(self._stream("titles"))
        makers = synthetic_text.makers()
        # A tenth more categories, which only items without a review have.
        every = categories + max(2, categories // 10)
        paths = synthetic_text.category_paths(self.root, every, self._stream("paths"))
        pick = self._stream("meta")
        category = pick.integers(0, every, total)
        category[self.reviewed] = self.draw.category_of
        bare = pick.random(total) < 0.01
        bare[self.reviewed] = False
        quoted = [f"'{asin}'" for asin in self.asin]
        width = len(quoted[0]) + 2
        related = ", ".join(quoted[k] for k in pick.permutation(total).tolist())
        for begin in range(0, total, _CHUNK):
            size = min(_CHUNK, total - begin)
            u = pick.random((10, size))
            count = np.minimum(np.floor(log_logistic(u[0], 0.6) * 6), min(60, total // 3)) + 1
            start = np.floor(u[1] * (total - 2 * count))
            yield [
                _meta_line(
                    order,
                    quoted[k],
                    f"'http://images.example.com/I/{k:07d}._SX300_.jpg'" if a < 0.99 else "",
                    blurb if b < 0.9 else "",
                    "" if none else paths[c][variant],
                    f"{title[0]} {k % 9973}{title[1]}" if a > 0.02 else "",
                    f"{round(0.99 + 40 * b / (1.01 - b), 2)}" if d < 0.75 else "",
                    f"{{'{self.root}': {int(a * 1e6) + 1}}}" if d > 0.7 else "",
                    _related(related, width, at, many, d) if b > 0.3 else "",
                    maker if d < 0.3 else "",
                )
                for k, order, blurb, none, c, variant, title, at, many, maker, a, b, d in zip(
                    range(begin, begin + size),
                    _pick(_META_KEY_ORDERS, u[2]),
                    _pick(blurbs, u[3]),
                    bare[begin : begin + size].tolist(),
                    category[begin : begin + size].tolist(),
                    np.floor(u[4] * 4).astype(int).tolist(),
                    _pick(titles, u[5]),
                    start.astype(int).tolist(),
                    count.astype(int).tolist(),
                    _pick(makers, u[6]),
                    *u[7:].tolist(),
                    strict=True,
                )
            ]


def _pick(words: Sequence[Word], u: Floats) -> list[Word]:
    """Choose one of `words` for each uniform draw."""
    return [words[k] for k in np.floor(u * len(words)).astype(int).tolist()]


def _time_tail(day: int) -> str:
    """End a review line of that day: midnight UTC, and the date as the real file writes it."""
    date = _EPOCH + dt.timedelta(days=day)
    text = f"{date.month:02d} {date.day}, {date.year}"
    return f'"unixReviewTime": {day * DAY_S}, "reviewTime": "{text}"}}\n'


def _related(asins: str, width: int, at: int, many: int, u: float) -> str:
    """Three lists cut from one long text of quoted asins, `width` characters each with comma."""
    middle, end = (at + many) * width, (at + 2 * many) * width
    together = f", 'bought_together': [{asins[at * width : (at + 1) * width - 2]}]"
    return (
        f"{{'also_bought': [{asins[at * width : middle - 2]}], "
        f"'also_viewed': [{asins[middle : end - 2]}]{together if u < 0.4 else ''}}}"
    )


def _meta_line(order: tuple[int, ...], *literals: str) -> str:
    """One dict of the literals that are not empty, its keys in the given order."""
    return "{" + ", ".join([_META_KEYS[k] + literals[k] for k in order if literals[k]]) + "}\n"
