"""Fetch single skills, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import InvalidItem, SkillVersion

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock, Marketplace


class Found(NamedTuple):
    """The marketplace's skill with an id (None: none), and the time of the request."""

    skill_id: str
    version: SkillVersion | InvalidItem | None
    asked_at: datetime


def ask_for_skills(
    marketplace: Marketplace,
    clock: Clock,
    skill_ids: Sequence[str],
    *,
    connections: int,
    check: Callable[[], None],
) -> Generator[Found, None, None]:
    """Fetch these skills and yield each as it comes; with one connection, in order.

    After an error, or if `check` raises one, no more are asked for; it is raised once the requests under way are over.
    """

    def ask(skill_id: str) -> Found:
        asked_at = clock.now()
        version = marketplace.get_skill(skill_id)
        if isinstance(version, InvalidItem) and version.if_held is not None:
            version = version.if_held
        return Found(skill_id, version, asked_at)

    threads = min(connections, len(skill_ids))
    if threads > 1:
        yield from _side_by_side(ask, skill_ids, threads, check)
        return
    for skill_id in skill_ids:
        check()
        yield ask(skill_id)


def _side_by_side(
    ask: Callable[[str], Found], skill_ids: Sequence[str], threads: int, check: Callable[[], None]
) -> Generator[Found, None, None]:
    from atom_saas_sync.usecases.in_threads import in_threads

    failures: list[AtomSyncError] = []

    def is_over() -> bool:
        try:
            check()
        except AtomSyncError as error:
            failures.append(error)
        return bool(failures)

    for finished in in_threads(iter(skill_ids), ask, threads=threads, stopped=is_over):
        for _, answer in finished:
            try:
                found = answer.result()
            except AtomSyncError as error:
                failures.append(error)
            else:
                yield found
    if failures:
        raise failures[0]
