"""pandera for Polars, imported without what that does where Spark is installed as well.

pandera then loads Spark's pandas, which takes seconds and 100 MB, and binds Spark to the loopback,
where no other machine of a cluster could reach it.
"""

from __future__ import annotations

import os
import sys

_SPARKS_PANDAS = "pyspark.pandas"
_ADDRESS = "SPARK_LOCAL_IP"

_address = os.environ.get(_ADDRESS)
_hides = _SPARKS_PANDAS not in sys.modules
if _hides:
    sys.modules[_SPARKS_PANDAS] = None  # type: ignore[assignment]  # so importing it is an error
try:
    import pandera.polars as pa
    from pandera.errors import SchemaErrors
finally:
    if _hides:
        del sys.modules[_SPARKS_PANDAS]
    if _address is None:
        os.environ.pop(_ADDRESS, None)

__all__ = ["SchemaErrors", "pa"]
