"""Whole runs of `sync ratings` against a marketplace with arbitrary responses: no rating is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Machine
from database_rules import check_rules
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import IDS, broken, fuzzing, spelled, tried, values
from raw_server import RawServer

CODES = {0, 1, 65, 69, 75, 77}
_TIMES = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:59Z",
    "0200-01-01T00:00:00Z",
    "2027-01-01T00:00:00Z",
    "2020-01-01T00:00:00",
)
_rating = st.fixed_dictionaries(
    {"rating": st.one_of(st.integers(0, 6), values)},
    optional={
        "user_id": st.one_of(st.sampled_from(["ann", "bob"]), values),
        "skill_id": st.one_of(st.sampled_from(IDS), values),
        "rating_id": st.one_of(st.sampled_from(["7", 7, 2**70, "\x00", ""]), values),
        "comment": st.one_of(st.text(max_size=20), values),
        "created_at": st.one_of(st.sampled_from(_TIMES), values),
        "updated_at": st.one_of(st.sampled_from(_TIMES), values),
        "average_rating": values,
        "rating_count": values,
        "success": st.booleans(),
    },
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw a response to a rating, a conflict, a skill with its ratings, or something else."""
    form = draw(
        st.one_of(
            _rating,
            st.fixed_dictionaries({"rating": _rating}),
            st.fixed_dictionaries({"skill_id": st.sampled_from(IDS), "ratings": st.lists(_rating, max_size=3)}),
            values,
        )
    )
    return spelled(form, draw(st.integers(0, 30))).encode(errors="surrogatepass")


@pytest.fixture(scope="module")
def raw() -> Iterator[RawServer]:
    server = RawServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def facing(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Return a machine with one user's pending rating and another's sent one."""
    nothing: Any = None
    machine = Machine(nothing, tmp_path_factory.mktemp("ratings"))
    machine.store().close()
    return machine


def start_again(machine: Machine) -> None:
    machine.clock.move(hours=2)
    for table in ("failed_rating_upload", "skill_rating", "http_validator", "fact"):
        machine.sql(f"DELETE FROM {table}")
    machine.sql(
        "INSERT INTO skill_rating (skill_id, user_id, rating, updated_at) VALUES "
        "('known-0', 'ann', 4, '2026-02-19T12:00:00Z'), ('known-0', 'bob', 2, '2026-02-19T12:00:00Z')"
    )
    machine.sql("UPDATE skill_rating SET synced_to_saas = TRUE, remote_rating_id = '9' WHERE user_id = 'bob'")


def ann(updated_at: str, **fields: Any) -> bytes:
    rating = {"user_id": "ann", "skill_id": "known-0", "rating": 1, "rating_id": "7", "updated_at": updated_at}
    return json.dumps({**rating, **fields}).encode()


AHEAD, BEHIND = b"Date: Fri, 20 Feb 2060 12:00:00 GMT", b"Date: Sat, 20 Feb 1999 12:00:00 GMT"
FAR_AHEAD = b"Date: Fri, 31 Dec 9999 23:59:59 GMT"


@fuzzing(25)
@given(
    status=st.sampled_from([200, 201, 204, 404, 405, 409, 409, 409, 422, 500]),
    date=st.sampled_from([b"X: ", AHEAD, BEHIND, FAR_AHEAD]),
    body=st.one_of(bodies(), broken(bodies())),
    everything=st.booleans(),
)
@example(status=409, date=AHEAD, body=ann("0001-01-01T00:00:00Z"), everything=False)
@example(status=409, date=FAR_AHEAD, body=ann("2027-01-01T00:00:00Z"), everything=False)
@example(status=409, date=BEHIND, body=ann("9999-12-31T23:59:59-23:59"), everything=False)
@example(
    status=200,
    date=b"X: ",
    body=json.dumps(
        {"ratings": [json.loads(ann("9999-12-31T23:59:59-23:59", user_id="bob"))], "rating_id": "7"}
    ).encode(),
    everything=False,
)
def test_runs(raw: RawServer, facing: Machine, status: int, date: bytes, body: bytes, everything: bool) -> None:
    tried["whole runs of ratings"] += 1
    start_again(facing)
    raw.answer = b"\r\n".join([b"HTTP/1.1 %d Whatever" % status, date, b"", body])
    report = facing.send_ratings(url=raw.url, token="at_saas_fuzz_0003", workers=1, everything=everything)
    assert report.exit_code in CODES
    assert (report.status == "success") == (report.exit_code == 0)
    assert facing.sql("SELECT count(*) FROM skill_rating")[0][0] == 2
    for stars, updated_at in facing.sql("SELECT rating, updated_at FROM skill_rating"):
        assert 1 <= stars <= 5
        assert len(updated_at) >= len("2026-02-19T12:00:00Z")
    assert check_rules(facing.database) == []
