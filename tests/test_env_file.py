"""Which files settings are read from, and when they are used with which token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync import config
from atom_saas_sync.config import Settings, files, load_settings, require_token, show_settings, sources
from atom_saas_sync.config.files import LARGEST_ENV_FILE
from atom_saas_sync.errors import ConfigError

TOKEN = "at_saas_abc123"
OWN_URLS = "ATOM_SAAS_API_URL=https://evil.example\nATOM_SAAS_WS_URL=wss://evil.example/ws\n"


def _load(directory: Path, environ: dict[str, str] | None = None, **options: Any) -> Settings:
    return load_settings(environ or {}, working_directory=directory, **options)


def _write(directory: Path, text: str, name: str = ".env", mode: int = 0o600) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def _give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file belong to a user other than us and root."""
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)


# Who could have written it


@pytest.mark.parametrize("mode", [0o666, 0o602, 0o622])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = _write(tmp_path, "ATOM_SAAS_SYNC_BATCH_SIZE=20\n", mode=mode)
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path)
    assert str(path) in caught.value.message and f"mode {mode:04o}" in caught.value.message
    shown, problems, _ = show_settings({}, working_directory=tmp_path)
    assert len(problems) == 1
    assert not [line for line in shown if line.origin == str(path)], "nothing of it is taken"


def test_a_file_in_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "ATOM_SAAS_SYNC_BATCH_SIZE=20\n")
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=f"its directory {tmp_path} .* mode 0777"):
        _load(tmp_path)


def test_the_target_of_a_link_is_checked(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (tmp_path / ".env").symlink_to(_write(elsewhere, "ATOM_SAAS_SYNC_BATCH_SIZE=20\n"))
    assert _load(tmp_path).batch_size == 20
    elsewhere.chmod(0o777)
    with pytest.raises(ConfigError, match=f"its directory {elsewhere} "):
        _load(tmp_path)


@pytest.mark.parametrize("what", [".env", "."])
def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    path = _write(tmp_path, "ATOM_SAAS_SYNC_BATCH_SIZE=20\n", mode=0o644)
    _give_away(tmp_path / what, monkeypatch)
    with pytest.raises(ConfigError, match=f"{path} was not read: .* mode 0"):
        _load(tmp_path)
    assert _load(tmp_path, no_env_file=True).batch_size == 1000
    assert _load(tmp_path, env_file=path).batch_size == 20, "named: the operator's word"


def test_the_owner_s_own_group_may_write_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, "ATOM_SAAS_SYNC_BATCH_SIZE=20\n", mode=0o660)
    group = path.stat().st_gid
    monkeypatch.setattr(files, "_user", lambda number: (str(number), group))
    assert _load(tmp_path).batch_size == 20
    monkeypatch.setattr(files, "_user", lambda number: (str(number), group + 1))
    with pytest.raises(ConfigError, match="mode 0660"):
        _load(tmp_path)


