"""What readers of the view get: for the lock file."""

from __future__ import annotations

from collections.abc import Iterator

from atom_saas_sync.core.gate.lock_file import ServedText
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.runs import MARKETPLACE, get_fact

_SERVED = """
    SELECT u.skill_id, CAST(u.skill_data AS TEXT), u.source, b.wire_digest, b.content_digest, b.exec_digest
    FROM usable_skill AS u LEFT JOIN skill_base AS b ON b.skill_id = u.skill_id
"""


def served_texts(database: Database) -> Iterator[ServedText]:
    """Yield all that is served, in one snapshot, in no particular order."""
    with database.reading() as connection:
        for row in connection.execute(_SERVED):
            yield ServedText(*row)


def known_marketplace(database: Database) -> str | None:
    """Return the marketplace that the database belongs to; None before the first sync."""
    with database.reading() as connection:
        return get_fact(connection, MARKETPLACE)
