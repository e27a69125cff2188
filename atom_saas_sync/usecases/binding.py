"""A database belongs to one marketplace from its first response on."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from atom_saas_sync.core.marketplace import marketplace_of
from atom_saas_sync.errors import WrongMarketplace

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Store, StoredRuns


def runs_for(api_url: str, store: Store) -> StoredRuns:
    """Return the audit trail of a database that belongs to the marketplace at that URL, or to none yet.

    Raises WrongMarketplace.
    """
    wanted = marketplace_of(api_url)
    runs = store.runs(marketplace=wanted)
    bound = runs.marketplace()
    if bound not in (None, wanted):
        raise WrongMarketplace(
            f"the database {store.location} belongs to {bound}, but ATOM_SAAS_API_URL is {api_url}",
            hint="use another database (`--database`, ATOM_SAAS_DATABASE_URL) for this marketplace; or "
            f"`atom-sync db rebind {quote(api_url)}` shows what would change here, and asks",
        )
    return runs
