"""Plan for a version that the marketplace offers: first the gate, then the three-way rules (docs/TRUST.md)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from atom_saas_sync.core.canonical import version_key
from atom_saas_sync.core.gate.admission import judged, with_figures, written_here
from atom_saas_sync.core.gate.names import publisher_of
from atom_saas_sync.core.gate.revocations import describe, revoked
from atom_saas_sync.core.gate.rules import ruling
from atom_saas_sync.core.gate.types import BY_POLICY, Evidence, Gate, Offer, Quarantined, Served, Verdict
from atom_saas_sync.core.gate.verdict import judge
from atom_saas_sync.core.plan.conflicts import conflict_with, fields_of
from atom_saas_sync.core.plan.deletions import plan_deleted
from atom_saas_sync.core.plan.listed import plan_sides, with_alarm
from atom_saas_sync.core.plan.sides import Sides, StoredText
from atom_saas_sync.core.plan.steps import DECIDED, SENT, Source, logged, restored, served
from atom_saas_sync.model import Action, ConflictEntry, Outcome, Resolution, SkillState, SkillVersion, Strategy
from atom_saas_sync.model.effects import (
    Admitted,
    DropOffer,
    Effect,
    KeepBase,
    Life,
    PutOffer,
    Quarantine,
    ReadAgain,
    RefreshBase,
    RefreshFigures,
    Release,
    RemoveServed,
    Servable,
    SetBase,
)

REVOKED = "revoked"
"""The strategy in the log for conflicts of skills that are quarantined."""

Ban = tuple[Literal["revoked", "denied"], str]
"""Why a version must not be served, and the source of the ban."""


def plan_offered(
    known: SkillState | None,
    remote: SkillVersion,
    evidence: Evidence,
    gate: Gate,
    strategy: Strategy,
    now: datetime,
    *,
    source: Source = SENT,
) -> Action:
    """Plan for the marketplace's version: if admitted, by the three-way rules; otherwise it waits or is refused.

    The served version stays, except for its volatile fields; if it is revoked or denied, it is quarantined.
    """
    sides = Sides(known or SkillState(remote.skill_id))
    verdict = judge(gate, served_of(sides), remote, evidence, now)
    if verdict.kind == "admit":
        action = plan_sides(sides, judged(remote, verdict), strategy, now, source)
        if not _waited(evidence.offer, remote):  # its republishing was counted when it was held
            action = with_alarm(action, sides, seen_otherwise=evidence.seen_otherwise)
        page = None if evidence.offer is None else evidence.offer.page
        effects = (*_admitted(action, verdict.by, page), *_without_offer(evidence.offer, remote))
        return replace(action, effects=effects)
    waits = _put_offer(verdict, remote, evidence, gate, source)
    outcome = Outcome.UNCHANGED
    if not _waited(evidence.offer, remote):
        outcome = Outcome.HELD if verdict.kind == "hold" else Outcome.REFUSED
    banned = None if sides.local is None else ban_on(gate, sides)
    if banned is not None:
        taken_out = plan_quarantine(sides.known, reason=banned[0], by=BY_POLICY, note=banned[1], is_shown=True)
        return Action(remote.skill_id, taken_out.outcome, (*taken_out.effects, *waits), remote)
    action = Action(remote.skill_id, outcome, (*waits, *_refreshed(sides, remote)), remote)
    return with_alarm(action, sides, seen_otherwise=evidence.seen_otherwise) if outcome is Outcome.HELD else action


def must_be_confirmed(gate: Gate, sides: Sides, remote: SkillVersion | None, offer: Offer | None) -> bool:
    """Tell whether a request must confirm a message before it is applied; `remote` None means a deletion.

    That is so unless the policy is `open`, the version differs from the base only out of scope, or it already waits.
    """
    policy, base = gate.policy, sides.known.base
    if remote is not None and offer is not None and offer.content_digest == remote.content_digest:
        return False
    if remote is not None and base is not None:
        whole = policy.scope == "all"
        digests = (base.content_digest, remote.content_digest) if whole else (base.exec_digest, remote.exec_digest)
        if digests[0] == digests[1]:
            return False
    new = base is None
    texts = [fields_of(sides.base), None if remote is None else remote.fields]
    rulings = [ruling(policy, sides.skill_id, fields, new=new) for fields in texts if fields is not None]
    return any(each.admission != "open" for each in rulings or [ruling(policy, sides.skill_id, None, new=new)])


def served_of(sides: Sides) -> Served | None:
    """Return the base in the gate's form."""
    base = sides.known.base
    if base is None:
        return None
    fields = None if sides.base is None else sides.base.fields
    return Served(base.content_digest, base.exec_digest, base.version, fields)


