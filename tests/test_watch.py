"""`watch` as a real command with a real socket and a real database."""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import signal
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine, wait_until
from watch_support import (
    PATIENCE,
    STOP_PATIENCE,
    counter,
    messages,
    plain,
    runs,
    stop,
    wait_for_catch_up,
    wait_for_state,
    watching,
    websocket_state,
)

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.times import format_time


@pytest.fixture
def machine(sandbox: Sandbox, tmp_path: Path) -> Machine:
    """Return a machine that shares the real time with the sandbox."""
    return Machine(sandbox, tmp_path)


def on(day: float) -> str:
    """Return a time of last week, later than all times in the catalogue."""
    return format_time(datetime.now(UTC).replace(hour=0, minute=0, second=0) + timedelta(days=day - 10))


def update(skill_id: str, *, at: str | None = None, sent: str | None = None, **fields: Any) -> str:
    data = {"skill_id": skill_id, **fields, **({} if at is None else {"updated_at": at})}
    return json.dumps({"type": "skill_update", "data": data, "timestamp": sent or on(1)})


def settle(machine: Machine, sandbox: Sandbox) -> None:
    """Wait until all pushed messages have been applied, which happens in order."""
    marker = f"marker {time.monotonic_ns()}"
    sandbox.push({"type": "category_update", "data": {"name": marker}, "timestamp": on(1)})
    wait_until(lambda: machine.sql("SELECT 1 FROM category_cache WHERE category_name = ?", marker), PATIENCE)
    machine.sql("DELETE FROM category_cache WHERE category_name = ?", marker)


def test_changes_arrive_and_the_state_shows_them(machine: Machine, sandbox: Sandbox) -> None:
    first, second, third = sandbox.skill_ids()[:3]
    with watching(machine) as process:
        sandbox.patch_skill(first, {"name": "new name"})
        sandbox.put_skill({"skill_id": "new", "name": "New"})
        sandbox.delete_skill(second)
        sandbox.add_rating(third, "ada", 5)
        sandbox.put_category("games", description="all games")
        wait_until(
            lambda: (
                machine.sql("SELECT 1 FROM category_cache WHERE category_name = 'games'")
                and machine.cached() == machine.listed()
            )
        )
        state = websocket_state(machine)
        assert (state["fallback_to_polling"], state["reconnect_attempts"], state["consecutive_failures"]) == (0, 0, 0)
        assert state["websocket_enabled"] == 1
        assert state["ws_url"] == sandbox.ws_url
        assert state["last_message_at"] >= state["last_connected_at"]
        status = json.loads(machine.command("status", "--json").stdout)
        assert status["websocket"]["connected"] is True
        assert status["health"]["status"] == "healthy"
        logged = stop(process)
    assert "Sync completed: 60 skills" in logged
    assert sandbox.token not in logged
    state = websocket_state(machine)
    assert (state["connected"], state["disconnect_reason"], state["pid"]) == (0, "stopped", None)
    assert state["stopped_at"] is not None
    assert [messages(machine, kind) for kind in ("skill_update", "skill_delete", "rating_update")] == [2, 1, 1]
    assert messages(machine, "category_update") == 1
    assert messages(machine, "pong") >= 1
    assert runs(machine) == [("skills", "success")]
    assert machine.command("status", "--check").returncode == 0


def test_a_second_watch_finds_the_first_running(machine: Machine) -> None:
    with watching(machine):
        second = machine.command("watch")
        assert second.returncode == 75
        assert "another watch run is in progress" in second.stderr


def test_there_is_nothing_to_follow_when_disabled(machine: Machine) -> None:
    result = machine.command("watch", ATOM_SAAS_ENABLED="false")
    assert (result.returncode, "local only" in result.stderr) == (0, True)


def test_without_the_websocket_it_polls(machine: Machine, sandbox: Sandbox) -> None:
    with machine.started("watch", ATOM_SAAS_WS_ENABLED="false") as process:
        state = wait_for_state(machine, fallback_to_polling=1)
        assert (state["connected"], state["websocket_enabled"], state["next_ws_attempt_at"]) == (0, 1, None)
        wait_for_catch_up(machine)
        stop(process)
    assert sandbox.counters()["ws_connections"] == 0


# Order and conflicts


