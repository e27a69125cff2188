"""The admin API: authorisation and effects."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine, wait_until
from web_support import ADMIN_TOKEN, Served, served, serving_a_full_cache

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.web.jobs import Jobs

ROUTES = [
    ("GET", "status"),
    ("GET", "jobs"),
    ("DELETE", "jobs"),
    ("POST", "jobs"),
    ("GET", "conflicts"),
    ("GET", "conflicts/1"),
    ("POST", "conflicts/1/resolve"),
    ("POST", "conflicts/bulk-resolve"),
    ("POST", "resolve"),
    ("GET", "updates"),
    ("POST", "updates/a/approve"),
    ("POST", "updates/@scope/name/reject"),
    ("GET", "config"),
    ("GET", "ratings/status"),
    ("GET", "ratings/failed-uploads"),
    ("POST", "ratings/failed-uploads/1/retry"),
    ("POST", "trigger"),
    ("POST", "skills"),
    ("POST", "ratings"),
    ("GET", "websocket/status"),
    ("POST", "websocket/reconnect"),
    ("POST", "websocket/enable"),
    ("POST", "websocket/disable"),
    ("DELETE", "cache/expired"),
    ("GET", "no-such-route"),
]


@pytest.fixture
def server(machine: Machine) -> Iterator[Served]:
    with serving_a_full_cache(machine) as server:
        yield server


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a cache to all tests that change nothing."""
    with (
        Sandbox(skills=1, seed=3) as sandbox,
        serving_a_full_cache(Machine(sandbox, tmp_path_factory.mktemp("web"))) as server,
    ):
        yield server


def test_without_an_admin_token_every_route_is_closed(machine: Machine) -> None:
    with served(machine) as server:
        for method, route in ROUTES:
            answer = server.admin(method, route)
            assert (answer.status_code, answer.json()["success"]) == (403, False), route


def test_with_a_wrong_token_every_route_is_closed(unchanged: Served) -> None:
    def ask(token: str | None, method: str, route: str) -> None:
        headers = {} if token is None else {b"Authorization": f"Bearer {token}".encode()}
        answer = unchanged.client.request(method, f"/api/admin/sync/{route}", headers=headers)
        assert answer.status_code == 401, (route, token)
        assert answer.headers["www-authenticate"] == "Bearer"

    for token in (None, "wrong", ADMIN_TOKEN[:-1], f"{ADMIN_TOKEN}x", "ö"):
        ask(token, *ROUTES[0])
    for method, route in ROUTES:
        ask(None, method, route)
    # Each wrong one waits 0.25 s for its answer; ten at a time would be answered with 429.
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda route: ask("wrong", *route), ROUTES))
    wrong_scheme = {"Authorization": f"Basic {ADMIN_TOKEN}"}
    assert unchanged.client.get("/api/admin/sync/status", headers=wrong_scheme).status_code == 401


def test_reading(server: Served) -> None:
    status = server.admin("GET", "status").json()
    assert status["cache"]["skills_count"] == 60
    assert status["health"]["status"] == "healthy"
    jobs = server.admin("GET", "jobs").json()
    assert [job["id"] for job in jobs["jobs"]] == ["skill-sync-atom-saas", "rating-sync-atom-saas"]
    assert jobs["jobs"][0].keys() == {"id", "name", "next_run_time", "trigger", "minutes"}
    assert server.admin("GET", "conflicts").json() == {"success": True, "conflicts": [], "total": 0}
    config = server.admin("GET", "config")
    assert {"ATOM_SAAS_API_URL", "ATOM_SAAS_API_TOKEN"} <= {line["name"] for line in config.json()["settings"]}
    assert "at_saas_sandbox" not in config.text
    assert ADMIN_TOKEN not in config.text
    assert server.admin("GET", "ratings/status").json()["pending"] == 0
    assert server.admin("GET", "no-such-route").status_code == 404


def test_a_sync_is_started_and_said_to_be_ours(machine: Machine, server: Served) -> None:
    answer = server.admin("POST", "trigger")
    assert answer.status_code == 202
    run_id = answer.json()["run_id"]
    wait_until(lambda: machine.sql("SELECT status FROM sync_run WHERE id = ?", run_id)[0][0] == "success")
    assert machine.sql("SELECT kind, started_by FROM sync_run WHERE id = ?", run_id) == [("skills", "admin API")]
    rated = server.admin("POST", "ratings")
    assert rated.status_code == 202
    wait_until(
        lambda: machine.sql("SELECT status FROM sync_run WHERE id = ?", rated.json()["run_id"])[0][0] != "running"
    )


