"""Ways in for other users of the machine and for pages in its browsers."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine, wait_until
from web_support import ADMIN_TOKEN, served

from atom_saas_sync.web.guard import MOST_WRONG_TOKENS, Guard

_LOOT = "import pathlib; pathlib.Path({loot!r}).write_text('run')"


@pytest.mark.sqlite("a path to its file that is not absolute")
def test_a_sync_of_the_admin_api_runs_nothing_from_the_working_directory(machine: Machine, tmp_path: Path) -> None:
    loot = tmp_path / "loot"
    (machine.directory / "token").write_text(machine.sandbox.token, encoding="utf-8")
    (machine.directory / "token").chmod(0o600)
    own = {"ATOM_SAAS_API_TOKEN": "", "ATOM_SAAS_API_TOKEN_FILE": "token", "ATOM_SAAS_DATABASE_URL": "atom.db"}
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN, **own) as server:
        for name in ("typer.py", "runpy.py", "httpx.py", "atom_saas_sync.py"):
            (machine.directory / name).write_text(_LOOT.format(loot=str(loot)), encoding="utf-8")
        (machine.directory / ".env").write_text("ATOM_SAAS_CONFLICT_STRATEGY=nonsense\n", encoding="utf-8")
        assert server.admin("POST", "skills").status_code == 202
        wait_until(machine.database.exists)
        wait_until(lambda: machine.sql("SELECT count(*) FROM skill_cache")[0][0] == len(machine.sandbox.skill_ids()))
    assert not loot.exists()


def test_a_sync_of_the_admin_api_starts_in_the_root_directory_and_looks_for_no_env_file(machine: Machine) -> None:
    machine.sandbox.fault("hang", endpoint="list")
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN) as server:
        started = server.admin("POST", "skills")
        assert started.status_code == 202
        ((pid,),) = machine.sql("SELECT pid FROM sync_run WHERE finished_at IS NULL AND kind = 'skills'")
        child = Path("/proc") / str(pid)
        assert (child / "cwd").readlink() == Path("/")
        command = (child / "cmdline").read_bytes()
        assert b"--no-env-file" in command.split(b"\0")
        assert machine.sandbox.token.encode() not in command


@pytest.mark.parametrize("unit", [{}, {"PYTHONSAFEPATH": "1"}])
def test_python_dash_m_imports_nothing_from_the_working_directory(machine: Machine, unit: dict[str, str]) -> None:
    loot = machine.directory / "loot"
    for name in ("typer.py", "resource.py"):
        (machine.directory / name).write_text(_LOOT.format(loot=str(loot)), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "atom_saas_sync", "--version"],
        env=machine.environment(**unit),
        cwd=machine.directory,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, loot.exists()) == (0, False), result.stderr


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="nothing may leave one here")
def test_no_process_leaves_a_core(machine: Machine) -> None:
    result = machine.python(
        "import resource, runpy, sys\n"
        "most = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (most, most))\n"
        "sys.argv = ['atom-sync', 'config', 'check']\n"
        "try: runpy.run_module('atom_saas_sync', run_name='__main__')\n"
        "finally: print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "0"), result.stderr


def test_a_database_of_another_marketplace_is_a_conflict(machine: Machine) -> None:
    assert machine.command("sync", "skills").returncode == 0
    other = {"ATOM_SAAS_API_URL": "https://other.example", "ATOM_SAAS_WS_ENABLED": "false"}
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN, **other) as server:
        answer = server.admin("POST", "skills")
        assert answer.status_code == 409
        assert answer.json()["error"]["type"] == "wrong_marketplace"
        assert "db rebind https://other.example" in answer.json()["error"]["hint"]


def _ask(
    guarded: Guard,
    host: str,
    *,
    path: str = "/health/live",
    token: str | None = None,
    server: str,
    client: str = "127.0.0.1",
) -> Any:
    headers = [(b"host", host.encode())]
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    scope = {
        "type": "http",
        "method": "GET",
        "http_version": "1.1",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "server": (server, 8000),
        "client": (client, 1),
    }

    async def ask() -> int:
        statuses: list[int] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        await guarded(scope, receive, send)
        return statuses[0]

    return ask()


async def _answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.mark.parametrize(
    ("server", "host", "status"),
    [
        ("127.0.0.1", "evil.example", 421),
        ("127.0.0.1", "127.0.0.1.evil.example:8000", 421),
        ("127.0.0.1", "localhost.evil.example", 421),
        ("::1", "EVIL.example:8000", 421),
        ("127.0.0.1", "evil.example.", 421),
        ("127.0.0.1", "[::1].evil.example", 421),
        ("127.0.0.1", "[evil.example]", 421),
        ("127.0.0.1", "127.0.0.1@evil.example", 421),
        ("127.0.0.1", "evil%2Eexample", 421),
        ("127.0.0.1", "localhost:8000.evil.example", 421),
        ("127.0.0.1", "", 200),
        ("127.0.0.1", "atom_sync:8000", 200),
        ("127.0.0.1", "a.localhost", 200),
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("127.0.0.1", "localhost:8000", 200),
        ("::1", "[::1]:8000", 200),
        ("192.0.2.7", "atom.example:8000", 200),
    ],
)
def test_no_domain_may_name_our_loopback(server: str, host: str, status: int) -> None:
    guarded = Guard(_answer, admin_token=ADMIN_TOKEN)
    for path, right in (("/health/live", status), ("/api/admin/sync/status", status)):
        assert asyncio.run(_ask(guarded, host, path=path, token=ADMIN_TOKEN, server=server)) == right


def test_wrong_tokens_are_slow_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = Guard(_answer, admin_token=ADMIN_TOKEN)
    slept: list[float] = []
    pause = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await pause(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def try_many() -> list[int]:
        tries = [
            _ask(guarded, "localhost", path="/api/admin/sync/status", token=f"wrong-{n}", server="127.0.0.1")
            for n in range(30)
        ]
        return list(await asyncio.gather(*tries))

    statuses = asyncio.run(try_many())
    assert statuses.count(401) == len(slept) == 10
    assert statuses.count(429) == 20
    assert min(slept) >= 0.2
    right = _ask(guarded, "localhost", path="/api/admin/sync/status", token=ADMIN_TOKEN, server="127.0.0.1")
    assert asyncio.run(right) == 200
    assert len(slept) == 10


def test_wrong_tokens_of_one_address_lock_out_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = Guard(_answer, admin_token=ADMIN_TOKEN)
    tried, waiting, pause = asyncio.Event(), 0, asyncio.Event()

    async def sleep(_seconds: float) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == MOST_WRONG_TOKENS:
            tried.set()
        await pause.wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)

    def ask(client: str, token: str) -> Any:
        return _ask(guarded, "host", path="/api/admin/sync", token=token, server="192.0.2.1", client=client)

    async def try_both() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            wrong = [group.create_task(ask("192.0.2.6", f"wrong-{n}")) for n in range(MOST_WRONG_TOKENS)]
            await tried.wait()
            assert await ask("192.0.2.6", ADMIN_TOKEN) == 429
            assert await ask("192.0.2.7", ADMIN_TOKEN) == 200
            pause.set()
        assert {task.result() for task in wrong} == {401}
        assert await ask("192.0.2.6", ADMIN_TOKEN) == 200

    asyncio.run(try_both())
