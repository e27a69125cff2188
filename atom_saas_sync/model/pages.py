"""Pages of the marketplace's list of skills."""

from __future__ import annotations

from datetime import datetime

from msgspec import Raw, Struct


class SkillPage(Struct, frozen=True):
    """One page of the list: each item as the bytes that came, and `total`, None if the server does not say.

    The items are views of the body, which takes megabytes and stays as long as one of them does.
    """

    items: tuple[Raw, ...]
    total: int | None


class ListedPage(Struct, frozen=True):
    """The answer for a page of the list; `page` is None if it was not modified."""

    page: SkillPage | None
    etag: str | None


class PageRecord(Struct, frozen=True):
    """What is stored of one page of the list; `etag` is None if it must be fetched whole.

    `read_at` is when it was last fetched whole, None if that is not known.
    """

    etag: str | None
    items: int
    total: int | None
    read_at: datetime | None = None
