"""The list of all variables, on which parsing, `config show`, `.env.example` and the manual are based."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from atom_saas_sync.config.values import (
    ADMIN_TOKEN_LEAST,
    TRUE,
    admin_token,
    age,
    api_url,
    boolean,
    command,
    database,
    header_text,
    number,
    number_or_share,
    one_of,
    path,
    token,
    ws_url,
)
from atom_saas_sync.model import STRATEGIES
from atom_saas_sync.places import STATE_DIRECTORY, TOKEN_FILE

SERVICE_DEFAULTS = {
    "ATOM_SAAS_API_TOKEN_FILE": TOKEN_FILE,
    "ATOM_SAAS_DATABASE_URL": f"sqlite:///{STATE_DIRECTORY}/atom.db",
}
"""Defaults with `--system`, unless the service's file overrides them."""

PREFIXES = ("ATOM_SAAS_", "ATOM_SYNC_", "MARKETPLACE_")
PLACEHOLDER = "your_api_token_here"


class Variable(Struct, frozen=True):
    """One variable: its field in Settings (empty if it has none), how its text becomes a value, and what it means."""

    name: str
    field: str
    read: Callable[[str], Any]
    takes: str
    meaning: str
    default: str | None = None
    secret: bool = False


_BOOLEAN = "true or false"
_HEADER_TAKES = "a text of at most 256 ASCII characters, without line breaks"
_ADMIN_TAKES = f"a text of {ADMIN_TOKEN_LEAST} to 256 ASCII characters, without line breaks"
TOKEN_TAKES = "a token that begins with at_saas_, a UUID version 4, or a JWT; without spaces or line breaks"  # noqa: S105

