"""Confirm WebSocket messages: fetch the skills that they named, and apply the result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from atom_saas_sync.characters import short_id
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.gate.types import Gate
from atom_saas_sync.core.plan.offered import plan_offered, plan_withdrawn
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import Action, InvalidItem, Outcome, SkillVersion, Strategy
from atom_saas_sync.usecases.ask_for_skills import ask_for_skills
from atom_saas_sync.usecases.follow_events import Brake
from atom_saas_sync.usecases.gate.loading import renewed

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock, ConfirmBatch, Marketplace, StoredConfirmations


log = logging.getLogger(__name__)


def confirm_messages(
    marketplace: Marketplace,
    store: StoredConfirmations,
    gate: Callable[[datetime], Gate],
    clock: Clock,
    skill_ids: Sequence[str],
    *,
    strategy: Strategy,
    max_delete: MaxDelete,
    check: Callable[[], None],
    connections: int = 1,
) -> None:
    """Fetch each of these skills and apply the result. `check` is called before each request, and may raise.

    Raises MarketplaceError; the next poll fetches the remaining skills.
    """
    answers = ask_for_skills(marketplace, clock, skill_ids, connections=connections, check=check)
    for skill_id, found, asked_at in answers:
        if isinstance(found, InvalidItem):
            log.warning("skipped an invalid item: %s: %s", short_id(skill_id), found.reason)
            continue
        if found is not None and found.skill_id != skill_id:
            raise BadResponse(f"asked for the skill {short_id(skill_id)!r}, got {short_id(found.skill_id)!r}")
        now = clock.now()
        current = gate(now)
        with store.batch() as batch:
            if skill_id in batch.changed_by_events_since(asked_at, now=now):
                continue
            if found is not None and (refused := batch.unstorable([found])):
                log.warning("skipped an invalid item: %s: %s", short_id(skill_id), refused[skill_id])
                continue
            brake = Brake(batch, max_delete, now)
            action = _plan(batch, renewed(current, batch.gate), skill_id, found, strategy, now)
            if action is None or (action.outcome is Outcome.DELETED and not brake.admits()):
                continue
            batch.apply([action], now)
            brake.note()
            batch.count_changes([action])
            batch.count_requests(marketplace.statistics.drain())
        log.info("a message about %s was confirmed: %s", short_id(skill_id), action.outcome.value)


def _plan(
    batch: ConfirmBatch, gate: Gate, skill_id: str, found: SkillVersion | None, strategy: Strategy, now: datetime
) -> Action | None:
    known = batch.known([skill_id]).get(skill_id)
    if found is None:
        return plan_withdrawn(known, batch.gate.offers([skill_id]).get(skill_id), skill_id, strategy)
    return plan_offered(known, found, batch.gate.evidence([found])[skill_id], gate, strategy, now)
