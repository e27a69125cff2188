"""Whole runs against a marketplace with arbitrary responses: a documented exit, no data lost, a valid database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgi_support import serving
from conftest import Machine
from database_rules import check_rules
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import broken, categories, frames, fuzzing, pages, tried
from starlette.types import Receive, Scope, Send

from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.model import STRATEGIES, Strategy
from atom_saas_sync.usecases.follow_events import EventFollower

KNOWN = [{"skill_id": f"known-{number}", "name": f"Known {number}", "version": "1.0.0"} for number in range(3)]
GOOD_PAGE = json.dumps({"skills": KNOWN, "total": len(KNOWN)}).encode()
GOOD_CATEGORIES = json.dumps({"categories": [{"name": "tools"}]}).encode()
CODES = {0, 4, 65, 69, 75}


class Answering:
    """A marketplace with scripted responses; it never confirms a deletion."""

    token = "at_saas_fuzz_0001"
    ws_url = "ws://127.0.0.1:1/ws"

    def __init__(self) -> None:
        self.url = ""
        self.page, self.categories = GOOD_PAGE, GOOD_CATEGORIES
        self.headers: dict[str, bytes] = {}

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        path, status = scope["path"], 200
        if path.endswith("/categories"):
            body = self.categories
        elif path.endswith("/skills"):
            # As a list that is not held together by pages: the second is empty.
            body = self.page if b"page=1&" in scope["query_string"] + b"&" else b'{"skills":[]}'
        else:
            body, status = b"{}", 500
        headers = [(name.encode("latin-1", "replace"), value) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def answering() -> Iterator[Answering]:
    marketplace = Answering()
    with serving(marketplace) as port:
        marketplace.url = f"http://127.0.0.1:{port}"
        yield marketplace


@pytest.fixture(scope="module")
def facing(answering: Answering, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    marketplace: Any = answering  # has all that a pull needs of a sandbox
    return Machine(marketplace, tmp_path_factory.mktemp("fuzz"))


def start_again(machine: Machine, answering: Answering) -> None:
    """Reset the machine's cache to the known skills."""
    answering.page, answering.categories, answering.headers = GOOD_PAGE, GOOD_CATEGORIES, {}
    if machine.database.exists():
        for table in ("skill_cache", "skill_base", "conflict_log", "http_validator", "last_message"):
            machine.sql(f"DELETE FROM {table}")
    assert machine.pull(categories=False, force=True).status == "success"


def check_run(
    machine: Machine, answering: Answering, body: bytes, categories: bytes, headers: dict[str, bytes]
) -> None:
    before = machine.cached()
    answering.page, answering.categories, answering.headers = body, categories, headers
    report = machine.pull(per_minute=10**5, deadline=600, force=True)
    assert report.exit_code in CODES, report
    assert (report.status == "success") == (report.exit_code == 0), report
    assert report.counts.deleted == 0
    assert before.keys() <= machine.cached().keys()
    assert check_rules(machine.database) == []


NO_HEADERS: dict[str, bytes] = {}
_HEADER_VALUES = (b"", b"0", b"-1", b"9" * 400, b"1e400", b"nan", b'W/"x"', b'"\xff"', b"Thu, 01 Jan 1970", b"10")
HEADER_NAMES = ("etag", "retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "date")
header_sets = st.dictionaries(
    st.sampled_from(HEADER_NAMES),
    st.one_of(
        st.sampled_from(
            [b"", b"0", b"-1", b"9" * 400, b"1e400", b"nan", b'W/"x"', b'"\xff"', b"Thu, 01 Jan 1970", b"10"]
        ),
        st.binary(max_size=12).map(lambda text: bytes(each for each in text if each >= 32 and each != 127)),
    ),
)


@fuzzing(60)
@given(body=st.one_of(pages(), broken(pages())), listed=st.one_of(categories(), st.just(GOOD_CATEGORIES)))
@example(body=b'{"skills":[],"total":0}', listed=b'{"categories":[]}')
@example(body=b'{"skills":[],"total":{"\xed\xa0\x80":1}}', listed=b"[]")
def test_runs_against_answers_of_every_shape(facing: Machine, answering: Answering, body: bytes, listed: bytes) -> None:
    tried["whole runs, bodies"] += 1
    start_again(facing, answering)
    check_run(facing, answering, body, listed, NO_HEADERS)


@fuzzing(40)
@given(headers=header_sets)
def test_runs_against_headers_of_every_kind(facing: Machine, answering: Answering, headers: dict[str, bytes]) -> None:
    tried["whole runs, headers"] += 1
    start_again(facing, answering)
    facing.sql("DELETE FROM fact")
    facing.sql("DELETE FROM request_budget")
    check_run(facing, answering, GOOD_PAGE, GOOD_CATEGORIES, headers)
    facing.sql("DELETE FROM fact")


@fuzzing(60)
@given(st.lists(frames(), min_size=1, max_size=8), st.sampled_from(STRATEGIES))
def test_messages_that_are_applied(facing: Machine, answering: Answering, texts: list[str], strategy: Strategy) -> None:
    """The database accepts everything that the parser accepts, in one batch, and stays valid."""
    tried["messages that are applied"] += len(texts)
    start_again(facing, answering)
    facing.edit("known-0", description="mine")
    parsed = [parse_frame(text) for text in texts]
    news = [each for each in parsed if isinstance(each, Message) and each.brings_news]
    with facing.store() as store:
        EventFollower(store.events(history_versions=10), strategy=strategy).apply(news, facing.clock.now())
    assert check_rules(facing.database) == []


def test_the_real_command_ends_as_documented(facing: Machine, answering: Answering, tmp_path: Path) -> None:
    for body in (
        b"",
        b"\xff",
        b"[" * 5000,
        b'{"skills":17}',
        b'{"skills":[],"total":{"\xed\xa0\x80":1}}',
        b"\x00" * 99,
    ):
        start_again(facing, answering)
        answering.page = body
        result = facing.hurried("sync", "skills", "--json")
        assert result.returncode == 65, (body, result)
        assert "Traceback" not in result.stderr
        assert json.loads(result.stdout)["success"] is False
