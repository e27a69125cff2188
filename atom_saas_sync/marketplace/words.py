"""Words of the other side, made fit to be shown."""

from __future__ import annotations

from urllib.parse import quote

from atom_saas_sync.characters import without_hidden

_MASK = "********"
_MOST = 120


def plain(text: str, token: str) -> str:
    """Return what can be shown of a text: printable, without the token, on one line, and cut.

    Masked first, a token that was broken up by invisible characters would be whole again.
    """
    shown = without_hidden(" ".join(text.split()))
    for secret in (token, quote(token, safe="")):
        shown = shown.replace(secret, _MASK) if secret else shown
    return f"{shown[: _MOST - 1]}…" if len(shown) > _MOST else shown
