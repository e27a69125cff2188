"""Values that must not be shown."""

from __future__ import annotations

import re
from typing import NoReturn

from atom_saas_sync.characters import counted

_MASKED = "********"
# Values that messages must not repeat: a URL with a password or key, a token in the wrong place.
PERHAPS_SECRET = re.compile(r"[@?]|password\s*=|://.*#|at_saas_|eyJ|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4")


class Secret:
    """A string whose repr and str are masked; `reveal()` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({_MASKED})"

    def __str__(self) -> str:
        return _MASKED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: its text would stand in what comes of it")


def mask(secret: Secret) -> str:
    """Return the masked form of a secret: its length, and the public prefix of a token."""
    text = secret.reveal()
    prefix = "at_saas_" if text.startswith("at_saas_") else ""
    return f"{prefix}… ({counted(len(text), 'character')})"


def without_query(text: str) -> str:
    """Return a URL without its query, which may contain a key."""
    return f"{text.partition('?')[0]}?…" if "://" in text and "?" in text else text
