"""What strangers wrote is shown on a terminal as text: it moves no cursor, changes no title, and hides nothing."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from conftest import Machine
from watch_support import stop, watching
from web_support import served

ATTACKS = {
    "CSI": "\x1b[2J\x1b[1;1H\x1b[31m",
    "title": "\x1b]0;root\x07",
    "hyperlink": "\x1b]8;;https://example.org/\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "C1": "\x9b31m\x9d0;root\x9c",
    "DCS": "\x1bP$q\x1b\\",
    "bidi": "\u202egnp.exe\u202c\u2066x\u2069",
    "invisible": "\u200b\u200d\u2060\ufeff\u00ad",
    "return": "fine\rroot# \x08\x08\x7f\x00",
    "tags": "\U000e0041\U000e007f",
    "markup": "[bold red]x[/] [link=https://example.org]y[/link]",
}
HOSTILE = " ".join(ATTACKS.values())
SHOWN = HOSTILE.replace("\x00", "")  # SQLite's own functions end a text there; the wire may hold it all the same
# What a terminal acts on, or shows nothing of; of line breaks, those of the screens themselves are meant.
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u00ad\U000e0000-\U000e007f]"
)
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
        f"field {HOSTILE}": HOSTILE,
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
    """With a terminal there are colours, and the same care."""
    for screen in SCREENS:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "atom_saas_sync", *screen],
            env=attacked.environment(TERM="xterm-256color", COLUMNS="120"),
            cwd=attacked.directory,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        ) as process:
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
        text = OWN_STYLES.sub("\n", seen.decode())
        found = FORBIDDEN.search(text)
        assert found is None, (screen, found, text)
        assert len(text) > 10, screen


def test_json_holds_it_whole_and_harmless(attacked: Machine) -> None:
    result = attacked.command("skills", "show", "evil", "--json")
    assert FORBIDDEN.search(result.stdout.replace("\n", "")) is None or "\\u001b" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_status_page_shows_it_as_text(attacked: Machine) -> None:
    attacked.sql("UPDATE websocket_state SET disconnect_reason = ?, stopped_at = NULL", "<script>alert(1)</script>")
    attacked.sql("UPDATE sync_run SET error_message = ?, status = 'failed'", '"><img src=x onerror=alert(1)>')
    with served(attacked) as server:
        page = server.get("/").text
    assert "<script" not in page
    assert "<img" not in page