def ban_on(gate: Gate, sides: Sides) -> Ban | None:
    """Return why a served skill must not be served: because of its local text, or of its base."""
    if not (gate.revocations.entries or gate.policy.rules):
        return None  # no digest is computed for nothing
    for side in (sides.local, sides.base):
        if side is not None and side.version is not None:
            banned = ban_on_version(gate, side.version, rules=sides.known.base is not None)
            if banned is not None:
                return banned
    # An edit that is not JSON has no version and no publisher, but its id can be revoked.
    whole = next((each for each in gate.revocations.by_skill.get(sides.skill_id, ()) if each.version is None), None)
    return None if whole is None else ("revoked", whole.note or describe(whole))


def ban_on_version(gate: Gate, version: SkillVersion, *, rules: bool = True) -> Ban | None:
    """Return why a version must not be served; with `rules`, rules of the policy file count too."""
    key, publisher = version_key(version.fields), publisher_of(version.fields)
    found = revoked(gate.revocations, version.skill_id, key, version.content_digest, publisher)
    if found is not None:
        return "revoked", found.note or describe(found)
    if rules and gate.policy.rules:
        decided = ruling(gate.policy, version.skill_id, version.fields, new=False)
        if decided.admission == "deny":
            return "denied", f"rule {decided.rule} of the policy file"
    return None


def _admitted(action: Action, by: str, page: int | None) -> tuple[Effect, ...]:
    """Add who admitted the new base, and the page on which it was offered."""
    if by == BY_POLICY and page is None:
        return action.effects
    person = None if by == BY_POLICY else by
    return tuple(replace(each, by=person, page=page) if isinstance(each, SetBase) else each for each in action.effects)


def _waited(offer: Offer | None, remote: SkillVersion) -> bool:
    """Tell whether exactly this version was offered before."""
    return offer is not None and offer.content_digest == remote.content_digest


def _without_offer(offer: Offer | None, remote: SkillVersion) -> list[DropOffer]:
    if offer is None:
        return []
    return [DropOffer(remote.skill_id, never_served=offer.content_digest != remote.content_digest)]


def _put_offer(
    verdict: Verdict, remote: SkillVersion, evidence: Evidence, gate: Gate, source: Source
) -> list[PutOffer]:
    """Store the version as an offer; nothing to do if exactly that is stored."""
    offer, reason = evidence.offer, str(verdict.reason)
    is_same = offer is not None and offer.content_digest == remote.content_digest
    abnormal = (reason == "abnormal" and not gate.parking) or (is_same and offer is not None and offer.abnormal)
    stored = offer and (offer.wire_digest, offer.kind, offer.reason, offer.due_at, offer.note, offer.abnormal)
    if stored == (remote.wire_digest, verdict.kind, reason, verdict.due_at, verdict.note, abnormal):
        return []
    key = version_key(remote.fields)
    kind: Literal["hold", "refuse"] = "refuse" if verdict.kind == "refuse" else "hold"
    return [
        PutOffer(
            remote.skill_id,
            version=remote,
            version_key=key,
            kind=kind,
            reason=reason,
            due_at=verdict.due_at,
            first_seen_at=evidence.first_seen_at,
            abnormal=abnormal,
            note=verdict.note,
            proof=source.proof(remote, key),
        )
    ]


def _refreshed(sides: Sides, remote: SkillVersion) -> list[Effect]:
    """Refresh the volatile fields of the served version while another version waits.

    The base's bytes are then no longer those received, so the same bytes would be read again.
    """
    if sides.local is None or sides.known.base is None:
        return []
    effects: list[Effect] = []
    if (text := _with_volatile(sides.local, remote)) is not None:
        effects.append(RefreshFigures(sides.skill_id, text))
    if not sides.is_untouched and sides.base is not None and (text := _with_volatile(sides.base, remote)) is not None:
        effects.append(RefreshBase(sides.skill_id, text))
    return [*effects, ReadAgain(sides.skill_id)] if effects else []


