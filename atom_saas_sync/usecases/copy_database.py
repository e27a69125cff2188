"""Copying everything that a database holds into an empty one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Store

Item = TypeVar("Item")


def copy_database(source: Store, target: Store, *, check: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Copy all rows in one transaction of `target`, and return how many of each table.

    The caller keeps runs off the source. `check` is called before each row and may raise. Raises DatabaseError if the
    target is not empty, or if something did not arrive as it was sent. After an error the target is empty as before.
    """
    with source.moving_out() as rows, target.moving_in() as into:
        return {table: into.write(table, _checked(rows.rows(table), check)) for table in rows.tables()}


def _checked(items: Iterable[Item], check: Callable[[], None]) -> Iterator[Item]:
    for item in items:
        check()
        yield item
