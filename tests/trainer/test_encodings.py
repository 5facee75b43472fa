"""Each encoding of time against an independent, slow, obvious version of itself."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ContractError
from tests.trainer.batches import INPUTS, ONE
from trainer.models.encodings import ENCODINGS, Chronological, Timestamp


@settings(max_examples=200, deadline=None)
@given(
    time=st.integers(700_000_000, 2_000_000_000),
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York"]),
)
def test_calendar_is_the_standard_library_s(time, zone):
    hour, weekday, month = ENCODERS[zone].calendar(torch.tensor([time]))
    expected = datetime.fromtimestamp(time, UTC).astimezone(ZoneInfo(zone))
    assert (int(hour), int(weekday), int(month)) == (
        expected.hour,
        expected.weekday(),
        expected.month,
    )


ENCODERS = {
    zone: Timestamp(zone, 4)
    for zone in ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York")
}


def test_calendar_at_the_edges_of_days_years_and_summer_time():
    moments = [
        datetime(y, m, d, h, 59, 59, tzinfo=UTC)
        for y, m, d in ((2000, 2, 29), (2016, 2, 29), (2017, 12, 31), (2018, 1, 1), (2022, 3, 27))
        for h in (0, 1, 22, 23)
    ]
    times = torch.tensor([int(m.timestamp()) for m in moments])
    for zone, encoder in ENCODERS.items():
        local = [m.astimezone(ZoneInfo(zone)) for m in moments]
        found = np.stack([x.numpy() for x in encoder.calendar(times)], 1).tolist()
        assert found == [[x.hour, x.weekday(), x.month] for x in local]


def test_a_time_zone_that_is_none():
    with pytest.raises(ContractError, match="time zone"):
        Timestamp("Nowhere/At_All", 4)


def test_chronological_order_counts_from_the_oldest_and_the_target_comes_last():
    part = Chronological(20, 4)
    batch = {
        "history_length": torch.tensor([3, 1], dtype=torch.int32),
        "history_position": torch.tensor([[3, 2, 1], [1, 0, 0]], dtype=torch.int32),
    }
    found = part.places(batch, 2)
    expected = part.table.weight[[4, 2, 1, 2, 3, 1]]
    assert torch.equal(found[:6], expected)  # two targets, three behaviours, one


def test_both_is_the_sum_and_a_target_may_go_without():
    torch.manual_seed(0)
    both = ENCODINGS["tte-pt"](INPUTS, ONE, 8)
    batch = {
        "history_length": torch.tensor([2], dtype=torch.int32),
        "history_position": torch.tensor([[2, 1]], dtype=torch.int32),
        "history_interval_bin": torch.tensor([[5, 3]], dtype=torch.int32),
    }
    e = torch.zeros(3, 8)
    expected = both.one.table.weight[[0, 2, 1]] + both.other.table.weight[[0, 5, 3]]
    assert torch.equal(both(e, batch), expected)
    both.encode_target = False
    assert torch.equal(both(e, batch)[0], torch.zeros(8))
    assert torch.equal(both(e, batch)[1:], expected[1:])
