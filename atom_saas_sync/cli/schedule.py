"""`schedule`: systemd units or a crontab with the configured intervals, shown, installed or removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import GlobalOptions, note, print_json
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.errors import AtomSyncError, DatabaseError, UsageError

if TYPE_CHECKING:
    from atom_saas_sync.config import EffectiveSetting, Settings
    from atom_saas_sync.core.schedule_files import Schedule

app = typer.Typer(
    help="Print, install or remove systemd units or a crontab.", no_args_is_help=True, rich_markup_mode=None
)

_Install = Annotated[bool, typer.Option("--install", help="Write the files where they belong.")]
_Uninstall = Annotated[bool, typer.Option("--uninstall", help="Remove what --install wrote and nothing else.")]
_Root = Annotated[Path, typer.Option("--root", metavar="DIR", help="Write below DIR: for packages and images.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

_SYSTEMD = Path("etc/systemd/system")
_ENVIRONMENT = Path("etc/atom-sync/atom-sync.env")
_COMMAND_SECONDS = 60.0
_FIRST_WITH_RESTART_STEPS = 254
# What a service determines itself, and what must not be in a file that others can read.
_LEFT_OUT = {
    "ATOM_SAAS_API_TOKEN",
    "ATOM_SAAS_API_TOKEN_FILE",
    "ATOM_SAAS_DATABASE_PASSWORD_FILE",
    "ATOM_SAAS_DATABASE_URL",
    "ATOM_SYNC_ADMIN_TOKEN",
    "ATOM_SYNC_SYSTEM",
    "ENABLE_SCHEDULER",
}
_SET_BY_NOBODY = {
    "default",
    "not set",
    "derived from the token",
    "derived from ATOM_SAAS_API_URL",
    "$STATE_DIRECTORY",
    "--system",
    "system",
}


@app.command()
@paged
def systemd(
    ctx: typer.Context,
    install: _Install = False,
    uninstall: _Uninstall = False,
    user: Annotated[
        bool, typer.Option("--user", help="For your own systemd (systemctl --user), below your home directory.")
    ] = False,
    root: _Root = Path("/"),
    as_json: _Json = False,
) -> None:
    """Show the units for systemd; --install writes them to /etc and says what to do next."""
    if user:
        _systemd_of_user(ctx.obj, install=install, uninstall=uninstall, root=root, as_json=as_json)
        return
    from atom_saas_sync.core.schedule_files import SERVICES, TIMERS, systemd_files

    settings = _settings(ctx.obj)
    schedule = _schedule(ctx.obj, settings, restart_steps=_systemd_version() >= _FIRST_WITH_RESTART_STEPS)
    if not uninstall:
        _warn_of_hidden_files(schedule, settings)
    texts = systemd_files(schedule)
    files = {root / (Path("etc") / path if "/" in path else _SYSTEMD / path): text for path, text in texts.items()}
    here = root == Path("/") and Path("/run/systemd/system").is_dir()
    installed = [unit for unit in (*TIMERS, *SERVICES) if os.path.lexists(root / _SYSTEMD / unit)]
    if uninstall and here and installed:
        _run("systemctl", "disable", "--now", *installed)
    changed = _change(files, install=install, uninstall=uninstall, as_json=as_json)
    if changed is None:
        return
    next_steps: list[str] = []
    written: list[str] = []
    if install:
        if ctx.obj.env_file is None:
            written = _write_environment(root / _ENVIRONMENT, settings)
            changed += [root / _ENVIRONMENT] if written else []
        next_steps = [
            *_steps_to_settings(schedule, root),
            *_steps_to_password(settings),
            f"`systemctl enable --now {' '.join((*TIMERS, *SERVICES))}`",
            f"`sudo -u atom-sync {_as_typed(schedule)} jobs` shows when they run, `… doctor` what is missing",
        ]
        if not here:
            next_steps.insert(0, "on that machine: `systemd-sysusers`, `systemd-tmpfiles --create`")
    if here:
        if install:
            _run("systemd-sysusers")
            _run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/atom-sync.conf")
        _run("systemctl", "daemon-reload")
    _report(changed, next_steps, written, install=install, as_json=as_json)


def _systemd_of_user(options: GlobalOptions, *, install: bool, uninstall: bool, root: Path, as_json: bool) -> None:
    """Show, write or remove the units for the user's own systemd."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.core import user_units
    from atom_saas_sync.core.schedule_files import HOME, TIMERS

    if runtime.is_system(options):
        raise UsageError("--user and --system exclude each other")
    settings, home = _settings(options), Path.home()
    data = runtime.data_home()
    database = f"{data}/atom-sync/atom.db" if data else f"{HOME}/{user_units.DATABASE}"
    if isinstance(settings.database, Path) and not _is_default_database(settings):
        database = str(settings.database)
    schedule = _schedule(
        options,
        settings,
        restart_steps=_systemd_version() >= _FIRST_WITH_RESTART_STEPS,
        named=f"{HOME}/{user_units.SETTINGS}",
        database=database,
    )
    below = root / str(home).lstrip("/")
    units = [*TIMERS, *user_units.SERVICES]
    files = {below / user_units.DIRECTORY / name: text for name, text in user_units.user_units(schedule).items()}
    here = root == Path("/") and Path(f"/run/user/{os.getuid()}/systemd/private").exists()
    if uninstall and here and (there := [each for each in units if (below / user_units.DIRECTORY / each).exists()]):
        _run("systemctl", "--user", "disable", "--now", *there)
    changed = _change(files, install=install, uninstall=uninstall, as_json=as_json)
    if changed is None:
        return
    next_steps: list[str] = []
    written: list[str] = []
    if install:
        token, password = home / user_units.TOKEN_FILE, home / user_units.PASSWORD_FILE
        if options.env_file is None:
            path = below / user_units.SETTINGS
            plain = database.replace(HOME, str(home))
            written = _write_environment(
                path, settings, token_file=str(token), password_file=str(password), database=plain, mode=0o600
            )
            changed += [path] if written else []
        next_steps = [
            f"put the token into a file: `install -m 600 /dev/stdin {quote(str(token))}`",
            *(
                [f"put the database's password into a file: `install -m 600 /dev/stdin {quote(str(password))}`"]
                if _has_password(settings)
                else []
            ),
            f"`systemctl --user enable --now {' '.join(units)}`",
            "`loginctl enable-linger` keeps them running while you are not logged in",
        ]
    if here:
        _run("systemctl", "--user", "daemon-reload")
    _report(changed, next_steps, written, install=install, as_json=as_json)


