"""Users' decisions about updates: each is loaded, judged and carried out in one transaction.

If a decision is refused for one skill, it still applies to the others; the report has the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from atom_saas_sync.core.gate.types import Decision, Gate
from atom_saas_sync.core.gate.verdict import judge
from atom_saas_sync.core.plan.offered import plan_offered
from atom_saas_sync.core.plan.steps import DECIDED
from atom_saas_sync.model import Action
from atom_saas_sync.usecases.gate.desk import GateDesk, OnTheDesk, is_digest, put_on_the_desk, served_of, strict_gate
from atom_saas_sync.usecases.gate.loading import renewed
from atom_saas_sync.usecases.gate.local import take_out_revoked
from atom_saas_sync.usecases.gate.reports import CHANGED, NOT_WAITING, Decided, Done, Refused, Target

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports.gate_desk import DecidingBatch


_SERVED = "served"
_REFUSED_FOR_EVER = {"revoked", "denied"}


def approve(desk: GateDesk, targets: Sequence[Target], *, note: str | None, actor: str, now: datetime) -> Decided:
    """Admit and serve exactly these versions."""
    return _decide(desk, strict_gate(desk), targets, "approve", note=note, actor=actor, now=now)


def reject(desk: GateDesk, targets: Sequence[Target], *, note: str | None, actor: str, now: datetime) -> Decided:
    """Keep these versions out until they are approved."""
    return _decide(desk, desk.load().gate, targets, "reject", note=note, actor=actor, now=now)


def _decide(
    desk: GateDesk,
    gate: Gate,
    targets: Sequence[Target],
    kind: Literal["approve", "reject"],
    *,
    note: str | None,
    actor: str,
    now: datetime,
) -> Decided:
    done: dict[str, Done] = {}
    refused: dict[str, Refused] = {}
    with desk.store.deciding() as batch:
        take_out_revoked(batch, now)
        gate = renewed(gate, batch.gate)
        found = put_on_the_desk(batch, [target.skill_id for target in targets])
        actions, decisions = [], []
        for target in dict.fromkeys(targets):
            skill_id = target.skill_id
            reason = _not_to_be_decided(found, target, kind)
            if reason is None:
                decision = Decision(skill_id, found.offers[skill_id].content_digest, kind, now, actor, note)
                action, reason = _carried_out(found, decision, gate, desk, now)
                if action is not None:
                    actions.append(action)
                    decisions.append(decision)
            if reason is None or reason == _SERVED:
                digest = _digest_of(found, skill_id, served=reason == _SERVED)
                done[skill_id] = Done(skill_id, digest)
            else:
                refused[skill_id] = Refused(skill_id, reason)
        _write(batch, actions, decisions, kind, actor=actor, now=now)
    return Decided(tuple(done.values()), tuple(refused.values()))


def _not_to_be_decided(found: OnTheDesk, target: Target, kind: str) -> str | None:
    """Return why the target cannot be decided; `_SERVED` if it is already served and so approved."""
    offer, known = found.offers.get(target.skill_id), found.known.get(target.skill_id)
    base = None if known is None else known.base
    named = target.digest
    if (
        offer is not None
        and target.skill_id in found.versions
        and (named is None or is_digest(named, offer.content_digest))
    ):
        if offer.reason == "rejected" and (named is None or kind == "reject"):
            return NOT_WAITING
        return offer.reason if offer.reason in _REFUSED_FOR_EVER and kind == "reject" else None
    if named is not None and kind == "approve" and base is not None and is_digest(named, base.content_digest):
        return _SERVED
    return NOT_WAITING if offer is None or offer.reason == "rejected" else CHANGED


def _carried_out(
    found: OnTheDesk, decision: Decision, gate: Gate, desk: GateDesk, now: datetime
) -> tuple[Action | None, str | None]:
    """Return the action, or the reason of a refusal, by the verdict that follows the decision."""
    skill_id = decision.skill_id
    version, known = found.versions[skill_id], found.known.get(skill_id)
    evidence = replace(found.evidence[skill_id], decision=decision, admitted_since=False)
    verdict = judge(gate, served_of(known), version, evidence, now)
    if decision.kind == "approve" and verdict.kind != "admit":
        return None, str(verdict.reason)
    return plan_offered(known, version, evidence, gate, desk.strategy, now, source=DECIDED), None


def _digest_of(found: OnTheDesk, skill_id: str, *, served: bool) -> bytes:
    if not served:
        return found.offers[skill_id].content_digest
    base = found.known[skill_id].base
    assert base is not None
    return base.content_digest


def _write(
    batch: DecidingBatch,
    actions: Sequence[Action],
    decisions: Sequence[Decision],
    kind: str,
    *,
    actor: str,
    now: datetime,
) -> None:
    batch.gate.decide(decisions)
    batch.apply(actions, now, actor=actor)
    for decision in decisions:
        digest = f"sha256:{decision.content_digest.hex()}"
        details = {"note": decision.note} if decision.note else {}
        batch.note(actor, f"update {kind}", decision.skill_id, now, digest=digest, **details)
