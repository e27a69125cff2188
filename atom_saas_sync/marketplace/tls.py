"""Whom we connect to, and whom we trust over TLS: the same authorities for HTTP and for the WebSocket."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx

from atom_saas_sync.errors import ConfigError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the authorities that we trust: the usual ones and those of the file. Raises ConfigError."""
    context = httpx.create_ssl_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except OSError as error:
            raise ConfigError(f"ATOM_SAAS_CA_FILE: {ca_file} holds no readable certificates: {error}") from error
    return context


def http_client(url: str, ca_file: Path | None, **options: Any) -> httpx.Client:  # noqa: ANN401 - those of httpx
    """Return a client for the host of `url`, which follows no redirects.

    Raises ConfigError if the host's name, the authorities, or the proxy that the environment names cannot be used.
    """
    try:
        httpx.URL(url).host  # noqa: B018 - it decodes an xn-- name only when it is asked for
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError(f"{url} has no valid host name", hint="check ATOM_SAAS_API_URL") from error
    verify = tls_context(ca_file) if url.startswith("https:") else False
    try:
        return httpx.Client(verify=verify, follow_redirects=False, **options)
    except ImportError:
        raise ConfigError(
            "a SOCKS proxy (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) needs the package socksio",
            hint="install it beside atom-sync, name an HTTP proxy, or exclude this host with NO_PROXY",
        ) from None
    except (ValueError, httpx.InvalidURL):  # their texts may hold the proxy's password
        raise ConfigError(
            "the proxy that the environment names (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) has no valid address"
        ) from None


def cause_of(error: BaseException) -> str | None:
    """Return what was at the bottom of a failed connection, in words; never a URL, which may hold the token."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for each in reversed(chain):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"TLS: {each.verify_message}"
        if isinstance(each, ssl.SSLError):
            return f"TLS: {each.reason or 'the handshake failed'}"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return None