def _with_volatile(side: StoredText, remote: SkillVersion) -> Servable | None:
    return None if side.fields is None else with_figures(side.fields, remote.fields)


# What people and revocations do


def plan_withdrawn(known: SkillState | None, offer: Offer | None, skill_id: str, strategy: Strategy) -> Action | None:
    """Plan for a skill whose deletion the marketplace has confirmed; its waiting version is dropped."""
    action = None if known is None else plan_deleted(known, strategy)
    if offer is None:
        return action
    dropped = DropOffer(skill_id, never_served=True)
    if action is None:
        return Action(skill_id, Outcome.UNCHANGED, (dropped,))
    return replace(action, effects=(*action.effects, dropped))


def plan_quarantine(
    known: SkillState, *, reason: Literal["quarantined", "revoked", "denied"], by: str, note: str | None, is_shown: bool
) -> Action:
    """Plan to quarantine a served skill: stop serving it, and keep it whole as evidence.

    The base stays: it is still the last admitted version. `is_shown`: the marketplace's version is the base or an
    offer; otherwise the remote side of an open conflict becomes the offer. Raises ValueError if nothing is served.
    """
    sides, text = Sides(known), known.local_text
    if sides.local is None or text is None:
        raise ValueError("nothing is served")
    digest = sides.local.content_digest if known.base is None else known.base.content_digest
    source: Literal["marketplace", "edited", "local"] = "edited" if sides.is_edited else "marketplace"
    effects: list[Effect] = [
        RemoveServed(known.skill_id),
        Quarantine(
            known.skill_id,
            text=text,
            base_text=None if known.base_text == text else known.base_text,
            content_digest=digest or b"",
            reason=reason,
            by=by,
            note=note,
            served_source="local" if known.base is None else source,
        ),
    ]
    if sides.is_untouched:
        effects.append(KeepBase(known.skill_id, text))
    if known.waiting is not None:
        remote = None if sides.waiting is None else sides.waiting.version
        entry = ConflictEntry(conflict_with(sides, remote), Resolution(REVOKED, None), sides.waiting_id)
        effects += logged(known.skill_id, entry)
        if remote is not None and not is_shown:
            verdict = Verdict("hold", 3, "quarantined", note="in quarantine")
            waits = _put_offer(verdict, remote, Evidence(known.skill_id), Gate(), DECIDED)
            effects += [replace(each, page=known.base and known.base.page) for each in waits]
    return Action(known.skill_id, Outcome.DELETED, tuple(effects))


def plan_release(known: SkillState, kept: Quarantined) -> Action:
    """Plan to restore a skill byte for byte. It becomes a local skill if the marketplace has deleted it."""
    sides = Sides(known)
    effects: list[Effect] = [Release(known.skill_id)]
    if known.local_text is None:
        lives = Life.ENDLESS if known.base is None else Life.CONFIRMED
        effects.append(served(sides, written_here(kept.text), None, life=lives))
        base = sides.base_version
        if base is not None and base.text == kept.text:
            effects += restored(base, text=kept.text)
    return Action(known.skill_id, Outcome.ADDED, tuple(effects))


def plan_put_back(
    known: SkillState,
    former: Admitted,
    evidence: Evidence,
    gate: Gate,
    strategy: Strategy,
    now: datetime,
    *,
    by: str,
) -> Action:
    """Plan to serve a former version again, because a user pinned it.

    The marketplace's version waits: the offer, the remote side of an open conflict, or the replaced base.
    """
    sides, base = Sides(known), known.base
    action = plan_sides(sides, former, strategy, now, DECIDED)
    effects = list(_admitted(action, by, None))
    shown = sides.waiting or sides.base
    current = None if shown is None else shown.version
    if evidence.offer is None and base is not None and current is not None and not base.deleted:
        verdict = judge(gate, served_of(sides), current, evidence, now)
        waits = _put_offer(verdict, current, evidence, gate, DECIDED) if verdict.kind != "admit" else []
        effects += [replace(each, page=base.page, first_seen_at=None) for each in waits]
    return replace(action, effects=tuple(effects))
