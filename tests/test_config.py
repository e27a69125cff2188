"""Settings: every variable with its range, all problems at once, and secrets that never show."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import re
import tempfile
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from atom_saas_sync.config import VARIABLES, Secret, Settings, load_settings, read_token_file, require_token
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.places import SETTINGS

TOKEN = "at_saas_abc123"
# An authority made for this test; its key was thrown away.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUOgAwIBAgIUMQetKEXbL7JJ/9Z2iPlttCvfpeAwCgYIKoZIzj0EAwIw
IzEhMB8GA1UEAwwYYXRvbS1zeW5jIHRlc3QgYXV0aG9yaXR5MCAXDTI2MTEyMzIx
MDIxNVoYDzIxMjYxMDMwMjEwMjE1WjAjMSEwHwYDVQQDDBhhdG9tLXN5bmMgdGVz
dCBhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAToi37cohMRVuOe
jwAWSuu1EfqlyY8nuKjALqeke7Hg05VisBLMT2x9b+TuStJ0NJd5bUVCLK7jQh3/
BWaORiHAo1MwUTAdBgNVHQ4EFgQUHwK0miHy4oJRzOf4Xp9AJTQDiqcwHwYDVR0j
BBgwFoAUHwK0miHy4oJRzOf4Xp9AJTQDiqcwDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNHADBEAiA+NolNYX3gt05qOB5Z+bLebLb0k1n/bAlE3X/xFp2YHQIg
M6iiTJFvvhiTVTP+0mIyLZf+68GAql2DQu7c874SKm8=
-----END CERTIFICATE-----
"""
EXAMPLE = Path(__file__).parent.parent / ".env.example"

