"""The contract of the audit trail: runs, the marketplace of a database, the emergency stop."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace
from store_rooms import DAY, HERE, HOUR, NOW, SECOND, Rooms, skill

from atom_saas_sync.model import CatalogueCounts, ErrorInfo, RatingCounts, RatingReport, RunReport, WalkProof


def report(run_id: int, **fields: object) -> RunReport:
    return replace(RunReport(run_id, "skills", "success", 0, CatalogueCounts(), duration_seconds=2.0), **fields)


def test_a_run_is_running_until_it_ends(store: Rooms) -> None:
    run_id = store.runs.begin("skills", started_by="ada", now=NOW)
    (run,) = store.status().runs
    assert (run.id, run.status, run.started_by, run.finished_at) == (run_id, "running", "ada", None)
    error = ErrorInfo("timeout", "too slow")
    store.runs.finish(
        report(run_id, status="failed", error=error, reasons=("error",)),
        now=NOW + HOUR,
        requests={("skills", "200"): 2},
    )
    (run,) = store.status().runs
    assert (run.status, run.error_type, run.error_message, run.reasons) == ("failed", "timeout", "too slow", ("error",))
    assert (run.finished_at, run.duration_seconds) == (NOW + HOUR, 2.0)
    counters = store.status().counters
    assert counters["atom_saas_sync_errors_total", '{"error": "timeout", "type": "skill"}'] == 1
    assert counters["atom_saas_api_requests_total", '{"code": "200", "endpoint": "skills"}'] == 2


def test_the_end_of_a_run_counts_what_its_transactions_have_not_counted(store: Rooms) -> None:
    run_id = store.runs.begin("skills", started_by="ada", now=NOW)
    counts = CatalogueCounts(added=9, unchanged=1, invalid=2, categories_synced=7, categories_changed=3)
    store.runs.finish(report(run_id, counts=counts), now=NOW, requests={})
    rating = store.runs.begin("ratings", started_by="ada", now=NOW)
    ended = RatingReport(rating, "ratings", "success", 0, RatingCounts(uploaded=5))
    store.runs.finish(ended, now=NOW, requests={})
    counters = store.status().counters
    items = {labels: value for (name, labels), value in counters.items() if name == "atom_saas_sync_items_total"}
    assert items == {
        '{"action": "unchanged", "type": "skill"}': 1,
        '{"action": "invalid", "type": "skill"}': 2,
        '{"action": "updated", "type": "category"}': 3,
        '{"action": "unchanged", "type": "category"}': 4,
    }
    proofs = {run.kind: run.proof for run in store.run_history.list_runs(None)}
    assert proofs["ratings"] == {}
    assert proofs["skills"].keys() >= {"walks", "pages_read"}


def test_the_state_that_the_backend_reads_follows_the_skills(store: Rooms) -> None:
    store.show(skill("a"))
    first = store.runs.begin("skills", started_by="ada", now=NOW)
    store.runs.finish(report(first), now=NOW, requests={})
    second = store.runs.begin("skills", started_by="ada", now=NOW + HOUR)
    store.runs.finish(report(second, status="partial", reasons=("invalid",)), now=NOW + HOUR, requests={})
    rating = store.runs.begin("ratings", started_by="ada", now=NOW + DAY)
    store.runs.finish(RatingReport(rating, "ratings", "success", 0, RatingCounts()), now=NOW + DAY, requests={})
    sync = store.status().sync
    assert (sync.status, sync.last_error) == ("error", "invalid")
    assert (sync.total_syncs, sync.successful_syncs, sync.failed_syncs) == (2, 1, 1)
    assert sync.last_sync_at == NOW + HOUR
    assert sync.last_successful_sync_at == NOW
    assert store.status().last_rating_success_at == NOW + DAY


def test_a_run_that_never_ended_was_killed(store: Rooms) -> None:
    store.runs.begin("skills", started_by="ada", now=NOW)
    store.runs.begin("ratings", started_by="ada", now=NOW)
    store.runs.begin("skills", started_by="ada", now=NOW + HOUR)
    runs = [(run.kind, run.status, run.error_type) for run in store.status().runs]
    assert runs == [("skills", "running", None), ("ratings", "running", None), ("skills", "failed", "interrupted")]
    assert store.status().sync.failed_syncs == 1


def test_runs_are_kept_for_90_days(store: Rooms) -> None:
    old = store.runs.begin("skills", started_by="ada", now=NOW)
    store.runs.finish(report(old), now=NOW, requests={})
    store.runs.begin("ratings", started_by="ada", now=NOW + 90 * DAY)
    assert len(store.status().runs) == 2
    store.runs.begin("ratings", started_by="ada", now=NOW + 90 * DAY + SECOND)
    assert old not in [run.id for run in store.status().runs]


def test_the_first_marketplace_stays(store: Rooms) -> None:
    assert store.runs.marketplace() is None
    store.runs.reached_marketplace(NOW, 3.4)
    assert (store.runs.marketplace(), store.lifetime.marketplace_reached_at()) == (HERE, NOW)
    assert store.status().clock_skew_seconds == 3
    store.rebind("https://other.example", deletions=4)
    store.new_runs().bind(NOW)
    assert store.runs.marketplace() == "https://other.example"
    store.runs.reached_marketplace(NOW + HOUR, None)
    assert store.lifetime.marketplace_reached_at() == NOW + HOUR


def test_rebinding_forgets_what_only_the_former_marketplace_knew(store: Rooms) -> None:
    store.runs.reached_marketplace(NOW, 3.0)
    store.show(skill("a"))
    store.ratings.note_not_updatable(HERE, NOW)
    store.budget.learn(NOW, limit=10, remaining=0, reset_seconds=30)
    assert store.budget.free(NOW) == 0
    store.rebind("https://other.example", deletions=1)
    assert store.catalogue.ids_on_page(1) == []
    assert store.ratings.can_update(HERE)
    assert store.budget.free(NOW) == 8
    status = store.status()
    assert (status.marketplace_reached_at, status.clock_skew_seconds) == (None, None)
    assert store.shown() == {"a": "marketplace"}


def test_approved_deletions_end_with_the_next_success(store: Rooms) -> None:
    assert store.catalogue.approved_deletions() == 0
    store.rebind(HERE, deletions=5)
    failed = store.runs.begin("skills", started_by="ada", now=NOW)
    store.runs.finish(report(failed, status="failed"), now=NOW, requests={})
    assert store.catalogue.approved_deletions() == 5
    good = store.runs.begin("skills", started_by="ada", now=NOW)
    store.runs.finish(report(good), now=NOW, requests={})
    assert store.catalogue.approved_deletions() == 0


def test_the_emergency_stop(store: Rooms) -> None:
    assert (store.runs.scheduling_stopped(), store.jobs.stopped()) == (False, False)
    store.runs.stop_scheduling(actor="ada", now=NOW)
    assert (store.runs.scheduling_stopped(), store.jobs.stopped(), store.status().emergency_stop) == (True, True, True)
    store.runs.resume_scheduling(actor="ada", now=NOW)
    assert (store.runs.scheduling_stopped(), store.jobs.stopped()) == (False, False)
    store.runs.resume_scheduling(actor="ada", now=NOW)


def test_scheduled_successes_are_those_of_a_timer(store: Rooms) -> None:
    for hours, started_by, status in ((0, "timer", "success"), (1, "ada", "success"), (2, "timer", "failed")):
        run_id = store.runs.begin("skills", started_by=started_by, now=NOW + hours * HOUR)
        store.runs.finish(report(run_id, status=status), now=NOW + hours * HOUR, requests={})
    assert store.runs.last_scheduled_success("skills") == NOW
    assert store.runs.last_scheduled_success("ratings") is None


def test_the_run_of_a_process(store: Rooms) -> None:
    run_id = store.runs.begin("skills", started_by="ada", now=NOW)
    assert store.runs.run_of_process(os.getpid(), since=NOW) == run_id
    assert store.runs.run_of_process(os.getpid(), since=NOW + SECOND) is None
    assert store.runs.run_of_process(0, since=NOW) is None


@pytest.mark.parametrize(("kind", "label"), [("skills", "skill"), ("categories", "skill"), ("ratings", "rating")])
def test_a_run_that_was_locked_out_is_counted(store: Rooms, kind: str, label: str) -> None:
    store.runs.count_locked_out(kind)
    assert store.status().counters["atom_saas_sync_errors_total", f'{{"error": "locked", "type": "{label}"}}'] == 1


def test_an_empty_store_has_an_empty_status(store: Rooms) -> None:
    status = store.status()
    assert (status.migrations_pending, status.runs, status.skills, status.marketplace) == (False, (), 0, None)
    assert (status.websocket.started_at, status.sync.status, status.rate_limit_remaining) == (None, "idle", 8)
    with store.exclusive("skills"):
        assert store.status().running == {"skills"}


def test_the_history_of_runs_has_the_newest_first_with_all_that_was_noted(store: Rooms) -> None:
    first = store.runs.begin("skills", started_by="ada", now=NOW)
    proof = WalkProof(walks=2, total_before=7)
    store.runs.finish(
        report(first, counts=CatalogueCounts(added=7), proof=proof, reasons=("incomplete",), status="partial"),
        now=NOW + SECOND,
        requests={},
    )
    second = store.runs.begin("ratings", started_by="watch", now=NOW + HOUR)
    third = store.runs.begin("skills", started_by="timer", now=NOW + HOUR)
    assert [run.id for run in store.run_history.list_runs(None)] == [third, second, first]
    assert [run.id for run in store.run_history.list_runs("skills", limit=1)] == [third]
    assert [run.id for run in store.run_history.list_runs("watch")] == [second]
    counts = [store.run_history.count(kind) for kind in (None, "skills", "ratings", "watch", "purge")]
    assert counts == [3, 2, 1, 1, 0]
    run = store.run_history.run(first)
    assert run is not None
    assert (run.kind, run.status, run.started_by, run.reasons) == ("skills", "partial", "ada", ("incomplete",))
    assert (run.started_at, run.ended_at, run.duration_seconds) == (NOW, NOW + SECOND, 2.0)
    assert (run.counts["added"], run.proof["walks"], run.proof["total_before"]) == (7, 2, 7)
    assert store.run_history.run(4) is None


def test_the_history_shows_a_run_as_running_only_while_its_lock_is_held(store: Rooms) -> None:
    run_id = store.runs.begin("categories", started_by="ada", now=NOW)
    with store.exclusive("skills"):
        running = store.run_history.run(run_id)
        assert running is not None
        assert (running.status, running.error) == ("running", None)
    killed = store.run_history.run(run_id)
    assert killed is not None
    assert killed.error is not None
    assert (killed.status, killed.reasons, killed.error.type) == ("failed", ("interrupted",), "interrupted")
