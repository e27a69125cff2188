"""Proxy selection: one rule for HTTP and for the WebSocket.

Only encrypted connections use a proxy, because over plain http or ws it could read the token. Loopback never does.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit
from urllib.request import getproxies

from msgspec import Struct

from atom_saas_sync.errors import ConfigError

_VARIABLES = {"https": "HTTPS_PROXY", "all": "ALL_PROXY"}
_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})
_NO_PROXY_ENTRY = re.compile(
    r"(?:\*?\.)?(?:\[(?P<bracketed>[^\]]+)\](?P<size>/\d+)?|(?P<host>[^:]+))(?::(?P<port>\d+))?"
)


class Proxy(Struct, frozen=True):
    """A proxy, and the variable that sets it. `url` may contain a password."""

    url: str
    variable: str

    def __str__(self) -> str:
        """Return the proxy's description without its password."""
        parts = urlsplit(self.url)
        return f"the proxy {parts.scheme}://{parts.netloc.rpartition('@')[2]} ({self.variable})"


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for a connection to `url`, from HTTPS_PROXY, ALL_PROXY and NO_PROXY in either case.

    Raises ConfigError if the proxy's address is not valid.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in {"https", "wss"} or _is_loopback(host):
        return None
    named = getproxies()
    if _is_excluded(host, parts.port or 443, named.get("no", "")):
        return None
    for kind, variable in _VARIABLES.items():
        if kind in named:
            return Proxy(_checked(named[kind], variable), variable)
    return None


def _checked(address: str, variable: str) -> str:
    """Return the address with a scheme. The error does not repeat it, because it may contain a password."""
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        url.encode("ascii")
    except ValueError:  # of the port, brackets or characters
        usable = False
    if not usable:
        raise ConfigError(
            f"{variable}: invalid proxy address: expected http://host:port or socks5://host:port",
            hint=f"correct {variable}, or exclude this host with NO_PROXY",
        )
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_excluded(host: str, port: int, no_proxy: str) -> bool:
    return any(_covers(entry, host, port) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of NO_PROXY matches this host: a name, suffix, address or network, with or without port."""
    if entry == "*":
        return True
    address, network = _address(host), _network(entry)
    if network is None:
        parts = _NO_PROXY_ENTRY.fullmatch(entry)
        if parts is None or (parts["port"] and int(parts["port"]) != port):
            return False
        name = parts["host"] or f"{parts['bracketed']}{parts['size'] or ''}"
        network = _network(name)
        if network is None:
            name = name.rstrip(".")
            return host == name or host.endswith(f".{name}")
    return address is not None and address in network


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