def test_one_at_a_time_and_stopping_ends_it_well(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    machine.sandbox.fault("delay", endpoint="categories", seconds=15)
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN) as server:
        run_id = server.admin("POST", "skills").json()["run_id"]
        again = server.admin("POST", "skills")
        assert (again.status_code, again.json()["error"]["type"]) == (409, "locked")
        (running,) = server.admin("GET", "status").json()["sync"]["running"]
        assert "skills" in (running, running["kind"] if isinstance(running, dict) else None), "a fleet names the host"
    # The server has ended with 0, and its child before it, which has said why.
    assert machine.sql("SELECT error_type FROM sync_run WHERE id = ?", run_id) == [("interrupted",)]


def test_a_sync_that_cannot_begin_is_an_error(machine: Machine) -> None:
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN, ATOM_SAAS_ENABLED="false") as server:
        answer = server.admin("POST", "skills")
        assert (answer.status_code, answer.json()["success"]) == (500, False)


def test_the_emergency_stop(machine: Machine, server: Served) -> None:
    assert server.admin("DELETE", "jobs").json() == {"success": True, "stopped": True}
    assert server.admin("GET", "jobs").json()["stopped"] is True
    skipped = machine.command("sync", "skills", "--scheduled", "--json", ENABLE_SCHEDULER="true")
    assert (skipped.returncode, '"stopped"' in skipped.stdout) == (0, True)
    assert server.admin("POST", "jobs").json() == {"success": True, "stopped": False}
    assert server.admin("GET", "jobs").json()["stopped"] is False
    actions = machine.sql("SELECT actor, action FROM audit_log ORDER BY id")
    assert actions == [("admin API", "jobs stop"), ("admin API", "jobs start")]


def conflict(machine: Machine, *numbers: int) -> list[str]:
    """Change skills on both sides, so that their conflicts are open; return their ids."""
    skill_ids = [machine.sandbox.skill_ids()[number] for number in numbers]
    for number, skill_id in zip(numbers, skill_ids, strict=True):
        machine.edit(skill_id, description="ours")
        machine.sandbox.patch_skill(skill_id, {"description": f"theirs {number}"})
    assert machine.command("sync", "skills", "--strategy", "manual").returncode == 0
    return skill_ids


def test_a_token_holder_can_read_and_resolve_a_conflict(machine: Machine, server: Served) -> None:
    (skill_id,) = conflict(machine, 0)
    listed = server.admin("GET", "conflicts").json()
    assert (listed["total"], listed["conflicts"][0]["skill_id"]) == (1, skill_id)
    number = listed["conflicts"][0]["id"]
    shown = server.admin("GET", f"conflicts/{number}").json()["conflict"]
    assert (shown["local"]["description"], shown["remote"]["description"]) == ("ours", "theirs 0")
    body = {"strategy": "remote_wins", "resolved_by": "somebody else", "actor": "somebody else"}
    answer = server.admin("POST", f"conflicts/{number}/resolve", json=body)
    assert answer.status_code == 200
    assert answer.json()["resolved"][0]["resolved_by"] == "admin API"
    assert machine.cached()[skill_id]["description"] == "theirs 0"
    assert machine.sql("SELECT resolved, resolved_by FROM conflict_log") == [(1, "admin API")]
    assert server.admin("GET", "conflicts?resolved=true").json()["total"] == 1
    assert server.admin("POST", f"conflicts/{number}/resolve", json=body).status_code == 400


def test_ways_to_resolve(machine: Machine, server: Served) -> None:
    ways: list[tuple[dict[str, Any], str]] = [
        ({"all": True, "strategy": "local_wins"}, "ours"),
        ({"conflict_id": 2, "fields": {"description": "remote"}}, "theirs 1"),
        ({"conflict_ids": [3], "data": {"name": "mine", "description": "my own"}}, "my own"),
    ]
    for number, (body, description) in enumerate(ways):
        (skill_id,) = conflict(machine, number)
        if "data" in body:
            body["data"]["skill_id"] = skill_id
        answer = server.admin("POST", "resolve", json=body)
        assert (answer.status_code, answer.json()["total"]) == (200, 1)
        assert machine.cached()[skill_id]["description"] == description


def log_conflicts(machine: Machine, *severities: str) -> None:
    for number, severity in enumerate(severities):
        machine.sql(
            "INSERT INTO conflict_log (skill_id, conflict_type, severity, local_data, remote_data) "
            "VALUES (?, 'OTHER', ?, '{}', '{}')",
            f"skill {number}",
            severity,
        )


