"""The public routes, field for field as in the deployment guide."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from asgi_support import serving
from conftest import Machine, wait_until
from prometheus_client.parser import text_string_to_metric_families
from web_support import ADMIN_TOKEN, Served, served, serving_a_full_cache

from atom_saas_sync.config import load_settings
from atom_saas_sync.model import WATCH_LOCK
from atom_saas_sync.times import format_time
from atom_saas_sync.web.app import create_app
from atom_saas_sync.web.jobs import Jobs


@pytest.fixture
def server(machine: Machine) -> Iterator[Served]:
    with serving_a_full_cache(machine) as server:
        yield server


def test_the_routes_have_the_fields_of_the_guide(server: Served) -> None:
    live = server.get("/health/live")
    assert (live.status_code, live.json().keys()) == (200, {"status", "timestamp"})
    assert live.json()["status"] == "healthy"
    ready = server.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json().keys() == {"status", "database", "disk_space_gb", "migrations_applied"}
    assert (ready.json()["status"], ready.json()["database"], ready.json()["migrations_applied"]) == (
        "ready",
        "connected",
        True,
    )
    sync = server.get("/health/sync")
    assert sync.status_code == 200
    assert sync.json()["status"] == "healthy"
    assert {"last_sync_at", "minutes_since_last_sync"} <= sync.json()["sync"].keys()
    assert sync.json()["websocket"] == {"connected": False, "last_message_at": None}
    metrics = server.get("/metrics/sync")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "atom_saas_cache_size" in {family.name for family in text_string_to_metric_families(metrics.text)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE sync_run SET finished_at = '2026-02-19T12:00:00Z'", "sync_stale"),
        ("UPDATE sync_run SET status = 'failed', error_type = 'timeout'", "sync_failed"),
        (
            "UPDATE websocket_state SET connected = TRUE, heartbeat_at = current_timestamp",
            "watch_gone",
        ),
    ],
)
def test_sync_health_is_503_with_its_reason(machine: Machine, server: Served, change: str, reason: str) -> None:
    machine.sql(change)
    answer = server.get("/health/sync")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == [reason]
    assert server.get("/health/ready").status_code == 200
    assert server.get("/health/live").status_code == 200


@pytest.mark.sqlite("migrations of older versions")
def test_readiness_is_503_with_reasons_and_liveness_is_not(machine: Machine, server: Served) -> None:
    machine.sql("DELETE FROM _sqlite_migrations WHERE name = (SELECT max(name) FROM _sqlite_migrations)")
    answer = server.get("/health/ready")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["migrations_pending"])
    assert answer.json()["migrations_applied"] is False
    for path in machine.directory.glob("atom.db*"):
        path.unlink()
    gone = server.get("/health/ready").json()
    assert (gone["database"], gone["migrations_applied"], gone["reasons"]) == ("unavailable", False, ["database"])
    machine.database_path.touch()
    assert server.get("/health/ready").json()["reasons"] == ["migrations_pending"]
    machine.database_path.write_text("no database at all" * 100, encoding="utf-8")
    for route in ("/health/ready", "/health/sync", "/metrics/sync", "/"):
        answer = server.get(route)
        assert answer.status_code == 503, route
        assert str(machine.directory) not in answer.text, route
    assert server.get("/health/ready").json()["database"] == "unavailable"
    assert server.get("/health/live").status_code == 200


@pytest.mark.sqlite("the free disk of a server is unknown")
def test_a_short_disk_is_not_ready(machine: Machine) -> None:
    with served(machine, ATOM_SYNC_MIN_FREE_DISK_GB="10000") as server:
        answer = server.get("/health/ready")
        # Nothing has made a database yet, and a server makes none.
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["database", "disk_space"])
        assert server.get("/health/sync").json()["reasons"] == ["never_synced"]


def test_probes_answer_while_another_program_holds_the_database(machine: Machine, server: Served) -> None:
    with machine.database.writing("UPDATE sync_run SET status = 'failed'"):
        for route in ("/health/ready", "/health/sync", "/metrics/sync"):
            assert server.get(route).status_code == 200


def test_liveness_waits_for_no_other_request(tmp_path: Path) -> None:
    blocked, gate = threading.Semaphore(0), threading.Event()

    def now() -> datetime:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # in a thread, where every route works that reads the database
            blocked.release()
            gate.wait(60)
        return datetime.now(UTC)

    settings = load_settings({"ATOM_SAAS_DATABASE_URL": str(tmp_path / "atom.db")}, working_directory=tmp_path)
    app = create_app(settings, Jobs([], lambda _pid, _since: None, now), now)
    with serving(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        others = [threading.Thread(target=client.get, args=("/health/sync",)) for _ in range(60)]
        for each in others:
            each.start()
        try:
            for _ in range(40):  # as many as there are threads
                assert blocked.acquire(timeout=60)
            assert client.get("/health/live").status_code == 200
        finally:
            gate.set()
            for each in others:
                each.join()


def test_every_answer_is_guarded(server: Served) -> None:
    for route in ("/", "/health/live", "/metrics/sync", "/api/admin/sync/status", "/nowhere"):
        headers = server.get(route).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "server" not in headers
    assert server.request("POST", "/health/live").status_code == 405


def test_oversized_requests_are_refused(server: Served) -> None:
    assert server.admin("POST", "resolve", content=b" " * (1024 * 1024 + 1)).status_code == 413
    chunks = (b" " * 65536 for _ in range(40))
    assert server.admin("POST", "resolve", content=chunks).status_code == 413
    assert server.get(f"/health/live?{'x' * 3000}").status_code == 414
    assert server.client.get("/health/live", headers={"X-Large": "x" * 20_000}).status_code == 431
    # A head that never ends is refused before its time is over.
    with socket.create_connection((server.client.base_url.host, server.client.base_url.port or 0), 5) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nX-Endless: " + b"x" * 40_000)
        assert connection.recv(1024).startswith(b"HTTP/1.1 400 ")


class Page(HTMLParser):
    """Notes what an HTML page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_is_plain_html_that_says_how_it_is(machine: Machine, server: Served) -> None:
    answer = server.get("/")
    assert answer.status_code == 200
    assert "Healthy" in answer.text
    assert "<dd>policy open; 0 waiting; 0 in quarantine</dd>" in answer.text
    page = Page()
    page.feed(answer.text)
    assert {"main", "h1", "h2", "dl", "table", "caption", "th"} <= set(page.tags)
    assert not {"script", "img", "link", "iframe", "form"} & set(page.tags)
    assert ("lang", "en") in page.attributes
    assert all(not urlsplit(value or "").netloc for name, value in page.attributes if name in {"src", "href"})
    # The one style sheet is the one that the policy allows.
    assert answer.headers["content-security-policy"].count("sha256-") == 1
    machine.sql(
        "UPDATE sync_run SET status = 'failed', error_type = '<script>', "
        "error_message = '<script>alert(1)</script> at_saas_secret /some/path'"
    )
    unhealthy = server.get("/").text
    assert "Unhealthy" in unhealthy
    assert "<code>atom-sync doctor</code>" in unhealthy
    assert "<script>" not in unhealthy
    assert "/some/path" not in unhealthy


