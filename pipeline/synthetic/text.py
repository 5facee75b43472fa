"""The words of the synthetic Amazon data: ids, sentences, names, titles, category paths.

Text is prepared once, already escaped as its file wants it (JSON for reviews, Python literals for
meta), so that a line is put together from slices. The pools hold on purpose what trips readers:
quotes, backslashes, line breaks, characters outside ASCII, braces, and words that look like keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.arrays import Int64s

_DIGITS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)

# fmt: off
_SUBJECTS = (
    "This cable", "The battery", "The screen", "The remote", "My old one", "The sound", "The case",
    "The strap", "The plug", "This little box", "The picture", "The keyboard", "The stand",
    "The lens", "The charger", "The adapter", "The speaker", "The hinge", "The packaging", "It",
)
_VERBS = (
    "works", "held up", "arrived", "performs", "feels", "looked", "behaves", "turned out",
    "sounds", "has been", "seems", "still runs",
)
_QUALITIES = (
    "better than I had hoped", "fine for the price", "a bit flimsy", "solid", "exactly as shown",
    "much louder than the last one", "just right for a small desk", "warm after an hour",
    "well made", "not quite what I wanted", "as good as new", "good enough for daily use",
    "lighter than it looks", "rather stiff at first", "sharp and clear", "quiet",
)
_ENDINGS = (
    "so I would buy it again", "and my wife uses it every day", "but the manual is no help",
    "after three months on the road", "and it took five minutes to set up",
    "even in direct sunlight", "though shipping was slow", "which is all I ask for",
    "and I gave a second one to my dad", "until I dropped it", "with both of our computers",
    "and the kids have not broken it yet", "compared with the one it replaced",
)
_ODDITIES = (
    'My son calls it "the brick".', 'It fits a 15.6" screen with room to spare.',
    "The driver goes to C:\\Drivers\\Audio by default.", "Pros:\n- small\n- cheap\n\nCons:\n- none",
    "Bought it for the café, where it runs all day.", "It stays below 40°C.",
    "Half the price — and half the weight.", "Tab\tseparated lists paste well.",
    'The box says "asin": "B000000000", which is not mine.', "{Settings} > [Audio] > [On]",
    "I paid ½ of what the shop asked.", "Great 😀 really.", "Here's the catch: it's not mine.",
    "See &#34;notes&#34; <br /> below.", "Sauber verarbeitet, schöne Oberfläche.", "日本製です。",
)
_FIRST_NAMES = (
    "Alma", "Boris", "Chen", "Dana", "Elif", "Farid", "Gwen", "Hugo", "Ines", "Jonas", "Kofi",
    "Lena", "Marta", "Nils", "Olga", "Pavel", "Quinn", "Rosa", "Sami", "Tess", "Uma", "Vera",
    "José", "Zoë",
)
_LAST_NAMES = (
    "Archer", "Baker", "Cole", "Dietz", "Egan", "Fox", "Grant", "Hale", "Ito", "Jung", "Kerr",
    "Lowe", "Moss", "Nash", "Otto", "Park", "Reyes", "Stone", "Tran", "Vance", "O'Neal", "Müller",
)
_NICKNAMES = ("gadget fan", "dad of three", "road warrior", "night owl", "Rosie's mom")
_VERDICTS = (
    "Works well", "Great value", "Not for me", "Five stars", "Good buy", "Does the job", "Broke",
    "As described", "Solid", "It's OK", "Would buy again", 'Not "universal"', "Très bien",
)
_KINDS = (
    "Wireless", "Portable", "Digital", "Compact", "Outdoor", "Marine", "Studio", "Travel", "Car",
    "Kids'", "Driver's", "Home", "Professional", "Waterproof", "Rechargeable", "Vintage", "Dual",
    "USB", "Bluetooth", "Solar", "Slim", "Rugged", "Universal", "Desktop", "Wall", "In-Dash",
    "Clip-On", "Over-Ear", "Mini", "Replacement", "High-Speed", "Folding",
)
_THINGS = (
    "Headphones", "Speakers", "Cables", "Chargers", "Cases", "Batteries", "Tripods", "Lenses",
    "Monitors", "Keyboards", "Mice", "Routers", "Antennas", "Receivers", "Remotes", "Mounts",
    "Projectors", "Radios", "Scanners", "Adapters", "Microphones", "Turntables", "Hubs", "Drives",
    "Memory Cards", "Card Readers", "Straps", "Filters", "Screen Protectors", "Stands", "Sleeves",
    "Binoculars", "Amplifiers", "Subwoofers", "Webcams", "Docks", "Styluses", "Clocks",
)
_DEPARTMENTS = (
    "Accessories & Supplies", "Audio & Video", "Camera & Photo", "Car & Vehicle", "Computers",
    "eBook Readers", "GPS & Navigation", "Portable Players", "Security", "Television & Video",
    "Men's & Women's Gear", "Office", "Power, Cords & Plugs", "Network [Wired]",
)
_MAKERS = (
    "Aldera", "Brightline", "Corvane", "Dunmore", "Eastwick", "Fennox", "Galeo", "Harrow's",
    "Isolde", "Juniper & Sons", "Kestrel", "Lumen", 'Max"Tech', "Nordvik",
)
_BLURBS = (
    "{maker} made this for people who {verb} it every day.", "Comes with {thing} and a guarantee.",
    "Dimensions: 4\" x 3' (approx.).", "Listed under 'categories': [['Books', 'Not This One']].",
    "In the box: [1] {thing}; [2] a cable; {{3}} notes.", "Features:\n\t* {thing}\n\t* {maker}",
    "It's what {maker} does best.", "For use with {thing}.", "Works from −10°C to +50°C, ±2%.",
    'The "{maker}" line: {thing}, no fuss.', "A path such as C:\\new\\table stays as it is.",
)
# fmt: on


def spell(values: npt.NDArray[np.uint64], digits: int, base: int = 36) -> list[str]:
    """Numbers as fixed-width text in `base` (at most 36), digits before letters."""
    text = np.empty((len(values), digits), np.uint8)
    rest = values.copy()
    for column in range(digits - 1, -1, -1):
        text[:, column] = _DIGITS[(rest % np.uint64(base)).astype(np.intp)]
        rest //= np.uint64(base)
    return [code.decode("ascii") for code in text.view(f"S{digits}").ravel().tolist()]


def asins(count: int, draws: np.random.Generator) -> list[str]:
    """`count` distinct ascending asins of 10 characters; the first 1% have digits only."""
    books = count // 100
    return [
        prefix + code
        for prefix, base, digits, size in (("0", 10, 9, books), ("B00", 36, 7, count - books))
        for code in spell(_ascending(size, base**digits, draws), digits, base)
    ]


def _ascending(size: int, below: int, draws: np.random.Generator) -> npt.NDArray[np.uint64]:
    """`size` distinct ascending numbers spread over [0, below)."""
    step = below // max(size, 1)
    jitter = (draws.random(size) * step).astype(np.uint64)
    return np.arange(size, dtype=np.uint64) * np.uint64(step) + jitter


def reviewer_ids(count: int, draws: np.random.Generator) -> list[str]:
    """`count` distinct ids such as `A3QX...`, in an order that says nothing.

    An odd multiplier modulo 2**62 maps the ordinals one to one onto scattered numbers.
    """
    odd = np.uint64(int(draws.integers(2**60, 2**61)) * 2 + 1)
    scattered = (np.arange(1, count + 1, dtype=np.uint64) * odd) & np.uint64(2**62 - 1)
    return [f"A{code}" for code in spell(scattered, 12)]


@dataclass(frozen=True)
class Prose:
    """Sentences escaped for JSON in one string; `edge[k]` is where sentence k starts."""

    text: str
    edge: Int64s

    @classmethod
    def write(cls, draws: np.random.Generator, sentences: int = 12_000) -> Prose:
        """Make the pool; about one sentence in 60 holds something that needs escaping."""
        pick = draws.random((sentences, 5))
        escaped = []
        for s, v, q, e, odd in pick.tolist():
            if odd < 1 / 60:
                sentence = _choose(_ODDITIES, odd * 60)
            else:
                ending = f" {_choose(_ENDINGS, e)}" if odd < 0.7 else ""
                opening = f"{_choose(_SUBJECTS, s)} {_choose(_VERBS, v)}"
                sentence = f"{opening} {_choose(_QUALITIES, q)}{ending}."
            escaped.append(json_text(sentence))
        edge = np.cumsum([0, *(len(sentence) + 1 for sentence in escaped)])
        return cls(" ".join(escaped) + " ", edge)

    def slices(self, length: npt.NDArray[np.float64], u: npt.NDArray[np.float64]) -> list[slice]:
        """Whole sentences of about `length` characters from a place given by `u` in [0, 1)."""
        last = np.searchsorted(self.edge, self.edge[-1] - length - 200) - 1
        begin = np.floor(u * last).astype(np.int64)
        end = np.searchsorted(self.edge, self.edge[begin] + length)
        ends = np.maximum(end, begin + 1)
        return [
            slice(a, b)
            for a, b in zip(self.edge[begin].tolist(), (self.edge[ends] - 1).tolist(), strict=True)
        ]


def _choose(words: tuple[str, ...], u: float) -> str:
    return words[int(u * len(words))]


def json_text(text: str) -> str:
    """`text` escaped for JSON, without the quotes around it."""
    return json.dumps(text)[1:-1]


def reviewer_names(draws: np.random.Generator, count: int = 3000) -> list[str]:
    """Names as JSON fragments `"reviewerName": "...", `; a few are empty, as in the real data."""
    result = []
    for first, last, style, nick in draws.random((count, 4)).tolist():
        name = f"{_choose(_FIRST_NAMES, first)} {_choose(_LAST_NAMES, last)}"
        if style < 0.25:
            name = f'{name} "{_choose(_NICKNAMES, nick)}"'
        result.append("" if style > 0.997 else f'"reviewerName": {json.dumps(name)}, ')
    return result


def summaries(draws: np.random.Generator, count: int = 2000) -> list[str]:
    """Headlines of reviews, escaped for JSON."""
    return [
        json_text(_choose(_VERDICTS, a) + ("" if b < 0.4 else f", {_choose(_QUALITIES, c)}"))
        for a, b, c in draws.random((count, 3)).tolist()
    ]


def descriptions(draws: np.random.Generator, count: int = 3000) -> list[str]:
    """Descriptions as Python literals; some hold quotes, brackets or the text `'categories':`."""
    result = []
    for size, *picks in draws.random((count, 13)).tolist():
        parts = [
            _choose(_BLURBS, u).format(
                maker=_choose(_MAKERS, u * 97 % 1),
                thing=_choose(_THINGS, u * 89 % 1).lower(),
                verb=_choose(("use", "carry", "need"), u * 83 % 1),
            )
            for u in picks[: 1 + int(size**2 * 12)]
        ]
        result.append(ascii(" ".join(parts)))
    return result


def titles(draws: np.random.Generator, count: int = 3000) -> list[tuple[str, str]]:
    """Titles as Python literals, each cut before its closing quote so that a number can follow."""
    result = []
    for maker, kind, thing in draws.random((count, 3)).tolist():
        name = f"{_choose(_MAKERS, maker)} {_choose(_KINDS, kind)} {_choose(_THINGS, thing)}"
        literal = ascii(name)
        result.append((literal[:-1], literal[-1]))
    return result


def makers() -> list[str]:
    """Brands as Python literals."""
    return [ascii(name) for name in _MAKERS]


def category_paths(root: str, count: int, draws: np.random.Generator) -> list[list[str]]:
    """For each category four Python literals of paths; all end in its own, distinct leaf.

    The last path is the item's own; the others lead elsewhere, as in the real data.
    """
    names = [f"{kind} {thing}" for kind in _KINDS for thing in _THINGS]
    rounds = -(-count // len(names))
    every = [name if k == 0 else f"{name} {k + 1}" for k in range(rounds) for name in names]
    leaves = [every[i] for i in draws.permutation(len(every))[:count].tolist()]
    own = []
    for leaf, (department, depth) in zip(leaves, draws.random((count, 2)).tolist(), strict=True):
        middle = [_choose(_DEPARTMENTS, department), leaf.split(" ", 1)[1]]
        own.append([root, *middle[: 1 + int(depth * 2)], leaf])
    other = draws.integers(0, count, (count, 4, 2)).tolist()
    return [
        [
            ascii([*(own[j] for j in others[:extra]), own[c]])
            for others, extra in zip(o, (0, 1, 1, 2), strict=True)
        ]
        for c, o in enumerate(other)
    ]
