"""The plans of a polling run: the gate first, then the three-way rules (only these if everything is admitted).

The rules are imported where something is planned: most runs find nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from atom_saas_sync.model import Action, SkillState, SkillVersion, Strategy

if TYPE_CHECKING:
    from atom_saas_sync.core.gate.types import Gate
    from atom_saas_sync.usecases.gate.run import RunGate
    from atom_saas_sync.usecases.ports import SkillBatch, Statistics


class Planner:
    """Plans for the marketplace's versions in one run. Without a gate, everything is admitted."""

    def __init__(self, gate: RunGate | None, strategy: Strategy, statistics: Statistics) -> None:
        self._gate = gate
        self._strategy: Strategy = strategy
        self._statistics = statistics

    def listed(
        self,
        batch: SkillBatch,
        known: Mapping[str, SkillState],
        shown: Mapping[str, SkillVersion],
        now: datetime,
    ) -> list[Action]:
        """Plan for versions that the marketplace lists; `known` is the stored state of the skills."""
        gate, strategy = self._gate_for(batch, now), self._strategy
        if gate is None:
            from atom_saas_sync.core.gate.admission import unjudged
            from atom_saas_sync.core.plan import plan_listed

            otherwise = batch.seen_otherwise(shown.values())
            return [
                plan_listed(known.get(name), remote, strategy, now, seen_otherwise=name in otherwise)
                for name, remote in unjudged(shown).items()
            ]
        from atom_saas_sync.core.plan.offered import plan_offered

        evidence = batch.gate.evidence(shown.values())
        return [
            plan_offered(known.get(name), remote, evidence[name], gate, strategy, now) for name, remote in shown.items()
        ]

    def withdrawn(self, batch: SkillBatch, skill_ids: Iterable[str], now: datetime) -> list[Action]:
        """Plan for skills whose deletion the marketplace has confirmed."""
        ids = list(skill_ids)
        known = batch.known(ids)
        if self._gate_for(batch, now) is None:
            from atom_saas_sync.core.plan import plan_deleted

            plans = [plan_deleted(each, self._strategy) for each in known.values()]
        else:
            from atom_saas_sync.core.plan.offered import plan_withdrawn

            offers = batch.gate.offers(ids)
            plans = [plan_withdrawn(known.get(each), offers.get(each), each, self._strategy) for each in ids]
        return [action for action in plans if action is not None]

    def touched(self, batch: SkillBatch, skill_ids: Iterable[str], now: datetime) -> list[Action | None]:
        """Plan for listed skills whose rows another program has deleted or changed."""
        from atom_saas_sync.core.plan import plan_touched

        known = batch.known(skill_ids)
        return [plan_touched(each, self._strategy, now) for each in self._still_admitted(batch, known, now)]

    def waiting(
        self, batch: SkillBatch, skill_ids: Iterable[str], now: datetime, listed: Iterable[str]
    ) -> list[Action | None]:
        """Plan for skills with an open conflict."""
        from atom_saas_sync.core.plan import plan_waiting

        known = batch.known(skill_ids)
        return [
            plan_waiting(each, self._strategy, now, listed=each.skill_id in listed)
            for each in self._still_admitted(batch, known, now)
        ]

    def _still_admitted(self, batch: SkillBatch, known: Mapping[str, SkillState], now: datetime) -> list[SkillState]:
        """Return those skills whose newest admitted version may still be served.

        Skills that were revoked or rejected since, are in quarantine, pinned to another version or missing in the lock
        file are left alone. So are conflicts whose other side was never seen here: another program wrote that text.
        """
        gate = self._gate_for(batch, now)
        if gate is None and all(each.waiting is None for each in known.values()):
            return list(known.values())
        from atom_saas_sync.core.plan.sides import Sides

        newest = {name: Sides(each).newest for name, each in known.items()}
        versions = {name: side.version for name, side in newest.items() if side is not None and side.version}
        evidence = batch.gate.evidence(versions.values())
        seen = {name for name in versions if known[name].waiting is None or evidence[name].first_seen_at is not None}
        if gate is None:
            return [each for name, each in known.items() if name not in versions or name in seen]
        from atom_saas_sync.core.gate.types import BY_POLICY
        from atom_saas_sync.core.gate.verdict import judge

        gate = replace(gate, adopting=BY_POLICY)  # the lines that also apply to admitted versions
        return [
            each
            for name, each in known.items()
            if name not in versions
            or (name in seen and judge(gate, None, versions[name], evidence[name], now).kind == "admit")
        ]

    def _gate_for(self, batch: SkillBatch, now: datetime) -> Gate | None:
        """Return the gate in this transaction; None if it admits everything."""
        return None if self._gate is None else self._gate.gate_in(batch, now, self._statistics.clock_skew_seconds)