GOOD = {
    "ATOM_SAAS_ENABLED": ["true", "false", "YES", "0", "Off"],
    "ATOM_SAAS_API_URL": ["https://staging-api.atomsaas.com", "http://127.9.9.9:8600", "http://[::1]:80/base/"],
    "ATOM_SAAS_API_TOKEN": [
        TOKEN,
        "at_saas_a$b\"c'd,e;f",
        "7d9f1f0e-2f8f-4c1a-9d6f-0a1b2c3d4e5f",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1",
    ],
    "ATOM_SAAS_API_DIALECT": ["v1", "plain", "mothership"],
    "ATOM_SAAS_API_TIMEOUT_SECONDS": ["1", "120", "2.5"],
    "ATOM_SAAS_SYNC_BATCH_SIZE": ["1", "1000"],
    "ATOM_SAAS_SYNC_CONNECTIONS": ["1", "6", "10"],
    "ATOM_SAAS_SYNC_INTERVAL_MINUTES": ["5", "60"],
    "ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES": ["10", "120"],
    "ATOM_SAAS_CONFLICT_STRATEGY": ["remote_wins", "local_wins", "merge", "manual"],
    "ATOM_SAAS_WS_ENABLED": ["true", "no"],
    "ATOM_SAAS_WS_URL": ["wss://api.atomsaas.com/ws?tenant=1", "ws://localhost:1/ws", "ws://[::1]/ws"],
    "ATOM_SAAS_WS_RECONNECT_ATTEMPTS": ["0", "100"],
    "ATOM_SAAS_WS_HEARTBEAT_INTERVAL": ["10", "120"],
    "ATOM_SAAS_RATE_LIMIT_PER_MINUTE": ["1", "100000"],
    "ATOM_SAAS_RATE_LIMIT_PER_HOUR": ["1", "100000"],
    "ATOM_SAAS_ALLOW_INSECURE": ["1"],
    "ATOM_SAAS_DATABASE_URL": [
        "sqlite:///x.db",
        "sqlite:////var/x.db",
        "x.db",
        "postgres.db",
        "postgresql://user:hunter2@localhost/atom",
    ],
    "ATOM_SAAS_DATABASE_PASSWORD_FILE": ["/does/not/exist"],
    "ATOM_SYNC_HOST": ["db-1", "any name"],
    "ATOM_SAAS_CACHE_STRICT_TTL": ["on"],
    "ATOM_SYNC_ADMIN_TOKEN": ["anything at all that is long", "x" * 16],
    "ATOM_SYNC_HISTORY_VERSIONS": ["0", "1000"],
    "ATOM_SYNC_ADMISSION": ["open", "age", "review"],
    "ATOM_SYNC_ADMISSION_SCOPE": ["all", "executable"],
    "ATOM_SYNC_MIN_AGE": ["0", "30s", "90m", "72h", "90d", "2160h"],
    "ATOM_SYNC_MAX_CHANGED": ["0", "20", "5%", "0.5%", "100%"],
    "ATOM_SYNC_POLICY_FILE": ["policy.toml"],
    "ATOM_SYNC_LOCK_FILE": ["skills.lock"],
    "ATOM_SYNC_REVOCATIONS_FILE": ["/does/not/exist"],
    "ATOM_SYNC_SCAN_COMMAND": ["scan", "'/opt/my scanner/scan' --strict"],
    "ATOM_SYNC_HASH_USER_IDS": ["true"],
    "ATOM_SYNC_SYSTEM": ["false", "no"],
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
        "https://h/#",
        "https://h/?",
        "https://h/?key=hunter2",
        "https://h\n.example",
        "https://h\x07",
        "https://[::1",
        "http://api.atomsaas.com",
        "http://evil.localhost",
        "http://127.0.0.1.example",
        "http://[fe80::1]",
        "http://0.0.0.0",
        "https://a..b",
        "https://-",
        "https://xn--",
        "https://h%0a",
        "https://h\\x",
        "https://münchen.example",  # its ASCII form is xn--mnchen-3ya.example
        "https://⒈com",
        f"https://{'a' * 64}.example",
        "https://" + ".".join(["a" * 50] * 6),
        "https://[v1.x]",
        "https://[fe80::1%eth0]",
    ],
    "ATOM_SAAS_API_TOKEN": [
        "secret",
        f"{TOKEN}\nX-Evil: 1",
        f"{TOKEN}\n",
        f" {TOKEN}",
        f"{TOKEN} ",
        f"{TOKEN}\x07",
        f"{TOKEN}é",
        "at_saas_",
        "your_api_token_here",
        "a.b.c",
        "7d9f1f0e-2f8f-1c1a-9d6f-0a1b2c3d4e5f",  # a UUID of another version
    ],
    "ATOM_SAAS_API_TOKEN_FILE": ["/does/not/exist", "/", "/dev/zero", "a\nb"],
    "ATOM_SAAS_CA_FILE": ["/does/not/exist", "/", "/dev/zero", "a\x00b"],
    "ATOM_SYNC_ADMIN_TOKEN": [
        "hunter2hunter2hunter2\nX-Evil: 1",
        " hunter2hunter2hu",
        "hunter2hunter2hué",
        "a",
        "x" * 15,
    ],
    "ATOM_INSTANCE_ID": ["a\r\nX-Evil: 1", " a", "é", "a" * 257],
    "ATOM_SAAS_API_DIALECT": ["v2", "V1"],
    "ATOM_SAAS_API_TIMEOUT_SECONDS": ["0", "121", "nan", "inf", "-inf", "1e1", "1_0", "x", " 5"],
    "ATOM_SAAS_SYNC_BATCH_SIZE": ["0", "1001", "1.5", "1_0", "٣", "0x10", "10 ", "9" * 5000],
    "ATOM_SAAS_SYNC_CONNECTIONS": ["0", "11", "-1", "1.5", "six"],
    "ATOM_SAAS_SYNC_INTERVAL_MINUTES": ["4", "61", "-5"],
    "ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES": ["9", "121"],
    "ATOM_SAAS_CONFLICT_STRATEGY": ["remote-wins", "REMOTE_WINS"],
    "ATOM_SAAS_WS_ENABLED": _NO_BOOLEAN,
    "ATOM_SAAS_WS_URL": [
        "https://x/ws",
        "ws://example.com/ws",
        "wss://user:hunter2@h/ws",
        "wss://h/ws?a=1&token=hunter2",
        "wss://h/ws?token=",
    ],
    "ATOM_SAAS_WS_RECONNECT_ATTEMPTS": ["-1", "101"],
    "ATOM_SAAS_WS_HEARTBEAT_INTERVAL": ["9", "121"],
    "ATOM_SAAS_RATE_LIMIT_PER_MINUTE": ["0", "100001"],
    "ATOM_SAAS_RATE_LIMIT_PER_HOUR": ["0", "100001"],
    "ATOM_SAAS_ALLOW_INSECURE": _NO_BOOLEAN,
    "ATOM_SAAS_DATABASE_URL": [
        "postgresql://user:hunter2/atom",
        "postgresql://user:hunter2@localhost/atom?options=x",
        "postgresql+asyncpg://user:hunter2@localhost/atom",
        "mysql://user:hunter2@localhost/atom",
        "host=localhost user=user password=hunter2 dbname=atom",
        "password = 'hunter2' host = localhost",
        "user:hunter2@localhost/atom",
        "//user:hunter2@localhost/atom",
        "postgresql//user:hunter2@localhost/atom",
        "sqlite://x.db",
        "sqlite:///",
        "sqlite:///:memory:",
        ":memory:",
        "sqlite:x.db",
        "file:x.db",
        "sqlite:///x.db?mode=ro",
        "a\x00b",
        "~/atom.db",
        "sqlite:///~/atom.db",
    ],
    "ATOM_SAAS_DATABASE_PASSWORD_FILE": ["a\nb"],
    "ATOM_SYNC_HOST": ["a\nb", " a", "é"],
    "ATOM_SAAS_CACHE_STRICT_TTL": _NO_BOOLEAN,
    "ATOM_SYNC_HISTORY_VERSIONS": ["-1", "1001"],
    "ATOM_SYNC_ADMISSION": ["deny", "Open", "all"],
    "ATOM_SYNC_ADMISSION_SCOPE": ["code", "ALL"],
    "ATOM_SYNC_MIN_AGE": ["91d", "2161h", "72", "-1h", "1.5h", "1w", "h", "00", " 1h", "٣h", "9" * 5000 + "d"],
    "ATOM_SYNC_MAX_CHANGED": ["-1", "101%", "1.5", "%", "5 %", "nan%", "٣%"],
    "ATOM_SYNC_POLICY_FILE": ["a\nb"],
    "ATOM_SYNC_LOCK_FILE": ["a\nb"],
    "ATOM_SYNC_REVOCATIONS_FILE": ["a\nb"],
    "ATOM_SYNC_SCAN_COMMAND": ["'", " ", "''", "scan\nrm"],
    "ATOM_SYNC_DIGEST_KEY_FILE": ["/does/not/exist", "/", "/dev/zero", "a\nb"],
    "ATOM_SYNC_HASH_USER_IDS": _NO_BOOLEAN,
    "ATOM_SYNC_MIN_FREE_DISK_GB": ["-1", "10001"],
    "ATOM_SYNC_SYSTEM": _NO_BOOLEAN,
    "ENABLE_SCHEDULER": _NO_BOOLEAN,
}


