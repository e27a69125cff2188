"""The token is in no output, log, database, file, process list or child process, whatever the marketplace does with
it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from conftest import Machine, wait_until
from hostile import EchoingMarketplace, echoing_marketplace
from watch_support import stop, tables_exist, websocket_state
from web_support import ADMIN_TOKEN, served

from atom_saas_sync.errors import BadResponse
from atom_saas_sync.systemd import ask_systemctl

# Unlike real tokens: the known value is masked, not only text that looks like a token.
TOKEN = "3f2b8c1e-9d4a-4c7b-8e21-5a6f7d8c9b0e"
FORMS = {form.encode() for form in (TOKEN, quote(TOKEN, safe=""), quote(TOKEN), quote_plus(TOKEN), json.dumps(TOKEN))}


def holds_token(data: bytes) -> bool:
    return any(form in data for form in FORMS)


def files_with_token(directory: Path) -> list[str]:
    return [
        path.name
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink() and holds_token(path.read_bytes())
    ]


@pytest.fixture(scope="module")
def hostile() -> Iterator[EchoingMarketplace]:
    with echoing_marketplace() as marketplace:
        yield marketplace


@pytest.fixture
def facing(machine: Machine, hostile: EchoingMarketplace) -> dict[str, str]:
    """Return the variables of a synced machine that now uses the malicious marketplace."""
    machine.pull()
    skill_id = next(iter(machine.cached()))
    assert machine.command("ratings", "add", skill_id, "4").returncode == 0
    hostile.seen.clear()
    return {
        "ATOM_SAAS_API_URL": hostile.url,
        "ATOM_SAAS_WS_URL": hostile.ws_url,
        "ATOM_SAAS_API_TOKEN": TOKEN,
    }


@pytest.mark.parametrize(
    ("status", "log_format"),
    list(zip([200, 302, 400, 401, 404, 409, 422, 429, 503], ["text", "json"] * 5, strict=False)),
)
def test_a_response_that_contains_the_token_is_reported_without_it(
    machine: Machine, hostile: EchoingMarketplace, facing: dict[str, str], status: int, log_format: str
) -> None:
    hostile.status = status
    loud = ("--log-level", "debug", "--log-format", log_format)
    for command in (("sync", "skills"), ("sync", "ratings"), ("sync", "skills", "--json"), ("sync", "all", "--json")):
        result = machine.hurried(*loud, *command, "--textfile", "atom.prom", **facing)
        assert result.returncode != 0, result
        assert not holds_token((result.stdout + result.stderr).encode()), result
        assert "Traceback" not in result.stderr
    assert hostile.seen == {TOKEN}
    assert (machine.directory / "atom.prom").exists()
    assert files_with_token(machine.directory) == []


@pytest.mark.parametrize(("status", "reason"), [(101, "no ********  ********"), (401, "(401)"), (500, "with 500")])
def test_a_websocket_that_is_closed_with_the_token_as_reason(
    machine: Machine, hostile: EchoingMarketplace, facing: dict[str, str], status: int, reason: str
) -> None:
    hostile.status = status
    with machine.started("--log-level", "debug", "watch", **facing) as process:
        wait_until(lambda: tables_exist(machine) and websocket_state(machine)["consecutive_failures"] >= 1)
        stored = websocket_state(machine)["disconnect_reason"]
        assert reason in stored and stored.isprintable()
        assert files_with_token(machine.directory) == []
        for command in (("status",), ("status", "--json"), ("metrics",), ("doctor", "--json"), ("config", "show")):
            result = machine.command(*command, **facing)
            assert not holds_token((result.stdout + result.stderr).encode()), result
        logged = stop(process)
    assert TOKEN in hostile.seen
    assert not holds_token(logged.encode())
    assert files_with_token(machine.directory) == []


def test_serve_health_hides_the_token_from_responses_and_children(
    machine: Machine, hostile: EchoingMarketplace, facing: dict[str, str]
) -> None:
    hostile.status = 422
    machine.hurried("sync", "all", **facing)
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN, **facing) as server:
        answers = [server.get(path) for path in ("/", "/health/sync", "/health/ready", "/metrics/sync")]
        answers += [server.admin("GET", path) for path in ("status", "config", "jobs", "ratings/failed-uploads")]
        answers.append(server.admin("POST", "skills"))
        for answer in answers:
            told = answer.content + str(answer.headers).encode()
            assert not holds_token(told), answer.text
            assert ADMIN_TOKEN.encode() not in told
    assert not holds_token(server.log.encode())
    assert ADMIN_TOKEN not in server.log


def test_the_process_list_shows_no_token(machine: Machine, facing: dict[str, str]) -> None:
    with machine.started("watch", **facing) as process:
        wait_until(lambda: tables_exist(machine) and websocket_state(machine)["consecutive_failures"] >= 1)
        pids = [process.pid, *(int(child) for child in children(process.pid))]
        for pid in pids:
            assert not holds_token(Path(f"/proc/{pid}/cmdline").read_bytes())
            assert TOKEN[:12].encode() not in Path(f"/proc/{pid}/comm").read_bytes()  # cut to 15 bytes
        stop(process)


def test_the_user_s_editor_gets_no_token(machine: Machine, facing: dict[str, str], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    editor = tmp_path / "editor"
    lines = (
        "#!/bin/sh",
        f"tr '\\0' '\\n' < /proc/$$/environ > {seen}",
        f'stat --format \'mode %a\' "$(dirname "$1")" >> {seen}',
    )
    editor.write_text("\n".join(lines), encoding="utf-8")
    editor.chmod(0o700)
    skill_id = next(iter(machine.cached()))
    machine.umask = 0
    result = machine.command(
        "skills", "edit", skill_id, EDITOR=str(editor), ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN, **facing
    )
    assert result.returncode == 0, result.stderr
    told = seen.read_text(encoding="utf-8")
    assert "PATH=" in told
    assert "\nmode 700\n" in told
    assert TOKEN not in told
    assert ADMIN_TOKEN not in told
    seen.unlink()


def test_systemctl_gets_no_token(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, systemctl = tmp_path / "seen", tmp_path / "systemctl"
    systemctl.write_text(
        f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ >> {seen}\necho systemd 255\n", encoding="utf-8"
    )
    systemctl.chmod(0o700)
    ours = {"ATOM_SAAS_API_TOKEN": TOKEN, "ATOM_SYNC_ADMIN_TOKEN": ADMIN_TOKEN}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert machine.command("schedule", "systemd", PATH=path, **ours).returncode == 0
    assert "PATH=" in seen.read_text(encoding="utf-8")
    for name, value in {**ours, "PATH": path}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("atom_saas_sync.systemd._BOOTED", tmp_path)
    assert ask_systemctl("list-timers") == "systemd 255\n"
    told = seen.read_text(encoding="utf-8")
    assert told.count("LC_ALL=") >= 1
    assert TOKEN not in told
    assert ADMIN_TOKEN not in told


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()


def test_a_redirect_takes_the_token_nowhere(machine: Machine, hostile: EchoingMarketplace) -> None:
    """Another port, scheme or name of the same machine is a different origin."""
    port = machine.sandbox.url.rsplit(":", 1)[1]
    hostile.seen.clear()
    for number, elsewhere in enumerate(
        (hostile.url, f"https://127.0.0.1:{port}", f"http://localhost:{port}", "//127.0.0.1:1"), 1
    ):
        machine.sandbox.fault("redirect", endpoint="list", location=f"{elsewhere}/api/v1/skills")
        with machine.client() as (client, _), pytest.raises(BadResponse, match="to another origin"):
            client.list_skills(1, 10)
        machine.sandbox.clear_faults()
        assert len(machine.sandbox.requests("list")) == number
    assert hostile.seen == set()


def test_the_core_of_an_exception_holds_no_token(machine: Machine, facing: dict[str, str]) -> None:
    """A crash with the values of all local variables, as a debugger shows them."""
    code = (
        "import sys, traceback\n"
        "from atom_saas_sync.cli import session\n"
        "from atom_saas_sync.marketplace import client\n"
        "def crash(*a, **k): raise RuntimeError('a bug')\n"
        "client.MarketplaceClient.list_categories = crash\n"
        "def hook(error, *_, **__):\n"
        "    trace = error.__traceback__\n"
        "    while trace.tb_next:\n"
        "        trace = trace.tb_next\n"
        "        values = {**trace.tb_frame.f_locals}\n"
        "        shown = [repr(value) for value in values.values()]\n"
        "        shown += [repr(vars(value)) for value in values.values() if hasattr(value, '__dict__')]\n"
        "        sys.stdout.write('\\n'.join(shown))\n"
        "import threading, atom_saas_sync.logs as logs\n"
        "logs.log_bug = hook\n"
        "from atom_saas_sync.__main__ import start\n"
        "sys.argv = ['atom-sync', 'sync', 'skills']\n"
        "start()\n"
    )
    result = machine.python(code, **facing)
    assert "ettings" in result.stdout
    found = re.search(f".{{0,200}}{re.escape(TOKEN)}", result.stdout)
    assert found is None, found
