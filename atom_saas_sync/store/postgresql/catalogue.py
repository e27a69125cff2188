"""The cached skills and categories with their bases. No decisions are made here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import datetime

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Category, PageRecord, SkillState, SkillVersion
from atom_saas_sync.store.names import APPROVED_DELETIONS
from atom_saas_sync.store.postgresql import expiry, integrity, pages, resolutions
from atom_saas_sync.store.postgresql.backend.fitting import suspects, unfit
from atom_saas_sync.store.postgresql.batch import STANDING, Batch
from atom_saas_sync.store.postgresql.categories import apply_categories, changed_categories
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.facts import ask_fact
from atom_saas_sync.store.postgresql.gate.offers import spoiled


class Catalogue:
    """The cached skills and categories with their bases."""

    def __init__(
        self, database: Database, *, history_versions: int, signer: Signer | None = None, durable: bool = False
    ) -> None:
        """Work on `database`; keep `history_versions` former versions of each skill.

        With a `signer`, marketplace versions are signed. Set `durable` for changes that no run can fetch again.
        """
        self._durable = durable
        self._database = database
        self._history_versions = history_versions
        self._signer = signer

    def known(self, skill_ids: Iterable[str]) -> dict[str, SkillState]:
        """Return the stored state of these skills, without unknown ones."""
        with self.batch(write=False) as batch:
            return batch.known(skill_ids)

    def unstorable(self, versions: Iterable[SkillVersion]) -> dict[str, str]:
        """Return the skills that the Atom backend's own table cannot hold, if it is shared."""
        found = list(versions)
        if not suspects(found):
            return {}
        with self._database.reading() as connection:
            return unfit(connection, found)

    # Before and during a walk

    def free_disk_gb(self) -> None:
        """Return None: the disk is the server's."""

    def page_records(self, list_key: str) -> dict[int, PageRecord]:
        """Return the stored pages of the list that `list_key` names."""
        return pages.page_records(self._database, list_key)

    def forget_other_lists(self, list_key: str) -> None:
        """Delete the stored pages of any other list: another marketplace, dialect or page size."""
        if not pages.has_other_lists(self._database, list_key):
            return
        with self._database.transaction() as connection:
            pages.leave_pages(connection, 1)

    def digests_on_page(self, page: int) -> dict[bytes, str]:
        """Return the skill of each wire digest that was last seen on `page`.

        Skills with an open conflict are excluded: their remote version is not the base, so the base again is a change.
        """
        return pages.digests_on_page(self._database, page)

    def ids_on_page(self, page: int) -> list[str]:
        """Return the skills that were last seen on `page`."""
        return pages.ids_on_page(self._database, page)

    @contextmanager
    def batch(self, *, write: bool = True) -> Iterator[Batch]:
        """Open one short transaction to make and apply a plan; without `write`, only a snapshot."""
        if not write:
            with self._database.reading() as connection:
                yield Batch(connection, self._history_versions, write=False, signer=self._signer)
            return
        with self._database.pipelined(STANDING, durable=self._durable) as (connection, standing):
            batch = Batch(connection, self._history_versions, signer=self._signer, standing=standing)
            yield batch
            batch.finish()
            self._database.notifications.send(connection, batch.changes, in_run=not self._durable)

    def tampered(self, *, everything: bool) -> list[str]:
        """Return the skills whose marketplace text does not match its digest: of all, or of recently changed ones."""
        with self._database.reading() as connection:
            look = integrity.tampered if everything else integrity.tampered_since_last_check
            return look(connection, self._signer)

    def unsigned(self) -> list[str]:
        """Return the skills that are not signed with the key; none without a key."""
        with self._database.reading() as connection:
            return integrity.unsigned(connection, self._signer)

    def respelled(self) -> list[str]:
        """Return the skills whose text is not byte for byte what was received, and those whose offer was changed."""
        with self._database.reading() as connection:
            return [*integrity.respelled(connection), *spoiled(connection)]

    def distrust(self, skill_ids: Sequence[str]) -> None:
        """Make the next walk read these skills again, even if they are unchanged."""
        with self._database.transaction() as connection:
            integrity.distrust(connection, skill_ids)

    # After a walk

    def note_tampered(self, found: Sequence[str], now: datetime) -> int:
        """Record which of these skills are still tampered with; return how many."""
        with self._database.transaction() as connection:
            left = list(integrity.tampered_among(connection, found, self._signer))
            integrity.note_tampered(connection, left, now)
        return len(left)

    def forget_pages_from(self, page: int) -> None:
        """Forget `page` and all after it: the list has become shorter."""
        if not self._database.ask("SELECT FROM http_validator WHERE page >= %s LIMIT 1", (page,)):
            return
        with self._database.transaction() as connection:
            pages.leave_pages(connection, page)

    def unlisted_ids(self, listed: AbstractSet[str], *, recorded: bool) -> list[str]:
        """Return the marketplace's skills that are not in `listed` and not marked as deleted.

        A skill that exists only here counts as the marketplace's while it has an open conflict with the marketplace's.
        If all pages of the list have just been `recorded`, only skills on none of them are examined.
        """
        rows = self._database.ask(
            f"SELECT skill_id FROM skill_base WHERE deleted_at IS NULL {'AND page IS NULL ' if recorded else ''}"  # noqa: S608 - constants
            f"UNION SELECT skill_id FROM skill_offer {'WHERE page IS NULL ' if recorded else ''}"
            f"UNION SELECT skill_id FROM conflict_log WHERE {resolutions.OPEN} AND remote_data <> '{{}}'"
        )
        return sorted(row[0] for row in rows if row[0] not in listed)

    def marketplace_skills(self) -> int:
        """Return the number of skills from the marketplace, including those that wait to be admitted."""
        return self._number(
            "SELECT (SELECT count(*) FROM skill_base) + (SELECT count(*) FROM skill_offer AS o "
            "WHERE NOT EXISTS (SELECT FROM skill_base AS b WHERE b.skill_id = o.skill_id))"
        )

    def approved_deletions(self) -> int:
        """Return the number of deletions that a user approved with `db rebind`."""
        return int(ask_fact(self._database, APPROVED_DELETIONS) or 0)

    def modified_ids(self) -> list[str]:
        """Return the skills whose row was edited or deleted by another program or a user."""
        query = "SELECT skill_id FROM skill_base WHERE data IS NOT NULL AND deleted_at IS NULL ORDER BY skill_id"
        return [row[0] for row in self._database.ask(query)]

    def waiting_ids(self) -> list[str]:
        """Return the skills with an open conflict."""
        query = f"SELECT DISTINCT skill_id FROM conflict_log WHERE {resolutions.OPEN}"  # noqa: S608 - constants
        return [row[0] for row in self._database.ask(query)]

    def look_at_deleted_edits(self, skill_id: str) -> None:
        """Record that a user has seen the versions of a skill, including edits that another program deleted."""
        if self._database.ask("SELECT FROM deleted_edit WHERE skill_id = %s LIMIT 1", (skill_id,)):
            with self.batch() as batch:
                batch.forget_deleted_edits(skill_id)

    def newest_replaced_edits(self, number: int) -> list[int]:
        """Return unseen conflicts in which a strategy last replaced a local edit."""
        query = "SELECT id FROM conflict_log WHERE replaced_unseen ORDER BY resolved_at DESC, id DESC LIMIT %s"
        return [row[0] for row in self._database.ask(query, (number,))]

    def refresh_expiry(self, now: datetime) -> None:
        """Postpone `expires_at` of confirmed skills once half of their lifetime has passed."""
        expiry.refresh_expiry(self._database, now)

    # Categories

    def validator(self, resource: str) -> str | None:
        """Return the ETag of a resource."""
        rows = self._database.ask("SELECT etag FROM http_validator WHERE resource = %s", (resource,))
        return rows[0]["etag"] if rows else None

    def apply_categories(
        self, categories: Sequence[Category] | None, *, whole: bool, resource: str, etag: str | None, now: datetime
    ) -> int:
        """Store the listed categories (None: unchanged); return how many changed."""
        with self._database.transaction() as connection:
            return apply_categories(connection, categories, whole=whole, resource=resource, etag=etag, now=now)

    def changed_categories(self, categories: Sequence[Category], *, whole: bool) -> int:
        """Return how many categories `apply_categories` would change."""
        with self._database.reading() as connection:
            return changed_categories(connection, categories, whole=whole)

    def count_categories(self) -> int:
        """Return how many categories are cached."""
        return self._number("SELECT count(*) FROM category_cache")

    def _number(self, query: str) -> int:
        return int(self._database.ask(query)[0][0])
