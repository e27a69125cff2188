"""The ports: the interfaces of the store, the marketplace and the clock that use cases and commands need.

This is the contract that every storage engine has to keep. Each verb is tested in tests/store/contract/. Unless a verb
says otherwise:

- *Threading.* An object of the store, and everything that it returns, is used only by the thread that created it.
- *Transactions.* A verb that reads sees one consistent state. A verb that writes is one transaction: all of it is
  committed, or nothing. A batch is one transaction of several verbs: it commits at the end of the block, and nothing is
  stored if the block ends with an exception, Ctrl-C included. Its verbs see what it has written so far. While a batch
  is open, no other verb may be called on the same connection: that raises RuntimeError.
- *Locks.* Reading neither waits for writers nor blocks them. Writing waits for other writers up to the time given when
  the store was opened. A verb that finds nothing to change takes no lock if it says so.
- *Errors.* DatabaseBusy if another program holds the lock for longer; DatabaseError for every other failure of the
  database or the disk. Both mean that nothing was written. An empty result never stands for an error.
- *Absent.* A lookup of one thing that is not stored returns None; of several, the absent ones are left out. Changing
  something absent does nothing.
- *Order.* Lists are in the order that the verb names; if it names none, in any order.
- *Times.* `now` is an aware datetime, and the store's clock. The store reads its own clock only when a rating is
  changed without changing its time: each change needs a time.
- *Source.* A cached skill is the marketplace's own (`marketplace`), the marketplace's with a change made here
  (`edited`), or exists only here (`local`). Other programs may write to the tables: their writes are edits.
"""

from __future__ import annotations

from atom_saas_sync.usecases.ports.catalogue import (
    KnownSkills,
    SkillBatch,
    StoredBatch,
    StoredCatalogue,
    Storing,
)
from atom_saas_sync.usecases.ports.engine import Engine, Store
from atom_saas_sync.usecases.ports.gate import GateBatch
from atom_saas_sync.usecases.ports.gate_desk import GateStore
from atom_saas_sync.usecases.ports.ids import Standing, StoredIds
from atom_saas_sync.usecases.ports.marketplace import Marketplace, RatingMarketplace, Statistics
from atom_saas_sync.usecases.ports.moving import RowsIn, RowsOut
from atom_saas_sync.usecases.ports.people import (
    EditableCatalogue,
    EditBatch,
    ListedConflicts,
    Resolutions,
    StoredConflicts,
)
from atom_saas_sync.usecases.ports.ratings import StoredRatings, UserRatings
from atom_saas_sync.usecases.ports.reading import CacheFigures, StoredHistory, StoredLifetime, StoredReading
from atom_saas_sync.usecases.ports.realtime import (
    ConfirmBatch,
    EventBatch,
    JobStore,
    StateStore,
    StoredConfirmations,
    StoredEvents,
    StoredSwitch,
    StoreUpkeep,
)
from atom_saas_sync.usecases.ports.requests import BudgetDesk, Clock, RequestsLeft, StoredBudget
from atom_saas_sync.usecases.ports.runs import Progress, RunLog, StoredRunHistory, StoredRuns
from atom_saas_sync.usecases.ports.upkeep import DatabaseCopies, Lockable, Maintenance, StoredSchema
from atom_saas_sync.usecases.ports.verifying import StoredServing

__all__ = [
    "BudgetDesk",
    "CacheFigures",
    "Clock",
    "ConfirmBatch",
    "DatabaseCopies",
    "EditBatch",
    "EditableCatalogue",
    "Engine",
    "EventBatch",
    "GateBatch",
    "GateStore",
    "JobStore",
    "KnownSkills",
    "ListedConflicts",
    "Lockable",
    "Maintenance",
    "Marketplace",
    "Progress",
    "RatingMarketplace",
    "RequestsLeft",
    "Resolutions",
    "RowsIn",
    "RowsOut",
    "RunLog",
    "SkillBatch",
    "Standing",
    "StateStore",
    "Statistics",
    "Store",
    "StoreUpkeep",
    "StoredBatch",
    "StoredBudget",
    "StoredCatalogue",
    "StoredConfirmations",
    "StoredConflicts",
    "StoredEvents",
    "StoredHistory",
    "StoredIds",
    "StoredLifetime",
    "StoredRatings",
    "StoredReading",
    "StoredRunHistory",
    "StoredRuns",
    "StoredSchema",
    "StoredServing",
    "StoredSwitch",
    "Storing",
    "UserRatings",
]
