from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from atom_saas_sync.core.adoption import plan_adoption
from atom_saas_sync.model import Action, LoggedConflict, OpenConflict, SkillState
from atom_saas_sync.model.effects import DropBase, WriteServed


def text(description: str) -> str:
    return json.dumps({"skill_id": "s", "name": "S", "description": description})


LOGGED = LoggedConflict(
    id=4, skill_id="s", type="OTHER", severity="LOW", local_text=text("mine"), remote_text=text("theirs"),
    base_text=None, resolved=True, strategy="manual", result_text=text("agreed"), resolved_at=None, resolved_by="ada",
    undone_at=None, undone_by=None, created_at=None, updated_at=None, cached_text=None, cached_at=None,
)  # fmt: skip
HERE = SkillState("s", text("mine"))


def planned(known: SkillState = HERE, **fields: str | None) -> Action:
    action = plan_adoption(known, replace(LOGGED, **fields))
    assert action is not None
    return action


def written(action: Action) -> str:
    (text,) = [each.text for each in action.effects if isinstance(each, WriteServed)]
    return text


def drops_base(action: Action) -> bool:
    return any(isinstance(each, DropBase) for each in action.effects)


def test_the_result_is_cached_and_the_remote_version_becomes_the_base() -> None:
    action = planned()
    assert (action.cache, action.sets_base) == ("write", True)
    assert json.loads(written(action))["description"] == "agreed"
    assert action.remote is not None and action.remote.fields["description"] == "theirs"
    assert written(planned(result_text=text("theirs"))) == text("theirs")


def test_volatile_fields_do_not_make_another_version() -> None:
    local = json.dumps({**json.loads(text("mine")), "average_rating": 4.5})
    assert planned(SkillState("s", local)).cache == "write"


@pytest.mark.parametrize("result", [None, "null", "[]", '"x"', "{", '{"name": "S"}', '{"skill_id": "t", "name": "S"}'])
def test_a_result_for_another_skill_is_ignored(result: str | None) -> None:
    action = planned(result_text=result)
    assert (action.cache, action.sets_base) == ("keep", True)


def test_later_edits_stay() -> None:
    assert planned(SkillState("s", text("newer"))).cache == "keep"
    assert planned(SkillState("s", text("newer")), strategy="remote_wins", remote_text=None).cache == "keep"


def test_a_deleted_skill_is_removed_or_stays_without_a_base() -> None:
    gone = planned(strategy="remote_wins", remote_text=None)
    assert (gone.cache, drops_base(gone)) == ("remove", True)
    for strategy in ("local_wins", "merge", None):
        kept = planned(strategy=strategy, remote_text=None, result_text=None)
        assert (kept.cache, drops_base(kept)) == ("keep", True)


def test_a_newer_open_conflict_and_a_missing_row_are_left_alone() -> None:
    assert plan_adoption(SkillState("s"), LOGGED) is None
    assert plan_adoption(replace(HERE, waiting=OpenConflict(5, None)), LOGGED) is None
    assert plan_adoption(replace(HERE, waiting=OpenConflict(3, None)), LOGGED) is not None
    assert plan_adoption(HERE, replace(LOGGED, remote_text="[]")) is None