VARIABLES = (
    Variable(
        "ATOM_SAAS_ENABLED",
        "enabled",
        boolean,
        _BOOLEAN,
        "false: local only; no requests are sent to the marketplace",
        "true",
    ),
    Variable(
        "ATOM_SAAS_API_URL",
        "api_url",
        api_url,
        "an http(s) URL with an ASCII host name, without user, password or query",
        "base URL of the marketplace's API; https://staging-api.atomsaas.com is for staging",
    ),
    Variable(
        "ATOM_SAAS_API_TOKEN", "api_token", token, TOKEN_TAKES, "the token of this instance; required", secret=True
    ),
    Variable(
        "ATOM_SAAS_API_TOKEN_FILE",
        "",
        path,
        "the path of a file",
        "file that contains the token, instead of ATOM_SAAS_API_TOKEN; under systemd, the credential atom-saas-token",
    ),
    Variable(
        "ATOM_SAAS_API_DIALECT",
        "dialect",
        one_of("v1", "plain", "mothership"),
        "v1, plain or mothership",
        "paths and headers of the API; if not set, mothership for a URL on atomagentos.com or "
        "one that ends in /api/v1/marketplace",
        "v1",
    ),
    Variable(
        "ATOM_SAAS_API_TIMEOUT_SECONDS",
        "timeout_seconds",
        number(1, 120, float),
        "a number from 1 to 120",
        "time limit for a whole request, in seconds",
        "30",
    ),
    Variable(
        "ATOM_SAAS_SYNC_BATCH_SIZE",
        "batch_size",
        number(1, 1000),
        "a whole number from 1 to 1000",
        "skills requested per page",
        "1000",
    ),
    Variable(
        "ATOM_SAAS_SYNC_CONNECTIONS",
        "connections",
        number(1, 10),
        "a whole number from 1 to 10",
        "largest number of requests at a time, in the whole process",
        "6",
    ),
    Variable(
        "ATOM_SAAS_SYNC_INTERVAL_MINUTES",
        "sync_interval_minutes",
        number(5, 60),
        "a whole number from 5 to 60",
        "minutes between two polls of skills and categories",
        "15",
    ),
    Variable(
        "ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES",
        "rating_sync_interval_minutes",
        number(10, 120),
        "a whole number from 10 to 120",
        "minutes between two syncs of ratings",
        "30",
    ),
    Variable(
        "ATOM_SAAS_CONFLICT_STRATEGY",
        "conflict_strategy",
        one_of(*STRATEGIES),
        "remote_wins, local_wins, merge or manual",
        "what happens to a skill that was changed on both sides",
        "remote_wins",
    ),
    Variable("ATOM_SAAS_WS_ENABLED", "ws_enabled", boolean, _BOOLEAN, "false: polling only", "true"),
    Variable(
        "ATOM_SAAS_WS_URL",
        "ws_url",
        ws_url,
        "a ws(s) URL with an ASCII host name, without user, password or token",
        "WebSocket address from which `watch` receives changes; the token is added to it",
    ),
    Variable(
        "ATOM_SAAS_WS_RECONNECT_ATTEMPTS",
        "ws_reconnect_attempts",
        number(0, 100),
        "a whole number from 0 to 100",
        "failures in a row before the next attempt is delayed by an hour; 0: never reconnect",
        "10",
    ),
    Variable(
        "ATOM_SAAS_WS_HEARTBEAT_INTERVAL",
        "ws_heartbeat_seconds",
        number(10, 120),
        "a whole number from 10 to 120",
        "seconds between two pings",
        "30",
    ),
    Variable(
        "ATOM_SAAS_RATE_LIMIT_PER_MINUTE",
        "rate_limit_per_minute",
        number(1, 100_000),
        "a whole number from 1 to 100000",
        "requests a minute; a limit that the marketplace declares can only lower it",
        "100",
    ),
    Variable(
        "ATOM_SAAS_RATE_LIMIT_PER_HOUR",
        "rate_limit_per_hour",
        number(1, 100_000),
        "a whole number from 1 to 100000",
        "requests an hour; a limit that the marketplace declares can only lower it",
        "1000",
    ),
    Variable("ATOM_SAAS_CA_FILE", "ca_file", path, "the path of a file", "additional certificate authorities, as PEM"),
    Variable(
        "ATOM_SAAS_ALLOW_INSECURE",
        "allow_insecure",
        boolean,
        _BOOLEAN,
        "true: allow plain http:// and ws:// to hosts other than loopback",
        "false",
    ),
    Variable(
        "ATOM_SAAS_DATABASE_URL",
        "database",
        database,
        "sqlite:///relative/path, sqlite:////absolute/path or a plain path, without ~; or "
        "postgresql://user@host:port/name?sslmode=…&schema=…",
        "the database; under systemd, $STATE_DIRECTORY/atom.db by default",
    ),
    Variable(
        "ATOM_SAAS_DATABASE_PASSWORD_FILE",
        "",
        path,
        "the path of a private file",
        "password for a database on a server; under systemd, the credential atom-sync-database-password",
    ),
    Variable(
        "ATOM_SYNC_HOST",
        "host",
        header_text,
        _HEADER_TAKES,
        "name of this host among those that share a database; by default the system's host name",
    ),
    Variable(
        "ATOM_SAAS_CACHE_STRICT_TTL",
        "cache_strict_ttl",
        boolean,
        _BOOLEAN,
        "true: remove entries after 24 hours even if the marketplace was unreachable all that time",
        "false",
    ),
    Variable(
        "ATOM_SYNC_ADMIN_TOKEN",
        "admin_token",
        admin_token,
        _ADMIN_TAKES,
        "token for /api/admin of serve-health; if not set, that API is closed (403)",
        secret=True,
    ),
    Variable(
        "ATOM_SYNC_HISTORY_VERSIONS",
        "history_versions",
        number(0, 1000),
        "a whole number from 0 to 1000",
        "number of former versions kept for each skill",
        "10",
    ),
    Variable(
        "ATOM_SYNC_ADMISSION",
        "admission",
        one_of("open", "age", "review", "lock"),
        "open, age, review or lock",
        "which versions from the marketplace are served: open: all, at once; age: those that are old enough; review: "
        "approved ones; lock: those in the lock file",
        "open",
    ),
    Variable(
        "ATOM_SYNC_ADMISSION_SCOPE",
        "admission_scope",
        one_of("all", "executable"),
        "all or executable",
        "which changes need admission: all; executable: only changes to executable fields",
        "all",
    ),
    Variable(
        "ATOM_SYNC_MIN_AGE",
        "min_age",
        age,
        "a whole number followed by s, m, h or d, up to 90d, or 0",
        "minimum time since a version was first seen here, with ATOM_SYNC_ADMISSION=age",
        "72h",
    ),
    Variable(
        "ATOM_SYNC_MAX_CHANGED",
        "max_changed",
        number_or_share,
        "a whole number or a share such as 5%",
        "maximum number of changed skills in one run, or share of the served skills; above it, the run admits none",
    ),
    Variable("ATOM_SYNC_POLICY_FILE", "policy_file", path, "the path of a file", "admission rules, as TOML"),
    Variable(
        "ATOM_SYNC_LOCK_FILE",
        "lock_file",
        path,
        "the path of a file",
        "file written by `lock write`; required with ATOM_SYNC_ADMISSION=lock",
    ),
    Variable(
        "ATOM_SYNC_REVOCATIONS_FILE",
        "revocations_file",
        path,
        "the path of a file",
        "versions, skills and publishers that must not be served, as JSON",
    ),
    Variable(
        "ATOM_SYNC_SCAN_COMMAND",
        "scan_command",
        command,
        "a command line, split as a shell does",
        "program that scans each version before it is admitted; gets JSON on standard input",
    ),
    Variable(
        "ATOM_SYNC_DIGEST_KEY_FILE",
        "",
        path,
        "the path of a private file of at least 32 bytes, outside the database's directory",
        "key that signs the digests of skills; under systemd, the credential atom-sync-digest-key",
    ),
    Variable(
        "ATOM_SYNC_HASH_USER_IDS",
        "hash_user_ids",
        boolean,
        _BOOLEAN,
        "true: ratings contain a keyed hash instead of the user id",
        "false",
    ),
    Variable(
        "ATOM_SYNC_MIN_FREE_DISK_GB",
        "min_free_disk_gb",
        number(0, 10_000, float),
        "a number from 0 to 10000",
        "minimum free disk space, in GB; below it, /health/ready reports not ready, and a sync that writes much stops",
        "1",
    ),
    Variable(
        "ENABLE_SCHEDULER",
        "scheduler_enabled",
        boolean,
        _BOOLEAN,
        "true: allow runs started by a timer (--scheduled) and the jobs of `watch --jobs`",
        "false",
    ),
    Variable(
        "ATOM_SYNC_SYSTEM",
        "",
        boolean,
        _BOOLEAN,
        "true: like --system, use the settings, token and database of the service; only from the environment",
        "false",
    ),
    Variable(
        "ATOM_INSTANCE_ID",
        "instance_id",
        header_text,
        _HEADER_TAKES,
        "name of this instance for the mothership; by default derived from the token",
    ),
)

