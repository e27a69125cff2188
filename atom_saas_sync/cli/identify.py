"""Resolve typed ids to full ids, and open what commands for skills need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from atom_saas_sync.characters import printable, shell_argument
from atom_saas_sync.cli.output import GlobalOptions
from atom_saas_sync.errors import NotFound

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import EditableCatalogue, Store, StoredReading


def whole_id(store: Store, given: str) -> str:
    """Return the skill id that `given` abbreviates; `given` itself if there is none.

    Raises Ambiguous. Commands that destroy or decide something use `given` unchanged.
    """
    from atom_saas_sync.core.ids import MOST_CANDIDATES, choose_id

    return choose_id(given, *store.ids().skills_from(given, limit=MOST_CANDIDATES + 1))


def whole_offered_id(store: Store, given: str) -> str:
    """Return the id of the update that `given` abbreviates; `given` itself if there is none.

    Raises Ambiguous.
    """
    from atom_saas_sync.core.ids import MOST_CANDIDATES, choose_id

    return choose_id(given, store.ids().offers_from(given, limit=MOST_CANDIDATES + 1), {})


def whole_judged_id(store: Store, given: str) -> str:
    """Return the id of a served or offered skill, like `whole_id`. Raises Ambiguous."""
    from atom_saas_sync.core.ids import MOST_CANDIDATES, choose_id

    limit = MOST_CANDIDATES + 1
    served, former = store.ids().skills_from(given, limit=limit)
    return choose_id(given, store.ids().offers_from(given, limit=limit) | served, former)


def whole_rating_id(store: Store, given: str) -> str:
    """Return the rating id that `given` abbreviates; `given` itself if there is none.

    Raises Ambiguous.
    """
    from atom_saas_sync.core.ids import MOST_CANDIDATES, choose_id

    return choose_id(given, store.ids().ratings_from(given, limit=MOST_CANDIDATES + 1), {})


def unknown_skill(skill_id: str) -> NotFound:
    """Return the error for an id that is not in the cache."""
    return NotFound(
        f"there is no skill {printable(skill_id)!r} in the cache",
        hint="`atom-sync skills search TEXT` finds ids; `atom-sync sync skills` brings the cache up to date",
    )


def not_served(store: Store, skill_id: str) -> NotFound:
    """Return the error for a skill that is not served, with the reason if the gate keeps it out."""
    shown, named = printable(skill_id), printable(shell_argument(skill_id))
    standing = store.ids().standing(skill_id)
    if standing == "quarantined":
        return NotFound(
            f"the skill {shown!r} is in quarantine", hint=f"`atom-sync quarantine show {named}` says why and shows it"
        )
    if standing is not None:
        what = "waits to be admitted" if standing == "hold" else "was refused"
        return NotFound(
            f"the skill {shown!r} is not served: its version {what}",
            hint=f"`atom-sync policy explain {named}` says why; `atom-sync updates show {named}` shows it",
        )
    return unknown_skill(skill_id)


class OpenCatalogue(NamedTuple):
    """What commands that read or edit skills work on."""

    store: Store
    edits: EditableCatalogue
    reading: StoredReading


@contextmanager
def open_catalogue(options: GlobalOptions, *, create: bool = False, adopt: bool = False) -> Iterator[OpenCatalogue]:
    """Open the database for commands that read or edit skills. Raises DatabaseError."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import open_store

    settings = runtime.load(options)
    with open_store(settings.database, create=create, adopt=adopt) as store:
        edits = store.edits(history_versions=settings.history_versions)
        yield OpenCatalogue(store, edits, store.reading(datetime.now(UTC)))
