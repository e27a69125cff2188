"""Messages: parsing frames, which of two is newer, and the resulting version of a skill."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core.incoming.messages import UNKNOWN, Malformed, Message, parse_frame
from atom_saas_sync.core.plan.messages import is_outdated, merged_version, without_figures
from atom_saas_sync.times import parse_time


def frame(kind: str = "skill_update", timestamp: object = "2026-02-19T10:30:00Z", **data: Any) -> str:
    return json.dumps({"type": kind, "data": data, "timestamp": timestamp})


def message(**data: Any) -> Message:
    parsed = parse_frame(frame(**data))
    assert isinstance(parsed, Message)
    return parsed


# Frames


def test_a_skill_keeps_its_text_and_both_times() -> None:
    parsed = message(skill_id="a", name="A", updated_at="2026-02-19T12:00:00+01:00", extra=[1.50])
    assert parsed.key == "a"
    assert json.loads(parsed.text) == dict(parsed.fields)
    assert parsed.sent_at == datetime(2026, 2, 19, 10, 30, tzinfo=UTC)
    assert parsed.updated_at == datetime(2026, 2, 19, 11, 0, tzinfo=UTC)
    assert parsed.brings_news


@pytest.mark.parametrize(
    "data",
    [
        '{"skill_id":"a","name":"\u00e9","average_rating":4.5}',
        '{ "skill_id": "a",\n "name": "A", "rating_count": 1 }',
        '{"skill_id":"a","n\\u0061me":"A","average_rating":4.5}',
        '{"skill_id":"a","name":"A","average_rating":"much"}',
    ],
    ids=["as we write it", "white space", "a key with an escape", "a malformed figure"],
)
def test_the_digest_is_that_of_the_stored_text(data: str) -> None:
    parsed = parse_frame(f'{{"type": "skill_update", "data": {data}}}')
    assert isinstance(parsed, Message)
    for each in (parsed, without_figures(parsed)):
        version = merged_version(each, None)
        assert version is not None
        assert version.wire_digest == sha256(version.text.encode()).digest()


@pytest.mark.parametrize("kind", ["ping", "pong"])
def test_signs_of_life_need_no_data(kind: str) -> None:
    parsed = parse_frame(json.dumps({"type": kind}))
    assert isinstance(parsed, Message)
    assert (parsed.type, parsed.brings_news) == (kind, False)


def test_an_unknown_type_is_a_message_that_brings_nothing() -> None:
    parsed = parse_frame('{"type": "weather_report", "data": {"sky": "blue"}}')
    assert isinstance(parsed, Message)
    assert (parsed.type, parsed.brings_news) == (UNKNOWN, False)


def test_older_servers_say_id() -> None:
    assert message(id="a", name="A").key == "a"


MALFORMED = [
    b'{"type": "ping"}',
    "",
    "{",
    "[]",
    "null",
    '{"data": {}}',
    '{"type": 7}',
    '{"type": null}',
    '{"type": "skill_update"}',
    '{"type": "skill_update", "data": []}',
    frame(name="no id"),
    frame(skill_id="a"),
    frame(skill_id="..", name="A"),
    frame(skill_id="a\n", name="A"),
    frame(skill_id=7, name="A"),
    frame(skill_id="a", name=7),
    frame(skill_id="a", name="A", tags="t"),
    frame(skill_id="a", name="A", created_at=["4"]),
    frame("skill_delete"),
    frame("skill_delete", skill_id=""),
    frame("rating_update", skill_id="a"),
    frame("rating_update", skill_id="a", rating=0),
    frame("rating_update", skill_id="a", rating=6),
    frame("rating_update", skill_id="a", rating=True),
    frame("rating_update", skill_id="a", rating="many"),
    frame("rating_update", rating=4),
    frame("category_update"),
    frame("category_update", name=""),
    frame("category_update", name="a\x00"),
    '{"type": "skill_update", "data": {"skill_id": "a\\ud800", "name": "A"}}',
    '{"type": "skill_update", "data": {"skill_id": "a", "name": "A", "x": ' + "[" * 10_000 + "]" * 10_000 + "}}",
    '{"type": ' + "[" * 10_000 + "]" * 10_000 + "}",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_contract_violations_are_malformed_and_the_reason_repeats_no_value(text: str | bytes) -> None:
    parsed = parse_frame(text)
    assert isinstance(parsed, Malformed)
    assert len(parsed.reason) < 100


@given(st.text() | st.binary() | st.builds(frame, st.text(), st.text()))
def test_no_frame_crashes_the_parser(text: str | bytes) -> None:
    assert isinstance(parse_frame(text), Message | Malformed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    ["skill_id", "id", "name", "tags", "metadata", "rating", "average_rating", "rating_count", "updated_at", "code"]
)


@given(
    st.sampled_from(["skill_update", "skill_delete", "rating_update", "category_update", "ping", "x"]),
    st.dictionaries(names, json_values) | json_values,
    json_values,
)
def test_odd_data_is_a_message_or_malformed(kind: str, data: Any, timestamp: Any) -> None:
    parsed = parse_frame(json.dumps({"type": kind, "data": data, "timestamp": timestamp}))
    assert isinstance(parsed, Message | Malformed)


# Order

NOW = datetime(2026, 2, 19, 11, 0, tzinfo=UTC)
AHEAD = "2026-02-19T11:05:01Z"
T = [f"2026-02-19T10:0{minute}:00Z" for minute in range(4)]


@pytest.mark.parametrize(
    ("mine", "sent", "stored", "stored_sent", "outdated"),
    [
        (T[1], T[1], T[2], T[2], True),  # older by updated_at
        (T[2], T[1], T[1], T[3], False),  # updated_at comes before the time of the message
        (T[1], T[1], T[1], T[1], False),  # the same time applies
        (T[1], T[0], T[1], T[1], True),  # the same updated_at: the message decides
        (None, T[1], T[2], None, True),  # a part without updated_at: the message's time
        (None, T[2], T[2], None, False),
        (None, T[1], T[3], T[1], False),  # two message times are compared: that message was applied
        (None, T[0], T[3], T[1], True),
        (None, None, T[3], T[3], False),  # has no time
        (T[1], None, None, None, False),
        (T[1], None, None, T[2], True),
        ("yesterday", T[1], T[2], None, True),  # invalid times are ignored
        (T[1], T[1], AHEAD, None, False),  # times ahead of our clock are ignored
        (T[1], T[1], AHEAD, T[2], True),
        (None, T[1], None, AHEAD, False),
        (AHEAD, T[1], T[2], T[2], True),
        (None, AHEAD, T[2], T[2], False),
        (T[1], T[1], "2026-02-19T11:05:00Z", None, True),  # clocks may differ by this much
    ],
)
def test_older_messages_are_outdated(
    mine: str | None, sent: str | None, stored: str | None, stored_sent: str | None, outdated: bool
) -> None:
    data = {"skill_id": "a", "name": "A", **({"updated_at": mine} if mine else {})}
    parsed = message(timestamp=sent, **data)
    times = {"updated_at": parse_time(stored), "sent_at": parse_time(stored_sent)}
    assert is_outdated(parsed, **times, now=NOW) is outdated


@pytest.mark.parametrize(
    ("mine", "sent", "last_sent", "outdated"),
    [
        (None, T[1], None, False),
        (None, T[1], T[2], True),
        (None, T[2], T[2], False),
        (T[0], T[2], T[1], False),  # the data's time belongs to the deleted version
        (T[0], None, T[1], False),
        (None, T[1], AHEAD, False),
    ],
)
def test_a_deletion_is_compared_with_messages_only(
    mine: str | None, sent: str | None, last_sent: str | None, outdated: bool
) -> None:
    told = message(kind="skill_delete", timestamp=sent, skill_id="a", **({"updated_at": mine} if mine else {}))
    assert is_outdated(told, updated_at=parse_time(T[3]), sent_at=parse_time(last_sent), now=NOW) is outdated


@given(st.text() | st.sampled_from(["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"]))
def test_any_time_is_read_as_utc_or_none(text: str) -> None:
    moment = parse_time(text)
    assert moment is None or moment.tzinfo is UTC


# Parts of skills


def test_a_whole_skill_is_stored_in_the_text_that_came() -> None:
    parsed = message(skill_id="a", name="A", code="x")
    version = merged_version(parsed, {"skill_id": "a", "name": "old"})
    assert version is not None
    assert version.text == parsed.text


def test_a_part_keeps_the_fields_that_it_does_not_carry() -> None:
    version = merged_version(message(skill_id="a", name="new"), {"skill_id": "a", "name": "old", "code": "x"})
    assert version is not None
    assert json.loads(version.text) == {"skill_id": "a", "name": "new", "code": "x"}


def test_an_unchanged_text_is_not_a_new_version() -> None:
    assert merged_version(message(skill_id="a", name="A"), {"skill_id": "a", "name": "A", "code": "x"}) is None
    assert merged_version(message(skill_id="a", name="A", n=1), {"skill_id": "a", "name": "A", "n": 1.0}) is not None


def test_a_rating_sets_only_the_two_figures() -> None:
    rating = message(kind="rating_update", skill_id="a", rating=4, average_rating=4.5, rating_count=2, name="no")
    version = merged_version(rating, {"skill_id": "a", "name": "A"})
    assert version is not None
    assert json.loads(version.text) == {"skill_id": "a", "name": "A", "average_rating": 4.5, "rating_count": 2}
