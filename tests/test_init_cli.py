"""`config init`: it asks, tries the answers, and writes the settings only if they work."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from conftest import NO_LIMITS, Machine, on_a_terminal

from atom_saas_sync import places
from atom_saas_sync.cli import main
from atom_saas_sync.config import load_settings, sources
from atom_saas_sync.core.env_file import assignment, filled, websocket_url

EXAMPLE = (Path(__file__).parent.parent / ".env.example").read_text(encoding="utf-8")
NAMES = ("ATOM_SAAS_API_URL", "ATOM_SAAS_API_TOKEN", "ATOM_SAAS_WS_URL", "ATOM_SAAS_DATABASE_URL")


@pytest.fixture
def fresh(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine without settings, and with the token of its sandbox in a file."""
    environment = machine.environment
    monkeypatch.setattr(
        machine,
        "environment",
        lambda **more: {name: value for name, value in environment().items() if name not in NAMES} | NO_LIMITS | more,
    )
    machine.sandbox.set_clock_offset(0)
    (machine.directory / "token").write_text(f"{machine.sandbox.token}\n")
    return machine


def test_working_settings_are_written_and_used(fresh: Machine) -> None:
    told = fresh.command("config", "init", "--yes", "--url", fresh.sandbox.url, "--token-file", "token", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == {
        "success": True,
        "written": [".env"],
        "url": fresh.sandbox.url,
        "ws_url": fresh.sandbox.ws_url,
        "tried": True,
        "skills": 60,
    }
    written = fresh.directory / ".env"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    text = written.read_text(encoding="utf-8")
    assert f"\nATOM_SAAS_API_TOKEN={fresh.sandbox.token}\n" in text
    assert "token-file" not in text
    assert len(text.splitlines()) == len(EXAMPLE.splitlines())
    assert not list(fresh.directory.glob("*.db"))
    synced = fresh.command("sync", "skills", "--json")
    assert json.loads(synced.stdout)["skills_synced"] == 60

    again = fresh.command("config", "init", "--yes", "--token-file", "token")
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    assert written.read_text(encoding="utf-8") == text
    forced = fresh.command("config", "init", "--token-file", "token", "--force", "--offline")
    assert forced.returncode == 0, forced.stderr
    assert "ATOM_SAAS_API_URL=https://api.atomsaas.com\n" in written.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("url", "token", "code"),
    [
        ("{url}", "at_saas_wrong", 77),
        ("http://127.0.0.1:9", None, 69),
        ("{url}", "not a token", 78),
        ("http://192.0.2.1", None, 78),
        ("ftp://host", None, 2),
    ],
)
def test_settings_that_failed_are_not_written(fresh: Machine, url: str, token: str | None, code: int) -> None:
    (fresh.directory / ".env").write_text("OLD=1\n")
    if token is not None:
        (fresh.directory / "token").write_text(token)
    address = url.format(url=fresh.sandbox.url)
    told = fresh.hurried("config", "init", "--yes", "--force", "--url", address, "--token-file", "token", "--json")
    assert told.returncode == code, told.stderr
    assert json.loads(told.stdout)["success"] is False
    assert (fresh.directory / ".env").read_text() == "OLD=1\n"
    assert {path.name for path in fresh.directory.iterdir()} == {".env", "token"}


def test_without_a_terminal_the_token_needs_a_file(fresh: Machine) -> None:
    told = fresh.command("config", "init")
    assert (told.returncode, "--token-file" in told.stderr) == (2, True)
    piped = fresh.command("config", "init", "--url", fresh.sandbox.url, "--token-file", "-", stdin=fresh.sandbox.token)
    assert piped.returncode == 0, piped.stderr


def test_on_a_terminal_it_asks_and_hides_the_token(fresh: Machine) -> None:
    answers = [("Address", fresh.sandbox.url), ("API token", fresh.sandbox.token)]
    said = on_a_terminal(fresh, ["config", "init"], answers)
    assert "accepts the token and has 60 skills" in said
    assert fresh.sandbox.token not in said


def test_variables_used_by_the_trial_are_kept_and_overriding_ones_are_named(fresh: Machine) -> None:
    token = {"ATOM_SAAS_API_TOKEN": "at_saas_other", "ATOM_SAAS_ALLOW_INSECURE": "true"}
    told = fresh.command("config", "init", "--yes", "--url", fresh.sandbox.url, "--token-file", "token", **token)
    assert told.returncode == 0, told.stderr
    assert "ATOM_SAAS_API_TOKEN is set in the environment" in told.stderr
    assert "\nATOM_SAAS_ALLOW_INSECURE=true\n" in (fresh.directory / ".env").read_text(encoding="utf-8")


def test_no_settings_are_written_to_a_directory_of_another_user(fresh: Machine) -> None:
    fresh.directory.chmod(0o777)
    told = fresh.command("config", "init", "--yes", "--offline", "--token-file", "token")
    assert (told.returncode, "chmod go-w" in told.stderr) == (78, True)
    named = fresh.command("config", "init", "--yes", "--offline", "--token-file", "token", "--env-file", "mine.env")
    assert named.returncode == 0, named.stderr
    assert (fresh.directory / "mine.env").exists()
    assert not (fresh.directory / ".env").exists()


