"""The text of an environment file: the commented example with some of its variables set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_PLAIN = re.compile(r"[A-Za-z0-9_./:-]+")


def assignment(name: str, value: str) -> str:
    """Return the line that sets a variable, quoted as `.env` files need it."""
    if _PLAIN.fullmatch(value):
        return f"{name}={value}"
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{quoted}'"


def filled(example: str, values: Mapping[str, str | None]) -> str:
    """Return the example with these variables set, each in its place; None comments one out.

    Raises KeyError for a variable that the example does not have.
    """
    lines = example.splitlines()
    places = {
        match[1]: number for number, line in enumerate(lines) if (match := re.match(r"(?:# )?([A-Z][A-Z0-9_]*)=", line))
    }
    for name, value in values.items():
        number = places[name]
        lines[number] = f"# {name}=" if value is None else assignment(name, value)
    return "\n".join(lines) + "\n"


def websocket_url(api_url: str) -> str:
    """Return where a marketplace at this address usually has its WebSocket: at /ws of the same host."""
    parts = urlsplit(api_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}/ws"
