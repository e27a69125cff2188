"""Copying everything that a database holds into an empty one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Store


def copy_database(source: Store, target: Store) -> dict[str, int]:
    """Copy all rows in one transaction of `target`, and return how many of each table.

    The caller keeps runs off the source. Raises DatabaseError if the target is not empty, or if something did not
    arrive as it was sent; then the target is empty as before.
    """
    with source.moving_out() as rows, target.moving_in() as into:
        return {table: into.write(table, rows.rows(table)) for table in rows.tables()}
