"""The HTTP client against any bytes as an answer: what it has no use for is an error of its own kind, in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Machine
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import broken, categories, fuzzing, pages, skills, spelled, tried
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

_STATUSES = st.one_of(
    st.sampled_from([200, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 404, 405, 408, 409, 422, 429, 500, 503]),
    st.integers(100, 999),
)
_DATES = (
    b"Thu, 19 Feb 2026 12:00:00 GMT",
    b"Thu, 19 Feb 2026 12:00:00 -0000",
    b"Fri, 31 Dec 9999 23:59:59 -2359",
    b"Mon, 01 Jan 0001 00:00:00 +2359",
    b"Mon, 01 Jan 99999999999 00:00:00 GMT",
    b"Mon, 01 Jan 2026 00:00:00 +999999999999999",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
)
_PLACES = (b"/", b"", b"//[::1", b"http://[::g]/", b"?\xff", b"http://evil.example.org/", b"#", b"//x:y", b"/a b")
_PLAIN = st.binary(max_size=30).map(lambda value: bytes(each for each in value if each >= 32 and each != 127).strip())
_NUMBERS = st.sampled_from(
    [b"0", b"1", b"-1", b"9" * 400, b"\xb2", b"1e9", b"nan", b"0x10", b" 7 ", b"1, 2", b"60;w=1"]
)
_HEADERS = {
    b"Date": st.sampled_from(_DATES),
    b"Retry-After": st.one_of(_NUMBERS, st.sampled_from(_DATES)),
    b"ETag": st.sampled_from([b'"x"', b'W/"x"', b'"\xff"', b'"\xc3\xbc"', b"", b"*", b'"' + b"x" * 9000 + b'"']),
    b"Location": st.sampled_from(_PLACES),
    b"X-RateLimit-Limit": _NUMBERS,
    b"X-RateLimit-Remaining": _NUMBERS,
    b"X-RateLimit-Reset": _NUMBERS,
    b"Content-Encoding": st.sampled_from([b"gzip", b"zstd", b"br", b"identity", b"\xff", b"gzip, gzip"]),
    b"Content-Length": st.sampled_from([b"0", b"5", b"99999999999999999999", b"-1", b"5, 5", b"x"]),
    b"Transfer-Encoding": st.sampled_from([b"chunked", b"gzip, chunked", b"x"]),
    b"Content-Type": _PLAIN,
    b"X-Other": _PLAIN,
}
_BODIES = st.one_of(
    pages(),
    categories(),
    skills.map(lambda value: spelled(value, 1).encode()),
    st.sampled_from([b"", b"{}", b'{"rating_id":"7"}', b'{"skills":[],"total":0}', b"5\r\n{}   \r\n0\r\n\r\n"]),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw an answer as it goes over the wire."""
    names = draw(st.lists(st.sampled_from(sorted(_HEADERS)), max_size=6))
    lines = [b"HTTP/1.1 %d Whatever" % draw(_STATUSES)]
    lines += [name + b": " + draw(_HEADERS[name]) for name in names]
    return b"\r\n".join([*lines, b"", draw(_BODIES)])


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
    for ask in (probe.health, probe.skills, probe.websocket):
        try:
            ask()
        except AtomSyncError as error:
            check_error(error)
