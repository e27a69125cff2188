"""Which marketplace a URL names."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def marketplace_of(url: str) -> str:
    """Return the one spelling of a base URL: two URLs name the same marketplace if and only if theirs are equal.

    Scheme and host are in lower case; the scheme's own port and slashes at the end of the path are left out.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").removesuffix(".")
    if ":" in host:
        host = f"[{ipaddress.IPv6Address(host).compressed}]"
    port = "" if parts.port in (None, _PORTS.get(scheme)) else f":{parts.port}"
    return f"{scheme}://{host}{port}{parts.path.rstrip('/')}"