def _load(directory: Path, environ: dict[str, str] | None = None, **options: Any) -> Settings:
    return load_settings(environ or {}, working_directory=directory, **options)


def test_every_variable_is_tried() -> None:
    names = {variable.name for variable in VARIABLES}
    assert names - GOOD.keys() == {"ATOM_SAAS_API_TOKEN_FILE", "ATOM_SAAS_CA_FILE", "ATOM_SYNC_DIGEST_KEY_FILE"}
    assert names == BAD.keys()


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in GOOD.items() for text in texts])
def test_valid_values(tmp_path: Path, name: str, text: str) -> None:
    settings = _load(tmp_path, {name: text})
    origin = {line.name: line.origin for line in settings.shown}
    assert origin[name] == "environment"


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_invalid_values(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, {name: text})
    assert caught.value.exit_code == 78
    message = caught.value.message
    assert message.startswith(name)
    assert all(line.isprintable() for line in message.split("\n"))
    assert "hunter2" not in message
    if name == "ATOM_SAAS_API_TOKEN":
        assert "abc123" not in message
    (variable,) = (variable for variable in VARIABLES if variable.name == name)
    if not name.endswith("_FILE") and "is not encrypted" not in message:
        assert variable.takes in message
    if not variable.secret and text.isdecimal() and len(text) < 80:
        assert repr(text) in message  # its value


@pytest.mark.parametrize(
    "misplaced", [TOKEN, "7d9f1f0e-2f8f-4c1a-9d6f-0a1b2c3d4e5f", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1"]
)
def test_a_token_in_the_wrong_variable_is_not_repeated(tmp_path: Path, misplaced: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, {"ATOM_SAAS_API_DIALECT": misplaced, "ATOM_SAAS_SYNC_BATCH_SIZE": f"x{misplaced}"})
    assert caught.value.message.count("invalid value (from") == 2
    assert misplaced not in caught.value.message


@pytest.mark.parametrize("token", ["at_saas_abc123def", "7d9f1f0e-2f8f-4c1a-9d6f-0a1b2c3d4e5f"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ATOM_SAAS_API_URL", "https://h/{}"),
        ("ATOM_SAAS_API_URL", "http://h/{}"),
        ("ATOM_SAAS_WS_URL", "wss://h/ws?key={}"),
        ("ATOM_INSTANCE_ID", "{}"),
    ],
)
def test_the_token_is_refused_where_it_would_be_shown(tmp_path: Path, token: str, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: contains a token") as caught:
        _load(tmp_path, {"ATOM_SAAS_API_TOKEN": token, name: text.format(token)})
    assert token not in caught.value.message


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ATOM_SAAS_API_URL", "HTTPS://market.example/", "https://market.example"),
        ("ATOM_SAAS_WS_URL", "WSS://market.example/ws", "wss://market.example/ws"),
    ],
)
def test_a_scheme_in_capitals_is_the_same_scheme(tmp_path: Path, name: str, text: str, value: str) -> None:
    # Libraries that look for "https:" to decide about certificates must find it.
    settings = _load(tmp_path, {name: text})
    assert value in {settings.api_url, settings.ws_url}


