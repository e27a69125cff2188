"""Text from the marketplace, made safe to print."""

from __future__ import annotations

from urllib.parse import quote

from atom_saas_sync.characters import without_hidden

_MASK = "********"
_MOST = 120


def plain(text: str, token: str) -> str:
    """Return a form of a text that is safe to show: printable, without the token, on one line, and cut.

    Masking comes last, because removing invisible characters can join the parts of a token.
    """
    shown = without_hidden(" ".join(text.split()))
    for secret in (token, quote(token, safe="")):
        shown = shown.replace(secret, _MASK) if secret else shown
    return f"{shown[: _MOST - 1]}…" if len(shown) > _MOST else shown
