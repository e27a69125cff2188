"""Pull the categories: all of them, in one request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atom_saas_sync.characters import counted
from atom_saas_sync.usecases.run_tally import RunTally

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock, Marketplace, RunLog, StoredCatalogue


log = logging.getLogger(__name__)


def pull_categories(
    marketplace: Marketplace,
    catalogue: StoredCatalogue,
    runs: RunLog,
    clock: Clock,
    tally: RunTally,
    *,
    force: bool,
    dry_run: bool,
) -> None:
    """Store the categories that the marketplace lists. Raises MarketplaceError."""
    resource = marketplace.resource_of_categories()
    listed, new_etag = marketplace.list_categories(None if force else catalogue.validator(resource))
    categories, invalid = listed if listed is not None else (None, [])
    counts = tally.counts
    if dry_run:
        counts.categories_changed = (
            0 if categories is None else catalogue.changed_categories(categories, whole=not invalid)
        )
        counts.categories_synced = len(categories or ()) or catalogue.count_categories()
    else:
        runs.bind(clock.now())
        counts.categories_changed = catalogue.apply_categories(
            categories,
            whole=not invalid,
            resource=resource,
            etag=None if invalid else new_etag,
            now=clock.now(),
        )
        counts.categories_synced = catalogue.count_categories() if categories is None else len(categories)
    tally.skip_invalid(invalid)
    read = counted(counts.categories_synced, "category", "categories")
    log.info("%s, %d changed", read, counts.categories_changed)
