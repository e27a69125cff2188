"""Judge waiting versions again, and remove what must no longer be served: at the end of a run and on ticks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.core.gate.stored import Marks
from atom_saas_sync.core.gate.types import Gate
from atom_saas_sync.core.plan.offered import plan_offered
from atom_saas_sync.core.plan.steps import DECIDED
from atom_saas_sync.model import Action, Strategy
from atom_saas_sync.usecases.gate.loading import renewed
from atom_saas_sync.usecases.gate.local import POLICY, take_out

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports.gate_desk import DecidingBatch, GateStore


_TOGETHER = 200


def judge_again(
    store: GateStore,
    gate: Gate,
    strategy: Strategy,
    now: datetime,
    *,
    judged: bytes | None,
    check: Callable[[], None],
    also: Collection[str] = (),
) -> list[Action]:
    """Judge what is due, or everything if the gate differs from the one in `judged`; return the actions.

    Served skills are checked first. `also` are offers to judge in any case.
    """
    everything = judged != gate.fingerprint
    actions = enforce_in(store, gate, now, everything=everything)
    with store.deciding(write=False) as batch:
        ids = sorted({*batch.gate.ids_to_judge(now, everything=everything), *also})
    actions += judge_ids(store, ids, gate, strategy, now, actor=POLICY, check=check)
    if everything:
        with store.deciding() as batch:
            batch.gate.write_marks(Marks(judged=gate.fingerprint), now)
    return actions


def judge_ids(
    store: GateStore,
    skill_ids: Sequence[str],
    gate: Gate,
    strategy: Strategy,
    now: datetime,
    *,
    actor: str,
    check: Callable[[], None],
) -> list[Action]:
    """Judge these offers, in transactions of bounded size; return the actions."""
    actions: list[Action] = []
    for start in range(0, len(skill_ids), _TOGETHER):
        check()
        with store.deciding() as batch:
            done = judge_offers(batch, skill_ids[start : start + _TOGETHER], gate, strategy, now)
            batch.apply(done, now, actor=actor)
        actions += done
    return actions


def judge_offers(
    batch: DecidingBatch, skill_ids: Sequence[str], gate: Gate, strategy: Strategy, now: datetime
) -> list[Action]:
    """Return the actions for the current verdicts; none for offers whose verdict is unchanged."""
    gate = renewed(gate, batch.gate)  # a scan may have taken minutes since it was loaded
    offers = batch.gate.offers(skill_ids)
    versions = [version for each in offers.values() if (version := stored_version(each.skill_id, each.text))]
    known, evidence = batch.known(offers), batch.gate.evidence(versions)
    actions = [
        plan_offered(known.get(each.skill_id), each, evidence[each.skill_id], gate, strategy, now, source=DECIDED)
        for each in versions
    ]
    return [action for action in actions if action.does_something]


def enforce_in(store: GateStore, gate: Gate, now: datetime, *, everything: bool) -> list[Action]:
    """Quarantine served skills that a revocation matches; with `everything`, also those that a rule denies."""
    rules_deny = everything and any(rule.admission == "deny" for rule in gate.policy.rules)
    if not (gate.revocations.entries or rules_deny):
        return []
    with store.deciding() as batch:
        return enforce(batch, gate, now, rules=rules_deny, actor=POLICY)


def enforce(batch: DecidingBatch, gate: Gate, now: datetime, *, rules: bool, actor: str) -> list[Action]:
    """Do what `enforce_in` does, within a transaction."""
    ids = batch.served_ids() if rules else batch.gate.revoked_skills(gate.revocations)
    return take_out(batch, gate, ids, now, actor=actor)