def test_without_a_file_the_directory_is_not_checked(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert _load(tmp_path).batch_size == 1000


# Responses


@pytest.mark.parametrize("name", ["ATOM_SYNC_SCAN_COMMAND", "ATOM_SYNC_DIGEST_KEY_FILE"])
def test_variables_that_run_a_program_are_not_read_from_it(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path, f"{name}=/bin/evil\n")
    with pytest.raises(ConfigError, match=f"{name} must not be set in {path}"):
        _load(tmp_path, {name: "/bin/mine"})
    _write(tmp_path, f"{name}=\n")
    _load(tmp_path)


def test_no_file_makes_a_command_that_of_the_service(tmp_path: Path) -> None:
    path = _write(tmp_path, "ATOM_SYNC_SYSTEM=true\n")
    for settings in (_load(tmp_path), _load(tmp_path, env_file=path)):
        assert settings.database == tmp_path / "data/atom.db"
        assert "ATOM_SYNC_SYSTEM" in settings.warnings[0]


# Which token goes where


@pytest.mark.parametrize(
    "line",
    [
        "ATOM_SAAS_API_URL=https://evil.example",
        "ATOM_SAAS_WS_URL=wss://evil.example/ws",
        "ATOM_SAAS_CA_FILE={ca}",
        "ATOM_SAAS_ALLOW_INSECURE=true",
    ],
)
def test_a_token_from_elsewhere_is_not_sent_to_the_file_s_address(tmp_path: Path, line: str) -> None:
    import certifi

    path = _write(tmp_path, f"{line.format(ca=certifi.where())}\n")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    file = _write(elsewhere, TOKEN, "token")
    for source in ({"ATOM_SAAS_API_TOKEN": TOKEN}, {"ATOM_SAAS_API_TOKEN_FILE": str(file)}):
        settings = _load(tmp_path, source)
        with pytest.raises(ConfigError) as caught:
            require_token(settings)
        told = caught.value.message
        assert line.partition("=")[0] in told and str(path) in told
        assert ("environment" if "ATOM_SAAS_API_TOKEN" in source else str(elsewhere)) in told
        assert told in show_settings(source, working_directory=tmp_path)[1]
    assert require_token(_load(tmp_path, {"ATOM_SAAS_API_TOKEN": TOKEN}, env_file=path))


def test_a_credential_does_not_go_there_either(tmp_path: Path) -> None:
    _write(tmp_path, OWN_URLS)
    (credentials := tmp_path / "credentials").mkdir()
    _write(credentials, TOKEN, "atom-saas-token")
    with pytest.raises(ConfigError, match="the token is from"):
        require_token(_load(tmp_path, {"CREDENTIALS_DIRECTORY": str(credentials)}))


def test_a_token_of_the_same_file_or_of_one_beside_it_does(tmp_path: Path) -> None:
    _write(tmp_path, f"{OWN_URLS}ATOM_SAAS_API_TOKEN={TOKEN}\n")
    assert require_token(_load(tmp_path)).reveal() == TOKEN
    _write(tmp_path, TOKEN, "token")
    _write(tmp_path, f"{OWN_URLS}ATOM_SAAS_API_TOKEN_FILE=token\n")
    assert require_token(_load(tmp_path)).reveal() == TOKEN


@pytest.mark.parametrize("named", ["{elsewhere}/token", "link", "below/../elsewhere/token", "linked/token"])
def test_no_file_draws_out_the_token_of_another_one(tmp_path: Path, named: str) -> None:
    (here := tmp_path / "here").mkdir()
    for each in (tmp_path / "elsewhere", here / "elsewhere", here / "below"):
        each.mkdir()
    foreign = _write(tmp_path / "elsewhere", TOKEN, "token")
    _write(here / "elsewhere", TOKEN, "token")
    (here / "link").symlink_to(foreign)
    (here / "linked").symlink_to(tmp_path / "elsewhere")
    _write(here, f"{OWN_URLS}ATOM_SAAS_API_TOKEN_FILE={named.format(elsewhere=tmp_path / 'elsewhere')}\n")
    settings = _load(here)
    with pytest.raises(ConfigError, match="the token is from"):
        require_token(settings)


def test_only_what_is_in_effect_counts(tmp_path: Path) -> None:
    _write(tmp_path, f"{OWN_URLS}ATOM_SAAS_ALLOW_INSECURE=false\n")
    own = {"ATOM_SAAS_API_URL": "https://mine.example", "ATOM_SAAS_API_TOKEN": TOKEN}
    assert require_token(_load(tmp_path, {**own, "ATOM_SAAS_WS_URL": "wss://mine.example/ws"}))
    assert require_token(_load(tmp_path, {**own, "ATOM_SAAS_WS_ENABLED": "false"}))
    with pytest.raises(ConfigError, match="ATOM_SAAS_WS_URL: from"):
        require_token(_load(tmp_path, own))
    _write(tmp_path, "ATOM_SAAS_API_URL=https://api.atomsaas.com\n")
    assert require_token(_load(tmp_path, {"ATOM_SAAS_API_TOKEN": TOKEN})), "where it goes anyway"


# The service's own


def test_system_takes_settings_token_and_database_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "here").mkdir()
    _write(here, "ATOM_SAAS_SYNC_BATCH_SIZE=7\n", mode=0o666)
    settings = _write(tmp_path, "ATOM_SAAS_SYNC_BATCH_SIZE=20\n", "atom-sync.env")
    token = _write(tmp_path, TOKEN, "token")
    monkeypatch.setattr(sources, "SETTINGS", str(settings))
    monkeypatch.setitem(config.SERVICE_DEFAULTS, "ATOM_SAAS_API_TOKEN_FILE", str(token))
    for environ, system in (({}, True), ({"ATOM_SYNC_SYSTEM": "true"}, False)):
        found = _load(here, environ, system=system)
        assert (found.batch_size, found.token_file) == (20, token)
        assert require_token(found).reveal() == TOKEN
        assert found.database == Path("/var/lib/atom-sync/atom.db")
        assert found.warnings == ()
    _write(tmp_path, "ATOM_SAAS_DATABASE_URL=srv/other.db\nATOM_SAAS_API_TOKEN=at_saas_of_the_file\n", "atom-sync.env")
    found = _load(here, system=True)
    assert found.database == Path("/srv/other.db"), "the service's directory is /"
    assert require_token(found).reveal() == "at_saas_of_the_file"
    assert found.warnings == ()
    assert _load(here, system=True, database="mine.db").database == here / "mine.db"
    token.unlink()
    _write(tmp_path, "", "atom-sync.env")
    assert _load(here, system=True).api_token is None
    settings.unlink()
    with pytest.raises(ConfigError, match=r"atom-sync\.env: No such file") as caught:
        _load(here, system=True)
    assert caught.value.hint == "`sudo atom-sync --system config init` writes the service's settings"


