"""Skills as the marketplace sends them and as the cache holds them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from msgspec import Struct

TIME_TO_LIVE = timedelta(hours=24)
"""The lifetime of an entry after its last confirmation by the marketplace (docs/CONFLICTS.md)."""

# Larger figures count as unknown: the best average rating, and the largest count that all JSON parsers support.
BEST_RATING = 5
LARGEST_COUNT = 2**53

Sort = Literal["rating", "name", "updated"]


class SkillVersion(Struct, frozen=True):
    """One version of a skill, from the marketplace or from the cache.

    `text` is the whole JSON text as received; `fields` is the decoded text. The digests are SHA-256 (docs/TRUST.md):
    `wire_digest` over the text, `content_digest` over everything but the volatile fields, `exec_digest` over what can
    be executed. `dropped` are the volatile fields that came malformed: the text is without them. `memory` is
    how many bytes it takes, estimated from above; 0 where that is not asked for.
    """

    skill_id: str
    text: str
    fields: Mapping[str, Any]
    wire_digest: bytes
    content_digest: bytes
    exec_digest: bytes
    dropped: tuple[str, ...] = ()
    memory: int = 0


class InvalidItem(Struct, frozen=True):
    """An invalid item of a response: its id, if known, and the reason.

    A `damaged` one is not UTF-8, probably because it was damaged on its way. `if_held` is what it is if the database
    holds a skill of that id already.
    """

    skill_id: str | None
    reason: str
    damaged: bool = False
    if_held: SkillVersion | None = None


class Category(Struct, frozen=True):
    """One category as canonical JSON: texts differ only if the contents do."""

    name: str
    text: str


class Base(Struct, frozen=True):
    """The last version of a skill from the marketplace.

    `version` is as `version_key` makes it. `text` is None as long as the cached text is the base itself. `deleted` says
    that the marketplace has confirmed the deletion while the conflict with a local edit is open. `forged` says that it
    has an invalid signature by our key.
    """

    wire_digest: bytes
    content_digest: bytes
    exec_digest: bytes
    text: str | None
    page: int | None
    deleted: bool
    version: str
    forged: bool = False


class OpenConflict(Struct, frozen=True):
    """An unresolved conflict of a skill; `remote_text` is None if the marketplace deleted it.

    `reopened` says that a user has undone its resolution: it needs a manual decision, whatever the strategy is.
    """

    id: int
    remote_text: str | None
    reopened: bool = False


class SkillState(Struct, frozen=True, dict=True):
    """The stored state of one skill: cached row, base, open conflict. Each part may be missing."""

    skill_id: str
    local_text: str | None = None
    local_updated_at: str | None = None
    base: Base | None = None
    waiting: OpenConflict | None = None

    @property
    def base_text(self) -> str | None:
        """Return the text of the base, wherever it is stored."""
        if self.base is None:
            return None
        return self.local_text if self.base.text is None else self.base.text

    @cached_property
    def base_is_as_it_came(self) -> bool:
        """Whether the base text matches the digest of the received bytes; it is hashed once."""
        from hashlib import sha256  # most commands hash nothing

        return self.base is not None and sha256(self.base_bytes).digest() == self.base.wire_digest

    @cached_property
    def base_bytes(self) -> bytes:
        """The base text as UTF-8, empty if there is none."""
        return (self.base_text or "").encode(errors="surrogatepass")


class CachedSkill(Struct, frozen=True):
    """A skill as readers see it: `source` is marketplace, edited or local; `confirmed_at` is None if it is local."""

    skill_id: str
    text: str
    source: str
    confirmed_at: datetime | None
    stale: bool


class SkillFilter(Struct, frozen=True):
    """A filter for skills: all given conditions must match."""

    category: str | None = None
    tag: str | None = None
    modified: bool = False

    @property
    def everything(self) -> bool:
        """Tell whether this filter matches everything."""
        return self.category is None and self.tag is None and not self.modified


class PublishedVersion(Struct, frozen=True):
    """A version that the marketplace sent, or one written here (`origin` is `local`) that was replaced or deleted.

    The marketplace's newest has no number: it is the base, and has not ended. `ended_by` is `superseded`, `deleted` or
    `deleted_here` (by another program).
    """

    number: int | None
    version: str | None
    text: str
    ended_at: datetime | None
    ended_by: str | None
    content_digest: bytes
    exec_digest: bytes
    origin: str = "marketplace"
