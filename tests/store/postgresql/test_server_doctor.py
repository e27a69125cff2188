"""`doctor` on a server: its findings on a real one, and for each fact."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg
import pytest
from conftest import Machine
from msgspec.structs import replace
from server_support import opened

from atom_saas_sync.core.diagnosis.findings import DoctorFinding
from atom_saas_sync.core.diagnosis.server import can_read, can_write, server
from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model.server import ServerFacts
from atom_saas_sync.store.postgresql import connection, session
from atom_saas_sync.store.postgresql.engine import PostgreSQLEngine

WELL = ServerFacts(
    version=180006,
    role="atom_sync",
    schema="atom_sync",
    is_local=False,
    sslmode="verify-full",
    is_encrypted=True,
    clock_ahead_seconds=0.2,
    is_standby=False,
    pooling="none",
    collation=(None, None),
)
CHECKS = ["server", "server_tls", "server_clock", "pooler", "standby", "rights"]


def facts_of(url: str) -> ServerFacts:
    return PostgreSQLEngine(read_server_address(url)).server_facts()


def bad(findings: list[DoctorFinding]) -> list[tuple[str, str]]:
    return [(each.check, each.verdict) for each in findings if each.verdict != "ok"]


def test_a_healthy_server_has_no_problems() -> None:
    findings = server(WELL)
    assert [each.check for each in findings] == CHECKS
    assert bad(findings) == []
    assert can_read(WELL)
    assert can_write(WELL)


@pytest.mark.parametrize(
    ("changed", "expected", "said", "hint"),
    [
        ({"version": 190001}, ("server", "warning"), "PostgreSQL 19.1", "db check"),
        ({"is_encrypted": False, "sslmode": "prefer"}, ("server_tls", "problem"), "sslmode=prefer", "verify-full"),
        ({"sslmode": "require"}, ("server_tls", "warning"), "sslmode=require", "sslrootcert"),
        ({"clock_ahead_seconds": 6.0}, ("server_clock", "warning"), "6 s ahead of", "timedatectl"),
        ({"clock_ahead_seconds": -61.0}, ("server_clock", "problem"), "behind this host's: nothing", "timedatectl"),
        ({"pooling": "transaction"}, ("pooler", "problem"), "transaction mode", "session mode"),
        ({"is_standby": True}, ("standby", "problem"), "standby", "primary"),
        ({"only_reads": True}, ("standby", "problem"), "sessions only read", "default_transaction_read_only"),
        ({"collation": ("2.36", "2.41")}, ("collation", "warning"), "2.36", "REFRESH COLLATION"),
        ({"role": 'a"b', "lacking": (("SELECT", "TABLE t"),)}, ("rights", "problem"), "TABLE t", 'TO "a""b";'),
        (
            {"lacking": (("CREATE", 'DATABASE "site"'),)},
            ("rights", "problem"),
            'DATABASE "site"',
            'GRANT CREATE ON DATABASE "site" TO "atom_sync";',
        ),
        (
            {
                "owner": "site",
                "lacking_in_public": (
                    ("UPDATE", "TABLE public.a"),
                    ("TRIGGER", "TABLE public.a"),
                    ("UPDATE", "TABLE public.b"),
                    ("TRIGGER", "TABLE public.b"),
                    ("USAGE", "SEQUENCE public.a_id_seq"),
                ),
            },
            ("rights", "problem"),
            "the role site lacks privileges on TABLE public.a, TABLE public.b",
            (
                'GRANT UPDATE, TRIGGER ON TABLE public.a, public.b TO "site"; '
                'GRANT USAGE ON SEQUENCE public.a_id_seq TO "site";'
            ),
        ),
    ],
)
def test_each_finding_about_a_server(changed: dict[str, Any], expected: tuple[str, str], said: str, hint: str) -> None:
    findings = server(replace(WELL, **changed))
    assert bad(findings) == [expected]
    (found,) = [each for each in findings if each.verdict != "ok"]
    assert said in found.message
    assert hint in str(found.hint)


def test_a_local_connection_needs_no_encryption() -> None:
    assert bad(server(replace(WELL, is_local=True, is_encrypted=False, sslmode="prefer"))) == []
    pooled = server(replace(WELL, pooling="session"))
    assert bad(pooled) == []
    assert "session mode" in next(each.message for each in pooled if each.check == "pooler")


def test_a_cause_that_is_named_is_not_found_again_by_writing() -> None:
    assert can_write(replace(WELL, clock_ahead_seconds=59.0))
    lacking = (("INSERT", "TABLE t"),)
    for changed in (
        {"is_standby": True},
        {"only_reads": True},
        {"clock_ahead_seconds": 61.0},
        {"lacking": lacking},
        {"lacking_in_public": lacking},
    ):
        assert not can_write(replace(WELL, **changed))
        assert can_read(replace(WELL, **changed))
    assert not can_read(replace(WELL, lacking=(("USAGE", "SCHEMA atom_sync"),)))


def test_many_tables_become_one_grant() -> None:
    tables = tuple(("SELECT", f"TABLE atom_sync.t{number}") for number in range(9))
    (found,) = [each for each in server(replace(WELL, lacking=tables)) if each.verdict != "ok"]
    assert "and 6 more" in found.message
    assert found.hint == 'run as the owner: GRANT SELECT ON ALL TABLES IN SCHEMA atom_sync TO "atom_sync";'


def test_a_real_server(database_url: str, postgresql_url: str) -> None:
    facts = facts_of(database_url)
    assert facts.version // 10_000 >= 15
    assert abs(facts.clock_ahead_seconds) < 5
    assert (facts.role, facts.is_local, facts.is_standby, facts.pooling) == ("atom", True, False, "none")
    assert facts.lacking == ()
    assert facts_of(postgresql_url).lacking == ()  # nothing is there yet, and it may be made


def test_the_grants_that_are_named_are_those_that_are_missing(database_url: str) -> None:
    """A role without privileges gets exactly those that doctor asks for, one after the other."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS examined")
        owner.execute("CREATE ROLE examined LOGIN")
        try:
            as_examined = database_url.replace("atom@", "examined@")
            (found,) = [each for each in server(facts_of(f"{as_examined}&schema=nowhere")) if each.verdict != "ok"]
            assert f'GRANT CREATE ON DATABASE "{owner.info.dbname}" TO "examined";' in str(found.hint)
            (found,) = [each for each in server(facts_of(as_examined)) if each.verdict != "ok"]
            assert "SCHEMA atom_sync" in found.message
            owner.execute(str(found.hint).removeprefix("run as the owner: ").encode())
            assert facts_of(as_examined).lacking == ()
            owner.execute("REVOKE UPDATE ON atom_sync.skill_cache FROM examined")
            (found,) = [each for each in server(facts_of(as_examined)) if each.verdict != "ok"]
            assert found.hint == 'run as the owner: GRANT UPDATE ON TABLE atom_sync.skill_cache TO "examined";'
        finally:
            owner.execute("DROP OWNED BY examined")
            owner.execute("DROP ROLE examined")