def test_old_messages_and_duplicates_change_nothing(machine: Machine, sandbox: Sandbox) -> None:
    first, second, third = sandbox.skill_ids()[:3]
    with watching(machine):
        sandbox.push(update(first, name="B", at=on(2)))
        sandbox.push(update(first, name="A", at=on(1), sent=on(9)))  # older
        sandbox.push(update(first, name="C", at=on(2), sent=on(0)))  # sent before
        sandbox.push(update(second, name="D", sent=on(2)))
        sandbox.push(update(second, name="E", sent=on(1)))
        sandbox.push(update(second, name="F", sent="2001-01-01T00:00:00Z"))
        sandbox.push(update(third, name="G", sent=on(2)))
        sandbox.push({"type": "skill_delete", "data": {"skill_id": third}, "timestamp": on(1)})
        settle(machine, sandbox)
        before = machine.sql("SELECT * FROM skill_cache"), machine.sql("SELECT * FROM skill_version")
        sandbox.push(update(first, name="B", at=on(2)))  # once more
        settle(machine, sandbox)
        assert (machine.sql("SELECT * FROM skill_cache"), machine.sql("SELECT * FROM skill_version")) == before
        cached = machine.cached()
    assert (cached[first]["name"], cached[second]["name"], third in cached) == ("B", "D", True)
    assert cached[first]["code"] == sandbox.skill(first)["code"]  # a part keeps what it does not carry


def test_an_older_message_does_not_restore_a_deleted_skill(machine: Machine, sandbox: Sandbox) -> None:
    first = sandbox.skill_ids()[0]
    with watching(machine):
        sandbox.push({"type": "skill_delete", "data": {"skill_id": first}, "timestamp": on(5)})
        sandbox.push(update(first, name="late", sent=on(4)))
        settle(machine, sandbox)
        assert first not in machine.cached()
        sandbox.push(update(first, name="back", sent=on(6)))
        settle(machine, sandbox)
        assert machine.cached()[first]["name"] == "back"


def test_ratings_have_an_order_of_their_own(machine: Machine, sandbox: Sandbox) -> None:
    first = sandbox.skill_ids()[0]

    def rate(average: float, sent: str, skill_id: str = first) -> None:
        data = {"skill_id": skill_id, "rating": 4, "average_rating": average, "rating_count": 7}
        sandbox.push({"type": "rating_update", "data": data, "timestamp": sent})

    with watching(machine):
        rate(4.5, on(5))
        rate(1.5, on(4))
        rate(3.0, on(5), "unknown")
        sandbox.push(update(first, name="N", sent=on(4.5)))
        settle(machine, sandbox)
        cached = machine.cached()
    assert (cached[first]["average_rating"], cached[first]["rating_count"]) == (4.5, 7)
    assert cached[first]["name"] == "N"
    assert "unknown" not in cached


def test_edited_skills_are_conflicts_as_with_polling(machine: Machine, sandbox: Sandbox) -> None:
    first, second, third = sandbox.skill_ids()[:3]
    with watching(machine, ATOM_SAAS_CONFLICT_STRATEGY="manual"):
        for skill_id in (first, second, third):
            machine.edit(skill_id, description="edited here")
        sandbox.patch_skill(first, {"description": "edited there"})
        sandbox.delete_skill(second)
        sandbox.add_rating(third, "ada", 5)
        wait_until(lambda: len(machine.sql("SELECT 1 FROM conflict_log WHERE resolved = FALSE")) == 2)
        wait_until(lambda: machine.cached()[third]["rating_count"] == sandbox.skill(third)["rating_count"])
        cached = machine.cached()
    assert {cached[skill_id]["description"] for skill_id in (first, second, third)} == {"edited here"}
    kinds = dict(machine.sql("SELECT skill_id, conflict_type FROM conflict_log"))
    assert kinds == {first: "OTHER", second: "DELETION_CONFLICT"}


def test_a_wrong_message_is_found_out_by_the_next_poll(machine: Machine, sandbox: Sandbox) -> None:
    first, second = sandbox.skill_ids()[:2]
    with watching(machine):
        sandbox.push(update(first, name="never was", at=on(1)))
        sandbox.push({"type": "skill_delete", "data": {"skill_id": second}, "timestamp": on(5)})
        sandbox.push(update("nowhere", name="nowhere"))
        settle(machine, sandbox)
        assert machine.cached()[first]["name"] == "never was"
        # The list's older version is taken if it was requested after the message.
        wait_until(
            lambda: (
                json.loads(machine.command("sync", "skills", "--json").stdout)["success"]
                and machine.cached() == machine.listed()
            )
        )


