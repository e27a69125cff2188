"""The gate of a process that runs for long: loaded anew when its files or the database have changed."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from msgspec.structs import replace

from atom_saas_sync.core.gate.stored import Marks
from atom_saas_sync.core.gate.types import Gate, Policy
from atom_saas_sync.core.gate.verdict import is_abnormal
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.loading import LoadedGate
from atom_saas_sync.usecases.ports.gate_edges import GateFiles

log = logging.getLogger(__name__)

ABNORMAL_WITHIN = timedelta(hours=1)
"""Messages have no run: so long counts as one."""


class CurrentGate:
    """Loads the gate when it is asked for and something has changed. It is used by one thread.

    With a policy that can't be read nothing new is admitted, whatever the last one was; that is logged once.
    """

    def __init__(self, desk: GateDesk, files: GateFiles) -> None:
        self._desk = desk
        self._files = files
        self._seen: object = None
        self._problem: str | None = None
        self._gate: Gate | None = None
        self.loaded: LoadedGate | None = None
        """What was loaded last; None if the policy can't be read."""

    def refresh(self) -> bool:
        """Load the gate if something has changed; return whether it was loaded."""
        seen = (self._files.stamps(), self._desk.store.version())
        if self._gate is not None and seen == self._seen:
            return False
        problem = None
        try:
            self.loaded = self._desk.load()
        except ConfigError as error:
            problem, self.loaded = error.message, None
            last = self._gate or Gate(policy=Policy(admission="review"))
            self._gate = replace(last, revocations_broken=True)
        else:
            self._gate = self.loaded.gate
            problem = None if self.loaded.problem is None else self.loaded.problem.message
        if problem is not None and problem != self._problem:
            log.error("nothing new is admitted: %s", problem.replace("\n", "; "))
        elif problem is None and self._problem is not None:
            log.info("the gate's files can be read again")
        self._seen, self._problem = seen, problem
        return True

    def reload(self) -> None:
        """Load the gate in any case: what we have written ourselves is no change of the database."""
        self._seen = None
        self.refresh()

    def get(self, now: datetime) -> Gate:
        """Return the gate for what messages say at `now`."""
        self.refresh()
        assert self._gate is not None
        gate = self._gate
        limit = gate.policy.max_changed
        if limit is None:
            return gate
        since = now - ABNORMAL_WITHIN
        with self._desk.store.deciding(write=False) as batch:
            changed, served = batch.changed_since(since), batch.gate.served_marketplace_skills()
        return replace(gate, abnormal=is_abnormal(changed, served, limit), since=since)

    @property
    def plain(self) -> Gate:
        """The gate as it was loaded last, for what was offered before. `refresh` comes first."""
        assert self._gate is not None
        return self._gate

    @property
    def marks(self) -> Marks:
        """What the last run has noted."""
        return Marks() if self.loaded is None else self.loaded.marks