@app.command()
@paged
def cron(
    ctx: typer.Context,
    install: _Install = False,
    uninstall: _Uninstall = False,
    root: _Root = Path("/"),
    as_json: _Json = False,
) -> None:
    """Show the file for /etc/cron.d, for machines without systemd; --install writes it."""
    from atom_saas_sync.core.schedule_files import CRONTAB, METRICS_DIRECTORY, crontab
    from atom_saas_sync.places import STATE_DIRECTORY, TOKEN_FILE

    settings = _settings(ctx.obj)
    schedule = _schedule(ctx.obj, settings)
    changed = _change({root / CRONTAB[1:]: crontab(schedule)}, install=install, uninstall=uninstall, as_json=as_json)
    if changed is None:
        return
    next_steps: list[str] = []
    written: list[str] = []
    if install:
        if ctx.obj.env_file is None:
            written = _write_environment(root / _ENVIRONMENT, settings)
            changed += [root / _ENVIRONMENT] if written else []
        next_steps = [
            f"create the user: `useradd --system --user-group --home-dir {STATE_DIRECTORY} atom-sync`",
            f"and its directory: `install -d -m 2770 -o atom-sync -g atom-sync {STATE_DIRECTORY}`",
            f"create the directory for node_exporter: `install -d -o atom-sync {METRICS_DIRECTORY}`",
            f"put the token into a file: `install -m 600 -o atom-sync /dev/stdin {TOKEN_FILE}`",
            *_steps_to_password(settings),
            f"check {schedule.settings}, and give it to that user: `chown atom-sync {quote(str(schedule.settings))}`",
            f"`sudo -u atom-sync {_as_typed(schedule)} doctor` shows what is missing",
        ]
    _report(changed, next_steps, written, install=install, as_json=as_json)


def _steps_to_settings(schedule: Schedule, root: Path) -> list[str]:
    """Return what is left to do for the settings and the token; nothing once `config init` has written both."""
    from atom_saas_sync.places import TOKEN_FILE

    if os.path.lexists(root / TOKEN_FILE[1:]):
        return []
    return [
        f"put the token into a file: `install -m 600 -o atom-sync /dev/stdin {TOKEN_FILE}`",
        f"check the settings in {schedule.settings}, among them ENABLE_SCHEDULER=true",
    ]


def _has_password(settings: Settings) -> bool:
    """Tell whether the database is on a server that wants a password."""
    return not isinstance(settings.database, Path) and settings.database.password is not None


