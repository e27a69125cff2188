"""The real-time protocol without I/O: frames, order, and the whole schedule with a clock that is moved by hand."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core.incoming.messages import UNKNOWN, Malformed, Message, parse_frame
from atom_saas_sync.core.plan.messages import is_outdated, merged_version, without_figures
from atom_saas_sync.core.realtime import (
    DISABLED_BY_ADMIN,
    FIRST_DELAYS,
    LONGEST_DELAY,
    REFUSED_DELAY,
    Do,
    Lifeline,
    Rules,
    asks_for_retry,
)
from atom_saas_sync.model import LinkState, LinkSwitch
from atom_saas_sync.times import parse_time

MIDDLE = 0.5  # of the jitter: delays are just what the table says


def lifeline(*, jitter: float = MIDDLE, **rules: Any) -> Lifeline:
    return Lifeline(Rules(**rules), lambda: jitter)


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
def test_what_is_not_the_contract_is_malformed_and_its_reason_repeats_nothing(text: str | bytes) -> None:
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
        (None, T[1], T[3], T[1], False),  # like is compared with like: that message was applied
        (None, T[0], T[3], T[1], True),
        (None, None, T[3], T[3], False),  # says nothing of time
        (T[1], None, None, None, False),
        (T[1], None, None, T[2], True),
        ("yesterday", T[1], T[2], None, True),  # what is no time is none
        (T[1], T[1], AHEAD, None, False),  # a time ahead of our clock is none
        (T[1], T[1], AHEAD, T[2], True),
        (None, T[1], None, AHEAD, False),
        (AHEAD, T[1], T[2], T[2], True),
        (None, AHEAD, T[2], T[2], False),
        (T[1], T[1], "2026-02-19T11:05:00Z", None, True),  # so far clocks may differ
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
        (T[0], T[2], T[1], False),  # the data's time is that of what is deleted
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
def test_any_time_is_a_moment_in_utc_or_none(text: str) -> None:
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


def test_what_changes_nothing_is_no_version() -> None:
    assert merged_version(message(skill_id="a", name="A"), {"skill_id": "a", "name": "A", "code": "x"}) is None
    assert merged_version(message(skill_id="a", name="A", n=1), {"skill_id": "a", "name": "A", "n": 1.0}) is not None


def test_a_rating_sets_the_two_figures_alone() -> None:
    rating = message(kind="rating_update", skill_id="a", rating=4, average_rating=4.5, rating_count=2, name="no")
    version = merged_version(rating, {"skill_id": "a", "name": "A"})
    assert version is not None
    assert json.loads(version.text) == {"skill_id": "a", "name": "A", "average_rating": 4.5, "rating_count": 2}


# The schedule


def fail(line: Lifeline, times: int, now: float = 0.0) -> list[float]:
    """Let attempts fail and return the distances between them."""
    distances = []
    for _ in range(times):
        line.ended(now, "refused")
        assert line.next_attempt is not None
        assert line.tick(line.next_attempt - 0.001) == []
        distances.append(line.next_attempt - now)
        now = line.next_attempt
        assert line.tick(now) == [Do.CONNECT]
    return distances


def test_distances_grow_from_a_second_to_an_hour() -> None:
    line = lifeline(attempts=100)
    assert line.start(0) == [Do.CONNECT]
    distances = fail(line, 20)
    assert distances[:6] == [1, 2, 4, 8, 16, 16]
    assert distances[6:14] == [32, 64, 128, 256, 512, 1024, 2048, 3600]
    assert set(distances[14:]) == {LONGEST_DELAY}


def test_fallback_begins_with_the_third_failure() -> None:
    line = lifeline()
    line.start(0)
    line.ended(0, "a")
    line.ended(1, "b")
    assert not line.fallback
    line.ended(3, "c")
    assert line.fallback
    assert (line.failures, line.reason) == (3, "c")
    assert line.next_attempt == 3 + FIRST_DELAYS[2]


def test_after_the_configured_attempts_the_next_is_an_hour_away() -> None:
    line = lifeline(attempts=5)
    line.start(0)
    assert fail(line, 7) == [1, 2, 4, 8, 3600, 3600, 3600]
    line = lifeline(attempts=1)
    line.start(0)
    line.ended(0, "x")
    assert line.fallback
    assert line.next_attempt == LONGEST_DELAY


def test_with_no_attempts_the_first_failure_is_the_last() -> None:
    line = lifeline(attempts=0)
    assert line.start(0) == [Do.CONNECT]
    line.ended(5, "x")
    assert line.fallback
    assert line.next_attempt is None
    assert line.due() == math.inf
    assert line.tick(1e9) == []


def test_only_a_valid_message_begins_the_schedule_anew() -> None:
    line = lifeline()
    line.start(0)
    for _ in range(4):
        line.ended(0, "closed")
        line.tick(line.next_attempt or 0)
        assert line.opened(0) == [Do.PING]
        line.frame(0)
    assert (line.failures, line.fallback) == (4, True)
    assert line.message(0) == [Do.CATCH_UP]
    assert (line.failures, line.attempts, line.fallback, line.reason) == (0, 0, False, None)
    assert line.message(1) == []
    line.ended(2, "gone")
    assert line.next_attempt == 2 + FIRST_DELAYS[0]


def test_each_connection_is_followed_by_catching_up() -> None:
    line = lifeline()
    line.start(0)
    for _ in range(3):
        line.opened(0)
        assert line.message(0) == [Do.CATCH_UP]
        line.ended(0, "gone")
        assert line.tick(1) == [Do.CONNECT]


def test_a_ping_at_each_interval() -> None:
    line = lifeline(heartbeat_seconds=30)
    line.start(0)
    line.opened(0)
    assert line.due() == 30
    assert line.tick(29.9) == []
    line.frame(29)
    assert line.tick(30) == [Do.PING]
    assert line.due() == 60
    line.frame(59)
    assert line.tick(60) == [Do.PING]


def test_silence_for_the_interval_and_ten_seconds_is_the_end() -> None:
    line = lifeline(heartbeat_seconds=30)
    line.start(0)
    line.opened(0)
    line.frame(7)
    assert line.tick(30) == [Do.PING]
    assert line.due() == 47
    assert line.tick(46.9) == []
    assert line.tick(47) == [Do.HANG_UP]
    assert line.tick(48) == []  # once is enough
    assert not line.connected
    line.ended(48, "silence")
    assert line.next_attempt == 49


def test_a_refused_token_is_not_tried_again_within_five_minutes() -> None:
    for jitter in (0.0, 0.5, 1.0):
        line = lifeline(jitter=jitter)
        line.start(0)
        for _ in range(12):
            line.ended(0, "refused", token_refused=True)
            assert line.next_attempt is not None
            assert REFUSED_DELAY <= line.next_attempt <= LONGEST_DELAY
            assert line.fallback


def test_a_new_token_is_tried_at_once() -> None:
    line = lifeline()
    line.start(0)
    line.ended(0, "refused", token_refused=True)
    line.new_token(10)
    assert line.next_attempt == 11
    line.ended(11, "no route")
    before = line.next_attempt
    line.new_token(12)  # the token was not the reason
    assert line.next_attempt == before


def test_a_disabled_websocket_is_fallback_from_the_start() -> None:
    line = lifeline(enabled=False)
    assert line.start(0) == []
    assert (line.fallback, line.connected, line.due()) == (True, False, math.inf)
    assert line.new_rules(5, Rules()) == [Do.CONNECT]
    line.opened(6)
    assert line.new_rules(7, Rules(enabled=False)) == [Do.HANG_UP]
    line.ended(8, "x")
    assert line.next_attempt is None


def test_an_administrator_switches_the_websocket_off_and_on() -> None:
    line = lifeline()
    line.start(0)
    line.opened(1)
    assert line.message(1) == [Do.CATCH_UP]
    assert line.new_rules(2, Rules(allowed=False)) == [Do.HANG_UP]
    line.ended(2, "hung up")
    assert (line.reason, line.fallback, line.next_attempt, line.due()) == (DISABLED_BY_ADMIN, True, None, math.inf)
    assert line.retry() == []
    assert line.new_rules(3, Rules(allowed=False, enabled=False)) == []
    assert line.reason == "ATOM_SAAS_WS_ENABLED is false: polling only"
    assert line.new_rules(4, Rules()) == [Do.CONNECT]


def test_a_retry_ends_the_waiting_alone() -> None:
    line = lifeline()
    line.start(0)
    assert line.retry() == []
    line.ended(0, "refused", token_refused=True)
    assert line.retry() == [Do.CONNECT]
    assert (line.failures, line.next_attempt, line.token_refused) == (0, None, False)
    line.opened(1)
    assert line.retry() == []


@pytest.mark.parametrize(
    ("found", "asks"),
    [
        (LinkSwitch(attempts=3, fallback=True), False),
        (LinkSwitch(attempts=0, fallback=True), True),
        (LinkSwitch(attempts=3, fallback=False), True),
        (LinkSwitch(attempts=2, fallback=True), False),
    ],
)
def test_zeros_of_others_ask_for_an_attempt(found: LinkSwitch, asks: bool) -> None:
    assert asks_for_retry(found, LinkState(connected=False, ws_url="", attempts=3, fallback=True)) is asks
    assert not asks_for_retry(found, None)
    assert not asks_for_retry(found, LinkState(connected=True, ws_url=""))


def test_new_rules_end_the_waiting() -> None:
    line = lifeline(attempts=1)
    line.start(0)
    line.ended(0, "x")
    assert line.new_rules(1, Rules()) == [Do.CONNECT]
    line.opened(2)
    assert line.new_rules(3, Rules(heartbeat_seconds=10)) == []
    assert line.due() == 13


def test_seconds_in_fallback_are_counted_once() -> None:
    line = lifeline(attempts=1)
    line.start(0)
    assert line.take_fallback_seconds(5) == 0
    line.ended(10, "x")
    assert line.take_fallback_seconds(15) == 5
    assert line.take_fallback_seconds(15) == 0
    line.tick(10 + LONGEST_DELAY)
    line.opened(4000)
    line.message(4000)
    assert line.take_fallback_seconds(5000) == 4000 - 15
    assert line.take_fallback_seconds(6000) == 0


def test_the_whole_story_of_a_connection() -> None:
    """From the first attempt through fallback to the hour, back again, silence, and a refused token."""
    line, now = lifeline(attempts=9), 0.0
    assert line.start(now) == [Do.CONNECT]
    told: list[tuple[float, bool]] = []
    for _ in range(10):
        line.ended(now, "cannot connect")
        assert line.next_attempt is not None
        assert line.due() == line.next_attempt
        told.append((line.next_attempt - now, line.fallback))
        now = line.next_attempt
        assert line.tick(now) == [Do.CONNECT]
    delays = [1, 2, 4, 8, 16, 16, 32, 64, 3600, 3600]
    assert told == [(delay, failures >= 3) for failures, delay in enumerate(delays, start=1)]
    assert (line.failures, line.attempts, line.reconnects) == (10, 10, 10)

    # The server is back: a ping at once, fallback ends with the first valid message, and what was missed is fetched.
    assert line.opened(now) == [Do.PING]
    assert (line.connected, line.fallback) == (True, True)
    assert line.message(now + 1) == [Do.CATCH_UP]
    assert (line.fallback, line.failures, line.attempts, line.reason) == (False, 0, 0, None)
    assert line.take_fallback_seconds(now + 1) == sum(delays[2:]) + 1

    # It falls silent: a ping after 30 s, the end after 40, and the schedule begins anew.
    quiet = now + 1
    assert line.tick(now + 30) == [Do.PING]
    assert line.tick(quiet + 39.9) == []
    assert line.tick(quiet + 40) == [Do.HANG_UP]
    now = quiet + 40
    line.ended(now, "no frame for 40 s")
    assert (line.next_attempt, line.fallback) == (now + 1, False)

    # The token is refused: fallback at once, minutes between attempts, until there is another token.
    now += 1
    assert line.tick(now) == [Do.CONNECT]
    line.ended(now, "refused", token_refused=True)
    assert line.fallback
    assert line.next_attempt is not None
    assert line.next_attempt - now >= REFUSED_DELAY
    line.new_token(now + 10)
    assert line.next_attempt == now + 11
    assert line.tick(now + 11) == [Do.CONNECT]
    line.opened(now + 11)
    assert line.message(now + 11) == [Do.CATCH_UP]
    assert not line.fallback


events = st.lists(
    st.tuples(
        st.sampled_from(["tick", "opened", "frame", "message", "ended", "refused", "token", "rules"]),
        st.floats(0, 4000),
        st.floats(0, 1),
    ),
    max_size=60,
)


@given(events, st.integers(0, 12))
def test_whatever_happens_the_limits_hold(  # noqa: C901 - an event each
    happened: list[tuple[str, float, float]], attempts: int
) -> None:
    jitter = MIDDLE
    line = Lifeline(Rules(attempts=attempts), lambda: jitter)
    state = "connecting"
    assert line.start(0) == [Do.CONNECT]
    now = 0.0
    for event, passed, jitter in happened:  # noqa: B007 - the lambda above reads it
        now += passed
        actions: list[Do] = []
        if event == "tick":
            actions = line.tick(now)
        elif event == "opened" and state == "connecting":
            actions, state = line.opened(now), "open"
        elif event == "frame" and state == "open":
            line.frame(now)
        elif event == "message" and state == "open":
            actions = line.message(now)
            assert not line.fallback or not line.connected
        elif event in {"ended", "refused"} and state in {"open", "connecting", "hanging up"}:
            line.ended(now, "x", token_refused=event == "refused")
            state = "waiting"
            assert (line.next_attempt is None) == (attempts == 0)
            if line.next_attempt is not None:
                delay = line.next_attempt - now
                assert (REFUSED_DELAY if event == "refused" else 0.75) <= delay + 1e-6
                assert delay <= LONGEST_DELAY + 1e-6
            assert line.fallback or line.failures < 3
        elif event == "token" and state == "waiting":
            line.new_token(now)
        if Do.CONNECT in actions:
            assert state == "waiting"
            state = "connecting"
        if Do.HANG_UP in actions:
            assert state == "open"
            state = "hanging up"
        assert line.connected == (state == "open")
        assert line.due() >= 0
        assert line.take_fallback_seconds(now) >= 0