def test_conflicts_are_filtered_and_shown_by_page(machine: Machine, server: Served) -> None:
    log_conflicts(machine, "LOW", "HIGH", "LOW")
    machine.sql("UPDATE conflict_log SET resolved = TRUE, resolved_at = '2026-02-19' WHERE skill_id = 'skill 2'")

    def shown(query: str) -> tuple[list[str], int]:
        found = server.admin("GET", f"conflicts?{query}").json()
        return [each["skill_id"] for each in found["conflicts"]], found["total"]

    assert shown("") == (["skill 1", "skill 0"], 2)
    assert shown("page=2&page_size=1") == (["skill 0"], 2)
    assert shown("page=3&page_size=1") == ([], 2)
    assert shown("severity=low&conflict_type=OTHER&status=unresolved") == (["skill 0"], 1)
    assert shown("status=resolved") == (["skill 2"], 1)
    assert server.admin("GET", "conflicts?page=2&page_size=1").json().items() >= {"page": 2, "page_size": 1}.items()


def test_a_query_that_a_route_does_not_take_is_refused(unchanged: Served) -> None:
    for method, route in ROUTES[:-1]:
        answer = unchanged.admin(method, f"{route}?dry_run=true")
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "usage"), route
        assert "'dry_run'" in answer.json()["error"]["message"]
    assert unchanged.admin("GET", "jobs").json()["stopped"] is False


def test_conflicts_are_resolved_in_bulk(machine: Machine, server: Served) -> None:
    skill_ids = conflict(machine, 0, 1, 2)
    for query, body in [("", [1]), ("?strategy=mine", [1]), ("?strategy=merge", []), ("?strategy=merge", 1)]:
        assert server.admin("POST", f"conflicts/bulk-resolve{query}", json=body).status_code == 400, (query, body)
    listed = server.admin("POST", "conflicts/bulk-resolve?strategy=remote_wins", json=[1])
    assert (listed.status_code, listed.json()["total"]) == (200, 1)
    named = server.admin("POST", "conflicts/bulk-resolve", json={"conflict_ids": [2], "strategy": "local_wins"})
    assert (named.status_code, named.json()["resolved"][0]["strategy"]) == (200, "local_wins")
    alone = server.admin("POST", "conflicts/3/resolve?strategy=merge")
    assert (alone.status_code, alone.json()["resolved"][0]["strategy"]) == (200, "merge")
    resolved = dict(machine.sql("SELECT skill_id, resolution_strategy FROM conflict_log WHERE resolved = TRUE"))
    assert sorted(resolved) == sorted(skill_ids)
    for skill_id, strategy in resolved.items():
        ours = machine.cached()[skill_id]["description"] == "ours"
        assert strategy == "merge" or ours is (strategy == "local_wins"), strategy  # a merge takes the newer one


def test_requests_that_make_no_sense_change_nothing(machine: Machine, server: Served) -> None:
    (skill_id,) = conflict(machine, 0)
    for body in (
        b"no json",
        b"[]",
        b"{}",
        b'{"conflict_id": "1", "strategy": "merge"}',
        b'{"conflict_id": 99, "strategy": "merge"}',
        b'{"conflict_ids": [true], "strategy": "merge"}',
        b'{"conflict_ids": [99999999999999999999999], "strategy": "merge"}',
        b'{"conflict_ids": [1, 99], "strategy": "merge"}',
        b'{"conflict_id": 1, "strategy": "mine"}',
        b'{"conflict_id": 1, "strategy": ["merge"]}',
        b'{"conflict_id": 1, "strategy": "manual"}',
        b'{"conflict_id": 1, "fields": {"code": "mine"}}',
        b'{"conflict_id": 1, "fields": {"code": ["local"]}}',
        b'{"conflict_id": 1, "data": "text"}',
        b'{"conflict_id": 1, "data": {"skill_id": "%b", "name": "half: \\ud83d"}}' % skill_id.encode(),
        b'{"conflict_id": 1, "data": {"skill_id": "%b", "name": "caf\xe9"}}' % skill_id.encode(),
        b'{"conflict_id": 1, "data": {"skill_id": "%b", "name": "N", "weight": NaN}}' % skill_id.encode(),
        b"[" * 100_000,
        b"\xff\xfe",
    ):
        answer = server.admin("POST", "resolve", content=body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "usage"), body[:80]
    assert machine.sql("SELECT resolved FROM conflict_log") == [(0,)]


def test_unknown_resources_are_404_and_limits_are_checked(unchanged: Served) -> None:
    for route in ("conflicts/99", "conflicts/99999999999999999999999", "conflicts/x"):
        assert unchanged.admin("GET", route).status_code == 404, route
    for limit in ("0", "-1", "1001", "x", "٣", ""):
        assert unchanged.admin("GET", f"conflicts?limit={limit}").status_code == 400, limit


