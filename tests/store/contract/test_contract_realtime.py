"""The contract of the verbs for `watch`."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace
from store_rooms import DAY, HOUR, LIST, NOW, Rooms, skill

from atom_saas_sync.model import Category, ConnectionSwitch, MessageMark, ReportedConnection, ScheduledJob

MINUTE = timedelta(minutes=1)
CONNECTED = ReportedConnection(connected=True, ws_url="wss://x", connected_at=NOW, last_message_at=NOW, attempts=2)


def test_marks_are_the_last_ones_of_their_kind(store: Rooms) -> None:
    with store.events.batch() as batch:
        assert batch.marks("skill", ["a"]) == {}
        batch.mark("skill", {"a": MessageMark(NOW), "b": MessageMark(None, deleted=True)}, NOW)
        batch.mark("rating", {"a": MessageMark(NOW + HOUR)}, NOW)
    with store.events.batch() as batch:
        batch.mark("skill", {"a": MessageMark(None, deleted=True)}, NOW)
        assert batch.marks("skill", ["a", "b", "c"]) == {
            "a": MessageMark(NOW, deleted=True),  # without a time it keeps the one it has
            "b": MessageMark(None, deleted=True),
        }
        assert batch.marks("rating", ["a"]) == {"a": MessageMark(NOW + HOUR)}
        assert batch.marks("category", ["a"]) == {}


def test_a_start_forgets_only_old_deletions(store: Rooms) -> None:
    with store.events.batch() as batch:
        batch.mark("skill", {"gone": MessageMark(None, deleted=True), "changed": MessageMark(None)}, NOW)
    store.state.begin("wss://x", NOW + DAY - MINUTE)
    with store.events.batch() as batch:
        assert set(batch.marks("skill", ["gone", "changed"])) == {"gone", "changed"}
    store.state.begin("wss://x", NOW + DAY + MINUTE)
    with store.events.batch() as batch:
        assert set(batch.marks("skill", ["gone", "changed"])) == {"changed"}


def test_a_category_by_message_makes_the_next_run_read_the_list(store: Rooms) -> None:
    store.catalogue.apply_categories([Category("one", "1")], whole=True, resource="c", etag='"1"', now=NOW)
    with store.events.batch() as batch:
        batch.put_category(Category("two", "2"), NOW)
        batch.put_category(Category("one", "other"), NOW)
        assert [batch.category(name) for name in ("one", "two", "three")] == ["other", "2", None]
    assert store.catalogue.validator("c") is None


def test_deletions_are_counted_for_an_hour(store: Rooms) -> None:
    store.show(skill("a"), skill("b"))
    with store.events.batch() as batch:
        assert batch.deletions_lately(NOW) == (0, 2, 2)
        batch.note_deletions(3, 9, NOW)
    with store.events.batch() as batch:
        batch.note_deletions(1, 7, NOW + MINUTE)
        assert batch.deletions_lately(NOW + MINUTE) == (4, 2, 9)
        assert batch.deletions_lately(NOW + HOUR + MINUTE) == (1, 2, 7)
        assert batch.deletions_lately(NOW + DAY) == (0, 2, 2)


def test_additions_are_counted_for_an_hour(store: Rooms) -> None:
    with store.events.batch() as batch:
        assert batch.additions_lately(NOW) == (0, 0)
        batch.note_additions(3, 900, NOW)
    with store.events.batch() as batch:
        batch.note_additions(2, 50, NOW)
        batch.note_additions(1, 7, NOW + MINUTE)
    with store.events.batch() as batch:
        assert batch.additions_lately(NOW + MINUTE) == (6, 957)
        assert batch.additions_lately(NOW + HOUR + MINUTE) == (1, 7)
        assert batch.additions_lately(NOW - DAY) == (0, 0)  # a clock that was set back
        assert batch.deletions_lately(NOW)[0] == 0


def test_distrusted_pages_are_read_whole(store: Rooms) -> None:
    store.show(skill("a"))
    store.show(skill("b"), page=2)
    with store.events.batch() as batch:
        batch.invalidate_pages([2, 9])
    assert {page: record.etag for page, record in store.catalogue.page_records(LIST).items()} == {1: '"1"', 2: None}


def test_messages_and_outcomes_are_counted(store: Rooms) -> None:
    for _ in range(2):
        with store.events.batch() as batch:
            batch.count({"skill_update": 3}, {("skill", "updated"): 2}, NOW)
    status = store.status()
    assert status.counters["atom_saas_websocket_messages_total", '{"type": "skill_update"}'] == 6
    assert status.counters["atom_saas_sync_items_total", '{"action": "updated", "type": "skill"}'] == 4
    assert status.websocket.last_message_at == NOW


def test_the_state_of_the_connection_is_the_last_one_noted(store: Rooms) -> None:
    store.state.begin("wss://x", NOW)
    begun = store.status().websocket
    assert (begun.connected, begun.started_at, begun.stopped_at) == (False, NOW, None)
    store.state.note(CONNECTED, NOW)
    lost = ReportedConnection(connected=False, ws_url="wss://x", reason="gone", fallback=True, fallback_seconds=5.0)
    store.state.note(lost, NOW + MINUTE)
    store.state.note(replace(lost, attempts=7), NOW + HOUR)
    noted = store.status().websocket
    assert (noted.connected, noted.disconnect_reason, noted.reconnect_attempts) == (False, "gone", 7)
    assert noted.last_connected_at == noted.last_message_at == NOW
    assert (noted.fallback_started_at, noted.heartbeat_at) == (NOW + MINUTE, NOW + HOUR)
    assert store.status().counters["atom_saas_websocket_fallback_seconds_total", "{}"] == 10
    store.state.end("stopped", NOW + DAY)
    ended = store.status().websocket
    assert (ended.disconnect_reason, ended.fallback_to_polling) == ("stopped", False)
    assert ended.stopped_at == NOW + DAY


def test_other_programs_writes_are_returned_and_the_switch_is_kept(store: Rooms) -> None:
    assert store.state.begin("wss://x", NOW) == ConnectionSwitch()
    lost = ReportedConnection(connected=False, ws_url="wss://x", attempts=7, fallback=True)
    assert store.state.note(lost, NOW) == ConnectionSwitch()
    assert store.state.note(lost, NOW) == ConnectionSwitch(attempts=7, fallback=True)
    store.switch.set(enabled=False, actor="ada", now=NOW)
    assert store.state.note(lost, NOW) == ConnectionSwitch(enabled=False, attempts=7, fallback=True)
    store.switch.reset(actor="ada", now=NOW)
    assert store.state.note(lost, NOW) == ConnectionSwitch(enabled=False, attempts=0, fallback=False)
    store.state.end("stopped", NOW)
    assert not store.state.begin("wss://x", NOW).enabled
    assert not store.status().websocket.enabled
    store.switch.set(enabled=True, actor="ada", now=NOW)
    assert store.status().websocket.enabled


def test_a_new_start_takes_the_place_of_the_one_before(store: Rooms) -> None:
    store.state.begin("wss://x", NOW)
    store.state.note(replace(CONNECTED, fallback=True), NOW)
    store.state.end("stopped", NOW)
    store.state.begin("wss://x", NOW + HOUR)
    state = store.status().websocket
    assert (state.connected, state.reconnect_attempts, state.fallback_to_polling) == (False, 0, False)
    assert (state.disconnect_reason, state.stopped_at) == (None, None)


def test_jobs_take_the_place_of_all_others(store: Rooms) -> None:
    poll, rate = ScheduledJob("poll", "Poll", 15, None), ScheduledJob("rate", "Ratings", 60, NOW + HOUR)
    store.jobs.plan([poll, rate], NOW)
    assert store.status().jobs == (poll, rate)
    store.jobs.plan([rate], NOW)
    assert store.status().jobs == (rate,)
    store.jobs.plan([], NOW)
    assert store.status().jobs == ()


def test_the_last_run_of_a_kind_however_it_was_started(store: Rooms) -> None:
    assert (store.state.last_poll(), store.jobs.last_started("ratings")) == (None, None)
    store.runs.begin("skills", started_by="ada", now=NOW)
    store.runs.begin("ratings", started_by="timer", now=NOW + HOUR)
    assert (store.state.last_poll(), store.jobs.last_started("ratings")) == (NOW, NOW + HOUR)


def test_tidying_changes_nothing_that_anybody_sees(store: Rooms) -> None:
    store.show(skill("a"))
    before = store.everything()
    store.upkeep.tidy()
    assert store.everything() == before
