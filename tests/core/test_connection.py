"""The state machine of `watch`'s connection: its whole schedule, with a simulated clock."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core.connection import (
    DISABLED_BY_ADMIN,
    FIRST_DELAYS,
    LONGEST_DELAY,
    REFUSED_DELAY,
    Command,
    ConnectionRules,
    ConnectionState,
    asks_for_retry,
)
from atom_saas_sync.model import ConnectionSwitch, ReportedConnection

MIDDLE = 0.5  # without jitter, delays are exactly those of the table


def rules_with(**given: Any) -> ConnectionRules:
    """Return the usual rules, except for these."""
    return ConnectionRules(**{"heartbeat_seconds": 30, "attempts": 10} | given)


def connection_state(*, jitter: float = MIDDLE, **rules: Any) -> ConnectionState:
    return ConnectionState(rules_with(**rules), lambda: jitter)


def fail(line: ConnectionState, times: int, now: float = 0.0) -> list[float]:
    """Let attempts fail and return the delays between them."""
    distances = []
    for _ in range(times):
        line.ended(now, "refused")
        assert line.next_attempt is not None
        assert line.tick(line.next_attempt - 0.001) == []
        distances.append(line.next_attempt - now)
        now = line.next_attempt
        assert line.tick(now) == [Command.CONNECT]
    return distances


def test_distances_grow_from_a_second_to_an_hour() -> None:
    line = connection_state(attempts=100)
    assert line.start(0) == [Command.CONNECT]
    distances = fail(line, 20)
    assert distances[:6] == [1, 2, 4, 8, 16, 16]
    assert distances[6:14] == [32, 64, 128, 256, 512, 1024, 2048, 3600]
    assert set(distances[14:]) == {LONGEST_DELAY}


def test_fallback_begins_with_the_third_failure() -> None:
    line = connection_state()
    line.start(0)
    line.ended(0, "a")
    line.ended(1, "b")
    assert not line.fallback
    line.ended(3, "c")
    assert line.fallback
    assert (line.failures, line.reason) == (3, "c")
    assert line.next_attempt == 3 + FIRST_DELAYS[2]


def test_after_the_configured_attempts_the_next_is_an_hour_away() -> None:
    line = connection_state(attempts=5)
    line.start(0)
    assert fail(line, 7) == [1, 2, 4, 8, 3600, 3600, 3600]
    line = connection_state(attempts=1)
    line.start(0)
    line.ended(0, "x")
    assert line.fallback
    assert line.next_attempt == LONGEST_DELAY


def test_with_no_attempts_the_first_failure_is_the_last() -> None:
    line = connection_state(attempts=0)
    assert line.start(0) == [Command.CONNECT]
    line.ended(5, "x")
    assert line.fallback
    assert line.next_attempt is None
    assert line.due() == math.inf
    assert line.tick(1e9) == []


def test_only_a_valid_message_restarts_the_schedule() -> None:
    line = connection_state()
    line.start(0)
    for _ in range(4):
        line.ended(0, "closed")
        line.tick(line.next_attempt or 0)
        assert line.opened(0) == [Command.PING]
        line.frame(0)
    assert (line.failures, line.fallback) == (4, True)
    assert line.message(0) == [Command.CATCH_UP]
    assert (line.failures, line.attempts, line.fallback, line.reason) == (0, 0, False, None)
    assert line.message(1) == []
    line.ended(2, "gone")
    assert line.next_attempt == 2 + FIRST_DELAYS[0]


def test_each_connection_is_followed_by_catching_up() -> None:
    line = connection_state()
    line.start(0)
    for _ in range(3):
        line.opened(0)
        assert line.message(0) == [Command.CATCH_UP]
        line.ended(0, "gone")
        assert line.tick(1) == [Command.CONNECT]


def test_a_ping_at_each_interval() -> None:
    line = connection_state(heartbeat_seconds=30)
    line.start(0)
    line.opened(0)
    assert line.due() == 30
    assert line.tick(29.9) == []
    line.frame(29)
    assert line.tick(30) == [Command.PING]
    assert line.due() == 60
    line.frame(59)
    assert line.tick(60) == [Command.PING]


def test_silence_for_the_interval_and_ten_seconds_is_the_end() -> None:
    line = connection_state(heartbeat_seconds=30)
    line.start(0)
    line.opened(0)
    line.frame(7)
    assert line.tick(30) == [Command.PING]
    assert line.due() == 47
    assert line.tick(46.9) == []
    assert line.tick(47) == [Command.HANG_UP]
    assert line.tick(48) == []  # once is enough
    assert not line.connected
    line.ended(48, "silence")
    assert line.next_attempt == 49


def test_a_refused_token_is_not_tried_again_within_five_minutes() -> None:
    for jitter in (0.0, 0.5, 1.0):
        line = connection_state(jitter=jitter)
        line.start(0)
        for _ in range(12):
            line.ended(0, "refused", token_refused=True)
            assert line.next_attempt is not None
            assert REFUSED_DELAY <= line.next_attempt <= LONGEST_DELAY
            assert line.fallback


def test_a_new_token_is_tried_at_once() -> None:
    line = connection_state()
    line.start(0)
    line.ended(0, "refused", token_refused=True)
    line.new_token(10)
    assert line.next_attempt == 11
    line.ended(11, "no route")
    before = line.next_attempt
    line.new_token(12)  # the token was not the reason
    assert line.next_attempt == before


def test_a_disabled_websocket_is_fallback_from_the_start() -> None:
    line = connection_state(enabled=False)
    assert line.start(0) == []
    assert (line.fallback, line.connected, line.due()) == (True, False, math.inf)
    assert line.new_rules(5, rules_with()) == [Command.CONNECT]
    line.opened(6)
    assert line.new_rules(7, rules_with(enabled=False)) == [Command.HANG_UP]
    line.ended(8, "x")
    assert line.next_attempt is None


def test_an_administrator_switches_the_websocket_off_and_on() -> None:
    line = connection_state()
    line.start(0)
    line.opened(1)
    assert line.message(1) == [Command.CATCH_UP]
    assert line.new_rules(2, rules_with(allowed=False)) == [Command.HANG_UP]
    line.ended(2, "hung up")
    assert (line.reason, line.fallback, line.next_attempt, line.due()) == (DISABLED_BY_ADMIN, True, None, math.inf)
    assert line.retry() == []
    assert line.new_rules(3, rules_with(allowed=False, enabled=False)) == []
    assert line.reason == "ATOM_SAAS_WS_ENABLED is false: polling only"
    assert line.new_rules(4, rules_with()) == [Command.CONNECT]


def test_a_retry_only_ends_the_wait() -> None:
    line = connection_state()
    line.start(0)
    assert line.retry() == []
    line.ended(0, "refused", token_refused=True)
    assert line.retry() == [Command.CONNECT]
    assert (line.failures, line.next_attempt, line.token_refused) == (0, None, False)
    line.opened(1)
    assert line.retry() == []


@pytest.mark.parametrize(
    ("found", "asks"),
    [
        (ConnectionSwitch(attempts=3, fallback=True), False),
        (ConnectionSwitch(attempts=0, fallback=True), True),
        (ConnectionSwitch(attempts=3, fallback=False), True),
        (ConnectionSwitch(attempts=2, fallback=True), False),
    ],
)
def test_zeros_written_by_other_programs_request_an_attempt(found: ConnectionSwitch, asks: bool) -> None:
    assert asks_for_retry(found, ReportedConnection(connected=False, ws_url="", attempts=3, fallback=True)) is asks
    assert not asks_for_retry(found, None)
    assert not asks_for_retry(found, ReportedConnection(connected=True, ws_url=""))


def test_new_rules_end_the_waiting() -> None:
    line = connection_state(attempts=1)
    line.start(0)
    line.ended(0, "x")
    assert line.new_rules(1, rules_with()) == [Command.CONNECT]
    line.opened(2)
    assert line.new_rules(3, rules_with(heartbeat_seconds=10)) == []
    assert line.due() == 13


def test_seconds_in_fallback_are_counted_once() -> None:
    line = connection_state(attempts=1)
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
    line, now = connection_state(attempts=9), 0.0
    assert line.start(now) == [Command.CONNECT]
    told: list[tuple[float, bool]] = []
    for _ in range(10):
        line.ended(now, "cannot connect")
        assert line.next_attempt is not None
        assert line.due() == line.next_attempt
        told.append((line.next_attempt - now, line.fallback))
        now = line.next_attempt
        assert line.tick(now) == [Command.CONNECT]
    delays = [1, 2, 4, 8, 16, 16, 32, 64, 3600, 3600]
    assert told == [(delay, failures >= 3) for failures, delay in enumerate(delays, start=1)]
    assert (line.failures, line.attempts, line.reconnects) == (10, 10, 10)

    # The server is back: a ping at once, fallback ends with the first valid message, and what was missed is fetched.
    assert line.opened(now) == [Command.PING]
    assert (line.connected, line.fallback) == (True, True)
    assert line.message(now + 1) == [Command.CATCH_UP]
    assert (line.fallback, line.failures, line.attempts, line.reason) == (False, 0, 0, None)
    assert line.take_fallback_seconds(now + 1) == sum(delays[2:]) + 1

    # It falls silent: a ping after 30 s, the end after 40, and the schedule restarts.
    quiet = now + 1
    assert line.tick(now + 30) == [Command.PING]
    assert line.tick(quiet + 39.9) == []
    assert line.tick(quiet + 40) == [Command.HANG_UP]
    now = quiet + 40
    line.ended(now, "no frame for 40 s")
    assert (line.next_attempt, line.fallback) == (now + 1, False)

    # The token is refused: fallback at once, minutes between attempts, until there is another token.
    now += 1
    assert line.tick(now) == [Command.CONNECT]
    line.ended(now, "refused", token_refused=True)
    assert line.fallback
    assert line.next_attempt is not None
    assert line.next_attempt - now >= REFUSED_DELAY
    line.new_token(now + 10)
    assert line.next_attempt == now + 11
    assert line.tick(now + 11) == [Command.CONNECT]
    line.opened(now + 11)
    assert line.message(now + 11) == [Command.CATCH_UP]
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
def test_any_sequence_of_events_respects_the_limits(  # noqa: C901 - an event each
    happened: list[tuple[str, float, float]], attempts: int
) -> None:
    jitter = MIDDLE
    line = ConnectionState(rules_with(attempts=attempts), lambda: jitter)
    state = "connecting"
    assert line.start(0) == [Command.CONNECT]
    now = 0.0
    for event, passed, jitter in happened:  # noqa: B007 - the lambda above reads it
        now += passed
        actions: list[Command] = []
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
        if Command.CONNECT in actions:
            assert state == "waiting"
            state = "connecting"
        if Command.HANG_UP in actions:
            assert state == "open"
            state = "hanging up"
        assert line.connected == (state == "open")
        assert line.due() >= 0
        assert line.take_fallback_seconds(now) >= 0
