"""Where Spark or Java is missing, these tests are skipped, and say so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Java ends soon after it has started here: to compile well takes longer than it saves.
SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@pytest.fixture(scope="session", autouse=True)
def short_lived_java() -> Iterator[None]:
    """Of the driver, and of the cluster's processes and executors, which inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JDK_JAVA_OPTIONS", SHORT_LIVED, prepend=" ")
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("pyspark", "pandas") if find_spec(name) is None]
    missing += [] if shutil.which("java") else ["java"]
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and missing and "spark_free" not in item.keywords:
            reason = f"no {', '.join(missing)}: `make cluster-test` installs tinprep[spark]"
            item.add_marker(pytest.mark.skip(reason=reason))
