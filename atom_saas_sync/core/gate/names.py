"""Names as the gate compares them. Nobody has proved a name: each is what a publisher typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atom_saas_sync.characters import without_hidden


def publisher_of(fields: Mapping[str, Any] | None) -> str | None:
    """Return `metadata.author`; None if there is none. One that is not a string is its JSON text."""
    metadata = (fields or {}).get("metadata")
    author = metadata.get("author") if isinstance(metadata, Mapping) else None
    if author is None or isinstance(author, str):
        return author or None
    from atom_saas_sync.core.canonical import canonical

    return canonical(author).decode()


def folded(name: str) -> str:
    """Return a name without case, invisible characters and outer blanks."""
    return without_hidden(name).strip().casefold()
