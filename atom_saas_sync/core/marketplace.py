"""Which marketplace a URL names, and which platform it belongs to (marketplace-api.md, section 2)."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_MOTHERSHIP_DOMAIN = "atomagentos.com"
_MOTHERSHIP_PATH = "/api/v1/marketplace"
_MOTHERSHIP_WS_PATH = "/api/ws/satellite/connect"
_SAAS_DOMAIN = "atomsaas.com"


def marketplace_of(url: str) -> str:
    """Return the canonical form of a base URL: two URLs name the same marketplace if and only if these are equal.

    Scheme and host are in lower case; the default port and trailing slashes are removed.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").removesuffix(".")
    if ":" in host:
        host = f"[{ipaddress.IPv6Address(host).compressed}]"
    port = "" if parts.port in (None, _PORTS.get(scheme)) else f":{parts.port}"
    return f"{scheme}://{host}{port}{parts.path.rstrip('/')}"


def dialect_of(api_url: str) -> str | None:
    """Return the dialect that a base URL implies: `mothership`, or None."""
    parts = urlsplit(api_url)
    is_mothership = _is_on(parts, _MOTHERSHIP_DOMAIN) or parts.path.rstrip("/").endswith(_MOTHERSHIP_PATH)
    return "mothership" if is_mothership else None


def with_mothership_path(api_url: str) -> str:
    """Return the base URL of the mothership's API; a bare host on its domain gets the path of the API."""
    parts = urlsplit(api_url)
    is_bare = _is_on(parts, _MOTHERSHIP_DOMAIN) and not parts.path.strip("/")
    return f"{api_url.rstrip('/')}{_MOTHERSHIP_PATH}" if is_bare else api_url


def platforms_differ(api_url: str, ws_url: str, dialect: str) -> bool:
    """Tell whether the two URLs belong to different platforms, judging by their domains, paths and the dialect.

    A WebSocket URL on a separate domain matches every API.
    """
    api, ws = urlsplit(api_url), urlsplit(ws_url)
    of_api = _domain(api) or (_MOTHERSHIP_DOMAIN if dialect == "mothership" else _SAAS_DOMAIN)
    of_ws = _domain(ws) or (_MOTHERSHIP_DOMAIN if ws.path.rstrip("/").endswith(_MOTHERSHIP_WS_PATH) else None)
    return of_ws is not None and of_ws != of_api


def _domain(parts: SplitResult) -> str | None:
    return next((domain for domain in (_MOTHERSHIP_DOMAIN, _SAAS_DOMAIN) if _is_on(parts, domain)), None)


def _is_on(parts: SplitResult, domain: str) -> bool:
    host = (parts.hostname or "").removesuffix(".")
    return host == domain or host.endswith(f".{domain}")