def test_a_role_that_may_call_no_function_is_told_the_grant(own_url: str) -> None:
    with psycopg.connect(own_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE caller LOGIN")
        try:
            for change in (
                "GRANT USAGE ON SCHEMA atom_sync TO caller",
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA atom_sync TO caller",
                "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA atom_sync FROM PUBLIC",
            ):
                owner.execute(change.encode())
            as_caller = own_url.replace("atom@", "caller@")
            grant = 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA atom_sync TO "caller";'
            facts = facts_of(as_caller)
            (found,) = [each for each in server(facts) if each.verdict != "ok"]
            assert found.hint == f"run as the owner: {grant}"
            assert not can_read(facts)
            with opened(as_caller) as database, pytest.raises(DatabaseError) as error:
                database.ask("SELECT atom_sync_field('{}', 'name')")
            assert error.value.hint == f"run as its owner: {grant}"
            owner.execute(grant.encode())
            assert facts_of(as_caller).lacking == ()
        finally:
            owner.execute("DROP OWNED BY caller")
            owner.execute("DROP ROLE caller")


def test_a_clock_and_a_pooler_are_seen(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: here() - 90)
        facts = facts_of(database_url)
    assert 89 < facts.clock_ahead_seconds < 91
    begin = session.begin_session
    backends = iter([7, 7, 8, 9])

    def pooled(*arguments: Any, **options: Any) -> session.Session:
        return begin(*arguments, **options)._replace(backend=next(backends), is_pooled=True)

    monkeypatch.setattr(connection, "begin_session", pooled)
    assert facts_of(database_url).pooling == "transaction"
    assert facts_of(database_url).pooling == "session"


def test_the_command_on_a_server(machine: Machine, database_url: str) -> None:
    def examined(url: str) -> tuple[int, dict[str, dict[str, Any]]]:
        result = machine.command("doctor", "--json", ATOM_SAAS_DATABASE_URL=url)
        return result.returncode, {each["check"]: each for each in json.loads(result.stdout)["findings"]}

    machine.command("sync", "skills", ATOM_SAAS_DATABASE_URL=database_url)
    _, findings = examined(database_url)
    assert [findings[check]["verdict"] for check in CHECKS] == ["ok"] * len(CHECKS)
    assert findings["database"]["message"] == "it is readable and writable"
    # A server that cannot be used is one finding among the others, and syncs are not judged.
    code, findings = examined(database_url.replace("atom@", "nobody_here@"))
    assert code == 1
    assert "nobody_here" in findings["database"]["message"]
    assert findings["http"]["verdict"] == "ok"
    assert findings["sync"]["verdict"] == "skipped"