def test_http_in_capitals_is_not_encrypted_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not encrypted"):
        _load(tmp_path, {"ATOM_SAAS_API_URL": "HTTP://market.example"})


def test_the_placeholder_does_not_matter_without_the_marketplace(tmp_path: Path) -> None:
    assert _load(tmp_path, {"ATOM_SAAS_ENABLED": "false"}, env_file=EXAMPLE).api_token is None


def test_the_placeholder_of_the_example_is_recognized(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the placeholder of \.env\.example"):
        _load(tmp_path, env_file=EXAMPLE)


_ANY_TEXT = st.text(alphabet=st.characters(blacklist_characters="\x00"), max_size=40)


@given(values=st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(BAD), _ANY_TEXT)))
@trying(max_examples=150, deadline=None)
def test_any_environment_gives_settings_or_one_error_that_names_variables(values: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            _load(Path(directory), values)
        except ConfigError as error:
            for line in error.message.split("\n"):
                assert line.startswith((*values, SETTINGS))  # the service's file, with ATOM_SYNC_SYSTEM
                assert line.isprintable() or "_FILE" in line


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    wrong = {name: texts[0] for name, texts in BAD.items()}
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, wrong)
    told = {line.partition(":")[0] for line in caught.value.message.split("\n")}
    assert told == wrong.keys() - {"ATOM_SAAS_API_TOKEN_FILE"}  # the variable wins over the file


def test_defaults(tmp_path: Path) -> None:
    settings = _load(tmp_path)
    assert settings.enabled
    assert (settings.api_url, settings.ws_url) == ("https://api.atomsaas.com", "wss://api.atomsaas.com/ws")
    assert (settings.sync_interval_minutes, settings.rating_sync_interval_minutes) == (15, 30)
    assert (settings.batch_size, settings.timeout_seconds, settings.conflict_strategy) == (1000, 30, "remote_wins")
    assert settings.connections == 6
    assert settings.database == tmp_path / "data/atom.db"
    assert settings.api_token is None
    with pytest.raises(ConfigError, match="no token"):
        require_token(settings)