def test_a_replay_ends_like_one_sync_of_the_final_state(sandbox: Sandbox, tmp_path: Path) -> None:
    followed, polled = (Machine(sandbox, tmp_path / name) for name in ("followed", "polled"))
    for each in (followed, polled):
        each.directory.mkdir()
    chance = random.Random(5)
    with watching(followed):
        for number in range(400):
            ids = sandbox.skill_ids()
            what = chance.random()
            if what < 0.2:
                sandbox.put_skill({"skill_id": f"n{number}", "name": f"N{number}", "tags": ["é"], "version": "1"})
            elif what < 0.23:  # fewer than messages may delete within an hour
                sandbox.delete_skill(chance.choice(ids))
            elif what < 0.5:
                sandbox.add_rating(chance.choice(ids), f"u{number}", chance.randint(1, 5))
            elif what < 0.55:
                sandbox.put_category(f"c{number % 3}", description=str(number))
            else:
                field = chance.choice(["name", "description", "code", "version"])
                sandbox.patch_skill(chance.choice(ids), {field: f"{field} {number}"})
        wait_until(lambda: followed.cached() == followed.listed(), PATIENCE)
        assert messages(followed, "skill_update") > 150
    assert polled.command("sync", "skills").returncode == 0
    ours, theirs = plain(followed), plain(polled)
    # Only the list says how often a category is used.
    for state in (ours, theirs):
        for category in state["categories"].values():
            category.pop("skill_count", None)
    assert ours == theirs
    assert followed.command("db", "check").returncode == 0


# Speed


def test_each_change_and_a_flood_of_them_arrive(machine: Machine, sandbox: Sandbox) -> None:
    ids = sandbox.skill_ids()
    with watching(machine) as process:
        # How late they are is for the benchmark to say.
        question = "SELECT 1 FROM skill_cache WHERE skill_id = ? AND json_extract(skill_data, '$.name') = ?"
        for number in range(30):
            skill_id = ids[number % len(ids)]
            sandbox.push(update(skill_id, name=f"name {number}"))
            wait_until(lambda found=(skill_id, f"name {number}"): machine.sql(question, *found))
        before = resident_kilobytes(process.pid)
        sandbox.flood(2000)
        wait_until(lambda: messages(machine, "skill_update") == 2030)
        assert resident_kilobytes(process.pid) - before < 40_000
        assert machine.cached() == {**machine.listed()}


def resident_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_a_busy_database_slows_the_sender_down_and_loses_nothing(machine: Machine, sandbox: Sandbox) -> None:
    with watching(machine):
        with machine.database.writing():
            pushed = threading.Thread(target=sandbox.flood, args=(3000,))
            pushed.start()
            threading.Event().wait(3.0)  # longer than the service waits for the lock at a time
        pushed.join(PATIENCE)
        wait_until(lambda: messages(machine, "skill_update") == 3000)
        assert machine.cached() == machine.listed()


# Signals, settings, systemd


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_a_flood_it_writes_what_it_has_read(
    machine: Machine, sandbox: Sandbox, number: signal.Signals
) -> None:
    with watching(machine) as process:
        flood = threading.Thread(target=sandbox.flood, args=(3000,))
        flood.start()
        wait_until(lambda: messages(machine, "skill_update") > 100, PATIENCE)
        process.send_signal(number)
        _, logged = process.communicate(timeout=STOP_PATIENCE)
        flood.join(PATIENCE)
        assert process.returncode == 0, logged
    assert websocket_state(machine)["stopped_at"] is not None
    with watching(machine):
        wait_until(lambda: machine.cached() == machine.listed())


def test_stopped_in_a_flood_that_the_database_takes_slowly_it_records_the_stop(
    machine: Machine, sandbox: Sandbox
) -> None:
    with watching(machine) as process:
        machine.database.slow_down("skill_cache")
        flood = threading.Thread(target=sandbox.flood, args=(3000,))
        flood.start()
        wait_until(lambda: messages(machine, "skill_update") > 0, PATIENCE)
        logged = stop(process)
        flood.join(PATIENCE)
    assert "messages could not be written; the next start fetches what was in them" in logged
    assert websocket_state(machine)["stopped_at"] is not None, logged


def test_killed_in_a_flood_it_catches_up(machine: Machine, sandbox: Sandbox) -> None:
    deleted = sandbox.skill_ids()[-1]
    with watching(machine) as process:
        flood = threading.Thread(target=sandbox.flood, args=(3000,))
        flood.start()
        wait_until(lambda: messages(machine, "skill_update") > 100, PATIENCE)
        process.kill()
        process.communicate(timeout=PATIENCE)
        flood.join(PATIENCE)
    sandbox.delete_skill(deleted)
    with watching(machine):
        wait_until(lambda: machine.cached() == machine.listed())
    assert machine.command("db", "check").returncode == 0


