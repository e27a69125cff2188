"""Building blocks of statements, shared by several subjects."""

from __future__ import annotations

NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
NOT_OURS = "NOT EXISTS (SELECT 1 FROM bulk_write)"
NEW_VERSION = "lower(hex(randomblob(16)))"
