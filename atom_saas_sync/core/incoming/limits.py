"""How much we accept from a marketplace; docs/SECURITY.md says why of each."""

from __future__ import annotations

MAX_SKILL_BYTES = 1024 * 1024
MAX_ID_LENGTH = 256
MAX_FRAME_BYTES = 1024 * 1024
MAX_PAGE_ITEMS = 1000
"""The largest `page_size` of the contract. A server may send more than was asked for, but not more than that."""

MAX_PAGE_MEMORY = 40 * 1024 * 1024
"""Of the changed skills of a page, or of another answer, decoded. More is refused, and pages asked for in smaller."""

MAX_MESSAGE_MEMORY = 24 * 1024 * 1024
"""Of a message, decoded, estimated from above. Larger ones are dropped: polling fetches what they said."""

MAX_CATEGORIES = 10_000
MAX_COUNT = 2**53
"""Larger whole numbers are not the same number in every JSON parser, and none is a count."""
MAX_RATINGS = 100
MAX_COMMENT_LENGTH = 1000
