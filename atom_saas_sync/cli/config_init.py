"""`config init`: write the settings for this directory, or for the service of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.cli.output import GlobalOptions, counted, note, print_json, read_text, say
from atom_saas_sync.errors import AtomSyncError, ConfigError, DatabaseError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from atom_saas_sync.config import Settings

_URL, _TOKEN, _WS_URL = "ATOM_SAAS_API_URL", "ATOM_SAAS_API_TOKEN", "ATOM_SAAS_WS_URL"
_DATABASE_URL, _PASSWORD_FILE = "ATOM_SAAS_DATABASE_URL", "ATOM_SAAS_DATABASE_PASSWORD_FILE"
# Other variables that connections depend on: written if set in the environment, because the test used them.
_ALSO_TRIED = (_WS_URL, "ATOM_SAAS_API_DIALECT", "ATOM_SAAS_CA_FILE", "ATOM_SAAS_ALLOW_INSECURE")
_MOST_SECONDS = 10.0
_KEY_BYTES = 32


def init(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Address of the marketplace's API [env: ATOM_SAAS_API_URL]."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Read the token from FILE; - is standard input.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask anything.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not test the address and the token.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the settings: ask for address and token, try them, write .env.

    With --system, write the settings and the token of the service, and a key for the digests, to /etc/atom-sync.
    """
    from atom_saas_sync.cli.runtime import is_system, sources

    options: GlobalOptions = ctx.obj
    environ = dict(sources(options)["environ"])
    system = is_system(options)
    targets = _targets(options, system=system)
    _require_writable(targets, system=system, force=force)
    asks = sys.stdin.isatty() and not yes
    address, token = _address(url, environ, asks=asks), _token(token_file, asks=asks)
    values = _values(address, token, environ)
    settings = _settings(values, environ, options.database)
    found = None if offline else _try(settings)
    server = _server(settings, environ, system=system)
    _write(targets, values | server, system=system)
    _report([*targets.values()], address, values[_WS_URL], found, as_json=as_json)
    _tell_of_password(settings, server)
    for name in sorted({*values} & {*environ}):
        if environ[name] != values[name]:
            note(f"warning: {name} is set in the environment and overrides what was written")


def _targets(options: GlobalOptions, *, system: bool) -> dict[str, Path]:
    """Return where the settings, and for the service the token, are written."""
    from atom_saas_sync.places import SETTINGS, TOKEN_FILE

    if options.no_env_file:
        raise UsageError("--no-env-file and `config init` exclude each other")
    if system:
        return {"settings": options.env_file or Path(SETTINGS), "token": Path(TOKEN_FILE)}
    return {"settings": options.env_file or Path(".env")}


def _require_writable(targets: dict[str, Path], *, system: bool, force: bool) -> None:
    """Raise UsageError, ConfigError or DatabaseError before the user answers questions in vain."""
    from atom_saas_sync.config import shared_directory
    from atom_saas_sync.textfile import refuse_irregular

    for path in targets.values():
        directory = path.absolute().parent
        while not directory.exists() and system:
            directory = directory.parent
        if not os.access(directory, os.W_OK | os.X_OK):
            hint = "run: sudo atom-sync --system config init" if system else "go to a directory of your own"
            raise ConfigError(f"cannot write to {directory}", hint=hint)
        refuse_irregular(path)
        if os.path.lexists(path) and not force:
            raise UsageError(f"{path} exists", hint="nothing was written; --force replaces it")
        if path == Path(".env") and (reason := shared_directory(directory)):
            raise ConfigError(
                f"{directory} {reason}: a .env that others could write is never read",
                hint="chmod go-w it, or go to a directory of your own",
            )


def _address(given: str | None, environ: dict[str, str], *, asks: bool) -> str:
    from atom_saas_sync.config import value_of

    usual = environ.get(_URL) or str(value_of(_URL))
    if given is None:
        given = str(typer.prompt("Address of the marketplace", default=usual, err=True)) if asks else usual
    try:
        return str(value_of(_URL, given))
    except ValueError as error:
        raise UsageError(f"invalid --url: expected {error}") from error


def _token(path: Path | None, *, asks: bool) -> str:
    from atom_saas_sync.config import value_of

    if path is not None:
        text, source = read_text(path).removesuffix("\n").removesuffix("\r"), str(path)
    elif asks:
        # Typer's hidden prompt writes its text before it discards early input, such as this answer.
        from getpass import getpass

        text, source = getpass("API token (not shown): ", stream=sys.stderr).strip(), "the answer"
    else:
        raise UsageError("no token is given and there is no terminal to ask for it", hint="pass --token-file FILE")
    try:
        token: str = value_of(_TOKEN, text).reveal()
    except ValueError as error:
        raise ConfigError(f"invalid token in {source}: expected {error}") from error
    return token


def _values(address: str, token: str, environ: dict[str, str]) -> dict[str, str]:
    """Return the variables to write: the answers, and the others that the connection depends on."""
    from atom_saas_sync.config import value_of
    from atom_saas_sync.core.env_file import websocket_url

    values = {name: environ[name] for name in _ALSO_TRIED if environ.get(name)}
    # Otherwise `watch` would send the token to the default host.
    usual = str(value_of(_WS_URL)) if address == value_of(_URL) else websocket_url(address)
    return {_WS_URL: usual, **values, _URL: address, _TOKEN: token}


