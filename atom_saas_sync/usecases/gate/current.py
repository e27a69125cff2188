"""The gate of a long-running process: reloaded when its files or the database change."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from atom_saas_sync.core.gate.stored import Marks
from atom_saas_sync.core.gate.types import Gate, Policy
from atom_saas_sync.core.gate.verdict import is_abnormal
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.loading import LoadedGate

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports.gate_edges import GateFiles


log = logging.getLogger(__name__)

ABNORMAL_WITHIN = timedelta(hours=1)
"""Messages have no run; this period counts as one."""


class CurrentGate:
    """Loads the gate on request if something has changed. Used by one thread.

    While the policy can't be read, nothing new is admitted, whatever the last policy was; this is logged once.
    """

    def __init__(self, desk: GateDesk, files: GateFiles) -> None:
        self._desk = desk
        self._files = files
        self._seen: object = None
        self._problem: str | None = None
        self._gate: Gate | None = None
        self.loaded: LoadedGate | None = None
        """The last loaded gate; None if the policy can't be read."""

    def refresh(self) -> bool:
        """Reload the gate if something has changed; tell whether it was reloaded."""
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
            log.info("the policy's files are readable again")
        self._seen, self._problem = seen, problem
        return True

    def reload(self) -> None:
        """Reload the gate unconditionally: our own writes do not count as a change of the database."""
        self._seen = None
        self.refresh()

    def get(self, now: datetime) -> Gate:
        """Return the gate for messages that arrive at `now`."""
        self.refresh()
        assert self._gate is not None
        gate = self._gate
        limit = gate.policy.max_changed
        if limit is None:
            return gate
        since = now - ABNORMAL_WITHIN
        with self._desk.store.deciding(write=False) as batch:
            changed = batch.changed_since(since, executable=gate.policy.scope == "executable")
            served = batch.gate.served_marketplace_skills()
        return replace(gate, abnormal=is_abnormal(changed, served, limit), since=since)

    @property
    def plain(self) -> Gate:
        """The last loaded gate, for versions that were offered earlier. Call `refresh` first."""
        assert self._gate is not None
        return self._gate

    @property
    def marks(self) -> Marks:
        """The marks of the last run."""
        return Marks() if self.loaded is None else self.loaded.marks
