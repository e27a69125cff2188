"""The gate's periodic work in `watch`: judge what is due, enforce revocations, and scan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from atom_saas_sync.characters import short_id
from atom_saas_sync.model import Action
from atom_saas_sync.model.effects import Quarantine
from atom_saas_sync.usecases.gate.current import CurrentGate
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.loading import begin_run, with_clock
from atom_saas_sync.usecases.gate.local import POLICY
from atom_saas_sync.usecases.gate.passes import enforce_in, judge_again, judge_ids
from atom_saas_sync.usecases.gate.scanning import scan_what_waits

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock


log = logging.getLogger(__name__)

TICK = timedelta(seconds=10)
_LOGGED = 10


class GateTicks:
    """Runs the ticks one after the other, over a database connection of its own."""

    def __init__(self, desk: GateDesk, current: CurrentGate, clock: Clock) -> None:
        self._desk = desk
        self._current = current
        self._clock = clock
        self._due: float | None = None

    def tick(self) -> None:
        """Apply changed files and rows at once; judge waiting versions every ten seconds."""
        changed = self._current.refresh()
        now, monotonic = self._clock.now(), self._clock.monotonic()
        is_due = self._due is None or monotonic >= self._due
        if not (changed or is_due):
            return
        if is_due:
            self._due = monotonic + TICK.total_seconds()
        store, loaded = self._desk.store, self._current.loaded
        if loaded is not None and begin_run(store, loaded, now, note_clock=is_due):
            self._current.reload()
        gate, marks = self._current.plain, self._current.marks
        everything = marks.judged != gate.fingerprint
        if gate.idle and marks.judged is None:
            return
        if not (is_due or everything):
            _tell(enforce_in(store, gate, now, everything=False))
            return
        gate = with_clock(gate, marks, now, None)
        _tell(judge_again(store, gate, self._desk.strategy, now, judged=marks.judged, check=self._desk.check))
        if everything:
            self._current.reload()

    def scan(self) -> None:
        """Scan the versions that only lack a scan, and judge them."""
        desk, now = self._desk, self._clock.now()
        scanned = scan_what_waits(desk, now)
        if scanned:
            loaded = desk.load()
            gate = with_clock(loaded.gate, loaded.marks, now, None)
            _tell(judge_ids(desk.store, scanned, gate, desk.strategy, now, actor=POLICY, check=desk.check))


def _tell(actions: Sequence[Action]) -> None:
    for action in actions[:_LOGGED]:
        if any(isinstance(each, Quarantine) for each in action.effects):
            log.warning("%s was put into quarantine", short_id(action.skill_id))
        elif action.sets_base:
            log.info("admitted the waiting version of %s", short_id(action.skill_id))
    if len(actions) > _LOGGED:
        log.info("judged %d more waiting versions", len(actions) - _LOGGED)
