"""Delete skills that the marketplace no longer lists; a request confirms each deletion (rule 5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from atom_saas_sync.characters import short_id
from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import InvalidItem, SkillVersion
from atom_saas_sync.usecases.ask_for_skills import ask_for_skills
from atom_saas_sync.usecases.gate.planning import Planner
from atom_saas_sync.usecases.run_tally import NEEDS_PERSON, RunTally

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock, Marketplace, StoredCatalogue


log = logging.getLogger(__name__)


class Deletions:
    """The deletions of one run. `check` is called between them, and may raise.

    `confirm` is off only in a dry run: then every skill that is not listed counts as deleted, without a request.
    """

    def __init__(
        self,
        marketplace: Marketplace,
        catalogue: StoredCatalogue,
        clock: Clock,
        tally: RunTally,
        planner: Planner,
        *,
        max_delete: MaxDelete,
        dry_run: bool,
        confirm: bool,
        connections: int,
        check: Callable[[], None],
    ) -> None:
        self._marketplace = marketplace
        self._catalogue = catalogue
        self._clock = clock
        self._tally = tally
        self._planner = planner
        self._max_delete = max_delete
        self._dry_run = dry_run
        self._confirm = confirm
        self._connections = connections
        self._check = check

    def delete_unlisted(self, listed: AbstractSet[str]) -> None:
        """Delete what is no longer listed, after a `GET` has confirmed each deletion."""
        candidates = self._catalogue.unlisted_ids(listed, recorded=not self._dry_run)
        if not candidates:
            return
        if not self._confirm:
            self._plan_deletions(candidates)
            return
        cached = self._catalogue.marketplace_skills()
        limit = max(self._max_delete.limit(cached), self._catalogue.approved_deletions())
        if len(candidates) > limit:
            self._tally.note("deletions_refused", NEEDS_PERSON)
            self._tally.counts.refused = len(candidates)
            log.error(
                "refused to delete %d of %d skills that the marketplace does not list (limit %d), among them %s; "
                "nothing was deleted. If this is right, run: atom-sync sync skills --max-delete %d",
                len(candidates),
                cached,
                limit,
                ", ".join(candidates[:5]),
                len(candidates),
            )
            return
        with closing(
            ask_for_skills(self._marketplace, self._clock, candidates, connections=self._connections, check=self._check)
        ) as answers:
            for found in answers:
                self._confirm_deletion(*found)

    def _plan_deletions(self, skill_ids: Sequence[str]) -> None:
        with self._catalogue.batch(write=False) as batch:
            planned = self._planner.withdrawn(batch, skill_ids, self._clock.now())
        self._tally.took(planned)

    def _confirm_deletion(self, skill_id: str, found: SkillVersion | InvalidItem | None, asked_at: datetime) -> None:
        self._tally.proof = replace(self._tally.proof, confirmations=self._tally.proof.confirmations + 1)
        if isinstance(found, InvalidItem):
            self._tally.skip_invalid([found])
            return
        with self._catalogue.batch(write=not self._dry_run) as batch:
            known = batch.known([skill_id])
            if skill_id in batch.changed_by_events_since(asked_at, now=self._clock.now()):
                return
            if found is None:
                planned = self._planner.withdrawn(batch, [skill_id], self._clock.now())
            elif found.skill_id == skill_id:
                planned = self._planner.listed(batch, known, {skill_id: found}, self._clock.now()) if known else []
            else:
                raise BadResponse(f"asked for the skill {short_id(skill_id)!r}, got {short_id(found.skill_id)!r}")
            if not planned:
                return
            (action,) = planned
            base_text = known[skill_id].base_text if skill_id in known else None
            if self._dry_run and action.remote is None and base_text is not None:
                action = replace(action, remote=stored_version(skill_id, base_text))  # the plan names it
            if not self._dry_run:
                batch.apply([action], self._clock.now())
                log.info("%s is no longer listed: %s", short_id(skill_id), action.outcome.value)
                batch.count_changes([action])
                batch.count_requests(self._marketplace.statistics.drain())
        self._tally.took([action])
