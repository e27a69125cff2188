"""The database: the path of its file, or the address of its server and the password for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from atom_saas_sync.config.files import is_beside, is_missing, read_password_file
from atom_saas_sync.config.sources import Sources
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.places import STATE_DIRECTORY

if TYPE_CHECKING:
    from atom_saas_sync.core.server_address import ServerAddress

_NAME = "ATOM_SAAS_DATABASE_URL"
_FILE = "ATOM_SAAS_DATABASE_PASSWORD_FILE"
_HOST = "ATOM_SYNC_HOST"
_CREDENTIAL = "atom-sync-database-password"


def find_database(sources: Sources) -> None:
    """Complete the path of the file, or the address of the server."""
    state = (sources.environ.get("STATE_DIRECTORY") or "").split(":")[0]
    if _NAME not in sources.origins:
        sources.origins[_NAME] = "$STATE_DIRECTORY" if state else "default"
        sources.values[_NAME] = Path(state) / "atom.db" if state else Path("data/atom.db")
    database = sources.values[_NAME]
    if isinstance(database, Path):
        sources.values[_NAME] = sources.absolute(_NAME)
    elif database is not None:
        beside = Path(state) if state else Path(STATE_DIRECTORY if sources.is_system else sources.directory / "data")
        _complete(database, sources, backups=beside / "backups")
    if sources.values[_FILE] is not None:
        sources.values[_FILE] = sources.absolute(_FILE)


def find_host(sources: Sources) -> None:
    """Take this host's name from the system if no setting has it."""
    if _HOST not in sources.origins:
        sources.origins[_HOST], sources.values[_HOST] = "system", os.uname().nodename


def _complete(address: ServerAddress, sources: Sources, *, backups: Path) -> None:
    from dataclasses import replace

    _refuse_special_files(sources)
    if address.password is None:
        password, origin = _password(sources)
    else:
        password, origin = address.password, sources.origins[_NAME]
        if origin == "--database":
            sources.warnings.append(
                f"--database contains a password, which is visible in the list of processes; put it into {_FILE}"
            )
    is_found = sources.is_found and sources.origins[_NAME] == sources.file_name
    if password is not None and is_found and origin != sources.file_name:
        sources.problems.append(
            f"{_NAME}: from {sources.file_name}, but the password is from {origin}; what a .env file in the working "
            "directory says gets only a password from the same file, or from a file beside it that it names: "
            "name the .env file with --env-file if it is yours"
        )
    host = sources.values[_HOST] or ""
    sources.values[_NAME] = replace(address, password=password, this_host=host, backups=str(backups))


def _refuse_special_files(sources: Sources) -> None:
    """Refuse a pipe or device in place of a file that libpq reads: it would wait for it forever."""
    home = sources.environ.get("HOME") or "/"
    for name, usual in (("PGPASSFILE", ".pgpass"), ("PGSERVICEFILE", ".pg_service.conf")):
        file = sources.environ.get(name) or os.path.join(home, usual)  # noqa: PTH118 - a text for both
        # Path.is_file raises where we may not look.
        if os.path.exists(file) and not os.path.isfile(file):  # noqa: PTH110, PTH113
            sources.problems.append(f"{name}: {file} is not a regular file")


def _password(sources: Sources) -> tuple[str | None, str]:
    """Return the password and where it is from; PGPASSFILE is for the driver, which knows what each line is for."""
    path = None if sources.values[_FILE] is None else sources.absolute(_FILE)
    credentials = sources.environ.get("CREDENTIALS_DIRECTORY")
    if path is None and _FILE not in sources.wrong and credentials:
        credential = Path(credentials) / _CREDENTIAL
        if not is_missing(credential) and not _is_blank(credential):
            path, sources.values[_FILE], sources.origins[_FILE] = credential, credential, "systemd credential"
    if path is not None:
        try:
            password, readable = read_password_file(path, _FILE)
        except ConfigError as error:
            sources.problems.append(error.message)
            return None, str(path)
        if readable:
            sources.warnings.append(f"{path} can be read by others; chmod 600 it")
        is_of_env_file = sources.origins[_FILE] == sources.file_name and is_beside(path, sources.directory)
        return password, sources.file_name if is_of_env_file else str(path)
    return sources.environ.get("PGPASSWORD") or None, "PGPASSWORD"


def _is_blank(credential: Path) -> bool:
    """Tell whether systemd put nothing there: our units have an empty credential if its file is missing."""
    try:
        return credential.read_bytes() in {b"", b"\n"}
    except OSError:
        return False  # reading the password will report it