def test_the_service_gets_settings_a_token_and_a_key_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = tmp_path / "etc" / "atom-sync"
    for name, file in (("SETTINGS", "atom-sync.env"), ("TOKEN_FILE", "token"), ("DIGEST_KEY_FILE", "digest-key")):
        monkeypatch.setattr(places, name, str(etc / file))
    (tmp_path / "mine").write_text("at_saas_of_the_service\n")
    monkeypatch.chdir(tmp_path)

    def init(*more: str) -> int:
        command = ["--system", "config", "init", "--yes", "--offline", "--token-file", "mine", *more]
        monkeypatch.setattr("sys.argv", ["atom-sync", *command])
        return main._run(as_json=False)  # noqa: SLF001 - without the streams

    assert init() == 0
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in etc.iterdir()} == dict.fromkeys(
        ("atom-sync.env", "token", "digest-key"), 0o600
    )
    key = (etc / "digest-key").read_bytes()
    found = load_settings({}, env_file=etc / "atom-sync.env", working_directory=tmp_path)
    assert found.api_token is not None
    assert found.api_token.reveal() == "at_saas_of_the_service"
    assert found.digest_key is not None
    assert bytes.fromhex(found.digest_key.reveal()) == key
    assert (found.scheduler_enabled, found.database) == (True, Path("/var/lib/atom-sync/atom.db"))
    assert found.warnings == ()
    assert init() == 2
    assert init("--force") == 0
    assert (etc / "digest-key").read_bytes() == key
    assert "schedule systemd --install" in capsys.readouterr().out

    written = (etc / "atom-sync.env").read_text(encoding="utf-8")
    (etc / "atom-sync.env").write_text(f"{written}ATOM_SAAS_SYNC_INTERVAL_MINUTES=20\n", encoding="utf-8")
    monkeypatch.setattr(sources, "SETTINGS", places.SETTINGS)
    monkeypatch.setattr("sys.argv", ["atom-sync", "--system", "schedule", "systemd"])
    assert main._run(as_json=False) == 0  # noqa: SLF001
    assert "OnCalendar=*:0/20" in capsys.readouterr().out


def test_a_database_on_a_server_is_kept_without_its_password(
    fresh: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql://me:open-sesame@db.example/atom?sslmode=verify-full"
    command = "config", "init", "--yes", "--offline", "--token-file", "token"
    told = fresh.command(*command, ATOM_SAAS_DATABASE_URL=url)
    assert told.returncode == 0, told.stderr
    assert "the database's password was not written" in told.stderr
    text = (fresh.directory / ".env").read_text(encoding="utf-8")
    assert "\nATOM_SAAS_DATABASE_URL='postgresql://me@db.example/atom?sslmode=verify-full'\n" in text
    assert "open-sesame" not in text
    found = load_settings({}, working_directory=fresh.directory)
    assert str(found.database) == "postgresql://me@db.example/atom?sslmode=verify-full"
    (fresh.directory / "password").write_text("open-sesame")
    (fresh.directory / "password").chmod(0o600)
    more = "--force", "--database", url.replace(":open-sesame", "")
    told = fresh.command(*command, *more, ATOM_SAAS_DATABASE_PASSWORD_FILE="password")
    assert (told.returncode, "password" in told.stderr) == (0, False), told.stderr
    found = load_settings({}, working_directory=fresh.directory)
    assert not isinstance(found.database, Path)
    assert found.database.password == "open-sesame"

    for name, file in (("SETTINGS", "env"), ("TOKEN_FILE", "of-service"), ("DIGEST_KEY_FILE", "key")):
        monkeypatch.setattr(places, name, str(tmp_path / file))
    monkeypatch.setattr(places, "DATABASE_PASSWORD_FILE", str(tmp_path / "pw"))
    monkeypatch.chdir(fresh.directory)
    monkeypatch.setattr("sys.argv", ["atom-sync", "--system", "--database", url, *command])
    assert main._run(as_json=False) == 0  # noqa: SLF001
    text = (tmp_path / "env").read_text(encoding="utf-8")
    assert "\nATOM_SAAS_DATABASE_URL='postgresql://me@db.example/atom?sslmode=verify-full'\n" in text
    assert f"\nATOM_SAAS_DATABASE_PASSWORD_FILE={tmp_path}/pw\n" in text
    assert f"put the database's password into {tmp_path}/pw" in capsys.readouterr().err


def test_a_value_is_quoted_as_env_files_need_it() -> None:
    assert assignment("A", "https://host/x") == "A=https://host/x"
    assert assignment("A", "it's # \\ $x") == "A='it\\'s # \\\\ $x'"
    text = filled(EXAMPLE, {"ATOM_INSTANCE_ID": "it's # \\ $x", "ATOM_SAAS_API_TOKEN": None})
    assert "\n# ATOM_SAAS_API_TOKEN=\n" in text
    assert [websocket_url(url) for url in ("https://h.example:8/api", "http://[::1]:1")] == [
        "wss://h.example:8/ws",
        "ws://[::1]:1/ws",
    ]
