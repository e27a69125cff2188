"""Names, normalized for comparison. They are not verified: publishers type them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atom_saas_sync.characters import without_hidden


def publisher_of(fields: Mapping[str, Any] | None) -> str | None:
    """Return `metadata.author`, or None; a value that is not a string as JSON text."""
    metadata = (fields or {}).get("metadata")
    author = metadata.get("author") if isinstance(metadata, Mapping) else None
    if author is None or isinstance(author, str):
        return author or None
    from atom_saas_sync.core.canonical import canonical

    return canonical(author).decode()


def folded(name: str) -> str:
    """Return a name case-folded, without invisible characters and outer blanks."""
    return without_hidden(name).strip().casefold()
