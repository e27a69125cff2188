"""Messages and the gate: they are hints, and nothing that only a message has told is served."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from conftest import Json, Machine

from atom_saas_sync.core.gate.types import Gate, Policy, Revocation, Revocations
from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.store.database import Database
from atom_saas_sync.store.realtime import RealtimeStore
from atom_saas_sync.usecases.follow_events import EventFollower

REVIEW = Gate(policy=Policy(admission="review"))
SCOPED = Gate(policy=Policy(admission="review", scope="executable"))


@pytest.fixture
def skill_id(machine: Machine) -> str:
    machine.fill()
    return machine.sandbox.skill_ids()[0]


def hear(machine: Machine, gate: Gate, *told: Json) -> list[str]:
    """Apply messages; return the skills of which the marketplace must be asked first."""
    parsed = [each for each in map(parse_frame, map(json.dumps, told)) if isinstance(each, Message)]
    assert len(parsed) == len(told)
    with Database.open(machine.database_path) as database:
        follower = EventFollower(RealtimeStore(database), strategy="remote_wins", gate=lambda _: gate)
        follower.apply(parsed, datetime.now(UTC))
    return list(follower.unconfirmed)


def update(skill_id: str, **fields: object) -> Json:
    return {"type": "skill_update", "data": {"skill_id": skill_id, "name": "N", **fields}}


def etags(machine: Machine) -> list[str | None]:
    return [row[0] for row in machine.sql("SELECT etag FROM http_validator WHERE page IS NOT NULL ORDER BY page")]


def test_a_version_that_only_a_message_tells_is_not_even_offered(machine: Machine, skill_id: str) -> None:
    before = machine.cached()
    assert hear(machine, REVIEW, update(skill_id, code="evil"), update("new-skill")) == [skill_id, "new-skill"]
    assert machine.cached() == before
    assert machine.sql("SELECT count(*) FROM skill_offer") == [(0,)]
    assert None in etags(machine)  # the next poll reads the page whole


def test_a_deletion_that_only_a_message_tells_removes_nothing(machine: Machine, skill_id: str) -> None:
    gone = {"type": "skill_delete", "data": {"skill_id": skill_id}}
    assert hear(machine, REVIEW, gone, {**gone, "data": {"skill_id": "unknown"}}) == [skill_id]
    assert skill_id in machine.cached()


def test_what_is_out_of_scope_is_served_at_once(machine: Machine, skill_id: str) -> None:
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