def test_a_user_without_access_to_the_settings_gets_the_command_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from atom_saas_sync.cli import main

    def denied(path: Any, *_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    monkeypatch.chdir(tmp_path)
    for arguments in (["--system", "status"], ["status", "--system"]):
        monkeypatch.setattr("sys.argv", ["atom-sync", *arguments])
        assert main._run(as_json=False) == 78  # noqa: SLF001 - without the streams
        assert "sudo -u atom-sync atom-sync --system status" in capsys.readouterr().err


@pytest.mark.sqlite("the rights of its file")
@pytest.mark.parametrize("command", [["status"], ["skills", "list", "--json"], ["db", "check"]])
def test_a_user_without_access_to_the_database_gets_the_command_to_run(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    from atom_saas_sync.cli import main

    machine.pull()
    monkeypatch.setattr(sources, "SETTINGS", str(_write(machine.directory, "", "atom-sync.env")))
    monkeypatch.setitem(config.SERVICE_DEFAULTS, "ATOM_SAAS_DATABASE_URL", str(machine.database_path))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr("sys.argv", ["atom-sync", "--system", *command])
    assert main._run(as_json=False) == 74  # noqa: SLF001 - without the streams
    told = capsys.readouterr().err
    assert f"{machine.database_path}: Permission denied" in told
    assert f"sudo -u atom-sync atom-sync --system {' '.join(command)}" in told


# On the command line


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "pipe.env")
    with pytest.raises(ConfigError, match=f"{path}: is not a regular file"):
        _load(tmp_path, env_file=path)
    assert _load(tmp_path, env_file=Path(os.devnull)).batch_size == 1000


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.env"
    with path.open("wb") as stream:
        stream.truncate(LARGEST_ENV_FILE + 1)
    with pytest.raises(ConfigError, match=f"{path}: is larger than 1 MiB"):
        _load(tmp_path, env_file=path)
    path.write_text("ATOM_SAAS_SYNC_BATCH_SIZE=500\n" + "#" * (LARGEST_ENV_FILE - 30), encoding="utf-8")
    assert _load(tmp_path, env_file=path).batch_size == 500


def test_commands_that_send_the_token_refuse_and_the_others_do_not(machine: Machine) -> None:
    _write(machine.directory, f"ATOM_SAAS_API_URL={machine.sandbox.url}\nATOM_SAAS_WS_URL={machine.sandbox.ws_url}\n")
    clean: dict[str, str] = {"ATOM_SAAS_API_URL": "", "ATOM_SAAS_WS_URL": ""}
    before = len(machine.sandbox.requests())
    refused = machine.command("sync", "skills", **clean)
    assert refused.returncode == 78 and "the token is from environment" in refused.stderr
    examined = machine.command("doctor", **clean)
    assert examined.returncode != 0 and "the token is from environment" in examined.stdout
    assert len(machine.sandbox.requests()) == before
    assert machine.command("db", "check", **clean).returncode == 74, "there is no database yet; settings are no matter"
    assert machine.command("--no-env-file", "config", "check", **clean).returncode == 0
    named = machine.command("--env-file", ".env", "sync", "skills", "--json", **clean)
    assert named.returncode == 0, named.stderr
    first = named.stderr.splitlines()[0]
    assert first.startswith("marketplace: 127.0.0.1:") and "from .env" in first


def test_the_options_for_env_files_exclude_each_other(machine: Machine) -> None:
    result = machine.command("--env-file", "x", "--no-env-file", "status")
    assert result.returncode == 2 and "exclude each other" in result.stderr
