"""A batch of messages has the same result as its messages one by one."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine
from database_rules import check_rules

from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.usecases.follow_events import EventFollower

NOW = datetime(2027, 2, 19, 12, 0, tzinfo=UTC)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "delete": ("skill_delete", {}),
    "change": ("skill_update", {"name": "Changed", "description": "changed"}),
    "change again": ("skill_update", {"name": "Again", "code": "print(2)"}),
    "rate": ("rating_update", {"rating": 5, "rating_count": 7, "average_rating": 4.5}),
}


def message(kind: str, skill_id: str, second: int) -> Message:
    name, fields = KINDS[kind]
    sent = f"{NOW + timedelta(seconds=second):%Y-%m-%dT%H:%M:%SZ}"
    parsed = parse_frame(json.dumps({"type": name, "data": {"skill_id": skill_id, **fields}, "timestamp": sent}))
    assert isinstance(parsed, Message)
    return parsed


def follow(machine: Machine, batches: list[list[Message]]) -> dict[str, Any]:
    with machine.store() as store:
        follower = EventFollower(
            store.events(history_versions=10), strategy="remote_wins", max_delete=MaxDelete(number=1000)
        )
        for batch in batches:
            follower.apply(batch, NOW + timedelta(minutes=1))
    assert check_rules(machine.database) == []
    return {
        "cached": machine.cached(),
        "usable": machine.sql("SELECT skill_id, source FROM usable_skill ORDER BY skill_id"),
        "history": machine.sql("SELECT skill_id, ended_by, hex(content_digest) FROM skill_version ORDER BY id"),
    }


@pytest.mark.parametrize("local", [False, True], ids=["untouched", "edited here"])
def test_a_batch_is_the_same_as_its_messages_one_by_one(machine: Machine, tmp_path: Path, local: bool) -> None:
    machine.pull()
    ids = machine.sandbox.skill_ids()
    orders = [kinds for length in (2, 3) for kinds in itertools.product(KINDS, repeat=length) if "delete" in kinds]
    messages = [
        [message(kind, skill_id, second) for second, kind in enumerate(kinds)]
        for skill_id, kinds in zip(ids, orders, strict=False)
    ]
    if local:
        for skill_id in ids:
            machine.edit(skill_id, description="ours")
    one_by_one = Machine(machine.sandbox, tmp_path / "other")
    one_by_one.directory.mkdir()
    one_by_one.database.restore(machine.database.save())
    at_once = follow(machine, [list(itertools.chain(*messages))])
    assert at_once == follow(one_by_one, [[each] for each in itertools.chain(*messages)])


def test_deleted_and_brought_out_again_in_one_batch_is_there(machine: Machine) -> None:
    machine.pull()
    skill_id = machine.sandbox.skill_ids()[0]
    follow(machine, [[message("delete", skill_id, 0), message("change", skill_id, 1)]])
    assert machine.cached()[skill_id]["description"] == "changed"
