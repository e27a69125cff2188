"""The settings: environment and `.env` to one frozen value, or one error that names all problems.

Nobody else reads the environment. `VARIABLES` is the one list of what there is: parsing, `config show` and
`.env.example` follow it (marketplace-api.md, section 1).
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import SplitResult, parse_qsl, urlsplit

from atom_saas_sync.core.marketplace import dialect_of, platforms_differ, with_mothership_path
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.model import STRATEGIES, Strategy
from atom_saas_sync.places import SETTINGS, STATE_DIRECTORY, TOKEN_FILE

_MASKED = "********"
_TOKEN_FORMS = (
    re.compile(r"at_saas_[!-~]+"),
    re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"),
    re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"),
)
_TOKEN_FILE_MAX_BYTES = 64 * 1024
_DIGEST_KEY_LEAST_BYTES = 32
# Values that a message does not repeat: a URL with a password or a key in it, a token in the wrong place.
_PERHAPS_SECRET = re.compile(r"[@?]|at_saas_|eyJ|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HEADER_TEXT = re.compile(r"[!-~]([ -~]{0,254}[!-~])?")
_HOST = re.compile(
    r"(?=.{1,253}\.?$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")
_PREFIXES = ("ATOM_SAAS_", "ATOM_SYNC_", "MARKETPLACE_")
_SHELL_VARIABLE = re.compile(r"\$(\{|[A-Za-z_])")
_PLACEHOLDER = "your_api_token_here"
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
_ADMIN_TOKEN_LEAST = 16
# What decides where a token goes, and how well it is protected on the way.
_DESTINATIONS = ("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL", "ATOM_SAAS_CA_FILE", "ATOM_SAAS_ALLOW_INSECURE")
# What runs a program, guards what is admitted, or says where settings are: a .env may have come with a checkout.
_NEVER_FOUND = ("ATOM_SYNC_SCAN_COMMAND", "ATOM_SYNC_DIGEST_KEY_FILE", "ATOM_SYNC_SYSTEM")
SERVICE_DEFAULTS = {
    "ATOM_SAAS_API_TOKEN_FILE": TOKEN_FILE,
    "ATOM_SAAS_DATABASE_URL": f"sqlite:///{STATE_DIRECTORY}/atom.db",
}
_SYSTEM_ORIGIN = "--system"
TOKEN_HINT = "set ATOM_SAAS_API_TOKEN or ATOM_SAAS_API_TOKEN_FILE; tokens are in the dashboard, settings, API tokens"  # noqa: S105


class Secret:
    """A text that shows itself only to who asks for it by `reveal`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({_MASKED})"

    def __str__(self) -> str:
        return _MASKED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: its text would stand in what comes of it")


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: how its text becomes a value, and what people are told about it."""

    name: str
    read: Callable[[str], Any]
    takes: str
    meaning: str
    default: str | None = None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of `config show`: a variable, its value as text with secrets masked, and where it came from."""

    name: str
    value: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective configuration; `shown` tells of each variable where it came from.

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
    database_path: Path
    cache_strict_ttl: bool
    admin_token: Secret | None
    history_versions: int
    digest_key: Secret | None
    hash_user_ids: bool
    scheduler_enabled: bool
    instance_id: str
    min_free_disk_gb: float
    env_file: Path | None
    sources_disagree: str | None
    warnings: tuple[str, ...]
    shown: tuple[Shown, ...]


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError
    return lowered in _TRUE


