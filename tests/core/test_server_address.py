"""The URL of a PostgreSQL server: every accepted spelling, and messages that never show a password."""

from __future__ import annotations

import pytest

from atom_saas_sync.core.server_address import ServerAddress, is_server_url, read_server_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://atom@db.example:5433/site", ServerAddress("db.example", "5433", "atom", "site")),
        ("postgres://atom@db.example/site", ServerAddress("db.example", "", "atom", "site")),
        ("postgresql+psycopg://atom@db.example/site", ServerAddress("db.example", "", "atom", "site")),
        ("POSTGRESQL://atom@db.example/site", ServerAddress("db.example", "", "atom", "site")),
        ("postgresql:///site", ServerAddress(database="site")),
        ("postgresql://", ServerAddress()),
        ("postgresql://atom@/site?host=/run/postgresql", ServerAddress("/run/postgresql", "", "atom", "site")),
        ("postgresql://atom@%2Frun%2Fpostgresql/site", ServerAddress("/run/postgresql", "", "atom", "site")),
        ("postgresql://atom@[::1]:5433/site", ServerAddress("::1", "5433", "atom", "site")),
        ("postgresql://atom@[fe80::1%25eth0]:5433/site", ServerAddress("fe80::1%eth0", "5433", "atom", "site")),
        ("postgresql://a@one,two/site", ServerAddress("one,two", "", "a", "site")),
        ("postgresql://a@one:1,two:2/site", ServerAddress("one,two", "1,2", "a", "site")),
        (
            "postgresql:///?user=a%20b&dbname=c%2Fd&port=6&host=e&schema=f_1",
            ServerAddress("e", "6", "a b", "c/d", "f_1"),
        ),
    ],
)
def test_a_url_is_read_and_shown_without_loss(text: str, expected: ServerAddress) -> None:
    address = read_server_address(text)
    assert address == expected
    assert read_server_address(address.shown) == expected


def test_options_are_kept_and_shown() -> None:
    query = "sslmode=verify-full&sslrootcert=/etc/ca.pem&sslcert=c&sslkey=k&connect_timeout=3&application_name=mine"
    address = read_server_address(f"postgresql://u@h/n?{query}")
    assert address.options == dict(pair.split("=") for pair in query.split("&"))
    assert address.shown == f"postgresql://u@h/n?{query}"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("plain", "plain"),
        ("se%20cret", "se cret"),
        ("%40%2F%3A%3F%23%25", "@/:?#%"),
        ("a:b", "a:b"),
        ("p%0Aq", "p\nq"),
        ("%C3%A4", "ä"),
        ("a+b", "a+b"),
    ],
)
def test_a_password_may_hold_any_character_and_is_never_shown(written: str, meant: str) -> None:
    address = read_server_address(f"postgresql://u:{written}@h/n")
    assert address.password == meant
    assert read_server_address(address.reveal()) == address
    for text in (address.shown, repr(address), str(address)):
        assert written not in text
        assert meant not in text


@pytest.mark.parametrize(
    "secret", ["se cret", "se@cret", "se/cret", "se?cret", "se#cret", "se%cret", "se%zzcret", "sé"]
)
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="%") as error:
        read_server_address(f"postgresql://u:{secret}@host/name")
    assert "cret" not in str(error.value)
    assert "sé" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql:", "begins with postgresql://"),
        ("postgresql+asyncpg://h/n", "begins with postgresql://"),
        ("postgresql://h/n?password=secret", "ATOM_SAAS_DATABASE_PASSWORD_FILE"),
        ("postgresql://h/n?options=-cx%3Dsecret", "unknown parameter 'options'"),
        ("postgresql://h/n?secret", "unknown parameter after"),
        ("postgresql://h/n?port=1&port=2", "twice"),
        ("postgresql://h:0/n", "from 1 to 65535"),
        ("postgresql://h:65536/n", "from 1 to 65535"),
        ("postgresql://user:secret/n", "invalid host or port"),
        ("postgresql://h:1,i:2,j/n?port=1,2", "hosts and ports differ"),
        ("postgresql://h/n/m", "%2F"),
        ("postgresql://h/n?schema=public", "is reserved"),
        ("postgresql://h/n?schema=pg_x", "is reserved"),
        ("postgresql://h/n?schema=A-b", "lower-case letters"),
        ("postgresql://h/n?sslmode=yes", "sslmode is one of"),
        ("postgresql://h/n?sslrootcert=system", "verify-full"),
        ("postgresql://h/n?connect_timeout=0", "from 1 to 600"),
        ("postgresql://h/n?connect_timeout=secret", "from 1 to 600"),
        ("postgresql://h/n?application_name=%C3%A4", "ASCII"),
        ("postgresql://h/%FF", "UTF-8"),
        ("postgresql://h/%00", "control character"),
        ("postgresql://u:a%00b@h/n", "control character"),
    ],
)
def test_errors_repeat_nothing_that_could_be_secret(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        read_server_address(text)
    assert "secret" not in str(error.value)


def test_connections_off_the_machine_are_encrypted_by_default() -> None:
    local = ["postgresql:///n", "postgresql://localhost/n", "postgresql://[::1]/n", "postgresql:///n?host=/run/x"]
    assert {read_server_address(each).sslmode for each in local} == {"prefer"}
    assert read_server_address("postgresql://db.example/n").sslmode == "require"
    assert read_server_address("postgresql://localhost,db.example/n").sslmode == "require"
    assert read_server_address("postgresql://db.example/n?sslmode=disable").sslmode == "disable"


def test_a_server_url_is_distinguished_from_a_file() -> None:
    assert is_server_url("postgres://x")
    assert is_server_url("postgresql+psycopg2://x")
    assert is_server_url("Postgresql:x")
    assert not is_server_url("sqlite:///postgres.db")
    assert not is_server_url("data/postgres.db")
    assert not is_server_url("postgres.db")
