"""The address of a database server in the settings: the source of its password, and that it is never shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.config import load_settings, show_settings, without_secrets
from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import ConfigError

URL = "postgresql://worker@db.example/site"
NAME, FILE = "ATOM_SAAS_DATABASE_URL", "ATOM_SAAS_DATABASE_PASSWORD_FILE"


def address(directory: Path, **environ: str) -> ServerAddress:
    found = load_settings({NAME: URL, **environ}, working_directory=directory).database
    assert isinstance(found, ServerAddress)
    return found


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


def test_the_password_is_taken_from_the_first_place_that_has_one(tmp_path: Path) -> None:
    in_file = {FILE: written(tmp_path / "password", "of the file\n")}
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    written(credentials / "atom-sync-database-password", "of systemd")
    everywhere = in_file | {"CREDENTIALS_DIRECTORY": str(credentials), "PGPASSWORD": "of the variable"}
    with_password = URL.replace("worker@", "worker:of%20the%20URL@")
    assert address(tmp_path, **everywhere, **{NAME: with_password}).password == "of the URL"
    assert address(tmp_path, **everywhere).password == "of the file"
    del everywhere[FILE]
    assert address(tmp_path, **everywhere).password == "of systemd"
    del everywhere["CREDENTIALS_DIRECTORY"]
    assert address(tmp_path, **everywhere).password == "of the variable"
    assert address(tmp_path).password is None


def test_no_output_shows_a_password(tmp_path: Path) -> None:
    environ = {NAME: "postgresql://worker:hunter2@db.example/site?sslmode=require"}
    settings = load_settings(environ, working_directory=tmp_path)
    assert "hunter2" not in repr(settings) + str(settings.database)
    shown, problems, warnings = show_settings(environ, working_directory=tmp_path)
    values = {each.name: each.value for each in shown}
    assert values[NAME] == "postgresql://worker@db.example/site?sslmode=require"
    assert "hunter2" not in repr((shown, problems, warnings))


def test_a_password_on_the_command_line_is_warned_of(tmp_path: Path) -> None:
    settings = load_settings({}, working_directory=tmp_path, database="postgresql://worker:hunter2@db.example/site")
    assert [each for each in settings.warnings if "list of processes" in each and FILE in each]
    assert "hunter2" not in repr(settings.warnings)
    assert not load_settings({}, working_directory=tmp_path, database=URL).warnings


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), ("", "is empty"), ("\n", "is empty"), ("a\0b", "NUL")]
)
def test_an_invalid_password_file(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        written(path, content)
    with pytest.raises(ConfigError, match=f"{FILE}: .*{said}"):
        address(tmp_path, **{FILE: str(path)})
    # Nobody reads it for a file.
    assert load_settings({NAME: "x.db", FILE: str(path)}, working_directory=tmp_path).database == tmp_path / "x.db"


def test_a_password_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "password"
    written(path, "hunter2")
    path.chmod(0o644)
    settings = load_settings({NAME: URL, FILE: str(path)}, working_directory=tmp_path)
    assert settings.warnings == (f"{path} can be read by others; chmod 600 it",)


def test_a_server_that_a_found_file_names_gets_no_password_from_elsewhere(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    written(env_file, f"{NAME}={URL}\n")
    options: dict[str, Any] = {"working_directory": tmp_path}
    load_settings({}, **options)
    with pytest.raises(ConfigError, match="the password is from PGPASSWORD"):
        load_settings({"PGPASSWORD": "hunter2"}, **options)
    load_settings({"PGPASSWORD": "hunter2"}, **options, env_file=env_file)
    written(tmp_path / "password", "hunter2")
    written(env_file, f"{NAME}={URL}\n{FILE}=password\n")
    load_settings({}, **options)


def test_a_found_file_draws_no_other_file_out_as_a_password(tmp_path: Path) -> None:
    """A server may ask for the password in plain text."""
    here = tmp_path / "here"
    here.mkdir()
    key = written(tmp_path / "id_ed25519", "a private key")
    (here / "link").symlink_to(key)
    for named in (key, "../id_ed25519", "link"):
        env_file = written(here / ".env", f"{NAME}={URL}\n{FILE}={named}\n")
        with pytest.raises(ConfigError, match=r"what a \.env file in the working directory says") as refused:
            load_settings({}, working_directory=here)
        assert "a private key" not in refused.value.message
        load_settings({}, working_directory=here, env_file=Path(env_file))


@pytest.mark.parametrize(("name", "usual"), [("PGPASSFILE", ".pgpass"), ("PGSERVICEFILE", ".pg_service.conf")], ids=str)
@pytest.mark.parametrize("named", [True, False])
def test_a_pipe_in_place_of_a_file_of_libpq_does_not_block(
    machine: Machine, tmp_path: Path, name: str, usual: str, named: bool
) -> None:
    os.mkfifo(pipe := tmp_path / usual)
    given = {name: str(pipe)} if named else {}
    server = {NAME: "postgresql://worker@127.0.0.1:1/x", "HOME": str(tmp_path), "PGSERVICE": "x"}
    result = machine.command("status", **server, **given)
    assert result.returncode == 78, result
    assert f"{name}: {pipe} is not a regular file" in result.stderr


def test_programs_that_are_not_ours_get_no_password() -> None:
    ours = {NAME: "postgresql://worker:hunter2@db.example/site", FILE: "f", "PGPASSWORD": "p", "PGPASSFILE": "q"}
    assert without_secrets({**ours, "PATH": "/bin"}) == {"PATH": "/bin"}
    assert without_secrets({NAME: URL}) == {NAME: URL}


def test_a_host_has_a_name(tmp_path: Path) -> None:
    assert address(tmp_path, ATOM_SYNC_HOST="db-1").this_host == "db-1"
    assert load_settings({}, working_directory=tmp_path).host
