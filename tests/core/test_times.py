"""Times from the wire (marketplace-api.md, section 3): every form of a time, and invalid ones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.times import format_exact_time, format_time, parse_time

MOMENT = datetime(2026, 2, 19, 10, 30, tzinfo=UTC)
NAIVE = MOMENT.replace(tzinfo=None)


@pytest.mark.parametrize(
    "value",
    [
        "2026-02-19T10:30:00Z",
        "2026-02-19T10:30:00+00:00",
        "2026-02-19T10:30:00+00:00Z",
        "2026-02-19T10:30:00.000+0000Z",
        "2026-02-19t10:30:00z",
        "2026-02-19t10:30:00.000000z",
        "2026-02-19 10:30:00",
        "2026-02-19 10:30:00 +00:00",
        " 2026-02-19T10:30Z\n",
        "2026-02-19T12:30:00+02:00",
        "2026-02-19T16:00:00+0530",
        "20260219T103000Z",
        "2026-02-19T10:30:00.000000000Z",
        1771497000,
        1771497000.0,
        1771497000000,
    ],
)
def test_every_form_of_a_time_is_the_same_moment(value: object) -> None:
    assert parse_time(value) == MOMENT


@pytest.mark.parametrize(
    "value",
    [
        "", "soon", "1771497000", "2026-02-30T00:00:00Z", "2026-02-19T10:30:00+05:30Z", "2026-02-19T10:30:00ZZ",
        "2026-02-19x10:30:00", "2026-02-19x10:30:00Z", "2026-W08-4T10:30:00Z",
        "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-05:00", "\N{FULLWIDTH DIGIT TWO}026-02-19T10:30:00Z",
        0, -5, True, None, [], {}, 1e15, 1e400, float("nan"), 10**400,
    ],
)  # fmt: skip
def test_anything_else_is_an_unknown_time(value: object) -> None:
    assert parse_time(value) is None


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text())
def test_no_value_breaks_the_reader(value: object) -> None:
    moment = parse_time(value)
    assert moment is None or moment.tzinfo is UTC


@given(st.datetimes(NAIVE.replace(year=1900), NAIVE.replace(year=8999), timezones=st.just(UTC)))
def test_our_own_times_are_read_back(moment: datetime) -> None:
    assert parse_time(format_exact_time(moment)) == moment
    assert parse_time(format_time(moment)) == moment.replace(microsecond=0)
