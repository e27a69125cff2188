"""The verbs of the store's contract (usecases/ports/), by subject, and what other programs do to a database.

Only `Others` depends on the engine: it plays another program, which takes the lock or reads every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

from atom_saas_sync.core.canonical import version_from_fields
from atom_saas_sync.core.gate.admission import admitted_before, written_here
from atom_saas_sync.core.plan import plan_listed
from atom_saas_sync.core.plan.listed import kept_base
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.core.plan.steps import life_here, served
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Action, Outcome, SkillState, SkillVersion, Status, Strategy
from atom_saas_sync.usecases import ports
from atom_saas_sync.usecases.ports.engine import Engine
from atom_saas_sync.usecases.ports.gate_desk import GateStore
from atom_saas_sync.usecases.ports.verifying import StoredServing

NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)
HERE = "https://market.example"
LIST = "list?page="
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)

_WAIT_SECONDS = 0.02

Rows = dict[str, list[tuple[Any, ...]]]


class Others(Protocol):
    """What other programs do with a database."""

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock that all writers take."""

    def everything(self) -> Rows:
        """Return all rows of all tables."""

    def write_skill(self, skill_id: str, text: str) -> None:
        """Write the text of a new or existing skill with plain SQL."""


class Rooms:
    """The verbs of one database, with a short wait for the lock."""

    def __init__(self, engine: Engine, others: Others) -> None:
        self.engine = engine
        self.others = others
        self._store = store = engine.open(busy_timeout_seconds=_WAIT_SECONDS)
        self._opened_upkeep = engine.upkeep()
        self.upkeep: ports.StoreUpkeep = self._opened_upkeep.__enter__()
        self.catalogue = store.catalogue(history_versions=2)
        self.edits = store.edits(history_versions=2)
        self.conflicts = store.conflicts(history_versions=2)
        self.events = store.events(history_versions=2)
        self.state = store.watch_state()
        self.switch = store.switch()
        self.jobs = store.schedule()
        self.ratings = store.ratings()
        self.own_ratings = store.own_ratings()
        self.lifetime = store.lifetime()
        self.figures = store.figures()
        self.history = store.history()
        self.ids = store.ids()
        self.limits = store.budget()
        self.maintenance = store.maintenance()
        self.schema = store.schema()
        self.runs = store.runs(marketplace=HERE)
        self.run_history = store.run_history()

    @cached_property
    def budget(self) -> ports.StoredBudget:
        """Return the budget, which has its own connection."""
        return self.new_budget()

    def close(self) -> None:
        if "budget" in vars(self):
            self.budget.close()
        self._opened_upkeep.__exit__(None, None, None)
        self._store.close()

    def new_budget(self, *, per_minute: int = 8, per_hour: int = 20) -> ports.StoredBudget:
        return self.engine.request_budget(
            per_minute=per_minute, per_hour=per_hour, marketplace=HERE, busy_timeout_seconds=_WAIT_SECONDS
        )

    def new_runs(self) -> ports.StoredRuns:
        return self._store.runs(marketplace=HERE)

    def signed(self, signer: Signer) -> ports.StoredCatalogue:
        return self._store.catalogue(history_versions=2, signer=signer)

    def gate(self, signer: Signer | None = None) -> GateStore:
        return self._store.gate(history_versions=2, signer=signer)

    def serving(self, signer: Signer | None = None) -> StoredServing:
        return self._store.serving(signer)

    def reading(self, now: datetime = NOW) -> ports.StoredReading:
        return self._store.reading(now)

    def status(self, now: datetime = NOW) -> Status:
        return self.engine.status(now, per_minute=8, per_hour=20, admission="open", admission_scope="all")

    def rebind(self, marketplace: str, *, deletions: int) -> None:
        self._store.rebind(marketplace, deletions=deletions, actor="ada", now=NOW)

    def exclusive(self, kind: str) -> AbstractContextManager[None]:
        return self._store.exclusive(kind, command="a test", now=lambda: "2026-02-19T12:00:00Z", sleep=lambda _: None)

    def holder(self, kind: str) -> Mapping[str, Any] | None:
        return self._store.holder(kind)

    def locked(self) -> AbstractContextManager[None]:
        """Make another program hold the lock that all writers take."""
        return self.others.locked()

    def everything(self) -> Rows:
        """Return all rows of all tables."""
        return self.others.everything()

    # Setting up

    def show(
        self,
        *versions: SkillVersion,
        page: int = 1,
        etag: str | None = '"1"',
        strategy: Strategy = "manual",
        now: datetime = NOW,
    ) -> list[Action]:
        """Store a page of the list with these skills, as a run does; return the planned actions."""
        with self.catalogue.batch() as batch:
            known = batch.known([each.skill_id for each in versions])
            actions = [plan_listed(known.get(each.skill_id), admitted_before(each), strategy, now) for each in versions]
            batch.apply(actions, now, page=page)
            ids = {each.skill_id for each in versions}
            batch.record_page(page, ids, list_key=LIST, etag=etag, total=len(ids), now=now)
            return actions

    def edit(self, *versions: SkillVersion, now: datetime = NOW) -> None:
        """Edit these skills as a user does."""
        with self.edits.batch() as batch:
            known = batch.known([each.skill_id for each in versions])
            for each in versions:
                sides = Sides(known.get(each.skill_id) or SkillState(each.skill_id))
                write = served(sides, written_here(each.text), each.fields, life=life_here(sides))
                effects = write, *kept_base(sides, each.text)
                batch.apply([Action(each.skill_id, Outcome.UPDATED, effects)], now, actor="ada")

    def carry_out(self, *actions: Action, now: datetime = NOW) -> None:
        """Apply actions in one transaction."""
        with self.catalogue.batch() as batch:
            batch.apply(actions, now)

    def shown(self, names: Iterable[str] = "abcdefgh") -> dict[str, str]:
        """Return name and source of the skills that readers see."""
        found = (self.reading().skill(name) for name in names)
        return {each.skill_id: each.source for each in found if each is not None}


def skill(skill_id: str, **fields: Any) -> SkillVersion:
    return version_from_fields(skill_id, {"skill_id": skill_id, "name": skill_id, "version": "1.0.0", **fields})
