"""Settings that depend on several variables: the token, addresses, certificates, paths; and their consistency."""

from __future__ import annotations

import ipaddress
import os
import stat
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from atom_saas_sync.config.database import find_database, find_host
from atom_saas_sync.config.files import is_beside, is_missing, read_digest_key, read_token_file_and_rights
from atom_saas_sync.config.secrets import PERHAPS_SECRET, Secret
from atom_saas_sync.config.sources import SYSTEM_ORIGIN, Sources
from atom_saas_sync.config.variables import DEFAULT_URLS
from atom_saas_sync.core.marketplace import dialect_of, platforms_differ, with_mothership_path
from atom_saas_sync.errors import ConfigError

# The variables that determine where the token goes, and how it is protected on the way.
_DESTINATIONS = ("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL", "ATOM_SAAS_CA_FILE", "ATOM_SAAS_ALLOW_INSECURE")


def complete(sources: Sources) -> None:
    """Derive the settings that depend on several variables, and report contradictions."""
    _find_token(sources)
    _find_dialect(sources)
    _find_urls(sources)
    _find_authorities(sources)
    find_host(sources)
    find_database(sources)
    _find_digest_key(sources)
    _find_gate_files(sources)
    _find_instance(sources)
    _find_misplaced_token(sources)


def _find_token(sources: Sources) -> None:
    name, file_name = "ATOM_SAAS_API_TOKEN", "ATOM_SAAS_API_TOKEN_FILE"
    credentials = sources.environ.get("CREDENTIALS_DIRECTORY")
    if (sources.values[file_name] is None or sources.origins[file_name] == SYSTEM_ORIGIN) and credentials:
        credential = Path(credentials) / "atom-saas-token"
        if os.path.lexists(credential):
            sources.values[file_name] = credential
            sources.origins[file_name] = "systemd credential"
    if sources.values[file_name] is None:
        return
    is_usual = sources.origins[file_name] == SYSTEM_ORIGIN
    if name in sources.origins:
        if is_usual:
            sources.values[file_name] = None
            return
        sources.warnings.append(f"{name} (from {sources.origins[name]}) overrides {file_name}; set one of them")
        return
    path = sources.values[file_name] = sources.absolute(file_name)
    if is_usual and is_missing(path):
        return
    sources.token_file = path
    try:
        sources.values[name], readable = read_token_file_and_rights(path)
        if readable:
            sources.warnings.append(f"{path} can be read by others; chmod 600 it")
    except ConfigError as error:
        sources.denied = sources.denied or (error.__cause__ if isinstance(error.__cause__, PermissionError) else None)
        sources.problems.append(error.message)
    sources.origins[name] = str(path)


def _find_dialect(sources: Sources) -> None:
    """Derive the dialect from the URL if it is not set, and complete the mothership's URL."""
    name, url = "ATOM_SAAS_API_DIALECT", sources.values["ATOM_SAAS_API_URL"]
    if url is None:
        return
    if sources.origins[name] == "default" and (implied := dialect_of(url)):
        sources.values[name], sources.origins[name] = implied, "derived from ATOM_SAAS_API_URL"
    if sources.values[name] == "mothership":
        sources.values["ATOM_SAAS_API_URL"] = with_mothership_path(url)


def _find_urls(sources: Sources) -> None:
    defaults = DEFAULT_URLS[sources.values["ATOM_SAAS_API_DIALECT"] or "v1"]
    for name, default in zip(("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL"), defaults, strict=True):
        if name not in sources.origins:
            sources.values[name], sources.origins[name] = default, "default"
        url = sources.values[name]
        insecure = url is not None and urlsplit(url).scheme in {"http", "ws"}
        if insecure and not sources.values["ATOM_SAAS_ALLOW_INSECURE"] and not _is_loopback(urlsplit(url).hostname):
            shown = "the URL" if PERHAPS_SECRET.search(url) else url
            sources.problems.append(
                f"{name}: {shown} is not encrypted, and its host is not loopback; "
                "use https or wss, or set ATOM_SAAS_ALLOW_INSECURE=true"
            )
    if (
        sources.values["ATOM_SAAS_WS_ENABLED"]
        and sources.origins["ATOM_SAAS_API_URL"] != "default"
        and sources.origins["ATOM_SAAS_WS_URL"] == "default"
        and sources.values["ATOM_SAAS_API_URL"] not in (None, defaults[0])
    ):
        sources.warnings.append(
            f"ATOM_SAAS_API_URL is set and ATOM_SAAS_WS_URL is not: `watch` sends the token to {defaults[1]}; "
            "set ATOM_SAAS_WS_URL, or ATOM_SAAS_WS_ENABLED=false"
        )
    elif sources.values["ATOM_SAAS_WS_ENABLED"]:
        _warn_of_two_platforms(sources)


def _warn_of_two_platforms(sources: Sources) -> None:
    api_url, ws_url = sources.values["ATOM_SAAS_API_URL"], sources.values["ATOM_SAAS_WS_URL"]
    if api_url and ws_url and platforms_differ(api_url, ws_url, sources.values["ATOM_SAAS_API_DIALECT"] or "v1"):
        sources.warnings.append(
            f"ATOM_SAAS_API_URL ({urlsplit(api_url).hostname}) and ATOM_SAAS_WS_URL ({urlsplit(ws_url).hostname}) "
            "belong to different platforms: `watch` would follow another marketplace; correct one of them"
        )