def test_the_mothership_has_urls_of_its_own(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_DIALECT": "mothership"})
    assert settings.api_url == "https://atomagentos.com/api/v1/marketplace"
    assert settings.ws_url == "wss://atomagentos.com/api/ws/satellite/connect"


MOTHERSHIP = "https://atomagentos.com/api/v1/marketplace"


@pytest.mark.parametrize(
    ("url", "dialect", "effective_url"),
    [
        ("https://atomagentos.com", "mothership", MOTHERSHIP),
        ("https://atomagentos.com/", "mothership", MOTHERSHIP),
        ("https://AtomAgentOS.com", "mothership", "https://AtomAgentOS.com/api/v1/marketplace"),
        ("https://atomagentos.com./api/v2", "mothership", "https://atomagentos.com./api/v2"),
        ("https://staging.atomagentos.com", "mothership", "https://staging.atomagentos.com/api/v1/marketplace"),
        (f"{MOTHERSHIP}/", "mothership", MOTHERSHIP),
        (
            "https://proxy.example/atom/api/v1/marketplace",
            "mothership",
            "https://proxy.example/atom/api/v1/marketplace",
        ),
        ("https://api.atomsaas.com", "v1", "https://api.atomsaas.com"),
        ("https://atomagentos.com.example", "v1", "https://atomagentos.com.example"),
        ("https://notatomagentos.com", "v1", "https://notatomagentos.com"),
        ("https://skills.example/api/v1", "v1", "https://skills.example/api/v1"),
    ],
)
def test_the_url_implies_the_dialect(tmp_path: Path, url: str, dialect: str, effective_url: str) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_URL": url})
    assert (settings.dialect, settings.api_url) == (dialect, effective_url)
    origin = "default" if dialect == "v1" else "derived from ATOM_SAAS_API_URL"
    assert {line.name: line.origin for line in settings.shown}["ATOM_SAAS_API_DIALECT"] == origin


def test_a_dialect_that_is_set_wins_over_the_url(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_DIALECT": "plain", "ATOM_SAAS_API_URL": "https://atomagentos.com"})
    assert (settings.dialect, settings.api_url) == ("plain", "https://atomagentos.com")


def test_the_mothership_s_url_needs_no_websocket_url(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_URL": "https://atomagentos.com"})
    assert settings.ws_url == "wss://atomagentos.com/api/ws/satellite/connect"
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("api_url", "ws_url", "warned"),
    [
        ("https://atomagentos.com", "wss://api.atomsaas.com/ws", True),
        ("https://api.atomsaas.com", "wss://atomagentos.com/api/ws/satellite/connect", True),
        ("", "wss://atomagentos.com/api/ws/satellite/connect", True),
        ("https://proxy.example/api/v1/marketplace", "wss://staging-api.atomsaas.com/ws", True),
        ("https://proxy.example", "wss://proxy.example/api/ws/satellite/connect", True),
        ("https://proxy.example", "wss://api.atomsaas.com/ws", False),
        ("https://proxy.example/api/v1/marketplace", "wss://sockets.example/ws", False),
        ("https://staging-api.atomsaas.com", "wss://staging-api.atomsaas.com/ws", False),
    ],
)
def test_urls_of_two_platforms_are_warned_of(tmp_path: Path, api_url: str, ws_url: str, warned: bool) -> None:
    urls = {"ATOM_SAAS_API_URL": api_url, "ATOM_SAAS_WS_URL": ws_url}
    assert ["different platforms" in each for each in _load(tmp_path, urls).warnings] == [True] * warned
    assert _load(tmp_path, {**urls, "ATOM_SAAS_WS_ENABLED": "false"}).warnings == ()


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
    (tmp_path / ".env").write_text("ATOM_SYNC_ADMIN_TOKEN='pa$HOME${x}-long-enough'\n")
    settings = _load(tmp_path)
    assert settings.admin_token == Secret("pa$HOME${x}-long-enough")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("ATOM_INSTANCE_ID=a$b$$c", "a$b$$c"),
        ('ATOM_INSTANCE_ID="a$b \\"c\\""', 'a$b "c"'),
        ("ATOM_INSTANCE_ID='a \"b\" # c'", 'a "b" # c'),
        ("export ATOM_INSTANCE_ID=abc # a comment", "abc"),
        ("ATOM_INSTANCE_ID=first\nATOM_INSTANCE_ID=second", "second"),
        ("\ufeffATOM_INSTANCE_ID=abc", "abc"),
        ("ATOM_INSTANCE_ID=abc\r\n", "abc"),
    ],
)
def test_each_form_of_line_is_read(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / ".env").write_text(line, encoding="utf-8")
    assert _load(tmp_path).instance_id == value


def _no_such_file(path: Path) -> None:
    assert not path.exists()


def _not_utf_8(path: Path) -> None:
    path.write_bytes(b"ATOM_SAAS_ENABLED=\xff\xfe")


@pytest.mark.parametrize("spoil", [_no_such_file, _not_utf_8, Path.mkdir])
def test_a_file_that_cannot_be_read(tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "settings.env"
    spoil(path)
    with pytest.raises(ConfigError, match=r"settings\.env: (No such file|is not UTF-8|Is a directory)"):
        _load(tmp_path, {"ATOM_SAAS_ENABLED": "true"}, env_file=path)


def test_an_unreadable_file_is_reported_with_all_other_problems(tmp_path: Path) -> None:
    _not_utf_8(tmp_path / ".env")
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, {"ATOM_SAAS_SYNC_BATCH_SIZE": "0"})
    assert len(caught.value.message.split("\n")) == 2


def test_a_line_that_says_nothing_is_warned_of_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"ATOM_SAAS_SYNC_BATCH_SIZE=20\nATOM_SAAS_API_TOKEN: {TOKEN}\n")
    settings = _load(tmp_path)
    assert settings.batch_size == 20
    assert settings.warnings == (f"{tmp_path / '.env'}, line 2: is not NAME=value and was ignored",)


def test_a_value_inside_a_name_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"ATOM_SAAS_API_TOKEN:{TOKEN}\n")
    assert _load(tmp_path).warnings == ("unknown variable ATOM_SAAS_API_TOKEN…; did you mean ATOM_SAAS_API_TOKEN?",)


