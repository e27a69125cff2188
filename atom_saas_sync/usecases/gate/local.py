"""Local writes need no admission, but must not bring back what is revoked or in quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from atom_saas_sync.characters import shell_argument
from atom_saas_sync.core.gate.types import Gate
from atom_saas_sync.core.plan.offered import ban_on, plan_quarantine
from atom_saas_sync.core.plan.sides import Sides, base_of
from atom_saas_sync.errors import NotAdmitted
from atom_saas_sync.model import Action, SkillState
from atom_saas_sync.model.effects import SetBase, WriteServed

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import EditBatch


POLICY = "policy"
_TOGETHER = 200


def take_out_revoked(batch: EditBatch, now: datetime) -> None:
    """Quarantine revoked skills that another program has put back into the cache."""
    revocations = batch.gate.revocations()
    if revocations.entries:
        take_out(batch, Gate(revocations=revocations), batch.gate.revoked_skills(revocations), now, actor=POLICY)


def take_out(batch: EditBatch, gate: Gate, skill_ids: Sequence[str], now: datetime, *, actor: str) -> list[Action]:
    """Quarantine those of these skills that must not be served; return the actions."""
    actions: list[Action] = []
    for start in range(0, len(skill_ids), _TOGETHER):
        together = skill_ids[start : start + _TOGETHER]
        offers = batch.gate.offers(together)
        for known in batch.known(together).values():
            banned = None if known.local_text is None else ban_on(gate, Sides(known))
            if banned is not None:
                is_shown = known.skill_id in offers
                actions.append(plan_quarantine(known, reason=banned[0], by=actor, note=banned[1], is_shown=is_shown))
    batch.apply(actions, now, actor=actor)
    for action in actions:
        batch.note(actor, "quarantine", action.skill_id, now)
    return actions


def refuse_banned(batch: EditBatch, known: Mapping[str, SkillState], actions: Sequence[Action]) -> None:
    """Raise NotAdmitted if one of these actions would serve a banned version; `known` is the state before them."""
    served = [after for action in actions if (after := _served_by(action, known.get(action.skill_id))) is not None]
    if not served:
        return
    kept = batch.gate.quarantined([each.skill_id for each in served])
    gate = Gate(revocations=batch.gate.revocations())
    for each in served:
        quarantined = kept.get(each.skill_id)
        if quarantined is not None and quarantined.reason == "quarantined":
            raise NotAdmitted(
                f"{each.skill_id!r} is in quarantine; nothing was changed",
                hint=f"`atom-sync quarantine release {shell_argument(each.skill_id)}` puts it back as it was",
            )
        banned = ban_on(gate, Sides(each)) if gate.revocations.entries else None
        if banned is not None:
            raise NotAdmitted(
                f"{each.skill_id!r} is revoked: {banned[1]}; nothing was changed",
                hint="`atom-sync revocations list` shows what is revoked",
            )


def _served_by(action: Action, known: SkillState | None) -> SkillState | None:
    """Return the skill after the action; None if neither its served text nor its base changes."""
    text: str | None = next((each.text for each in action.effects if isinstance(each, WriteServed)), None)
    if text is None and known is not None and any(isinstance(each, SetBase) for each in action.effects):
        text = known.local_text
    if text is None:
        return None
    base = None if known is None else known.base
    if known is not None and base is not None:
        base = replace(base, text=known.base_text)
    for effect in action.effects:
        if isinstance(effect, SetBase):
            base = base_of(effect.version)
    return SkillState(action.skill_id, text, base=base)
