"""The gate of a polling run: loaded before it, applied to each page, with a final pass at its end.

What judges is imported only where the gate has something to do: most runs have none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from atom_saas_sync.characters import counted
from atom_saas_sync.core.gate.types import NEEDS_PERSON, Gate
from atom_saas_sync.model import Action
from atom_saas_sync.usecases.gate import loading

if TYPE_CHECKING:
    from atom_saas_sync.usecases.gate.desk import GateDesk
    from atom_saas_sync.usecases.ports import SkillBatch
    from atom_saas_sync.usecases.run_tally import RunTally

log = logging.getLogger(__name__)


class RunGate:
    """The gate of one run. The constructor reads files and database and raises ConfigError; it writes nothing.

    `adopting` is the user who admits everything in the first sync (`--adopt`); UsageError in any later sync.
    """

    def __init__(self, desk: GateDesk, now: datetime, *, dry_run: bool = False, adopting: str | None = None) -> None:
        self._desk = desk
        self._dry_run = dry_run
        self._loaded = desk.load()
        if self._loaded.problem is not None:
            if not dry_run:
                loading.note_broken(desk.store, self._loaded, now)
            raise self._loaded.problem
        gate = self._loaded.gate
        self._gate = gate if adopting is None else loading.adopting(self._loaded, adopting)
        self._since: datetime | None = None
        self._newest_revocation = 0
        self.clock_is_wrong = False

    @property
    def idle(self) -> bool:
        """Tell whether this run has nothing to do for the gate."""
        return self._gate.idle and self._gate.adopting is None

    @property
    def parks(self) -> bool:
        """Tell whether changed skills are parked until the end of the walk."""
        return self._gate.policy.max_changed is not None and self._gate.adopting is None and not self._dry_run

    def begin(self, now: datetime) -> list[Action]:
        """Store what was loaded, adopt served skills if the policy is no longer `open`, quarantine revoked ones.

        The marketplace is not needed for that.
        """
        self._since = now
        if self._dry_run:
            return []
        loading.begin_run(self._desk.store, self._loaded, now)
        if self._gate.idle:
            return []
        from atom_saas_sync.usecases.gate.passes import enforce_in

        everything = self._loaded.marks.judged != self._gate.fingerprint
        return enforce_in(self._desk.store, self._gate, now, everything=everything)

    def gate_in(self, batch: SkillBatch, now: datetime, skew_seconds: float | None) -> Gate | None:
        """Return the gate in this transaction, None if it admits everything.

        What users have decided or revoked since the run began counts. `skew_seconds` is how far the marketplace's clock
        is ahead of ours.
        """
        anything, newest = batch.gate_standing()
        if newest != self._newest_revocation:
            self._gate, self._newest_revocation = loading.renewed(self._gate, batch.gate), newest
        if anything and not self._gate.anything_stored:
            self._gate = replace(self._gate, anything_stored=True)
        if self.idle:
            return None
        gate = self._with_clock(now, skew_seconds)
        return replace(gate, abnormal=True, parking=True, since=self._since) if self.parks else gate

    def finish(self, now: datetime, skew_seconds: float | None, *, served: Callable[[], int]) -> list[Action]:
        """Admit parked and due versions, quarantine what must not be served, and scan; return the actions.

        `served` returns the number of served marketplace skills, of which a limit of changed skills may be a share.
        """
        desk, marks = self._desk, self._loaded.marks
        if self._dry_run or (self.idle and marks.judged is None):
            return []
        from atom_saas_sync.core.gate.verdict import is_abnormal
        from atom_saas_sync.usecases.gate.passes import judge_again
        from atom_saas_sync.usecases.gate.scanning import scan_what_waits

        gate, parked = self._with_clock(now, skew_seconds), set[str]()
        if self.parks:
            with desk.store.deciding(write=False) as batch:
                found = batch.gate.waiting(reason="abnormal")
            waiting = [each.offer for each in found if not each.offer.abnormal]
            parked = {offer.skill_id for offer in waiting}
            # Changes of a killed run count in this one.
            since = min((offer.first_seen_at for offer in waiting), default=self._since)
            gate = replace(gate, abnormal=is_abnormal(len(parked), served(), gate.policy.max_changed), since=since)
            if gate.abnormal:
                log.warning(
                    "%s changed in one run: the policy admits none of these changes", counted(len(parked), "skill")
                )
        ask = desk.check
        actions = judge_again(desk.store, gate, desk.strategy, now, judged=marks.judged, check=ask, also=parked)
        if scanned := scan_what_waits(desk, now):
            actions += judge_again(
                desk.store, gate, desk.strategy, now, judged=gate.fingerprint, check=ask, also=scanned
            )
        return actions

    def note_waiting(self, tally: RunTally, *, fail: bool) -> None:
        """Add to the tally how many updates wait, and whether one of them needs a decision."""
        if self.idle and not tally.counts.updates_held:
            return
        with self._desk.store.deciding(write=False) as batch:
            waiting = batch.gate.count_waiting()
        tally.note_waiting(
            waiting,
            needs_person=not NEEDS_PERSON.isdisjoint(waiting),
            clock_is_wrong=self.clock_is_wrong,
            fail=fail,
        )

    def _with_clock(self, now: datetime, skew_seconds: float | None) -> Gate:
        gate = loading.with_clock(self._gate, self._loaded.marks, now, skew_seconds)
        if not gate.clock_trusted and loading.needs_clock(gate) and not self.clock_is_wrong:
            self.clock_is_wrong = True
            log.warning("the clock was set back, or differs from the marketplace's: nothing is admitted by age")
        return gate
