"""The catalogue as a run sees it: skills, pages and categories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from atom_saas_sync.model import Action, Category, PageRecord, SkillState, SkillVersion
from atom_saas_sync.usecases.ports.gate import GateBatch


class KnownSkills(Protocol):
    """Reads the stored state of skills."""

    def known(self, skill_ids: Iterable[str]) -> dict[str, SkillState]:
        """Return the stored state of these skills: cached row, base, open conflict.

        Skills without any of the three are absent. Text that another program stored in another encoding is returned as
        UTF-8, with U+FFFD for undecodable bytes; a batch that writes stores it in that form.
        """


class Storing(Protocol):
    """Says what the database cannot hold."""

    def unstorable(self, versions: Iterable[SkillVersion]) -> Mapping[str, str]:
        """Return those of these skills that must not be stored, each with the reason, for a person.

        Only where the Atom backend's own tables hold them, too, there are any. Takes no lock.
        """


class SkillBatch(KnownSkills, Storing, Protocol):
    """One transaction in which skills are read, planned and changed."""

    @property
    def gate(self) -> GateBatch:
        """Return the gate's verbs in this transaction."""

    def gate_standing(self) -> tuple[bool, int]:
        """Return whether an offer, decision, pin or quarantine entry is stored, and the newest revocation's id, or 0.

        If there is neither, a gate that admitted everything before the transaction still does.
        """

    def seen_otherwise(self, versions: Iterable[SkillVersion]) -> set[str]:
        """Return the skills whose version number was sent before with different executable content.

        The base does not count. It does not matter whether the history still has the earlier text.
        """


class StoredBatch(SkillBatch, Protocol):
    """One transaction of a catalogue run."""

    def changed_by_events_since(self, moment: datetime, *, now: datetime) -> set[str]:
        """Return the skills that messages changed between `moment` and `now`.

        Later entries come from a clock that has since been set back.
        """

    def apply(self, actions: Sequence[Action], now: datetime, *, page: int | None = None) -> None:
        """Apply the effects of actions on different skills: cached rows, bases, history and conflict log.

        `page` is the skills' page in the list; None keeps their page. With a key, versions are signed if their effect
        has evidence that the marketplace sent them.
        """

    def confirm_page(self, page: int, now: datetime) -> None:
        """Record that the marketplace confirmed every skill on a page as unchanged, without sending the page."""

    def record_page(
        self, page: int, ids: AbstractSet[str], *, list_key: str, etag: str | None, total: int | None, now: datetime
    ) -> None:
        """Record that a page was read and contains exactly these skills; called last.

        Skills that were on the page and are not in `ids` are on no page, and keep their time of confirmation. If one of
        `ids` has neither base nor offer, the page is stored without its ETag: the next run must read it whole.
        """

    def count_changes(self, actions: Iterable[Action]) -> None:
        """Add what these actions did to the counters of items; unchanged ones are not counted."""

    def count_requests(self, requests: dict[tuple[str, str], int]) -> None:
        """Add to the counters of requests by (endpoint, code)."""


class StoredCatalogue(KnownSkills, Storing, Protocol):
    """The catalogue as a run sees it: skills, pages and categories."""

    def free_disk_gb(self) -> float | None:
        """Return the free space, in GB (10^9 bytes), where the database is; None if that is not on this machine."""

    def page_records(self, list_key: str) -> Mapping[int, PageRecord]:
        """Return the stored records of a list's pages; `list_key` identifies marketplace, dialect and page size."""

    def forget_other_lists(self, list_key: str) -> None:
        """Forget the pages of all other lists, and remove every skill from its page.

        Takes no lock if there are none.
        """

    def digests_on_page(self, page: int) -> dict[bytes, str]:
        """Return the wire digests of the skills on a page, each with its skill.

        Skills with an open conflict are excluded: their remote version is not the base, so seeing the base again is a
        change. So are deleted skills, and those that must be read again (`distrust`). Of a skill with an offer it is
        the offer's digest.
        """

    def ids_on_page(self, page: int) -> list[str]:
        """Return the skills that were last seen on a page."""

    def batch(self, *, write: bool = True) -> AbstractContextManager[StoredBatch]:
        """Open a transaction. Without `write`, it is a snapshot that takes no lock; its writes are discarded."""

    def tampered(self, *, everything: bool) -> list[str]:
        """Return the skills that count as the marketplace's although their text does not match its digest.

        Without `everything`, only those are checked that were written since the last `note_tampered`, edited or deleted
        here, or found then. With a key, a skill with a forged signature is tampered with, too.
        """

    def unsigned(self) -> list[str]:
        """Return the skills that are not signed with our key. Without a key the list is empty."""

    def respelled(self) -> list[str]:
        """Return the skills whose text or held version is not byte for byte what the marketplace sent."""

    def distrust(self, skill_ids: Sequence[str]) -> None:
        """Make the next run read these skills and their pages again, even if the marketplace sends the same bytes."""

    def note_tampered(self, found: Sequence[str], now: datetime) -> int:
        """Store which of these skills are still tampered with, and that the check ran; return their number."""

    def forget_pages_from(self, page: int) -> None:
        """Forget this page and all later ones, and remove their skills from them. Takes no lock if there are none."""

    def unlisted_ids(self, listed: AbstractSet[str], *, recorded: bool) -> list[str]:
        """Return, sorted, the marketplace's skills that are not in `listed` and not known as deleted.

        A skill that exists only here counts as long as it has an open conflict with one of the marketplace. With
        `recorded`, every page of the list has just been recorded, and only skills on no page are considered.
        """

    def marketplace_skills(self) -> int:
        """Return the number of skills with a base or an offer."""

    def approved_deletions(self) -> int:
        """Return how many deletions `db rebind` has approved; 0 after the next successful run."""

    def modified_ids(self) -> list[str]:
        """Return, sorted, the marketplace's skills whose row was edited or removed here."""

    def waiting_ids(self) -> list[str]:
        """Return the skills with an open conflict."""

    def newest_replaced_edits(self, number: int) -> list[int]:
        """Return at most this many unseen conflicts in which a strategy replaced a local edit, newest first."""

    def refresh_expiry(self, now: datetime) -> None:
        """Extend the lifetime of skills that the marketplace has confirmed within the last hour.

        Only after half of it has passed, or if a clock that has since been set back gave them more than a day. Takes no
        lock if there are none.
        """

    def validator(self, resource: str) -> str | None:
        """Return the ETag of a resource."""

    def apply_categories(
        self, categories: Sequence[Category] | None, *, whole: bool, resource: str, etag: str | None, now: datetime
    ) -> int:
        """Store the marketplace's categories and the list's ETag; return how many changed.

        None means unchanged: all live for another day. With `whole` those that are not listed are removed, but an empty
        list removes none: it does not prove that all were deleted.
        """

    def changed_categories(self, categories: Sequence[Category], *, whole: bool) -> int:
        """Return how many categories `apply_categories` would change."""

    def count_categories(self) -> int:
        """Return how many categories are cached."""
