"""Settings: every variable with its range, all problems at once, and secrets that never show."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.config import VARIABLES, Secret, Settings, load_settings, read_token_file, require_token
from atom_saas_sync.errors import ConfigError

TOKEN = "at_saas_abc123"
EXAMPLE = Path(__file__).parent.parent / ".env.example"

GOOD = {
    "ATOM_SAAS_ENABLED": ["true", "false", "YES", "0", "Off"],
    "ATOM_SAAS_API_URL": ["https://staging-api.atomsaas.com", "http://127.0.0.1:8600", "http://[::1]:80/base/"],
    "ATOM_SAAS_API_TOKEN": [
        TOKEN,
        "7d9f1f0e-2f8f-4c1a-9d6f-0a1b2c3d4e5f",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1",
    ],
    "ATOM_SAAS_API_DIALECT": ["v1", "plain", "mothership"],
    "ATOM_SAAS_API_TIMEOUT_SECONDS": ["1", "120", "2.5"],
    "ATOM_SAAS_SYNC_BATCH_SIZE": ["1", "1000"],
    "ATOM_SAAS_SYNC_INTERVAL_MINUTES": ["5", "60"],
    "ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES": ["10", "120"],
    "ATOM_SAAS_CONFLICT_STRATEGY": ["remote_wins", "local_wins", "merge", "manual"],
    "ATOM_SAAS_WS_ENABLED": ["true", "no"],
    "ATOM_SAAS_WS_URL": ["wss://api.atomsaas.com/ws?tenant=1", "ws://localhost:1/ws"],
    "ATOM_SAAS_WS_RECONNECT_ATTEMPTS": ["0", "100"],
    "ATOM_SAAS_WS_HEARTBEAT_INTERVAL": ["10", "120"],
    "ATOM_SAAS_RATE_LIMIT_PER_MINUTE": ["1", "100000"],
    "ATOM_SAAS_RATE_LIMIT_PER_HOUR": ["1", "100000"],
    "ATOM_SAAS_ALLOW_INSECURE": ["1"],
    "ATOM_SAAS_DATABASE_URL": ["sqlite:///x.db", "sqlite:////var/x.db", "x.db"],
    "ATOM_SAAS_CACHE_STRICT_TTL": ["on"],
    "ATOM_SYNC_ADMIN_TOKEN": ["anything at all"],
    "ATOM_SYNC_HISTORY_VERSIONS": ["0", "1000"],
    "ATOM_SYNC_HASH_USER_IDS": ["true"],
    "ATOM_SYNC_MIN_FREE_DISK_GB": ["0", "0.5", "10000"],
    "ENABLE_SCHEDULER": ["true"],
    "ATOM_INSTANCE_ID": ["production-1"],
}
_NO_BOOLEAN = ["maybe", "2", "tru"]
BAD = {
    "ATOM_SAAS_ENABLED": _NO_BOOLEAN,
    "ATOM_SAAS_API_URL": [
        "ftp://x",
        "https://",
        "no url",
        "https://h:99999",
        "https://h/#f",
        "http://api.atomsaas.com",
    ],
    "ATOM_SAAS_API_TOKEN": ["secret", f"{TOKEN}\nX-Evil: 1", f"{TOKEN} ", "at_saas_", "your_api_token_here", "a.b.c"],
    "ATOM_SAAS_API_TOKEN_FILE": ["/does/not/exist", "/"],
    "ATOM_SAAS_API_DIALECT": ["v2", "V1"],
    "ATOM_SAAS_API_TIMEOUT_SECONDS": ["0", "121", "nan", "inf", "1e1", "x"],
    "ATOM_SAAS_SYNC_BATCH_SIZE": ["0", "1001", "1.5", "1_0", "٣"],
    "ATOM_SAAS_SYNC_INTERVAL_MINUTES": ["4", "61", "-5"],
    "ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES": ["9", "121"],
    "ATOM_SAAS_CONFLICT_STRATEGY": ["remote-wins", "REMOTE_WINS"],
    "ATOM_SAAS_WS_ENABLED": _NO_BOOLEAN,
    "ATOM_SAAS_WS_URL": ["https://x/ws", "ws://example.com/ws"],
    "ATOM_SAAS_WS_RECONNECT_ATTEMPTS": ["-1", "101"],
    "ATOM_SAAS_WS_HEARTBEAT_INTERVAL": ["9", "121"],
    "ATOM_SAAS_RATE_LIMIT_PER_MINUTE": ["0", "100001"],
    "ATOM_SAAS_RATE_LIMIT_PER_HOUR": ["0", "100001"],
    "ATOM_SAAS_ALLOW_INSECURE": _NO_BOOLEAN,
    "ATOM_SAAS_DATABASE_URL": ["postgresql://localhost/atom", "sqlite://x.db", "sqlite:///"],
    "ATOM_SAAS_CACHE_STRICT_TTL": _NO_BOOLEAN,
    "ATOM_SYNC_HISTORY_VERSIONS": ["-1", "1001"],
    "ATOM_SYNC_HASH_USER_IDS": _NO_BOOLEAN,
    "ATOM_SYNC_MIN_FREE_DISK_GB": ["-1", "10001"],
    "ENABLE_SCHEDULER": _NO_BOOLEAN,
}


def _load(directory: Path, environ: dict[str, str] | None = None, **options: Any) -> Settings:
    return load_settings(environ or {}, working_directory=directory, **options)


def test_every_variable_is_tried() -> None:
    names = {variable.name for variable in VARIABLES}
    assert names - GOOD.keys() == {"ATOM_SAAS_API_TOKEN_FILE", "ATOM_SAAS_CA_FILE"}
    assert names - BAD.keys() == {"ATOM_SAAS_CA_FILE", "ATOM_SYNC_ADMIN_TOKEN", "ATOM_INSTANCE_ID"}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in GOOD.items() for text in texts])
def test_values_that_will_do(tmp_path: Path, name: str, text: str) -> None:
    settings = _load(tmp_path, {name: text})
    origin = {line.name: line.origin for line in settings.shown}
    assert origin[name] == "environment"


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_values_that_will_not(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, {name: text})
    assert caught.value.exit_code == 78
    assert name in caught.value.message
    if name == "ATOM_SAAS_API_TOKEN" and text not in {"your_api_token_here", "at_saas_"}:
        assert text not in caught.value.message


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    wrong = {name: texts[0] for name, texts in BAD.items()}
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, wrong)
    for name in wrong.keys() - {"ATOM_SAAS_API_TOKEN_FILE"}:  # the variable wins over the file
        assert name in caught.value.message


def test_defaults(tmp_path: Path) -> None:
    settings = _load(tmp_path)
    assert settings.enabled
    assert (settings.api_url, settings.ws_url) == ("https://api.atomsaas.com", "wss://api.atomsaas.com/ws")
    assert (settings.sync_interval_minutes, settings.rating_sync_interval_minutes) == (15, 30)
    assert (settings.batch_size, settings.timeout_seconds, settings.conflict_strategy) == (1000, 30, "remote_wins")
    assert settings.database_path == tmp_path / "data/atom.db"
    assert settings.api_token is None
    with pytest.raises(ConfigError, match="no token"):
        require_token(settings)


def test_the_mothership_has_urls_of_its_own(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_DIALECT": "mothership"})
    assert settings.api_url == "https://atomagentos.com/api/v1/marketplace"
    assert settings.ws_url == "wss://atomagentos.com/api/ws/satellite/connect"


def test_environment_wins_over_file_wins_over_default(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ATOM_SAAS_SYNC_INTERVAL_MINUTES=20\nATOM_SAAS_SYNC_BATCH_SIZE=20\n")
    settings = _load(tmp_path, {"ATOM_SAAS_SYNC_BATCH_SIZE": "30"})
    assert (settings.sync_interval_minutes, settings.batch_size, settings.rating_sync_interval_minutes) == (20, 30, 30)
    origins = {line.name: line.origin for line in settings.shown}
    assert origins["ATOM_SAAS_SYNC_BATCH_SIZE"] == "environment"
    assert origins["ATOM_SAAS_SYNC_INTERVAL_MINUTES"] == str(tmp_path / ".env")
    assert origins["ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES"] == "default"


def test_an_empty_value_counts_as_not_set(tmp_path: Path) -> None:
    assert _load(tmp_path, {"ATOM_SAAS_SYNC_BATCH_SIZE": ""}).batch_size == 1000


def test_a_dollar_sign_in_the_file_is_a_dollar_sign(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ATOM_SYNC_ADMIN_TOKEN='pa$HOME${x}'\n")
    settings = _load(tmp_path)
    assert settings.admin_token == Secret("pa$HOME${x}")


@pytest.mark.parametrize("content", [None, b"ATOM_SAAS_ENABLED=\xff\xfe"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "settings.env"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"settings\.env"):
        _load(tmp_path, env_file=path)


def test_unknown_names_are_warned_of_with_the_nearest_one(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_TOKNE": "x", "ATOM_SYNC_NO_IDEA_AT_ALL": "x", "OTHER": "x"})
    assert settings.warnings[0] == "unknown variable ATOM_SAAS_API_TOKNE; did you mean ATOM_SAAS_API_TOKEN?"
    assert len(settings.warnings) == 2


def test_insecure_urls_can_be_allowed(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_URL": "http://market.example", "ATOM_SAAS_ALLOW_INSECURE": "true"})
    assert settings.api_url == "http://market.example"


@pytest.mark.parametrize("url", ["https://user:hunter2@market.example", "https://hunter2@market.example"])
def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, {"ATOM_SAAS_API_URL": url})
    assert "hunter2" not in caught.value.message


def test_the_state_directory_of_systemd(tmp_path: Path) -> None:
    assert _load(tmp_path, {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}).database_path == Path("/var/lib/a/atom.db")


def test_the_option_wins(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_DATABASE_URL": "x.db"}, database="sqlite:///y.db")
    assert settings.database_path == tmp_path / "y.db"
    with pytest.raises(ConfigError, match="--database"):
        _load(tmp_path, database="mysql://x")


class TestTokenFile:
    def test_one_trailing_line_break_is_stripped(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text(TOKEN + "\n")
        path.chmod(0o600)
        settings = _load(tmp_path, {"ATOM_SAAS_API_TOKEN_FILE": str(path)})
        assert require_token(settings).reveal() == TOKEN
        assert settings.warnings == ()

    def test_the_variable_wins(self, tmp_path: Path) -> None:
        environ = {"ATOM_SAAS_API_TOKEN_FILE": "/does/not/exist", "ATOM_SAAS_API_TOKEN": TOKEN}
        assert _load(tmp_path, environ).api_token == Secret(TOKEN)

    def test_the_credential_of_systemd(self, tmp_path: Path) -> None:
        (tmp_path / "atom-saas-token").write_text(TOKEN)
        assert _load(tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).api_token == Secret(TOKEN)

    @pytest.mark.parametrize("text", ["", "\n", f"{TOKEN}\n\n", "nonsense"])
    def test_what_is_no_token_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "token"
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_token_file(path)
        assert TOKEN not in caught.value.message

    def test_others_who_can_read_it_are_warned_of(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text(TOKEN)
        path.chmod(0o644)
        assert "chmod 600" in _load(tmp_path, {"ATOM_SAAS_API_TOKEN_FILE": str(path)}).warnings[0]


@given(st.text(min_size=12).filter(lambda text: text.isprintable() and "*" not in text))
def test_a_secret_never_shows(text: str) -> None:
    secret = Secret(text)
    assert text not in f"{secret} {secret!r} {[secret]} {(secret,)!r}"
    assert text not in logging.makeLogRecord({"msg": "%s %r", "args": (secret, secret)}).getMessage()
    assert text not in str(ValueError(secret))
    assert copy.copy(secret).reveal() == text


def test_settings_can_be_shown_whole(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_TOKEN": TOKEN, "ATOM_SYNC_ADMIN_TOKEN": "hunter2hunter2"})
    assert "abc123" not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_the_example_explains_every_variable_and_tells_the_truth(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    for variable in VARIABLES:
        assert f"{variable.takes}." in text
        line = f"{variable.name}={variable.default}" if variable.default is not None else f"{variable.name}="
        assert line in text, variable.name
    uncommented = tmp_path / ".env"
    uncommented.write_text("\n".join(line.removeprefix("# ") if "=" in line else line for line in text.splitlines()))
    assert set(dotenv_values(uncommented)) >= {variable.name for variable in VARIABLES}
    assert set(dotenv_values(EXAMPLE)) == {"ATOM_SAAS_API_TOKEN"}
