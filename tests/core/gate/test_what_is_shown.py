"""The marketplace's version is kept when a skill is pinned to a former version or taken out of service."""

from __future__ import annotations

from verdict_table import NOW, gate, pin, version

from atom_saas_sync.core.canonical import version_key
from atom_saas_sync.core.gate.admission import chosen_here
from atom_saas_sync.core.gate.types import Evidence
from atom_saas_sync.core.plan.offered import plan_put_back, plan_quarantine
from atom_saas_sync.model import Action, Base, OpenConflict, SkillState
from atom_saas_sync.model.effects import PutOffer

FORMER, BASE = version(), version(version="2", code="b")
EDIT, SHOWN = version(version="2", code="mine"), version(version="3", code="c")


def conflicting(*, deleted: bool = False) -> SkillState:
    """Return an edited skill whose open conflict has the newest version, or is a deletion."""
    key = version_key(BASE.fields)
    base = Base(
        BASE.wire_digest, BASE.content_digest, BASE.exec_digest, BASE.text, page=4, deleted=deleted, version=key
    )
    return SkillState("s", EDIT.text, None, base, OpenConflict(7, None if deleted else SHOWN.text))


def waits(action: Action) -> list[tuple[str, bytes, int | None]]:
    offers = [effect for effect in action.effects if isinstance(effect, PutOffer)]
    return [(each.reason, each.version.content_digest, each.page) for each in offers]


def test_a_pin_of_a_former_version_holds_the_remote_side_of_the_conflict() -> None:
    pinned = Evidence("s", pin=pin(FORMER))
    action = plan_put_back(conflicting(), chosen_here(FORMER), pinned, gate("open"), "remote_wins", NOW, by="eva")
    assert waits(action) == [("pinned", SHOWN.content_digest, 4)]


def test_a_quarantine_holds_the_remote_side_of_the_conflict() -> None:
    for is_shown, expected in ((False, [("quarantined", SHOWN.content_digest, 4)]), (True, [])):
        action = plan_quarantine(conflicting(), reason="revoked", by="eva", note=None, is_shown=is_shown)
        assert waits(action) == expected
    gone = plan_quarantine(conflicting(deleted=True), reason="revoked", by="eva", note=None, is_shown=False)
    assert waits(gone) == []
