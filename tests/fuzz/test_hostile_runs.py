"""Whole runs of `sync`, `watch` and `doctor` against a marketplace that sends arbitrary bytes.

A run always ends with a documented exit code and one printable line, deletes nothing without the marketplace's
confirmation, and starts no request after its token was refused.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from answers import answers
from conftest import Machine, wait_until
from database_rules import check_rules
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import broken, fuzzing, tried
from loaded_command import run_command, start_command
from raw_server import RawServer

TOKEN = "at_saas_fuzz_0005"
IN_FLIGHT = 9
"""Requests beside the one that was answered (the contract's limit of ten connections)."""

KNOWN = [f"known-{number}" for number in range(4)]
EDITED = KNOWN[-1]

Script = dict[str, list[bytes]]
"""Responses by request; the last one is repeated. Without one, the response is correct."""


def skill(name: str) -> dict[str, Any]:
    return {
        "skill_id": name,
        "name": name,
        "version": "1.0.0",
        "code": "print(1)",
        "updated_at": "2026-01-01T00:00:00Z",
    }


def page(names: list[str], total: int) -> bytes:
    return json.dumps({"skills": [skill(name) for name in names], "total": total}).encode()


def answer(status: int, body: bytes = b"", *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d Whatever" % status, *headers, b"", body])


def of_length(status: int, body: bytes, *headers: bytes) -> bytes:
    return answer(status, body, b"Content-Length: %d" % len(body), *headers)


def encoded(status: int, body: bytes, coding: bytes) -> bytes:
    """Return an answer that names a coding; the body has it if it is one that we know."""
    packed = {b"gzip": gzip.compress(body), b"x-gzip": gzip.compress(body), b"zstd": zstandard.compress(body)}
    return of_length(status, packed.get(coding, body), b"Content-Encoding: " + coding)


def asked_for(head: bytes) -> str:
    path = head.split(b" ")[1].decode().partition("?")[0]
    if b"upgrade: websocket" in head.lower():
        return "websocket"
    last = path.rpartition("/")[2]
    return last if last in {"categories", "health", "skills"} else "skill"


def right_answer(head: bytes) -> bytes:
    kind = asked_for(head)
    if kind == "websocket":
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        return answer(
            101, b"\x88\x00", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept
        )
    if kind == "skill":
        return of_length(200, json.dumps(skill(head.split(b" ")[1].decode().rpartition("/")[2])).encode())
    if kind == "skills":
        return of_length(200, page(KNOWN if re.search(rb"[?&]page=1\b", head) else [], len(KNOWN)))
    return of_length(200, b'{"categories":[{"name":"tools"}]}' if kind == "categories" else b'{"status":"healthy"}')


class Hostile(RawServer):
    """Answers by a script, and knows what it answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self._say
        self.script: Script = {}
        self.said: list[tuple[str, bytes, bytes]] = []

    def begin(self, script: Script) -> None:
        self.said, self.script = [], {kind: list(each) for kind, each in script.items() if each}

    def _say(self, head: bytes) -> bytes:
        kind = asked_for(head)
        left = self.script.get(kind)
        said = right_answer(head) if not left else left[0] if len(left) == 1 else left.pop(0)
        self.said.append((kind, head, said))
        return said


# Responses

_CODINGS = st.sampled_from([b"gzip", b"x-gzip", b"zstd", b"br", b"identity", b"\xff", b"gzip, gzip"])
_LISTS = st.one_of(
    st.builds(page, st.lists(st.sampled_from([*KNOWN, "new"]), max_size=4), st.integers(0, 5)),
    st.sampled_from([b"", b"{}", b"null", b'{"skills":null}', b"<html>", b"\xef\xbb\xbf{}", b"[" * 3000, b"\x00"]),
)
_STATUSES = st.sampled_from([200, 204, 206, 304, 400, 404, 405, 410, 416, 429, 500, 503, 599, 999])
# Well-formed heads, whose meaning for the client is known.
REFUSALS = st.one_of(
    st.builds(of_length, st.sampled_from([401, 403]), _LISTS),
    st.builds(encoded, st.sampled_from([401, 403]), _LISTS, _CODINGS),
    st.builds(answer, st.sampled_from([401, 403]), st.binary(max_size=20), st.just(b"Content-Encoding: br")),
)
_ANSWERS = st.one_of(
    REFUSALS,
    answers(),
    broken(answers()),
    st.builds(encoded, _STATUSES, _LISTS, _CODINGS),
    st.builds(of_length, _STATUSES, _LISTS),
    broken(st.builds(of_length, st.just(200), _LISTS)),
    st.builds(
        lambda status, place: of_length(status, b"", b"Location: " + place),
        st.sampled_from([301, 302, 303, 307, 308]),
        st.sampled_from([b"", b"/", b"?", b"http://127.0.0.1:1/", b"//[::1", b"http://[::g]/", b"\xff", b"/a b", b"#"]),
    ),
    st.binary(max_size=40),
)


def whole_list(names: list[str]) -> list[bytes]:
    """Return the pages of a list that is complete, and may lack some of what is known."""
    return [of_length(200, page(names, len(names))), of_length(200, page([], len(names)))]


_WHOLE_LISTS = st.lists(st.sampled_from([*KNOWN, "new"]), unique=True, min_size=1).map(whole_list)
_SEVERAL = st.lists(_ANSWERS, min_size=1, max_size=3)
SCRIPTS: st.SearchStrategy[Script] = st.fixed_dictionaries(
    {},
    optional={
        "skills": st.one_of(_WHOLE_LISTS, _SEVERAL),
        **dict.fromkeys(("categories", "skill", "websocket", "health"), _SEVERAL),
    },
)
GONE: Script = {"skills": whole_list(KNOWN[:1]), "skill": [of_length(404, b"{}")]}
NOT_GONE: Script = {**GONE, "skill": [of_length(410, b"{}"), of_length(200, b"{}"), of_length(204, b""), b"\xff"]}


# The runs


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    nothing: Any = None  # instead of a sandbox
    return Machine(nothing, tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module", autouse=True)
def _known(machine: Machine, hostile: Hostile) -> None:
    """Sync the known skills, and edit one of them."""
    hostile.begin({})
    arguments: Any = {"environment": environment(machine, hostile), "directory": machine.directory}
    assert run_command("sync", "skills", **arguments).returncode == 0
    machine.edit(EDITED, code="mine")
    # This gives `watch` a reason to poll.
    machine.sql(
        "UPDATE sync_run SET started_at = strftime('%Y-%m-%dT%H:%M:%SZ', started_at, '-2 hours')",
        on_server="UPDATE sync_run SET started_at = started_at - interval '2 hours'",
    )
    _SAVED[machine.directory] = machine.database.save()


_SAVED: dict[Path, object] = {}


def environment(machine: Machine, hostile: Hostile) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(machine.directory),
        "ATOM_SAAS_API_URL": hostile.url,
        "ATOM_SAAS_WS_URL": hostile.url.replace("http", "ws"),
        "ATOM_SAAS_API_TOKEN": TOKEN,
        "ATOM_SAAS_DATABASE_URL": machine.database.url,
        "ATOM_SAAS_WS_RECONNECT_ATTEMPTS": "0",
    }


def start_again(machine: Machine, hostile: Hostile, script: Script) -> dict[str, Any]:
    """Reset the machine's cache to the known skills; return how to start a command there."""
    machine.database.restore(_SAVED[machine.directory])
    hostile.begin(script)
    return {"environment": environment(machine, hostile), "directory": machine.directory, "hurried": True}


def check(machine: Machine, hostile: Hostile, ended: subprocess.CompletedProcess[str]) -> None:
    """Check the rules for every command."""
    for text in (ended.stdout, ended.stderr):
        assert TOKEN not in text
        assert "Traceback" not in text and "internal" not in text, text
        assert all(line.isprintable() for line in text.splitlines()), text
    gone = {
        head.split(b" ")[1].decode().rpartition("/")[2]
        for kind, head, said in hostile.said
        if kind == "skill" and re.match(rb"HTTP/1\.[01] 404", said)
    }
    left = {name for (name,) in machine.sql("SELECT skill_id FROM usable_skill")}
    assert set(KNOWN) - left <= gone, (left, hostile.said)
    edits = machine.sql("SELECT skill_data FROM skill_cache WHERE skill_id = ?", EDITED)
    edits += machine.sql("SELECT local_data FROM conflict_log WHERE skill_id = ?", EDITED)
    assert "mine" in {json.loads(text)["code"] for (text,) in edits}
    assert check_rules(machine.database) == []


def after_a_refusal(hostile: Hostile, *kinds: str) -> int:
    """Return the number of requests of these kinds after the token was refused."""
    asked = [said for kind, _, said in hostile.said if kind in kinds]
    refused = [re.match(rb"HTTP/1\.1 40[13] Whatever\r\nContent-", said) is not None for said in asked]
    return len(asked) - 1 - refused.index(True) if True in refused else 0


@fuzzing(30)
@example(GONE, False, "remote_wins")
@example(NOT_GONE, True, "merge")
@given(SCRIPTS, st.booleans(), st.sampled_from(["remote_wins", "merge", "manual"]))
def test_sync(machine: Machine, hostile: Hostile, script: Script, as_json: bool, strategy: str) -> None:
    tried["whole runs of sync, any bytes"] += 1
    options = ["--strategy", strategy, *(["--json"] if as_json else [])]
    ended = run_command("sync", "skills", *options, **start_again(machine, hostile, script))
    check(machine, hostile, ended)
    assert ended.returncode in {0, 4, 65, 69, 75, 77}
    assert after_a_refusal(hostile, "skills", "categories", "skill") <= IN_FLIGHT
    lines = ended.stderr.splitlines()
    told = [line for line in lines if line.startswith("atom-sync: ")]
    assert len(told) == (ended.returncode not in {0, 4}), ended
    if as_json:
        document = json.loads(ended.stdout)
        assert document["success"] == (ended.returncode in {0, 4}), ended
        assert (document["error"] is None) == (ended.returncode in {0, 4, 65}) or document["reasons"], ended


@fuzzing(10)
@given(SCRIPTS)
def test_doctor(machine: Machine, hostile: Hostile, script: Script) -> None:
    tried["whole runs of doctor, any bytes"] += 1
    ended = run_command("doctor", "--json", **start_again(machine, hostile, script))
    check(machine, hostile, ended)
    assert ended.returncode in {0, 1}
    assert json.loads(ended.stdout)["success"] == (ended.returncode == 0)
    assert after_a_refusal(hostile, "skills", "websocket") == 0


@fuzzing(5)
@example(NOT_GONE)
@given(SCRIPTS)
def test_watch(machine: Machine, hostile: Hostile, script: Script) -> None:
    tried["whole runs of watch, any bytes"] += 1
    started = start_command("watch", **start_again(machine, hostile, script))
    try:
        wait_until(lambda: len(machine.sql("SELECT 1 FROM sync_run WHERE finished_at IS NOT NULL")) > 1, 30)
    finally:
        started.terminate()
        out, err = started.communicate()
    ended = subprocess.CompletedProcess(started.args, started.wait(), out, err)
    check(machine, hostile, ended)
    assert ended.returncode == 0, ended
    assert after_a_refusal(hostile, "skills", "categories", "skill") <= IN_FLIGHT
    assert after_a_refusal(hostile, "websocket") == 0
