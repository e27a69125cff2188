"""Messages and the gate: they are hints, and a version known only from a message is never served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from conftest import Json, Machine, wait_until
from watch_support import PATIENCE, successes, watching
from watch_thread import JumpingClock

from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.gate.types import Gate, Policy, Revocation, Revocations
from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.usecases import follow_events
from atom_saas_sync.usecases.confirm_messages import confirm_messages
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.watch.background import BackgroundRuns
from atom_saas_sync.usecases.watch.gate import GateWatch

REVIEW = Gate(policy=Policy(admission="review"))
SCOPED = Gate(policy=Policy(admission="review", scope="executable"))


@pytest.fixture
def skill_id(machine: Machine) -> str:
    machine.fill()
    return machine.sandbox.skill_ids()[0]


def hear(machine: Machine, gate: Gate, *told: Json) -> list[str]:
    """Apply messages; return the skills that need a request to the marketplace first."""
    parsed = [each for each in map(parse_frame, map(json.dumps, told)) if isinstance(each, Message)]
    assert len(parsed) == len(told)
    with machine.store() as store:
        follower = EventFollower(store.events(history_versions=10), strategy="remote_wins", gate=lambda _: gate)
        follower.apply(parsed, datetime.now(UTC))
    return list(follower.unconfirmed)


def update(skill_id: str, **fields: object) -> Json:
    return {"type": "skill_update", "data": {"skill_id": skill_id, "name": "N", **fields}}


def etags(machine: Machine) -> list[str | None]:
    return [row[0] for row in machine.sql("SELECT etag FROM http_validator WHERE page IS NOT NULL ORDER BY page")]


def test_a_version_known_only_from_a_message_is_not_even_offered(machine: Machine, skill_id: str) -> None:
    before = machine.cached()
    assert hear(machine, REVIEW, update(skill_id, code="evil"), update("new-skill")) == [skill_id, "new-skill"]
    assert machine.cached() == before
    assert machine.sql("SELECT count(*) FROM skill_offer") == [(0,)]
    assert None in etags(machine)  # the next poll reads the complete page


def test_a_deletion_announced_only_by_a_message_removes_nothing(machine: Machine, skill_id: str) -> None:
    gone = {"type": "skill_delete", "data": {"skill_id": skill_id}}
    assert hear(machine, REVIEW, gone, {**gone, "data": {"skill_id": "unknown"}}) == [skill_id]
    assert skill_id in machine.cached()


def test_only_so_many_skills_wait_for_a_request(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_events, "_MOST_UNCONFIRMED", 3)
    assert hear(machine, REVIEW, *map(update, "abcde")) == ["a", "b", "c"]
    assert machine.sql("SELECT count(*) FROM skill_cache") == [(0,)]


def test_changes_out_of_scope_are_served_at_once(machine: Machine, skill_id: str) -> None:
    assert hear(machine, SCOPED, update(skill_id, description="better")) == []
    assert machine.cached()[skill_id]["description"] == "better"
    assert hear(machine, SCOPED, update(skill_id, code="other")) == [skill_id]


def test_figures_follow_under_every_policy(machine: Machine, skill_id: str) -> None:
    rating = {
        "type": "rating_update",
        "data": {"skill_id": skill_id, "rating": 1, "average_rating": 1.5, "rating_count": 7},
    }
    assert hear(machine, REVIEW, rating) == []
    assert machine.cached()[skill_id]["rating_count"] == 7


def test_a_revoked_version_is_refused_under_an_open_policy_too(machine: Machine, skill_id: str) -> None:
    gate = Gate(revocations=Revocations((Revocation(skill_id=skill_id, version="6.6.6"),)))
    before = machine.cached()[skill_id]
    assert hear(machine, gate, update(skill_id, version="6.6.6")) == []
    assert machine.cached()[skill_id] == before
    assert machine.sql("SELECT kind, reason FROM skill_offer") == [("refuse", "revoked")]
    assert hear(machine, gate, update(skill_id, version="7.0.0")) == []
    assert machine.cached()[skill_id]["version"] == "7.0.0"
    assert machine.sql("SELECT count(*) FROM skill_offer") == [(0,)]


def test_a_message_continues_what_waits(machine: Machine, skill_id: str) -> None:
    gate = Gate(revocations=Revocations((Revocation(skill_id=skill_id, version="6.6.6"),)))
    hear(machine, gate, update(skill_id, version="6.6.6", code="new code"))
    hear(machine, gate, update(skill_id, version="6.6.7"))
    assert (machine.cached()[skill_id]["version"], machine.cached()[skill_id]["code"]) == ("6.6.7", "new code")


# Asking the marketplace first


def confirm(machine: Machine, gate: Gate, *ids: str, max_delete: int = 10) -> None:
    with machine.store() as store, machine.client() as (client, _):
        confirm_messages(
            client,
            store.confirmations(history_versions=10),
            lambda _: gate,
            machine.clock,
            ids,
            strategy="remote_wins",
            max_delete=MaxDelete(number=max_delete),
            check=lambda: None,
        )


def test_only_a_version_that_the_marketplace_shows_is_offered(machine: Machine, skill_id: str) -> None:
    other = machine.sandbox.skill_ids()[1]
    before = machine.cached()[skill_id]["description"]
    machine.sandbox.patch_skill(skill_id, {"description": "newer"}, push=False)
    confirm(machine, REVIEW, skill_id, other, "made-up")
    assert machine.cached()[skill_id]["description"] == before
    assert "made-up" not in machine.cached()
    assert machine.sql("SELECT skill_id, reason FROM skill_offer") == [(skill_id, "review")]


def test_a_confirmed_deletion_obeys_the_brake(machine: Machine, skill_id: str) -> None:
    other = machine.sandbox.skill_ids()[1]
    for each in (skill_id, other):
        machine.sandbox.delete_skill(each, push=False)
    confirm(machine, REVIEW, skill_id, other, max_delete=1)
    assert [each in machine.cached() for each in (skill_id, other)] == [False, True]


def test_the_brake_counts_deletions_by_messages_too(machine: Machine, skill_id: str) -> None:
    other = machine.sandbox.skill_ids()[1]
    machine.sandbox.delete_skill(skill_id, push=False)
    machine.sandbox.delete_skill(other, push=False)
    confirm(machine, REVIEW, skill_id, max_delete=1)
    confirm(machine, REVIEW, other, max_delete=1)
    assert other in machine.cached()


class _Work:
    limits = (100, 60)

    def tick(self) -> None: ...
    def scan(self) -> None: ...
    def confirm(self, skill_ids: Sequence[str]) -> None: ...


def test_confirmations_take_a_tenth_of_the_budget() -> None:
    watch = GateWatch(_Work(), BackgroundRuns(lambda: None), lambda _: [], JumpingClock())
    asked = []
    for minute in range(3):
        free = watch.free(minute * 60.0)
        watch.asked(free, minute * 60.0)
        asked.append(free)
        assert watch.free(minute * 60.0 + 59) == 0
    assert asked == [6, 0, 0]  # a tenth of an hour's 60 requests, not ten a minute
    assert watch.free(3600.0) == 6


@pytest.mark.soak
def test_watch_offers_a_message_s_version_without_waiting_for_a_poll(machine: Machine) -> None:
    with watching(machine, ATOM_SYNC_ADMISSION="review"):
        polled = successes(machine)
        machine.sandbox.put_skill({"skill_id": "brand-new", "name": "New"}, push=True)
        machine.sandbox.push({"type": "skill_update", "data": {"skill_id": "made-up", "name": "Not there"}})
        wait_until(lambda: ("brand-new",) in machine.sql("SELECT skill_id FROM skill_offer"), PATIENCE)
        assert successes(machine) == polled
        assert machine.cached() == {}
        assert ("made-up",) not in machine.sql("SELECT skill_id FROM skill_offer")