def _steps_to_password(settings: Settings) -> list[str]:
    """Return what is left to do for the password of the database's server."""
    from atom_saas_sync.places import DATABASE_PASSWORD_FILE

    step = f"put the database's password into a file: `install -m 600 -o atom-sync /dev/stdin {DATABASE_PASSWORD_FILE}`"
    return [step] if _has_password(settings) else []


def _settings(options: GlobalOptions) -> Settings:
    """Read the settings from explicit sources only: services must not get settings from a .env found by chance."""
    from atom_saas_sync.cli import runtime

    if runtime.is_system(options):
        return runtime.load(options)
    named = options if options.env_file is not None else replace(options, no_env_file=True)
    if options.env_file is None and not options.no_env_file and os.path.lexists(".env"):
        note("the .env of this directory is not used here; pass --env-file .env to use it")
    return runtime.load(named)


def _as_typed(schedule: Schedule) -> str:
    """Return the command line with which a user addresses the service."""
    from atom_saas_sync.places import SETTINGS

    return f"{schedule.executable} --system" if schedule.settings == SETTINGS else schedule.command


def _schedule(
    options: GlobalOptions,
    settings: Settings,
    *,
    restart_steps: bool = False,
    named: str | None = None,
    database: str | None = None,
) -> Schedule:
    from atom_saas_sync.core.schedule_files import Schedule
    from atom_saas_sync.places import SETTINGS

    return Schedule(
        executable=str(_program()),
        settings=(named or SETTINGS) if options.env_file is None else str(options.env_file.absolute()),
        database=database or str(_database(settings)),
        skills_minutes=settings.sync_interval_minutes,
        ratings_minutes=settings.rating_sync_interval_minutes,
        restart_steps=restart_steps,
        on_server=not isinstance(settings.database, Path),
    )


def _program() -> Path:
    """Return the program for services to start directly: systemd accepts notifications from no other process."""
    beside = Path(sys.executable).with_name("atom-sync")
    return beside if beside.exists() else Path(shutil.which("atom-sync") or beside)


def _warn_of_hidden_files(schedule: Schedule, settings: Settings) -> None:
    """Warn about files that the units cannot see: they have a private /tmp, and no home directories."""
    from atom_saas_sync.core.schedule_files import is_hidden

    needed = {
        "the program": (schedule.executable, "install it elsewhere, as in `python3 -m venv /opt/atom-sync/venv`"),
        "the settings": (schedule.settings, "put them into /etc/atom-sync/atom-sync.env"),
        "the database": (schedule.database, "set ATOM_SAAS_DATABASE_URL to a file below /var/lib/atom-sync"),
        "the CA file": (settings.ca_file, "put it below /etc"),
        "the token file": (settings.token_file, "put the token into /etc/atom-sync/token"),
        "the policy": (settings.policy_file, "put it below /etc"),
        "the lock file": (settings.lock_file, "put it below /etc"),
        "the revocations file": (settings.revocations_file, "put it below /etc"),
    }
    if not isinstance(settings.database, Path):
        files = {name: settings.database.options.get(name) for name in ("sslrootcert", "sslcert", "sslkey")}
        needed |= {f"the file of {name}": (path, "put it below /etc") for name, path in files.items() if path}
    for what, (path, cure) in needed.items():
        if path is not None and (is_hidden(str(path)) or is_hidden(os.path.realpath(path))):
            note(f"warning: services cannot see {what} {path}, below a home or temporary directory\n  → {cure}")


def _database(settings: Settings) -> Path:
    """Return the services' database: from the settings, or in their state directory."""
    from atom_saas_sync.places import STATE_DIRECTORY

    if isinstance(settings.database, Path) and not _is_default_database(settings):
        return settings.database
    return Path(STATE_DIRECTORY) / "atom.db"


def _is_default_database(settings: Settings) -> bool:
    return {each.name: each.origin for each in settings.shown}["ATOM_SAAS_DATABASE_URL"] in _SET_BY_NOBODY


def _change(files: dict[Path, str], *, install: bool, uninstall: bool, as_json: bool) -> list[Path] | None:
    """Write or remove the files and return those that changed; None if they were only shown."""
    if install and uninstall:
        raise UsageError("--install and --uninstall exclude each other")
    if not (install or uninstall):
        if as_json:
            shown = [{"path": str(path), "text": text} for path, text in files.items()]
            print_json({"files": shown, "total": len(shown)})
        else:
            typer.echo("\n".join(f"# {path}\n{text}" for path, text in files.items()), nl=False)
        return None
    for path in files:
        _refuse_foreign(path)
    return _write(files) if install else _remove(files)


