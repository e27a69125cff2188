"""`serve-health` as the real command on a real socket."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from conftest import Machine
from loaded_command import Forked

ADMIN_TOKEN = "open-sesame-of-the-tests"


class Served:
    """A running server and its log so far."""

    def __init__(self, client: httpx.Client, process: Forked) -> None:
        self.client = client
        self.send_signal = process.send_signal
        self.log = ""

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        return self.request("GET", path, token=token)

    def request(self, method: str, path: str, *, token: str | None = None, **options: object) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.client.request(method, path, headers=headers, **options)  # type: ignore[arg-type]

    def admin(self, method: str, path: str, **options: object) -> httpx.Response:
        return self.request(method, f"/api/admin/sync/{path}", token=ADMIN_TOKEN, **options)


@contextmanager
def served(machine: Machine, **variables: str) -> Iterator[Served]:
    """Run the server; after the block it must stop promptly and successfully."""
    with machine.started("serve-health", "--port", "0", **variables) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not (found := re.search(r"serving on (http://\S+);", line := process.stderr.readline())):
            assert line, f"it ended: {lines}"
            lines.append(line)
        # The log must be read: a server that can't write it blocks.
        reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        reader.start()
        with httpx.Client(base_url=found[1], timeout=60) as client:
            server = Served(client, process)
            yield server
        process.terminate()
        reader.join(60)
        server.log = "".join(lines)
        assert process.wait(60) == 0


@contextmanager
def serving_a_full_cache(machine: Machine) -> Iterator[Served]:
    """Run a server with an admin token and a cache that was just filled."""
    machine.sandbox.set_clock_offset(0)
    assert machine.command("sync", "skills").returncode == 0
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN) as server:
        yield server
