"""Explain why the gate serves a version, or does not."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.core.gate.rules import Ruling
from atom_saas_sync.core.gate.types import Quarantined, Verdict
from atom_saas_sync.core.gate.verdict import judge, ruling_of
from atom_saas_sync.errors import NotFound
from atom_saas_sync.model import SkillState, SkillVersion
from atom_saas_sync.usecases.gate.desk import GateDesk, served_of
from atom_saas_sync.usecases.gate.loading import with_clock


class Explained(Struct, frozen=True):
    """The verdict on the marketplace's newest version, and the policy behind it.

    `offered`: the version is held or refused; otherwise it is the one admitted last. `problem` says why the revocations
    file is invalid.
    """

    version: SkillVersion
    offered: bool
    verdict: Verdict
    ruling: Ruling
    problem: str | None = None


def explain(desk: GateDesk, skill_id: str, now: datetime) -> Explained:
    """Judge a skill by the current gate, without changing anything. Raises NotFound, and ConfigError for the policy."""
    loaded = desk.load()
    with desk.store.deciding(write=False) as batch:
        offer, known = batch.gate.offers([skill_id]).get(skill_id), batch.known([skill_id]).get(skill_id)
        quarantined = batch.gate.quarantined([skill_id]).get(skill_id)
        version = _shown(skill_id, None if offer is None else offer.text, known, quarantined)
        evidence = batch.gate.evidence([version])[skill_id]
    gate = with_clock(loaded.gate, loaded.marks, now, None)
    case = (gate, served_of(known), version, evidence, now)
    problem = None if loaded.problem is None else loaded.problem.message
    return Explained(version, offer is not None, judge(*case), ruling_of(*case), problem)


def _shown(
    skill_id: str, offered: str | None, known: SkillState | None, quarantined: Quarantined | None
) -> SkillVersion:
    """Return the newest version that the marketplace has sent."""
    text = offered or (None if known is None else known.base_text)
    if text is None and quarantined is not None:
        text = quarantined.base_text or quarantined.text
    version = None if text is None else stored_version(skill_id, text)
    if version is not None:
        return version
    if known is not None and known.local_text is not None:
        raise NotFound(f"{skill_id!r} is not from the marketplace: local skills need no admission")
    raise NotFound(
        f"the marketplace has never shown a skill {skill_id!r}",
        hint="`atom-sync updates list` and `atom-sync skills list` show ids",
    )
