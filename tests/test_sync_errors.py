"""Failing syncs: each row of the table of errors (marketplace-api.md, section 3), and bad input from the wire.

Each test checks the retries, the exit code, and that the cache is unchanged or newer.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import FakeClock, Machine

from atom_saas_sync.errors import Interrupted
from atom_saas_sync.model import RunReport
from atom_saas_sync.sandbox import Sandbox


def _attempts(machine: Machine, endpoint: str = "list") -> int:
    return len(machine.sandbox.requests(endpoint))


def _pull_onto_a_full_cache(machine: Machine) -> RunReport:
    """Sync after every skill has changed there."""
    for skill_id in machine.sandbox.skill_ids():
        machine.sandbox.patch_skill(skill_id, {"description": "changed"}, push=False)
    return machine.pull(page_size=20)


@pytest.mark.parametrize("status", [400, 405, 410, 422])
def test_permanent_errors_are_not_retried(machine: Machine, status: int) -> None:
    machine.sandbox.fault("error", endpoint="list", status=status)
    report = machine.pull()
    assert (report.exit_code, report.reasons) == (65, ("api_error",))
    assert _attempts(machine) == 1
    assert machine.clock.slept == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_stops_the_run_at_once(machine: Machine, status: int) -> None:
    machine.fill()
    before = machine.cached()
    machine.sandbox.fault("error", status=status)
    report = machine.pull()
    assert (report.exit_code, report.status, report.reasons) == (77, "failed", ("auth",))
    assert report.error is not None and "ATOM_SAAS_API_TOKEN" in (report.error.hint or "")
    assert report.counts.requests == 1
    assert machine.cached() == before


def test_a_wrong_token(machine: Machine) -> None:
    report = machine.pull(token="at_saas_wrong")
    assert report.exit_code == 77
    assert "at_saas_wrong" not in str(report)


def test_404_on_the_list_means_a_wrong_url_or_dialect(machine: Machine) -> None:
    machine.sandbox.fault("error", endpoint="list", status=404)
    report = machine.pull()
    assert (report.exit_code, report.reasons) == (65, ("bad_response",))
    assert report.error is not None and "ATOM_SAAS_API_DIALECT" in (report.error.hint or "")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_passing_errors_are_retried_with_growing_pauses(machine: Machine, status: int) -> None:
    machine.sandbox.fault("error", endpoint="list", status=status, page=1, times=3)
    report = machine.pull()
    assert (report.status, report.counts.added) == ("success", 60)
    assert machine.clock.slept == [1.0, 2.0, 4.0]
    assert _attempts(machine) == 4


@pytest.mark.parametrize(("status", "exit_code", "kind"), [(500, 69, "api_error"), (429, 75, "rate_limited")])
def test_errors_that_stay_end_the_run_after_three_retries(
    machine: Machine, status: int, exit_code: int, kind: str
) -> None:
    machine.sandbox.fault("error", endpoint="list", status=status)
    report = machine.pull()
    assert (report.exit_code, report.reasons) == (exit_code, (kind,))
    assert _attempts(machine) == 4


@pytest.mark.parametrize(
    ("retry_after", "slept"), [(7, 7.0), ("date:9", 9.0), (3600, 120.0), ("date:-5", 0.0), ("soon", 1.0)]
)
def test_retry_after_is_obeyed_up_to_a_cap(machine: Machine, retry_after: int | str, slept: float) -> None:
    machine.sandbox.fault("error", endpoint="list", status=503, retry_after=retry_after, times=1)
    assert machine.pull().status == "success"
    assert machine.clock.slept == [pytest.approx(slept, abs=3)]


@pytest.mark.parametrize(
    ("fault", "fields"),
    [
        ("not_json", {"value": "html"}),
        ("not_json", {"value": "empty"}),
        ("not_json", {"value": "cut"}),
        ("not_json", {"value": "nan"}),
        ("wrong_form", {"value": "list"}),
        ("wrong_form", {"value": "missing"}),
        ("wrong_form", {"value": "not_list"}),
        ("wrong_form", {"value": "null"}),
        ("wrong_form", {"value": "text"}),
        ("truncated", {}),
        ("drop_body", {}),
        ("lying_encoding", {"value": "gzip"}),
        ("lying_encoding", {"value": "zstd"}),
        ("lying_encoding", {"value": "br"}),
    ],
)
def test_contract_violations_are_retried_and_exit_with_65(machine: Machine, fault: str, fields: dict[str, str]) -> None:
    machine.pull(page_size=20)
    before = machine.cached()
    machine.sandbox.fault(fault, endpoint="list", **fields)
    report = _pull_onto_a_full_cache(machine)
    assert (report.exit_code, report.status, report.reasons[-1]) == (65, "partial", "bad_response")
    assert machine.cached() == before
    machine.sandbox.clear_faults()
    machine.sandbox.fault(fault, endpoint="list", times=2, **fields)
    assert machine.pull(page_size=20).status == "success"
    assert machine.cached() == machine.listed()


@pytest.mark.parametrize(
    ("fault", "fields", "kind"),
    [
        ("drop", {}, "connection"),
        ("drop", {"value": "reset"}, "connection"),
        ("hang", {}, "timeout"),
        ("hang", {"value": "body"}, "timeout"),
        ("drip", {"amount": 200}, "timeout"),
    ],
)
def test_no_answer_is_retried_then_69(machine: Machine, fault: str, fields: dict[str, object], kind: str) -> None:
    machine.sandbox.fault(fault, endpoint="list", **fields)
    seconds = 0.3 if kind == "timeout" else 60
    report = machine.pull(timeout_seconds=seconds, categories=False)
    assert (report.exit_code, report.reasons) == (69, (kind,))
    assert machine.clock.slept == [1.0, 2.0, 4.0]


def test_a_marketplace_that_is_not_there(machine: Machine) -> None:
    machine.fill()
    before = machine.cached()
    machine.sandbox.stop()
    try:
        report = machine.pull()
    finally:
        machine.sandbox.start()
    assert (report.exit_code, report.status, report.reasons) == (69, "failed", ("connection",))
    assert machine.cached() == before
    assert machine.pull().status == "success"


@pytest.mark.parametrize(
    ("fault", "fields"),
    [
        ("oversized", {}),
        ("oversized", {"value": "length"}),
        ("bomb", {"value": "gzip"}),
        ("bomb", {"value": "zstd"}),
    ],
)
def test_a_body_without_end_is_refused(machine: Machine, fault: str, fields: dict[str, str]) -> None:
    machine.sandbox.fault(fault, endpoint="categories", amount=80 * 1024 * 1024, **fields)
    report = machine.pull()
    assert (report.exit_code, report.reasons) == (65, ("bad_response",))
    assert report.error is not None and "the body is larger than" in report.error.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_within_the_origin_are_followed(machine: Machine, status: int) -> None:
    machine.sandbox.fault("redirect", endpoint="list", status=status, value="same", times=1)
    assert machine.pull().status == "success"


def test_absurd_nesting_is_one_invalid_item(machine: Machine) -> None:
    machine.pull(page_size=20)
    before = machine.cached()
    machine.sandbox.fault("not_json", endpoint="list", value="deep")
    report = machine.pull(page_size=20, force=True)
    assert (report.exit_code, report.status, report.counts.deleted) == (65, "partial", 0)
    assert machine.cached() == before


def test_a_redirect_elsewhere_is_refused_and_never_sees_the_token(machine: Machine) -> None:
    machine.sandbox.fault("redirect", endpoint="list", status=302, value="other")
    report = machine.pull()
    assert (report.exit_code, report.reasons) == (65, ("bad_response",))
    assert report.error is not None and "another origin" in report.error.message
    assert _attempts(machine) == 1


def test_a_page_in_the_middle_fails_and_the_rest_is_kept(machine: Machine) -> None:
    machine.sandbox.fault("error", endpoint="list", page=2, status=503)
    report = machine.pull(page_size=10)
    assert (report.status, report.exit_code, report.complete) == ("partial", 69, False)
    assert len(machine.cached()) == 50
    sync = machine.status().sync
    assert (sync.last_successful_sync_at, sync.failed_syncs) == (None, 1)
    machine.sandbox.clear_faults()
    repaired = machine.pull(page_size=10)
    assert (repaired.status, repaired.counts.added, repaired.counts.unchanged) == ("success", 10, 50)


def test_invalid_items_are_skipped_counted_and_named(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.sandbox.fault("invalid_items", endpoint="list", page=1, value="all")
    report = machine.pull()
    assert (report.status, report.exit_code) == ("partial", 65)
    assert report.counts.invalid == 18
    assert machine.cached() == machine.listed()
    assert "skipped an invalid item" in caplog.text
    # While they exist, no run succeeds: the page is requested without a condition.
    assert machine.pull().counts.invalid == 18
    machine.sandbox.clear_faults()
    assert machine.pull().status == "success"


def test_a_listed_skill_that_has_become_invalid_is_not_deleted(machine: Machine) -> None:
    machine.fill()
    machine.sandbox.fault("broken_items", endpoint="list", page=1, value="name_missing")
    report = machine.pull()
    assert (report.status, report.counts.deleted) == ("partial", 0)
    assert len(machine.cached()) == 60


def test_deadline_ends_the_run_cleanly(machine: Machine) -> None:
    machine.sandbox.fault("error", endpoint="list", page=2, status=503)
    report = machine.pull(page_size=20, deadline=2.0)
    assert (report.status, report.exit_code, report.reasons) == ("partial", 75, ("deadline",))
    assert len(machine.cached()) == 20


def test_an_interrupted_run_keeps_what_it_has_and_is_continued(machine: Machine) -> None:
    calls = iter(range(1000))

    def check() -> None:
        if len(machine_cached()) >= 20:
            raise Interrupted(15)
        next(calls)

    def machine_cached() -> list[object]:
        return machine.sql("SELECT 1 FROM skill_cache")

    report = machine.pull(page_size=10, check=check)
    assert (report.exit_code, report.reasons) == (143, ("interrupted",))
    kept = len(machine_cached())
    assert 20 <= kept < 60
    again = machine.pull(page_size=10)
    assert (again.status, again.counts.added) == ("success", 60 - kept)
    assert again.counts.not_modified >= 2


def test_a_declared_limit_does_not_raise_ours(machine: Machine) -> None:
    machine.pull(page_size=10, per_minute=4, per_hour=100)
    assert len(machine.sandbox.requests()) == 8, "the sandbox allows 100,000 a minute"
    assert [seconds > 50 for seconds in machine.clock.slept] == [True]


def test_a_budget_is_kept_across_processes(tmp_path: object, machine: Machine) -> None:
    clock = FakeClock()
    first = machine.budget(per_minute=3, per_hour=5)
    second = machine.budget(per_minute=3, per_hour=5)
    try:
        assert [budget.take(clock.now()) for budget in (first, second, first)] == [0.0, 0.0, 0.0]
        wait = second.take(clock.now())
        assert 0 < wait <= 61
        clock.move(seconds=wait)
        assert [first.take(clock.now()), second.take(clock.now())] == [0.0, 0.0]
        assert second.take(clock.now()) > 60 * 50  # the hour's budget is used up
        first.learn(clock.now(), limit=100, remaining=90, reset_seconds=30)
        assert second.take(clock.now()) > 60 * 50  # a larger one that the marketplace declares changes nothing
        clock.move(hours=1)
        first.learn(clock.now(), limit=100, remaining=0, reset_seconds=30)
        assert first.take(clock.now()) == pytest.approx(30)
        clock.move(seconds=1)  # what the other may have taken for this second is still its own
        assert second.take(clock.now()) == pytest.approx(29)
    finally:
        first.close()
        second.close()


def test_unused_requests_of_a_lease_are_given_back(machine: Machine) -> None:
    clock = FakeClock()
    one = machine.budget(per_minute=100, per_hour=1000)
    other = machine.budget(per_minute=100, per_hour=1000)

    def counted() -> int:
        return sum(row[0] for row in machine.sql("SELECT requests FROM request_budget"))

    try:
        for _ in range(9):
            assert one.take(clock.now()) == 0.0
        assert one.free(clock.now()) == 91
        assert 9 <= counted() <= 24
        clock.move(seconds=1)
        assert one.take(clock.now()) == 0.0
        assert counted() == 10
        one.take(clock.now())
    finally:
        one.close()
    assert counted() == 11
    try:
        for _ in range(89):
            assert other.take(clock.now()) == 0.0
        assert other.take(clock.now()) > 0
        assert counted() == 100
    finally:
        other.close()


def test_a_declared_limit_is_kept_without_running_into_it(tmp_path: Path) -> None:
    with Sandbox(skills=60, seed=3, rate_limit=4) as sandbox:
        machine = Machine(sandbox, tmp_path)
        machine.follow_clock()
        report = machine.pull(page_size=10)
        assert machine.clock.slept, "four requests a minute must make it wait"
        assert report.counts.requests >= 4
        # The sandbox's own clock does not move with ours, so it refuses the fifth: it was asked once and no more.
        assert [entry.status for entry in sandbox.requests()].count(429) <= 4


def test_a_used_up_budget_is_75(machine: Machine) -> None:
    machine.budget(per_minute=1, per_hour=1).close()
    machine.pull(per_minute=100, per_hour=2)
    machine.sql("DELETE FROM fact WHERE name = 'rate_limit'")
    report = machine.pull(per_minute=100, per_hour=2)
    assert (report.exit_code, report.status, report.reasons) == (75, "failed", ("rate_limited",))
