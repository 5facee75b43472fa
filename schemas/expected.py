"""The known sizes, checksums and counts of the published data sets.

Sources: the dataset pages and download scripts of DIN and TIN for the checksums, the TIN paper's
A.1 for users, items, categories and reviews, the released preprocessing for the rows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFile:
    """Size in bytes and md5 of a file as it is published."""

    bytes: int
    md5: str


@dataclass(frozen=True)
class AmazonCounts:
    """Counts of a 5-core category."""

    users: int
    items: int
    categories: int
    reviews: int


AMAZON_FILES: dict[str, PublishedFile] = {
    "reviews_Electronics_5.json.gz": PublishedFile(495_854_086, "e4524af6c644cd044b1969bac7b62b2a"),
    "meta_Electronics.json.gz": PublishedFile(186_594_679, "b39b77b4c980cca078ec2b93dfcba786"),
}

AMAZON_COUNTS: dict[str, AmazonCounts] = {
    "Electronics": AmazonCounts(users=192_403, items=63_001, categories=801, reviews=1_689_188)
}

# Data lines of each file of tianchi data set 56.
ALIBABA_COUNTS: dict[str, int] = {
    "raw_sample.csv": 26_557_961,
    "ad_feature.csv": 846_811,
    "user_profile.csv": 1_061_768,
    "behavior_log.csv": 723_268_134,
}
