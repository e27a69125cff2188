"""TLS certificate authorities: the same for HTTP and for the WebSocket."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

import httpx

from atom_saas_sync.errors import ConfigError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the trusted authorities: the default ones and those in the file. Raises ConfigError.

    The default ones are those of SSL_CERT_FILE, else of SSL_CERT_DIR, else of certifi.
    """
    cert_file, cert_dir, key_log = (os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"))
    if cert_file:
        _check_file("SSL_CERT_FILE", cert_file)
    elif cert_dir:
        _check_directories("SSL_CERT_DIR", cert_dir)
    if key_log:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).keylog_filename = key_log
        except OSError as error:
            raise _unusable("SSLKEYLOGFILE", key_log, error.strerror or str(error)) from error
    context = httpx.create_ssl_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except OSError as error:
            raise ConfigError(f"ATOM_SAAS_CA_FILE: {ca_file} contains no readable certificates: {error}") from error
    return context


def _check_file(name: str, path: str) -> None:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise _unusable(name, path, "it is not a regular file")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise _unusable(name, path, "it contains no certificates in PEM format") from None
    except OSError as error:
        raise _unusable(name, path, error.strerror or str(error)) from error


def _check_directories(name: str, paths: str) -> None:
    """Check a list of directories, one of which must exist. OpenSSL would silently trust nobody."""
    failure: OSError | None = None
    for path in filter(None, paths.split(os.pathsep)):
        try:
            os.listdir(path)  # noqa: PTH208 - the error matters, not the names
        except OSError as error:
            failure = error
        else:
            return
    reason = failure.strerror if failure and failure.strerror else "it does not name a directory"
    raise _unusable(name, paths, reason)


def _unusable(name: str, path: str, reason: str) -> ConfigError:
    return ConfigError(f"{name}: {path}: {reason}", hint=f"correct or unset {name}")


def cause_of(error: BaseException) -> str | None:
    """Describe the root cause of a failed connection; never with a URL, which may contain the token."""
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return f"TLS: {root.verify_message}"
    if isinstance(root, ssl.SSLError):
        return f"TLS: {root.reason or 'the handshake failed'}"
    return None if root is None else root.strerror


def is_of_tls(error: BaseException) -> bool:
    """Tell whether a connection failed because of a certificate or the handshake."""
    return isinstance(_root(error), ssl.SSLError)


def _root(error: BaseException) -> OSError | None:
    """Return the first of the errors that led to this one that says something about the connection."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    said = (each for each in reversed(chain) if isinstance(each, OSError))
    return next((each for each in said if each.strerror or isinstance(each, ssl.SSLError)), None)
