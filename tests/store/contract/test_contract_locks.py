"""The contract of every verb: locks of other programs, failing transactions, no nesting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from store_rooms import DAY, HERE, HOUR, LIST, NOW, SECOND, Rooms, skill
from store_worlds import Databases

from atom_saas_sync.core.gate.admission import admitted_before
from atom_saas_sync.core.plan import plan_listed
from atom_saas_sync.errors import DatabaseBusy, Locked
from atom_saas_sync.model import (
    CatalogueCounts,
    Category,
    ConflictFilter,
    Delivery,
    RatingReceipt,
    ReportedConnection,
    RunReport,
    ScheduledJob,
    SkillFilter,
)
from atom_saas_sync.usecases import ports

Act = Callable[[Rooms], object]

REPORT = RunReport(1, "skills", "success", 0, CatalogueCounts())


def seed(store: Rooms) -> None:
    """Add data for every verb."""
    store.runs.begin("skills", started_by="timer", now=NOW)
    store.runs.reached_marketplace(NOW, 2.0)
    store.show(skill("a"), skill("b"), skill("c"))
    store.show(skill("d"), page=2)
    store.show(skill("a", version="1.1.0"), skill("b"), skill("c"))
    store.edit(skill("b", code="mine"), skill("e"))
    store.show(skill("a", version="1.1.0"), skill("b", code="theirs", version="2.0.0"), skill("c"))
    store.catalogue.apply_categories([Category("x", "{}")], whole=True, resource="categories", etag='"c"', now=NOW)
    store.own_ratings.add("a", "ada", 4, "fine", now=NOW)
    store.own_ratings.add("c", "ada", 5, None, now=NOW)
    settle(store)
    store.state.begin("wss://x", NOW)
    store.jobs.plan([ScheduledJob("poll", "poll", 15, None)], NOW)
    store.budget.take(NOW)


def settle(store: Rooms) -> None:
    for rating in store.ratings.load(["2"]):
        done = Delivery(rating, "sent", digest=b"d", receipt=RatingReceipt("r1", 4.5, 7))
        store.ratings.record_deliveries([done], now=NOW, requests={("ratings", "201"): 1})


def spend(store: Rooms) -> None:
    """Take one request more than was taken in advance."""
    for second in range(3):
        store.budget.take(NOW + second * SECOND)


def put_category(store: Rooms) -> None:
    with store.events.batch() as batch:
        batch.put_category(Category("z", "{}"), NOW)


def mark_undone(store: Rooms) -> None:
    with store.conflicts.resolving() as desk:
        desk.mark_undone(1, "ada", NOW)


def remove_pin(store: Rooms) -> None:
    with store.gate().deciding() as batch:
        batch.gate.remove_pin("a")


def snapshot_of_served(store: Rooms) -> list[str]:
    with store.serving().snapshot() as snapshot:
        return sorted(each.skill_id for each in snapshot.served(None))


WRITES: dict[str, Act] = {
    "StoredCatalogue.batch": lambda s: s.show(skill("a", version="3.0.0")),
    "StoredCatalogue.forget_other_lists": lambda s: s.catalogue.forget_other_lists("another"),
    "StoredCatalogue.distrust": lambda s: s.catalogue.distrust(["a"]),
    "StoredCatalogue.note_tampered": lambda s: s.catalogue.note_tampered(["a"], NOW),
    "StoredCatalogue.forget_pages_from": lambda s: s.catalogue.forget_pages_from(2),
    "StoredCatalogue.refresh_expiry": lambda s: s.catalogue.refresh_expiry(NOW + 20 * HOUR),
    "StoredCatalogue.apply_categories": lambda s: s.catalogue.apply_categories(
        [Category("y", "{}")], whole=True, resource="categories", etag=None, now=NOW
    ),
    "EditableCatalogue.batch": lambda s: s.edit(skill("c", code="new")),
    "StoredEvents.batch": put_category,
    "StoredConfirmations.batch": put_category,  # one class keeps both
    "StoredConflicts.resolving": mark_undone,
    "StateStore.begin": lambda s: s.state.begin("wss://y", NOW),
    "StoredSwitch.set": lambda s: s.switch.set(enabled=False, actor="ada", now=NOW),
    "StoredSwitch.reset": lambda s: s.switch.reset(actor="ada", now=NOW),
    "StateStore.note": lambda s: s.state.note(ReportedConnection(connected=True, ws_url="wss://y", invalid=3), NOW),
    "StateStore.end": lambda s: s.state.end("stopped", NOW),
    "JobStore.plan": lambda s: s.jobs.plan([], NOW),
    "StoredLifetime.purge": lambda s: s.lifetime.purge(
        NOW + 3 * DAY, older_than=None, everything=True, local=["b", "e"], actor="ada"
    ),
    "StoredLifetime.prune_logs": lambda s: s.lifetime.prune_logs(NOW + 900 * DAY),
    "RunLog.begin": lambda s: s.runs.begin("skills", started_by="ada", now=NOW),
    "RunLog.finish": lambda s: s.runs.finish(REPORT, now=NOW, requests={("skills", "200"): 2}),
    "RunLog.bind": lambda s: s.new_runs().bind(NOW),
    "RunLog.reached_marketplace": lambda s: s.runs.reached_marketplace(NOW + DAY, None),
    "StoredRuns.count_locked_out": lambda s: s.runs.count_locked_out("ratings"),
    "StoredRuns.stop_scheduling": lambda s: s.runs.stop_scheduling(actor="ada", now=NOW),
    "StoredRuns.resume_scheduling": lambda s: s.runs.resume_scheduling(actor="ada", now=NOW),
    "StoredRatings.reopen_all": lambda s: s.ratings.reopen_all(),
    "StoredRatings.record_deliveries": lambda s: s.ratings.record_deliveries(
        [], now=NOW, requests={("ratings", "500"): 1}
    ),
    "StoredRatings.note_not_updatable": lambda s: s.ratings.note_not_updatable(HERE, NOW),
    "UserRatings.add": lambda s: s.own_ratings.add("d", "bob", 1, None, now=NOW),
    "UserRatings.retry": lambda s: s.own_ratings.retry(["1", "2"], actor="ada", now=NOW),
    "UserRatings.restore": lambda s: s.own_ratings.restore("1", actor="ada", now=NOW),
    "UserRatings.delete": lambda s: s.own_ratings.delete(["2"], actor="ada", now=NOW),
    "StoredBudget.take": spend,
    "StoredBudget.learn": lambda s: s.budget.learn(NOW, limit=5, remaining=1, reset_seconds=None),
    "StoredRuns.note": lambda s: s.runs.note("backup", started_by="ada", began=NOW, now=NOW, counts={}, error=None),
    "BudgetDesk.forget_declared_limit": lambda s: s.limits.forget_declared_limit(),
    "GateStore.deciding": remove_pin,
    "Maintenance.repair": lambda s: s.maintenance.repair(),
    "Maintenance.try_writing": lambda s: s.maintenance.try_writing(),
    "Store.rebind": lambda s: s.rebind("https://other.example", deletions=2),
}
READS: dict[str, Act] = {
    "KnownSkills.known": lambda s: s.catalogue.known("abcde"),
    "StoredCatalogue.page_records": lambda s: s.catalogue.page_records(LIST),
    "StoredCatalogue.digests_on_page": lambda s: s.catalogue.digests_on_page(1),
    "StoredCatalogue.ids_on_page": lambda s: s.catalogue.ids_on_page(1),
    "StoredCatalogue.tampered": lambda s: s.catalogue.tampered(everything=True),
    "StoredCatalogue.unsigned": lambda s: s.catalogue.unsigned(),
    "Storing.unstorable": lambda s: s.catalogue.unstorable([]),
    "StoredCatalogue.respelled": lambda s: s.catalogue.respelled(),
    "StoredCatalogue.unlisted_ids": lambda s: s.catalogue.unlisted_ids({"a"}, recorded=False),
    "StoredCatalogue.marketplace_skills": lambda s: s.catalogue.marketplace_skills(),
    "StoredCatalogue.approved_deletions": lambda s: s.catalogue.approved_deletions(),
    "StoredCatalogue.modified_ids": lambda s: s.catalogue.modified_ids(),
    "StoredCatalogue.newest_replaced_edits": lambda s: s.catalogue.newest_replaced_edits(3),
    "StoredCatalogue.waiting_ids": lambda s: s.catalogue.waiting_ids(),
    "StoredCatalogue.validator": lambda s: s.catalogue.validator("categories"),
    "StoredCatalogue.changed_categories": lambda s: s.catalogue.changed_categories([Category("y", "1")], whole=True),
    "StoredCatalogue.count_categories": lambda s: s.catalogue.count_categories(),
    "StoredConflicts.conflict": lambda s: s.conflicts.conflict(1),
    "ListedConflicts.list_conflicts": lambda s: s.conflicts.list_conflicts(ConflictFilter()),
    "ListedConflicts.count": lambda s: s.conflicts.count(ConflictFilter()),
    "StateStore.last_poll": lambda s: s.state.last_poll(),
    "JobStore.last_started": lambda s: s.jobs.last_started("skills"),
    "JobStore.stopped": lambda s: s.jobs.stopped(),
    "StoredReading.list_skills": lambda s: s.reading().list_skills(SkillFilter()),
    "StoredReading.count": lambda s: s.reading().count(SkillFilter()),
    "StoredReading.search": lambda s: s.reading().search("a", SkillFilter()),
    "StoredReading.skill": lambda s: s.reading().skill("a"),
    "StoredHistory.versions": lambda s: s.history.versions("a"),
    "StoredLifetime.marketplace_reached_at": lambda s: s.lifetime.marketplace_reached_at(),
    "StoredLifetime.choose": lambda s: s.lifetime.choose(NOW, older_than=None, everything=True, local=True),
    "CacheFigures.statistics": lambda s: s.figures.statistics(NOW),
    "StoredRuns.marketplace": lambda s: s.runs.marketplace(),
    "StoredRuns.last_scheduled_success": lambda s: s.runs.last_scheduled_success("skills"),
    "StoredRuns.last_success_of_fleet": lambda s: s.runs.last_success_of_fleet("skills"),
    "StoredRuns.scheduling_stopped": lambda s: s.runs.scheduling_stopped(),
    "StoredRuns.auto_sync_is_off": lambda s: s.runs.auto_sync_is_off(),
    "StoredRuns.run_of_process": lambda s: s.runs.run_of_process(1, since=NOW),
    "StoredRunHistory.list_runs": lambda s: s.run_history.list_runs(None),
    "StoredRunHistory.count": lambda s: s.run_history.count(None),
    "StoredRunHistory.run": lambda s: s.run_history.run(1),
    "StoredRatings.due_ids": lambda s: s.ratings.due_ids(NOW),
    "StoredRatings.load": lambda s: s.ratings.load(["1", "2"]),
    "StoredRatings.count_pending": lambda s: s.ratings.count_pending(),
    "StoredRatings.can_update": lambda s: s.ratings.can_update(HERE),
    "StoredRatings.least_recently_checked": lambda s: s.ratings.least_recently_checked("ratings/", 9),
    "StoredRatings.settled_of": lambda s: s.ratings.settled_of("c"),
    "UserRatings.is_cached": lambda s: s.own_ratings.is_cached("a"),
    "UserRatings.listed": lambda s: s.own_ratings.listed(),
    "UserRatings.find": lambda s: s.own_ratings.find("1"),
    "RequestsLeft.free": lambda s: s.budget.free(NOW),
    "BudgetDesk.state": lambda s: s.limits.state(NOW, per_minute=8, per_hour=20, marketplace=HERE),
    "StoredIds.skills_from": lambda s: s.ids.skills_from("", limit=9),
    "StoredIds.offers_from": lambda s: s.ids.offers_from("", limit=9),
    "StoredIds.ratings_from": lambda s: s.ids.ratings_from("", limit=9),
    "StoredIds.names": lambda s: s.ids.names(["a", "b"]),
    "StoredIds.cached": lambda s: s.ids.cached(),
    "StoredIds.standing": lambda s: s.ids.standing("a"),
    "StoredServing.snapshot": snapshot_of_served,
    "StoredServing.texts": lambda s: sorted(each.skill_id for each in s.serving().texts()),
    "GateStore.state": lambda s: s.gate().state(),
    "GateStore.version": lambda s: s.gate().version(),
    "Maintenance.check": lambda s: s.maintenance.check(quick=True, signer=None),
    "Maintenance.tampered_and_unsigned": lambda s: s.maintenance.tampered_and_unsigned(None),
    "StoredSchema.current": lambda s: s.schema.current(),
    "StoredSchema.pending": lambda s: s.schema.pending(),
    "StoredSchema.history": lambda s: s.schema.history(),
    "StoredSchema.origin": lambda s: s.schema.origin(),
    "StoredSchema.loss": lambda s: s.schema.loss(1),
    "Store.holder": lambda s: s.holder("skills"),
    "Engine.exists": lambda s: s.engine.exists(),
    "Engine.is_current": lambda s: s.engine.is_current(),
    "Engine.status": lambda s: s.status(),
    "Engine.suggestions": lambda s: s.engine.suggestions("skill", ""),
    "Engine.foreign_values": lambda s: s.engine.foreign_values(),
    "Engine.known_migrations": lambda s: s.engine.known_migrations(),
    # Writes only about unseen conflicts; here there are none.
    "EditableCatalogue.look_at_deleted_edits": lambda s: s.edits.look_at_deleted_edits("a"),
    "ListedConflicts.note_seen": lambda s: s.conflicts.note_seen([1, 2, 3]),
    # These write, but give way to the holder of the lock.
    "StoredReading.count_read": lambda s: s.reading().count_read([]),
    "StoreUpkeep.tidy": lambda s: s.upkeep.tidy(),
    "StoreUpkeep.pause": lambda s: s.upkeep.pause(1.0, of=2.0),
    "StoredBudget.close": lambda s: s.new_budget().close(),
}
BATCHES = {"StoredBatch", "SkillBatch", "EventBatch", "EditBatch", "Resolutions", "GateBatch"}
NOT_OF_THE_STORE = {"Progress", "Statistics", "Marketplace", "RatingMarketplace", "Clock"}
# Specific to an engine, or only returning other verbs.
TRIED_ELSEWHERE = {
    "Lockable.exclusive",
    "Maintenance.compact",
    "StoredSchema.upgrade",
    "StoredSchema.downgrade",
    "Engine.open",
    "Engine.request_budget",
    "Engine.upkeep",
    "Engine.free_disk_gb",
    "StoredCatalogue.free_disk_gb",
    "Engine.server_facts",
    "Engine.scratch_copy",
    "Engine.copies",
    "RowsOut.tables",
    "RowsOut.rows",
    "RowsIn.write",
}
ROOMS = {name for name in vars(ports.Store) if not name.startswith("_")} - {"holder", "rebind"}


@pytest.fixture
def seeded(databases: Databases, tmp_path: Path) -> Iterator[Rooms]:
    """Return a store with data for every verb."""
    rooms = databases.new(tmp_path, seed)
    yield rooms
    rooms.close()


def test_each_verb_of_the_store_is_in_one_of_the_tables() -> None:
    verbs = {
        f"{name}.{verb}"
        for name, port in vars(ports).items()
        if isinstance(port, type)
        and port.__module__.startswith(ports.__name__)
        and name not in NOT_OF_THE_STORE | BATCHES | {"DatabaseCopies"}
        for verb, value in vars(port).items()
        if callable(value) and not verb.startswith("_")
    }
    verbs -= TRIED_ELSEWHERE | {f"Store.{name}" for name in ROOMS}
    assert sorted(verbs ^ (WRITES.keys() | READS.keys())) == []


@pytest.mark.parametrize("verb", WRITES)
def test_a_verb_that_writes_fails_while_another_program_holds_the_lock(seeded: Rooms, verb: str) -> None:
    before = seeded.everything()
    with seeded.locked():
        with pytest.raises(DatabaseBusy, match="locked") as caught:
            WRITES[verb](seeded)
        assert (caught.value.exit_code, caught.value.kind) == (74, "database")
        assert caught.value.hint
    assert seeded.everything() == before
    WRITES[verb](seeded)


@pytest.mark.usefixtures("patient_completion")
@pytest.mark.parametrize("verb", READS)
def test_a_verb_that_reads_does_not_mind_the_lock(seeded: Rooms, verb: str) -> None:
    expected = READS[verb](seeded)
    before = seeded.everything()
    with seeded.locked():
        assert READS[verb](seeded) == expected
    assert seeded.everything() == before


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.catalogue.forget_other_lists(LIST),
        lambda s: s.catalogue.forget_pages_from(3),
        lambda s: s.catalogue.refresh_expiry(NOW),
    ],
    ids=["forget_other_lists", "forget_pages_from", "refresh_expiry"],
)
def test_verbs_with_nothing_to_change_need_no_lock(seeded: Rooms, act: Act) -> None:
    before = seeded.everything()
    with seeded.locked():
        act(seeded)
    assert seeded.everything() == before


OPENERS: dict[str, Callable[[Rooms], AbstractContextManager[Any]]] = {
    "catalogue": lambda s: s.catalogue.batch(),
    "edits": lambda s: s.edits.batch(),
    "events": lambda s: s.events.batch(),
    "conflicts": lambda s: s.conflicts.resolving(),
}


@pytest.mark.parametrize("room", OPENERS)
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_batch_that_fails_leaves_nothing(seeded: Rooms, room: str, failure: type[BaseException]) -> None:
    before = seeded.everything()
    with pytest.raises(failure):
        write_and_fail(OPENERS[room](seeded), failure)
    assert seeded.everything() == before
    with OPENERS[room](seeded):
        pass


def write_and_fail(opened: AbstractContextManager[Any], failure: type[BaseException]) -> None:
    newer = skill("a", version="9.0.0")
    with opened as batch:
        batch.apply([plan_listed(batch.known(["a"])["a"], admitted_before(newer), "remote_wins", NOW)], NOW)
        assert batch.known(["a"])["a"].local_text == newer.text
        raise failure


@pytest.mark.parametrize("room", OPENERS)
def test_verbs_do_not_nest(store: Rooms, room: str) -> None:
    with OPENERS[room](store):
        for act in (
            store.runs.marketplace,
            lambda: store.runs.count_locked_out("skills"),
            lambda: store.catalogue.known("a"),
        ):
            with pytest.raises(RuntimeError):
                act()


def test_a_snapshot_takes_no_lock_and_keeps_nothing(seeded: Rooms) -> None:
    before = seeded.everything()
    with seeded.locked(), seeded.catalogue.batch(write=False) as batch:
        assert set(batch.known("abcdef")) == set("abcde")
    assert seeded.everything() == before


def test_one_run_of_a_kind_at_a_time(store: Rooms) -> None:
    assert store.holder("skills") is None
    with store.exclusive("skills"):
        with pytest.raises(Locked) as caught, store.exclusive("skills"):
            pass
        assert caught.value.exit_code == 75
        assert (store.holder("skills") or {})["command"] == "a test"
        with store.exclusive("ratings"):
            pass
    assert store.holder("skills") is None
