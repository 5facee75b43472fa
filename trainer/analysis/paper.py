"""The figures of the TIN paper (Zhou et al., WWW 2024) that ours are held beside.

They are of the full Amazon Electronics and the full Alibaba log, mean and standard deviation of
five runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.expected import ALIBABA_COUNTS, AMAZON_COUNTS
from schemas.manifest import FIRST_ID, Manifest


@dataclass(frozen=True)
class Figures:
    """One line of Table 1 or 4 on one data set; the standard deviations are None in Table 4."""

    gauc: float
    logloss: float
    gauc_sd: float | None = None
    logloss_sd: float | None = None


AMAZON, ALIBABA = "amazon-Electronics", "alibaba"


def published(made: Manifest) -> str:
    """The name under which a data set's values are kept here; "" where it is not the paper's."""
    if made.dataset == ALIBABA:
        whole = made.counts.get("impressions read") == ALIBABA_COUNTS["raw_sample.csv"]
    else:
        known = AMAZON_COUNTS.get(made.dataset.removeprefix("amazon-"))
        whole = known is not None and made.vocabulary["item"] - FIRST_ID == known.items
    return made.dataset if whole and not made.synthetic else ""


def is_of_amazon(made: Manifest) -> bool:
    """Whether a data set is of a kind that the paper has Figures 1, 3 and 5, Tables 2 and 3 of."""
    return made.dataset.startswith("amazon")


# Table 1: data set -> recipe. Columns: GAUC, logloss, and the standard deviation of each.
TABLE1: dict[str, dict[str, Figures]] = {
    AMAZON: {
        "avg_concat": Figures(0.8445, 0.4908, 2e-3, 1e-3),
        "avg_product": Figures(0.8523, 0.4824, 8e-4, 5e-4),
        "din_prime": Figures(0.8536, 0.4803, 4e-4, 9e-4),
        "din": Figures(0.8590, 0.4703, 1e-3, 2e-3),
        "gru4rec": Figures(0.8574, 0.4766, 2e-3, 2e-3),
        "sasrec": Figures(0.8497, 0.4837, 4e-3, 7e-3),
        "bert4rec": Figures(0.8501, 0.4833, 2e-3, 5e-3),
        "dien": Figures(0.8590, 0.4807, 1e-3, 8e-3),
        "dsin": Figures(0.8592, 0.4726, 1e-3, 2e-3),
        "bst": Figures(0.8500, 0.4850, 9e-4, 5e-4),
        "tin": Figures(0.8629, 0.4636, 9e-4, 3e-3),
        "tin_wo_tte": Figures(0.8544, 0.4752, 8e-4, 2e-3),
        "tin_wo_ta": Figures(0.8566, 0.4758, 1e-3, 3e-3),
        "tin_wo_tr": Figures(0.8576, 0.4743, 9e-4, 2e-3),
    },
    ALIBABA: {
        "avg_concat": Figures(0.6074, 0.1969, 5e-4, 1e-3),
        "avg_product": Figures(0.6106, 0.1960, 9e-4, 1e-3),
        "din_prime": Figures(0.6096, 0.1962, 6e-4, 1e-3),
        "din": Figures(0.6113, 0.1963, 4e-4, 1e-3),
        "gru4rec": Figures(0.6091, 0.1972, 4e-4, 1e-3),
        "sasrec": Figures(0.6091, 0.1959, 4e-4, 8e-4),
        "bert4rec": Figures(0.6096, 0.1961, 9e-4, 1e-3),
        "dien": Figures(0.6108, 0.1973, 6e-4, 9e-4),
        "dsin": Figures(0.6106, 0.1964, 9e-4, 2e-3),
        "bst": Figures(0.6096, 0.1959, 6e-4, 2e-3),
        "tin": Figures(0.6144, 0.1954, 4e-4, 2e-3),
        "tin_wo_tte": Figures(0.6135, 0.1963, 7e-4, 1e-3),
        "tin_wo_ta": Figures(0.6094, 0.1960, 8e-4, 7e-4),
        "tin_wo_tr": Figures(0.6127, 0.1965, 1e-3, 2e-3),
    },
}

# Table 3: range of history length -> GAUC of TIN with each encoding, on Amazon. The first range is
# [1, 5), the last [20, 430].
TABLE3: dict[str, dict[str, float]] = {
    "1-4": {"tte-p": 0.8571, "coe": 0.8564},
    "5-9": {"tte-p": 0.8630, "coe": 0.8615},
    "10-14": {"tte-p": 0.8742, "coe": 0.8718},
    "15-19": {"tte-p": 0.8752, "coe": 0.8731},
    "20+": {"tte-p": 0.8728, "coe": 0.8675},
}

# Table 4: data set -> encoding of TIN.
TABLE4: dict[str, dict[str, Figures]] = {
    AMAZON: {
        "tte-p": Figures(0.8629, 0.4636),
        "tte-t": Figures(0.8703, 0.4484),
        "timestamp": Figures(0.8621, 0.4647),
    },
    ALIBABA: {
        "tte-p": Figures(0.6144, 0.1954),
        "tte-t": Figures(0.6139, 0.1956),
        "timestamp": Figures(0.6132, 0.1960),
    },
}

# Figure 5, as far as A.2 says it in words: (attention's width, representation's) -> GAUC of DIN on
# Amazon. "Around 0.853" from 256 to 2 of the attention is said of the line as a whole.
FIG5: dict[tuple[int, int], float] = {(128, 256): 0.854, (128, 2): 0.808} | {
    (width, 128): 0.853 for width in (2, 256)
}