def test_a_rotated_token_is_picked_up(machine: Machine, sandbox: Sandbox) -> None:
    old, new = sandbox.token, "at_saas_rotated"
    file = machine.directory / "token"
    file.write_text(f"{old}\n", encoding="utf-8")
    file.chmod(0o600)
    try:
        with watching(machine, ATOM_SAAS_API_TOKEN="", ATOM_SAAS_API_TOKEN_FILE=str(file)) as process:
            sandbox.token = new
            sandbox.close_ws(4401, "token expired")
            wait_for_state(machine, connected=0, fallback_to_polling=1)
            assert counter(machine, "atom_saas_websocket_reconnects_total") == 0
            file.write_text(f"{new}\n", encoding="utf-8")
            wait_for_state(machine, connected=1, fallback_to_polling=0)
            wait_for_catch_up(machine, 2)
            logged = stop(process)
    finally:
        sandbox.token = old
    assert new not in logged


def test_settings_are_read_again(machine: Machine, sandbox: Sandbox) -> None:
    env_file = machine.directory / ".env"
    env_file.write_text("ATOM_SAAS_CONFLICT_STRATEGY=remote_wins\n", encoding="utf-8")
    first = sandbox.skill_ids()[0]
    with watching(machine, "--env-file", ".env") as process:
        env_file.write_text("ATOM_SAAS_CONFLICT_STRATEGY=nonsense\n", encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        env_file.write_text("ATOM_SAAS_CONFLICT_STRATEGY=local_wins\n", encoding="utf-8")
        process.send_signal(signal.SIGHUP)

        def resolved() -> list[Any]:
            # Each time again: a message before the settings are read replaces the edit.
            machine.edit(first, description="edited here")
            sandbox.patch_skill(first, {"description": f"edited there {next(numbers)}"})
            return machine.sql("SELECT 1 FROM conflict_log WHERE resolution_strategy = 'local_wins'")

        numbers = itertools.count()
        wait_until(resolved)
        assert sandbox.counters()["ws_connections"] == 1  # the connection did not depend on it
        env_file.write_text(f"ATOM_SAAS_CA_FILE={certificate(machine.directory)}\n", encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: sandbox.counters()["ws_connections"] == 2, PATIENCE)


def test_another_address_is_tried_at_once(machine: Machine, sandbox: Sandbox) -> None:
    env_file = machine.directory / ".env"
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes the connection and never answers
        env_file.write_text(f"ATOM_SAAS_WS_URL=ws://127.0.0.1:{deaf.getsockname()[1]}/ws\n", encoding="utf-8")
        with machine.started("--env-file", ".env", "watch", ATOM_SAAS_WS_URL="") as process:
            deaf.accept()[0].close()
            connection, _ = deaf.accept()  # the second attempt hangs
            with connection:
                env_file.write_text(f"ATOM_SAAS_WS_URL={sandbox.ws_url}\n", encoding="utf-8")
                process.send_signal(signal.SIGHUP)
                wait_for_state(machine, connected=1, ws_url=sandbox.ws_url)
                wait_for_catch_up(machine)
                stop(process)


def certificate(directory: Path) -> Path:
    """Write a certificate, taken from those that Python trusts."""
    import ssl

    path = directory / "ca.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(ssl.create_default_context().get_ca_certs(binary_form=True)[0]))
    return path


def test_systemd_is_notified(machine: Machine, sandbox: Sandbox) -> None:
    path = machine.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(PATIENCE)
        heard: list[str] = []

        def wait_for(text: str) -> None:
            while not any(text in each for each in heard):
                heard.append(listener.recv(4096).decode())

        with watching(machine, NOTIFY_SOCKET=str(path), WATCHDOG_USEC="200000") as process:
            wait_for("READY=1")
            wait_for("STATUS=connected")
            heard.clear()
            wait_for("WATCHDOG=1")
            process.send_signal(signal.SIGHUP)
            wait_for("RELOADING=1")
            process.send_signal(signal.SIGSTOP)
            heard.clear()
            listener.settimeout(1.0)
            with pytest.raises(TimeoutError):  # after what was on its way: silence, and systemd would restart it
                collections.deque(iter(lambda: listener.recv(4096), b""), maxlen=0)
            listener.settimeout(PATIENCE)
            process.send_signal(signal.SIGCONT)
            stop(process)
            wait_for("STOPPING=1")


def test_systemd_hears_ready_in_fallback_too(machine: Machine, sandbox: Sandbox) -> None:
    path = machine.directory / "notify"
    sandbox.fault("error", endpoint="ws", status=401)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(PATIENCE)
        with machine.started("watch", NOTIFY_SOCKET=str(path), WATCHDOG_USEC="1", WATCHDOG_PID=str(os.getpid())) as it:
            heard = [listener.recv(4096).decode()]
            while heard[-1] != "READY=1":
                heard.append(listener.recv(4096).decode())
            assert "STATUS=fallen back to polling: the marketplace refused the token (401)" in "\n".join(heard)
            stop(it)
        assert "WATCHDOG=1" not in heard  # it was meant for another process
