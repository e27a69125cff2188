"""The effective configuration, as one frozen value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from atom_saas_sync.config.secrets import Secret
from atom_saas_sync.config.variables import DEFAULT_URLS
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.model import Strategy

if TYPE_CHECKING:
    from atom_saas_sync.core.location import Location

TOKEN_HINT = "set ATOM_SAAS_API_TOKEN or ATOM_SAAS_API_TOKEN_FILE; tokens are in the dashboard, settings, API tokens"  # noqa: S105


class EffectiveSetting(Struct, frozen=True):
    """One line of `config show`: a variable, its value as text with secrets masked, and where it came from."""

    name: str
    value: str | None
    origin: str


class Settings(Struct, frozen=True):
    """The effective configuration; `shown` has the origin of each variable.

    `token_file` is where `api_token` was read from, to be read again when the token was changed there; None if the
    token came from the variable, which wins. `env_file` is the file that was read, if any. `sources_disagree` says why
    this token must not go to these addresses, None if it may.
    """

    enabled: bool
    api_url: str
    api_token: Secret | None
    token_file: Path | None
    dialect: str
    timeout_seconds: float
    batch_size: int
    connections: int
    sync_interval_minutes: int
    rating_sync_interval_minutes: int
    conflict_strategy: Strategy
    ws_enabled: bool
    ws_url: str
    ws_reconnect_attempts: int
    ws_heartbeat_seconds: int
    rate_limit_per_minute: int
    rate_limit_per_hour: int
    ca_file: Path | None
    allow_insecure: bool
    database: Location
    host: str
    cache_strict_ttl: bool
    admin_token: Secret | None
    history_versions: int
    admission: Literal["open", "age", "review", "lock"]
    admission_scope: Literal["all", "executable"]
    min_age: str
    max_changed: str | None
    policy_file: Path | None
    lock_file: Path | None
    revocations_file: Path | None
    scan_command: str | None
    digest_key: Secret | None
    hash_user_ids: bool
    scheduler_enabled: bool
    instance_id: str
    min_free_disk_gb: float
    env_file: Path | None
    sources_disagree: str | None
    warnings: tuple[str, ...]
    shown: tuple[EffectiveSetting, ...]

    def but(self, **changes: Any) -> Settings:  # noqa: ANN401 - the fields' own types
        """Return these settings with other values of some fields."""
        return replace(self, **changes)


def hosts_of(settings: Settings) -> str:
    """Describe the hosts that requests go to, with their origin; empty for the marketplace's own."""
    if not settings.enabled:
        return ""
    origins = {shown.name: shown.origin for shown in settings.shown}
    urls = {"ATOM_SAAS_API_URL": settings.api_url, "ATOM_SAAS_WS_URL": settings.ws_url}
    if not settings.ws_enabled:
        del urls["ATOM_SAAS_WS_URL"]
    usual = {urlsplit(url).netloc for urls_of_dialect in DEFAULT_URLS.values() for url in urls_of_dialect}
    hosts: dict[str, str] = {}
    for name, url in urls.items():
        host = urlsplit(url).netloc
        if host not in usual:
            hosts.setdefault(host, f"{host} ({name} from {origins[name]})")
    return ", ".join(hosts.values())


def require_agreement(settings: Settings) -> None:
    """Raise ConfigError if the token must not be sent to the configured addresses."""
    if settings.sources_disagree is not None:
        raise ConfigError(
            settings.sources_disagree,
            hint="if the file is yours, name it with --env-file; --no-env-file leaves it out",
        )


def require_token(settings: Settings) -> Secret:
    """Return the token. Raises ConfigError if there is none, or if it must not go where the settings would send it."""
    require_agreement(settings)
    if settings.api_token is None:
        raise ConfigError("no token for the marketplace is set", hint=f"run `atom-sync config init`, or {TOKEN_HINT}")
    return settings.api_token