def _refuse_foreign(path: Path) -> None:
    from atom_saas_sync.core.schedule_files import MARK

    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failure(path, error) from error
    if not text.startswith(MARK):
        raise UsageError(
            f"{path} was not written by this command", hint="nothing was changed; move it away, or keep it"
        )


def _write(files: dict[Path, str]) -> list[Path]:
    from atom_saas_sync.textfile import write_textfile

    changed = []
    for path, text in files.items():
        if _text_of(path) == text:
            continue
        _make_directory(path.parent)
        write_textfile(path, text)
        changed.append(path)
    return changed


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None  # the write reports the error


def _remove(files: dict[Path, str]) -> list[Path]:
    changed = [path for path in files if os.path.lexists(path)]
    for path in changed:
        try:
            path.unlink()
        except OSError as error:
            raise _failure(path, error) from error
    return changed


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise _failure(path, error) from error


def _write_environment(
    path: Path,
    settings: Settings,
    *,
    token_file: str | None = None,
    password_file: str | None = None,
    database: str | None = None,
    mode: int = 0o640,
) -> list[str]:
    """Write the settings of this call and return the lines; none if the file exists, which belongs to the user."""
    from atom_saas_sync.places import DATABASE_PASSWORD_FILE, TOKEN_FILE

    if os.path.lexists(path):
        return []
    lines = [
        "# The settings of atom-sync's services; `atom-sync config show` lists all. The token has a file of its own."
    ]
    lines += [
        _line(shown) for shown in settings.shown if shown.origin not in _SET_BY_NOBODY and shown.name not in _LEFT_OUT
    ]
    # systemd gives services a database and a credential; these lines are for cron and for users.
    lines.append(f"ATOM_SAAS_API_TOKEN_FILE={token_file or TOKEN_FILE}")
    is_file = isinstance(settings.database, Path)
    url = f"sqlite:///{database or _database(settings)}" if is_file else str(settings.database)
    lines.append(f"ATOM_SAAS_DATABASE_URL={url}" if is_file else f"ATOM_SAAS_DATABASE_URL='{url}'")
    if _has_password(settings):
        lines.append(f"ATOM_SAAS_DATABASE_PASSWORD_FILE={password_file or DATABASE_PASSWORD_FILE}")
    lines.append("ENABLE_SCHEDULER=true")
    _make_directory(path.parent)
    try:
        # For the owner and the group only: a user may add the admin token.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, mode)
            stream.write("\n".join(lines) + "\n")
    except OSError as error:
        raise _failure(path, error) from error
    return lines


def _line(shown: EffectiveSetting) -> str:
    value = shown.value or ""
    if value.endswith("?…"):
        return f"# {shown.name}: it has a query, which may hold a secret; set it here by hand"
    if value.isascii() and value.replace("_", "").replace("/", "").replace(":", "").replace(".", "").isalnum():
        return f"{shown.name}={value}"
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{shown.name}='{quoted}'"


def _systemd_version() -> int:
    """Return systemd's version; 0 if it is missing or unknown."""
    if shutil.which("systemctl") is None:
        return 0
    words = _run("systemctl", "--version").split()  # systemd 252 (252.39-1~deb12u1)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _run(*command: str) -> str:
    """Run a systemd command and return its output. Raises AtomSyncError with its error message."""
    from atom_saas_sync.cli.runtime import environment_for_others

    shown = " ".join(command)
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            command,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            env=environment_for_others(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AtomSyncError(f"`{shown}` failed: {error}", hint="run it by hand") from error
    if done.returncode != 0:
        complaint = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise AtomSyncError(f"`{shown}` failed: {complaint}", hint="run it by hand")
    return done.stdout


def _failure(path: Path, error: OSError) -> AtomSyncError:
    return DatabaseError(f"cannot change {path}: {error.strerror}", hint="run it as root")


def _report(changed: list[Path], next_steps: list[str], settings: list[str], *, install: bool, as_json: bool) -> None:
    verb = "installed" if install else "removed"
    if as_json:
        print_json({verb: [str(path) for path in changed], "settings": settings, "next": next_steps})
        return
    for path in changed:
        typer.echo(f"{verb} {path}")
    for line in settings:  # the last of these directories, which did not exist before
        typer.echo(f"    {printable(line)}")
    if not changed:
        typer.echo(f"nothing to do: everything is {verb} already")
    for step in next_steps:
        typer.echo(f"  → {step}")
