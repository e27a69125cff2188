"""The control API of a running sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from atom_saas_sync.sandbox import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(skills=5) as running:
        yield running


@pytest.fixture
def control(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{sandbox.url}/_sandbox") as client:
        yield client


def do(control: httpx.Client, method: str, path: str, **body: Any) -> Any:
    answer = control.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_skills_can_be_changed_and_the_change_is_pushed(sandbox: Sandbox, control: httpx.Client) -> None:
    first = sandbox.skill_ids()[0]
    with connect(f"{sandbox.ws_url}?token={sandbox.token}") as listener:
        assert sandbox.wait_for_listeners(1)
        do(control, "PATCH", f"/skills/{first}", fields={"name": "quiet"}, push=False)
        do(control, "PATCH", f"/skills/{first}", fields={"name": "loud"})
        assert json.loads(listener.recv(timeout=60))["data"]["name"] == "loud"
        do(control, "PUT", "/skills", skill={"skill_id": "a/b", "name": "odd"}, position=0)
        assert json.loads(listener.recv(timeout=60))["data"]["skill_id"] == "a/b"
        assert do(control, "GET", "/skills/a%2Fb")["name"] == "odd"
        do(control, "DELETE", f"/skills/{first}")
        assert json.loads(listener.recv(timeout=60))["type"] == "skill_delete"
        do(control, "PUT", "/categories/games", description="fun")
        assert json.loads(listener.recv(timeout=60))["data"]["description"] == "fun"
        do(control, "POST", "/ratings", skill_id="a/b", user_id="bob", rating=4)
        assert json.loads(listener.recv(timeout=60))["data"]["average_rating"] == 4
    assert sandbox.skill_ids()[0] == "a/b"
    assert do(control, "GET", "/ratings")["ratings"][0]["user_id"] == "bob"


def test_faults_can_be_switched(sandbox: Sandbox, control: httpx.Client) -> None:
    number = do(control, "POST", "/faults", kind="error", endpoint="health", status=503)["number"]
    assert httpx.get(f"{sandbox.url}/health").status_code == 503
    [shown] = do(control, "GET", "/faults")["faults"]
    assert (shown["number"], shown["strikes"], shown["kind"]) == (number, 1, "error")
    do(control, "DELETE", "/faults", number=number)
    assert httpx.get(f"{sandbox.url}/health").status_code == 200


def test_messages_can_be_pushed(sandbox: Sandbox, control: httpx.Client) -> None:
    with connect(f"{sandbox.ws_url}?token={sandbox.token}") as listener:
        assert sandbox.wait_for_listeners(1)
        assert do(control, "POST", "/push", message={"type": "ping"}) == {"listeners": 1}
        assert listener.recv(timeout=60) == '{"type":"ping"}'
        do(control, "POST", "/push", text="raw")
        assert listener.recv(timeout=60) == "raw"
        do(control, "POST", "/push_bad", name="no_type")
        assert "type" not in json.loads(listener.recv(timeout=60))
        assert do(control, "POST", "/flood", count=7, whole=False)["messages"] == 7
        assert json.loads([listener.recv(timeout=60) for _ in range(7)][-1])["data"]["version"] == "9.6.0"
        listener.send("hello")
        assert sandbox.wait_for(lambda: bool(sandbox.ws_messages()))
        assert do(control, "GET", "/messages") == {"messages": ["hello"]}
        do(control, "POST", "/close", code=4000)
        assert sandbox.wait_for_listeners(0)


def test_settings_log_and_reset(sandbox: Sandbox, control: httpx.Client) -> None:
    do(control, "POST", "/set", rate_limit=1, token="other", clock_offset=5, latency=0, bandwidth=0)
    assert sandbox.token == "other"
    assert httpx.get(f"{sandbox.url}/health").status_code == 200
    assert httpx.get(f"{sandbox.url}/health").status_code == 429
    assert [entry["status"] for entry in do(control, "GET", "/requests")["requests"]] == [200, 429]
    assert do(control, "GET", "/state")["counters"]["requests"] == 2
    assert do(control, "POST", "/warm", page_size=2) == {"pages": 3}
    do(control, "POST", "/reset")
    assert do(control, "GET", "/requests") == {"requests": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "/skills/nobody", {"fields": {}}, 404),
        ("DELETE", "/skills/nobody", {}, 404),
        ("POST", "/faults", {"kind": "sabotage"}, 400),
        ("POST", "/faults", {}, 400),
        ("POST", "/flood", {"number": 1}, 400),
        ("PUT", "/skills", {"skill": {"name": "no id"}}, 400),
        ("POST", "/push_bad", {"name": "unheard"}, 404),
        ("POST", "/set", {"unheard": 1}, 404),
        ("POST", "/set", {"\ud800": 1}, 404),
        ("POST", "/close", {"\ud800": 1}, 400),
        ("GET", "/unheard", {}, 404),
    ],
)
def test_meaningless_requests_are_refused(
    control: httpx.Client, method: str, path: str, body: dict[str, Any], status: int
) -> None:
    # Escaped: half of a surrogate pair is JSON, too.
    assert control.request(method, path, content=json.dumps(body)).status_code == status
    assert control.request(method, path, content=b"{").status_code in (400, 404)


def test_web_pages_and_other_names_are_kept_out(control: httpx.Client) -> None:
    assert control.get("/state", headers={"host": "evil.example"}).status_code == 403
    assert control.get("/state", headers={"origin": "https://evil.example"}).status_code == 403
    assert control.get("/state").status_code == 200


def test_control_requests_are_not_counted_as_the_clients(sandbox: Sandbox, control: httpx.Client) -> None:
    control.get("/state")
    assert sandbox.requests() == []
