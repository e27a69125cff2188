"""`serve-health` against hostile clients: other users of the machine, and pages in an operator's browser."""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from conftest import Machine, wait_until
from loaded_command import start_command
from web_support import ADMIN_TOKEN, Served, serving_a_full_cache

ADMIN = "/api/admin/sync"

# What a test can wait for; what it does is the same.
IN_A_HURRY = """
import atom_saas_sync.web.guard as guard
import atom_saas_sync.web.server as server
server._HEADER_SECONDS = server._READING_SECONDS = guard._BODY_SECONDS = {seconds}
server._LOOK_SECONDS = 0.1
"""


@pytest.fixture
def server(machine: Machine) -> Iterator[Served]:
    with serving_a_full_cache(machine) as server:
        yield server


@contextmanager
def impatient(machine: Machine, seconds: float = 0.3, log: list[str] | None = None) -> Iterator[tuple[str, int]]:
    """Run a server with this timeout for its clients; its log is added to `log` at the end."""
    process = start_command(
        *("serve-health", "--port", "0"),
        environment=machine.environment(ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN),
        directory=machine.directory,
        first=IN_A_HURRY.format(seconds=seconds),
    )
    assert process.stderr is not None
    try:
        while not (found := re.search(r"serving on http://(\S+):(\d+);", line := process.stderr.readline())):
            assert line, "it ended"
        # The log must be read: a server that can't write it blocks.
        lines: list[str] = [] if log is None else log
        reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        reader.start()
        yield found[1], int(found[2])
        process.terminate()
        reader.join(60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0


def ask(address: tuple[str, int], request: bytes) -> bytes:
    """Send these bytes, and return the response until the server closes the connection."""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_a_silent_or_incomplete_client_is_disconnected(machine: Machine) -> None:
    with impatient(machine) as address:
        assert ask(address, b"") == b""
        assert ask(address, b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            while b"}" not in connection.recv(65536):
                pass
            connection.sendall(b"GET /hea")
            assert connection.recv(65536) == b""


def test_a_slow_body_is_408(machine: Machine) -> None:
    head = f"POST {ADMIN}/resolve HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nConnection: close\r\n"
    with impatient(machine) as address:
        for rest in (b'Content-Length: 90\r\n\r\n{"all": ', b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"):
            assert ask(address, head.encode() + rest).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("rest", [b'Content-Length: 90\r\n\r\n{"all": ', b"Transfer-Encoding: chunked\r\n\r\n-5\r\n"])
def test_a_client_that_leaves_within_its_body_leaves_no_traceback(machine: Machine, rest: bytes) -> None:
    log: list[str] = []
    head = f"POST {ADMIN}/resolve HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n"
    with impatient(machine, 60, log) as address:
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(head.encode() + rest)
        wait_until(lambda: any("/resolve 400" in line for line in log))
    assert not [line for line in log if "Traceback" in line or "Exception" in line], log


LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def ended(connection: socket.socket) -> bool:
    """Tell whether the other side has ended the connection, and read what it has sent."""
    connection.setblocking(False)
    try:
        return connection.recv(1024) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_many_slow_connections_do_not_silence_it(machine: Machine) -> None:
    with impatient(machine) as address, ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(250)]
        for each in slow:
            with suppress(ConnectionError):  # some are closed already: there are too many
                each.send(b"GET / HTTP/1.1\r\n")
        # Each is closed in its time; then there is room again.
        wait_until(lambda: all(map(ended, slow)), 60)
        assert ask(address, LIVE).startswith(b"HTTP/1.1 200")


def test_beyond_two_hundred_connections_of_many_addresses_newcomers_are_let_in(machine: Machine) -> None:
    with impatient(machine, 60) as address, ExitStack() as stack:
        for number in range(250):
            source = (f"127.0.0.{2 + number // 15}", 0)
            stack.enter_context(socket.create_connection(address, timeout=60, source_address=source))
        assert ask(address, LIVE).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("request_line", [b"", b"GET / HTTP/1.1\r\n"], ids=["silent", "half a head"])
def test_an_address_has_twenty_connections_and_probes_still_get_through(machine: Machine, request_line: bytes) -> None:
    """All come from one address, as behind a proxy; only their number limits them."""
    with impatient(machine, 3600) as address, ExitStack() as stack:
        silent = []
        for _ in range(10):
            silent += [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(30)]
            for each in silent[-30:]:
                each.sendall(request_line)
            assert ask(address, LIVE).startswith(b"HTTP/1.1 200")
        wait_until(lambda: sum(not ended(each) for each in silent) <= 20, 60)
        assert ask(address, LIVE).startswith(b"HTTP/1.1 200")


def deaf(address: tuple[str, int], path: str) -> socket.socket:
    """Send requests continuously without reading the responses."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(60)
    connection.connect(address)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 400)
    return connection


@pytest.mark.parametrize("path", ["/metrics/sync", "/health/sync"])
def test_a_client_that_reads_nothing_is_disconnected(machine: Machine, path: str) -> None:
    log: list[str] = []
    with impatient(machine, log=log) as address, ExitStack() as stack:
        connections = [stack.enter_context(deaf(address, path)) for _ in range(5)]

        left = set(connections)

        def sent_away() -> bool:
            assert ask(address, LIVE).startswith(b"HTTP/1.1 200")
            # The test must not read either; the system tells, once, that the other side has reset the connection.
            left.difference_update(
                [each for each in left if each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET]
            )
            return not left

        wait_until(sent_away, 300)  # two thousand responses; on a server, each of them opens a connection
    assert any("closed a connection of 127.0.0.1: it does not read the response" in line for line in log)


def test_a_slow_reader_gets_the_whole_response(machine: Machine) -> None:
    patience = 2.0
    with impatient(machine, patience) as address, deaf(address, "/metrics/sync") as slow:
        text, start = b"", time.monotonic()
        # Longer than the server waits for one piece, but never so long between two pieces.
        while text.count(b"HTTP/1.1 200") < 60 or time.monotonic() < start + 1.5 * patience:
            time.sleep(0.02)  # the slowness under test, not a wait for something
            text += slow.recv(2048)
    assert b"HTTP/1.1 503" not in text


PATHS = (
    "//api/admin/sync/status",
    "/api//admin/sync/status",
    "/api/admin//sync/status",
    "/api/%61dmin/sync/status",
    "/%61%70%69/admin/sync/status",
    "/api/admin/sync/%73tatus",
    "/health/../api/admin/sync/status",
    "/health/%2e%2e/api/admin/sync/status",
    "/api/admin/sync/status/",
    "/API/ADMIN/sync/status",
    "/api/admin%2fsync/status",
    "/api/admin/sync/status%00",
    "/api/admin/sync/status;x=1",
    "/api/admin/sync/status?token=" + ADMIN_TOKEN,
    "/api/admin/sync/config#x",
)


def test_no_spelling_of_a_path_bypasses_the_token(server: Served) -> None:
    for path in PATHS:
        address = (server.client.base_url.host, server.client.base_url.port or 0)
        answer = ask(address, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert re.match(rb"HTTP/1.1 (400|401|404)", answer), answer
        assert b"skills_count" not in answer


def test_no_page_of_another_site_may_use_it(server: Served) -> None:
    """Browsers don't add Authorization on their own, and nothing lets another site's page add it or read responses."""
    from_elsewhere = {"Origin": "https://example.org", "Referer": "https://example.org/"}
    form = {**from_elsewhere, "Content-Type": "application/x-www-form-urlencoded", "Cookie": f"token={ADMIN_TOKEN}"}
    for method, path in (("POST", "skills"), ("DELETE", "jobs"), ("POST", "resolve"), ("DELETE", "cache/expired")):
        answer = server.client.request(method, f"{ADMIN}/{path}", headers=form, content=f"token={ADMIN_TOKEN}")
        assert answer.status_code == 401
    asked = {
        **from_elsewhere,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in (f"{ADMIN}/skills", "/health/sync", "/", "/metrics/sync"):
        for answer in (server.client.options(path, headers=asked), server.client.get(path, headers=from_elsewhere)):
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


HEADS = (
    "Content-Length: 2\r\nContent-Length: 3",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Content-Length: 0\r\ntransfer-encoding: Chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 5",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Content-Length: -1",
    "Content-Length: +2",
    "Content-Length: 2_0",
)


def test_no_request_hides_in_another(server: Served) -> None:
    address = (server.client.base_url.host, server.client.base_url.port or 0)
    hidden = f"GET {ADMIN}/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
    for version in ("1.1", "1.0"):
        for head in HEADS:
            for method, path in (("POST", "/"), ("GET", "/health/live"), ("POST", f"{ADMIN}/resolve")):
                request = f"{method} {path} HTTP/{version}\r\nHost: x\r\n{head}\r\n\r\n0\r\n\r\n{hidden}"
                answer = ask(address, request.encode())
                assert re.match(rb"HTTP/1.1 (400|501) ", answer), (request, answer)
                assert answer.count(b"HTTP/1.1 ") == 1, request
                assert b"connection: close" in answer.lower()
                assert b"skills_count" not in answer
    # The same bytes are a request of their own once the previous request has ended.
    body = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{hidden}"
    assert b"skills_count" in ask(address, body.encode())


QUERIES = (
    "skill_id=' OR 1=1 --",
    "severity=HIGH' UNION SELECT 1",
    "limit=1;DROP TABLE skill_cache",
    "limit=-1",
    "type=%00",
)


def test_queries_are_values_and_no_sql(server: Served, machine: Machine) -> None:
    machine.sql("INSERT INTO conflict_log (skill_id, conflict_type, severity) VALUES ('s', 'OTHER', 'LOW')")
    assert server.admin("GET", "conflicts").json()["total"] == 1
    for query in QUERIES:
        for path in ("conflicts", "ratings/failed-uploads"):
            answer = server.admin("GET", f"{path}?{query}")
            assert answer.status_code in (200, 400)
            if answer.status_code == 200:
                document = answer.json()
                assert document["total"] == 0, document
                assert not document.get("conflicts"), document
        assert len(machine.cached()) == 60