def test_public_routes_reveal_no_paths_or_secrets(machine: Machine, server: Served) -> None:
    """Also after failures, when the database contains names of files and skills, and texts of others."""
    name, skill = next(iter(machine.cached().items()))
    secrets = (str(machine.directory), machine.database.url, ADMIN_TOKEN, machine.sandbox.token, name)

    def look(*statuses: int) -> None:
        for route in ("/", "/health/live", "/health/ready", "/health/sync", "/metrics/sync"):
            answer = server.get(route)
            told = answer.text + str(answer.headers)
            assert not [secret for secret in (*secrets, skill["name"]) if secret in told], (route, told)
            assert answer.status_code in statuses, route

    look(200)
    machine.sql("UPDATE sync_run SET status = 'failed', error_type = 'x', error_message = ?", " ".join(secrets))
    machine.sql(
        "UPDATE websocket_state SET websocket_enabled = TRUE, heartbeat_at = ?, ws_url = ?2, disconnect_reason = ?2",
        format_time(datetime.now(UTC)),
        " ".join(secrets),
    )
    with machine.running(WATCH_LOCK):
        look(200, 503)
    machine.database.spoil()
    look(200, 503)
    machine.database.remove()
    look(200, 503)


@pytest.mark.parametrize(
    ("paths", "right"),
    [
        (("/live", "/livez", "/Health/Live", "/health/live/", "/ping", "/k8s/liveness"), "/health/live"),
        (("/ready", "/readyz", "/health/readyz", "//health//ready", "/-/ready", "/startupz"), "/health/ready"),
        (("/metrics", "/metrics/", "/health/metrics", "/metrics/prometheus"), "/metrics/sync"),
        (("/health", "/healthz", "/api/health", "/-/healthy", "/health-check"), "/health/sync"),
        (("/status", "/admin/sync/status"), "/api/admin/sync/status"),
        (("/nothing/of/the/kind", "/favicon.ico", "/%00", "/x" * 900), "/metrics/sync"),
    ],
)
def test_a_path_that_does_not_exist_names_the_right_one(server: Served, paths: tuple[str, ...], right: str) -> None:
    for path in paths:
        answer = server.get(path)
        assert (answer.status_code, answer.json()["success"]) == (404, False), path
        assert right in answer.json()["error"]["hint"], path


