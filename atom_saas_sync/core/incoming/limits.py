"""Limits on data from a marketplace; docs/SECURITY.md gives the reason for each."""

from __future__ import annotations

MAX_SKILL_BYTES = 1024 * 1024
MAX_ID_LENGTH = 256
MAX_FRAME_BYTES = 1024 * 1024
MAX_PAGE_ITEMS = 1000
"""The largest `page_size` of the contract. A server may send more items than requested, but not more than this."""

MAX_PAGE_MEMORY = 40 * 1024 * 1024
"""For the changed skills of a page, or another response, decoded. Beyond it, pages are fetched in smaller parts."""

MAX_MESSAGE_MEMORY = 12 * 1024 * 1024
"""For a decoded message (upper estimate). Larger ones are dropped; polling fetches the same changes."""

MAX_CATEGORIES = 10_000
MAX_COUNT = 2**53
"""JSON parsers disagree about larger whole numbers, and no count is that large."""
MAX_RATINGS = 100
MAX_COMMENT_LENGTH = 1000
