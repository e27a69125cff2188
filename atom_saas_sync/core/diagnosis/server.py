"""Findings about a database server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atom_saas_sync.core.diagnosis.findings import DoctorFinding
from atom_saas_sync.core.health import duration
from atom_saas_sync.core.server_address import quoted
from atom_saas_sync.model.server import ServerFacts

_NEWEST_TESTED = 18
_CLOCK_WARNED, _CLOCK_REFUSED = 5.0, 60.0  # as when a connection is opened
_TABLES_NAMED = 3


def server(facts: ServerFacts) -> list[DoctorFinding]:
    """Check the server, the way to it, and the rights of our role. Its version and encoding were accepted already."""
    return [
        _version(facts.version),
        _encryption(facts),
        _clock(facts.clock_ahead_seconds),
        _pooler(facts),
        _standby(facts),
        *_collation(*facts.collation),
        _rights(facts),
    ]


def can_write(facts: ServerFacts) -> bool:
    """Tell whether a write can succeed; otherwise one of the findings already says why not."""
    is_lacking = facts.lacking or facts.lacking_in_public
    only_reads = facts.is_standby or facts.only_reads
    return not (only_reads or is_lacking or abs(facts.clock_ahead_seconds) > _CLOCK_REFUSED)


def can_read(facts: ServerFacts) -> bool:
    """Tell whether our tables can be read; otherwise the finding about the rights says why not."""
    return not any(privilege in {"USAGE", "SELECT", "EXECUTE"} for privilege, _ in facts.lacking)


def _version(number: int) -> DoctorFinding:
    major, minor = divmod(number, 10_000)
    shown = f"PostgreSQL {major}.{minor}"
    if major > _NEWEST_TESTED:
        return DoctorFinding(
            "server",
            "warning",
            f"{shown} is newer than {_NEWEST_TESTED}, the newest version that was tested",
            "upgrade atom-sync; `atom-sync db check` looks for what may be different",
        )
    return DoctorFinding("server", "ok", f"{shown}, encoding UTF8; no extension is needed")


def _encryption(facts: ServerFacts) -> DoctorFinding:
    if facts.is_local:
        return DoctorFinding("server_tls", "ok", "the connection does not leave this machine")
    hint = "add sslmode=verify-full and sslrootcert=FILE (the server's authority) to ATOM_SAAS_DATABASE_URL"
    if not facts.is_encrypted:
        return DoctorFinding(
            "server_tls", "problem", f"the connection to the server is not encrypted (sslmode={facts.sslmode})", hint
        )
    if facts.sslmode != "verify-full":
        return DoctorFinding(
            "server_tls",
            "warning",
            f"the connection is encrypted, but sslmode={facts.sslmode} does not verify the server's name",
            hint,
        )
    return DoctorFinding("server_tls", "ok", "the connection is encrypted, and the server's certificate is verified")


def _clock(ahead: float) -> DoctorFinding:
    apart = f"the server's clock is {duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this host's"
    hint = "synchronise both clocks: `timedatectl set-ntp true`"
    if abs(ahead) > _CLOCK_REFUSED:
        return DoctorFinding("server_clock", "problem", f"{apart}: nothing is written", hint)
    if abs(ahead) > _CLOCK_WARNED:
        return DoctorFinding("server_clock", "warning", apart, hint)
    return DoctorFinding("server_clock", "ok", "the server's clock and this host's agree")


def _pooler(facts: ServerFacts) -> DoctorFinding:
    if facts.pooling == "transaction":
        return DoctorFinding(
            "pooler",
            "problem",
            "the server is behind a pooler in transaction mode: runs are refused, because they would lose their lock",
            "name the server itself, or the pooler's address in session mode, in ATOM_SAAS_DATABASE_URL; commands that "
            "only read work",
        )
    if facts.pooling == "session":
        return DoctorFinding("pooler", "ok", "the server is behind a pooler in session mode")
    return DoctorFinding("pooler", "ok", "there is no pooler in between")


def _standby(facts: ServerFacts) -> DoctorFinding:
    if facts.is_standby:
        return DoctorFinding(
            "standby",
            "problem",
            "the server is a standby: nothing can be written",
            "name the primary server in ATOM_SAAS_DATABASE_URL; commands that only read work",
        )
    if facts.only_reads:
        return DoctorFinding(
            "standby",
            "problem",
            "the server is the primary, but sessions only read (default_transaction_read_only): nothing can be written",
            "find out why; then ALTER ROLE … RESET default_transaction_read_only, or ALTER DATABASE …",
        )
    return DoctorFinding("standby", "ok", "the server is the primary")


def _collation(made: str | None, now: str | None) -> Iterator[DoctorFinding]:
    if made is not None and now is not None and made != now:
        yield DoctorFinding(
            "collation",
            "warning",
            f"the database was created with collation version {made}, but the server has {now}",
            "our keys do not depend on it; for other tables run REINDEX DATABASE, then ALTER DATABASE … REFRESH "
            "COLLATION VERSION",
        )


def _rights(facts: ServerFacts) -> DoctorFinding:
    grants = [*_grants(facts.lacking, facts.role, facts.schema), *_grants(facts.lacking_in_public, facts.owner)]
    if not grants:
        return DoctorFinding("rights", "ok", f"the role {facts.role} has all privileges that it needs")
    lacking, role = (facts.lacking, facts.role) if facts.lacking else (facts.lacking_in_public, facts.owner)
    objects = list(dict.fromkeys(name for _, name in lacking))
    more = f" and {len(objects) - _TABLES_NAMED} more" if len(objects) > _TABLES_NAMED else ""
    return DoctorFinding(
        "rights",
        "problem",
        f"the role {role} lacks privileges on {', '.join(objects[:_TABLES_NAMED])}{more}",
        f"run as the owner: {' '.join(grants)}",
    )


def _grants(lacking: Sequence[tuple[str, str]], role: str, schema: str | None = None) -> Iterator[str]:
    """Yield the GRANTs for missing privileges, few for many objects: one for `schema` if most of it is missing."""
    wanted: dict[str, list[str]] = {}
    for privilege, name in lacking:
        wanted.setdefault(name, []).append(privilege)
    together: dict[tuple[str, str], list[str]] = {}
    for name, privileges in wanted.items():
        kind, _, object_name = name.partition(" ")
        together.setdefault((", ".join(privileges), kind), []).append(object_name)
    for (privileges_listed, kind), names in together.items():
        if schema and kind == "TABLE" and len(names) > _TABLES_NAMED:
            yield f"GRANT {privileges_listed} ON ALL TABLES IN SCHEMA {schema} TO {quoted(role)};"
        else:
            yield f"GRANT {privileges_listed} ON {kind} {', '.join(names)} TO {quoted(role)};"