def _server(settings: Settings, environ: dict[str, str], *, system: bool) -> dict[str, str]:
    """Return the variables of a database on a server, without its password; none for a file, which has a default."""
    from atom_saas_sync.places import DATABASE_PASSWORD_FILE

    if isinstance(settings.database, Path):
        return {}
    found = {_DATABASE_URL: str(settings.database)}
    file = DATABASE_PASSWORD_FILE if system else environ.get(_PASSWORD_FILE)
    if file and settings.database.password is not None:
        found[_PASSWORD_FILE] = file
    return found


def _tell_of_password(settings: Settings, written: dict[str, str]) -> None:
    """Say what is left to do for the password of the database's server."""
    if isinstance(settings.database, Path) or settings.database.password is None:
        return
    file = written.get(_PASSWORD_FILE)
    if file is None:
        note(f"the database's password was not written: put it into a private file, and name that in {_PASSWORD_FILE}")
    elif not os.path.lexists(file):
        note(f"put the database's password into {file} (mode 0600)")


def _settings(values: dict[str, str], environ: dict[str, str], database: str | None) -> Settings:
    """Return the settings in effect with these values. Raises ConfigError."""
    from atom_saas_sync.config import load_settings

    others = {name: value for name, value in environ.items() if name not in {"ATOM_SYNC_SYSTEM", _TOKEN + "_FILE"}}
    return load_settings({**others, **values}, working_directory=Path.cwd(), no_env_file=True, database=database)


class _NoBudget:
    """Permits every request: there is no database with a budget yet."""

    def take(self, now: datetime) -> float:  # noqa: ARG002 - the port's
        return 0.0

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Ignore it."""


def _try(settings: Settings) -> int:
    """Request one skill with the token; return the total number of skills. Raises MarketplaceError."""
    from atom_saas_sync.cli.runtime import RunClock, marketplace_client

    note(f"testing {settings.api_url} …")
    clock = RunClock()
    quick = settings.but(timeout_seconds=min(settings.timeout_seconds, _MOST_SECONDS))
    try:
        with clock.caught(), marketplace_client(quick, _NoBudget(), clock) as client:
            page = client.list_skills(1, 1)
    except AtomSyncError as error:
        error.hint = "; ".join(part for part in (error.hint, "nothing was written (--offline skips this test)") if part)
        raise
    return page.total or 0


def _write(targets: dict[str, Path], values: dict[str, str], *, system: bool) -> None:
    """Write the files, secrets first, so that settings never name a missing file."""
    from atom_saas_sync.core.env_file import filled
    from atom_saas_sync.places import DIGEST_KEY_FILE, STATE_DIRECTORY, TOKEN_FILE
    from atom_saas_sync.shipped import ENV_EXAMPLE, stored_text
    from atom_saas_sync.textfile import write_textfile

    lines: dict[str, str | None] = dict(values)
    if system:
        key = Path(DIGEST_KEY_FILE)
        _make_directory(key.parent)
        write_textfile(targets["token"], f"{values[_TOKEN]}\n", mode=0o600)
        if not os.path.lexists(key):  # with a new key, every skill would count as unsigned
            write_textfile(key, os.urandom(_KEY_BYTES).hex() + "\n", mode=0o600)
        targets["digest key"] = key
        lines |= {
            _TOKEN: None,
            "ATOM_SAAS_API_TOKEN_FILE": TOKEN_FILE,
            _DATABASE_URL: values.get(_DATABASE_URL, f"sqlite:///{STATE_DIRECTORY}/atom.db"),
            "ATOM_SYNC_DIGEST_KEY_FILE": DIGEST_KEY_FILE,
            "ENABLE_SCHEDULER": "true",
        }
    write_textfile(targets["settings"], filled(stored_text(ENV_EXAMPLE), lines), mode=0o600)
    if system:
        _hand_over(list(targets.values()))


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseError(f"cannot create {path}: {error.strerror}") from error


def _hand_over(paths: list[Path]) -> None:
    """Give the service's files to its user, if that exists; otherwise `schedule systemd --install` does it."""
    import pwd

    from atom_saas_sync.places import SERVICE_USER

    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return
    try:
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)
        os.chown(paths[0].parent, 0, user.pw_gid)
    except OSError as error:
        raise DatabaseError(
            f"cannot give {error.filename} to {SERVICE_USER}: {error.strerror}", hint="run it as root"
        ) from error


def _report(paths: list[Path], address: str, ws_url: str, found: int | None, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "written": [str(path) for path in paths],
                "url": address,
                "ws_url": ws_url,
                "tried": found is not None,
                "skills": found,
            }
        )
        return
    if found is not None:
        say(f"{address} accepts the token and has {counted(found, 'skill')}")
    for path in paths:
        say(f"wrote {path} (mode 0600)")
    system = len(paths) > 1
    say(f"  → next: `{'atom-sync --system schedule systemd --install' if system else 'atom-sync sync skills'}`")
