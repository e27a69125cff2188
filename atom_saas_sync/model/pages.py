"""Pages of the marketplace's list of skills."""

from __future__ import annotations

from datetime import datetime

from msgspec import Raw, Struct


class FetchedPage(Struct):
    """A page of the list as it came: each item as its bytes, and `total`, None if the server does not say.

    `items` is None if the page was not modified, and empty once they have been parsed: they are views of the body,
    which takes megabytes. What was asked for is `number`, at `asked_at`; `beyond` says that the pages before it hold
    all skills.
    """

    items: tuple[Raw, ...] | None
    total: int | None
    etag: str | None = None
    number: int = 0
    size: int = 0
    size_bytes: int = 0
    asked_at: datetime | None = None
    beyond: bool = False


class PageRecord(Struct, frozen=True):
    """The stored record of a page; `etag` is None if it must be fetched in full.

    `read_at` is when it was last fetched in full, None if unknown.
    """

    etag: str | None
    items: int
    total: int | None
    read_at: datetime | None = None
