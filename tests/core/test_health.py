"""Verdicts are pure functions of the stored state and the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from atom_saas_sync.core.health import (
    check_health,
    duration,
    elapsed,
    interval,
    minutes_since,
    size,
    stale_after_minutes,
    watch_is_missed,
    websocket_connected,
)
from atom_saas_sync.core.reports import status_document, sync_health_document
from atom_saas_sync.model import PastRun, Status, SyncState, WebSocketState

NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def run(status: str, error_type: str | None = None, **fields: Any) -> PastRun:
    return PastRun(
        id=1,
        kind="skills",
        started_at=ago(minutes=1),
        finished_at=ago(minutes=1),
        duration_seconds=1.0,
        status=status,
        started_by="tester",
        reasons=(),
        error_type=error_type,
        error_message=fields.get("error_message"),
    )


def state(**fields: Any) -> Status:
    sync = SyncState(last_sync_at=ago(minutes=5), last_successful_sync_at=ago(minutes=5), total_syncs=1)
    whole: dict[str, Any] = {
        "read_at": NOW,
        "database_path": "atom.db",
        "revision": "0004",
        "migrations_pending": False,
        "sync": sync,
        "skills": 5,
        **fields,
    }
    return Status(**whole)


WATCHING = WebSocketState(
    connected=True, alive=True, started_at=ago(hours=3), heartbeat_at=ago(seconds=10), last_connected_at=ago(hours=1)
)


def reasons(status: Status, *, interval: int = 15, **options: Any) -> list[str]:
    return [each.code for each in check_health(status, NOW, sync_interval_minutes=interval, **options).reasons]


def test_a_recent_success_without_a_watch_is_healthy() -> None:
    assert check_health(state(), NOW, sync_interval_minutes=15).healthy


@pytest.mark.parametrize(
    ("interval", "minutes", "stale"),
    [(5, 29, False), (5, 30, True), (15, 30, True), (20, 39, False), (20, 40, True), (60, 119, False), (60, 120, True)],
)
def test_stale_is_the_longer_of_half_an_hour_and_twice_the_interval(
    interval: int, minutes: int, *, stale: bool
) -> None:
    status = state(sync=SyncState(last_sync_at=ago(minutes=1), last_successful_sync_at=ago(minutes=minutes)))
    assert ("sync_stale" in reasons(status, interval=interval)) is stale


def test_a_failed_last_run_is_unhealthy_but_an_interrupted_or_partial_one_is_not() -> None:
    assert reasons(state(last_runs={"skills": run("failed", "timeout")})) == ["sync_failed"]
    assert reasons(state(last_runs={"skills": run("failed", "interrupted")})) == []
    partial = check_health(state(last_runs={"skills": run("partial")}), NOW, sync_interval_minutes=15)
    assert partial.healthy
    assert [each.code for each in partial.notices] == ["sync_partial"]


def test_the_reason_of_a_failure_is_explained() -> None:
    failed = run("failed", "auth", error_message="the marketplace refused the token (401)")
    (trouble,) = check_health(state(last_runs={"skills": failed}), NOW, sync_interval_minutes=15).reasons
    assert trouble.message == "the last sync failed: the marketplace refused the token (401)"


def test_no_database_no_migrations_no_success() -> None:
    empty = Status(read_at=NOW, database_path="atom.db")
    assert reasons(empty) == ["never_synced"]
    assert reasons(replace(empty, revision="0001")) == ["migrations_pending"]
    assert reasons(state(sync=SyncState())) == ["never_synced"]


def test_when_nothing_is_asked_of_the_marketplace_nothing_can_be_stale() -> None:
    status = state(sync=SyncState(), websocket=replace(WATCHING, connected=False))
    assert reasons(status, enabled=False) == []


@pytest.mark.parametrize(
    ("websocket", "expected"),
    [
        (WATCHING, []),
        (replace(WATCHING, connected=False), ["websocket_disconnected"]),
        (replace(WATCHING, alive=False), ["watch_gone"]),
        (replace(WATCHING, heartbeat_at=ago(minutes=10)), ["watch_gone"]),
        (replace(WATCHING, alive=False, heartbeat_at=ago(hours=25)), []),
        (replace(WATCHING, alive=False, connected=False, stopped_at=ago(minutes=1)), []),
        (WebSocketState(), []),
    ],
    ids=["connected", "disconnected", "died", "hangs", "long gone", "stopped cleanly", "never ran"],
)
def test_a_missing_websocket_counts_only_if_watch_ran_and_was_not_stopped(
    websocket: WebSocketState, expected: list[str]
) -> None:
    assert reasons(state(websocket=websocket)) == expected
    assert reasons(state(websocket=websocket), websocket_enabled=False) == []


def test_a_websocket_that_an_administrator_switched_off_is_not_missed_but_a_watch_is() -> None:
    off = replace(WATCHING, connected=False, enabled=False)
    assert reasons(state(websocket=off)) == []
    assert reasons(state(websocket=replace(off, alive=False))) == ["watch_gone"]
    verdict = check_health(state(websocket=off), NOW, sync_interval_minutes=15)
    assert "websocket_disabled" in [each.code for each in verdict.notices]


@given(
    connected=st.booleans(),
    alive=st.booleans(),
    age=st.one_of(st.none(), st.integers(0, 10_000_000)),
    stopped=st.booleans(),
)
def test_connected_is_believed_only_of_the_living(
    *, connected: bool, alive: bool, age: int | None, stopped: bool
) -> None:
    websocket = WebSocketState(
        connected=connected,
        alive=alive,
        started_at=ago(days=200),
        heartbeat_at=None if age is None else ago(seconds=age),
        stopped_at=ago(seconds=1) if stopped else None,
    )
    is_connected = websocket_connected(websocket, NOW)
    assert not is_connected or (connected and alive and age is not None and age <= 120)
    assert not (is_connected and watch_is_missed(websocket, NOW))


@given(st.integers(5, 60))
def test_the_limit_is_never_shorter_than_two_intervals(interval: int) -> None:
    assert stale_after_minutes(interval) >= max(30, 2 * interval)


def test_a_future_time_has_no_age() -> None:
    assert minutes_since(NOW + timedelta(hours=1), NOW) == 0
    assert minutes_since(None, NOW) is None


def test_notices_do_not_make_the_state_unhealthy() -> None:
    status = state(
        conflicts_open={"HIGH": 2}, ratings_failed=1, emergency_stop=True, clock_skew_seconds=-600.0, republished=3
    )
    health = check_health(status, NOW, sync_interval_minutes=15)
    assert health.healthy
    assert [each.code for each in health.notices] == ["stopped", "conflicts_open", "ratings_failed", "clock_skew"]
    assert health.notices[-1].message == "this clock is 10 min ahead of the marketplace's"


def test_the_documents_have_the_keys_of_the_guide() -> None:
    status = state(websocket=WATCHING, skills=1250, categories=24, ratings_pending=1, republished=2)
    health = check_health(status, NOW, sync_interval_minutes=15)
    document = status_document(status, health, NOW)
    assert document["success"] is True
    assert {"status", "last_sync_at", "last_successful_sync_at", "total_syncs", "successful_syncs", "failed_syncs"} <= (
        document["sync"].keys()
    )
    assert {
        "connected",
        "last_connected_at",
        "last_message_at",
        "fallback_to_polling",
        "reconnect_attempts",
    } <= document["websocket"].keys()
    assert document["cache"] == {
        "skills_count": 1250,
        "categories_count": 24,
        "expired": 0,
        "modified": 0,
        "republished": 2,
        "tampered": 0,
        "edits_deleted": 0,
        "oldest_page_at": None,
    }
    assert document["ratings"] == {"pending": 1, "synced": 0, "failed": 0}
    assert document["conflicts"] == {"open": 0, "resolved": 0}
    assert document["database"].keys() == {"path", "marketplace", "origin", "revision", "size_bytes"}
    assert document["health"]["status"] == "healthy"
    public = sync_health_document(status, health, NOW)
    assert public["sync"]["minutes_since_last_sync"] == 5
    assert public["websocket"] == {"connected": True, "last_message_at": None}
    assert "atom.db" not in str(public)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "1 min"), (5399, "89 min"), (5400, "1 h"), (200_000, "2 days")],
)
def test_spans_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def after(status: str, *reasons: str, **fields: Any) -> Status:
    run = PastRun(9, "skills", ago(minutes=5), ago(minutes=5), 1.0, status, "tester", reasons, None, None, **fields)
    return state(last_runs={"skills": run})


@pytest.mark.parametrize("status", ["partial", "failed"])
def test_refused_deletions_are_unhealthy_and_name_the_commands(status: str) -> None:
    health = check_health(
        after(status, "items_invalid", "deletions_refused", refused=1234, invalid=2), NOW, sync_interval_minutes=15
    )
    assert [each.code for each in health.reasons] == ["deletions_refused"]
    assert "1,234 skills" in health.reasons[0].message
    assert "--dry-run" in health.reasons[0].hint
    assert "--max-delete 1234`" in health.reasons[0].hint
    # From a version that did not record the number.
    older = check_health(after(status, "deletions_refused"), NOW, sync_interval_minutes=15)
    assert "--max-delete N`" in older.reasons[0].hint


@pytest.mark.parametrize(
    ("reasons", "invalid", "code", "words"),
    [
        (("items_invalid",), 1, "items_invalid", "1 invalid item of"),
        (("items_invalid", "conflicts_open"), 3, "items_invalid", "3 invalid items of"),
        (("timeout",), 0, "sync_partial", "partial: timeout"),
        (("incomplete",), 0, "sync_partial", "partial: incomplete"),
    ],
)
def test_a_partial_run_is_reported_with_its_own_hint(
    reasons: tuple[str, ...], invalid: int, code: str, words: str
) -> None:
    health = check_health(after("partial", *reasons, invalid=invalid), NOW, sync_interval_minutes=15)
    assert health.healthy
    (notice,) = health.notices
    assert notice.code == code
    assert words in notice.message
    assert ("report them" in notice.hint) == (code == "items_invalid")


def test_an_empty_cache_after_a_success_is_unhealthy() -> None:
    assert reasons(state(skills=0)) == ["cache_empty"]
    assert reasons(state(skills=0), enabled=False) == []
    assert reasons(state(skills=0, sync=SyncState())) == ["never_synced"]


def test_figures_for_people() -> None:
    assert [elapsed(seconds) for seconds in (0, 0.0324, 0.9996, 1.42, 9.96, 61, 7200)] == [
        *("0 ms", "32 ms", "1.0 s", "1.4 s", "10 s", "61 s", "2 h")
    ]
    assert [size(number) for number in (0, 1, 999, 1000, 17_100_800, 999_960, 2_500_000_000)] == [
        *("0 bytes", "1 byte", "999 bytes", "1.0 kB", "17.1 MB", "1.0 MB", "2.5 GB")
    ]
    assert [interval(minutes) for minutes in (7, 60, 90, 120, 1440, 2880)] == [
        *("7 min", "1 h", "90 min", "2 h", "1 day", "2 days")
    ]