def test_unknown_names_are_warned_of_with_the_nearest_one(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_TOKNE": "x", "ATOM_SYNC_NO_IDEA_AT_ALL": "x", "OTHER": "x"})
    assert settings.warnings[0] == "unknown variable ATOM_SAAS_API_TOKNE; did you mean ATOM_SAAS_API_TOKEN?"
    assert len(settings.warnings) == 2
    assert "did you mean ATOM_SYNC_" in settings.warnings[1]


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("ATOM_SAAS_URL", "is not read; set ATOM_SAAS_API_URL instead"),
        ("ATOM_SAAS_TIMEOUT", "is not read; set ATOM_SAAS_API_TIMEOUT_SECONDS instead"),
        ("ATOM_SAAS_CACHE_TTL", "is set, but nothing reads it: cached skills expire after 24 hours"),
        ("MARKETPLACE_URL", "is not read; set ATOM_SAAS_API_URL instead"),
        ("MARKETPLACE_API_URL", "is not read; set ATOM_SAAS_API_URL instead"),
        ("MARKETPLACE_WS_HEARTBEAT_INTERVAL", "is not read; set ATOM_SAAS_WS_HEARTBEAT_INTERVAL instead"),
        ("MARKETPLACE_SYNC_ENABLED", "is not read; set ATOM_SAAS_ENABLED instead"),
        ("MARKETPLACE_CACHE_TTL", "is set, but nothing reads it: cached skills expire after 24 hours"),
        ("MARKETPLACE_COLOUR", "is set, but nothing reads it"),
    ],
)
def test_names_of_other_atom_programs_are_warned_of(tmp_path: Path, name: str, warning: str) -> None:
    assert _load(tmp_path, {name: "hunter2"}).warnings == (f"{name} {warning}",)
    (tmp_path / ".env").write_text(f"{name}=hunter2\n")
    assert _load(tmp_path).warnings == (f"{name} {warning}",)


def test_insecure_urls_can_be_allowed(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_URL": "http://market.example", "ATOM_SAAS_ALLOW_INSECURE": "true"})
    assert settings.api_url == "http://market.example"


@pytest.mark.parametrize("url", ["https://user:hunter2@market.example", "https://hunter2@market.example"])
def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, {"ATOM_SAAS_API_URL": url})
    assert "hunter2" not in caught.value.message


def test_the_state_directory_of_systemd(tmp_path: Path) -> None:
    assert _load(tmp_path, {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}).database == Path("/var/lib/a/atom.db")


def test_the_option_wins(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_DATABASE_URL": "x.db"}, database="sqlite:///y.db")
    assert settings.database == tmp_path / "y.db"
    assert {line.name: line.origin for line in settings.shown}["ATOM_SAAS_DATABASE_URL"] == "--database"
    _load(tmp_path, {"ATOM_SAAS_DATABASE_URL": "wrong://x"}, database="y.db")  # unused settings may be wrong


@pytest.mark.parametrize("text", ["mysql://user:hunter2@x", ""])
def test_a_wrong_option_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="--database") as caught:
        _load(tmp_path, database=text)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///data/x.db", "{0}/data/x.db"),
        ("sqlite:////var/x.db", "/var/x.db"),
        ("x.db", "{0}/x.db"),
        ("/var/x.db", "/var/x.db"),
        ("sqlite:///../x y%20.db", "{0}/../x y%20.db"),
    ],
)
def test_forms_of_the_database(tmp_path: Path, text: str, path: str) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_DATABASE_URL": text, "STATE_DIRECTORY": "/var/lib/a"})
    assert str(settings.database) == path.format(tmp_path)


