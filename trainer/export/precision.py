"""Embedding tables in fewer bytes: half floats, or bytes with a scale for each row.

Their numbers are read as floats, and everything else is computed as before. Tables that were
trained in bfloat16 are float32 where no other precision is asked for. The vocabularies' tables
alone are replaced. Those of an encoding are small, and an item's bias, which goes into the
logit as it is, is a number a row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from trainer.models.interest import InterestModel
from trainer.models.layers import Fields, OneTable, Table


class HalfTable(nn.Module):
    """A table of float16."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.register_buffer("weight", table.weight.detach().half())

    def forward(self, ids: Tensor) -> Tensor:
        """Look up, in float32."""
        return embedding(ids, self.get_buffer("weight")).float()


class ByteTable(nn.Module):
    """A table of int8, each row a multiple of 1/127 of its largest number."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        weight = table.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up, in float32."""
        weight, scale = self.get_buffer("weight"), self.get_buffer("scale")
        return embedding(ids, weight).float() * embedding(ids, scale)


def _wide(table: Table) -> Table:
    table.weight = nn.Parameter(table.weight.detach().float())
    return table


_TABLES: dict[str, Callable[[Table], nn.Module]] = {
    "fp32": _wide,
    "fp16": HalfTable,
    "int8": ByteTable,
}
PRECISIONS = tuple(_TABLES)


def narrow(model: InterestModel, precision: str) -> None:
    """Replace the tables of the vocabularies by those of a precision, one of `PRECISIONS`."""
    for fields in [m for m in model.modules() if isinstance(m, Fields)]:
        for name, table in fields.tables.items():
            assert isinstance(table, Table)
            fields.tables[name] = _TABLES[precision](table)
    for one in [m for m in model.modules() if isinstance(m, OneTable)]:
        assert isinstance(one.table, Table)
        one.table = _TABLES[precision](one.table)


def table_bytes(model: InterestModel) -> int:
    """Bytes of all embedding tables."""
    tables = (m for m in model.modules() if isinstance(m, Table | HalfTable | ByteTable))
    return sum(t.nbytes for m in tables for t in (*m.parameters(), *m.buffers()))
