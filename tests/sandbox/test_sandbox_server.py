"""Start, stop and outages of the sandbox, and its command line."""

from __future__ import annotations

import gc
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from atom_saas_sync.cli.sandbox import app
from atom_saas_sync.errors import AtomSyncError, ConnectionFailed, UsageError
from atom_saas_sync.sandbox import Sandbox

ROOT = Path(__file__).parents[2]


def test_stored_data_survives_an_outage_on_the_same_port() -> None:
    sandbox = Sandbox(skills=3)
    with sandbox:
        url = sandbox.url
        sandbox.put_skill({"skill_id": "kept", "name": "kept"})
        sandbox.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        sandbox.patch_skill("kept", {"name": "changed during the outage"})
        sandbox.start()
        assert sandbox.url == url
        answer = httpx.get(f"{url}/skills/kept", headers={"authorization": f"Bearer {sandbox.token}"})
        assert answer.json()["name"] == "changed during the outage"


def test_stop_is_quick_though_clients_hold_on_and_leaves_no_thread() -> None:
    threads = threading.active_count()
    with Sandbox(skills=3) as sandbox:
        sandbox.fault("hang")
        with socket.create_connection(("127.0.0.1", sandbox.port)) as idle, httpx.Client() as client:
            idle.sendall(b"GET /health HTTP/1.1\r\n")
            with pytest.raises(httpx.ReadTimeout):
                client.get(f"{sandbox.url}/health", timeout=0.05)
            start = time.monotonic()
            sandbox.stop()
            assert time.monotonic() - start < 30
            assert idle.recv(10) == b""
    assert threading.active_count() == threads
    sandbox.stop()


def test_a_taken_port_is_said() -> None:
    with Sandbox(skills=1) as sandbox:
        with pytest.raises(UsageError, match=str(sandbox.port)):
            Sandbox(skills=1, port=sandbox.port).start()
        with pytest.raises(UsageError, match="already"):
            sandbox.start()