def _find_authorities(sources: Sources) -> None:
    name = "ATOM_SAAS_CA_FILE"
    if sources.values[name] is None:
        return
    import ssl

    path = sources.values[name] = sources.absolute(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            sources.problems.append(f"{name}: {path}: is not a regular file")
            return
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        pass  # reported below: nothing was loaded
    except OSError as error:
        sources.problems.append(f"{name}: {path}: {error.strerror}")
        return
    if not context.cert_store_stats()["x509"]:
        sources.problems.append(f"{name}: {path} contains no certificates in PEM form")


def _find_digest_key(sources: Sources) -> None:
    name = "ATOM_SYNC_DIGEST_KEY_FILE"
    credentials = sources.environ.get("CREDENTIALS_DIRECTORY")
    is_credential = False
    if sources.values[name] is None and name not in sources.wrong and credentials:
        credential = Path(credentials) / "atom-sync-digest-key"
        if is_credential := os.path.lexists(credential):
            sources.values[name], sources.origins[name] = credential, "systemd credential"
    if sources.values[name] is None:
        return
    path = sources.values[name] = sources.absolute(name)
    try:
        database = sources.values["ATOM_SAAS_DATABASE_URL"]
        file = database if isinstance(database, Path) else None
        key = read_digest_key(path, file, is_credential=is_credential)
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        sources.denied = sources.denied or (error if isinstance(error, PermissionError) else None)
        sources.problems.append(f"{name}: {path}: {reason}")
    else:
        sources.digest_key = Secret(key.hex())


def _find_gate_files(sources: Sources) -> None:
    """Make the paths of the gate's files absolute; each run reads the files again."""
    for name in ("ATOM_SYNC_POLICY_FILE", "ATOM_SYNC_LOCK_FILE", "ATOM_SYNC_REVOCATIONS_FILE"):
        if sources.values[name] is not None:
            sources.values[name] = sources.absolute(name)
    admission, lock_file = "ATOM_SYNC_ADMISSION", "ATOM_SYNC_LOCK_FILE"
    if sources.values[admission] == "lock" and sources.values[lock_file] is None and lock_file not in sources.wrong:
        sources.problems.append(
            f"{lock_file}: is not set, but {admission} (from {sources.origins[admission]}) is lock, which needs it"
        )


def _find_instance(sources: Sources) -> None:
    name = "ATOM_INSTANCE_ID"
    if name not in sources.origins:
        token: Secret | None = sources.values["ATOM_SAAS_API_TOKEN"]
        sources.origins[name] = "derived from the token" if token else "not set"
        sources.values[name] = sha256(token.reveal().encode()).hexdigest()[:32] if token else ""


def _find_misplaced_token(sources: Sources) -> None:
    """Refuse the token in values that are shown or sent unmasked; a different UUID is a good instance name."""
    token: Secret | None = sources.values["ATOM_SAAS_API_TOKEN"]
    for name in ("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL", "ATOM_INSTANCE_ID"):
        text = sources.values[name] or ""
        if "at_saas_" in text or (token is not None and token.reveal() in text):
            sources.values[name], sources.wrong[name] = None, "…"
            sources.problems.append(f"{name}: contains a token, which belongs in ATOM_SAAS_API_TOKEN only")


def disagreement(sources: Sources) -> str | None:
    """Say why the token must not be sent to the effective addresses; None if it may.

    An address from a .env found in the working directory may only get a token from there.
    """
    is_sent = sources.values["ATOM_SAAS_ENABLED"] is not False and sources.values["ATOM_SAAS_API_TOKEN"] is not None
    if not sources.is_found or not is_sent or _token_is_found(sources):
        return None
    found = [
        name for name in _DESTINATIONS if sources.origins.get(name) == sources.file_name and _matters(sources, name)
    ]
    if not found:
        return None
    source = sources.origins["ATOM_SAAS_API_TOKEN"]
    return (
        f"{', '.join(found)}: from {sources.file_name}, but the token is from {source}; "
        "what a .env file in the working directory says is used only with a token from the same file, "
        "or from a file beside it that it names"
    )


def _token_is_found(sources: Sources) -> bool:
    """Tell whether the token is from `.env`, or from an ordinary file beside it that it names."""
    if sources.token_file is None:
        return sources.origins["ATOM_SAAS_API_TOKEN"] == sources.file_name
    if sources.origins["ATOM_SAAS_API_TOKEN_FILE"] != sources.file_name:
        return False
    return is_beside(sources.token_file, sources.directory)


def _matters(sources: Sources, name: str) -> bool:
    """Tell whether this value sends the token elsewhere, or with less protection, than the default."""
    value = sources.values[name]
    if name == "ATOM_SAAS_WS_URL" and not sources.values["ATOM_SAAS_WS_ENABLED"]:
        return False
    urls = DEFAULT_URLS[sources.values["ATOM_SAAS_API_DIALECT"] or "v1"]
    return value not in (None, False, *urls)


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost":  # not its subdomains: a name server decides whether they are loopback
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
