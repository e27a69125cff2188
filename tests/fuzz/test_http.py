"""The HTTP routes of `serve-health` and the sandbox, from their route tables: new routes are fuzzed automatically."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from conftest import Machine
from database_rules import check_rules
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import IDS, fuzzing, spelled, tried, values
from web_support import ADMIN_TOKEN, Served, serving_a_full_cache

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.sandbox.control import ROUTES as CONTROL_ROUTES
from atom_saas_sync.web.app import create_app
from atom_saas_sync.web.guard import ADMIN_PREFIX

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
REFUSALS = {400, 401, 403, 404, 405, 409, 411, 413, 414, 415, 422, 429, 421, 431}
# Each call would start a process; their inputs are still fuzzed, without the right token.
STARTS_A_PROCESS = {f"{ADMIN_PREFIX}/sync/{name}" for name in ("skills", "ratings", "trigger")}


def _served_paths() -> list[str]:
    """Return the paths of the application, with their parameters in braces."""
    nothing: Any = SimpleNamespace(admin_token=None, database=Path("unused.db"))
    guard: Any = create_app(nothing, nothing, nothing)
    return sorted({route.path for route in guard._app.routes})  # noqa: SLF001 - its own description


PATHS = _served_paths()
MARKET_PATHS = [
    "/health", "/api/v1/health", "/api/v1/skills", "/api/v1/skills/{id}", "/api/v1/categories", "/api/v1/ratings",
    "/api/v1/ratings/{id}", "/skills", "/skills/marketplace/skills", "/skills/marketplace/skills/{id}/rate", "/{id}",
]  # fmt: skip

_texts = st.one_of(st.text(max_size=20), st.sampled_from([*IDS, "0", "1", "-1", "9" * 40, "%00", "..", "a" * 3000]))
_keys = st.sampled_from(
    [
        "limit",
        "skill_id",
        "severity",
        "type",
        "conflict_type",
        "status",
        "resolved",
        "page",
        "page_size",
        "strategy",
        "all",
        "conflict_ids",
        "conflict_id",
        "data",
        "fields",
        "rating",
        "user_id",
        "comment",
        "skill",
        "number",
        "text",
        "message",
        "kind",
        "endpoint",
    ]
)
_bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=50),
    st.dictionaries(_keys, st.one_of(values, st.sampled_from(["remote_wins", 1, True])), max_size=4).map(
        lambda form: spelled(form, 1).encode()
    ),
    values.map(lambda value: spelled(value, 1).encode()),
    st.sampled_from([b"[" * 10_000, b'{"all":true}', b"\xff\xfe", b"{}" * 2000]),
)
_headers = st.dictionaries(
    st.sampled_from(["content-type", "accept", "if-none-match", "accept-encoding", "host", "x-forwarded-for", "range"]),
    st.sampled_from(["", "application/json", "text/html", "*", "gzip", "zstd", "evil.example.org", "a" * 500]),
    max_size=3,
)


@st.composite
def requests(draw: st.DrawFn, paths: list[str]) -> dict[str, Any]:
    """Draw a request for one of these paths, with anything in its parameters."""
    path = re.sub(
        r"\{[^}]*\}", lambda _: quote(draw(_texts), safe=draw(st.sampled_from(["", "/"]))), draw(st.sampled_from(paths))
    )
    query = draw(st.lists(st.tuples(st.one_of(_keys, _texts), _texts), max_size=3))
    target = path + ("?" + "&".join(f"{quote(name)}={quote(value)}" for name, value in query) if query else "")
    return {
        "method": draw(st.sampled_from(METHODS)),
        "target": target[:60_000],
        "headers": draw(_headers),
        "content": draw(_bodies),
    }


def send(client: httpx.Client, request: dict[str, Any], token: str | None) -> httpx.Response:
    headers = dict(request["headers"])
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    url = client.base_url.copy_with(raw_path=request["target"].encode("ascii"))
    return client.request(request["method"], url, headers=headers, content=request["content"])


@pytest.fixture(scope="module")
def served_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Machine]]:
    with Sandbox(skills=20, seed=3) as sandbox:
        machine = Machine(sandbox, tmp_path_factory.mktemp("http"))
        with serving_a_full_cache(machine) as server:
            yield server, machine


def test_there_is_something_to_fuzz() -> None:
    assert {"/", "/health/live", f"{ADMIN_PREFIX}/sync/status"} <= set(PATHS)
    assert len(PATHS) > 15


@fuzzing(250)
@given(request=requests(PATHS), token=st.sampled_from([None, "wrong", ADMIN_TOKEN, ADMIN_TOKEN]))
@example(
    request={"method": "POST", "target": f"{ADMIN_PREFIX}/sync/resolve", "headers": {}, "content": b"[" * 100_000},
    token=ADMIN_TOKEN,
)
def test_serve_health(served_machine: tuple[Served, Machine], request: dict[str, Any], token: str | None) -> None:
    tried["requests to serve-health"] += 1
    server, _ = served_machine
    if token == ADMIN_TOKEN and request["method"] == "POST" and request["target"].split("?")[0] in STARTS_A_PROCESS:
        token = "wrong"
    answer = send(server.client, request, token)
    assert answer.status_code in {200, 202} | REFUSALS, (request, answer.status_code, answer.text)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert ADMIN_TOKEN not in answer.text + str(answer.headers)
    if request["method"] != "HEAD" and answer.headers.get("content-type", "").startswith("application/json"):
        answer.json()
    if answer.status_code >= 400 and request["method"] != "HEAD":
        assert answer.json()["success"] is False


def test_afterwards_it_is_well(served_machine: tuple[Served, Machine]) -> None:
    server, machine = served_machine
    for path in ("/health/live", "/health/ready", "/metrics/sync", "/"):
        assert server.get(path).status_code == 200
    assert check_rules(machine.database) == []
    assert len(machine.cached()) == 20


@fuzzing(150)
@given(request=requests(MARKET_PATHS), token=st.booleans())
def test_the_sandbox(served_machine: tuple[Served, Machine], request: dict[str, Any], token: bool) -> None:
    tried["requests to the sandbox"] += 1
    sandbox = served_machine[1].sandbox
    with httpx.Client(base_url=sandbox.url, timeout=60, trust_env=False, verify=False) as client:
        answer = send(client, request, sandbox.token if token else None)
    assert answer.status_code in {200, 201, 204, 304} | REFUSALS, (request, answer.status_code, answer.text)
    assert sandbox.token not in answer.text


CONTROL_PATHS = sorted({f"/_sandbox{path}" for _, path, _ in CONTROL_ROUTES})


@fuzzing(150)
@given(request=requests(CONTROL_PATHS))
@example(request={"method": "GET", "target": "/_sandbox/faults", "headers": {}, "content": b"[" * 100_000})
def test_the_sandbox_s_control(served_machine: tuple[Served, Machine], request: dict[str, Any]) -> None:
    """Every invalid request gets an error response; none triggers a bug."""
    tried["requests to the sandbox's control"] += 1
    sandbox = served_machine[1].sandbox
    with httpx.Client(base_url=sandbox.url, timeout=60, trust_env=False, verify=False) as client:
        answer = send(client, request, None)
    assert answer.status_code < 500, (request, answer.status_code, answer.text)
    sandbox.token = "at_saas_sandbox"
    sandbox.clear_faults()
    sandbox.set_latency(0)
