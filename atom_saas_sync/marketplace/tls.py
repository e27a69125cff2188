"""Whom we trust over TLS: the same authorities for HTTP and for the WebSocket."""

from __future__ import annotations

import ssl
from pathlib import Path

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
