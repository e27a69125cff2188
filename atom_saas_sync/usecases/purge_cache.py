"""Remove expired entries, unless they could not be fetched again (docs/CONFLICTS.md)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from atom_saas_sync.core.lifetime import keeps_stale
from atom_saas_sync.model import PurgePlan

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import StoredLifetime


class PurgeOptions(Struct, frozen=True):
    """The options of a purge.

    `everything` and `strict` also remove stale entries that can't be renewed. `include_local` also removes local edits:
    of the `confirmed` skills, or of all if that is None.
    """

    older_than: timedelta | None = None
    everything: bool = False
    include_local: bool = False
    confirmed: frozenset[str] | None = None
    strict: bool = False
    dry_run: bool = False


class Purged(Struct, frozen=True):
    """What was removed; `kept_stale` entries were spared because the marketplace was last reached at `reached_at`."""

    removed: PurgePlan
    kept_stale: PurgePlan | None = None
    reached_at: datetime | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Return the numbers of removed and kept entries, for the audit trail."""
        kept = 0 if self.kept_stale is None else len(self.kept_stale.skills) + len(self.kept_stale.categories)
        removed = self.removed
        return {
            "skills": len(removed.skills),
            "categories": len(removed.categories),
            "local": removed.local,
            "kept_stale": kept,
        }


def purge_cache(store: StoredLifetime, options: PurgeOptions, *, actor: str, now: datetime) -> Purged:
    """Purge, or with `dry_run` return what would be purged."""
    older_than, everything = options.older_than, options.everything
    local = everything and options.include_local
    if not options.dry_run:
        store.prune_logs(now)
    reached_at = store.marketplace_reached_at()
    if not (options.everything or options.strict) and keeps_stale(reached_at, now):
        return Purged(
            PurgePlan((), (), 0, 0),
            store.choose(now, older_than=older_than, everything=everything, local=local),
            reached_at,
        )
    if options.dry_run:
        return Purged(
            store.choose(now, older_than=older_than, everything=everything, local=local), reached_at=reached_at
        )
    confirmed = options.confirmed
    if local and confirmed is None:
        confirmed = frozenset(store.choose(now, older_than=older_than, everything=everything, local=True).local_ids)
    removed = store.purge(
        now, older_than=older_than, everything=everything, local=confirmed or frozenset(), actor=actor
    )
    return Purged(removed, reached_at=reached_at)
