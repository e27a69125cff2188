"""Ratings in both directions against the sandbox: every response of the contract, and the resulting state."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import FakeClock, Machine

from atom_saas_sync.core.outgoing import user_hasher
from atom_saas_sync.model import RatingReport
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.times import format_time

sync = Machine.send_ratings


@pytest.fixture
def skill(machine: Machine) -> str:
    """Return a skill of the marketplace; the database is there."""
    machine.store().close()
    return machine.sandbox.skill_ids()[0]


@pytest.fixture
def slowly(machine: Machine) -> Iterator[Sandbox]:
    """Return the sandbox, whose limit may be set."""
    yield machine.sandbox
    machine.sandbox.set_rate_limit(100_000)


def rate(machine: Machine, skill_id: str, stars: int, user: str = "ann", review: str | None = None) -> int:
    """Rate as the Atom backend does, at the time of the simulated clock."""
    machine.sql(
        "INSERT INTO skill_ratings (skill_id, user_id, rating, review, updated_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (skill_id, user_id) DO UPDATE "
        "SET rating = excluded.rating, review = excluded.review, updated_at = excluded.updated_at",
        skill_id, user, stars, review, format_time(machine.clock.now()),
    )  # fmt: skip
    return int(machine.sql("SELECT id FROM skill_rating WHERE skill_id = ? AND user_id = ?", skill_id, user)[0][0])


def stored(machine: Machine, column: str) -> list[Any]:
    return [row[0] for row in machine.sql(f"SELECT {column} FROM skill_rating ORDER BY id")]


def failures(machine: Machine, columns: str) -> list[Any]:
    return machine.sql(f"SELECT {columns} FROM failed_rating_upload ORDER BY rating_id")


def counts(report: RatingReport) -> tuple[int, ...]:
    """Return uploaded, updated_local, failed, skipped, pending."""
    each = report.counts
    return each.uploaded, each.updated_local, each.failed, each.skipped, each.pending


def there(sandbox: Sandbox) -> list[tuple[str, int, str | None]]:
    return [(each["user_id"], each["rating"], each["comment"]) for each in sandbox.ratings()]


def keys(sandbox: Sandbox, method: str = "POST") -> list[str]:
    return [each.headers["idempotency-key"] for each in sandbox.requests("ratings") if each.method == method]


# The outbox


@pytest.mark.parametrize("dialect", ["v1", "plain", "mothership"])
def test_ratings_of_other_programs_are_sent_once_and_the_average_follows(
    machine: Machine, skill: str, dialect: str
) -> None:
    machine.pull()
    rate(machine, skill, 4, review="fine")
    report = sync(machine, dialect=dialect)
    assert (report.status, report.exit_code, counts(report)) == ("success", 0, (1, 0, 0, 0, 0))
    assert there(machine.sandbox) == [("ann", 4, "fine")]
    assert stored(machine, "remote_rating_id") == [machine.sandbox.ratings()[0]["rating_id"]]
    assert machine.cached() == machine.listed()
    assert machine.sql("SELECT source FROM usable_skill WHERE skill_id = ?", skill) == [("marketplace",)]
    again = sync(machine, dialect=dialect)
    assert (counts(again), len(keys(machine.sandbox))) == ((0, 0, 0, 0, 0), 1)


def test_the_average_follows_in_an_edited_copy_too(machine: Machine, skill: str) -> None:
    machine.pull()
    machine.edit(skill, description="mine")
    rate(machine, skill, 4)
    sync(machine)
    cached = machine.cached()[skill]
    assert (cached["description"], cached["rating_count"]) == ("mine", machine.sandbox.skill(skill)["rating_count"])
    assert machine.pull().counts.conflicts_detected == 0


def test_any_change_of_a_rating_makes_it_pending_again(machine: Machine, skill: str) -> None:
    rate(machine, skill, 4)
    sync(machine)
    first = stored(machine, "version")
    machine.sql("UPDATE skill_rating SET review = 'better', synced_to_saas = TRUE")
    assert stored(machine, "synced_to_saas") == [0] and stored(machine, "version") != first
    sync(machine)
    machine.sql(
        "INSERT OR REPLACE INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'ann', 1)",
        skill,
        on_server="INSERT INTO skill_ratings (skill_id, user_id, rating) VALUES (?, 'ann', 1) "
        "ON CONFLICT (skill_id, user_id) DO UPDATE SET rating = excluded.rating, review = excluded.review",
    )
    assert stored(machine, "synced_to_saas") == [0]
    machine.sql("UPDATE skill_rating SET rating = 1, tenant_id = 'x'")
    assert counts(sync(machine)) == (1, 0, 0, 0, 0)
    assert there(machine.sandbox) == [("ann", 1, None)]
    assert len(set(keys(machine.sandbox))) == 3


def test_the_oldest_change_goes_first(machine: Machine, skill: str) -> None:
    for number, user in enumerate(["late", "early", "middle"]):
        rate(machine, skill, 3, user)
        machine.sql(
            "UPDATE skill_rating SET updated_at = ? WHERE user_id = ?", f"2026-01-0{(9, 1, 5)[number]}T00:00:00Z", user
        )
    sync(machine, workers=1)
    sent = [request.body["user_id"] for request in machine.sandbox.requests("ratings")]
    assert sent == ["early", "middle", "late"]


@pytest.mark.parametrize("stars", [pytest.param(4.5, marks=pytest.mark.sqlite("a column takes any type there")), 6])
def test_invalid_ratings_of_other_programs_are_not_sent(machine: Machine, skill: str, stars: float) -> None:
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'ann', ?)", skill, stars)
    machine.sql(
        "INSERT INTO skill_rating (skill_id, user_id, rating, review) VALUES (?, 'bob', 4, ?)", skill, "x" * 1001
    )
    rate(machine, skill, 5, "eve")
    report = sync(machine)
    assert (report.status, report.exit_code, counts(report)) == ("partial", 1, (1, 0, 2, 0, 0))
    assert failures(machine, "error_type, retry_count, next_retry_at") == [("invalid", 5, None)] * 2
    assert len(keys(machine.sandbox)) == 1


# Answers


@pytest.mark.parametrize("status", [400, 404, 422])
def test_refused_ratings_go_to_the_failed_list_at_once(machine: Machine, skill: str, status: int) -> None:
    machine.sandbox.fault("error", endpoint="ratings", status=status, times=1)
    rate(machine, skill, 4)
    report = sync(machine)
    assert (report.status, report.exit_code, counts(report)) == ("failed", 1, (0, 0, 1, 0, 0))
    assert report.error is not None and str(status) in report.error.message
    assert failures(machine, "retry_count, max_retries, next_retry_at") == [(5, 5, None)]
    machine.clock.move(days=30)
    assert counts(sync(machine)) == (0, 0, 0, 0, 0)
    assert len(keys(machine.sandbox)) == 1
    assert counts(sync(machine, retry_failed=True)) == (1, 0, 0, 0, 0)
    assert failures(machine, "1") == []
    assert len(set(keys(machine.sandbox))) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_stops_the_run_and_counts_against_no_rating(machine: Machine, skill: str, status: int) -> None:
    machine.sandbox.fault("error", endpoint="ratings", status=status)
    for number in range(100):
        rate(machine, skill, 4, f"user{number}")
    report = sync(machine)
    assert (report.status, report.exit_code, counts(report)) == ("failed", 77, (0, 0, 0, 0, 100))
    assert failures(machine, "1") == []
    assert len(keys(machine.sandbox)) <= 10  # those in flight


def test_an_answer_that_is_too_large_keeps_no_other_rating_back(machine: Machine, skill: str) -> None:
    for user in ("ann", "bob", "eve"):
        rate(machine, skill, 4, user)
    machine.sandbox.fault("bomb", endpoint="ratings", amount=20_000_000, value="gzip", times=1)
    report = sync(machine, workers=1)
    assert (report.status, report.exit_code, counts(report)) == ("partial", 65, (2, 0, 1, 0, 0))
    assert failures(machine, "error_type, retry_count") == [("bad_response", 0)]
    assert len(keys(machine.sandbox)) == 3  # none was sent twice


def test_no_retry_follows_a_refused_token(machine: Machine, skill: str) -> None:
    machine.sandbox.fault("error", endpoint="ratings", status=503, times=5)
    machine.sandbox.fault("error", endpoint="ratings", status=401)
    for number in range(100):
        rate(machine, skill, 4, f"user{number}")
    assert sync(machine).exit_code == 77
    assert len(keys(machine.sandbox)) <= 15


@pytest.mark.parametrize(
    ("fault", "error_type", "exit_code"),
    [
        *(({"kind": "error", "status": status}, "api_error", 69) for status in (408, 425, 500, 502, 503, 504)),
        ({"kind": "drop"}, "connection", 69),
        ({"kind": "no_rating_id"}, "bad_response", 65),
        ({"kind": "not_json"}, "bad_response", 65),
        ({"kind": "truncated"}, "bad_response", 65),
    ],
)
def test_passing_trouble_is_retried_in_the_run_and_then_later(
    machine: Machine, skill: str, fault: dict[str, Any], error_type: str, exit_code: int
) -> None:
    rate(machine, skill, 4)
    fault = {"endpoint": "ratings", **fault}
    machine.sandbox.fault(**fault, times=3)
    assert counts(sync(machine)) == (1, 0, 0, 0, 0)
    assert len(keys(machine.sandbox)) == 4
    rate(machine, skill, 5, "bob")
    machine.sandbox.fault(**fault)
    report = sync(machine)
    assert (report.exit_code, counts(report)) == (exit_code, (0, 0, 1, 0, 0))
    due = format_time(machine.clock.now() + timedelta(minutes=5))
    [(kind, retries, next_try)] = failures(machine, "error_type, retry_count, next_retry_at")
    assert (kind, retries) == (error_type, 0) and next_try <= due
    assert len(there(machine.sandbox)) <= 2


def test_retries_have_growing_pauses_and_then_need_a_manual_retry(machine: Machine, skill: str) -> None:
    rate(machine, skill, 4)
    machine.sandbox.fault("error", endpoint="ratings", status=503)
    sync(machine)
    for number, minutes in enumerate([5, 15, 60, 360, 1440], start=1):
        before = len(keys(machine.sandbox))
        sync(machine)
        assert len(keys(machine.sandbox)) == before  # not yet due
        machine.clock.move(minutes=minutes)
        sync(machine)
        assert failures(machine, "retry_count, failed_at < last_retry_at") == [(number, 1)]
    assert failures(machine, "next_retry_at") == [(None,)]
    machine.clock.move(days=9)
    before = len(keys(machine.sandbox))
    assert sync(machine).status == "success"
    assert len(keys(machine.sandbox)) == before
    machine.sql("UPDATE skill_rating SET rating = 1")  # another version starts from the beginning
    assert failures(machine, "1") == []
    machine.sandbox.clear_faults()
    assert counts(sync(machine)) == (1, 0, 0, 0, 0)


def test_a_limit_that_does_not_end_stops_the_run_and_counts_against_no_rating(machine: Machine, skill: str) -> None:
    rate(machine, skill, 4)
    machine.sandbox.fault("error", endpoint="ratings", status=429, retry_after=2)
    report = sync(machine)
    assert (report.exit_code, report.reasons, counts(report)) == (75, ("rate_limited",), (0, 0, 0, 0, 1))
    assert machine.clock.slept == [2.0, 2.0, 4.0], "the longer of our own pause and what was asked"


def test_when_the_marketplace_is_down_most_ratings_keep_their_tries(machine: Machine, skill: str) -> None:
    for number in range(200):
        rate(machine, skill, 4, f"user{number}")
    machine.sandbox.fault("error", endpoint="ratings", status=503)
    report = sync(machine)
    assert (report.status, report.exit_code) == ("failed", 69)
    assert report.counts.failed + report.counts.pending == 200
    assert 50 <= report.counts.failed <= 100


def test_sending_stays_below_the_declared_limit(machine: Machine, slowly: Sandbox, skill: str) -> None:
    for number in range(25):
        rate(machine, skill, 4, f"user{number}")
    slowly.set_rate_limit(10)
    answered: list[list[int]] = []  # until each sleep; 0 is on its way

    class WatchingClock(FakeClock):
        def sleep(self, seconds: float, over: threading.Event | None = None) -> None:
            answered.append(answers())
            super().sleep(seconds, over)

    def answers() -> list[int]:
        return [each.status for each in machine.sandbox.requests("ratings")]

    machine.clock = WatchingClock()
    report = sync(machine, per_minute=10)
    # It waited before the eleventh; once the clock has jumped, that overtakes those that are still on their way.
    assert len(answered[0]) <= 10 and set(answered[0]) <= {0, 201} and machine.clock.slept[0] > 50
    assert answers().count(201) == 10
    # The sandbox's minute goes by a real clock and is not over: what it refuses is not held against any rating.
    assert (report.exit_code, counts(report)) == (75, (10, 0, 0, 0, 15))


# Exactly once


@pytest.mark.parametrize("kind", ["store_then_drop", "drop_body", "truncated"])
def test_a_rating_that_was_stored_without_an_answer_is_there_once(machine: Machine, skill: str, kind: str) -> None:
    rate(machine, skill, 4)
    machine.sandbox.fault(kind, endpoint="ratings")
    for _ in range(3):
        assert sync(machine, retry_failed=True).exit_code != 0
    machine.sandbox.clear_faults()
    assert counts(sync(machine, retry_failed=True)) == (1, 0, 0, 0, 0)
    assert there(machine.sandbox) == [("ann", 4, None)]
    assert len(set(keys(machine.sandbox))) == 1 and len(keys(machine.sandbox)) == 13


def test_a_server_that_forgets_keys_still_has_it_once(machine: Machine, skill: str) -> None:
    rate(machine, skill, 4)
    machine.sandbox.add_rating(skill, "ann", 4)
    assert counts(sync(machine)) == (1, 0, 0, 0, 0)
    assert stored(machine, "remote_rating_id") == [machine.sandbox.ratings()[0]["rating_id"]]
    assert keys(machine.sandbox, "PUT") == []


def test_everything_again_doubles_nothing(machine: Machine, skill: str) -> None:
    for number in range(20):
        rate(machine, skill, 4, f"user{number}")
    sync(machine)
    assert counts(sync(machine, everything=True)) == (20, 0, 0, 0, 0)
    assert len(there(machine.sandbox)) == 20


# 409


@pytest.mark.parametrize("form", [None, "nested", "none"])
def test_a_newer_rating_here_updates_the_one_there(machine: Machine, skill: str, form: str | None) -> None:
    if form:
        machine.sandbox.fault("conflict_form", endpoint="ratings", value=form)
    machine.sandbox.add_rating(skill, "ann", 1, "old", updated_at="2026-02-19T11:00:00Z")
    rate(machine, skill, 5, review="new")
    assert counts(sync(machine)) == (1, 0, 0, 0, 0)
    assert there(machine.sandbox) == [("ann", 5, "new")]
    assert len(set(keys(machine.sandbox) + keys(machine.sandbox, "PUT"))) == 2


@pytest.mark.parametrize("form", [None, "nested", "none"])
def test_a_newer_rating_there_is_taken(
    machine: Machine, skill: str, form: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    if form:
        machine.sandbox.fault("conflict_form", endpoint="ratings", value=form)
    machine.sandbox.add_rating(skill, "ann", 1, "their-secret", updated_at="2026-02-19T12:30:00Z")
    rate(machine, skill, 5, review="our-secret")
    machine.clock.move(hours=1)
    machine.follow_clock()
    report = sync(machine)
    assert (report.exit_code, counts(report)) == (0, (0, 1, 0, 0, 0))
    assert (stored(machine, "rating"), stored(machine, "review")) == ([1], ["their-secret"])
    assert stored(machine, "updated_at") == ["2026-02-19T12:30:00Z"]
    assert keys(machine.sandbox, "PUT") == []
    assert "newer" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize(
    ("stamp", "winner"),
    [
        ("2026-02-19T11:45:00Z", "theirs"),
        ("2026-02-19T13:45:00+02:00", "theirs"),
        ("2026-02-19T11:15:00Z", "ours"),
        ("2026-02-19T11:30:00Z", "ours"),  # the same moment is not newer
        ("2026-02-19T12:10:00Z", "ours"),  # nobody has rated ahead of now
        ("8999-01-01T00:00:00Z", "ours"),
        ("9999-12-31T23:59:59-23:59", "ours"),
        ("soon", "ours"),
    ],
)
@pytest.mark.parametrize("settled", [False, True], ids=["unsent", "settled"])
def test_only_what_is_really_newer_replaces_a_rating(
    machine: Machine, skill: str, stamp: str, winner: str, settled: bool
) -> None:
    machine.clock.move(minutes=-30)
    rate(machine, skill, 1, review="it steals tokens")
    if settled:
        machine.follow_clock()
        sync(machine)
    machine.clock.move(minutes=30)
    machine.follow_clock()
    machine.sandbox.add_rating(skill, "ann", 5, "great", updated_at=stamp)
    report = sync(machine)
    assert report.exit_code == 0
    newer = winner == "theirs" or (settled and stamp == "2026-02-19T11:30:00Z")
    assert stored(machine, "rating") == [5 if newer else 1]
    if not settled:
        assert there(machine.sandbox) == [("ann", 5, "great") if newer else ("ann", 1, "it steals tokens")]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_that_can_t_update_is_remembered_and_ours_is_kept(machine: Machine, skill: str, status: int) -> None:
    machine.sandbox.fault("error", endpoint="ratings", method="PUT", status=status)
    for user in ("ann", "bob"):
        machine.sandbox.add_rating(skill, user, 1, updated_at="2026-02-19T11:00:00Z")
    rate(machine, skill, 5)
    report = sync(machine)
    assert (report.exit_code, counts(report)) == (0, (0, 0, 0, 1, 0))
    assert "cannot update" in stored(machine, "note")[0]
    rate(machine, skill, 5, "bob")
    assert counts(sync(machine)) == (0, 0, 0, 1, 0)
    assert stored(machine, "rating") == [5, 5]
    assert len(keys(machine.sandbox, "PUT")) == 1
    machine.sandbox.clear_faults()
    assert counts(sync(machine, everything=True)) == (2, 0, 0, 0, 0)  # retried on a user's request


def test_an_edit_during_the_upload_stays_pending_and_wins(machine: Machine, skill: str) -> None:
    rate(machine, skill, 1)
    report = sync(machine)
    # The marketplace stamps on arrival: later than the edit that was made while the first was on its way.
    machine.sql("UPDATE skill_rating SET rating = 5, updated_at = '2026-02-19T11:59:00Z'")
    report = sync(machine)
    assert counts(report) == (1, 0, 0, 0, 0)
    assert there(machine.sandbox) == [("ann", 5, None)]


# The way back


def test_a_newer_rating_of_the_same_user_comes_back_with_etags(machine: Machine, skill: str) -> None:
    rate(machine, skill, 4)
    rate(machine, skill, 2, "bob")
    sync(machine)
    sync(machine)
    assert [each.status for each in machine.sandbox.requests("skill")][-1] == 304
    machine.clock.move(hours=1)
    machine.follow_clock()
    machine.sandbox.add_rating(skill, "ann", 1, "changed my mind")
    machine.sandbox.add_rating(skill, "eve", 5)
    report = sync(machine)
    assert counts(report) == (0, 1, 0, 0, 0)
    assert stored(machine, "rating") == [1, 2]
    assert counts(sync(machine)) == (0, 0, 0, 0, 0)
    assert len(keys(machine.sandbox)) == 2


def test_the_oldest_look_comes_first_within_the_budget(machine: Machine) -> None:
    machine.store().close()
    for skill_id in machine.sandbox.skill_ids()[:9]:
        rate(machine, skill_id, 3)
    sync(machine)
    looked = len(machine.sandbox.requests("skill"))
    assert looked == 9
    machine.clock.move(hours=2)
    sync(machine, per_minute=8)
    first = [each.path for each in machine.sandbox.requests("skill")][looked:]
    machine.clock.move(hours=2)
    sync(machine, per_minute=8)
    second = [each.path for each in machine.sandbox.requests("skill")][looked + 4 :]
    assert len(first) == len(second) == 4 and not set(first) & set(second)


@pytest.mark.parametrize(("hours", "expected"), [(1, "ours"), (-1, "theirs")])
def test_an_hour_between_the_clocks_is_noticed_reported_and_allowed_for(
    machine: Machine, skill: str, hours: int, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    rate(machine, skill, 5)
    # Their time stamp is 45 minutes off ours, but their clock is an hour off, so the order is reversed.
    machine.sandbox.add_rating(
        skill, "ann", 1, updated_at=format_time(machine.clock.now() + timedelta(minutes=45 * hours))
    )
    machine.clock.move(minutes=30)
    machine.sandbox.set_clock_offset((machine.clock.now() - datetime.now(UTC)).total_seconds() + hours * 3600)
    report = sync(machine)
    assert counts(report)[:2] == ((1, 0) if expected == "ours" else (0, 1))
    assert "the marketplace's clock is" in caplog.text
    assert machine.status().clock_skew_seconds == pytest.approx(hours * 3600, abs=10)


# Privacy, counting


def test_hashed_users_go_there_and_come_back(machine: Machine, skill: str) -> None:
    rate(machine, skill, 4)
    assert counts(sync(machine, hashed=True)) == (1, 0, 0, 0, 0)
    [(user, _, _)] = there(machine.sandbox)
    assert user == user_hasher(machine.sandbox.token)("ann")
    machine.clock.move(hours=1)
    machine.follow_clock()
    machine.sandbox.add_rating(skill, user, 2)
    assert counts(sync(machine, hashed=True)) == (0, 1, 0, 0, 0)
    assert stored(machine, "user_id") == ["ann"]


def test_runs_and_items_are_counted(machine: Machine, skill: str) -> None:
    rate(machine, skill, 4)
    rate(machine, "nobody's", 4)
    sync(machine)
    sync(machine)
    counters = machine.status().counters
    assert counters["atom_saas_sync_items_total", '{"action": "added", "type": "rating"}'] == 1
    assert counters["atom_saas_sync_items_total", '{"action": "failed", "type": "rating"}'] == 1
    assert counters["atom_saas_sync_success_total", '{"type": "rating"}'] == 1
    assert counters["atom_saas_sync_errors_total", '{"error": "api_error", "type": "rating"}'] == 1
    assert counters["atom_saas_api_requests_total", '{"code": "201", "endpoint": "ratings"}'] == 1
    assert [(run.kind, run.status) for run in machine.status().runs] == [("ratings", "success"), ("ratings", "partial")]


def test_a_dry_run_sends_and_writes_nothing(machine: Machine, skill: str) -> None:
    rate(machine, skill, 4)
    report = sync(machine, dry_run=True)
    assert (report.run_id, [each.stars for each in report.plan], report.counts.pending) == (None, [4], 1)
    assert machine.sandbox.requests() == [] and machine.status().runs == ()