def test_sighup_does_not_end_it(machine: Machine) -> None:
    with served(machine) as server:
        assert server.get("/health/live").status_code == 200, "it has started"
        for _ in range(3):
            server.send_signal(signal.SIGHUP)
        assert server.get("/health/live").status_code == 200
    assert "ignored SIGHUP: restart `serve-health`" in server.log


def test_the_access_log_has_no_secrets_and_no_probes(machine: Machine) -> None:
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN) as server:
        server.get("/health/live?token=at_saas_in_the_query")
        server.get("/nowhere?token=at_saas_in_the_query")
        server.get("/api/admin/sync/config", token=ADMIN_TOKEN)
        server.get("/api/admin/sync/config", token="wrong-guess")
        server.get("/%0aevil")
    assert "GET /nowhere 404" in server.log
    assert "GET /%0aevil 404" in server.log
    assert "/health/live" not in server.log
    for secret in ("at_saas_in_the_query", ADMIN_TOKEN, "wrong-guess"):
        assert secret not in server.log


def test_a_port_in_use_is_reported_in_one_line(machine: Machine, server: Served) -> None:
    port = str(server.client.base_url.port)
    result = machine.command("serve-health", "--port", port)
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use\n" in result.stderr
    assert "Traceback" not in result.stderr


def test_it_listens_on_loopback_by_default(server: Served) -> None:
    assert server.client.base_url.host == "127.0.0.1"
    assert os.environ.get("ATOM_SYNC_HOST") is None


def test_garbage_is_collected_as_often_as_usual(tmp_path: Path) -> None:
    """Each request leaves a little; with the limit of commands that soon end, thousands of scrapes would add up."""
    code = (
        "import gc, sys\nfrom atom_saas_sync.web import server\nfrom atom_saas_sync.__main__ import start\n"
        "server.serve = lambda *_: print(gc.get_threshold()[0])\n"
        "sys.argv = ['atom-sync', 'serve-health', '--port', '0']\nstart()"
    )
    environment = {"ATOM_SAAS_DATABASE_URL": str(tmp_path / "atom.db")}
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environment, cwd=tmp_path, text=True, timeout=60) == "700\n"


@pytest.mark.postgresql
def test_it_ends_in_time_while_a_reading_of_a_frozen_server_hangs(machine: Machine) -> None:
    assert machine.command("sync", "skills").returncode == 0
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    frozen: list[int] = []

    def ask(server: Served) -> None:
        with suppress(httpx.HTTPError):
            server.get("/health/sync")

    try:
        with served(machine, first="from atom_saas_sync.web import server; server._GRACE_SECONDS = 1") as server:
            with machine.database.transaction() as execute:
                execute("LOCK TABLE sync_run IN ACCESS EXCLUSIVE MODE")
                asking = threading.Thread(target=ask, args=(server,))
                asking.start()
                wait_until(lambda: machine.sql(waiting))
                ((pid,),) = machine.sql(waiting)
                os.kill(pid, signal.SIGSTOP)
                frozen.append(pid)
            assert server.get("/health/live").status_code == 200
            told = time.monotonic()
        assert time.monotonic() - told < 30, "systemd would kill it"
        asking.join(60)
    finally:
        for each in frozen:
            os.kill(each, signal.SIGCONT)
