"""`doctor`: every finding is provoked once, and says what to do."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Machine, wait_until
from machine_databases import FileDatabase
from msgspec.structs import replace

from atom_saas_sync.core.diagnosis.findings import DoctorFinding, DoctorSettings, Timers, exit_code
from atom_saas_sync.core.tokens import expires_at
from atom_saas_sync.errors import (
    ConfigError,
    ConnectionFailed,
    DatabaseError,
    MarketplaceError,
    MarketplaceTimeout,
    RateLimited,
    TlsFailed,
)
from atom_saas_sync.model import PastRun, ScheduledJob, Status, SyncState, TrustState, WebSocketState
from atom_saas_sync.model.server import ServerFacts
from atom_saas_sync.usecases.diagnose import diagnose

NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


WELL = Status(
    read_at=NOW,
    database_path="atom.db",
    revision="0012_seen_signatures",
    migrations_pending=False,
    sync=SyncState(last_sync_at=ago(minutes=5), last_successful_sync_at=ago(minutes=5)),
    rate_limit_remaining=90,
    skills=1250,
    categories=24,
)
PLAN = DoctorSettings(
    enabled=True,
    has_token=True,
    token_expires_at=None,
    api_url="https://api.example",
    connections=6,
    ws_enabled=True,
    scheduler_enabled=True,
    conflict_strategy="remote_wins",
    sync_interval_minutes=15,
    min_free_disk_gb=1.0,
    warnings=(),
)


@dataclass
class World:
    """A network, a database and a host whose parts can be made to fail."""

    known_names: bool = True
    health_status: int = 200
    skew: float | None = 0.0
    skills_status: int = 200
    fails: Mapping[str, Exception] = field(default_factory=dict)
    status: Status = WELL
    free_gb: float = 50.0
    ids: list[str] = field(default_factory=lambda: ["owner/name"])
    altered: int = 0
    unsigned: int = 0
    server: ServerFacts | None = None
    units: Timers = field(default_factory=lambda: Timers(active=("atom-sync-skills.timer",)))

    def _maybe_fail(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    def look_up(self) -> int:
        if not self.known_names:
            raise ConnectionFailed("could not resolve api.example: Name or service not known")
        return 1

    def health(self) -> tuple[int, float | None]:
        self._maybe_fail("health")
        return self.health_status, self.skew

    def skills(self) -> int:
        self._maybe_fail("skills")
        return self.skills_status

    def websocket(self) -> None:
        self._maybe_fail("websocket")

    def read(self) -> Status:
        self._maybe_fail("read")
        return self.status

    def integrity(self) -> tuple[int, int]:
        self._maybe_fail("integrity")
        return self.altered, self.unsigned

    def try_writing(self) -> None:
        self._maybe_fail("write")

    def skill_ids(self) -> list[str]:
        return self.ids

    def free_disk_gb(self) -> float:
        return self.free_gb

    def server_facts(self) -> ServerFacts | None:
        self._maybe_fail("server")
        return self.server

    def timers(self) -> Timers:
        return self.units


def examine(plan: DoctorSettings = PLAN, **parts: Any) -> list[DoctorFinding]:
    world = World(**parts)
    return diagnose(plan, network=world, store=world, host=world, now=NOW)


def bad(findings: list[DoctorFinding]) -> list[tuple[str, str]]:
    return [(each.check, each.verdict) for each in findings if each.verdict not in {"ok", "skipped"}]


def well(**fields: Any) -> Status:
    return replace(WELL, **fields)


def waits(reason: str, **span: float) -> TrustState:
    return TrustState("review", waiting_by_reason={reason: 1}, oldest_waiting_at=ago(**span))


RUN = PastRun(1, "skills", ago(hours=2), None, None, "running", "timer", (), None, None)
FAILED = (replace(RUN, status="failed", error_type="timeout"),)
GOOD = (replace(RUN, status="success"),)
WATCHING = WebSocketState(
    connected=True, alive=True, started_at=ago(hours=2), heartbeat_at=ago(seconds=5), last_connected_at=ago(hours=1)
)


def test_all_is_well() -> None:
    findings = examine()
    assert bad(findings) == []
    assert exit_code(findings) == 0


def test_a_token_says_how_long_it_is_good_for() -> None:
    findings = examine(replace(PLAN, token_expires_at=NOW + timedelta(days=90)))
    assert bad(findings) == []
    assert "it expires in 90 d" in next(each.message for each in findings if each.check == "token")


@pytest.mark.parametrize(
    ("plan", "parts", "expected", "hint"),
    [
        ({"warnings": ("unknown variable ATOM_SAAS_APIURL",)}, {}, ("configuration", "warning"), "config show"),
        ({"enabled": False}, {}, ("enabled", "warning"), "ATOM_SAAS_ENABLED"),
        ({"has_token": False}, {}, ("token", "problem"), "ATOM_SAAS_API_TOKEN"),
        ({"token_expires_at": NOW - timedelta(days=1)}, {}, ("token", "problem"), "dashboard"),
        ({"token_expires_at": NOW + timedelta(days=3)}, {}, ("token", "warning"), "dashboard"),
        ({}, {"known_names": False}, ("dns", "problem"), "ATOM_SAAS_API_URL"),
        ({}, {"fails": {"health": ConnectionFailed("refused")}}, ("http", "problem"), "firewall"),
        (
            {},
            {"fails": {"health": TlsFailed("no connection: TLS: self-signed")}},
            ("http", "problem"),
            "CA_FILE",
        ),
        ({}, {"fails": {"health": MarketplaceTimeout("no answer")}}, ("http", "problem"), "network"),
        ({}, {"fails": {"skills": RateLimited("none is free")}}, ("http", "problem"), "wait"),
        ({}, {"health_status": 503}, ("http", "problem"), "status.atomsaas.com"),
        ({}, {"health_status": 404}, ("http", "warning"), "DIALECT"),
        ({}, {"skills_status": 401}, ("api", "problem"), "dashboard"),
        ({}, {"skills_status": 404}, ("api", "problem"), "DIALECT"),
        ({}, {"skills_status": 429}, ("api", "problem"), "RATE_LIMIT"),
        ({}, {"skills_status": 500}, ("api", "problem"), "later"),
        ({}, {"skew": -90.0}, ("clock", "warning"), "timedatectl"),
        ({}, {"skew": 900.0}, ("clock", "problem"), "timedatectl"),
        (
            {},
            {"fails": {"websocket": ConfigError("no readable certificates")}},
            ("websocket", "problem"),
            "ATOM_SAAS_WS_URL",
        ),
        ({}, {"fails": {"websocket": ConnectionFailed("refused")}}, ("websocket", "problem"), "proxy"),
        ({}, {"free_gb": 0.4}, ("disk", "problem"), "df -h"),
        ({}, {"fails": {"write": DatabaseError("read-only", hint="chown it")}}, ("database", "problem"), "chown it"),
        ({}, {"fails": {"read": DatabaseError("damaged")}}, ("database", "problem"), "db check"),
        ({}, {"status": well(migrations_pending=True)}, ("migrations", "problem"), "db upgrade"),
        ({}, {"ids": ["fine", "pdf\u200b"]}, ("ids", "warning"), "skills show"),
        ({}, {"status": well(emergency_stop=True)}, ("schedule", "problem"), "jobs start"),
        ({}, {"status": well(auto_sync_off=True)}, ("schedule", "problem"), "auto_sync_enabled"),
        ({}, {"units": Timers(failed=("atom-sync-skills.service",))}, ("schedule", "problem"), "journalctl"),
        ({}, {"units": Timers()}, ("schedule", "warning"), "schedule systemd"),
        ({"scheduler_enabled": False}, {}, ("schedule", "problem"), "ENABLE_SCHEDULER"),
        ({}, {"status": well(sync=SyncState())}, ("sync", "problem"), "sync skills"),
        (
            {},
            {"status": well(sync=SyncState(last_sync_at=ago(hours=2), last_successful_sync_at=ago(hours=2)))},
            ("sync", "problem"),
            "sync skills",
        ),
        (
            {},
            {"status": well(last_runs={"skills": replace(RUN, status="failed", error_type="auth")})},
            ("sync", "problem"),
            "sync skills",
        ),
        ({}, {"status": well(websocket=replace(WATCHING, alive=False))}, ("watch", "problem"), "watch"),
        ({}, {"status": well(websocket=replace(WATCHING, connected=False))}, ("watch", "problem"), "watch"),
        (
            {},
            {"status": well(websocket=replace(WATCHING, connected=False, enabled=False))},
            ("watch", "warning"),
            "websocket/enable",
        ),
        ({}, {"status": well(runs=(RUN,), running=frozenset({"skills"}))}, ("run", "problem"), "kill"),
        ({}, {"status": well(runs=FAILED * 2 + GOOD * 8)}, ("errors", "warning"), "status --json"),
        ({}, {"status": well(skills=0)}, ("cache", "warning"), "--force"),
        ({}, {"status": well(expired_skills=7)}, ("cache", "warning"), "cache purge"),
        ({}, {"status": well(rate_limit_remaining=2)}, ("rate_limit", "warning"), "INTERVAL"),
        ({"policy_problems": ("policy.toml: rule 1: x",)}, {}, ("policy", "problem"), "policy check"),
        ({}, {"status": well(trust=waits("republished"))}, ("updates", "warning"), "updates list"),
        ({}, {"status": well(trust=waits("review", days=8))}, ("updates", "warning"), "updates show"),
        ({}, {"status": well(conflicts_open={"HIGH": 2})}, ("conflicts", "warning"), "conflicts list"),
        ({}, {"status": well(ratings_failed=1)}, ("ratings", "problem"), "ratings failed"),
    ],
)
def test_each_finding_with_its_hint(
    plan: dict[str, Any], parts: dict[str, Any], expected: tuple[str, str], hint: str
) -> None:
    findings = examine(replace(PLAN, **plan), **parts)
    assert expected in bad(findings)
    (found,) = [each for each in findings if (each.check, each.verdict) == expected]
    assert found.hint is not None
    assert hint in found.hint
    assert exit_code(findings) == (
        expected[1] == "problem" or any(verdict == "problem" for _, verdict in bad(findings))
    )


def test_an_update_that_waits_for_a_few_days_is_not_a_finding() -> None:
    findings = examine(status=well(trust=waits("review", days=3)))
    assert bad(findings) == []
    assert "1 update waits" in {each.message for each in findings}


def test_odd_ids_are_shown_in_a_distinguishable_form() -> None:
    [found] = [each for each in examine(ids=["fine", "a\\b", "pdf\u200b"]) if each.check == "ids"]
    assert r"'a\\b' (skill_id has a backslash), 'pdf\u200b' (skill_id has invisible characters)" in found.message


def test_one_cause_gives_one_finding() -> None:
    assert bad(examine(known_names=False)) == [("dns", "problem")]
    assert bad(examine(skills_status=401)) == [("api", "problem")]
    assert bad(examine(replace(PLAN, has_token=False))) == [("token", "problem")]


def test_few_old_or_harmless_failures_are_not_reported_as_an_error_rate() -> None:
    old = (replace(FAILED[0], started_at=ago(hours=5)),)
    stopped = (replace(FAILED[0], error_type="interrupted"),)
    for runs in (FAILED + GOOD, FAILED * 2 + GOOD * 18, old * 9, stopped * 9, ()):
        assert bad(examine(status=well(runs=runs))) == []
    findings = examine(status=well(runs=FAILED * 2 + GOOD * 8))
    assert "2 of the last 10 runs ended with an error: 2 timeout" in {each.message for each in findings}


def test_watch_with_its_jobs_is_a_schedule() -> None:
    jobs = (ScheduledJob("skill-sync-atom-saas", "Skill Sync", 15, None),)
    assert bad(examine(status=well(websocket=WATCHING, jobs=jobs), units=Timers())) == []
    gone = replace(WATCHING, alive=False, stopped_at=ago(minutes=1))
    assert bad(examine(status=well(websocket=gone, jobs=jobs), units=Timers())) == [("schedule", "warning")]


def test_units_of_the_user_get_the_commands_of_the_users_systemd() -> None:
    gone = replace(WATCHING, alive=False)
    found = examine(status=well(websocket=gone), units=Timers(failed=("atom-sync-watch.service",), own=True))
    hints = {each.check: each.hint for each in found if each.verdict == "problem"}
    unit = "atom-sync-watch.service"
    assert hints == {
        "schedule": f"`systemctl --user status {unit}` and `journalctl --user -u {unit}` say why",
        "watch": "`systemctl --user restart atom-sync-watch`",
    }
    timer = Timers(active=("atom-sync-skills.timer",), own=True)
    assert bad(examine(units=timer)) == []


def test_other_failures_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        examine(fails={"health": ZeroDivisionError()})
    assert isinstance(MarketplaceTimeout("x"), MarketplaceError)


def jwt(**claims: object) -> str:
    def part(document: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.c2ln"


def test_the_expiry_of_a_jwt() -> None:
    assert expires_at(jwt(exp=NOW.timestamp())) == NOW
    for token in (
        jwt(),
        jwt(exp="soon"),
        jwt(exp=True),
        jwt(exp=1e300),
        "a.b.c",
        "at_saas_x",
        "a.ö.c",
        "",
        jwt(exp=None),
    ):
        assert expires_at(token) is None


# The real command, against the real sandbox.


def findings_of(machine: Machine, *options: str, **variables: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    result = machine.command(*options, "doctor", "--json", **variables)
    document = json.loads(result.stdout)
    assert document["success"] is (result.returncode == 0)
    return result.returncode, {each["check"]: each for each in document["findings"]}, result.stdout + result.stderr


def test_a_machine_that_is_well_but_has_no_timer(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    assert machine.command("sync", "skills").returncode == 0
    code, found, _ = findings_of(machine)
    assert code == 0
    wrong = {name: each["verdict"] for name, each in found.items() if each["verdict"] != "ok"}
    if not isinstance(machine.database, FileDatabase):
        assert wrong.pop("disk") == "skipped", "nobody can tell from here"
    assert wrong in ({"schedule": "warning"}, {})  # this host may have timers of its own
    assert found["websocket"]["message"] == "the WebSocket connects"
    screen = machine.command("doctor", COLUMNS="80")
    assert screen.returncode == 0
    assert max(map(len, screen.stdout.splitlines())) <= 80
    assert re.search(r"0 problems, \d warnings?", screen.stdout)


def test_all_problems_of_the_configuration_at_once(machine: Machine) -> None:
    result = machine.command(
        "doctor", "--json", ATOM_SAAS_SYNC_INTERVAL_MINUTES="2", ATOM_SAAS_API_TOKEN="your_api_token_here"
    )
    document = json.loads(result.stdout)
    assert (result.returncode, document["total"]) == (1, 2)


def test_each_network_failure_is_diagnosed(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(600)
    _, found, _ = findings_of(machine)
    assert found["clock"]["verdict"] == "problem"
    assert "behind the marketplace's" in found["clock"]["message"]
    _, found, text = findings_of(machine, ATOM_SAAS_API_TOKEN="at_saas_secret_and_wrong")
    assert found["api"]["message"] == "the marketplace refuses the token: 401"
    assert "websocket" not in found
    assert "secret_and_wrong" not in text
    _, found, _ = findings_of(machine, ATOM_SAAS_API_URL=f"{machine.sandbox.url}/nowhere")
    assert found["api"]["verdict"] == "problem"
    _, found, text = findings_of(machine, ATOM_SAAS_WS_URL=f"{machine.sandbox.ws_url}/nowhere")
    assert found["websocket"]["verdict"] == "problem"
    assert machine.sandbox.token not in text
    _, found, _ = findings_of(machine, ATOM_SAAS_API_URL=machine.sandbox.url.replace("http:", "https:"))
    assert "TLS" in found["http"]["message"]
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    _, found, _ = findings_of(machine, ATOM_SAAS_API_URL=f"http://127.0.0.1:{port}")
    assert "Connection refused" in found["http"]["message"]
    code, found, _ = findings_of(machine, ATOM_SAAS_API_URL="https://no-such-host.invalid")
    assert (code, found["dns"]["verdict"], found["http"]["verdict"]) == (1, "problem", "skipped")


@pytest.mark.sqlite("a file, and older migrations")
def test_each_database_problem_is_diagnosed(machine: Machine) -> None:
    _, found, _ = findings_of(machine)
    assert found["database"]["message"] == "it does not exist yet"
    assert not machine.database_path.exists()
    machine.database_path.mkdir()
    code, found, _ = findings_of(machine)
    assert (code, found["database"]["verdict"], found["sync"]["verdict"]) == (1, "problem", "skipped")
    machine.database_path.rmdir()
    machine.command("db", "upgrade", "0002_sync_state")
    _, found, _ = findings_of(machine)
    assert found["migrations"]["verdict"] == "problem"
    assert machine.command("db", "current", "--json").stdout.count("0002_sync_state") == 1
    _, found, _ = findings_of(machine, ATOM_SYNC_MIN_FREE_DISK_GB="10000")
    assert found["disk"]["verdict"] == "problem"


def test_unfinished_work_of_a_sync_has_its_own_finding(machine: Machine) -> None:
    machine.command("sync", "skills")
    machine.sandbox.fault("invalid_items", value="no_id", endpoint="list")
    assert machine.command("sync", "skills", "--force").returncode == 65
    _, found, _ = findings_of(machine)
    assert found["sync"]["verdict"] == "warning"
    assert "1 invalid item" in found["sync"]["message"]
    machine.sandbox.clear_faults()
    for name in machine.sandbox.skill_ids()[:40]:
        machine.sandbox.delete_skill(name)
    assert machine.command("sync", "skills").returncode == 4
    code, found, _ = findings_of(machine)
    assert (code, found["sync"]["verdict"]) == (1, "problem")
    assert "refused to delete 40 skills" in found["sync"]["message"]
    assert "atom-sync sync skills --max-delete 40" in found["sync"]["hint"]
    checked = machine.command("status", "--check", "--json")
    assert checked.returncode == 3
    assert json.loads(checked.stdout)["health"]["reasons"] == ["deletions_refused"]
    assert machine.command("sync", "skills", "--max-delete", "40").returncode == 0
    assert machine.command("status", "--check").returncode == 0


@pytest.mark.sqlite("migrations of older versions")
def test_with_migrations_pending_nothing_is_guessed(machine: Machine) -> None:
    machine.command("db", "upgrade", "0002_sync_state")
    _, found, _ = findings_of(machine)
    for check in ("sync", "cache", "rate_limit", "conflicts", "ratings"):
        assert (found[check]["verdict"], found[check]["message"]) == ("skipped", "unknown until `atom-sync db upgrade`")
    screen = machine.command("status").stdout
    assert "unknown until `atom-sync db upgrade`" in screen
    assert "Ratings" not in screen


def test_an_empty_cache_is_unhealthy(machine: Machine) -> None:
    machine.command("sync", "skills")
    assert machine.command("cache", "purge", "--all").returncode == 0
    assert findings_of(machine)[1]["cache"]["message"] == "it is empty, though a sync has succeeded"
    checked = machine.command("status", "--check")
    assert checked.returncode == 3
    assert "no skill is cached" in checked.stdout


def test_each_policy_problem_is_diagnosed(machine: Machine) -> None:
    file = machine.directory / "policy.toml"
    file.write_text('[[rule]]\nid = "a"\nadmission = "oben"\n')
    code, found, _ = findings_of(machine, ATOM_SYNC_POLICY_FILE=str(file), ATOM_SAAS_ENABLED="false")
    assert (code, found["policy"]["verdict"]) == (1, "problem")
    assert "rule 1: admission: invalid value 'oben'" in found["policy"]["message"]


def test_health_list_and_websocket_are_asked_side_by_side(machine: Machine) -> None:
    machine.sandbox.fault("hang", endpoint="health")
    with machine.started("doctor", "--json") as process:
        wait_until(lambda: {each.endpoint for each in machine.sandbox.requests()} == {"health", "list", "ws"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


def test_with_one_connection_they_are_asked_in_turn_over_the_same_one(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    _, found, _ = findings_of(machine, ATOM_SAAS_SYNC_CONNECTIONS="1")
    assert [found[check]["verdict"] for check in ("http", "clock", "api", "websocket")] == ["ok"] * 4
    assert [each.endpoint for each in machine.sandbox.requests()] == ["health", "list", "ws"]
    assert machine.sandbox.counters()["connections"] == 2, "the WebSocket has its own"


@pytest.mark.parametrize("connections", ["1", "2", "6"])
def test_a_refused_token_is_not_sent_again(machine: Machine, connections: str) -> None:
    machine.sandbox.fault("error", endpoint="list", status=401)
    machine.sandbox.fault("delay", endpoint="health", seconds=0.5)
    code, found, _ = findings_of(machine, ATOM_SAAS_SYNC_CONNECTIONS=connections)
    assert (code, found["api"]["verdict"]) == (1, "problem")
    assert "websocket" not in found
    assert {each.endpoint for each in machine.sandbox.requests()} == {"health", "list"}


@pytest.mark.parametrize("connections", ["1", "2", "6"])
def test_the_first_problem_is_reported_no_matter_which_answer_comes_first(machine: Machine, connections: str) -> None:
    """A body that never ends says nothing: the status alone counts."""
    machine.sandbox.fault("hang", endpoint="list", value="body")
    machine.sandbox.fault("error", endpoint="health", status=503)
    code, found, _ = findings_of(machine, ATOM_SAAS_SYNC_CONNECTIONS=connections, ATOM_SAAS_API_TIMEOUT_SECONDS="1")
    assert (code, found["http"]["verdict"], found["api"]["verdict"]) == (1, "problem", "ok")
    assert found["websocket"]["verdict"] == "ok"