def _number(low: float, high: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    def read(text: str) -> Any:  # noqa: ANN401 - int or float
        if not _NUMBER.fullmatch(text):
            raise ValueError  # float() and int() take more than people mean: 1_0, nan, other scripts' digits
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return read


def _url_parts(text: str, *schemes: str) -> SplitResult:
    parts = urlsplit(text)
    if parts.scheme not in schemes or not parts.hostname or "#" in text or re.search(r"\s", text):
        raise ValueError
    if "@" in parts.netloc or _CONTROL.search(text):
        raise ValueError
    if "[" in parts.netloc:
        if "%" in parts.hostname:
            raise ValueError  # the zone of a link-local address, which HTTP clients don't take
        ipaddress.IPv6Address(parts.hostname)
    elif not _HOST.fullmatch(parts.hostname):
        raise ValueError  # resolving it would fail in ways of its own: empty or too long labels, no ASCII
    _ = parts.port  # raises ValueError for a port that is none
    return parts


def _with_plain_scheme(text: str, parts: SplitResult) -> str:
    """Return the URL with its scheme in lower case: HTTPS:// must not pass anywhere for something else than https."""
    return parts.scheme + text[len(parts.scheme) :]


def _api_url(text: str) -> str:
    parts = _url_parts(text, "http", "https")
    if "?" in text:
        raise ValueError  # the paths of the dialect are appended
    return _with_plain_scheme(text, parts).rstrip("/")


def _ws_url(text: str) -> str:
    parts = _url_parts(text, "ws", "wss")
    if any(name == "token" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError  # ours is added when connecting
    return _with_plain_scheme(text, parts)


def _header_text(text: str) -> str:
    if not _HEADER_TEXT.fullmatch(text):
        raise ValueError
    return text


def _path(text: str) -> Path:
    if not text or _CONTROL.search(text):
        raise ValueError
    os.fsencode(text)  # raises ValueError for what the locale's encoding cannot name
    return Path(text)


def _token(text: str) -> Secret:
    if not any(form.fullmatch(text) for form in _TOKEN_FORMS):
        raise ValueError
    return Secret(text)


def _admin_token(text: str) -> Secret:
    if len(text) < _ADMIN_TOKEN_LEAST:
        raise ValueError  # it could be guessed
    return Secret(_header_text(text))


def _database(text: str) -> Path:
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme != "sqlite" or not rest.startswith("/") or "?" in rest:
            raise ValueError
        text = rest[1:]
    elif text.startswith(("sqlite:", "file:")):
        raise ValueError  # a slip of the pen, which would else make a directory of that name
    if text == ":memory:":
        raise ValueError  # it would be forgotten with each command
    if text.startswith("~"):
        raise ValueError  # only a shell knows whose home that is; a directory of that name is in nobody's mind
    return _path(text)


_BOOLEAN = "true or false"
_HEADER_TAKES = "a text of at most 256 ASCII characters, without line breaks"
_ADMIN_TAKES = f"a text of {_ADMIN_TOKEN_LEAST} to 256 ASCII characters, without line breaks"
_TOKEN_TAKES = "a token that begins with at_saas_, a UUID version 4, or a JWT; without spaces or line breaks"  # noqa: S105

VARIABLES = (
    Variable("ATOM_SAAS_ENABLED", _boolean, _BOOLEAN, "false: local only, nothing is asked of the marketplace", "true"),
    Variable(
        "ATOM_SAAS_API_URL",
        _api_url,
        "an http(s) URL with an ASCII host name, without user, password or query",
        "base URL of the marketplace's API; https://staging-api.atomsaas.com is for staging",
    ),
    Variable("ATOM_SAAS_API_TOKEN", _token, _TOKEN_TAKES, "the token of this instance; required", secret=True),
    Variable(
        "ATOM_SAAS_API_TOKEN_FILE",
        _path,
        "the path of a file",
        "file that holds the token, in place of ATOM_SAAS_API_TOKEN; under systemd the credential atom-saas-token",
    ),
    Variable(
        "ATOM_SAAS_API_DIALECT",
        _one_of("v1", "plain", "mothership"),
        "v1, plain or mothership",
        "paths and headers that the marketplace understands; without it, mothership for a URL on atomagentos.com or "
        "one that ends in /api/v1/marketplace",
        "v1",
    ),
    Variable(
        "ATOM_SAAS_API_TIMEOUT_SECONDS",
        _number(1, 120, float),
        "a number from 1 to 120",
        "seconds that a whole request may take",
        "30",
    ),
    Variable(
        "ATOM_SAAS_SYNC_BATCH_SIZE",
        _number(1, 1000),
        "a whole number from 1 to 1000",
        "skills asked for in one page",
        "1000",
    ),
    Variable(
        "ATOM_SAAS_SYNC_INTERVAL_MINUTES",
        _number(5, 60),
        "a whole number from 5 to 60",
        "minutes between two polls of skills and categories",
        "15",
    ),
    Variable(
        "ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES",
        _number(10, 120),
        "a whole number from 10 to 120",
        "minutes between two syncs of ratings",
        "30",
    ),
    Variable(
        "ATOM_SAAS_CONFLICT_STRATEGY",
        _one_of(*STRATEGIES),
        "remote_wins, local_wins, merge or manual",
        "what happens to a skill that was changed on both sides",
        "remote_wins",
    ),
    Variable("ATOM_SAAS_WS_ENABLED", _boolean, _BOOLEAN, "false: polling only", "true"),
    Variable(
        "ATOM_SAAS_WS_URL",
        _ws_url,
        "a ws(s) URL with an ASCII host name, without user, password or token",
        "where `watch` listens for changes; the token is added to it",
    ),
    Variable(
        "ATOM_SAAS_WS_RECONNECT_ATTEMPTS",
        _number(0, 100),
        "a whole number from 0 to 100",
        "failures in a row before the next try is an hour away; 0 = never reconnect",
        "10",
    ),
    Variable(
        "ATOM_SAAS_WS_HEARTBEAT_INTERVAL",
        _number(10, 120),
        "a whole number from 10 to 120",
        "seconds between two pings",
        "30",
    ),
    Variable(
        "ATOM_SAAS_RATE_LIMIT_PER_MINUTE",
        _number(1, 100_000),
        "a whole number from 1 to 100000",
        "requests a minute; a limit that the marketplace declares can only lower it",
        "100",
    ),
    Variable(
        "ATOM_SAAS_RATE_LIMIT_PER_HOUR",
        _number(1, 100_000),
        "a whole number from 1 to 100000",
        "requests an hour, likewise",
        "1000",
    ),
    Variable("ATOM_SAAS_CA_FILE", _path, "the path of a file", "further certificate authorities, as PEM"),
    Variable(
        "ATOM_SAAS_ALLOW_INSECURE",
        _boolean,
        _BOOLEAN,
        "true: plain http:// and ws:// also to hosts that are not loopback",
        "false",
    ),
    Variable(
        "ATOM_SAAS_DATABASE_URL",
        _database,
        "sqlite:///relative/path, sqlite:////absolute/path or a plain path, without ~ (only SQLite is supported)",
        "the database; under systemd $STATE_DIRECTORY/atom.db by default",
    ),
    Variable(
        "ATOM_SAAS_CACHE_STRICT_TTL",
        _boolean,
        _BOOLEAN,
        "true: entries go after 24 hours even if the marketplace was away all the time",
        "false",
    ),
    Variable(
        "ATOM_SYNC_ADMIN_TOKEN",
        _admin_token,
        _ADMIN_TAKES,
        "token for /api/admin of serve-health; without it: 403",
        secret=True,
    ),
    Variable(
        "ATOM_SYNC_HISTORY_VERSIONS",
        _number(0, 1000),
        "a whole number from 0 to 1000",
        "former versions kept of each skill",
        "10",
    ),
    Variable(
        "ATOM_SYNC_DIGEST_KEY_FILE",
        _path,
        "the path of a private file of at least 32 bytes, outside the database's directory",
        "key that signs the digests of skills; under systemd the credential atom-sync-digest-key",
    ),
    Variable(
        "ATOM_SYNC_HASH_USER_IDS",
        _boolean,
        _BOOLEAN,
        "true: ratings carry a keyed hash in place of the user id",
        "false",
    ),
    Variable(
        "ATOM_SYNC_MIN_FREE_DISK_GB",
        _number(0, 10_000, float),
        "a number from 0 to 10000",
        "free disk, in GB, below which /health/ready says not ready",
        "1",
    ),
    Variable(
        "ENABLE_SCHEDULER",
        _boolean,
        _BOOLEAN,
        "true: runs that a timer started (--scheduled) and the jobs of `watch --jobs` do their work",
        "false",
    ),
    Variable(
        "ATOM_SYNC_SYSTEM",
        _boolean,
        _BOOLEAN,
        "true: as --system, use the settings, token and database of the service; from the environment alone",
        "false",
    ),
    Variable(
        "ATOM_INSTANCE_ID",
        _header_text,
        _HEADER_TAKES,
        "name of this instance for the mothership; by default derived from the token",
    ),
)

_DEFAULT_URLS = {
    "v1": ("https://api.atomsaas.com", "wss://api.atomsaas.com/ws"),
    "plain": ("https://api.atomsaas.com", "wss://api.atomsaas.com/ws"),
    "mothership": (
        "https://atomagentos.com/api/v1/marketplace",
        "wss://atomagentos.com/api/ws/satellite/connect",
    ),
}
_USUAL_URLS = dict(zip(("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL"), _DEFAULT_URLS["v1"], strict=True))


def load_settings(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    working_directory: Path,
    database: str | None = None,
    no_env_file: bool = False,
    system: bool = False,
) -> Settings:
    """Read the settings: `environ`, then the `.env` file, then the defaults. `database` is the `--database` option.

    Without `env_file`, `.env` of the working directory is read if nobody else could have written it. `system` takes
    the service's file in its place, and the service's token and database where that names none; `no_env_file` none.

    Raises ConfigError with all problems at once.
    """
    return _Reader(environ, env_file, working_directory, database, no_env_file=no_env_file, system=system).settings()


def value_of(name: str, text: str | None = None) -> Any:  # noqa: ANN401 - of the variable's type
    """Return the value of a variable from its text; without one its default, with the default dialect.

    Raises ValueError with what the variable takes.
    """
    if text is None and name in _USUAL_URLS:
        return _USUAL_URLS[name]
    variable = next(each for each in VARIABLES if each.name == name)
    try:
        return variable.read(text or "")
    except (ValueError, OverflowError):
        raise ValueError(variable.takes) from None


def shared_directory(directory: Path) -> str | None:
    """Say by what rights others may write to a directory, whose `.env` is not read then; None if nobody may."""
    return _rights_of_others(directory.stat())


def hosts_of(settings: Settings) -> str:
    """Return the hosts that are asked, and who said so, for people; empty if they are the marketplace's own."""
    if not settings.enabled:
        return ""
    origins = {shown.name: shown.origin for shown in settings.shown}
    urls = {"ATOM_SAAS_API_URL": settings.api_url, "ATOM_SAAS_WS_URL": settings.ws_url}
    if not settings.ws_enabled:
        del urls["ATOM_SAAS_WS_URL"]
    usual = {urlsplit(url).netloc for urls_of_dialect in _DEFAULT_URLS.values() for url in urls_of_dialect}
    hosts: dict[str, str] = {}
    for name, url in urls.items():
        host = urlsplit(url).netloc
        if host not in usual:
            hosts.setdefault(host, f"{host} ({name} from {origins[name]})")
    return ", ".join(hosts.values())


def require_agreement(settings: Settings) -> None:
    """Raise ConfigError if the token must not go where the settings would send it."""
    if settings.sources_disagree is not None:
        raise ConfigError(
            settings.sources_disagree,
            hint="if the file is yours, name it with --env-file; --no-env-file leaves it out",
        )


def require_token(settings: Settings) -> Secret:
    """Return the token. Raises ConfigError if there is none, or if it must not go where the settings would send it."""
    require_agreement(settings)
    if settings.api_token is None:
        raise ConfigError("no token for the marketplace is set", hint=TOKEN_HINT)
    return settings.api_token


def read_token_file(path: Path) -> Secret:
    """Read a token from a file: a container secret, a systemd credential. One trailing line break is stripped.

    Raises ConfigError if it can't be read or holds no token.
    """
    return _read_token_file(path)[0]


def _read_token_file(path: Path) -> tuple[Secret, bool]:
    """Return the token, and whether more people than need to may read the file."""
    what = f"ATOM_SAAS_API_TOKEN_FILE: {path}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # one that never ends, or for which one waits for ever
            raise ConfigError(f"{what}: is no regular file", hint=TOKEN_HINT)
        if status.st_size > _TOKEN_FILE_MAX_BYTES:
            raise ConfigError(f"{what}: is too large for a token", hint=TOKEN_HINT)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise ConfigError(f"{what}: {reason}", hint=TOKEN_HINT) from (error if isinstance(error, OSError) else None)
    if not text.strip():
        raise ConfigError(f"{what}: is empty", hint=TOKEN_HINT)
    try:
        return _token(text.removesuffix("\n")), _is_too_open(status)
    except ValueError:
        raise ConfigError(f"{what} does not hold {_TOKEN_TAKES}", hint=TOKEN_HINT) from None


def _is_too_open(status: os.stat_result) -> bool:
    """Tell whether more people than need to may read a file with a secret.

    A file of another user's (root's, as a mounted secret) that lets our group in is as it must be.
    """
    return bool(status.st_mode & (stat.S_IRWXO | (stat.S_IRWXG if status.st_uid == os.geteuid() else 0)))


def _without_waiting(path: str, flags: int) -> int:
    """Open a file that could have become a pipe by now."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_digest_key(path: Path, database: Path | None, *, is_credential: bool) -> bytes:
    """Return the key, all bytes of the file. Raises OSError, ValueError or, for links in a circle, RuntimeError.

    Whoever may write the database must be able neither to read it nor to put one of his own in its place.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is no regular file")
    with open(path, "rb", opener=_without_waiting) as stream:
        status = os.fstat(stream.fileno())
        real = path.resolve()
        if database is not None and real.is_relative_to(database.resolve().parent):
            raise ValueError("lies in the directory of the database, where its writers could replace it")
        # What systemd passes on may belong to root, with our right to it as an ACL, which looks like the group's.
        if status.st_mode & (stat.S_IRWXO | (0 if is_credential else stat.S_IRWXG)):
            raise ValueError("can be read or written by others; chmod 600 it")
        if os.geteuid() not in {0, status.st_uid} and status.st_uid != 0:
            raise ValueError("belongs to another user")
        for directory in {path.parent, real.parent}:
            mode = directory.stat().st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
                raise ValueError(f"could be replaced by others, who may write to {directory}")
        key = stream.read(_TOKEN_FILE_MAX_BYTES + 1)
    if len(key) < _DIGEST_KEY_LEAST_BYTES:
        raise ValueError(f"holds {len(key)} bytes; a key has at least {_DIGEST_KEY_LEAST_BYTES}")
    if len(key) > _TOKEN_FILE_MAX_BYTES:
        raise ValueError("is too large for a key")
    return key


def show_settings(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    working_directory: Path,
    database: str | None = None,
    no_env_file: bool = False,
    system: bool = False,
) -> tuple[tuple[Shown, ...], tuple[str, ...], tuple[str, ...]]:
    """Return every variable as `config show` has it, the problems and the warnings; never raises for bad values."""
    reader = _Reader(environ, env_file, working_directory, database, no_env_file=no_env_file, system=system)
    reader.read_all()
    disagree = reader.disagreement()
    problems = (*reader.problems, *([disagree] if disagree else []))
    return tuple(reader.shown()), problems, tuple(reader.warnings)


def is_system(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment asks for the service's settings, as `--system` does."""
    return environ.get("ATOM_SYNC_SYSTEM", "").lower() in _TRUE


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that programs of others get: all but the values of our secret variables."""
    ours = {variable.name for variable in VARIABLES if variable.secret}
    return {name: value for name, value in environment.items() if name not in ours}


def mask(secret: Secret) -> str:
    """Return what may be shown of a secret: how long it is, and the public prefix of a token."""
    text = secret.reveal()
    prefix = "at_saas_" if text.startswith("at_saas_") else ""
    return f"{prefix}… ({len(text)} characters)"


class _Reader:
    """Reads all variables, collecting problems."""

    def __init__(
        self,
        environ: Mapping[str, str],
        env_file: Path | None,
        working_directory: Path,
        database: str | None,
        *,
        no_env_file: bool,
        system: bool,
    ) -> None:
        self._environ = environ
        self._system = SERVICE_DEFAULTS if system or is_system(environ) else {}
        self._denied: PermissionError | None = None
        self._directory = working_directory
        self._database = database
        self._values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self._wrong: dict[str, str] = {}
        self._token_file: Path | None = None
        self._digest_key: Secret | None = None
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._is_found = env_file is None and not self._system
        if env_file is None:
            env_file = Path(SETTINGS) if self._system else working_directory / ".env"
        self._file_name, self._file = "", dict[str, str]()
        if not no_env_file:
            self._file_name, self._file = self._read_env_file(env_file)
        self._refuse_never_found()

    def settings(self) -> Settings:
        """Return the settings, or raise ConfigError with all problems."""
        self.read_all()
        if self.problems:
            raise ConfigError(
                "\n".join(self.problems), hint="`atom-sync config show` tells where each value comes from"
            ) from self._denied
        value = self._values.__getitem__
        token: Secret | None = value("ATOM_SAAS_API_TOKEN")
        return Settings(
            enabled=value("ATOM_SAAS_ENABLED"),
            api_url=value("ATOM_SAAS_API_URL"),
            api_token=token,
            token_file=self._token_file,
            dialect=value("ATOM_SAAS_API_DIALECT"),
            timeout_seconds=value("ATOM_SAAS_API_TIMEOUT_SECONDS"),
            batch_size=value("ATOM_SAAS_SYNC_BATCH_SIZE"),
            sync_interval_minutes=value("ATOM_SAAS_SYNC_INTERVAL_MINUTES"),
            rating_sync_interval_minutes=value("ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES"),
            conflict_strategy=cast("Strategy", value("ATOM_SAAS_CONFLICT_STRATEGY")),
            ws_enabled=value("ATOM_SAAS_WS_ENABLED"),
            ws_url=value("ATOM_SAAS_WS_URL"),
            ws_reconnect_attempts=value("ATOM_SAAS_WS_RECONNECT_ATTEMPTS"),
            ws_heartbeat_seconds=value("ATOM_SAAS_WS_HEARTBEAT_INTERVAL"),
            rate_limit_per_minute=value("ATOM_SAAS_RATE_LIMIT_PER_MINUTE"),
            rate_limit_per_hour=value("ATOM_SAAS_RATE_LIMIT_PER_HOUR"),
            ca_file=value("ATOM_SAAS_CA_FILE"),
            allow_insecure=value("ATOM_SAAS_ALLOW_INSECURE"),
            database_path=value("ATOM_SAAS_DATABASE_URL"),
            cache_strict_ttl=value("ATOM_SAAS_CACHE_STRICT_TTL"),
            admin_token=value("ATOM_SYNC_ADMIN_TOKEN"),
            history_versions=value("ATOM_SYNC_HISTORY_VERSIONS"),
            digest_key=self._digest_key,
            hash_user_ids=value("ATOM_SYNC_HASH_USER_IDS"),
            scheduler_enabled=value("ENABLE_SCHEDULER"),
            instance_id=value("ATOM_INSTANCE_ID"),
            min_free_disk_gb=value("ATOM_SYNC_MIN_FREE_DISK_GB"),
            env_file=self._directory / self._file_name if self._file_name else None,
            sources_disagree=self.disagreement(),
            warnings=tuple(self.warnings),
            shown=tuple(self.shown()),
        )

    def read_all(self) -> None:
        """Read every variable, then what depends on several."""
        for variable in VARIABLES:
            self._read(variable)
        self._warn_of_unknown_names()
        self._find_token()
        self._find_dialect()
        self._find_urls()
        self._find_authorities()
        self._find_database()
        self._find_digest_key()
        self._find_instance()
        self._find_misplaced_token()

    def shown(self) -> list[Shown]:
        """Return every variable with its value as text, secrets masked, and its origin."""
        return [
            Shown(
                variable.name,
                _as_text(self._values.get(variable.name)) or self._wrong.get(variable.name),
                self._origins.get(variable.name, "not set"),
            )
            for variable in VARIABLES
        ]

    def disagreement(self) -> str | None:
        """Say why the token must not go to the addresses in force; None if it may.

        An address that was found in a working directory gets only a token that was found there, too.
        """
        is_sent = self._values["ATOM_SAAS_ENABLED"] is not False and self._values["ATOM_SAAS_API_TOKEN"] is not None
        if not self._is_found or not is_sent or self._token_is_found():
            return None
        found = [name for name in _DESTINATIONS if self._origins.get(name) == self._file_name and self._matters(name)]
        if not found:
            return None
        source = self._origins["ATOM_SAAS_API_TOKEN"]
        return (
            f"{', '.join(found)}: from {self._file_name}, but the token is from {source}; "
            "what a .env file in the working directory says is used only with a token from the same file, "
            "or from a file beside it that it names"
        )

    def _token_is_found(self) -> bool:
        """Tell whether the token is from `.env`, or from an ordinary file beside it that it names."""
        if self._token_file is None:
            return self._origins["ATOM_SAAS_API_TOKEN"] == self._file_name
        if self._origins["ATOM_SAAS_API_TOKEN_FILE"] != self._file_name:
            return False
        is_link = self._token_file.is_symlink()
        above, here = (os.path.realpath(each) for each in (self._token_file.parent, self._directory))
        return not is_link and above == here

    def _matters(self, name: str) -> bool:
        """Tell whether this value sends the token elsewhere, or less protected, than the default does."""
        value = self._values[name]
        if name == "ATOM_SAAS_WS_URL" and not self._values["ATOM_SAAS_WS_ENABLED"]:
            return False
        urls = _DEFAULT_URLS[self._values["ATOM_SAAS_API_DIALECT"] or "v1"]
        return value not in (None, False, *urls)

    def _refuse_never_found(self) -> None:
        for name in _NEVER_FOUND:
            if name == "ATOM_SYNC_SYSTEM" and self._file.pop(name, ""):
                self.warnings.append(f"{name} (from {self._file_name}) was ignored: it counts in the environment alone")
            elif self._is_found and self._file.pop(name, ""):
                self.problems.append(
                    f"{name} must not be set in {self._file_name}, a file in the working directory; "
                    "set it in the environment, or name the file with --env-file"
                )

    def _read_env_file(self, path: Path) -> tuple[str, dict[str, str]]:
        if self._is_found and not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where we may not look
            if os.path.lexists(path):
                self.warnings.append(f"{path} is not a regular file and was ignored")
            return "", {}
        from dotenv.parser import parse_stream

        values: dict[str, str] = {}
        try:
            # Without waiting for the writer of a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, encoding="utf-8-sig") as stream:  # noqa: PTH123 - the file that is looked at
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) and not os.path.samestat(status, os.stat(os.devnull)):  # noqa: PTH116 - no Path
                    self.problems.append(f"{path}: is no regular file")
                    return "", {}
                if self._is_found and (stranger := _stranger_in(path, status)):
                    self.problems.append(stranger)
                    return "", {}
                # The parser alone: a token may hold a dollar sign, and what it can't read is for us to tell.
                for binding in parse_stream(stream):
                    if binding.error or _is_bare(binding.key, binding.value):
                        self.warnings.append(f"{path}, line {binding.original.line}: is not NAME=value and was ignored")
                    if binding.key is not None:
                        values[binding.key] = binding.value or ""
            secrets = {values.get(variable.name) for variable in VARIABLES if variable.secret}
            if _is_too_open(status) and secrets - {None, "", _PLACEHOLDER}:
                self.warnings.append(f"{path} holds a secret and can be read by others; chmod 600 it")
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
            self._denied = error if isinstance(error, PermissionError) else None
            self.problems.append(f"{path}: {reason}")
        return str(path), values

    def _raw(self, name: str) -> tuple[str, str] | None:
        """Return the text of a variable and its origin; an empty one counts as not set."""
        if name == "ATOM_SAAS_DATABASE_URL" and self._database is not None:
            return self._database, "--database"
        sources = (
            (self._environ, "environment"),
            (self._file, self._file_name),
            (self._system, _SYSTEM_ORIGIN),
        )
        for values, origin in sources:
            if text := values.get(name):
                return text, origin
        return None

    def _absolute(self, name: str) -> Path:
        """Return the path that a variable names: the service's settings are not read from any working directory."""
        is_service = self._system and self._origins[name] == self._file_name
        base = Path("/") if is_service else self._directory
        path: Path = base / self._values[name]
        return path

    def _read(self, variable: Variable) -> None:
        found = self._raw(variable.name)
        if found is not None and found[0] == _PLACEHOLDER and self._values.get("ATOM_SAAS_ENABLED") is False:
            found = None  # a copy of .env.example, where no token is needed
        if found is None:
            self._values[variable.name] = None if variable.default is None else variable.read(variable.default)
            if variable.default is not None:
                self._origins[variable.name] = "default"
            return
        text, origin = found
        self._origins[variable.name] = origin
        if variable.read in {_path, _database} and _SHELL_VARIABLE.search(text):
            self.warnings.append(f"{variable.name} (from {origin}): the $ is taken as it is; no variable is expanded")
        try:
            self._values[variable.name] = variable.read(text)
        except (ValueError, OverflowError):
            self._values[variable.name] = None
            self._wrong[variable.name] = _shown_wrong(variable, text)
            got = "what it holds" if variable.secret or _PERHAPS_SECRET.search(text) else repr(text[:80])
            if text == _PLACEHOLDER:
                got = "the placeholder of .env.example"
            self.problems.append(f"{variable.name}: {got} (from {origin}) will not do; it takes {variable.takes}")

    def _warn_of_unknown_names(self) -> None:
        known = {variable.name for variable in VARIABLES}
        for name in sorted({*self._environ, *self._file} - known):
            if name.startswith(_PREFIXES):
                from atom_saas_sync.core.variable_names import warning_about

                # A name in a file may go on as a value does: NAME:value is a name to its parser.
                plain = name if name.isidentifier() else f"{re.split(r'[^A-Za-z0-9_]', name)[0]}…"
                self.warnings.append(warning_about(plain, known))

    def _find_token(self) -> None:
        name, file_name = "ATOM_SAAS_API_TOKEN", "ATOM_SAAS_API_TOKEN_FILE"
        credentials = self._environ.get("CREDENTIALS_DIRECTORY")
        if (self._values[file_name] is None or self._origins[file_name] == _SYSTEM_ORIGIN) and credentials:
            credential = Path(credentials) / "atom-saas-token"
            if os.path.lexists(credential):
                self._values[file_name] = credential
                self._origins[file_name] = "systemd credential"
        if self._values[file_name] is None:
            return
        is_usual = self._origins[file_name] == _SYSTEM_ORIGIN
        if name in self._origins:
            if is_usual:
                self._values[file_name] = None
                return
            self.warnings.append(f"{name} (from {self._origins[name]}) wins over {file_name}; set one of them")
            return
        path = self._values[file_name] = self._absolute(file_name)
        if is_usual and _is_missing(path):
            return
        self._token_file = path
        try:
            self._values[name], readable = _read_token_file(path)
            if readable:
                self.warnings.append(f"{path} can be read by others; chmod 600 it")
        except ConfigError as error:
            self._denied = self._denied or (error.__cause__ if isinstance(error.__cause__, PermissionError) else None)
            self.problems.append(error.message)
        self._origins[name] = str(path)

    def _find_dialect(self) -> None:
        """Let the URL imply the dialect where none is set, and complete the mothership's."""
        name, url = "ATOM_SAAS_API_DIALECT", self._values["ATOM_SAAS_API_URL"]
        if url is None:
            return
        if self._origins[name] == "default" and (implied := dialect_of(url)):
            self._values[name], self._origins[name] = implied, "derived from ATOM_SAAS_API_URL"
        if self._values[name] == "mothership":
            self._values["ATOM_SAAS_API_URL"] = with_mothership_path(url)

    def _find_urls(self) -> None:
        defaults = _DEFAULT_URLS[self._values["ATOM_SAAS_API_DIALECT"] or "v1"]
        for name, default in zip(("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL"), defaults, strict=True):
            if name not in self._origins:
                self._values[name], self._origins[name] = default, "default"
            url = self._values[name]
            insecure = url is not None and urlsplit(url).scheme in {"http", "ws"}
            if insecure and not self._values["ATOM_SAAS_ALLOW_INSECURE"] and not _is_loopback(urlsplit(url).hostname):
                shown = "the URL" if _PERHAPS_SECRET.search(url) else url
                self.problems.append(
                    f"{name}: {shown} is not encrypted, and its host is not loopback; "
                    "use https or wss, or set ATOM_SAAS_ALLOW_INSECURE=true"
                )
        if (
            self._values["ATOM_SAAS_WS_ENABLED"]
            and self._origins["ATOM_SAAS_API_URL"] != "default"
            and self._origins["ATOM_SAAS_WS_URL"] == "default"
            and self._values["ATOM_SAAS_API_URL"] not in (None, defaults[0])
        ):
            self.warnings.append(
                f"ATOM_SAAS_API_URL is set and ATOM_SAAS_WS_URL is not: `watch` sends the token to {defaults[1]}; "
                "set ATOM_SAAS_WS_URL, or ATOM_SAAS_WS_ENABLED=false"
            )
        elif self._values["ATOM_SAAS_WS_ENABLED"]:
            self._warn_of_two_platforms()

    def _warn_of_two_platforms(self) -> None:
        api_url, ws_url = self._values["ATOM_SAAS_API_URL"], self._values["ATOM_SAAS_WS_URL"]
        if api_url and ws_url and platforms_differ(api_url, ws_url, self._values["ATOM_SAAS_API_DIALECT"] or "v1"):
            self.warnings.append(
                f"ATOM_SAAS_API_URL ({urlsplit(api_url).hostname}) and ATOM_SAAS_WS_URL ({urlsplit(ws_url).hostname}) "
                "belong to different platforms: `watch` would follow another marketplace; correct one of them"
            )

    def _find_authorities(self) -> None:
        name = "ATOM_SAAS_CA_FILE"
        if self._values[name] is None:
            return
        import ssl

        path = self._values[name] = self._absolute(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                self.problems.append(f"{name}: {path}: is no regular file")
                return
            context.load_verify_locations(cafile=path)
        except ssl.SSLError:
            pass  # told below: nothing was loaded
        except OSError as error:
            self.problems.append(f"{name}: {path}: {error.strerror}")
            return
        if not context.cert_store_stats()["x509"]:
            self.problems.append(f"{name}: {path} holds no certificates in PEM form")

    def _find_database(self) -> None:
        name = "ATOM_SAAS_DATABASE_URL"
        if name not in self._origins:
            state = (self._environ.get("STATE_DIRECTORY") or "").split(":")[0]
            self._origins[name] = "$STATE_DIRECTORY" if state else "default"
            self._values[name] = Path(state) / "atom.db" if state else Path("data/atom.db")
        if self._values[name] is not None:
            self._values[name] = self._absolute(name)

    def _find_digest_key(self) -> None:
        name = "ATOM_SYNC_DIGEST_KEY_FILE"
        credentials = self._environ.get("CREDENTIALS_DIRECTORY")
        is_credential = False
        if self._values[name] is None and name not in self._wrong and credentials:
            credential = Path(credentials) / "atom-sync-digest-key"
            if is_credential := os.path.lexists(credential):
                self._values[name], self._origins[name] = credential, "systemd credential"
        if self._values[name] is None:
            return
        path = self._values[name] = self._absolute(name)
        try:
            key = _read_digest_key(path, self._values["ATOM_SAAS_DATABASE_URL"], is_credential=is_credential)
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._denied = self._denied or (error if isinstance(error, PermissionError) else None)
            self.problems.append(f"{name}: {path}: {reason}")
        else:
            self._digest_key = Secret(key.hex())

    def _find_instance(self) -> None:
        name = "ATOM_INSTANCE_ID"
        if name not in self._origins:
            token: Secret | None = self._values["ATOM_SAAS_API_TOKEN"]
            self._origins[name] = "derived from the token" if token else "not set"
            self._values[name] = sha256(token.reveal().encode()).hexdigest()[:32] if token else ""

    def _find_misplaced_token(self) -> None:
        """Refuse the token in what is shown and sent as it stands; a UUID of its own is a good name for an instance."""
        token: Secret | None = self._values["ATOM_SAAS_API_TOKEN"]
        for name in ("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL", "ATOM_INSTANCE_ID"):
            text = self._values[name] or ""
            if "at_saas_" in text or (token is not None and token.reveal() in text):
                self._values[name], self._wrong[name] = None, "…"
                self.problems.append(f"{name}: holds a token, which belongs into ATOM_SAAS_API_TOKEN alone")


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # reading it says what is wrong
    return False


def _stranger_in(path: Path, status: os.stat_result) -> str | None:
    """Say who else could have written this file, or put it there; None if nobody could but this user and root."""
    looked_at = {str(path): status}
    for directory in (path.parent, Path(os.path.realpath(path)).parent):
        looked_at[str(directory)] = directory.stat()
    for place, found in looked_at.items():
        if rights := _rights_of_others(found):
            what = "" if place == str(path) else f", and its directory {place}"
            return (
                f"{path} was not read: it{what} {rights}, so that others could have written it; make both yours, and "
                "writable by you alone (chmod go-w), name the file with --env-file, or leave it out with --no-env-file"
            )
    return None


def _rights_of_others(found: os.stat_result) -> str | None:
    """Say by what rights others than this user and root may write to a file or directory; None if nobody may."""
    owner, primary_group = _user(found.st_uid)
    open_to_all = found.st_mode & stat.S_IWOTH
    open_to_group = found.st_mode & stat.S_IWGRP and found.st_gid != primary_group
    if found.st_uid in {os.geteuid(), 0} and not open_to_all and not open_to_group:
        return None
    return f"belongs to {owner}, group {_group(found.st_gid)}, and has mode {stat.S_IMODE(found.st_mode):04o}"


def _user(number: int) -> tuple[str, int | None]:
    """Return what a user is called, and the primary group, if it is known."""
    import pwd

    try:
        entry = pwd.getpwuid(number)
    except KeyError:
        return f"user {number}", None
    return f"{entry.pw_name} (user {number})", entry.pw_gid


def _group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _is_bare(name: str | None, value: str | None) -> bool:
    """Tell whether a line of `.env` has no =; one such as ATOM_SAAS_X:VALUE is warned of as an unknown name."""
    if name is None or value is not None:
        return False
    return name.isidentifier() or not name.startswith(_PREFIXES)


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost":  # no name below it: whether that is loopback is for a name server to say
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_query(text: str) -> str:
    """Return what may be shown of a URL: a query may hold a key."""
    return f"{text.partition('?')[0]}?…" if "://" in text and "?" in text else text


def _shown_wrong(variable: Variable, text: str) -> str:
    """Return what may be shown of a value that is not valid."""
    if variable.secret:
        return mask(Secret(text))
    return "…" if _PERHAPS_SECRET.search(text) else text[:80]


def _as_text(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, Secret):
        return mask(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    return without_query(str(value))
