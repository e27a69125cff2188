"""Write the pages of a walk: one by one, or several together while little changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from atom_saas_sync.characters import short_id
from atom_saas_sync.errors import ApiError, BadResponse
from atom_saas_sync.model import Action, FetchedPage, InvalidItem, Outcome
from atom_saas_sync.usecases.disk_room import DiskRoom
from atom_saas_sync.usecases.gate.planning import Planner
from atom_saas_sync.usecases.read_pages import Digests, PageReader, ParsedPage, excluding, names_if_held, read_page
from atom_saas_sync.usecases.run_tally import Done, RunTally
from atom_saas_sync.usecases.walk import PageSource, Walk

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock, Marketplace, RunLog, StoredBatch, StoredCatalogue


log = logging.getLogger(__name__)

_PAGES_TOGETHER = 25
_CHANGES_TOGETHER = 0.25
_BYTES_TOGETHER = 2 * 1024 * 1024
"""Limits for batching pages with few changes. Begin, commit and the index segment dominate such transactions; flush
after 25 pages, or when the changes reach a quarter of a page, or 2 MiB."""

_PAGES_AHEAD = 2
"""So many pages are read while others are written: reading more would contend for the interpreter with writing."""


class PageWriter:
    """Reads and writes the pages of one walk. Without `write`, changes are only counted."""

    def __init__(
        self,
        marketplace: Marketplace,
        catalogue: StoredCatalogue,
        runs: RunLog,
        clock: Clock,
        tally: RunTally,
        planner: Planner,
        *,
        source: PageSource,
        walk: Walk,
        write: bool,
        room: DiskRoom,
    ) -> None:
        self._marketplace = marketplace
        self._catalogue = catalogue
        self._runs = runs
        self._clock = clock
        self._tally = tally
        self._planner = planner
        self._source = source
        self._list_key = marketplace.list_key(source.page_size)
        self._walk = walk
        self._write = write
        self._room = room
        self._reader = PageReader()
        self._unwritten: list[ParsedPage] = []
        self._prepared: dict[int, Digests] = {}

    def take(self, page: FetchedPage) -> None:
        """Read a page, and write it: at once, or together with the following ones while little changes."""
        now = self._clock.now()
        if page.items is None:
            read = read_page(page, {}, now)
            self._walk.saw(self._catalogue.ids_on_page(page.number))
        else:
            read = self._reader.read(page, lambda: self._known_on_page(page.number), now)
            if any(item.damaged for item in read.invalid):
                read = self._fetch_damaged(read) or read
            self._take_held(read)
            self._set_unstorable_aside(read)
            if not self._is_new(read, beyond=page.beyond):
                return
        self._unwritten.append(read)
        if self._are_enough(read.size):
            self.flush()

    def _are_enough(self, page_size: int) -> bool:
        """Tell whether the pages that are not written deserve a transaction."""
        changed = [version for each in self._unwritten for version in each.changed.values()]
        return (
            len(changed) > page_size * _CHANGES_TOGETHER
            or len(self._unwritten) >= _PAGES_TOGETHER
            or sum(len(version.text) for version in changed) > _BYTES_TOGETHER
        )

    def close(self) -> None:
        """Write what was read, and stop the thread that reads ahead."""
        try:
            self.flush()
        finally:
            self._reader.close()

    def flush(self) -> None:
        """Write the pages that are read but not written."""
        pages, self._unwritten = self._unwritten, []
        if not pages:
            return
        now = self._clock.now()
        if self._write:
            # A character is at least one byte: encoding every text again would cost more than it tells.
            self._room.take(sum(len(version.text) for page in pages for version in page.changed.values()))
            self._runs.bind(now)
            self._prepare_to_read_ahead(pages)
        done, memory = Done(), sum(page.memory for page in pages)
        with self._catalogue.batch(write=self._write) as batch:
            for page in pages:
                if page.modified:
                    self._apply_page(batch, page, done)
                else:
                    log.debug("page %d: unchanged (cache hit)", page.number)
                    if self._write:
                        batch.confirm_page(page.number, page.read_at)
            if self._write:
                batch.count_requests(self._marketplace.statistics.drain())
                # Next is the full-text index, on which SQLite works for long without the interpreter's lock.
                self._reader.read_ahead(self._walk.prefetcher.arrived(), self._prepared, memory=memory, now=now)
        self._tally.count(done)

    def _apply_page(self, batch: StoredBatch, page: ParsedPage, done: Done) -> None:
        """Write a page, and add to what is `done`; its changed skills go: the index takes no texts, only words."""
        actions = self._write_page(batch, page)
        if self._write:
            batch.count_changes(actions)
        _log_page(page, actions)
        done.add(actions, plan=not self._write)
        page.changed = {}

    def _is_new(self, page: ParsedPage, *, beyond: bool) -> bool:
        """Record a page; tell whether it is more than a repetition of the previous one."""
        for version in page.changed.values():
            if version.dropped:
                log.debug("%s: dropped malformed %s", short_id(version.skill_id), ", ".join(version.dropped))
        ids = [*page.unchanged, *page.changed]
        again = self._walk.seen.intersection(ids)
        repeated = again.issuperset(ids)
        if repeated and beyond and page.size:
            return False
        if again and self._walk.overlaps and self._write:
            self._read_whole_next_time(page, again)
        self._tally.skip_invalid(page.invalid)
        self._walk.saw(ids, unusable=() if repeated and ids else [item.skill_id for item in page.invalid])
        return True

    def _read_whole_next_time(self, page: ParsedPage, again: AbstractSet[str]) -> None:
        """Request pages that contain the same skills unconditionally next time.

        The list changed between their responses, in unknown order. Besides, the store knows one page for each skill: if
        the other page were not modified next time, the skill would seem to be missing.
        """
        page.etag = None
        for each in self._unwritten:
            if not again.isdisjoint(each.unchanged) or not again.isdisjoint(each.changed):
                each.etag = None
        self._catalogue.distrust(sorted(again))

    def _take_held(self, page: ParsedPage) -> None:
        """Add items to the changed ones whose id is only invalid for new skills, if the database has that skill."""
        odd = {item.if_held.skill_id: item.if_held for item in page.invalid if item.if_held is not None}
        if odd:
            held = self._catalogue.known(list(odd)).keys()
            page.changed = {**page.changed, **{skill_id: odd[skill_id] for skill_id in held}}
            page.invalid = [each for each in page.invalid if each.if_held is None or each.if_held.skill_id not in held]

    def _set_unstorable_aside(self, page: ParsedPage) -> None:
        refused = self._catalogue.unstorable(page.changed.values())
        for skill_id, reason in refused.items():
            page.invalid.append(InvalidItem(skill_id, reason))
            del page.changed[skill_id]

    def _fetch_damaged(self, page: ParsedPage) -> ParsedPage | None:
        """Fetch a page again that was damaged in transit. If it stays damaged, its damaged items are set aside."""
        try:
            with self._walk.prefetcher.making_way():
                fetched = self._source.intact(page.number)
        except (ApiError, BadResponse) as error:
            log.warning("could not fetch page %d again, which was damaged: %s", page.number, error)
            return None
        return read_page(fetched, self._known_on_page(page.number), page.read_at)

    def _known_on_page(self, page: int) -> Digests:
        """Return the known digests of a page, without skills that are about to be written."""
        known = self._prepared.pop(page, None)
        if known is None:
            known = self._catalogue.digests_on_page(page)
        return excluding(known, _news(self._unwritten))

    def _prepare_to_read_ahead(self, pages: Sequence[ParsedPage]) -> None:
        """Look up the known digests of the next pages, before the transaction that writes these."""
        following, news = pages[-1].number + 1, _news(pages)
        if news and not self._reader.is_reading():
            self._prepared = {
                number: excluding(self._catalogue.digests_on_page(number), news)
                for number in range(following, following + min(len(pages), _PAGES_AHEAD))
            }

    def _write_page(self, batch: StoredBatch, page: ParsedPage) -> list[Action]:
        """Compare a page with what is stored, and apply and return the resulting actions."""
        from atom_saas_sync.core.plan.listed import without_outdated

        known = batch.known(page.changed)
        # A page may not contain changes that messages announced after it was requested.
        told = batch.changed_by_events_since(page.asked_at, now=self._clock.now())
        changed = without_outdated(page.changed, told, known, page.read_at)
        actions = self._planner.listed(batch, known, changed, page.read_at)
        if not self._write:
            return actions
        batch.apply(actions, page.read_at, page=page.number)
        # Only a page that is stored completely may get a "not modified" next time.
        whole = (
            told.isdisjoint(page.unchanged)
            and told.isdisjoint(page.changed)
            and len(page.unchanged) + len(changed) == page.size
            and all(
                action.is_stored or (name in known and known[name].base)
                for name, action in zip(changed, actions, strict=True)
            )
        )
        batch.record_page(
            page.number,
            {*page.unchanged, *changed},
            list_key=self._list_key,
            etag=page.etag if whole else None,
            total=page.total,
            now=page.read_at,
        )
        return actions


def _news(pages: Sequence[ParsedPage]) -> set[str]:
    """Return the skills that these pages change."""
    return {name for page in pages for name in (*page.changed, *names_if_held(page.invalid))}


def _log_page(page: ParsedPage, actions: Sequence[Action]) -> None:
    if not log.isEnabledFor(logging.DEBUG):
        return
    new, changed = (sum(each.outcome is kind for each in actions) for kind in (Outcome.ADDED, Outcome.UPDATED))
    counts = {"new": new, "changed": changed, "unchanged": page.size - new - changed}
    log.debug(
        "page %d: %s",
        page.number,
        ", ".join(f"{number} {name}" for name, number in counts.items()),
        extra={"page": page.number, **counts},
    )
