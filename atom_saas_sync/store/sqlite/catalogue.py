"""The cached skills and categories with their bases. No decisions are made here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import datetime

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Category, PageRecord, SkillState, SkillVersion
from atom_saas_sync.store.names import APPROVED_DELETIONS
from atom_saas_sync.store.sqlite import expiry, integrity, pages, resolutions
from atom_saas_sync.store.sqlite.batch import Batch
from atom_saas_sync.store.sqlite.bulk import bulk_transaction
from atom_saas_sync.store.sqlite.categories import apply_categories, changed_categories
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.failures import translated_errors
from atom_saas_sync.store.sqlite.files import free_disk_gb
from atom_saas_sync.store.sqlite.runs import get_fact

# Ids come in any order, so new rows are spread over the indexes; a larger cache saves a tenth for 150,000 skills.
_CACHE_KIB = 16 * 1024


class Catalogue:
    """The cached skills and categories with their bases."""

    def __init__(self, database: Database, *, history_versions: int, signer: Signer | None = None) -> None:
        """Use `database`; keep `history_versions` former versions of each skill.

        With a `signer` what the marketplace sends is signed.
        """
        self._database = database
        self._history_versions = history_versions
        self._signer = signer
        with translated_errors(database.path, (sqlite3.Error,)):
            database.connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}").fetchone()

    @property
    def database(self) -> Database:
        """Return the database."""
        return self._database

    def known(self, skill_ids: Iterable[str]) -> dict[str, SkillState]:
        """Return the stored state of these skills; skills without any are absent."""
        with self.batch(write=False) as batch:
            return batch.known(skill_ids)

    def unstorable(self, versions: Iterable[SkillVersion]) -> dict[str, str]:  # noqa: ARG002 - see there
        """Return nothing: a file holds any text."""
        return {}

    # Before and during a walk

    def free_disk_gb(self) -> float:
        """Return the free space, in GB, on the database's file system."""
        return free_disk_gb(self._database.path)

    def page_records(self, list_key: str) -> dict[int, PageRecord]:
        """Return the stored pages of the list with this key."""
        with self._database.reading() as connection:
            return pages.page_records(connection, list_key)

    def forget_other_lists(self, list_key: str) -> None:
        """Forget the pages of all other lists: another marketplace, dialect or page size."""
        with self._database.reading() as connection:
            others = connection.execute(
                "SELECT 1 FROM http_validator WHERE page IS NOT NULL AND resource != ? || page", (list_key,)
            ).fetchone()
        if others:
            with self._database.transaction() as connection:
                pages.leave_pages(connection, 1)

    def digests_on_page(self, page: int) -> dict[bytes, str]:
        """Return the wire digests last seen on `page`, each with its skill.

        Skills with an open conflict are excluded: their remote version is not the base, so the base again is a change.
        """
        with self._database.reading() as connection:
            return pages.digests_on_page(connection, page)

    def ids_on_page(self, page: int) -> list[str]:
        """Return the skills that were last seen on `page`."""
        with self._database.reading() as connection:
            return pages.ids_on_page(connection, page)

    @contextmanager
    def batch(self, *, write: bool = True) -> Iterator[Batch]:
        """Open one short transaction in which a plan is made and applied; a snapshot unless `write`."""
        if not write:
            with self._database.reading() as connection:
                yield Batch(connection, self._history_versions, write=False, signer=self._signer)
            return
        with bulk_transaction(self._database) as connection:
            batch = Batch(connection, self._history_versions, signer=self._signer)
            yield batch
            batch.finish()

    def tampered(self, *, everything: bool) -> list[str]:
        """Return the skills whose marketplace text does not match its digest, among all or recently changed ones."""
        with self._database.reading() as connection:
            look = integrity.tampered if everything else integrity.tampered_since_last_check
            return look(connection, self._signer)

    def unsigned(self) -> list[str]:
        """Return the skills that are not signed with the key; empty without a key."""
        with self._database.reading() as connection:
            return integrity.unsigned(connection, self._signer)

    def respelled(self) -> list[str]:
        """Return the skills whose text or offer is not byte for byte what the marketplace sent."""
        from atom_saas_sync.store.sqlite.gate.offers import spoiled

        with self._database.reading() as connection:
            return [*integrity.respelled(connection), *spoiled(connection)]

    def distrust(self, skill_ids: Sequence[str]) -> None:
        """Make the next walk read these skills again, even if their bytes are unchanged."""
        with self._database.transaction() as connection:
            integrity.distrust(connection, skill_ids)

    # After a walk

    def note_tampered(self, found: Sequence[str], now: datetime) -> int:
        """Store which of these skills are still tampered with; return their number."""
        with self._database.transaction() as connection:
            left = list(integrity.tampered_among(connection, found, self._signer))
            integrity.note_tampered(connection, left, now)
        return len(left)

    def forget_pages_from(self, page: int) -> None:
        """Forget `page` and all later ones: the list has become shorter."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT 1 FROM http_validator WHERE page >= ?", (page,)).fetchone()
        if found:
            with self._database.transaction() as connection:
                pages.leave_pages(connection, page)

    def unlisted_ids(self, listed: AbstractSet[str], *, recorded: bool) -> list[str]:
        """Return the marketplace's skills that are not in `listed` and not known as deleted.

        A local skill counts as the marketplace's while it has an open conflict with one. If the pages of the whole list
        have just been `recorded`, only skills on no page are considered.
        """
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT json_group_array(skill_id) FROM ("  # noqa: S608 - constants
                f"SELECT skill_id FROM skill_base WHERE deleted_at IS NULL {'AND page IS NULL ' if recorded else ''}"
                f"UNION ALL SELECT skill_id FROM skill_offer {'WHERE page IS NULL ' if recorded else ''}"
                f"UNION ALL SELECT skill_id FROM conflict_log WHERE {resolutions.OPEN} AND remote_data != '{{}}')"
            ).fetchone()
        return sorted({name for name in pages.decode_list(row[0]) if name not in listed})

    def marketplace_skills(self) -> int:
        """Return the number of marketplace skills, including those that wait to be admitted."""
        with self._database.reading() as connection:
            count: int = connection.execute(
                "SELECT (SELECT count(*) FROM skill_base) + "
                "(SELECT count(*) FROM skill_offer WHERE skill_id NOT IN (SELECT skill_id FROM skill_base))"
            ).fetchone()[0]
            return count

    def approved_deletions(self) -> int:
        """Return the number of deletions approved by `db rebind`."""
        with self._database.reading() as connection:
            return int(get_fact(connection, APPROVED_DELETIONS) or 0)

    def modified_ids(self) -> list[str]:
        """Return the skills whose row was edited or deleted locally."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT skill_id FROM skill_base WHERE data IS NOT NULL AND deleted_at IS NULL ORDER BY skill_id"
            )
            return [row[0] for row in rows]

    def waiting_ids(self) -> list[str]:
        """Return the skills with an open conflict."""
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT DISTINCT skill_id FROM conflict_log WHERE {resolutions.OPEN}")  # noqa: S608
            return [row[0] for row in rows]

    def look_at_deleted_edits(self, skill_id: str) -> None:
        """Record that a user looks at the versions of a skill, among them edits that another program deleted."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT 1 FROM deleted_edit WHERE skill_id = ?", (skill_id,)).fetchone()
        if found:
            with self.batch() as batch:
                batch.forget_deleted_edits(skill_id)

    def newest_replaced_edits(self, number: int) -> list[int]:
        """Return the latest conflicts in which a strategy replaced a local edit that no user has seen."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id FROM conflict_log WHERE replaced_unseen = 1 ORDER BY resolved_at DESC, id DESC LIMIT ?",
                (number,),
            )
            return [row[0] for row in rows]

    def refresh_expiry(self, now: datetime) -> None:
        """Extend `expires_at` of confirmed skills, once half of their life is over."""
        expiry.refresh_expiry(self._database, now)

    # Categories

    def validator(self, resource: str) -> str | None:
        """Return the ETag of a resource."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT etag FROM http_validator WHERE resource = ?", (resource,)).fetchone()
            return row["etag"] if row else None

    def apply_categories(
        self, categories: Sequence[Category] | None, *, whole: bool, resource: str, etag: str | None, now: datetime
    ) -> int:
        """Store the marketplace's categories (None: unchanged); return how many changed."""
        with self._database.transaction() as connection:
            return apply_categories(connection, categories, whole=whole, resource=resource, etag=etag, now=now)

    def changed_categories(self, categories: Sequence[Category], *, whole: bool) -> int:
        """Return how many categories `apply_categories` would change."""
        with self._database.reading() as connection:
            return changed_categories(connection, categories, whole=whole)

    def count_categories(self) -> int:
        """Return how many categories are cached."""
        with self._database.reading() as connection:
            count: int = connection.execute("SELECT count(*) FROM category_cache").fetchone()[0]
            return count
