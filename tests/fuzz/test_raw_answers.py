"""The HTTP client against arbitrary bytes: an unusable response is a typed error with one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from answers import answers, heads, places
from conftest import Machine
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import broken, fuzzing, tried
from raw_server import RawServer

from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.marketplace.client import MarketplaceClient
from atom_saas_sync.marketplace.dialects import DIALECTS
from atom_saas_sync.marketplace.probe import Probe
from atom_saas_sync.model import OutgoingRating

TOKEN = "at_saas_fuzz_0002"
CODES = {65, 69, 75, 77}
_RATING = OutgoingRating("known-0", "ann", 4, None)


Ask = Callable[[MarketplaceClient], object]


def _pages_again(client: MarketplaceClient) -> object:
    return client.list_skills(1, 100, client.list_skills(1, 100).etag)


def _categories_again(client: MarketplaceClient) -> object:
    return client.list_categories(client.list_categories()[1])


def _ratings_again(client: MarketplaceClient) -> object:
    return client.ratings_of("known-0", client.ratings_of("known-0").etag)


# Each of the list asks again with the validator that it got.
REQUESTS: dict[str, Ask] = {
    "pages": _pages_again,
    "categories": _categories_again,
    "ratings": _ratings_again,
    "skill": lambda client: client.get_skill("known-0"),
    "rate": lambda client: client.send_rating(_RATING, "key"),
    "update": lambda client: client.update_rating(_RATING, "7", "key"),
}


@pytest.fixture(scope="module")
def raw() -> Iterator[RawServer]:
    server = RawServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    nothing: Any = None  # instead of a sandbox
    return Machine(nothing, tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def client(raw: RawServer, machine: Machine) -> Iterator[MarketplaceClient]:
    with machine.client(url=raw.url, token=TOKEN, per_minute=10**6, per_hour=10**6) as (client, _):
        yield client


def check_error(error: AtomSyncError) -> None:
    assert error.exit_code in CODES
    assert error.message.isprintable()
    assert len(error.message) < 400
    assert TOKEN not in error.message


def answer_with(*headers: bytes, status: int = 200, body: bytes = b'{"skills":[]}') -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d Whatever" % status, *headers, b"", body])


@fuzzing(150)
@given(request=st.sampled_from(sorted(REQUESTS)), answer=st.one_of(answers(), broken(answers()), st.binary()))
@example(request="pages", answer=answer_with(b"Retry-After: \xb2", status=503))
@example(request="pages", answer=answer_with(b"Retry-After: Mon, 01 Jan 99999999999 00:00:00 GMT", status=429))
@example(request="pages", answer=answer_with(b"Date: Fri, 31 Dec 9999 23:59:59 -2359"))
@example(request="pages", answer=answer_with(b'ETag: "\xff"'))
@example(request="pages", answer=TOKEN.encode() + b"\x1b" * 9000 + b"\r\n\r\n")
def test_the_client(raw: RawServer, machine: Machine, client: MarketplaceClient, request: str, answer: bytes) -> None:
    tried["answers of any bytes to the client"] += 1
    machine.clock.move(hours=2)  # what the last answer said of limits is over
    client.statistics.clock_skew_seconds = None
    raw.answer = answer
    try:
        REQUESTS[request](client)
    except AtomSyncError as error:
        check_error(error)


@fuzzing(40)
@given(request=st.sampled_from(sorted(REQUESTS)), answer=heads())
@example(request="pages", answer=b"HTTP/1.1 103 x\r\n\r\n" * 20_000)
@example(request="skill", answer=b"HTTP/1.1 200 x\r\n" + b"A: 1\r\n" * 20_000 + b"\r\n{}")
def test_odd_heads(raw: RawServer, machine: Machine, client: MarketplaceClient, request: str, answer: bytes) -> None:
    tried["odd heads to the client"] += 1
    machine.clock.move(hours=2)
    raw.answer = answer
    try:
        REQUESTS[request](client)
    except AtomSyncError as error:
        check_error(error)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[RawServer]:
    server = RawServer()
    server.answer = answer_with()
    yield server
    server.stop()


@fuzzing(40)
@given(data=st.data(), request=st.sampled_from(sorted(REQUESTS)), status=st.sampled_from([301, 302, 303, 307, 308]))
def test_redirects(
    raw: RawServer,
    elsewhere: RawServer,
    machine: Machine,
    client: MarketplaceClient,
    data: st.DataObject,
    request: str,
    status: int,
) -> None:
    tried["redirects"] += 1
    machine.clock.move(hours=2)
    others = [
        url.replace("127.0.0.1", host).encode() for url in (elsewhere.url,) for host in ("127.0.0.1", "localhost")
    ]
    place = data.draw(places(*others, *(url.removeprefix(b"http:") for url in others), raw.url.encode()))
    first = len(raw.heads)
    raw.answer = lambda _: (
        answer_with(b"Location: " + place, status=status) if len(raw.heads) == first + 1 else answer_with()
    )
    try:
        REQUESTS[request](client)
    except AtomSyncError as error:
        check_error(error)
    assert elsewhere.heads == []


@fuzzing(40)
@given(st.one_of(answers(), broken(answers()), st.binary()))
@example(answer_with(b"Date: Thu, 19 Feb 2026 12:00:00 -0000"))
@example(answer_with(b"Date: Mon, 01 Jan 99999999999 00:00:00 GMT"))
def test_the_doctor(raw: RawServer, machine: Machine, answer: bytes) -> None:
    tried["answers of any bytes to the doctor"] += 1
    probe = Probe(
        api_url=raw.url,
        ws_url=raw.url.replace("http", "ws"),
        token=TOKEN,
        instance_id="fuzz",
        dialect=DIALECTS["v1"],
        timeout_seconds=10,
        ca_file=None,
        take=lambda: 0.0,
        now=machine.clock.now,
    )
    raw.answer = answer
    with closing(probe):
        for ask in (probe.health, probe.skills, probe.websocket):
            try:
                ask()
            except AtomSyncError as error:
                check_error(error)
