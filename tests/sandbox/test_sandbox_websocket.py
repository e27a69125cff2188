"""The sandbox's WebSocket follows the contract (section 4), or violates it on request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.sandbox.websocket import MAX_MESSAGE, bad_frames


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(skills=20) as running:
        yield running


def join(sandbox: Sandbox, url: str | None = None, **options: Any) -> ClientConnection:
    # The library's own keep-alive would answer silence in its own way.
    connection: ClientConnection = connect(
        f"{url or sandbox.ws_url}?token={sandbox.token}", ping_interval=None, **options
    )
    return connection


@pytest.fixture
def listener(sandbox: Sandbox) -> Iterator[ClientConnection]:
    with join(sandbox) as listener:
        assert sandbox.wait_for_listeners(1)
        yield listener


def receive(listener: ClientConnection) -> Any:
    return json.loads(listener.recv(timeout=60))


def test_both_paths_take_the_token(sandbox: Sandbox) -> None:
    base = sandbox.url.replace("http", "ws")
    with join(sandbox), join(sandbox, f"{base}/api/ws/satellite/connect"):
        assert sandbox.wait_for_listeners(2)
    assert sandbox.wait_for_listeners(0)
    assert sandbox.counters()["ws_connections"] == 2
    for url in (f"{sandbox.ws_url}?token=wrong", sandbox.ws_url, f"{base}/elsewhere?token={sandbox.token}"):
        with pytest.raises(InvalidStatus):
            connect(url)
    assert [entry.status for entry in sandbox.requests("ws")] == [101, 101, 401, 401, 404]
    assert sandbox.token not in json.dumps(sandbox.journal.documents())


def test_a_ping_is_answered_and_messages_are_kept(sandbox: Sandbox, listener: ClientConnection) -> None:
    listener.send('{"type": "ping"}')
    assert receive(listener)["type"] == "pong"
    assert sandbox.ws_messages() == ['{"type": "ping"}']


def test_the_sandbox_pings_too() -> None:
    with Sandbox(skills=1, ping_interval=0.01) as sandbox, join(sandbox) as listener:
        assert [receive(listener)["type"] for _ in range(2)] == ["ping", "ping"]


def test_each_mutation_is_pushed(sandbox: Sandbox, listener: ClientConnection) -> None:
    first, second = sandbox.skill_ids()[:2]
    sandbox.patch_skill(first, {"name": "new name"})
    message = receive(listener)
    assert (message["type"], message["data"]["name"], message["data"]["skill_id"]) == (
        "skill_update",
        "new name",
        first,
    )
    assert message["timestamp"].endswith("Z")
    sandbox.put_skill({"skill_id": "x", "name": "x"})
    assert receive(listener)["data"] == {"skill_id": "x", "name": "x"}
    sandbox.put_category("games", description="all games")
    message = receive(listener)
    assert (message["type"], message["data"]["description"]) == ("category_update", "all games")
    sandbox.add_rating(second, "bob", 5)
    message = receive(listener)
    assert (message["type"], message["data"]["skill_id"], message["data"]["rating"]) == ("rating_update", second, 5)
    assert message["data"]["rating_count"] == sandbox.skill(second)["rating_count"]
    sandbox.delete_skill(first)
    assert (message := receive(listener))["type"] == "skill_delete"
    assert message["data"] == {"skill_id": first}


def test_a_mutation_can_be_kept_quiet(sandbox: Sandbox, listener: ClientConnection) -> None:
    sandbox.patch_skill(sandbox.skill_ids()[0], {"name": "quiet"}, push=False)
    sandbox.delete_skill(sandbox.skill_ids()[1], push=False)
    sandbox.push({"type": "ping"})
    assert receive(listener)["type"] == "ping"


def test_a_rating_sent_over_http_is_pushed(sandbox: Sandbox, listener: ClientConnection) -> None:
    rating = {"skill_id": sandbox.skill_ids()[0], "rating": 3, "user_id": "ann"}
    headers = {"authorization": f"Bearer {sandbox.token}"}
    assert httpx.post(f"{sandbox.url}/ratings", json=rating, headers=headers).status_code == 201
    assert receive(listener)["data"]["rating"] == 3


def test_raw_text_and_bytes_can_be_pushed(sandbox: Sandbox, listener: ClientConnection) -> None:
    assert sandbox.push("no json") == 1
    assert sandbox.push(b"\x00\x01") == 1
    assert listener.recv(timeout=60) == "no json"
    assert listener.recv(timeout=60) == b"\x00\x01"


def test_a_flood_brings_every_update_once_and_in_order(sandbox: Sandbox, listener: ClientConnection) -> None:
    result = sandbox.flood(50)
    messages = [receive(listener) for _ in range(50)]
    assert result["messages"] == 50
    assert [message["data"]["version"] for message in messages] == [f"9.{number}.0" for number in range(50)]
    assert [message["data"]["skill_id"] for message in messages[:20]] == sandbox.skill_ids()
    assert sandbox.skill(sandbox.skill_ids()[0])["version"] == "9.40.0"
    assert "code" in messages[0]["data"]
    sandbox.flood(1, whole=False)
    assert "code" not in receive(listener)["data"]


def test_silence_stops_all_frames_and_keeps_the_connection(sandbox: Sandbox, listener: ClientConnection) -> None:
    sandbox.silence()
    listener.send('{"type": "ping"}')
    pong = listener.ping()
    assert sandbox.wait_for(lambda: len(sandbox.ws_messages()) == 1)
    assert sandbox.push({"type": "ping"}) == 0
    with pytest.raises(TimeoutError):
        listener.recv(timeout=0.05)
    assert not pong.is_set()
    sandbox.silence(on=False)
    sandbox.push({"type": "ping"})
    assert receive(listener)["type"] == "ping"
    assert not pong.is_set()


UNBEARABLE = {"bad_utf8": 1007, "reserved": 1002, "oversized": 1009, "huge": 1009, "huge_binary": 1009}


@pytest.mark.parametrize("name", [name for name in bad_frames() if name not in UNBEARABLE])
def test_bad_frames_arrive_as_they_are(sandbox: Sandbox, listener: ClientConnection, name: str) -> None:
    sandbox.push_bad(name)
    message = listener.recv(timeout=60)
    assert isinstance(message, bytes) == (name == "binary")
    assert len(message) <= MAX_MESSAGE
    assert (len(message) == MAX_MESSAGE) == (name == "largest")


@pytest.mark.parametrize(("name", "code"), UNBEARABLE.items())
def test_frames_that_a_client_must_not_bear(sandbox: Sandbox, listener: ClientConnection, name: str, code: int) -> None:
    sandbox.push_bad(name)
    with pytest.raises(ConnectionClosed) as caught:
        listener.recv(timeout=60)
    assert caught.value.sent is not None
    assert caught.value.sent.code == code


def test_the_sandbox_can_close_with_a_code(sandbox: Sandbox, listener: ClientConnection) -> None:
    sandbox.close_ws(4401, "token expired")
    with pytest.raises(ConnectionClosed) as caught:
        listener.recv(timeout=60)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, "token expired")
    assert sandbox.wait_for_listeners(0)


def test_the_connection_can_break(sandbox: Sandbox, listener: ClientConnection) -> None:
    sandbox.drop_ws()
    with pytest.raises(ConnectionClosed) as caught:
        listener.recv(timeout=60)
    assert caught.value.rcvd is None
    assert sandbox.wait_for_listeners(0)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_handshakes_can_be_refused(sandbox: Sandbox, status: int) -> None:
    sandbox.fault("error", endpoint="ws", status=status, retry_after=5, times=2)
    for _ in range(2):
        with pytest.raises(InvalidStatus) as caught:
            join(sandbox)
        assert caught.value.response.status_code == status
        assert caught.value.response.headers["retry-after"] == "5"
    with join(sandbox):
        assert sandbox.counters()["ws_refused"] == 2


def test_handshakes_can_be_redirected(sandbox: Sandbox) -> None:
    sandbox.fault("redirect", endpoint="ws", value="other")
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = httpx.get(f"{sandbox.url}/ws?token=t", headers=upgrade)
    assert (answer.status_code, answer.headers["location"]) == (
        302,
        f"ws://localhost:{sandbox.port}/_redirected/ws?token=t",
    )


def test_a_handshake_can_hang_and_the_sandbox_still_stops_at_once(sandbox: Sandbox) -> None:
    sandbox.fault("hang", endpoint="ws")
    with pytest.raises(TimeoutError):
        join(sandbox, open_timeout=0.1)
    start = time.monotonic()
    sandbox.stop()
    assert time.monotonic() - start < 30


def test_a_handshake_can_be_dropped(sandbox: Sandbox) -> None:
    sandbox.fault("drop", endpoint="ws", times=1)
    with pytest.raises(InvalidMessage):
        join(sandbox)
    with join(sandbox):
        pass


def test_connections_can_be_accepted_and_closed_at_once(sandbox: Sandbox) -> None:
    sandbox.fault("accept_close", endpoint="ws", status=1008, times=1)
    with join(sandbox) as listener, pytest.raises(ConnectionClosed) as caught:
        listener.recv(timeout=60)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008


def test_http_faults_leave_the_websocket_alone(sandbox: Sandbox) -> None:
    sandbox.fault("error")
    with join(sandbox):
        assert sandbox.wait_for_listeners(1)


def test_an_outage_breaks_connections_and_ends(sandbox: Sandbox, listener: ClientConnection) -> None:
    port = sandbox.port
    sandbox.stop()
    with pytest.raises(ConnectionClosed):
        listener.recv(timeout=60)
    with pytest.raises(OSError, match="refused"):
        join(sandbox)
    sandbox.start()
    assert sandbox.port == port
    with join(sandbox):
        assert sandbox.wait_for_listeners(1)
