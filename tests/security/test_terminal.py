"""Text from others is shown on a terminal as text: it cannot move the cursor, change the title or hide anything."""

from __future__ import annotations

import json
import os
import pty
import re

import pytest
from conftest import Machine
from hostile_values import ATTACKS, FORBIDDEN, HOSTILE, SHOWN
from loaded_command import start_command
from machine_databases import FileDatabase
from watch_support import stop, watching
from web_support import served

OWN_STYLES = re.compile("\x1b\\[[0-9;]*m|\x1b\\[\\?25[hl]|\r\n")

SCREENS = (
    ("skills", "list"),
    ("skills", "search", "evil"),
    ("skills", "show", "evil"),
    ("skills", "log", "evil"),
    ("skills", "diff", "evil"),
    ("skills", "diff", "evil", "--from", "base", "--to", "base"),
    ("conflicts", "list"),
    ("conflicts", "show", "1"),
    ("ratings", "list"),
    ("ratings", "failed"),
    ("ratings", "show", "1"),
    ("status",),
    ("jobs",),
    ("doctor",),
)


@pytest.fixture
def attacked(machine: Machine) -> Machine:
    """Return a machine with a hostile skill in conflict, a hostile rating, and a connection with a hostile end."""
    evil = {
        "skill_id": "evil",
        "name": f"evil {HOSTILE}",
        "description": HOSTILE,
        "version": f"1.0 {HOSTILE}",
        "category": ATTACKS["bidi"] + ATTACKS["invisible"] + ATTACKS["markup"],
        "author": HOSTILE,
        "code": f"print('{HOSTILE}')",
        "tags": [HOSTILE, "evil"],
        f"field {SHOWN}": HOSTILE,  # U+0000 in a key is refused
    }
    machine.sandbox.put_skill(evil, push=False)
    assert machine.command("sync", "skills").returncode == 0
    machine.edit("evil", description=f"mine {SHOWN}")
    machine.sandbox.patch_skill("evil", {"description": f"theirs {HOSTILE}", "version": f"2 {HOSTILE}"}, push=False)
    synced = machine.command("--log-level", "debug", "sync", "skills", ATOM_SAAS_CONFLICT_STRATEGY="manual")
    assert machine.command("ratings", "add", "evil", "3", "--comment", "c").returncode == 0
    machine.sql("UPDATE skill_rating SET review = ?, user_id = ?", SHOWN, f"user {SHOWN}")
    machine.sandbox.fault("error", endpoint="ratings", status=422)
    rated = machine.command("sync", "ratings")
    with watching(machine) as process:
        machine.sandbox.close_ws(4000, HOSTILE[:100])
        logged = stop(process)
    machine.edit("evil", description=f"mine again {SHOWN}")
    for text in (synced.stderr, synced.stdout, rated.stdout, rated.stderr, logged):
        assert FORBIDDEN.search(text) is None, text
    return machine


def test_no_screen_obeys_what_strangers_wrote(attacked: Machine) -> None:
    for screen in SCREENS:
        result = attacked.command(*screen)
        found = FORBIDDEN.search(result.stdout + result.stderr)
        assert found is None, (screen, found, result.stdout)
        assert "Traceback" not in result.stderr, screen


def test_no_terminal_obeys_it_either(attacked: Machine) -> None:
    """On a terminal, with colours, the same holds."""
    for screen in SCREENS:
        text = on_terminal(attacked, *screen)
        found = FORBIDDEN.search(text)
        assert found is None, (screen, found, text)
        assert len(text) > 10, screen