def test_a_busy_database_is_503(machine: Machine, server: Served) -> None:
    routes = [("DELETE", "jobs"), ("POST", "jobs"), ("DELETE", "cache/expired"), ("POST", "skills")]
    with machine.database.writing(), ThreadPoolExecutor(len(routes)) as threads:
        answers = list(threads.map(lambda route: server.admin(*route), routes))
    for (method, route), answer in zip(routes, answers, strict=True):
        assert answer.status_code == 503, (method, route)
        assert answer.json()["error"]["type"] == "database"


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/api/admin/status", "/api/admin/sync/status"),
        ("/api/admin/sync/failed-uploads", "/api/admin/sync/ratings/failed-uploads"),
        ("/api/admin/sync/conflicts/x", "/api/admin/sync/conflicts/{id}"),
        ("/api/admin/sync/conflict/7", "/api/admin/sync/conflicts/{id}"),
        ("/api/admin/conflicts/7/resolve/", "/api/admin/sync/conflicts/{id}/resolve"),
        ("/api/admin/sync/cache/purge", "/api/admin/sync/cache/expired"),
    ],
)
def test_a_wrong_path_of_the_admin_api_names_the_right_one(unchanged: Served, path: str, right: str) -> None:
    answer = unchanged.request("GET", path, token=ADMIN_TOKEN)
    assert answer.status_code == 404
    assert answer.json()["error"]["hint"] == f"use {right}"
    assert unchanged.request("GET", path).status_code == 401


def test_a_wrong_method_names_the_right_ones(unchanged: Served) -> None:
    answer = unchanged.admin("PUT", "jobs")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, POST"
    assert answer.json()["error"]["hint"] == "use DELETE, GET, HEAD, POST"


def test_failed_ratings_are_seen_and_tried_again(machine: Machine, server: Served) -> None:
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES ('s', 'u', 5)")
    machine.sql(
        "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at) "
        "VALUES (1, 'refused', '2026-02-19T12:00:00Z')"
    )
    failed = server.admin("GET", "ratings/failed-uploads").json()
    assert (failed["total"], failed["failed"][0]["error_message"]) == (1, "refused")
    assert server.admin("GET", "ratings/status").json()["failed"] == 1
    assert server.admin("POST", "ratings/failed-uploads/1/retry").json()["status"] == "pending"
    assert server.admin("POST", "ratings/failed-uploads/1/retry").status_code == 404
    assert server.admin("GET", "ratings/status").json()["pending"] == 1


def test_the_websocket_is_switched_off_and_on(machine: Machine, server: Served) -> None:
    shown = server.admin("GET", "websocket/status").json()["websocket"]
    assert (shown["enabled"], shown["configured"], shown["running"], shown["connected"]) == (True, True, False, False)
    machine.sql("UPDATE websocket_state SET reconnect_attempts = 4, fallback_to_polling = TRUE")
    assert server.admin("POST", "websocket/reconnect").status_code == 200
    columns = "SELECT websocket_enabled, reconnect_attempts, fallback_to_polling FROM websocket_state"
    assert machine.sql(columns) == [(1, 0, 0)]
    off = server.admin("POST", "websocket/disable")
    assert (off.status_code, off.json()["success"], off.json()["websocket"]["enabled"]) == (200, True, False)
    assert server.admin("POST", "websocket/reconnect").status_code == 409
    assert server.admin("POST", "websocket/enable").json()["websocket"]["enabled"] is True
    assert [action for (action,) in machine.sql("SELECT action FROM audit_log ORDER BY id")] == [
        "websocket reconnect",
        "websocket disable",
        "websocket enable",
    ]


def test_expired_entries_are_removed(machine: Machine, server: Served) -> None:
    machine.sql("UPDATE skill_cache SET expires_at = '2020-01-01T00:00:00Z' WHERE id = 1")
    answer = server.admin("DELETE", "cache/expired").json()
    assert (answer["success"], answer["skills_removed"]) == (True, 1)


# A child that does not end when it is told to. It waits for nothing: it is to be killed.
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def test_syncs_that_do_not_end_are_killed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(pid: int, _since: datetime) -> int | None:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        (ignored,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:"))
        return pid if ignored >> signal.SIGTERM - 1 & 1 else None

    monkeypatch.setattr("atom_saas_sync.web.jobs.STOP_SECONDS", 2.0)
    jobs = Jobs([sys.executable, "-c", STUBBORN], find, lambda: datetime.now(UTC))
    for _ in range(5):
        jobs.start("skills")
    began = time.monotonic()
    jobs.stop()
    assert time.monotonic() - began < 7, "2 s for each"