DEFAULT_URLS = {
    "v1": ("https://api.atomsaas.com", "wss://api.atomsaas.com/ws"),
    "plain": ("https://api.atomsaas.com", "wss://api.atomsaas.com/ws"),
    "mothership": (
        "https://atomagentos.com/api/v1/marketplace",
        "wss://atomagentos.com/api/ws/satellite/connect",
    ),
}
_WHERE_SECRETS_ARE = {
    "ATOM_SAAS_API_TOKEN_FILE",
    "ATOM_SAAS_DATABASE_PASSWORD_FILE",
    "ATOM_SYNC_DIGEST_KEY_FILE",
    "CREDENTIALS_DIRECTORY",
    "PGPASSFILE",
    "PGPASSWORD",
}
URL_WITH_PASSWORD = re.compile(r"postgres[a-z+]*://[^/?#]*:[^/?#]*@", re.IGNORECASE)
_USUAL_URLS = dict(zip(("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL"), DEFAULT_URLS["v1"], strict=True))


def value_of(name: str, text: str | None = None) -> Any:  # noqa: ANN401 - of the variable's type
    """Return the value of a variable from its text; without one, its default in the default dialect.

    Raises ValueError with what the variable takes.
    """
    if text is None and name in _USUAL_URLS:
        return _USUAL_URLS[name]
    variable = next(each for each in VARIABLES if each.name == name)
    try:
        return variable.read(variable.default or "" if text is None else text)
    except (ValueError, OverflowError):
        raise ValueError(variable.takes) from None


def is_system(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment asks for the service's settings, as `--system` does."""
    return environ.get("ATOM_SYNC_SYSTEM", "").lower() in TRUE


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without our secrets and their files, for child processes that are not ours."""
    ours = {variable.name for variable in VARIABLES if variable.secret} | _WHERE_SECRETS_ARE
    if URL_WITH_PASSWORD.match(environment.get("ATOM_SAAS_DATABASE_URL", "")):
        ours.add("ATOM_SAAS_DATABASE_URL")
    return {name: value for name, value in environment.items() if name not in ours}