def on_terminal(machine: Machine, *words: str) -> str:
    """Return what a command shows on a terminal, without its own colours."""
    ours, theirs = pty.openpty()
    process = start_command(
        *words,
        environment=machine.environment(TERM="xterm-256color", COLUMNS="120"),
        directory=machine.directory,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        seen += chunk
    process.wait(60)
    os.close(ours)
    return OWN_STYLES.sub("\n", seen.decode())


def test_json_is_whole_and_escaped_on_a_terminal(attacked: Machine) -> None:
    for words in (("skills", "show", "evil"), ("skills", "diff", "evil"), ("conflicts", "show", "1")):
        piped = attacked.command(*words, "--json").stdout
        shown = on_terminal(attacked, *words, "--json")
        assert FORBIDDEN.search(shown) is None, FORBIDDEN.search(shown)
        assert json.loads(shown) == json.loads(piped)
        assert "\\u009b" in shown
        assert "\x9b" in piped  # for programs it is text
        assert "\x1b" not in piped


def test_no_format_of_the_log_obeys_it(machine: Machine) -> None:
    long_id = "x" * 200
    odd = f"odd {ATTACKS['blank letters']}\u2028{ATTACKS['bidi']}"
    machine.sandbox.put_skill({"skill_id": odd, "name": "n"}, push=False)
    machine.sandbox.put_skill({"skill_id": long_id, "name": 7}, push=False)
    for line_format in ("text", "json", "journal"):
        log = machine.command("--log-format", line_format, "--log-level", "debug", "sync", "skills").stderr
        assert FORBIDDEN.search(log) is None, log
        assert "skipped an invalid item: odd " in log
        assert "x" * 79 in log
        assert "x" * 80 not in log


STORED_SCREENS = (
    ("status",),
    ("jobs",),
    ("conflicts", "list"),
    ("conflicts", "show", "1"),
    ("ratings", "failed"),
    ("db", "history"),
    ("db", "current"),
    ("db", "check"),
    ("cache", "stats"),
    ("metrics",),
    ("runs", "list"),
    ("runs", "show", "1"),
    ("updates", "list"),
    ("updates", "show", SHOWN),
    ("pins", "list"),
    ("quarantine", "list"),
    ("quarantine", "show", SHOWN),
    ("revocations", "list"),
    ("policy", "explain", SHOWN),
    ("skills", "verify"),
)
HOSTILE_GATE = (
    """INSERT INTO skill_offer (skill_id, wire_digest, content_digest, exec_digest, version, kind, reason, note,
    first_seen_at, offered_at, confirmed_at, data) VALUES (?, x'00', x'00', x'00', ?, 'hold', ?, ?, {times}, x'00')""",
    "INSERT INTO gate_pin (skill_id, content_digest, version, by, note, at) VALUES (?, x'00', ?, ?, ?, {time})",
    """INSERT INTO gate_quarantine (skill_id, skill_data, base_data, content_digest, reason, served_source, by, note,
    at) VALUES (?, ?, ?, x'00', 'quarantined', 'marketplace', ?, ?, {time})""",
    """INSERT INTO gate_revocation (skill_id, version, publisher, note, source, added_by, added_at)
    VALUES (?, ?, ?, ?, 'command', ?, {time})""",
)
HOSTILE_ROWS = (
    *(each.format(times="?, ?, ?", time="?") for each in HOSTILE_GATE),
    "UPDATE websocket_state SET started_at = ?, stopped_at = NULL, disconnect_reason = ?, next_ws_attempt_at = ?",
    "UPDATE sync_state SET status = ?, last_error = ?, last_sync_at = '2026-01-01T00:00:00Z'",
    "UPDATE sync_run SET status = ?, started_by = ?, error_type = ?, error_message = ?, started_at = ?",
    "INSERT INTO scheduled_job VALUES (?, ?, 15, ?, ?, ?)",
    "INSERT INTO fact VALUES ('marketplace', ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
    "INSERT INTO conflict_log (skill_id, conflict_type, severity, local_data, created_at) VALUES (?, ?, ?, ?, ?)",
    "INSERT INTO skill_rating (skill_id, user_id, rating, review) VALUES (?, ?, 3, ?)",
    "INSERT INTO failed_rating_upload (rating_id, error_message, error_type, failed_at) VALUES (1, ?, ?, ?)",
    "UPDATE skill_cache SET skill_data = ?, updated_at = ?",
    "INSERT INTO category_cache (category_name, category_data) VALUES (?, ?)",
    "INSERT INTO counter VALUES (?, '{}', 3)",
)


# The columns of times hold no text there.
HOSTILE_ROWS_ON_SERVER = (
    *(each.format(times="now(), now(), now()", time="now()") for each in HOSTILE_GATE),
    "UPDATE websocket_state SET stopped_at = NULL, disconnect_reason = ?, host = ?, ws_url = ?",
    "UPDATE sync_state SET status = ?, last_error = ?, last_sync_at = '2026-01-01T00:00:00Z'",
    "UPDATE sync_run SET status = ?, started_by = ?, error_type = ?, error_message = ?, host = ?",
    "INSERT INTO scheduled_job VALUES (?, ?, 15, now(), now(), now())",
    "INSERT INTO fact VALUES ('marketplace', ?, now()) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    "INSERT INTO conflict_log (skill_id, conflict_type, severity, local_data) VALUES (?, ?, ?, ?)",
    "INSERT INTO skill_rating (skill_id, user_id, rating, review) VALUES (?, ?, 3, ?)",
    "INSERT INTO failed_rating_upload (rating_id, error_message, error_type, failed_at) VALUES ('1', ?, ?, now())",
    "UPDATE skill_cache SET skill_data = ?",
    "INSERT INTO category_cache (category_name, category_data) VALUES (?, ?)",
    "INSERT INTO counter VALUES (?, '{}', 3)",
)


def test_no_terminal_obeys_a_database_written_by_another_program(machine: Machine) -> None:
    """Programs that can write the file, or name another one in a `.env`, gain nothing else."""
    machine.sandbox.put_skill({"skill_id": "evil", "name": "evil"}, push=False)
    assert machine.command("sync", "skills").returncode == 0
    for statement in HOSTILE_ROWS if isinstance(machine.database, FileDatabase) else HOSTILE_ROWS_ON_SERVER:
        machine.sql(statement, *[SHOWN] * statement.count("?"))
    for screen in STORED_SCREENS:
        text = on_terminal(machine, *screen)
        found = FORBIDDEN.search(text)
        assert found is None, (screen, found, text)
        assert "Traceback" not in text, screen
        assert "bug ended" not in text, (screen, text)


def test_the_status_page_shows_it_as_text(attacked: Machine) -> None:
    markup = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    attacked.sql("UPDATE websocket_state SET disconnect_reason = ?, stopped_at = NULL", markup)
    columns = ["kind", "status", "error_type", "error_message"]
    if isinstance(attacked.database, FileDatabase):
        columns.append("started_at")
    attacked.sql(f"UPDATE sync_run SET {', '.join(f'{name} = ?1' for name in columns)}", markup)
    with served(attacked) as server:
        answer = server.get("/")
    assert answer.status_code == 200
    assert "&lt;script&gt;" in answer.text
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src" not in policy