def test_commands_that_need_a_running_sandbox_say_so() -> None:
    sandbox = Sandbox(skills=1)
    with pytest.raises(UsageError, match="not run"):
        sandbox.push("x")
    with Sandbox(skills=0) as empty, pytest.raises(UsageError, match="no skill"):
        empty.flood(1)


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start the command itself; yield it and the three lines that it printed."""
    command = [sys.executable, "-c", "from atom_saas_sync.cli.sandbox import app; app()", "--port", "0"]
    options = ["--skills", "7", "--bandwidth-mbit", "0.05", "--fault", "error:endpoint=categories,status=502"]
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as started:
        assert started.stdout is not None
        try:
            yield started, [started.stdout.readline().strip() for _ in range(3)]
        finally:
            started.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(
    process: tuple[subprocess.Popen[str], list[str]], number: signal.Signals
) -> None:
    started, [first, second, third] = process
    url = first.removeprefix("export ATOM_SAAS_API_URL=")
    assert url.startswith("http://127.0.0.1:")
    assert second == "export ATOM_SAAS_API_TOKEN=at_saas_sandbox"
    assert third == f"export ATOM_SAAS_WS_URL={url.replace('http', 'ws')}/ws"
    headers = {"authorization": "Bearer at_saas_sandbox"}
    began = time.monotonic()
    listed = httpx.get(f"{url}/api/v1/skills", headers=headers)
    assert listed.json()["total"] == 7
    assert time.monotonic() - began >= listed.num_bytes_downloaded * 8 / 50_000
    assert httpx.get(f"{url}/api/v1/categories", headers=headers).status_code == 502
    started.send_signal(number)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 0
    assert "not the real marketplace" in err
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_experiments_do_not_touch_the_real_database(tmp_path: Path) -> None:
    """The printed lines are all that a shell needs, and the sandbox's own commands use them."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "atom_saas_sync"]
    with subprocess.Popen(
        [*command, "sandbox", "--port", "0", "--skills", "3", "--token", "at_saas_it's-mine"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env=environment,
    ) as started:
        try:
            assert started.stdout is not None
            exports = "".join(started.stdout.readline() for _ in range(4))
            assert exports.count("export ATOM_SAAS_") == 4
            script = (
                f'{exports}\natom="{shlex.join(command)}"\n$atom sync skills --json && '
                "$atom sandbox push new-one --set name=New && $atom sandbox fault error:status=503,times=1 && "
                "$atom sandbox state --json && $atom db check --json && $atom sandbox fault --clear --json"
            )
            done = subprocess.run(
                ["/bin/sh", "-c", script],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert '"skills_synced": 3' in done.stdout
            assert "new-one" in done.stdout
            (database,) = tmp_path.glob("*/atom.db")
            assert str(database) in exports
            assert database.parent.stat().st_mode & 0o777 == 0o700
        finally:
            started.send_signal(signal.SIGTERM)
    assert started.returncode == 0
    assert not (tmp_path / "data").exists()
    assert database.exists(), "what was synced can still be looked at"


def test_the_settings_of_a_sandbox_as_json(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "atom_saas_sync", "sandbox", "--port", "0", "--skills", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    ) as started:
        assert started.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = started.stdout.readline()
            assert line, "the document is whole"
            text += line
        started.send_signal(signal.SIGTERM)
    settings = json.loads(text)["settings"]
    assert settings.keys() == {f"ATOM_SAAS_{name}" for name in ("API_URL", "API_TOKEN", "WS_URL", "DATABASE_URL")}
    assert list(tmp_path.iterdir()) == [], "a database that nobody used leaves nothing"


def test_no_sandbox_is_looked_for_at_a_real_marketplace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOM_SAAS_API_URL", "https://marketplace.example")
    with pytest.raises(UsageError, match="not a sandbox on this machine"):
        run("state")
    monkeypatch.setenv("ATOM_SAAS_API_URL", "http://127.0.0.1:1")
    with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:1"):
        run("fault", "drop")


def run(*words: str) -> Any:
    result = CliRunner().invoke(app, words)
    if isinstance(result.exception, AtomSyncError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if result.stdout.startswith("{") else result.stdout


def test_a_running_sandbox_can_be_stirred_by_hand() -> None:
    with Sandbox(skills=4) as sandbox:
        url = ["--url", sandbox.url]
        first = sandbox.skill_ids()[0]
        shown = run("push", first, "--set", "name=by hand", "--set", 'tags=["a"]', *url)
        assert (shown["name"], shown["tags"]) == ("by hand", ["a"])
        run("push", "a/b", "--set", "version=1.0", *url)
        assert sandbox.skill("a/b") == {"skill_id": "a/b", "name": "a/b", "version": 1.0}
        run("push", "a/b", "--delete", *url)
        assert "a/b" not in sandbox.skill_ids()
        assert run("flood", "3", *url)["messages"] == 3
        assert run("fault", "drop:times=1", *url)["faults"][0]["kind"] == "drop"
        assert run("fault", "--clear", *url)["faults"] == []
        assert run("state", *url)["skills"] == 4
        with pytest.raises(UsageError, match="refused"):
            run("push", "nobody", "--delete", *url)
    with pytest.raises(ConnectionFailed):
        run("state", *url)


def test_wrong_words_are_refused() -> None:
    with pytest.raises(UsageError, match="FIELD=VALUE"):
        run("push", "a", "--set", "name")
    with pytest.raises(UsageError, match="http"):
        run("state", "--url", "file:///etc/passwd")
    with pytest.raises(UsageError, match="no file"):
        run("--catalogue", "nowhere.jsonl")
    with pytest.raises(UsageError, match="sabotage"):
        run("--fault", "sabotage")
    assert "store_then_drop" in run("fault", "--kinds")


def test_a_sandbox_that_stops_while_clients_connect_leaves_no_socket_open() -> None:
    def connect_until_refused(port: int) -> None:
        with suppress(OSError):
            while True:
                socket.create_connection(("127.0.0.1", port), timeout=60).close()

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        sandbox = Sandbox(skills=1).start()
        clients = [threading.Thread(target=connect_until_refused, args=(sandbox.port,)) for _ in range(2)]
        for each in clients:
            each.start()
        assert sandbox.wait_for(lambda: sandbox.counters()["connections"] >= 3, 60)
        sandbox.stop()
        for each in clients:
            each.join()
        gc.collect()
    assert [str(each.message) for each in found if each.category is ResourceWarning] == []