def test_trailing_slashes_are_removed_only_from_the_api_url(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_URL": "https://h/base//", "ATOM_SAAS_WS_URL": "wss://h/ws/"})
    assert (settings.api_url, settings.ws_url) == ("https://h/base", "wss://h/ws/")


def test_a_key_in_a_query_is_not_shown(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_WS_URL": "wss://h/ws?key=hunter2"})
    assert settings.ws_url == "wss://h/ws?key=hunter2"
    assert {line.name: line.value for line in settings.shown}["ATOM_SAAS_WS_URL"] == "wss://h/ws?…"


def test_the_name_of_the_instance(tmp_path: Path) -> None:
    # The first 32 hexadecimal digits of the token's SHA-256.
    assert _load(tmp_path, {"ATOM_SAAS_API_TOKEN": "at_saas_x"}).instance_id == "b17f13c4f3616a3f8fe71abb83912d94"
    assert _load(tmp_path, {"ATOM_SAAS_API_TOKEN": "at_saas_x", "ATOM_INSTANCE_ID": "mine"}).instance_id == "mine"


class TestCertificateAuthorities:
    def test_a_relative_path_is_one_from_the_working_directory(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text(CERTIFICATE)
        assert _load(tmp_path, {"ATOM_SAAS_CA_FILE": "ca.pem"}).ca_file == tmp_path / "ca.pem"

    @pytest.mark.parametrize(
        "content", ["", "no certificate\n", CERTIFICATE.replace("BEGIN", "BEGUN"), CERTIFICATE[:200]]
    )
    def test_a_file_without_certificates(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "ca.pem").write_text(content)
        with pytest.raises(ConfigError, match=r"ATOM_SAAS_CA_FILE: .*/ca\.pem contains no certificates"):
            _load(tmp_path, {"ATOM_SAAS_CA_FILE": "ca.pem"})


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
        settings = _load(tmp_path, environ)
        assert settings.api_token == Secret(TOKEN)
        assert settings.token_file is None  # nothing to read again

    def test_where_it_was_read_is_known_for_reading_it_again(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(TOKEN)
        assert _load(tmp_path, {"ATOM_SAAS_API_TOKEN_FILE": "token"}).token_file == tmp_path / "token"

    def test_the_credential_of_systemd(self, tmp_path: Path) -> None:
        (tmp_path / "atom-saas-token").write_text(TOKEN)
        environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        settings = _load(tmp_path, environ)
        assert settings.api_token == Secret(TOKEN)
        assert {line.name: line.origin for line in settings.shown}["ATOM_SAAS_API_TOKEN_FILE"] == "systemd credential"
        assert _load(tmp_path, {**environ, "ATOM_SAAS_API_TOKEN": "at_saas_other"}).api_token == Secret("at_saas_other")

    def test_without_that_credential_there_is_no_token(self, tmp_path: Path) -> None:
        assert _load(tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).api_token is None

    def test_a_line_break_of_windows_is_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_bytes(TOKEN.encode() + b"\r\n")
        assert read_token_file(path) == Secret(TOKEN)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is empty"),
            (b"\n", "is empty"),
            (f"{TOKEN}\n\n".encode(), "does not contain a token"),
            (b"nonsense\n", "does not contain a token"),
            (b"at_saas_\xff", "is not UTF-8 text"),
            (b"at_saas_" + b"x" * 100_000, "is too large"),
        ],
    )
    def test_an_invalid_token_is_refused(self, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "token"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=says) as caught:
            read_token_file(path)
        assert "abc123" not in caught.value.message
        assert "nonsense" not in caught.value.message

    def test_one_that_would_be_waited_for_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        os.mkfifo(path)
        with pytest.raises(ConfigError, match="is not a regular file"):
            read_token_file(path)

    def test_a_relative_path_is_one_from_the_working_directory(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(TOKEN)
        assert _load(tmp_path, {"ATOM_SAAS_API_TOKEN_FILE": "token"}).api_token == Secret(TOKEN)

    @pytest.mark.parametrize(("mode", "warnings"), [(0o644, 1), (0o640, 1), (0o400, 0), (0o600, 0)])
    def test_a_file_readable_by_others_causes_a_warning(self, tmp_path: Path, mode: int, warnings: int) -> None:
        path = tmp_path / "token"
        path.write_text(TOKEN)
        path.chmod(mode)
        told = _load(tmp_path, {"ATOM_SAAS_API_TOKEN_FILE": str(path)}).warnings
        assert len(told) == warnings
        assert all("chmod 600" in warning for warning in told)


@dataclass
class _Holder:
    secret: Secret


@given(st.text(min_size=12).filter(lambda text: "*" not in text))
def test_a_secret_never_shows(text: str) -> None:
    secret = Secret(text)
    error = ValueError(secret, {"token": secret})
    try:
        raise error
    except ValueError as caught:
        seen = "".join(traceback.format_exception(caught))
    seen += f"{secret} {secret!r} {secret!s:>40} {[secret]} {(secret,)!r} {_Holder(secret)} {asdict(_Holder(secret))}"
    seen += f"{error!r}" + json.dumps({"secret": secret}, default=str)
    seen += logging.makeLogRecord({"msg": "%s %r", "args": (secret, secret)}).getMessage()
    assert text not in seen
    assert repr(text)[1:-1] not in seen


def test_a_secret_is_not_pickled() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="a secret is not pickled"):
            pickle.dumps(Secret(TOKEN), protocol)


def test_secrets_are_values() -> None:
    secret = Secret(TOKEN)
    assert copy.copy(secret) == copy.deepcopy(secret) == secret == Secret(TOKEN)
    assert hash(secret) == hash(Secret(TOKEN))
    assert secret != Secret("other")
    assert secret != TOKEN
    assert not hasattr(secret, "__dict__")


def test_settings_can_be_shown_whole(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"ATOM_SAAS_API_TOKEN": TOKEN, "ATOM_SYNC_ADMIN_TOKEN": "hunter2hunter2hunter2"})
    assert "abc123" not in repr(settings)
    assert "hunter2" not in repr(settings)


def _assignments(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", text, re.MULTILINE))


def test_the_example_explains_every_variable_correctly() -> None:
    paragraphs = EXAMPLE.read_text(encoding="utf-8").split("\n\n")
    explained = {}
    for paragraph in paragraphs:
        assignments = _assignments(paragraph)
        assert len(assignments) <= 1, "one variable a paragraph"
        explained.update(dict.fromkeys(assignments, paragraph))
    assert explained.keys() == {variable.name for variable in VARIABLES}
    for variable in VARIABLES:
        text = " ".join(explained[variable.name].replace("\n# ", " ").split())
        assert f"Takes {variable.takes}." in text
        if variable.default is not None:
            assert f"Default: {variable.default}." in text
            assert f"{variable.name}={variable.default}" in text


def test_the_example_s_values_are_the_defaults_or_would_do(tmp_path: Path) -> None:
    values = _assignments(EXAMPLE.read_text(encoding="utf-8"))
    text = EXAMPLE.read_text(encoding="utf-8")
    settings = _load(tmp_path)
    assert values["ATOM_SAAS_API_URL"] == settings.api_url
    assert values["ATOM_SAAS_WS_URL"] == settings.ws_url
    mothership = _load(tmp_path, {"ATOM_SAAS_API_DIALECT": "mothership"})
    assert f"mothership {mothership.api_url}." in text
    assert f"mothership {mothership.ws_url}." in text
    for name in ("ATOM_SAAS_API_TOKEN", "ATOM_SAAS_API_TOKEN_FILE", "ATOM_SAAS_CA_FILE"):
        del values[name]  # of each machine
    assert _load(tmp_path, values).database == settings.database


def test_the_example_sets_only_the_token(tmp_path: Path) -> None:
    assert dotenv_values(EXAMPLE) == {"ATOM_SAAS_API_TOKEN": "your_api_token_here"}
    (tmp_path / ".env").write_text(EXAMPLE.read_text().replace("your_api_token_here", TOKEN))
    (tmp_path / ".env").chmod(0o600)
    settings = _load(tmp_path)
    assert require_token(settings) == Secret(TOKEN)
    assert settings.warnings == ()


class TestWhereTheTokenGoes:
    """A custom API without a custom WebSocket: the token would go to the default host."""

    API = "https://skills.example"

    def test_it_is_warned_of(self, tmp_path: Path) -> None:
        (told,) = _load(tmp_path, {"ATOM_SAAS_API_URL": self.API}).warnings
        assert "ATOM_SAAS_WS_URL is not" in told
        assert "wss://api.atomsaas.com/ws" in told

    @pytest.mark.parametrize(
        "others",
        [
            {"ATOM_SAAS_API_URL": "https://api.atomsaas.com"},
            {"ATOM_SAAS_API_URL": API, "ATOM_SAAS_WS_URL": "wss://skills.example/ws"},
            {"ATOM_SAAS_API_URL": API, "ATOM_SAAS_WS_ENABLED": "false"},
        ],
    )
    def test_no_warning_if_the_address_is_intended_or_unused(self, tmp_path: Path, others: dict[str, str]) -> None:
        assert _load(tmp_path, others).warnings == ()


def test_the_policy_lock_needs_a_lock_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ATOM_SYNC_LOCK_FILE: is not set, but ATOM_SYNC_ADMISSION"):
        _load(tmp_path, {"ATOM_SYNC_ADMISSION": "lock"})
    settings = _load(tmp_path, {"ATOM_SYNC_ADMISSION": "lock", "ATOM_SYNC_LOCK_FILE": "skills.lock"})
    assert (settings.admission, settings.lock_file) == ("lock", tmp_path / "skills.lock")
